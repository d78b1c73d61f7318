//! The last good table on disk, for a start without Redis: a line about the table, then one of each app.
//!
//! A file of lines can be read by as many threads as there are, and is never held whole as values of JSON.

use super::App;
use dinp_common::model::Version;
use dinp_common::routes::AppRoutes;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

const FILE: &str = "routes.jsonl";

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Title<'a> {
    /// The cluster that the table belongs to.
    cluster: Cow<'a, str>,
    version: Version,
    /// How many lines follow.
    apps: usize,
}

/// A table that was read.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Its version.
    pub(crate) version: Version,
    /// Its apps.
    pub(crate) apps: Vec<AppRoutes>,
}

/// A table to be written: one record at a time is made of the apps.
#[derive(Debug)]
pub(crate) struct Saving<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) version: Version,
    pub(crate) apps: &'a [Arc<App>],
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
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (title, lines) = text.split_at(end);
    let corrupt = |source| DiskError::Corrupt { path: path.clone(), source };
    let title: Title<'_> = serde_json::from_slice(title).map_err(corrupt)?;
    if title.cluster != cluster {
        tracing::warn!(path = %path.display(), cluster = &*title.cluster, "the table on disk is another cluster's, not used");
        return Ok(None);
    }
    let apps = parse(lines).map_err(corrupt)?;
    if apps.len() != title.apps {
        let (have, wanted) = (apps.len(), title.apps);
        return Err(corrupt(serde_json::Error::custom(format!("{have} apps where {wanted} were written"))));
    }
    Ok(Some(Saved { version: title.version, apps }))
}

/// The records of all lines, in their order.
fn parse(lines: &[u8]) -> serde_json::Result<Vec<AppRoutes>> {
    let parse_part = |part| serde_json::Deserializer::from_slice(part).into_iter().collect::<Result<Vec<_>, _>>();
    thread::scope(|scope| {
        let threads: Vec<_> = parts(lines).into_iter().map(|part| scope.spawn(move || parse_part(part))).collect();
        let mut apps = Vec::new();
        for thread in threads {
            apps.append(&mut thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(apps)
    })
}

/// Whole lines in as many parts as there are processors.
fn parts(mut lines: &[u8]) -> Vec<&[u8]> {
    let size = lines.len() / thread::available_parallelism().map_or(1, NonZero::get) + 1;
    let mut parts = Vec::new();
    while !lines.is_empty() {
        let from = size.min(lines.len());
        let end = lines[from..].iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| from + end);
        let (part, rest) = lines.split_at(end);
        parts.push(part);
        lines = rest;
    }
    parts
}

/// Writes the table, so that after a crash at any moment the file holds the old or the new one.
pub(crate) fn save(dir: &Path, saving: &Saving<'_>) -> Result<(), DiskError> {
    let path = dir.join(FILE);
    let temporary = dir.join(format!("{FILE}.new"));
    let write = || {
        let mut file = BufWriter::new(File::create(&temporary)?);
        let title = Title { cluster: saving.cluster.into(), version: saving.version, apps: saving.apps.len() };
        serde_json::to_writer(&mut file, &title)?;
        for app in saving.apps {
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut file, &app.record())?;
        }
        file.into_inner()?.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| DiskError::Io { act: "write", path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Shared;
    use dinp_common::routes::{RouteOptions, RouteState};
    use dinp_common::testing::TestDir;
    use std::time::Instant;

    fn app(number: usize) -> AppRoutes {
        AppRoutes {
            app: format!("app{number}").parse().unwrap(),
            state: RouteState::Started,
            domains: vec![format!("app{number}.x")],
            options: RouteOptions::default(),
            endpoints: Vec::new(),
        }
    }

    fn save_apps(dir: &TestDir, count: usize) -> Vec<AppRoutes> {
        let (table, version) = (Shared::default(), Version::new(3, 9));
        table.lock().replace(version, (0..count).map(app).collect(), Instant::now());
        let apps = table.lock().apps(None);
        save(dir.path(), &Saving { cluster: "dinp", version, apps: &apps }).unwrap();
        apps.iter().map(|app| app.record()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = TestDir::new("router-disk");
        assert!(load(dir.path(), "dinp").unwrap().is_none());
        // Fewer than there are threads to read them, and more.
        for count in [0, 1, 2, 3, 1_000] {
            let apps = save_apps(&dir, count);
            let saved = load(dir.path(), "dinp").unwrap().unwrap();
            assert_eq!((saved.version, saved.apps), (Version::new(3, 9), apps));
        }
        assert!(load(dir.path(), "other").unwrap().is_none());
    }

    #[test]
    fn half_a_table_is_none() {
        let dir = TestDir::new("router-disk");
        save_apps(&dir, 100);
        let whole = std::fs::read(dir.path().join(FILE)).unwrap();
        let line = whole.iter().rposition(|byte| *byte == b'\n').unwrap();
        for end in [1, whole.len() / 2, line, whole.len() - 1] {
            std::fs::write(dir.path().join(FILE), &whole[..end]).unwrap();
            assert!(matches!(load(dir.path(), "dinp"), Err(DiskError::Corrupt { .. })), "{end}");
        }
    }
}
