//! The ways in which a tar is packed, each as a reader of the tar.
//!
//! What a packed file asks of memory is bounded before it is given: the largest window that the tools make by themselves is
//! that of `xz -9`.

use super::{Format, error};
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

/// Most memory for looking back, in MiB: 64 of them are the window of `xz -9` and of `zstd --long=26`.
const WINDOW_MIB: u32 = 66;

/// The tar within.
pub(super) fn unpack<'a>(format: Format, packed: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    match format {
        Format::TarGz => Box::new(MultiGzDecoder::new(packed)),
        Format::TarZst => Box::new(Damaged(Frames::new(packed))),
        Format::TarXz => Box::new(Damaged(XzReader::new_mem_limit(packed, true, WINDOW_MIB << 10))),
        Format::TarBz2 => Box::new(Damaged(MultiBzDecoder::new(packed))),
        _ => Box::new(packed),
    }
}

/// Whatever keeps bytes from being unpacked is the package's fault, unless it says otherwise itself.
struct Damaged<R>(R);

impl<R: Read> Read for Damaged<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|found| match found.kind() {
            _ if error::is_ours(&found) => found,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::Interrupted => found,
            _ => io::Error::new(io::ErrorKind::InvalidData, found.to_string()),
        })
    }
}

/// Zstandard (RFC 8878): one frame after the other, with those between that are to be skipped.
struct Frames<R> {
    packed: R,
    decoder: FrameDecoder,
    is_within: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(packed: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(u64::from(WINDOW_MIB) << 20);
        Self { packed, decoder, is_within: false }
    }

    /// Goes on to the next frame; false where there is none.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.packed).take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(self.told(&error)),
            }
        }
        Ok(false)
    }

    /// A decoder does not say that its input has ended too soon.
    fn told(&mut self, error: &FrameDecoderError) -> io::Error {
        match self.packed.fill_buf() {
            Ok([]) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
            Err(error) => error,
        }
    }

    fn check(&self) -> io::Result<()> {
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(written), Some(found)) if written != found => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a checksum is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_within && self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.is_within && self.decoder.is_finished() {
                self.check()?;
                self.is_within = false;
            }
            if !self.is_within {
                self.is_within = self.begin()?;
                if !self.is_within {
                    return Ok(0);
                }
            }
            if !self.decoder.is_finished() {
                let decoded = self.decoder.decode_blocks(&mut self.packed, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(|error| self.told(&error))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{Limits, Package, PackageError, Spooled};
    use bzip2::write::BzEncoder;
    use lzma_rust2::{XzOptions, XzWriter};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;

    fn tar(files: usize) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for number in 0..files {
            let content = format!("content of {number}\n").repeat(1 + number * 500);
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("f{number}"), content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn bz2(bytes: &[u8]) -> Vec<u8> {
        let mut writer = BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn zst(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    type Pack = fn(&[u8]) -> Vec<u8>;

    const ALL: [(Format, Pack); 3] = [(Format::TarZst, zst), (Format::TarXz, xz), (Format::TarBz2, bz2)];

    fn entries(bytes: &[u8]) -> Result<usize, PackageError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let package = Package::open(Spooled::new(file, bytes.len() as u64, "00".into()), Limits::WIDE)?;
        let mut count = 0;
        package.walk(&mut |_, content| {
            count += 1;
            io::copy(content, &mut io::sink()).map(drop)
        })?;
        Ok(count)
    }

    #[test]
    fn each_gives_the_tar_that_was_packed_also_in_several_parts() {
        let tar = tar(20);
        let (one, other) = tar.split_at(tar.len() / 3);
        let skipped = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        for (format, pack) in ALL {
            let mut packed = [pack(one), pack(other)].concat();
            if format == Format::TarZst {
                packed = [&skipped[..], &packed, &skipped].concat();
            }
            let mut unpacked = Vec::new();
            unpack(format, &packed[..]).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == tar, "{format}");
            assert_eq!(entries(&packed).unwrap(), 20, "{format}");
        }
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_refused() {
        let tar = tar(20);
        for (format, pack) in ALL {
            let packed = pack(&tar);
            for part in 1..40 {
                let error = entries(&packed[..packed.len() * part / 40]).expect_err("half a package");
                assert!(error.is_of_the_package(), "{format} {part}: {error:?}");
            }
            let error = entries(&[&packed[..], b"more of something"].concat()).expect_err("something follows");
            assert!(error.is_of_the_package(), "{format}: {error:?}");
            for at in (16..packed.len()).step_by(packed.len() / 60) {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x10;
                // That it is taken can only mean that nothing has changed for anybody.
                match entries(&damaged) {
                    Err(error) => assert!(error.is_of_the_package(), "{format} {at}: {error:?}"),
                    Ok(count) => assert_eq!(count, 20, "{format} {at}"),
                }
            }
        }
    }

    #[test]
    fn none_gets_more_memory_than_tools_ask_for() {
        let zst = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
        let crc = |bytes: &[u8]| {
            let mut crc = flate2::Crc::new();
            crc.update(bytes);
            crc.sum().to_le_bytes()
        };
        // A stream without checks, and a block with a dictionary of 4 GiB.
        let block = [2, 0, 0x21, 1, 40, 0, 0, 0];
        let xz = [&[0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0][..], &crc(&[0, 0]), &block, &crc(&block), &[0; 64]].concat();
        for (format, bytes) in [("zst", &zst[..]), ("xz", &xz[..])] {
            let text = entries(bytes).expect_err("too much memory").to_string();
            assert!(text.contains("big") || text.contains("memory"), "{format}: {text}");
        }
    }
}
