//! Paths in a package as a runtime names them.

use super::tree::{Entry, EntryKind};

/// Whether an entry is what a pattern stands for: a file's path (`app.py`), one with `*` for any part of a name (`*.jar`,
/// `*/wsgi.py`), or a directory with a slash at its end (`htdocs/`), which is there with anything that lies in it.
pub fn matches(pattern: &str, entry: &Entry) -> bool {
    match pattern.strip_suffix('/') {
        Some(directory) => entry.path.strip_prefix(directory).is_some_and(|rest| {
            rest.starts_with('/') || (rest.is_empty() && !matches!(entry.kind, EntryKind::File { .. }))
        }),
        None if !is_wild(pattern) => entry.path == pattern,
        None if matches!(entry.kind, EntryKind::Directory) => false,
        None => {
            let (mut patterns, mut names) = (pattern.split('/'), entry.path.split('/'));
            patterns.by_ref().zip(names.by_ref()).all(|(pattern, name)| is_name(pattern, name))
                && pattern.matches('/').count() == entry.path.matches('/').count()
        }
    }
}

/// Whether it may stand for more than one path.
pub fn is_wild(pattern: &str) -> bool {
    pattern.contains('*') || pattern.ends_with('/')
}

/// Why a pattern can stand for nothing, if so.
pub fn problem(pattern: &str) -> Option<&'static str> {
    let path = pattern.strip_suffix('/').unwrap_or(pattern);
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("is no path below the top of a package, such as app.py, *.jar or htdocs/");
    }
    (pattern.ends_with('/') && pattern.contains('*')).then_some("has * in the path of a directory")
}

fn is_name(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    // As shells have it; macOS makes such files beside others.
    if first.is_empty() && name.starts_with('.') {
        return false;
    }
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Entry {
        Entry { path: path.into(), kind: EntryKind::File { size: 1, executable: false }, modified: 0 }
    }

    #[test]
    fn names_stars_and_directories() {
        for (pattern, there, not) in [
            ("app.py", "app.py", "x/app.py"),
            ("*.jar", "a.jar", "lib/a.jar"),
            ("*.jar", "a.b.jar", ".jar"),
            ("*.py", "a.py", "._a.py"),
            ("*.jar", "a.jar", "a.jar.txt"),
            ("*/wsgi.py", "shop/wsgi.py", "wsgi.py"),
            ("a*b*c", "a-b-bc", "a-c"),
            ("htdocs/", "htdocs/index.php", "htdocs"),
            ("htdocs/", "htdocs/a/b", "htdocs2/a"),
        ] {
            assert!(matches(pattern, &file(there)), "{pattern} {there}");
            assert!(!matches(pattern, &file(not)), "{pattern} {not}");
        }
        let directory = |path: &str| Entry { kind: EntryKind::Directory, ..file(path) };
        assert!(matches("htdocs/", &directory("htdocs")), "an empty one");
        assert!(!matches("*.jar", &directory("a.jar")), "a directory is no file");
    }

    #[test]
    fn what_stands_for_nothing_is_named() {
        for bad in ["", "/", "/etc", "../x", "a//b", "./a", "a*/"] {
            assert!(problem(bad).is_some(), "{bad:?}");
        }
        for good in ["a", "a/b", "*.py", "a/", ".well-known/x"] {
            assert!(problem(good).is_none(), "{good:?}");
        }
    }
}
