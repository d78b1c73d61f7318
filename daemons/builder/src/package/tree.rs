//! The entries of a package as a tree in memory: duplicates, and where links lead.

use super::error::PackageError;
use super::{Limits, path};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// One entry of a sound package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Canonical name, without a leading or trailing `/`.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Seconds since 1970 of its last change, as the package says.
    pub modified: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its size.
        size: u64,
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link that stays within the package.
    Symlink {
        /// Where it points to, relative to its own directory.
        target: String,
    },
    /// One more name of an earlier regular file.
    Hardlink {
        /// Canonical name of that file.
        target: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File,
    Link(String),
}

/// Most links that are followed from one to the next.
const MOST_HOPS: usize = 40;
/// Most parts of names that are looked up to follow all links of a package; honest ones need a few for each link.
const MOST_STEPS: usize = 4_000_000;
/// Longest name that a link may lead to, in bytes: as long as file systems take.
const LONGEST_WAY: usize = 4096;

/// What is known of a package while it is read.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<String, Node>,
    seen: usize,
    name_bytes: u64,
    limits: Limits,
}

impl Tree {
    pub(super) fn new(limits: Limits) -> Self {
        Self { nodes: HashMap::new(), seen: 0, name_bytes: 0, limits }
    }

    /// How many entries there may be.
    pub(super) fn most_entries(&self) -> usize {
        self.limits.entries
    }

    /// Takes an entry in, or says which rule it breaks.
    pub(super) fn admit(&mut self, name: &[u8], kind: EntryKind, modified: u64) -> Result<Entry, PackageError> {
        self.seen += 1;
        if self.seen > self.limits.entries {
            return Err(self.too_many());
        }
        let path = path::canonical(name)?;
        let refuse = |rule: String| Err(PackageError::entry(name, rule));
        let kind = match kind {
            EntryKind::Symlink { target } => {
                EntryKind::Symlink { target: path::check_target(name, target.as_bytes())? }
            }
            EntryKind::Hardlink { target } => {
                let target = path::canonical(target.as_bytes()).map_err(|error| match error {
                    PackageError::Entry { rule, .. } => {
                        PackageError::entry(name, format!("it is a hard link whose target cannot be: {rule}"))
                    }
                    other => other,
                })?;
                if self.nodes.get(&target) != Some(&Node::File) {
                    return refuse(format!(
                        "it is a hard link to \"{target}\", which is no earlier file of the package"
                    ));
                }
                EntryKind::Hardlink { target }
            }
            other => other,
        };
        let node = match &kind {
            EntryKind::Directory => Node::Directory,
            EntryKind::Symlink { target } => Node::Link(target.clone()),
            EntryKind::File { .. } | EntryKind::Hardlink { .. } => Node::File,
        };
        if path.is_empty() && node != Node::Directory {
            return refuse("it stands for the package's top, which is a directory".into());
        }
        self.make_parents(name, &path)?;
        match self.nodes.get(&path) {
            // Archives name a directory again when they were added to.
            Some(Node::Directory) if node == Node::Directory => {}
            Some(_) => return refuse("it is there twice".into()),
            None => self.remember(&path, node)?,
        }
        Ok(Entry { path, kind, modified })
    }

    /// Keeps what there is at a path. A directory that only stands in the names of others costs as much as an entry.
    fn remember(&mut self, path: &str, node: Node) -> Result<(), PackageError> {
        if self.nodes.len() >= self.limits.entries {
            return Err(self.too_many());
        }
        let target = if let Node::Link(target) = &node { target.len() } else { 0 };
        self.name_bytes += (path.len() + target) as u64;
        if self.name_bytes > self.limits.name_bytes {
            let rule = "the names of its entries and directories are longer than";
            return Err(PackageError::Limit(format!("{rule} {} MiB together", self.limits.name_bytes >> 20)));
        }
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    fn too_many(&self) -> PackageError {
        let most = self.limits.entries;
        PackageError::Limit(format!("it holds more than {most} entries, counting the directories in their names"))
    }

    fn make_parents(&mut self, name: &[u8], path: &str) -> Result<(), PackageError> {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match self.nodes.get(parent) {
                Some(Node::Directory) => {}
                Some(Node::File) => {
                    return Err(PackageError::entry(name, format!("it lies below \"{parent}\", which is a file")));
                }
                Some(Node::Link(_)) => {
                    return Err(PackageError::entry(name, format!("it lies below \"{parent}\", which is a link")));
                }
                None => self.remember(parent, Node::Directory)?,
            }
        }
        Ok(())
    }

    /// Follows every symbolic link: none may leave the package, also by way of others.
    pub(super) fn check_links(&self) -> Result<(), PackageError> {
        let mut left = Left { hops: 0, steps: MOST_STEPS };
        for (path, node) in &self.nodes {
            if let Node::Link(target) = node {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                left.hops = MOST_HOPS;
                self.follow(directory, target, &mut left).map_err(|rule| {
                    PackageError::entry(path.as_bytes(), format!("it is a link to \"{target}\", which {rule}"))
                })?;
            }
        }
        Ok(())
    }

    /// Where `target` leads from `directory`. What does not exist is a plain name.
    fn follow(&self, directory: &str, target: &str, left: &mut Left) -> Result<String, &'static str> {
        left.hops = left.hops.checked_sub(1).ok_or("leads through too many links")?;
        if target.starts_with('/') {
            return Err("leads out of the package");
        }
        let mut at = directory.to_owned();
        for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
            left.steps = left.steps.checked_sub(1).ok_or("is one of too many that lead through each other")?;
            if part == ".." {
                if at.is_empty() {
                    return Err("leads out of the package");
                }
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            let next = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            if next.len() > LONGEST_WAY {
                return Err("leads to a name of more than 4096 bytes");
            }
            at = match self.nodes.get(&next) {
                Some(Node::Link(further)) => self.follow(&at, further, left)?,
                _ => next,
            };
        }
        Ok(at)
    }
}

/// What may still be spent on following links.
struct Left {
    /// Links, from the present one on.
    hops: usize,
    /// Parts of names, for all links of the package.
    steps: usize,
}
