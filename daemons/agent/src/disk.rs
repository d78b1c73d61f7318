//! Files that survive a power cut: written beside, synced, renamed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why state cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Reading failed.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The content is not what was once written.
    #[error("decode {}", path.display())]
    Decode {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads what [`save`] wrote; none where there is no file.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiskError::Read { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| DiskError::Decode { path: path.to_owned(), source })
}

/// Replaces the file as a whole, readable by its owner only. When this returns, it is on the disk.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let text = serde_json::to_vec(value).map_err(|source| DiskError::Decode { path: path.to_owned(), source })?;
    write(path, &text).map_err(|source| DiskError::Write { path: path.to_owned(), source })
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn writes_whole_files_for_the_owner_only() {
        let dir = TestDir::new("agent-disk");
        let path = dir.path().join("a.json");
        assert_eq!(load::<Vec<u32>>(&path).unwrap(), None);
        save(&path, &vec![1, 2]).unwrap();
        save(&path, &vec![3]).unwrap();
        assert_eq!(load::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "[").unwrap();
        assert!(matches!(load::<Vec<u32>>(&path), Err(DiskError::Decode { .. })));
    }
}
