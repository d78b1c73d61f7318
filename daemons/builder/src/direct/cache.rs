//! What was found out once: each thing in a file of its own, because the builder ends when it is idle.

use dinp_common::auth::hex;
use dinp_common::error::ErrorChain;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What nobody has asked for so long is forgotten.
const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// A directory of findings. Losing it costs time alone.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Uses a directory, and forgets what is old.
    pub(crate) fn open(directory: PathBuf) -> Self {
        if let Err(error) = forget_old(&directory) {
            tracing::warn!(directory = %directory.display(), error = %ErrorChain(&error), "old findings stay");
        }
        Self { directory }
    }

    /// What was put under a key, unless it has been lost since.
    pub(crate) fn get<T: DeserializeOwned>(&self, kind: &str, key: &str) -> Option<T> {
        let path = self.path(kind, key);
        let found = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        // It is of use, and stays.
        fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now())).ok();
        Some(found)
    }

    pub(crate) fn put(&self, kind: &str, key: &str, value: &impl Serialize) {
        if let Err(error) = self.write(&self.path(kind, key), value) {
            tracing::warn!(directory = %self.directory.display(), error = %ErrorChain(&error), "a finding is not kept");
        }
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    fn path(&self, kind: &str, key: &str) -> PathBuf {
        self.directory.join(format!("{kind}-{}", hex(&Sha256::digest(key.as_bytes()))))
    }
}

/// Files of a crash in mid-write go the same way.
fn forget_old(directory: &Path) -> io::Result<()> {
    let files = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files {
        let file = file?;
        let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
        if age > KEPT {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;

    #[test]
    fn what_was_found_is_kept_while_it_is_of_use() {
        let dir = TestDir::new("builder-cache");
        let path = dir.path().join("cache");
        let cache = Cache::open(path.clone());
        assert_eq!(cache.get::<u32>("layer", "a"), None);
        cache.put("layer", "a", &7_u32);
        cache.put("base", "a", &8_u32);
        assert_eq!((cache.get("layer", "a"), cache.get("base", "a")), (Some(7_u32), Some(8)));
        let old = SystemTime::now() - KEPT * 2;
        for file in fs::read_dir(&path).unwrap() {
            fs::File::options().append(true).open(file.unwrap().path()).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(cache.get("layer", "a"), Some(7_u32));
        fs::write(cache.path("layer", "half"), "{").unwrap();
        assert_eq!(cache.get::<u32>("layer", "half"), None);
        let cache = Cache::open(path);
        assert_eq!((cache.get("layer", "a"), cache.get::<u32>("base", "a")), (Some(7_u32), None));
    }
}
