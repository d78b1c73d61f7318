//! Packages: what any file is taken for, and what is made of one that is sound.

use super::emitted::{Emitted, assert_harmless};
use crate::context::{self, Directory, Dockerfile, Placed};
use crate::package::{Entry, EntryKind, Format, Inventory, Limits, Package, PackageError, Spooled};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::discriminant;
use std::time::Duration;
use tar::Archive;

/// What takes as long is found by the fuzzer's own limit.
const TIME: Duration = Duration::from_secs(60);
/// So small that each limit is met.
const LIMITS: Limits = Limits { entries: 64, name_bytes: 8 << 10, unpacked_bytes: 1 << 20, ratio: 100, time: TIME };
/// For what is made of such a package, where headers and long names need room, too.
const LIMITS_AGAIN: Limits =
    Limits { entries: 256, name_bytes: 1 << 20, unpacked_bytes: 4 << 20, ratio: 100, time: TIME };
/// All kinds of patterns that runtimes have.
const WANTED: [&str; 6] = ["Dockerfile", "Procfile", "*.jar", "*/wsgi.py", "WEB-INF/", "control"];

/// An entry as a visitor gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) entry: Entry,
    pub(super) content: Vec<u8>,
}

/// Any file is refused for a reason of its own, or is the same package however often it is read, within its limits; and
/// what is made of it is again sound, holds the same, and harms nobody who unpacks it.
pub fn package(bytes: &[u8]) {
    let package = match opened(bytes, LIMITS) {
        Ok(package) => package,
        Err(error) => return assert!(error.is_of_the_package(), "{error:?}"),
    };
    let (seen, outcome) = walked(&package);
    assert_within_limits(&package, &seen);

    let again = walked(&package);
    assert_eq!(seen, again.0, "two walks");
    assert_same_outcome(&outcome, &again.1);
    // What nobody reads is verified all the same.
    assert_same_outcome(&outcome, &package.walk(&mut |_, _| Ok(())));

    let wanted = WANTED.map(str::to_owned);
    match package.inspect(&wanted) {
        Err(PackageError::Empty) => {
            assert!(outcome.is_ok() && seen.iter().all(|seen| seen.entry.path.is_empty()), "{seen:?}");
            return;
        }
        inspected => {
            assert_same_outcome(&outcome, &inspected);
            let Ok(inventory) = inspected else { return };
            assert_told(&inventory, &seen);
        }
    }
    if package.format == Format::Tar {
        assert_means_the_same_to_others(bytes, &seen);
    }
    emit(&package, &seen);
}

fn opened(bytes: &[u8], limits: Limits) -> Result<Package, PackageError> {
    let mut file = File::from(memfd_create(c"package", MFdFlags::MFD_CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("memory for a package");
    Package::open(Spooled::new(file, bytes.len() as u64, "00".into()), limits)
}

/// All that is seen of a package, also of one that is refused in the end.
fn walked(package: &Package) -> (Vec<Seen>, Result<(), PackageError>) {
    let mut all = Vec::new();
    let outcome = package.walk(&mut |entry, reader| {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        all.push(Seen { entry: entry.clone(), content });
        Ok(())
    });
    (all, outcome)
}

fn assert_within_limits(package: &Package, seen: &[Seen]) {
    let stays_one_file = matches!(package.format, Format::Jar | Format::Executable);
    let unpacked: u64 = seen.iter().map(|seen| seen.content.len() as u64).sum();
    assert!(unpacked <= if stays_one_file { package.spooled.len() } else { LIMITS.unpacked_bytes }, "{unpacked}");
    assert!(seen.len() <= LIMITS.entries, "{}", seen.len());
    let mut names: Vec<&str> = seen.iter().map(|seen| seen.entry.path.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let names: usize = names.iter().map(|name| name.len()).sum();
    assert!(names as u64 <= LIMITS.name_bytes, "{names}");
    for Seen { entry, content } in seen {
        match &entry.kind {
            EntryKind::File { size, .. } => assert_eq!(*size, content.len() as u64, "{entry:?}"),
            _ => assert!(content.is_empty(), "{entry:?}"),
        }
    }
}

/// Whether both are well, or refused by a rule of one kind: which of several bad links is named is a matter of chance.
fn assert_same_outcome<T>(one: &Result<(), PackageError>, other: &Result<T, PackageError>) {
    let kinds = [one.as_ref().err(), other.as_ref().err()];
    for error in kinds.into_iter().flatten() {
        assert!(error.is_of_the_package(), "{error:?}");
    }
    assert_eq!(kinds[0].map(discriminant), kinds[1].map(discriminant), "{kinds:?}");
}

fn assert_told(inventory: &Inventory, seen: &[Seen]) {
    for name in ["Dockerfile", "Procfile", "control"] {
        let first = seen.iter().find(|seen| seen.entry.path == name);
        assert_eq!(inventory.get(name).map(|found| &found.entry), first.map(|seen| &seen.entry), "{name}");
        if let (Some(found), Some(seen)) = (inventory.get(name), first)
            && found.is_whole_text(seen.content.len() as u64)
        {
            assert_eq!(found.beginning.as_bytes(), seen.content, "{name}");
        }
    }
}

/// That another reader finds the same names with the same content: what a person saw in a package is what runs.
fn assert_means_the_same_to_others(tar: &[u8], seen: &[Seen]) {
    let mut others = Vec::new();
    for entry in Archive::new(tar).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        // What is said of all of the archive.
        if matches!(entry.header().entry_type().as_byte(), b'g' | b'V') {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        others.push((parts.join("/"), content));
    }
    let ours: Vec<(String, Vec<u8>)> =
        seen.iter().map(|seen| (seen.entry.path.clone(), seen.content.clone())).collect();
    assert_eq!(ours, others);
}

/// The package as each of its builds has it.
fn emit(package: &Package, seen: &[Seen]) {
    let own = Dockerfile::Own { registry: "r:5000".into() };
    let context = written(|tar| context::write(package, &own, tar));
    check_emitted(&context, &Emitted { top: "", before: &[], is_layer: false }, seen);

    let rendered = Dockerfile::Rendered("FROM scratch\n".into());
    let context = written(|tar| context::write(package, &rendered, tar));
    check_emitted(&context, &Emitted { top: "app/", before: &["Dockerfile", "app"], is_layer: false }, seen);

    let way = ["srv", "srv/app"];
    let directory = |path: &str| Directory { path: path.into(), mode: 0o755, uid: 0, gid: 0 };
    let place = Placed { directory: "srv/app".into(), way: way.map(directory).into() };
    let layer = written(|tar| context::write_layer(package, &place, tar));
    check_emitted(&layer, &Emitted { top: "srv/app/", before: &way, is_layer: true }, seen);
    // By its digest a layer is found again.
    assert!(layer == written(|tar| context::write_layer(package, &place, tar)), "two layers of one package");
}

fn written(write: impl Fn(&mut Vec<u8>) -> Result<(), PackageError>) -> Vec<u8> {
    let mut tar = Vec::new();
    write(&mut tar).unwrap_or_else(|error| panic!("a sound package cannot be handed on: {error:?}"));
    tar
}

fn check_emitted(tar: &[u8], emitted: &Emitted<'_>, seen: &[Seen]) {
    assert_harmless(tar, emitted);
    let expected = emitted.of(seen);
    // Below a directory of the image a name may be longer than one that a package may have.
    let may_be_in_a_package = |seen: &Seen| seen.entry.path.len() <= 1024 && seen.entry.path.split('/').count() <= 64;
    if expected.iter().all(may_be_in_a_package) {
        let package = opened(tar, LIMITS_AGAIN).unwrap_or_else(|error| panic!("what was made is refused: {error:?}"));
        let (seen, outcome) = walked(&package);
        outcome.unwrap_or_else(|error| panic!("what was made is refused: {error:?}"));
        let again: Vec<Seen> = seen.into_iter().skip(emitted.before.len()).map(Emitted::with_plain_target).collect();
        assert_eq!(again, expected);
    }
}
