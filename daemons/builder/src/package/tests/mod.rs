//! What the archive walk takes and refuses: a table of malicious packages, and properties.

mod time;
mod zips;

use self::zips::{central, zip_file, zip_of};
use super::{Entry, EntryKind, Limits, Package, PackageError, Spooled};
use crate::bases::Bases;
use crate::context;
use crate::runtime::Runtimes;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use tar::{EntryType, Header};
use zip::write::SimpleFileOptions;

const LIMITS: Limits = Limits { ratio: 100, ..Limits::WIDE };

fn package(bytes: &[u8]) -> Result<Package, PackageError> {
    opened(bytes, LIMITS)
}

fn opened(bytes: &[u8], limits: Limits) -> Result<Package, PackageError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Package::open(Spooled::new(file, bytes.len() as u64, "00".into()), limits)
}

fn inspect(bytes: &[u8]) -> Result<Vec<Entry>, PackageError> {
    let package = package(bytes)?;
    package.inspect(&[])?;
    let mut entries = Vec::new();
    package.walk(&mut |entry, _| {
        entries.push(entry.clone());
        Ok(())
    })?;
    Ok(entries)
}

fn refusal(bytes: &[u8]) -> String {
    let error = inspect(bytes).expect_err("this must be refused");
    assert!(error.is_of_the_package(), "{error:?}");
    error.to_string()
}

/// A tar archive whose headers say whatever a test wants.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(
        mut self,
        kind: u8,
        name: &[u8],
        link: &[u8],
        size: u64,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_size(size);
        header.set_mode(0o4755);
        header.set_mtime(1_600_000_000);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().div_ceil(512) * 512, 0);
        self
    }

    fn entry(self, kind: u8, name: &str, link: &str, content: &[u8]) -> Self {
        self.raw(kind, name.as_bytes(), link.as_bytes(), content.len() as u64, content, |_| ())
    }

    fn file(self, name: &str) -> Self {
        self.entry(b'0', name, "", b"content")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, b"")
    }

    fn hard(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length =
                (1..).map(|digits| rest + digits).find(|length| rest + length.to_string().len() == *length).unwrap();
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.entry(b'x', "pax", "", &content)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn malicious_tars_are_refused_with_entry_and_rule() {
    let tar = Tar::default;
    let long = "a/".repeat(70) + "b";
    let table: Vec<(Vec<u8>, &str)> = vec![
        (tar().file("../evil").end(), "entry \"../evil\" is refused: its name holds \"..\""),
        (tar().file("a/../../evil").end(), "holds \"..\""),
        (tar().file("a/..").end(), "holds \"..\""),
        (tar().file("/etc/passwd").end(), "entry \"/etc/passwd\" is refused: its name is absolute"),
        (tar().file("C:/evil").end(), "begins with a drive"),
        (tar().file("a\\b").end(), "holds a backslash"),
        (tar().file("a\nb").end(), "entry \"a\\nb\" is refused: its name holds a control character"),
        (tar().raw(b'0', b"a\xff", b"", 0, b"", |_| ()).end(), "is not UTF-8"),
        (tar().pax(&[("path", b"a\0b")]).file("x").end(), "holds a NUL byte"),
        (tar().pax(&[("path", b"../evil")]).file("x").end(), "holds \"..\""),
        (tar().pax(&[("path", long.as_bytes())]).file("x").end(), "deeper than 64"),
        (tar().pax(&[("path", "x".repeat(256).as_bytes())]).file("x").end(), "longer than 255 bytes"),
        (tar().file("a/.wh.b").end(), "begin with .wh."),
        (tar().file(".wh..wh..opq").end(), "begin with .wh."),
        (tar().link("l", "/etc").end(), "target is absolute and leads out of the package"),
        (tar().link("l", "..").end(), "entry \"l\" is refused: it is a link to \"..\", which leads out"),
        (tar().link("a/l", "../../etc").end(), "leads out of the package"),
        // Each is harmless by its text; one after the other they lead out.
        (tar().link("d/up", "..").link("l", "d/up/../etc").end(), "leads out of the package"),
        (
            tar().link("a", "b/..").link("b", "c/d").entry(b'5', "c/d", "", b"").link("x", "a/../../e").end(),
            "leads out",
        ),
        (tar().link("a", "b").link("b", "a").end(), "too many links"),
        (tar().link("l", "d").file("l/evil").end(), "it lies below \"l\", which is a link"),
        (tar().file("f").file("f/evil").end(), "it lies below \"f\", which is a file"),
        (tar().file("d/f").link("d", "e").end(), "it is there twice"),
        (tar().hard("h", "/etc/passwd").end(), "hard link whose target cannot be: its name is absolute"),
        (tar().hard("h", "../etc/passwd").end(), "hard link whose target cannot be"),
        (tar().hard("h", "f").file("f").end(), "no earlier file of the package"),
        (tar().link("l", "f").hard("h", "l").end(), "no earlier file of the package"),
        (tar().file("f").hard("f", "f").end(), "it is there twice"),
        (tar().entry(b'3', "null", "", b"").end(), "it is a device"),
        (tar().entry(b'4', "sda", "", b"").end(), "it is a device"),
        (tar().entry(b'6', "pipe", "", b"").end(), "it is a named pipe"),
        (tar().entry(b'S', "sparse", "", b"").end(), "it is a sparse file"),
        (tar().pax(&[("GNU.sparse.major", b"1")]).file("f").end(), "sparse"),
        (tar().entry(b'V', "volume", "", b"content").end(), "of a kind that packages cannot hold"),
        (tar().file("f").file("./f").end(), "entry \"./f\" is refused: it is there twice"),
        (tar().file("dir/").end(), "a file whose name ends with /"),
        (tar().raw(b'5', b"d", b"", 512, &[0; 512], |_| ()).end(), "it is no file and yet has content"),
        (tar().pax(&[("size", b"0")]).file("f").end(), "its headers disagree about its size"),
        (tar().pax(&[("path", b"a"), ("path", b"b")]).file("f").end(), "sets a name twice"),
        (tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f").end(), "two extension headers"),
        (
            tar().entry(b'L', "././@LongLink", "", b"a\0").pax(&[("path", b"b")]).file("f").end(),
            "two long names that differ",
        ),
        (tar().entry(b'L', "././@LongLink", "", b"../evil\0").file("f").end(), "holds \"..\""),
        (tar().entry(b'g', "global", "", b"14 path=../ev\n").file("f").end(), "a global header sets names"),
        (tar().entry(b'x', "pax", "", b"999 path=a\n").file("f").end(), "a pax header is malformed"),
        (tar().entry(b'x', "pax", "", b"-1 path=a\n").file("f").end(), "a pax header is malformed"),
        (tar().pax(&[("path", b"a")]).end(), "ends after an extension header"),
        (tar().raw(b'x', b"pax", b"", 1 << 40, b"", |_| ()).end(), "extension header of more than 1 MiB"),
        (tar().file("f").0, "the tar file is cut off"),
        (tar().raw(b'0', b"f", b"", 5000, b"short", |_| ()).end(), "the tar file is cut off"),
        ([tar().file("f").end(), b"trailing".to_vec()].concat(), "data after the end of the archive"),
        (
            tar().file("f").end().iter().enumerate().map(|(at, b)| if at == 1024 { b'!' } else { *b }).collect(),
            "checksum is wrong",
        ),
        (tar().end(), "not an archive"),
        (tar().entry(b'5', "./", "", b"").end(), "the package is empty: it holds no file"),
        ((0..1001).fold(tar(), |tar, n| tar.entry(b'0', &n.to_string(), "", b"")).end(), "more than 1000 entries"),
    ];
    for (index, (bytes, expected)) in table.iter().enumerate() {
        for bytes in [bytes, &gzip(bytes)] {
            let text = match inspect(bytes) {
                Err(error) if error.is_of_the_package() => error.to_string(),
                other => panic!("{index} ({expected}): {other:?}"),
            };
            let empty = *expected == "not an archive" && text.contains("holds no file");
            let gz = text.replace("tar.gz file", "tar file");
            assert!(empty || gz.contains(expected), "{index}: {text:?} instead of {expected:?}");
        }
    }
}

/// The name of entry `number` of a package in which each lies below 63 directories of its own, in 1,000 bytes.
fn deep_name(number: usize) -> String {
    format!("{number:04}{}", format!("/{}", "x".repeat(15)).repeat(62))
}

#[test]
fn a_small_package_whose_directories_stand_in_names_alone_takes_no_memory() {
    let deep = |count: usize| {
        let tar = (0..count).fold(Tar::default(), |tar, number| {
            tar.pax(&[("path", deep_name(number).as_bytes())]).entry(b'0', "f", "", b"")
        });
        gzip(&tar.end())
    };
    assert!(inspect(&deep(10)).is_ok(), "630 entries and directories");
    let package = deep(3000);
    assert!(package.len() < 100 << 10, "{}", package.len());
    assert!(refusal(&package).contains("more than 1000 entries, counting the directories in their names"));

    let limits = Limits { entries: 100_000, ..LIMITS };
    let error = opened(&package, limits).unwrap().inspect(&[]).unwrap_err().to_string();
    assert!(error.contains("the names of its entries and directories are longer than 1 MiB together"), "{error}");
    // The same by targets of links.
    let target = "t/".repeat(511);
    let links = (0..2000)
        .fold(Tar::default(), |tar, number| tar.pax(&[("linkpath", target.as_bytes())]).link(&number.to_string(), "t"));
    let error = opened(&gzip(&links.end()), limits).unwrap().inspect(&[]).unwrap_err().to_string();
    assert!(error.contains("longer than 1 MiB together"), "{error}");
}

#[test]
fn links_that_lead_through_each_other_end_early() {
    let chain = |tar: Tar, length: usize, target: &dyn Fn(usize) -> String| {
        (0..length).fold(tar, |tar, number| {
            tar.pax(&[("linkpath", target(number + 1).as_bytes())]).link(&format!("c{number}"), "t")
        })
    };
    // Each lengthens the way of the one before.
    let longer = |next: usize| format!("c{next}/{}", "d/".repeat(500));
    assert!(inspect(&gzip(&chain(Tar::default(), 3, &longer).end())).is_ok());
    assert!(refusal(&chain(Tar::default(), 6, &longer).end()).contains("leads to a name of more than 4096 bytes"));
    // Many that go the same long way.
    let turning = |next: usize| format!("{}c{next}", "d/../".repeat(200));
    let starts = |count: usize| (0..count).fold(Tar::default(), |tar, n| tar.link(&format!("s{n}"), "c0"));
    assert!(inspect(&gzip(&chain(starts(100), 30, &turning).end())).is_ok());
    assert!(refusal(&chain(starts(900), 30, &turning).end()).contains("is one of too many that lead through each"));
}

#[test]
fn what_is_read_as_a_whole_is_bounded() {
    // A directory of a zip file that is as large as the file.
    let mut zip = zip_file("f");
    let end = zip.len() - 22;
    zip.splice(end..end, std::iter::repeat_n(0, 33 << 20));
    let at = zip.len() - 22;
    let size = u32::try_from(zip.len() - 22 - central(&zip)).unwrap();
    zip[at + 12..at + 16].copy_from_slice(&size.to_le_bytes());
    assert!(refusal(&zip).contains("its directory is larger than 32 MiB"));

    // A program whose headers are as large as the file.
    let mut program = std::fs::read("/bin/sh").unwrap();
    program[54..58].fill(0xff);
    assert!(refusal(&program).contains("no program headers"));
}

#[test]
fn what_a_runtime_starts_must_be_startable() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/builder.d");
    let runtimes = Runtimes::new(directory, Bases::new("control:5000".into(), None, BTreeMap::new()), false);
    let runtime = |name: &str| runtimes.get(&name.parse().unwrap()).unwrap();
    let checked = |name: &str, bytes: &[u8]| {
        let runtime = runtime(name);
        let package = package(bytes).unwrap();
        let inventory = package.inspect(&runtime.wanted().cloned().collect::<Vec<_>>()).unwrap();
        let checked = runtime.check(package.format, &inventory).map_err(|misfit| misfit.sentence(&inventory));
        checked.map(|()| runtime.notes(&inventory))
    };
    let file = |tar: Tar, name: &str, content: &[u8]| tar.entry(b'0', name, "", content);
    let mut arm = std::fs::read("/bin/sh").unwrap();
    arm.truncate(512);
    arm[18] = if arm[18] == 62 { 183 } else { 62 };

    let windows = file(Tar::default(), "control", b"#!/bin/sh\r\nexec ./web\r\n").end();
    assert!(
        checked("binary", &windows).unwrap_err().starts_with("control cannot be started: its lines end as on Windows")
    );
    let text = checked("binary", &file(Tar::default(), "app", &arm).end()).unwrap_err();
    assert!(text.starts_with("app cannot be started: it is made for "), "{text}");
    let beside = file(file(Tar::default(), "control", b"#!/bin/sh\n"), "lib/x.so", &arm).end();
    let notes = checked("binary", &beside).unwrap();
    assert!(notes[0].starts_with("note: lib/x.so is of no use in an image: it is made for "), "{notes:?}");
    let many = (0..12).fold(file(Tar::default(), "app.py", b""), |tar, n| file(tar, &format!("{n}.so"), &arm)).end();
    assert_eq!(checked("python", &many).unwrap().last().unwrap(), "note: so are 2 further files");

    let procfile = |text: &[u8]| checked("python", &file(Tar::default(), "Procfile", text).end());
    assert_eq!(procfile(b"web: python a.py\n").unwrap(), [""; 0]);
    let notes = procfile(b"release: python migrate.py\nweb: python a.py\nworker: celery\n").unwrap();
    assert_eq!(notes, ["note: of the Procfile only web is run; not run: release, worker"]);
    let text = procfile(b"worker: celery\n").unwrap_err();
    assert_eq!(text, "runtime python starts the line web: of the Procfile, which has none");

    // As the Finder packs: the hint is of what people packed themselves.
    let finder = zips::zip_with(&[("myapp/app.py", ""), ("__MACOSX/myapp/._app.py", "")]);
    assert!(checked("python", &finder).unwrap_err().contains("all of it lies in myapp/"));
}

#[test]
fn damaged_gzip_is_refused() {
    let whole = gzip(&Tar::default().file("f").end());
    for cut in [3, 11, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        let text = refusal(&whole[..cut]);
        assert!(text.contains("cut off") || text.contains("damaged"), "{cut}: {text}");
    }
    for at in [whole.len() - 8, whole.len() - 1, whole.len() / 2] {
        let mut wrong = whole.clone();
        wrong[at] ^= 0x55;
        assert!(refusal(&wrong).contains("the tar.gz file is"), "{at}");
    }
    assert!(refusal(&[whole, b"trailing".to_vec()].concat()).contains("the tar.gz file is"));
    assert!(refusal(b"hello").starts_with("the package is not an archive"));
    assert!(refusal(b"").starts_with("the package is not an archive"));
}

#[test]
fn bombs_end_early() {
    // Members of a gzip file can be repeated: a bomb of any size costs one small member.
    let head = gzip(&Tar::default().raw(b'0', b"zeros", b"", 1 << 32, b"", |_| ()).0);
    let zeros = gzip(&vec![0; 4 << 20]);
    let bomb = [head, zeros.repeat(64)].concat();
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    assert!(refusal(&bomb).contains("it unpacks to more than 64 MiB"));

    // What a zip file says of itself is believed where it is too much, and checked where it is not.
    let small = zip_of(|zip| {
        zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
        zip.write_all(&[0; 100_000]).unwrap();
    });
    let says = |size: u32| {
        let mut zip = small.clone();
        let at = central(&zip);
        zip[22..26].copy_from_slice(&size.to_le_bytes());
        zip[at + 24..at + 28].copy_from_slice(&size.to_le_bytes());
        refusal(&zip)
    };
    assert!(says(200 << 20).contains("it unpacks to more than 64 MiB"));
    assert!(says(10).contains("entry \"zeros\": it is larger than the directory says"));
}

#[test]
fn executables_must_be_static_and_of_this_machine() {
    let dynamic = std::fs::read("/bin/sh").unwrap();
    assert!(refusal(&dynamic).contains("dynamically linked"), "the shell of the distribution");
    assert!(refusal(&dynamic[..100]).contains("cut off"));
    let mut other = dynamic.clone();
    other[18] = 8;
    assert!(refusal(&other).contains("another processor"));
    let mut small = dynamic;
    small[4] = 1;
    assert!(refusal(&small).contains("64-bit"));
}

#[test]
fn the_context_holds_what_was_checked_and_no_more() {
    let bytes = Tar::default()
        .entry(b'5', "./", "", b"")
        .file("./app.py")
        .entry(b'5', "lib", "", b"")
        .link("lib/link", "../app.py")
        .hard("same.py", "./app.py")
        .pax(&[("path", "lib/übung".as_bytes()), ("SCHILY.xattr.user.x", b"y"), ("mtime", b"1600000001.5")])
        .raw(b'0', b"short", b"", 2, b"ok", |header| {
            header.set_uid(1000);
            header.set_mode(0o6600);
        })
        .end();
    let mut out = Vec::new();
    let dockerfile = context::Dockerfile::Rendered("FROM x\n".into());
    context::write(&package(&gzip(&bytes)).unwrap(), &dockerfile, &mut out).unwrap();
    let mut archive = tar::Archive::new(out.as_slice());
    let lines: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
            let path = entry.path().unwrap().display().to_string();
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            format!("{path} {:o} {owner:?} {} {link} {content}", header.mode().unwrap(), header.mtime().unwrap())
        })
        .collect();
    assert_eq!(
        lines,
        [
            "Dockerfile 644 (0, 0) 0  FROM x\n",
            "app/ 755 (0, 0) 0  ",
            "app/app.py 755 (0, 0) 1600000000  content",
            "app/lib/ 755 (0, 0) 1600000000  ",
            "app/lib/link 777 (0, 0) 1600000000 ../app.py ",
            "app/same.py 644 (0, 0) 1600000000 app/app.py ",
            "app/lib/übung 644 (0, 0) 1600000001  ok",
        ]
    );
}

type Tree = BTreeMap<String, Vec<u8>>;

fn trees() -> impl Strategy<Value = Tree> {
    btree_map("[a-z]{1,8}(/[a-zA-Zäß0-9_. -]{1,40}){0,5}x", vec(any::<u8>(), 0..2000), 1..12).prop_filter(
        "no file below a file",
        |tree| {
            tree.keys().all(|path| !tree.keys().any(|other| other.starts_with(&format!("{path}/"))))
                && tree
                    .keys()
                    .all(|path| path.split('/').all(|part| part != "." && part != ".." && !part.starts_with(".wh.")))
        },
    )
}

fn contents(bytes: &[u8]) -> Tree {
    let mut tree = Tree::new();
    let package = package(bytes).unwrap();
    package.inspect(&[]).unwrap();
    let visited = package.walk(&mut |entry, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        if matches!(entry.kind, EntryKind::File { .. }) {
            tree.insert(entry.path.clone(), bytes);
        }
        Ok(())
    });
    visited.unwrap();
    tree
}

fn tar_of(tree: &Tree) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in tree {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_others_pack_is_read_as_it_was(tree in trees()) {
        let tar = tar_of(&tree);
        prop_assert_eq!(&contents(&tar), &tree);
        prop_assert_eq!(&contents(&gzip(&tar)), &tree);
        let zip = zip_of(|zip| {
            for (path, content) in &tree {
                zip.start_file(path, SimpleFileOptions::default()).unwrap();
                zip.write_all(content).unwrap();
            }
        });
        prop_assert_eq!(&contents(&zip), &tree);
    }

    #[test]
    fn damage_is_refused_or_harmless(tree in trees(), flips in vec((any::<prop::sample::Index>(), 1_u8..), 1..4), kind in 0..3) {
        let tar = tar_of(&tree);
        let mut bytes = match kind {
            0 => tar,
            1 => gzip(&tar),
            _ => zip_of(|zip| for (path, content) in &tree {
                zip.start_file(path, SimpleFileOptions::default()).unwrap();
                zip.write_all(content).unwrap();
            }),
        };
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        crate::fuzzing::package(&bytes);
        match inspect(&bytes) {
            Err(error) => prop_assert!(error.is_of_the_package(), "{:?}", error),
            Ok(entries) => for entry in entries {
                prop_assert!(!entry.path.starts_with('/') && !entry.path.split('/').any(|part| part == ".."));
            },
        }
    }

    #[test]
    fn noise_is_never_taken(head in prop::sample::select(vec![&b"PK\x03\x04"[..], b"\x1f\x8b\x08", b"\x7fELF\x02\x01", b""]), noise in vec(any::<u8>(), 0..3000)) {
        prop_assert!(inspect(&[head, &noise].concat()).is_err());
    }
}
