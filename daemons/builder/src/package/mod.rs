//! What users upload: an archive, or one program.
//!
//! [`Package::walk`] is the only way to its content, for the check and for the build alike. It parses once,
//! strictly, and refuses whatever two programs could understand differently; nothing is ever written to a path
//! that a user chose.

mod content;
mod deadline;
mod elf;
mod error;
mod inventory;
mod jar;
mod packed;
mod path;
pub mod pattern;
mod source;
mod tarball;
#[cfg(test)]
mod tests;
mod tree;
mod zipfile;

pub use error::PackageError;
pub use inventory::{Found, Inventory};
pub use source::Spooled;
pub use tree::{Entry, EntryKind};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufReader, Read};
use std::time::Duration;
use tree::Tree;

/// What a package is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// A tar archive, compressed by gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// A tar archive, compressed by zstd.
    #[serde(rename = "tar.zst")]
    TarZst,
    /// A tar archive, compressed by xz.
    #[serde(rename = "tar.xz")]
    TarXz,
    /// A tar archive, compressed by bzip2.
    #[serde(rename = "tar.bz2")]
    TarBz2,
    /// A tar archive.
    #[serde(rename = "tar")]
    Tar,
    /// A zip archive.
    #[serde(rename = "zip")]
    Zip,
    /// A Java web application: a zip archive with `WEB-INF/`.
    #[serde(rename = "war")]
    War,
    /// A Java program, which stays one file: a zip archive with a manifest.
    #[serde(rename = "jar")]
    Jar,
    /// One static executable.
    #[serde(rename = "executable")]
    Executable,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TarGz => "tar.gz",
            Self::TarZst => "tar.zst",
            Self::TarXz => "tar.xz",
            Self::TarBz2 => "tar.bz2",
            Self::Tar => "tar",
            Self::Zip => "zip",
            Self::War => "war",
            Self::Jar => "jar",
            Self::Executable => "executable",
        })
    }
}

impl Format {
    fn of(head: &[u8]) -> Option<Self> {
        let is_tar = head.len() >= 512 && tarball::is_header(&head[..512]);
        match head {
            [0x1f, 0x8b, ..] => Some(Self::TarGz),
            // A frame, or one that is to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::TarZst),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::TarXz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::TarBz2),
            // Or one of Java's, which is told by what is in it.
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            [0x7f, b'E', b'L', b'F', ..] => Some(Self::Executable),
            _ if is_tar => Some(Self::Tar),
            _ => None,
        }
    }
}

/// What a package may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most entries, and directories that only stand in the names of entries.
    pub entries: usize,
    /// Most bytes of all their names and of the targets of links.
    pub name_bytes: u64,
    /// Most bytes, unpacked.
    pub unpacked_bytes: u64,
    /// Most bytes unpacked for each packed byte; packages that unpack to little are let off.
    pub ratio: u64,
    /// Longest time for reading one whole.
    pub time: Duration,
}

/// Unpacked sizes up to this one are never a decompression bomb.
const RATIO_FREE_BYTES: u64 = 64 << 20;

#[cfg(test)]
impl Limits {
    /// Of tests that are not about limits.
    pub const WIDE: Self = Self {
        entries: 1000,
        name_bytes: 1 << 20,
        unpacked_bytes: 1 << 30,
        ratio: 1000,
        time: Duration::from_secs(600),
    };
}

impl Limits {
    fn unpacked(&self, packed: u64) -> u64 {
        self.unpacked_bytes.min(RATIO_FREE_BYTES.max(packed.saturating_mul(self.ratio)))
    }
}

/// Another number whenever something else is refused, or told of a package: what was found before counts no more.
const RULES: u32 = 4;

/// Takes an entry with its content; reads of the content fail where the package is damaged.
pub type Visit<'a> = dyn FnMut(&Entry, &mut dyn Read) -> std::io::Result<()> + 'a;

/// A package in the spool.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its bytes.
    pub spooled: Spooled,
    /// What it is.
    pub format: Format,
    limits: Limits,
}

impl Package {
    /// Sees what a spooled file is.
    pub fn open(spooled: Spooled, limits: Limits) -> Result<Self, PackageError> {
        let format = match Format::of(&spooled.head(512)?).ok_or(PackageError::NotAnArchive)? {
            Format::Zip => jar::kind(&spooled, limits.entries)?,
            format => format,
        };
        Ok(Self { spooled, format, limits })
    }

    /// Sees what a spooled file is and inspects it, all within its time. Who reads what was found to be sound has a limit of its
    /// own.
    pub fn examine(spooled: Spooled, limits: Limits, wanted: &[String]) -> Result<(Self, Inventory), PackageError> {
        let timed = Self::open(spooled.within(limits.time), limits)?;
        let inventory = timed.inspect(wanted)?;
        Ok((Self { spooled, ..timed }, inventory))
    }

    /// What was found to be sound before: a file of the same bytes, by the same rules.
    pub fn known(spooled: Spooled, format: Format, limits: Limits) -> Self {
        Self { spooled, format, limits }
    }

    /// By what a finding about a file of these bytes is found again, of one that was asked for these patterns.
    pub fn key(spooled: &Spooled, limits: Limits, wanted: &[String]) -> String {
        format!("{RULES} {limits:?} {wanted:?} {}", spooled.sha256())
    }

    /// Reads it whole and tells what it holds, most of all what the patterns in `wanted` stand for, or the first rule that it breaks.
    pub fn inspect(&self, wanted: &[String]) -> Result<Inventory, PackageError> {
        let mut inventory = Inventory::default();
        self.walk(&mut |entry, content| inventory.note(entry, content, wanted))?;
        if inventory.is_empty() {
            return Err(PackageError::Empty);
        }
        Ok(inventory)
    }

    /// Hands each entry to `visit`, in the order of the package.
    pub fn walk(&self, visit: &mut Visit<'_>) -> Result<(), PackageError> {
        let mut tree = Tree::new(self.limits);
        let most = self.limits.unpacked(self.spooled.len());
        let file = || BufReader::with_capacity(64 << 10, self.spooled.view());
        match self.format {
            Format::TarGz | Format::TarZst | Format::TarXz | Format::TarBz2 | Format::Tar => {
                let tar = source::Metered::new(packed::unpack(self.format, file()), most, self.spooled.deadline());
                tarball::walk(tar, self.format, &mut tree, visit)?;
            }
            Format::Zip | Format::War => zipfile::walk(&self.spooled, most, &mut tree, visit)?,
            Format::Jar | Format::Executable => {
                let (name, executable): (&[u8], _) = if self.format == Format::Jar {
                    jar::check(&self.spooled, self.limits.entries)?;
                    (b"app.jar", false)
                } else {
                    elf::check(&self.spooled)?;
                    (b"app", true)
                };
                let entry = tree.admit(name, EntryKind::File { size: self.spooled.len(), executable }, 0)?;
                visit(&entry, &mut file()).map_err(|error| error::reading(self.format, error))?;
            }
        }
        tree.check_links()
    }
}
