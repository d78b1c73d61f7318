//! Secrets: handed over by systemd (`LoadCredential=`), never inline in configuration.
//!
//! Below systemd a credential is `$CREDENTIALS_DIRECTORY/<id>`. A command that an operator runs by
//! hand has no such directory and reads the file that systemd would have handed over,
//! `/etc/dinp/credentials/<id>`; its permissions decide who can.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A text that must not be seen: `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; every caller of this is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a credential cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The id is not a plain file name.
    #[error("credential id {0:?} is not a plain name")]
    Id(String),
    /// The file cannot be read.
    #[error("read credential {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file holds nothing.
    #[error("credential {} is empty", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The text is not what this credential must look like.
    #[error("credential {id} is malformed: {problem}")]
    Malformed {
        /// Which credential.
        id: String,
        /// What is wrong, without quoting the secret.
        problem: String,
    },
}

impl CredentialError {
    /// True when the credential simply does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

static FALLBACK: OnceLock<PathBuf> = OnceLock::new();

/// Sets the directory that is read where systemd hands over no credentials. The first call wins.
pub(crate) fn set_fallback_directory(directory: PathBuf) {
    FALLBACK.get_or_init(|| directory);
}

/// The directory that credentials are read from.
pub fn directory() -> PathBuf {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => PathBuf::from(directory),
        None => FALLBACK.get().cloned().unwrap_or_else(|| PathBuf::from("/etc/dinp/credentials")),
    }
}

/// Reads the credential `id`; a trailing line end is cut off.
pub fn read_credential(id: &str) -> Result<Secret, CredentialError> {
    read_in(&directory(), id)
}

/// Reads a secret from a file; a trailing line end is cut off.
pub fn read_secret_file(path: &Path) -> Result<Secret, CredentialError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| CredentialError::Read { path: path.to_owned(), source })?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(CredentialError::Empty { path: path.to_owned() });
    }
    Ok(Secret::new(text))
}

/// What a config section's `..._credential` / `..._file` pair stands for: the file where one is
/// named, else the named credential, else the credential `default_id`.
pub fn resolve(credential: Option<&str>, file: Option<&Path>, default_id: &str) -> Result<Secret, CredentialError> {
    match (file, credential) {
        (Some(file), _) => read_secret_file(file),
        (None, Some(id)) => read_credential(id),
        (None, None) => read_credential(default_id),
    }
}

fn read_in(directory: &Path, id: &str) -> Result<Secret, CredentialError> {
    let plain = !id.is_empty() && !id.starts_with('.') && !id.contains('/');
    if !plain {
        return Err(CredentialError::Id(id.to_owned()));
    }
    read_secret_file(&directory.join(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::Dir;

    #[test]
    fn reads_and_trims() {
        let dir = Dir::new();
        dir.write("mysql-server", "geheim\n");
        dir.write("empty", "\n");
        assert_eq!(read_in(dir.path(), "mysql-server").unwrap().expose(), "geheim");
        assert!(matches!(read_in(dir.path(), "empty"), Err(CredentialError::Empty { .. })));
        assert!(read_in(dir.path(), "none").unwrap_err().is_missing());
        assert!(matches!(read_in(dir.path(), "../passwd"), Err(CredentialError::Id(_))));
    }

    #[test]
    fn file_wins_over_credential() {
        let dir = Dir::new();
        dir.write("a", "from-file");
        let secret = resolve(Some("nothing"), Some(&dir.path().join("a")), "default").unwrap();
        assert_eq!(secret.expose(), "from-file");
    }

    #[test]
    fn is_never_printed() {
        let secret = Secret::new("geheim");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }
}
