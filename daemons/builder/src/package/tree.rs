//! The entries of a package as a tree in memory: duplicates, and where links lead.

use super::error::PackageError;
use super::path;
use std::collections::HashMap;

/// One entry of a sound package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Canonical name, without a leading or trailing `/`.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Seconds since 1970 of its last change, as the package says.
    pub modified: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What is known of a package while it is read.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<String, Node>,
    seen: usize,
    most: usize,
}

impl Tree {
    pub(super) fn new(most: usize) -> Self {
        Self { nodes: HashMap::new(), seen: 0, most }
    }

    /// Takes an entry in, or says which rule it breaks.
    pub(super) fn admit(&mut self, name: &[u8], kind: EntryKind, modified: u64) -> Result<Entry, PackageError> {
        self.seen += 1;
        if self.seen > self.most {
            return Err(PackageError::Limit(format!("it holds more than {} entries", self.most)));
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
            None => {
                self.nodes.insert(path.clone(), node);
            }
        }
        Ok(Entry { path, kind, modified })
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
                None => {
                    self.nodes.insert(parent.to_owned(), Node::Directory);
                }
            }
        }
        Ok(())
    }

    /// Follows every symbolic link: none may leave the package, also by way of others.
    pub(super) fn check_links(&self) -> Result<(), PackageError> {
        for (path, node) in &self.nodes {
            if let Node::Link(target) = node {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                self.follow(directory, target, &mut 0).map_err(|rule| {
                    PackageError::entry(path.as_bytes(), format!("it is a link to \"{target}\", which {rule}"))
                })?;
            }
        }
        Ok(())
    }

    /// Where `target` leads from `directory`. What does not exist is a plain name.
    fn follow(&self, directory: &str, target: &str, hops: &mut usize) -> Result<String, &'static str> {
        *hops += 1;
        if *hops > MOST_HOPS {
            return Err("leads through too many links");
        }
        if target.starts_with('/') {
            return Err("leads out of the package");
        }
        let mut at = directory.to_owned();
        for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                if at.is_empty() {
                    return Err("leads out of the package");
                }
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            let next = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            at = match self.nodes.get(&next) {
                Some(Node::Link(further)) => self.follow(&at, further, hops)?,
                _ => next,
            };
        }
        Ok(at)
    }
}
