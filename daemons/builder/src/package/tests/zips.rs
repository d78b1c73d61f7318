//! Zip files, and those of Java.

use super::*;
use crate::package::Format;

pub(super) fn zip_of(fill: impl FnOnce(&mut zip::ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    fill(&mut zip);
    zip.finish().unwrap().into_inner()
}

pub(super) fn zip_file(name: &str) -> Vec<u8> {
    zip_of(|zip| {
        zip.start_file(name, SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        zip.write_all(b"content content content content").unwrap();
    })
}

/// Where the directory's first record begins.
pub(super) fn central(zip: &[u8]) -> usize {
    zip.windows(4).position(|window| window == b"PK\x01\x02").unwrap()
}

#[test]
fn what_common_tools_write_is_taken() {
    // tar -V, and files of 1960.
    let old = |header: &mut Header| header.as_old_mut().mtime.fill(0xff);
    let tar = Tar::default()
        .raw(b'V', b"label", b"", 0, b"", |header| header.as_old_mut().size.fill(0))
        .raw(b'0', b"old", b"", 0, b"", old)
        .pax(&[("mtime", b"-315619200.5")])
        .file("older");
    let entries = inspect(&tar.end()).unwrap();
    assert_eq!(
        entries.iter().map(|entry| (&*entry.path, entry.modified)).collect::<Vec<_>>(),
        [("old", 0), ("older", 0)]
    );

    // bsdtar and `zip -r -` announce that sizes follow, and know some of them all the same.
    let mut zip = zip_file("f");
    let at = central(&zip);
    zip[6] |= 1 << 3;
    zip[at + 8] |= 1 << 3;
    assert_eq!(inspect(&zip).unwrap().len(), 1, "all of them");
    zip[14..18].fill(0);
    assert_eq!(inspect(&zip).unwrap().len(), 1, "the sizes without the CRC");
    zip[22] ^= 1;
    assert!(refusal(&zip).contains("disagree"), "another size than in the directory");
}

#[test]
fn malicious_zips_are_refused() {
    let changed = |at: &dyn Fn(&[u8]) -> usize, change: u8| {
        let mut zip = zip_file("f");
        let at = at(&zip);
        zip[at] ^= change;
        refusal(&zip)
    };
    for (name, rule) in
        [("../evil", "holds \"..\""), ("/evil", "absolute"), ("a\\b", "backslash"), ("a/../../b", "holds \"..\"")]
    {
        // The writer cleans names, so the bytes are put in afterwards.
        let placeholder = "x".repeat(name.len());
        let zip = zip_file(&placeholder);
        let text =
            String::from_utf8(zip.clone().into_iter().map(|b| if b.is_ascii() { b } else { b'?' }).collect()).unwrap();
        let mut zip = zip;
        for (at, _) in text.match_indices(&placeholder) {
            zip[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
        assert!(refusal(&zip).contains(rule), "{name}");
    }
    assert!(changed(&|zip| central(zip) + 16, 1).contains("disagree"), "CRC in the directory alone");
    assert!(changed(&|zip| central(zip) + 46, 1).contains("disagree"), "name in the directory alone");
    assert!(changed(&|zip| central(zip) + 24, 1).contains("disagree"), "size in the directory alone");
    assert!(changed(&|zip| central(zip) + 8, 1).contains("encrypted"));
    assert!(changed(&|zip| central(zip) + 10, 4).contains("other than deflate"));
    assert!(changed(&|zip| central(zip) + 42, 1).contains("points to no entry"));
    assert!(
        changed(&|zip| zip.len() - 12, 1).contains("two ends")
            || changed(&|zip| zip.len() - 12, 1).contains("malformed")
            || changed(&|zip| zip.len() - 12, 1).contains("counts")
            || changed(&|zip| zip.len() - 12, 1).contains("several")
    );

    let mut wrong_crc = zip_file("f");
    let at = central(&wrong_crc);
    wrong_crc[14] ^= 1;
    wrong_crc[at + 16] ^= 1;
    assert!(refusal(&wrong_crc).contains("entry \"f\": its CRC is wrong"));
    let mut wrong_size = zip_file("f");
    wrong_size[22] += 1;
    wrong_size[at + 24] += 1;
    assert!(refusal(&wrong_size).contains("smaller than the directory says"));

    let zip = zip_file("f");
    for cut in 4..zip.len() {
        assert!(!refusal(&zip[..cut]).is_empty());
    }
    assert!(refusal(&[b"PK\x03\x04junk".to_vec(), zip.clone()].concat()).contains("not where it should be"));

    // Two records that share the bytes of one entry.
    let (from, end) = (central(&zip), zip.len() - 22);
    let mut twice = zip[..end].to_vec();
    twice.extend_from_slice(&zip[from..end]);
    let size = u32::try_from((end - from) * 2).unwrap();
    twice.extend_from_slice(&zip[end..]);
    let tail = twice.len() - 22;
    twice[tail + 8] = 2;
    twice[tail + 10] = 2;
    twice[tail + 12..tail + 16].copy_from_slice(&size.to_le_bytes());
    assert!(refusal(&twice).contains("entries overlap"));

    let link = zip_of(|zip| zip.add_symlink("l", "../../etc", SimpleFileOptions::default()).unwrap());
    assert!(refusal(&link).contains("leads out of the package"));
    let good = zip_of(|zip| {
        zip.add_directory("d", SimpleFileOptions::default()).unwrap();
        zip.add_symlink("d/l", "../f", SimpleFileOptions::default()).unwrap();
        zip.start_file("f", SimpleFileOptions::default().unix_permissions(0o644)).unwrap();
    });
    let entries = inspect(&good).unwrap();
    assert_eq!(entries[1].kind, EntryKind::Symlink { target: "../f".into() });
    assert_eq!(entries[2].kind, EntryKind::File { size: 0, executable: false });
}

/// A zip file of these texts.
pub(super) fn zip_with(files: &[(&str, &str)]) -> Vec<u8> {
    zip_of(|zip| {
        for (name, text) in files {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
    })
}

#[test]
fn a_war_is_a_tree_and_a_jar_stays_one_file() {
    let manifest = ("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nMain-Class: web.Main\r\n");
    let format = |bytes: &[u8]| package(bytes).unwrap().format;
    let paths = |bytes: &[u8]| inspect(bytes).unwrap().into_iter().map(|entry| entry.path).collect::<Vec<_>>();

    let war = zip_with(&[manifest, ("WEB-INF/web.xml", "<web-app/>"), ("index.jsp", "x")]);
    assert_eq!(format(&war), Format::War);
    assert_eq!(paths(&war), ["META-INF/MANIFEST.MF", "WEB-INF/web.xml", "index.jsp"]);

    let jar = zip_with(&[manifest, ("web/Main.class", "x"), ("BOOT-INF/lib/a.jar", "x")]);
    assert_eq!((format(&jar), paths(&jar)), (Format::Jar, vec!["app.jar".to_owned()]));
    let size = jar.len() as u64;
    assert_eq!(inspect(&jar).unwrap()[0].kind, EntryKind::File { size, executable: false });

    let library = zip_with(&[("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n"), ("web/Util.class", "x")]);
    assert!(refusal(&library).contains("names no Main-Class"), "{}", refusal(&library));
    let mut damaged = jar;
    damaged[35 + manifest.0.len()] ^= 0xff;
    assert!(refusal(&damaged).starts_with("the jar file is damaged: "), "{}", refusal(&damaged));
}

#[test]
fn what_the_finder_and_the_explorer_add_and_leave_out() {
    let finder = zip_with(&[("app.py", "x"), ("__MACOSX/._app.py", "x"), (".DS_Store", "x")]);
    let paths: Vec<String> = inspect(&finder).unwrap().into_iter().map(|entry| entry.path).collect();
    assert_eq!(paths, ["app.py", ".DS_Store"]);

    // Windows says nothing of who may execute a file.
    let mut explorer = zip_with(&[("control", "#!/bin/sh\n"), ("app", "\x7fELF..."), ("page.html", "<p>"), ("x", "#")]);
    for at in (0..explorer.len() - 4).filter(|at| explorer[*at..].starts_with(b"PK\x01\x02")).collect::<Vec<_>>() {
        explorer[at + 5] = 0;
    }
    let executable = |entry: Entry| matches!(entry.kind, EntryKind::File { executable: true, .. });
    let found: Vec<bool> = inspect(&explorer).unwrap().into_iter().map(executable).collect();
    assert_eq!(found, [true, true, false, false]);
}

/// A zip64 file as Info-ZIP makes it (`zip -fz`): one stored entry `f` of the bytes `hello`.
fn zip64() -> Vec<u8> {
    let u16s = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let u32s = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let u64s = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let wide = [u16s(&[1, 16]), u64s(&[5, 5])].concat();
    let common = [u16s(&[45, 0, 0, 0, 0x21]), u32s(&[0x3610_a686, u32::MAX, u32::MAX])].concat();
    let local = [b"PK\x03\x04".to_vec(), common.clone(), u16s(&[1, 20]), b"f".to_vec(), wide].concat();
    let offset = (local.len() + 5) as u64;
    let wide = [u16s(&[1, 24]), u64s(&[5, 5, 0])].concat();
    let record = [
        b"PK\x01\x02".to_vec(),
        u16s(&[0x031e]),
        common,
        u16s(&[1, 28, 0, 0, 0]),
        u32s(&[0o100_644 << 16, u32::MAX]),
        b"f".to_vec(),
        wide,
    ]
    .concat();
    let size = record.len() as u64;
    let end = [
        b"PK\x06\x06".to_vec(),
        u64s(&[44]),
        u16s(&[45, 45]),
        u32s(&[0, 0]),
        u64s(&[1, 1, size, offset]),
        b"PK\x06\x07".to_vec(),
        u32s(&[0]),
        u64s(&[offset + size]),
        u32s(&[1]),
        b"PK\x05\x06".to_vec(),
        u16s(&[0, 0, u16::MAX, u16::MAX]),
        u32s(&[u32::MAX, u32::MAX]),
        u16s(&[0]),
    ]
    .concat();
    [local, b"hello".to_vec(), record, end].concat()
}

#[test]
fn zip64_is_read_as_strictly() {
    let zip = zip64();
    let entries = inspect(&zip).unwrap();
    assert_eq!(entries[0].kind, EntryKind::File { size: 5, executable: false }, "{entries:?}");

    let at = |part: &[u8]| zip.windows(part.len()).position(|window| window == part).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut zip = zip.clone();
        zip[at] = byte;
        refusal(&zip)
    };
    let (record, end, locator) = (central(&zip), at(b"PK\x06\x06"), at(b"PK\x06\x07"));
    assert!(changed(35, 6).contains("its header and the directory disagree"), "{}", changed(35, 6));
    assert!(changed(record + 47, 9).contains("a size of 64 bits is missing in its directory"));
    assert!(changed(31, 9).contains("a size of 64 bits is missing in its header"), "{}", changed(31, 9));
    assert!(changed(record + 51 + 16, 0xff).contains("the directory points behind the entries"));
    assert!(changed(end + 4, 45).contains("the end of its directory is not where it should be"));
    assert!(changed(end + 24, 2).contains("it is one part of several"));
    assert!(changed(end + 40, 1).contains("its directory is not where it should be"));
    assert!(changed(locator + 16, 2).contains("it is one part of several"));
    assert!(changed(locator + 20 + 12, 7).contains("its two ends disagree"));
    // Values of which the sum has more than 64 bits.
    let mut huge = zip.clone();
    huge[record + 51 + 8..record + 51 + 16].fill(0xff);
    assert!(refusal(&huge).contains("disagree"), "{}", refusal(&huge));
    let mut huge = zip;
    huge[end + 48..end + 56].fill(0xff);
    assert!(refusal(&huge).contains("its directory is not where it should be"), "{}", refusal(&huge));
}

#[test]
fn entries_that_overlap_are_refused_before_one_is_unpacked() {
    // The header of the first spans that of the second, and both have the data of the second.
    let mut zip = zip_with(&[("a", "xx"), ("b", "xx")]);
    let second = (1..zip.len()).find(|at| zip[*at..].starts_with(b"PK\x03\x04")).unwrap();
    // A local header is 30 bytes and a name of one.
    zip[28..30].copy_from_slice(&u16::try_from(second).unwrap().to_le_bytes());
    let mut seen = 0;
    let walked = package(&zip).unwrap().walk(&mut |_, _| {
        seen += 1;
        Ok(())
    });
    assert!(walked.unwrap_err().to_string().contains("entries overlap"));
    assert_eq!(seen, 0);
}
