//! Names of entries: what they may be, and their one canonical form.

use super::error::PackageError;

/// Longest name, in bytes.
const LONGEST: usize = 1024;
/// Longest part of a name, in bytes: what file systems take.
const LONGEST_PART: usize = 255;
/// Most parts of a name.
const DEEPEST: usize = 64;

/// The canonical form of an entry's name: relative, without `.` and empty parts; empty for the top itself.
pub(super) fn canonical(name: &[u8]) -> Result<String, PackageError> {
    let refuse = |rule: &str| Err(PackageError::entry(name, rule));
    if name.len() > LONGEST {
        return refuse("its name is longer than 1024 bytes");
    }
    let Ok(text) = std::str::from_utf8(name) else { return refuse("its name is not UTF-8") };
    if text.contains('\0') {
        return refuse("its name holds a NUL byte");
    }
    if text.chars().any(char::is_control) {
        return refuse("its name holds a control character");
    }
    if text.contains('\\') {
        return refuse("its name holds a backslash; parts of a name are separated by /");
    }
    if text.starts_with('/') {
        return refuse("its name is absolute; names must be relative");
    }
    if text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic() {
        return refuse("its name begins with a drive; names must be relative");
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return refuse("its name holds \"..\", which could lead out of the package");
    }
    if parts.len() > DEEPEST {
        return refuse("it lies deeper than 64 directories");
    }
    if parts.iter().any(|part| part.len() > LONGEST_PART) {
        return refuse("a part of its name is longer than 255 bytes");
    }
    if parts.iter().any(|part| part.starts_with(".wh.")) {
        return refuse("names that begin with .wh. delete files in images");
    }
    Ok(parts.join("/"))
}

/// Checks where a symbolic link points to, as far as that can be told from the text.
pub(super) fn check_target(name: &[u8], target: &[u8]) -> Result<String, PackageError> {
    let refuse = |rule: &str| Err(PackageError::entry(name, rule));
    let Ok(text) = std::str::from_utf8(target) else { return refuse("the link's target is not UTF-8") };
    if text.is_empty() {
        return refuse("the link has no target");
    }
    if text.len() > LONGEST || text.chars().any(char::is_control) || text.contains('\\') {
        return refuse("the link's target is longer than 1024 bytes or holds a control character or backslash");
    }
    if text.starts_with('/') {
        return refuse("the link's target is absolute and leads out of the package");
    }
    Ok(text.to_owned())
}
