//! The tar format, read strictly: ustar and GNU headers, GNU long names, and the pax records for name, link
//! and size. Whatever readers disagree about is refused, so that there is one meaning.

use super::error::{self, PackageError};
use super::tree::{EntryKind, Tree};
use super::{Format, Visit};
use std::io::{self, Read};
use tar::Header;

const BLOCK: usize = 512;
/// Longest extension header: names, and extended attributes that are ignored.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// Whether a block is a header, by its checksum.
pub(super) fn is_header(block: &[u8]) -> bool {
    checksum_fits(Header::from_byte_slice(block))
}

fn checksum_fits(header: &Header) -> bool {
    let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let bytes = header.as_bytes();
    let computed = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
    header.cksum().is_ok_and(|stored| stored == computed)
}

/// What extension headers say of the next entry.
#[derive(Debug, Default)]
struct Pending {
    gnu_name: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Pending {
    fn is_any(&self) -> bool {
        self.gnu_name.is_some() || self.gnu_link.is_some() || self.pax.is_some()
    }
}

#[derive(Debug, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<u64>,
}

/// Hands each entry of an archive to `visit`.
pub(super) fn walk(
    source: impl Read,
    format: Format,
    tree: &mut Tree,
    visit: &mut Visit<'_>,
) -> Result<(), PackageError> {
    let mut reader = Reader { source, format };
    let mut pending = Pending::default();
    loop {
        let block = reader.block()?;
        if block.iter().all(|byte| *byte == 0) {
            if pending.is_any() {
                return Err(reader.corrupt("it ends after an extension header"));
            }
            return reader.end();
        }
        let header = Header::from_byte_slice(&block);
        if !checksum_fits(header) {
            return Err(reader.corrupt("a header's checksum is wrong"));
        }
        // The label of the whole archive (tar -V) is no file; its size is left empty.
        if header.entry_type().as_byte() == b'V' && header.as_old().size.iter().all(|byte| *byte == 0) {
            continue;
        }
        let size = header.entry_size().map_err(|_| reader.corrupt("a header's size is not a number"))?;
        match header.entry_type().as_byte() {
            b'x' => set(&mut pending.pax, reader.pax(size)?, &reader)?,
            b'g' => {
                let global = reader.pax(size)?;
                if global.path.is_some() || global.link.is_some() || global.size.is_some() {
                    return Err(reader.corrupt("a global header sets names or sizes"));
                }
            }
            b'L' => set(&mut pending.gnu_name, reader.gnu_text(size)?, &reader)?,
            b'K' => set(&mut pending.gnu_link, reader.gnu_text(size)?, &reader)?,
            _ => {
                let pending = std::mem::take(&mut pending);
                reader.entry(header, size, pending, tree, visit)?;
            }
        }
    }
}

/// Seconds since 1970; what is older counts as 0. GNU tar writes such a time as a negative number in base 256.
fn time(header: &Header) -> Option<u64> {
    let is_negative = header.as_old().mtime[0] == 0xff;
    if is_negative { Some(0) } else { header.mtime().ok() }
}

fn set<T, R>(slot: &mut Option<T>, value: T, reader: &Reader<R>) -> Result<(), PackageError> {
    if slot.replace(value).is_some() {
        return Err(reader.corrupt("an entry has two extension headers of one kind"));
    }
    Ok(())
}

struct Reader<R> {
    source: R,
    format: Format,
}

impl<R> Reader<R> {
    fn corrupt(&self, problem: impl Into<String>) -> PackageError {
        PackageError::Corrupt { format: self.format, problem: problem.into() }
    }

    fn failed(&self, error: io::Error) -> PackageError {
        error::reading(self.format, error)
    }
}

impl<R: Read> Reader<R> {
    fn block(&mut self) -> Result<[u8; BLOCK], PackageError> {
        let mut block = [0; BLOCK];
        self.source.read_exact(&mut block).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let problem = "it ends without the mark for the end of the archive".into();
                PackageError::Truncated { format: self.format, problem }
            }
            _ => self.failed(error),
        })?;
        Ok(block)
    }

    /// Reads to the end of the file, so that gzip's checksum is verified; there must be nothing but zeros.
    fn end(mut self) -> Result<(), PackageError> {
        let mut buffer = [0; 8192];
        loop {
            match self.source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) if buffer[..read].iter().all(|byte| *byte == 0) => {}
                Ok(_) => return Err(self.corrupt("there is data after the end of the archive")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, PackageError> {
        if size > LONGEST_EXTENSION {
            return Err(PackageError::Limit("it holds an extension header of more than 1 MiB".into()));
        }
        let mut content = Vec::new();
        let source = &mut self.source;
        source.take(size).read_to_end(&mut content).map_err(|error| error::reading(self.format, error))?;
        if content.len() as u64 != size {
            return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.padding(size)?;
        Ok(content)
    }

    fn padding(&mut self, size: u64) -> Result<(), PackageError> {
        let rest = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let source = &mut self.source;
        let copied =
            io::copy(&mut source.take(rest), &mut io::sink()).map_err(|error| error::reading(self.format, error))?;
        if copied == rest { Ok(()) } else { Err(self.failed(io::ErrorKind::UnexpectedEof.into())) }
    }

    fn gnu_text(&mut self, size: u64) -> Result<Vec<u8>, PackageError> {
        let mut text = self.extension(size)?;
        if text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn pax(&mut self, size: u64) -> Result<Pax, PackageError> {
        let content = self.extension(size)?;
        parse_pax(&content).map_err(|problem| self.corrupt(problem))
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        pending: Pending,
        tree: &mut Tree,
        visit: &mut Visit<'_>,
    ) -> Result<(), PackageError> {
        let pax = pending.pax.unwrap_or_default();
        let name = choose(pending.gnu_name, pax.path).map_err(|problem| self.corrupt(problem))?;
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = choose(pending.gnu_link, pax.link).map_err(|problem| self.corrupt(problem))?;
        let link = link.or_else(|| header.link_name_bytes().map(|text| text.into_owned())).unwrap_or_default();
        let refuse = |rule: &str| Err(PackageError::entry(&name, rule));
        if pax.size.is_some_and(|other| other != size) {
            return refuse("its headers disagree about its size");
        }
        let modified = pax.modified.or_else(|| time(header)).unwrap_or(0).min(u64::from(u32::MAX));
        let as_text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
        let kind = match header.entry_type().as_byte() {
            b'0' | b'\0' | b'7' => {
                if name.ends_with(b"/") {
                    return refuse("it is a file whose name ends with /");
                }
                let executable = header.mode().is_ok_and(|mode| mode & 0o111 != 0);
                EntryKind::File { size, executable }
            }
            b'5' => EntryKind::Directory,
            b'2' => match as_text(link) {
                Some(target) => EntryKind::Symlink { target },
                None => return refuse("the link's target is not UTF-8"),
            },
            b'1' => match as_text(link) {
                Some(target) => EntryKind::Hardlink { target },
                None => return refuse("the link's target is not UTF-8"),
            },
            b'3' | b'4' => return refuse("it is a device"),
            b'6' => return refuse("it is a named pipe"),
            b'S' => return refuse("it is a sparse file"),
            _ => return refuse("it is of a kind that packages cannot hold"),
        };
        if size != 0 && !matches!(kind, EntryKind::File { .. }) {
            return refuse("it is no file and yet has content");
        }
        let entry = tree.admit(&name, kind, modified)?;
        let mut content = Content { source: (&mut self.source).take(size) };
        let visited = visit(&entry, &mut content).and_then(|()| io::copy(&mut content, &mut io::sink()).map(drop));
        visited.map_err(|error| error::reading(self.format, error))?;
        self.padding(size)
    }
}

/// The content of one entry; that it ends too early is an error.
struct Content<R> {
    source: io::Take<R>,
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if read == 0 && !buffer.is_empty() && self.source.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

fn choose(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, &'static str> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err("an entry has two long names that differ"),
        (gnu, pax) => Ok(pax.or(gnu)),
    }
}

/// Records of a pax header: `<length> <key>=<value>\n`, the length counting the whole record.
fn parse_pax(mut content: &[u8]) -> Result<Pax, &'static str> {
    const MALFORMED: &str = "a pax header is malformed";
    let mut pax = Pax::default();
    while !content.is_empty() {
        let space = content.iter().take(12).position(|byte| *byte == b' ').ok_or(MALFORMED)?;
        let digits = std::str::from_utf8(&content[..space]).map_err(|_| MALFORMED)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(MALFORMED);
        }
        let length: usize = digits.parse().map_err(|_| MALFORMED)?;
        if length <= space + 1 || length > content.len() || content[length - 1] != b'\n' {
            return Err(MALFORMED);
        }
        let record = &content[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        let once = |slot: &Option<Vec<u8>>| if slot.is_some() { Err("a pax header sets a name twice") } else { Ok(()) };
        match key {
            b"path" => {
                once(&pax.path)?;
                pax.path = Some(value.to_vec());
            }
            b"linkpath" => {
                once(&pax.link)?;
                pax.link = Some(value.to_vec());
            }
            b"size" => {
                let size = number().ok_or(MALFORMED)?;
                if pax.size.replace(size).is_some() {
                    return Err("a pax header sets a size twice");
                }
            }
            b"mtime" => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                let whole = text.split('.').next().and_then(|whole| whole.parse::<i64>().ok());
                pax.modified = whole.map(|secs| u64::try_from(secs).unwrap_or(0));
            }
            _ if key.starts_with(b"GNU.sparse.") => return Err("it holds a sparse file"),
            _ => {}
        }
        content = &content[length..];
    }
    Ok(pax)
}
