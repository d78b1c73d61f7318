//! Why a package is refused, as a sentence for the person who made it.

use super::Format;
use std::io;

/// A package that is not taken; the text names the entry and the rule.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Its first bytes are of no format that is known.
    #[error(
        "the package is not an archive: it must be a tar.gz, tar.zst, tar.xz, tar.bz2, tar, zip, war or jar file, or one static Linux executable"
    )]
    NotAnArchive,
    /// It has no entry.
    #[error("the package is empty: it holds no file")]
    Empty,
    /// An entry breaks a rule.
    #[error("entry \"{entry}\" is refused: {rule}")]
    Entry {
        /// Its name, made printable.
        entry: String,
        /// The rule.
        rule: String,
    },
    /// It is larger than is allowed.
    #[error("the package is refused: {0}")]
    Limit(String),
    /// It takes too long.
    #[error("the package is refused: reading it takes longer than {0} s, which is the limit of this builder")]
    TooSlow(u64),
    /// It ends too early.
    #[error("the {format} file is cut off: {problem}")]
    Truncated {
        /// What it seemed to be.
        format: Format,
        /// Where.
        problem: String,
    },
    /// It cannot be read.
    #[error("the {format} file is damaged: {problem}")]
    Corrupt {
        /// What it seemed to be.
        format: Format,
        /// How.
        problem: String,
    },
    /// One executable that does not run in an image.
    #[error("the executable is refused: {0}")]
    Executable(String),
    /// A Java archive that is no program.
    #[error("the jar file is refused: {0}")]
    Jar(String),
    /// The spool cannot be read: the builder's own trouble.
    #[error("read the spooled package")]
    Spool(#[source] io::Error),
    /// Whoever took the entries gave up: not the package's fault.
    #[error("hand on the package's entries")]
    Visitor(#[source] io::Error),
}

impl PackageError {
    pub(super) fn entry(name: &[u8], rule: impl Into<String>) -> Self {
        Self::Entry { entry: printable(name), rule: rule.into() }
    }

    /// Whether the package is at fault, and not the builder.
    pub fn is_of_the_package(&self) -> bool {
        !matches!(self, Self::Spool(_) | Self::Visitor(_))
    }
}

/// A name as it may be shown: control characters and bytes that are no UTF-8 as escapes, cut to 120 characters.
fn printable(name: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(name).chars().take(120) {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

/// An error of the package that travels through a reader.
pub(super) fn wrap(error: PackageError) -> io::Error {
    io::Error::other(error)
}

/// Whether it is such an error.
pub(super) fn is_ours(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<PackageError>())
}

/// The error of the package that it is, if it is one.
pub(super) fn ours(error: io::Error) -> Result<PackageError, io::Error> {
    error.downcast::<PackageError>()
}

/// What an error from reading (or from the visitor of) a package's content means.
pub(super) fn reading(format: Format, error: io::Error) -> PackageError {
    let error = match ours(error) {
        Ok(ours) => return ours,
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            PackageError::Truncated { format, problem: "it ends in the middle of an entry".into() }
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            PackageError::Corrupt { format, problem: error.to_string() }
        }
        _ => PackageError::Visitor(error),
    }
}
