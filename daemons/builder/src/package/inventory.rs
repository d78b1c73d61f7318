//! What a sound package holds, as far as a runtime asks. It keeps little, however much the package holds.

use super::content::{self, Fault};
use super::tree::{Entry, EntryKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// Most first bytes that are kept of a file that is asked for.
const KEPT: u64 = 64 << 10;
/// Most faults that are kept.
const MOST_FAULTS: usize = 10;

/// An entry that was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Found {
    /// The entry.
    pub entry: Entry,
    /// Its first 64 KiB, as far as they are text.
    pub beginning: String,
    /// Why it cannot be started.
    pub fault: Option<Fault>,
}

impl Found {
    /// Whether it is there as a file or as a link to one.
    pub fn is_file(&self) -> bool {
        !matches!(self.entry.kind, EntryKind::Directory)
    }

    /// Whether it can be executed, as far as its own mode says.
    pub fn is_executable(&self) -> bool {
        !matches!(self.entry.kind, EntryKind::File { executable: false, .. } | EntryKind::Directory)
    }
}

/// What a sound package holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Inventory {
    found: BTreeMap<String, Found>,
    entries: usize,
    top: Top,
    faults: Vec<(String, Fault)>,
    more_faults: usize,
}

/// What lies at the top of a package.
#[derive(Debug, Default, Serialize, Deserialize)]
enum Top {
    #[default]
    Nothing,
    Directory(String),
    Several,
}

impl Inventory {
    /// The entry at a path that was asked for.
    pub fn get(&self, path: &str) -> Option<&Found> {
        self.found.get(path)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The directory that all entries lie in, where there is just one at the top: packed one level too high.
    pub fn only_directory(&self) -> Option<&str> {
        match &self.top {
            Top::Directory(name) => Some(name),
            Top::Nothing | Top::Several => None,
        }
    }

    /// Files that cannot be started or loaded in an image, some of them, and how many more there are.
    pub fn faults(&self) -> (&[(String, Fault)], usize) {
        (&self.faults, self.more_faults)
    }

    /// Takes note of an entry; `wanted` are the paths that are asked for.
    pub(super) fn note(&mut self, entry: &Entry, content: &mut dyn Read, wanted: &[String]) -> io::Result<()> {
        self.entries += 1;
        self.top = std::mem::take(&mut self.top).with(entry);
        let wanted = wanted.contains(&entry.path);
        let mut beginning = Vec::new();
        content.take(if wanted { KEPT } else { content::HEAD }).read_to_end(&mut beginning)?;
        io::copy(content, &mut io::sink())?;
        let executable = matches!(entry.kind, EntryKind::File { executable: true, .. });
        let fault = content::fault(&beginning[..beginning.len().min(content::HEAD as usize)], executable);
        if let Some(fault) = &fault {
            if self.faults.len() < MOST_FAULTS {
                self.faults.push((entry.path.clone(), fault.clone()));
            } else {
                self.more_faults += 1;
            }
        }
        if wanted {
            let beginning = String::from_utf8_lossy(&beginning).into_owned();
            self.found.insert(entry.path.clone(), Found { entry: entry.clone(), beginning, fault });
        }
        Ok(())
    }
}

impl Top {
    fn with(self, entry: &Entry) -> Self {
        let (name, rest) = entry.path.split_once('/').unwrap_or((&entry.path, ""));
        // The package's top itself, and what macOS adds to each archive, are nobody's content.
        if name.is_empty() || name == "__MACOSX" {
            return self;
        }
        let is_directory = !rest.is_empty() || matches!(entry.kind, EntryKind::Directory);
        match self {
            Self::Nothing if is_directory => Self::Directory(name.to_owned()),
            Self::Directory(known) if is_directory && known == name => Self::Directory(known),
            _ => Self::Several,
        }
    }
}
