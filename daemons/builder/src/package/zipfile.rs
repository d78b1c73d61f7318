//! The zip format, read strictly: the directory at the end and the headers before each entry must agree, no two
//! entries may share bytes, and size and CRC of each are verified.
//!
//! Readers differ in which of the two places they believe; a library that believes one of them cannot tell
//! when the other says something else.

use super::error::{self, PackageError};
use super::source::{Spooled, too_large};
use super::tree::{EntryKind, Tree};
use super::{Format, Visit};
use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::io::{self, Read};

const END_SIZE: usize = 22;
const LONGEST_COMMENT: usize = 65_535;
const RECORD_SIZE: usize = 46;
const LOCAL_SIZE: usize = 30;
const FLAG_ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const FLAG_SIZES_FOLLOW: u16 = 1 << 3;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const LONGEST_LINK: u64 = 1024;
/// Largest directory that is read, which is done as a whole: the most entries of a zip file with names of usual length.
const LARGEST_DIRECTORY: u64 = 32 << 20;

fn corrupt(problem: impl Into<String>) -> PackageError {
    PackageError::Corrupt { format: Format::Zip, problem: problem.into() }
}

fn truncated(problem: impl Into<String>) -> PackageError {
    PackageError::Truncated { format: Format::Zip, problem: problem.into() }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// One entry of the directory.
#[derive(Debug)]
struct Record {
    name: Vec<u8>,
    unix_mode: Option<u32>,
    flags: u16,
    method: u16,
    modified: u64,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
}

/// Hands each entry of an archive to `visit`, in the order of its directory.
pub(super) fn walk(spooled: &Spooled, most: u64, tree: &mut Tree, visit: &mut Visit<'_>) -> Result<(), PackageError> {
    let (records, end) = directory(spooled)?;
    let total = records.iter().fold(0_u64, |total, record| total.saturating_add(record.size));
    if total > most {
        return Err(too_large(most));
    }
    let mut used: Vec<(u64, u64)> = Vec::with_capacity(records.len());
    for record in &records {
        let data = locate(spooled, record)?;
        if data + record.packed > end {
            return Err(PackageError::entry(&record.name, "its data reaches into the directory"));
        }
        used.push((record.offset, data + record.packed));
        emit(spooled, record, data, tree, visit)?;
    }
    used.sort_unstable();
    if used.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(corrupt("entries overlap"));
    }
    Ok(())
}

/// Reads the directory; returns it and where it begins.
fn directory(spooled: &Spooled) -> Result<(Vec<Record>, u64), PackageError> {
    let len = spooled.len();
    let tail_from = len.saturating_sub((END_SIZE + LONGEST_COMMENT) as u64);
    let tail = spooled.bytes(tail_from, len - tail_from)?;
    let is_end = |at: usize| {
        tail[at..].starts_with(b"PK\x05\x06") && at + END_SIZE + usize::from(u16_at(&tail, at + 20)) == tail.len()
    };
    let mut ends = (0..tail.len().saturating_sub(END_SIZE - 1)).filter(|at| is_end(*at));
    let Some(at) = ends.next() else { return Err(truncated("the directory at its end is missing")) };
    if ends.next().is_some() {
        return Err(corrupt("it has two ends"));
    }
    let end = &tail[at..];
    let (count, size, offset) = (u16_at(end, 10), u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
    if count == u16::MAX || size == u64::from(u32::MAX) || offset == u64::from(u32::MAX) {
        return Err(PackageError::Limit("zip64 is not supported: send a tar.gz".into()));
    }
    if u16_at(end, 4) != 0 || u16_at(end, 6) != 0 || u16_at(end, 8) != count {
        return Err(corrupt("it is one part of several"));
    }
    if offset + size != tail_from + at as u64 {
        return Err(corrupt("its directory is not where it should be"));
    }
    if size > LARGEST_DIRECTORY {
        let most = LARGEST_DIRECTORY >> 20;
        return Err(PackageError::Limit(format!("its directory is larger than {most} MiB: send a tar.gz")));
    }
    let bytes = spooled.bytes(offset, size)?;
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    for _ in 0..count {
        let (record, length) = record(rest)?;
        records.push(record);
        rest = &rest[length..];
    }
    if !rest.is_empty() {
        return Err(corrupt("its directory holds more than it counts"));
    }
    Ok((records, offset))
}

fn record(bytes: &[u8]) -> Result<(Record, usize), PackageError> {
    if bytes.len() < RECORD_SIZE || !bytes.starts_with(b"PK\x01\x02") {
        return Err(corrupt("its directory is malformed"));
    }
    let name_length = usize::from(u16_at(bytes, 28));
    let length = RECORD_SIZE + name_length + usize::from(u16_at(bytes, 30)) + usize::from(u16_at(bytes, 32));
    if bytes.len() < length {
        return Err(corrupt("its directory is malformed"));
    }
    let made_on_unix = bytes[5] == 3;
    let record = Record {
        name: bytes[RECORD_SIZE..RECORD_SIZE + name_length].to_vec(),
        unix_mode: made_on_unix.then(|| u32_at(bytes, 38) >> 16),
        flags: u16_at(bytes, 8),
        method: u16_at(bytes, 10),
        modified: unix_time(u16_at(bytes, 14), u16_at(bytes, 12)),
        crc: u32_at(bytes, 16),
        packed: u64::from(u32_at(bytes, 20)),
        size: u64::from(u32_at(bytes, 24)),
        offset: u64::from(u32_at(bytes, 42)),
    };
    if [record.packed, record.size, record.offset].contains(&u64::from(u32::MAX)) {
        return Err(PackageError::Limit("zip64 is not supported: send a tar.gz".into()));
    }
    Ok((record, length))
}

/// Compares the header before an entry with the directory; returns where its data begins.
fn locate(spooled: &Spooled, record: &Record) -> Result<u64, PackageError> {
    let refuse = |rule: &str| Err(PackageError::entry(&record.name, rule));
    if record.flags & FLAG_ENCRYPTED != 0 {
        return refuse("it is encrypted");
    }
    if record.method != STORED && record.method != DEFLATED {
        return refuse("it is compressed in a way other than deflate");
    }
    let header = spooled.bytes(record.offset, LOCAL_SIZE as u64)?;
    if header.len() < LOCAL_SIZE || !header.starts_with(b"PK\x03\x04") {
        return refuse("the directory points to no entry");
    }
    let (flags, method) = (u16_at(&header, 6), u16_at(&header, 8));
    let (crc, packed, size) = (u32_at(&header, 14), u64::from(u32_at(&header, 18)), u64::from(u32_at(&header, 22)));
    let name_length = u64::from(u16_at(&header, 26));
    let name = spooled.bytes(record.offset + LOCAL_SIZE as u64, name_length)?;
    // Where these follow the data, each may be zero in the header instead; some writers fill in those that they know.
    let follow = flags & FLAG_SIZES_FOLLOW != 0;
    let same = |here: u64, there: u64| here == there || (follow && here == 0);
    let agrees = name == record.name
        && method == record.method
        && flags == record.flags
        && same(crc.into(), record.crc.into())
        && same(packed, record.packed)
        && same(size, record.size);
    if !agrees {
        return refuse("its header and the directory disagree");
    }
    Ok(record.offset + LOCAL_SIZE as u64 + name_length + u64::from(u16_at(&header, 28)))
}

fn emit(
    spooled: &Spooled,
    record: &Record,
    data: u64,
    tree: &mut Tree,
    visit: &mut Visit<'_>,
) -> Result<(), PackageError> {
    let refuse = |rule: &str| Err(PackageError::entry(&record.name, rule));
    let packed = spooled.section(data, record.packed);
    let content: Box<dyn Read> =
        if record.method == DEFLATED { Box::new(DeflateDecoder::new(packed)) } else { Box::new(packed) };
    let mut content = Checked { content, left: record.size, crc: Crc::new(), expected: record.crc };
    let named_directory = record.name.ends_with(b"/");
    let kind = match record.unix_mode.unwrap_or(0) & 0o170_000 {
        0o040_000 => EntryKind::Directory,
        0 if named_directory => EntryKind::Directory,
        0 | 0o100_000 if named_directory => return refuse("it is a file whose name ends with /"),
        0 | 0o100_000 => {
            let executable = record.unix_mode.is_some_and(|mode| mode & 0o111 != 0);
            EntryKind::File { size: record.size, executable }
        }
        0o120_000 if record.size > LONGEST_LINK => return refuse("the link's target is longer than 1024 bytes"),
        0o120_000 => {
            let mut target = String::new();
            content.read_to_string(&mut target).map_err(|error| error::reading(Format::Zip, error))?;
            EntryKind::Symlink { target }
        }
        0o020_000 | 0o060_000 => return refuse("it is a device"),
        0o010_000 => return refuse("it is a named pipe"),
        _ => return refuse("it is of a kind that packages cannot hold"),
    };
    if kind == EntryKind::Directory && record.size != 0 {
        return refuse("it is no file and yet has content");
    }
    let entry = tree.admit(&record.name, kind, record.modified)?;
    let visited = visit(&entry, &mut content).and_then(|()| io::copy(&mut content, &mut io::sink()).map(drop));
    visited.map_err(|error| match error::reading(Format::Zip, error) {
        PackageError::Corrupt { problem, .. } => corrupt(format!("entry \"{}\": {problem}", entry.path)),
        other => other,
    })
}

/// Content that must have the size and CRC that the directory says.
struct Checked {
    content: Box<dyn Read>,
    left: u64,
    crc: Crc,
    expected: u32,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let invalid = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem.to_owned());
        let read = self.content.read(buffer)?;
        self.left =
            self.left.checked_sub(read as u64).ok_or_else(|| invalid("it is larger than the directory says"))?;
        self.crc.update(&buffer[..read]);
        if read == 0 && self.left > 0 {
            return Err(invalid("it is smaller than the directory says"));
        }
        if read == 0 && self.crc.sum() != self.expected {
            return Err(invalid("its CRC is wrong"));
        }
        Ok(read)
    }
}

/// Seconds since 1970 of a DOS date and time, which have no zone and are taken as UTC.
fn unix_time(date: u16, time: u16) -> u64 {
    let field = |value: u16, from: u32, bits: u32| i8::try_from((value >> from) & ((1 << bits) - 1)).unwrap_or(0);
    let year = 1980 + i16::try_from(date >> 9).unwrap_or(0);
    let hours = (field(time, 11, 5), field(time, 5, 6), field(time, 0, 5).saturating_mul(2));
    jiff::civil::DateTime::new(year, field(date, 5, 4), field(date, 0, 5), hours.0, hours.1, hours.2, 0)
        .ok()
        .and_then(|moment| moment.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .map_or(0, |moment| u64::try_from(moment.timestamp().as_second()).unwrap_or(0))
}
