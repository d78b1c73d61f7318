//! Files that survive a power cut: written beside, synced, renamed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

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

/// A value and its file; clones are the same value.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    path: PathBuf,
    value: Arc<Mutex<T>>,
}

impl<T> Stored<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    /// Opens the file, or begins with the default.
    pub fn open(path: PathBuf) -> Result<Self, DiskError> {
        let value = load(&path)?.unwrap_or_default();
        Ok(Self { path, value: Arc::new(Mutex::new(value)) })
    }

    /// Changes the value; a change counts only once it is on the disk.
    pub async fn change<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, DiskError> {
        let this = self.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let mut value = this.value.lock().unwrap_or_else(PoisonError::into_inner);
            let mut next = value.clone();
            let result = change(&mut next);
            if next != *value {
                save(&this.path, &next)?;
                *value = next;
            }
            Ok(result)
        });
        match changed.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Looks at the value.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }
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

    #[tokio::test]
    async fn what_is_not_on_the_disk_does_not_count() {
        let dir = TestDir::new("agent-stored");
        let path = dir.path().join("a.json");
        let stored = Stored::<Vec<u32>>::open(path.clone()).unwrap();
        stored.change(|list| list.push(7)).await.unwrap();
        assert_eq!(Stored::<Vec<u32>>::open(path).unwrap().read(Vec::clone), [7]);
        let lost = Stored::<Vec<u32>>::open(dir.path().join("none/a.json")).unwrap();
        assert!(lost.change(|list| list.push(7)).await.is_err());
        assert!(lost.read(Vec::is_empty));
    }

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
