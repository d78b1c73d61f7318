//! Bytes of a package: the spooled file, and readers with limits.

use super::deadline::Deadline;
use super::error::{self, PackageError};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// A package as it arrived.
#[derive(Debug, Clone)]
pub struct Spooled {
    file: Arc<File>,
    len: u64,
    sha256: String,
    deadline: Option<Deadline>,
}

impl Spooled {
    /// A file that is complete; `sha256` is in hexadecimal.
    pub fn new(file: File, len: u64, sha256: String) -> Self {
        Self { file: Arc::new(file), len, sha256, deadline: None }
    }

    /// Its size.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// SHA-256 of its bytes in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The same, whose readers fail after this time.
    pub(super) fn within(&self, limit: Duration) -> Self {
        Self { deadline: Some(Deadline::after(limit)), ..self.clone() }
    }

    /// By when it is to be read.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A reader of the whole; readers do not disturb each other.
    pub(super) fn view(&self) -> View {
        self.section(0, self.len)
    }

    /// A reader of a part, which ends at the file's end at the latest.
    pub(super) fn section(&self, from: u64, len: u64) -> View {
        let end = from.saturating_add(len).min(self.len);
        View { file: self.file.clone(), at: from.min(end), end, deadline: self.deadline }
    }

    /// The first bytes, at most so many.
    pub(super) fn head(&self, most: u64) -> Result<Vec<u8>, PackageError> {
        self.bytes(0, most)
    }

    /// The bytes of a part, fewer where the file ends.
    pub(super) fn bytes(&self, from: u64, len: u64) -> Result<Vec<u8>, PackageError> {
        let mut bytes = Vec::new();
        self.section(from, len)
            .read_to_end(&mut bytes)
            .map_err(|error| error::ours(error).unwrap_or_else(PackageError::Spool))?;
        Ok(bytes)
    }
}

/// Reads a part of a spooled file.
#[derive(Debug)]
pub(super) struct View {
    file: Arc<File>,
    at: u64,
    end: u64,
    deadline: Option<Deadline>,
}

impl Read for View {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.deadline.map_or(Ok(()), Deadline::check)?;
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..most], self.at);
        let read = read.map_err(|error| error::wrap(PackageError::Spool(error)))?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Refuses to read on once more was unpacked than is allowed, or for longer: few packed bytes can be many.
#[derive(Debug)]
pub(super) struct Metered<R> {
    inner: R,
    left: u64,
    most: u64,
    deadline: Option<Deadline>,
}

impl<R> Metered<R> {
    pub(super) fn new(inner: R, most: u64, deadline: Option<Deadline>) -> Self {
        Self { inner, left: most, most, deadline }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.deadline.map_or(Ok(()), Deadline::check)?;
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| error::wrap(too_large(self.most)))?;
        Ok(read)
    }
}

pub(super) fn too_large(most: u64) -> PackageError {
    PackageError::Limit(format!("it unpacks to more than {} MiB, which is more than its size allows", most >> 20))
}
