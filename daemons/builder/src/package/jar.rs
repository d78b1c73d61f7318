//! Java's archives, which are zip files: what one is, and what starts it.

use super::error::{self, PackageError};
use super::source::Spooled;
use super::{Format, zipfile};
use std::io::Read;

const MANIFEST: &[u8] = b"META-INF/MANIFEST.MF";
const WEB: &[u8] = b"WEB-INF/";
/// Most bytes that are read of a manifest; its main section comes first.
const MOST_READ: u64 = 1 << 20;

/// What a zip file is.
pub(super) fn kind(spooled: &Spooled, most_entries: usize) -> Result<Format, PackageError> {
    let (records, _) = zipfile::directory(spooled, most_entries)?;
    let has = |wanted: &dyn Fn(&[u8]) -> bool| records.iter().any(|record| wanted(&record.name));
    Ok(match () {
        () if has(&|name| name.starts_with(WEB)) => Format::War,
        () if has(&|name| name == MANIFEST) => Format::Jar,
        () => Format::Zip,
    })
}

/// Refuses a jar file that `java -jar` would not start. What else is in it is Java's to judge, as it is loaded: jar files of
/// several libraries hold the same names twice, and those of programs hold jar files.
pub(super) fn check(spooled: &Spooled, most_entries: usize) -> Result<(), PackageError> {
    let (records, end) = zipfile::directory(spooled, most_entries)?;
    let Some(record) = records.iter().find(|record| record.name == MANIFEST) else {
        return Err(PackageError::Jar("it has no META-INF/MANIFEST.MF".into()));
    };
    let data = zipfile::locate(spooled, record, end)?;
    let mut manifest = Vec::new();
    let read = zipfile::content(spooled, record, data).take(MOST_READ).read_to_end(&mut manifest);
    read.map_err(|error| error::reading(Format::Jar, error))?;
    if main_class(&manifest).is_none() {
        let rule =
            "its META-INF/MANIFEST.MF names no Main-Class: it is a library, not a program that `java -jar` starts";
        return Err(PackageError::Jar(rule.into()));
    }
    Ok(())
}

/// The value of `Main-Class` in the main section of a manifest (Java's "JAR File Specification", "Main Attributes"): names are
/// of either case, and a line that begins with a space goes on with the one before.
fn main_class(manifest: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(manifest).replace("\r\n", "\n").replace('\r', "\n").replace("\n ", "");
    let main = text.split("\n\n").next()?;
    main.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        (name.eq_ignore_ascii_case("Main-Class") && !value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_class_is_found_as_java_finds_it() {
        let found = |text: &str| main_class(text.as_bytes());
        let plain = "Manifest-Version: 1.0\r\nMain-Class: a.Main\r\n\r\n";
        assert_eq!(found(plain).as_deref(), Some("a.Main"));
        assert_eq!(found("main-class: a.long.pack\n age.Main\n").as_deref(), Some("a.long.package.Main"));
        assert_eq!(
            found("Manifest-Version: 1.0\n\nName: x\nMain-Class: a.Main\n"),
            None,
            "of an entry, not of the file"
        );
        assert_eq!(found("Main-Class:\n"), None);
        assert_eq!(found(""), None);
    }
}
