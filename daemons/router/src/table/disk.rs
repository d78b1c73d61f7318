//! The last good table on disk, for a start without Redis.

use super::App;
use dinp_common::model::Version;
use dinp_common::routes::{AppRoutes, Table};
use serde::{Deserialize, Serialize, Serializer};
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE: &str = "routes.json";

/// What the file holds.
#[derive(Debug, Deserialize)]
pub(crate) struct Saved {
    /// The cluster that the table belongs to.
    cluster: String,
    /// The table's version.
    pub(crate) version: Version,
    /// The apps.
    apps: Vec<AppRoutes>,
}

/// The same to be written: one record at a time is made of the apps.
#[derive(Debug, Serialize)]
pub(crate) struct Saving<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) version: Version,
    #[serde(serialize_with = "records")]
    pub(crate) apps: &'a [Arc<App>],
}

fn records<S: Serializer>(apps: &[Arc<App>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(apps.iter().map(|app| app.record()))
}

impl Saved {
    /// The apps as a table.
    pub(crate) fn table(self) -> Table {
        self.apps.into_iter().map(|routes| (routes.app.clone(), routes)).collect()
    }
}

/// Why a table on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The file cannot be read or written.
    #[error("{act} the table {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The content makes no sense.
    #[error("understand the table {}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads the table of `cluster`; none where there is no file, or one of another cluster.
pub(crate) fn load(dir: &Path, cluster: &str) -> Result<Option<Saved>, DiskError> {
    let path = dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiskError::Io { act: "read", path, source }),
    };
    let saved: Saved =
        serde_json::from_slice(&text).map_err(|source| DiskError::Corrupt { path: path.clone(), source })?;
    if saved.cluster != cluster {
        tracing::warn!(path = %path.display(), cluster = saved.cluster, "the table on disk is another cluster's, not used");
        return Ok(None);
    }
    Ok(Some(saved))
}

/// Writes the table, so that after a crash at any moment the file holds the old or the new one.
pub(crate) fn save(dir: &Path, saved: &Saving<'_>) -> Result<(), DiskError> {
    let path = dir.join(FILE);
    let temporary = dir.join(format!("{FILE}.new"));
    let write = || {
        let mut file = BufWriter::new(File::create(&temporary)?);
        serde_json::to_writer(&mut file, saved).map_err(io::Error::other)?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| DiskError::Io { act: "write", path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;

    #[test]
    fn text_and_back() {
        let dir = TestDir::new("router-disk");
        assert!(load(dir.path(), "dinp").unwrap().is_none());
        let saved = Saving { cluster: "dinp", version: Version::new(3, 9), apps: &[] };
        save(dir.path(), &saved).unwrap();
        assert_eq!(load(dir.path(), "dinp").unwrap().unwrap().version, Version::new(3, 9));
        assert!(load(dir.path(), "other").unwrap().is_none());
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(load(dir.path(), "dinp"), Err(DiskError::Corrupt { .. })));
    }
}
