//! What can be wrong with a configuration, told so that it can be mended.

use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or a drop-in directory cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file is not TOML, or a value has the wrong type.
    #[error("{}:{line}: {problem}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A key that nobody reads.
    #[error("{}:{line}: unknown key `{key}`{}", path.display(), did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// The files are right one by one, and wrong together.
    #[error("merge the files of {}: {problem}", dir.display())]
    Merged {
        /// Configuration directory.
        dir: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A value that cannot be.
    #[error("{}`{key}`: {problem}", in_file(origin.as_deref()))]
    Invalid {
        /// Dotted key.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// File that set it; none for a default.
        origin: Option<PathBuf>,
    },
}

impl ConfigError {
    /// A value that the daemon cannot work with; `load` adds the file that set `key`.
    pub fn invalid(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { key: key.into(), problem: problem.into(), origin: None }
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|key| format!(", did you mean `{key}`?")).unwrap_or_default()
}

fn in_file(origin: Option<&Path>) -> String {
    origin.map(|path| format!("{}: ", path.display())).unwrap_or_default()
}

/// The candidate nearest to `word`, if it is near enough to be a slip.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (word.len().max(3) / 2).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_key() {
        assert_eq!(nearest("pasword_file", ["password_file", "port"]).as_deref(), Some("password_file"));
        assert_eq!(nearest("hsot", ["host", "port"]).as_deref(), Some("host"));
        assert_eq!(nearest("colour", ["host", "port"]), None);
    }
}
