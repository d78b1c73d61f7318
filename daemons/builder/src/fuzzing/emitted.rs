//! A tar that the builder makes, as others read it.

use super::package::Seen;
use crate::package::{Entry, EntryKind};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use tar::{Archive, EntryType};

/// Most links that Linux follows on one way.
const MOST_LINKS: usize = 40;

/// Where a package is in a tar, and what comes before it there.
pub(super) struct Emitted<'a> {
    /// What its names begin with.
    pub(super) top: &'a str,
    /// Paths that are not its own.
    pub(super) before: &'a [&'a str],
    /// Whether this is a layer, in which no directory stands twice.
    pub(super) is_layer: bool,
}

impl Emitted<'_> {
    /// What such a tar holds of a package.
    pub(super) fn of(&self, seen: &[Seen]) -> Vec<Seen> {
        let mut directories = HashSet::new();
        let is_there = |seen: &&Seen| {
            let is_directory = seen.entry.kind == EntryKind::Directory;
            let is_new = !is_directory || directories.insert(seen.entry.path.clone());
            !seen.entry.path.is_empty() && (is_new || !self.is_layer)
        };
        let placed = |seen: &Seen| {
            let kind = match &seen.entry.kind {
                EntryKind::Hardlink { target } => EntryKind::Hardlink { target: format!("{}{target}", self.top) },
                kind => kind.clone(),
            };
            let entry = Entry { path: format!("{}{}", self.top, seen.entry.path), kind, ..seen.entry };
            Self::with_plain_target(Seen { entry, content: seen.content.clone() })
        };
        seen.iter().filter(is_there).map(placed).collect()
    }

    /// The same entry; where it is a link, with its target spelled as short as it can be: `a//./b` means `a/b`.
    pub(super) fn with_plain_target(mut seen: Seen) -> Seen {
        if let EntryKind::Symlink { target } = &mut seen.entry.kind {
            *target = Path::new(target).components().collect::<std::path::PathBuf>().display().to_string();
        }
        seen
    }
}

/// That whoever unpacks a tar gets files of root's below the directory where they unpack it, each once, follows no link to do so,
/// and that no link in it leads out of the package.
pub(super) fn assert_harmless(tar: &[u8], emitted: &Emitted<'_>) {
    let mut kinds: BTreeMap<String, EntryType> = BTreeMap::new();
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    for (index, entry) in Archive::new(tar).entries().expect("a tar").enumerate() {
        let entry = entry.expect("an entry");
        let header = entry.header();
        let (kind, mode) = (header.entry_type(), header.mode().expect("a mode"));
        let name = text(&entry.path_bytes());
        let target = entry.link_name_bytes().map(|bytes| text(&bytes)).unwrap_or_default();
        let path = name.strip_suffix('/').filter(|_| kind == EntryType::Directory).unwrap_or(&name).to_owned();
        assert_plain(&path);
        match emitted.before.get(index) {
            Some(before) => assert_eq!(path, *before),
            None => assert!(path.starts_with(emitted.top), "{path}"),
        }
        assert!(matches!(mode, 0o755 | 0o644 | 0o777), "{path}: {mode:o}");
        assert_eq!((header.uid().expect("an owner"), header.gid().expect("a group")), (0, 0), "{path}");
        match kind {
            EntryType::Regular | EntryType::Directory => {}
            EntryType::Symlink => drop(links.insert(path.clone(), target)),
            EntryType::Link => {
                let is_file = |kind: &EntryType| matches!(kind, EntryType::Regular | EntryType::Link);
                assert!(target.starts_with(emitted.top), "{path} -> {target}");
                assert!(kinds.get(&target).is_some_and(is_file), "{path} -> {target}");
            }
            other => panic!("{path} is a {other:?}"),
        }
        let may_be_again = kind == EntryType::Directory && !emitted.is_layer;
        let before = kinds.insert(path.clone(), kind);
        assert!(before.is_none_or(|before| may_be_again && before == kind), "{path} is there twice");
    }
    for path in kinds.keys() {
        for (end, _) in path.match_indices('/') {
            let above = kinds.get(&path[..end]);
            assert!(above.is_none_or(|kind| *kind == EntryType::Directory), "{path} is below a {above:?}");
        }
    }
    let top = emitted.top.trim_end_matches('/');
    for link in links.keys() {
        assert!(stays(&links, link, top), "{link} leads out of {top:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("a name in UTF-8")
}

fn assert_plain(path: &str) {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.starts_with(".wh.");
    assert!(path.split('/').all(is_plain), "{path:?}");
    assert!(!path.contains(|sign: char| sign == '\\' || sign.is_control()), "{path:?}");
}

/// Whether the way from a link stays below `top`, part by part as Linux goes.
fn stays(links: &BTreeMap<String, String>, link: &str, top: &str) -> bool {
    let mut left: VecDeque<&str> = link.split('/').collect();
    let mut at: Vec<&str> = Vec::new();
    let mut followed = 0;
    let depth = if top.is_empty() { 0 } else { top.split('/').count() };
    // The way from the root to the top is no part of the package.
    at.extend(left.drain(..depth));
    while let Some(part) = left.pop_front() {
        match part {
            "" | "." => continue,
            ".." if at.len() == depth => return false,
            ".." => drop(at.pop()),
            name => at.push(name),
        }
        if let Some(target) = links.get(&at.join("/")) {
            at.pop();
            followed += 1;
            if followed > MOST_LINKS || target.starts_with('/') {
                return false;
            }
            target.split('/').rev().for_each(|part| left.push_front(part));
        }
    }
    true
}
