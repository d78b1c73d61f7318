//! What a sound package holds, as far as a runtime asks. It keeps little, however much the package holds.

use super::content::{self, Fault};
use super::pattern;
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
    /// Its first 64 KiB, as far as they are text; of one that was asked for by its path.
    pub beginning: String,
    /// Why it cannot be started.
    pub fault: Option<Fault>,
}

impl Found {
    /// Whether it is there as a file or as a link to one.
    pub fn is_file(&self) -> bool {
        !matches!(self.entry.kind, EntryKind::Directory)
    }

    /// Whether `beginning` is all of the file, whose size this is, as it stands there.
    pub fn is_whole_text(&self, size: u64) -> bool {
        self.beginning.len() as u64 == size && !self.beginning.contains(char::REPLACEMENT_CHARACTER)
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
    /// The first entry that is what a pattern stands for, one of those that were asked for.
    pub fn get(&self, pattern: &str) -> Option<&Found> {
        self.found.get(pattern)
    }

    /// Whether there is no entry but the package's own top.
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

    /// Takes note of an entry; `wanted` are the patterns of what is asked for.
    pub(super) fn note(&mut self, entry: &Entry, content: &mut dyn Read, wanted: &[String]) -> io::Result<()> {
        // Tar names the directory that was packed, even where there is nothing in it.
        self.entries += usize::from(!entry.path.is_empty());
        self.top = std::mem::take(&mut self.top).with(entry);
        let is_new = |pattern: &&String| !self.found.contains_key(*pattern) && pattern::matches(pattern, entry);
        let asked_by: Vec<&String> = wanted.iter().filter(is_new).collect();
        let mut beginning = Vec::new();
        content.take(if asked_by.is_empty() { content::HEAD } else { KEPT }).read_to_end(&mut beginning)?;
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
        for pattern in asked_by {
            let kept = if pattern::is_wild(pattern) { &[] } else { beginning.as_slice() };
            let beginning = String::from_utf8_lossy(kept).into_owned();
            let found = Found { entry: entry.clone(), beginning, fault: fault.clone() };
            self.found.insert(pattern.clone(), found);
        }
        Ok(())
    }
}

impl Top {
    fn with(self, entry: &Entry) -> Self {
        let (name, rest) = entry.path.split_once('/').unwrap_or((&entry.path, ""));
        // The package's top itself is nobody's content.
        if name.is_empty() {
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
