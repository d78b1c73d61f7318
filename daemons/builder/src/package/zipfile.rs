//! The zip format, read strictly: the directory at the end and the headers before each entry must agree, no two
//! entries may share bytes, and size and CRC of each are verified.
//!
//! Readers differ in which of the two places they believe; a library that believes one of them cannot tell
//! when the other says something else.

use super::deadline::Deadline;
use super::error::{self, PackageError};
use super::source::{Spooled, too_large};
use super::tree::{EntryKind, Tree};
use super::{Format, Visit};
use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::io::{self, Read};

const END_SIZE: usize = 22;
const LOCATOR_SIZE: usize = 20;
const END64_SIZE: usize = 56;
const EXTRA_ZIP64: u16 = 1;
/// What stands in a field of 32 bits whose value is elsewhere, because it has 64.
const ELSEWHERE: u64 = 0xffff_ffff;
const LONGEST_COMMENT: usize = 65_535;
const RECORD_SIZE: usize = 46;
const LOCAL_SIZE: usize = 30;
const FLAG_ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const FLAG_SIZES_FOLLOW: u16 = 1 << 3;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const LONGEST_LINK: u64 = 1024;
/// Where macOS' Finder puts what its own file system knows of the files: nobody's content.
const FINDERS_OWN: &[u8] = b"__MACOSX/";
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

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// One entry of the directory.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: Vec<u8>,
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
    let (records, end) = directory(spooled, tree.most_entries())?;
    let total = records.iter().fold(0_u64, |total, record| total.saturating_add(record.size));
    if total > most {
        return Err(too_large(most));
    }
    // Before the first is unpacked: many entries on the same bytes would be unpacked many times.
    let places: Vec<u64> = records.iter().map(|record| locate(spooled, record, end)).collect::<Result<_, _>>()?;
    let mut used: Vec<(u64, u64)> =
        records.iter().zip(&places).map(|(record, data)| (record.offset, data + record.packed)).collect();
    used.sort_unstable();
    if used.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(corrupt("entries overlap"));
    }
    let wanted = records.iter().zip(places).filter(|(record, _)| !record.name.starts_with(FINDERS_OWN));
    for (record, data) in wanted {
        emit(spooled, record, data, tree, visit)?;
    }
    Ok(())
}

/// Reads the directory, of so many entries at most; returns it and where it begins.
pub(super) fn directory(spooled: &Spooled, most_entries: usize) -> Result<(Vec<Record>, u64), PackageError> {
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
    if u16_at(end, 4) != 0 || u16_at(end, 6) != 0 || u16_at(end, 8) != u16_at(end, 10) {
        return Err(corrupt("it is one part of several"));
    }
    let at = tail_from + at as u64;
    let narrow =
        End { at, count: u16_at(end, 10).into(), size: u32_at(end, 12).into(), offset: u32_at(end, 16).into() };
    let End { at, count, size, offset } = match end64(spooled, at)? {
        Some(wide) => {
            // Writers fill the narrow fields in where the values fit.
            let agrees = |narrow: u64, wide: u64, most: u64| narrow == wide || narrow == most;
            let all_agree = agrees(narrow.count, wide.count, 0xffff)
                && agrees(narrow.size, wide.size, ELSEWHERE)
                && agrees(narrow.offset, wide.offset, ELSEWHERE);
            if !all_agree {
                return Err(corrupt("its two ends disagree"));
            }
            wide
        }
        None => narrow,
    };
    if offset.checked_add(size) != Some(at) {
        return Err(corrupt("its directory is not where it should be"));
    }
    if size > LARGEST_DIRECTORY {
        let most = LARGEST_DIRECTORY >> 20;
        return Err(PackageError::Limit(format!("its directory is larger than {most} MiB: send a tar.gz")));
    }
    if count > most_entries as u64 {
        return Err(PackageError::Limit(format!("it holds more than {most_entries} entries")));
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

/// What the end of a file says of its directory.
struct End {
    /// Where the end itself begins.
    at: u64,
    /// Number of entries.
    count: u64,
    /// Bytes of the directory.
    size: u64,
    /// Where it begins.
    offset: u64,
}

/// The end of a zip64 file, if it is one; `end_at` is where the end begins that all zip files have.
fn end64(spooled: &Spooled, end_at: u64) -> Result<Option<End>, PackageError> {
    let Some(locator_at) = end_at.checked_sub(LOCATOR_SIZE as u64) else { return Ok(None) };
    let locator = spooled.bytes(locator_at, LOCATOR_SIZE as u64)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(None);
    }
    let at = u64_at(&locator, 8);
    let end = spooled.bytes(at, END64_SIZE as u64)?;
    let is_end = end.len() == END64_SIZE
        && end.starts_with(b"PK\x06\x06")
        && at.checked_add(12).and_then(|at| at.checked_add(u64_at(&end, 4))) == Some(locator_at);
    if !is_end {
        return Err(corrupt("the end of its directory is not where it should be"));
    }
    let is_one =
        u32_at(&locator, 4) == 0 && u32_at(&locator, 16) == 1 && u32_at(&end, 16) == 0 && u32_at(&end, 20) == 0;
    if !is_one || u64_at(&end, 24) != u64_at(&end, 32) {
        return Err(corrupt("it is one part of several"));
    }
    Ok(Some(End { at, count: u64_at(&end, 32), size: u64_at(&end, 40), offset: u64_at(&end, 48) }))
}

/// Values that have 64 bits, from an extra field, for those that do not stand in the header; in their order there.
fn widened<const N: usize>(narrow: [u64; N], extra: &[u8]) -> Option<[u64; N]> {
    if !narrow.contains(&ELSEWHERE) {
        return Some(narrow);
    }
    let mut rest = extra;
    while rest.len() >= 4 {
        let (id, length) = (u16_at(rest, 0), usize::from(u16_at(rest, 2)));
        let field = rest.get(4..4 + length)?;
        if id == EXTRA_ZIP64 {
            let mut wide = field.chunks_exact(8).map(|bytes| u64_at(bytes, 0));
            let mut values = narrow;
            for value in values.iter_mut().filter(|value| **value == ELSEWHERE) {
                *value = wide.next()?;
            }
            return Some(values);
        }
        rest = &rest[4 + length..];
    }
    None
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
    // 3 is Unix, and 19 macOS; what others say of a file is no mode.
    let made_on_unix = matches!(bytes[5], 3 | 19);
    let extra = &bytes[RECORD_SIZE + name_length..][..usize::from(u16_at(bytes, 30))];
    let narrow = [u32_at(bytes, 24), u32_at(bytes, 20), u32_at(bytes, 42)].map(u64::from);
    let Some([size, packed, offset]) = widened(narrow, extra) else {
        return Err(corrupt("a size of 64 bits is missing in its directory"));
    };
    let record = Record {
        name: bytes[RECORD_SIZE..RECORD_SIZE + name_length].to_vec(),
        unix_mode: made_on_unix.then(|| u32_at(bytes, 38) >> 16),
        flags: u16_at(bytes, 8),
        method: u16_at(bytes, 10),
        modified: unix_time(u16_at(bytes, 14), u16_at(bytes, 12)),
        crc: u32_at(bytes, 16),
        packed,
        size,
        offset,
    };
    Ok((record, length))
}

/// Compares the header before an entry with the directory, which begins at `end`; returns where its data begins.
pub(super) fn locate(spooled: &Spooled, record: &Record, end: u64) -> Result<u64, PackageError> {
    let refuse = |rule: &str| Err::<u64, _>(PackageError::entry(&record.name, rule));
    if record.flags & FLAG_ENCRYPTED != 0 {
        return refuse("it is encrypted");
    }
    if record.method != STORED && record.method != DEFLATED {
        return refuse("it is compressed in a way other than deflate");
    }
    if record.offset >= end {
        return refuse("the directory points behind the entries");
    }
    let header = spooled.bytes(record.offset, LOCAL_SIZE as u64)?;
    if header.len() < LOCAL_SIZE || !header.starts_with(b"PK\x03\x04") {
        return refuse("the directory points to no entry");
    }
    let (flags, method) = (u16_at(&header, 6), u16_at(&header, 8));
    let (name_length, extra_length) = (u64::from(u16_at(&header, 26)), u64::from(u16_at(&header, 28)));
    let name = spooled.bytes(record.offset + LOCAL_SIZE as u64, name_length)?;
    let extra = spooled.bytes(record.offset + LOCAL_SIZE as u64 + name_length, extra_length)?;
    let crc = u32_at(&header, 14);
    let Some([size, packed]) = widened([u32_at(&header, 22), u32_at(&header, 18)].map(u64::from), &extra) else {
        return refuse("a size of 64 bits is missing in its header");
    };
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
    let data = record.offset + LOCAL_SIZE as u64 + name_length + extra_length;
    if data.checked_add(record.packed).is_none_or(|data_end| data_end > end) {
        return refuse("its data reaches into the directory");
    }
    Ok(data)
}

/// The content of an entry whose data begins at `data`.
pub(super) fn content(spooled: &Spooled, record: &Record, data: u64) -> impl Read {
    let packed = spooled.section(data, record.packed);
    let content: Box<dyn Read> =
        if record.method == DEFLATED { Box::new(DeflateDecoder::new(packed)) } else { Box::new(packed) };
    Checked { content, left: record.size, crc: Crc::new(), expected: record.crc, deadline: spooled.deadline() }
}

fn emit(
    spooled: &Spooled,
    record: &Record,
    data: u64,
    tree: &mut Tree,
    visit: &mut Visit<'_>,
) -> Result<(), PackageError> {
    let refuse = |rule: &str| Err(PackageError::entry(&record.name, rule));
    let mut content = content(spooled, record, data);
    let mut head = Vec::new();
    let named_directory = record.name.ends_with(b"/");
    let kind = match record.unix_mode.unwrap_or(0) & 0o170_000 {
        0o040_000 => EntryKind::Directory,
        0 if named_directory => EntryKind::Directory,
        0 | 0o100_000 if named_directory => return refuse("it is a file whose name ends with /"),
        0 | 0o100_000 => {
            let executable = match record.unix_mode {
                Some(mode) => mode & 0o111 != 0,
                // Windows knows no such mode, and its users mean programs and scripts to be started.
                None => {
                    let read = content.by_ref().take(4).read_to_end(&mut head);
                    read.map_err(|error| error::reading(Format::Zip, error))?;
                    head.starts_with(b"#!") || head.starts_with(b"\x7fELF")
                }
            };
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
    let mut content = head.as_slice().chain(content);
    let visited = visit(&entry, &mut content).and_then(|()| io::copy(&mut content, &mut io::sink()).map(drop));
    visited.map_err(|error| match error::reading(Format::Zip, error) {
        PackageError::Corrupt { problem, .. } => corrupt(format!("entry \"{}\": {problem}", entry.path)),
        other => other,
    })
}

/// Content that must have the size and CRC that the directory says, and is read in time.
struct Checked {
    content: Box<dyn Read>,
    left: u64,
    crc: Crc,
    expected: u32,
    deadline: Option<Deadline>,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.deadline.map_or(Ok(()), Deadline::check)?;
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
