//! Changed archives whose sums are right: readers would refuse nearly all others for those, and nothing behind would be tried.

use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;
use flate2::Crc;
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;
use lzma_rust2::{XzOptions, XzReader, XzWriter};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::{self, Read, Write};
use tar::Header;

const BLOCK: usize = 512;
/// Most bytes that are unpacked to be changed.
const MOST_UNPACKED: u64 = 256 << 10;

/// Changes the first so many bytes at random: its buffer, its size, and the most that it may become.
pub type Mutate<'a> = &'a dyn Fn(&mut [u8], usize, usize) -> usize;

/// Changes an archive of `size` bytes in its place; returns its new size, of at most `most`. One in eight is changed as it
/// stands, sums and packing too.
pub fn mutate(data: &mut [u8], size: usize, most: usize, seed: u32, change: Mutate<'_>) -> usize {
    let mut random = Random(seed | 1);
    let packing = Packing::of(&data[..size]);
    let changed = match packing {
        _ if random.below(8) == 0 => None,
        Packing::Other => None,
        Packing::Zip => Some(mended_zip(changed(&data[..size], change))),
        packing => packing.unpacked(&data[..size]).and_then(|tar| {
            let mut tar = changed_tar(tar, &mut random, change);
            mend_tar(&mut tar);
            packing.packed(&tar).ok()
        }),
    };
    match changed {
        Some(changed) if changed.len() <= most => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        _ => change(data, size, most),
    }
}

struct Random(u32);

impl Random {
    /// A number that is less than `bound`, which is at least 1.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound
    }
}

#[derive(Clone, Copy)]
enum Packing {
    Tar,
    Gz,
    Zst,
    Xz,
    Bz2,
    Zip,
    Other,
}

impl Packing {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zst,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Xz,
            [b'B', b'Z', b'h', ..] => Self::Bz2,
            [b'P', b'K', ..] => Self::Zip,
            _ if bytes.len() >= BLOCK && !bytes.starts_with(b"\x7fELF") => Self::Tar,
            _ => Self::Other,
        }
    }

    fn unpacked(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut tar = Vec::new();
        let reader: Box<dyn Read + '_> = match self {
            Self::Gz => Box::new(MultiGzDecoder::new(bytes)),
            Self::Zst => Box::new(StreamingDecoder::new(bytes).ok()?),
            Self::Xz => Box::new(XzReader::new_mem_limit(bytes, true, 32 << 10)),
            Self::Bz2 => Box::new(MultiBzDecoder::new(bytes)),
            Self::Tar => Box::new(bytes),
            Self::Zip | Self::Other => return None,
        };
        // What is damaged further on is changed before that.
        drop(reader.take(MOST_UNPACKED).read_to_end(&mut tar));
        (tar.len() >= BLOCK).then_some(tar)
    }

    fn packed(self, tar: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gz => {
                let mut writer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(tar)?;
                writer.finish()
            }
            Self::Zst => Ok(compress_to_vec(tar, CompressionLevel::Fastest)),
            Self::Xz => {
                let mut options = XzOptions::with_preset(0);
                options.lzma_options.dict_size = 64 << 10;
                let mut writer = XzWriter::new(Vec::new(), options)?;
                writer.write_all(tar)?;
                writer.finish()
            }
            Self::Bz2 => {
                let mut writer = BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                writer.write_all(tar)?;
                writer.finish()
            }
            Self::Tar | Self::Zip | Self::Other => Ok(tar.to_vec()),
        }
    }
}

fn changed(bytes: &[u8], change: Mutate<'_>) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let most = bytes.len() + 256;
    changed.resize(most, 0);
    let size = change(&mut changed, bytes.len(), most);
    changed.truncate(size);
    changed
}

/// Changes one block, or moves some: a tar of which a byte is missing is no tar behind that.
fn changed_tar(mut tar: Vec<u8>, random: &mut Random, change: Mutate<'_>) -> Vec<u8> {
    let blocks = tar.len() / BLOCK;
    let (from, to) = (random.below(blocks) * BLOCK, random.below(blocks) * BLOCK);
    match random.below(16) {
        0 => return changed(&tar, change),
        1 => drop(tar.drain(from..from + BLOCK)),
        2 | 3 => {
            let copied: Vec<u8> = tar[from..tar.len().min(from + BLOCK * (1 + random.below(4)))].to_vec();
            tar.splice(to..to, copied);
        }
        _ => {
            let mut block = changed(&tar[from..from + BLOCK], change);
            block.resize(BLOCK, 0);
            tar[from..from + BLOCK].copy_from_slice(&block);
        }
    }
    tar
}

/// Puts the sums of a tar's headers right, as far as one can be found after the other.
fn mend_tar(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + BLOCK) {
        if block.iter().any(|byte| *byte != 0) {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
            let size = header.entry_size().unwrap_or(0).min(MOST_UNPACKED) as usize;
            at += size.next_multiple_of(BLOCK);
        }
        at += BLOCK;
    }
}

/// Puts the sums of a zip file right, and where its parts say that others are.
fn mended_zip(mut zip: Vec<u8>) -> Vec<u8> {
    let places =
        |zip: &[u8], sign: &[u8]| -> Vec<usize> { (0..zip.len()).filter(|at| zip[*at..].starts_with(sign)).collect() };
    let (locals, records) = (places(&zip, b"PK\x03\x04"), places(&zip, b"PK\x01\x02"));
    for (local, record) in locals.iter().zip(&records) {
        if let Some(sum) = sum(&zip, *local, *record) {
            zip[local + 14..local + 18].copy_from_slice(&sum.to_le_bytes());
            zip[record + 16..record + 20].copy_from_slice(&sum.to_le_bytes());
        }
        set(&mut zip, record + 42, *local);
    }
    if let (Some(end), Some(first)) = (places(&zip, b"PK\x05\x06").last(), records.first()) {
        let directory_end = places(&zip, b"PK\x06\x06").last().map_or(*end, |wide| *wide);
        set(&mut zip, end + 12, directory_end.saturating_sub(*first));
        set(&mut zip, end + 16, *first);
    }
    zip
}

/// Puts a number in its place, unless what stands there says that it is elsewhere.
fn set(zip: &mut [u8], at: usize, number: usize) {
    if let Some(field) = zip.get_mut(at..at + 4).filter(|field| *field != [0xff; 4]) {
        field.copy_from_slice(&(number as u32).to_le_bytes());
    }
}

/// The sum of an entry's content.
fn sum(zip: &[u8], local: usize, record: usize) -> Option<u32> {
    let u16_at = |at: usize| Some(usize::from(u16::from_le_bytes(zip.get(at..at + 2)?.try_into().ok()?)));
    let u32_at = |at: usize| Some(u32::from_le_bytes(zip.get(at..at + 4)?.try_into().ok()?) as usize);
    let data = local + 30 + u16_at(local + 26)? + u16_at(local + 28)?;
    let packed = zip.get(data..data + u32_at(record + 20)?)?;
    let mut content = Vec::new();
    match u16_at(record + 10)? {
        0 => content.extend_from_slice(packed),
        _ => drop(DeflateDecoder::new(packed).take(MOST_UNPACKED).read_to_end(&mut content)),
    }
    let mut crc = Crc::new();
    crc.update(&content);
    (zip.len() >= record + 20).then(|| crc.sum())
}
