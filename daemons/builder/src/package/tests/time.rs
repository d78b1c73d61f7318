//! A package is read for no longer than it may be.

use super::zips::zip_file;
use super::*;
use crate::package::Inventory;
use std::time::Duration;

const HUGE: u64 = 1 << 40;

fn spooled(bytes: &[u8], len: u64) -> Spooled {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(len).unwrap();
    Spooled::new(file, len, "00".into())
}

fn examined(spooled: Spooled, time: Duration) -> Result<(Package, Inventory), PackageError> {
    let limits = Limits { unpacked_bytes: u64::MAX, ratio: u64::MAX, time, ..LIMITS };
    Package::examine(spooled, limits, &[])
}

#[test]
fn a_package_that_is_not_read_in_time_is_refused_whatever_it_is() {
    let tar = Tar::default().file("x").end();
    let mut executable = vec![0; 64];
    executable[..4].copy_from_slice(b"\x7fELF");
    for bytes in [tar.clone(), gzip(&tar), zip_file("x"), executable] {
        let error = examined(spooled(&bytes, bytes.len() as u64), Duration::ZERO).unwrap_err();
        assert!(error.is_of_the_package(), "{error:?}");
        let text = error.to_string();
        assert_eq!(
            text,
            "the package is refused: reading it takes longer than 0 s, which is the limit of this builder"
        );
    }

    let bytes = gzip(&tar);
    let (package, _) = examined(spooled(&bytes, bytes.len() as u64), Duration::from_secs(60)).unwrap();
    assert!(package.spooled.deadline().is_none(), "who builds from it has a limit of its own");
}

#[test]
fn the_reading_itself_ends_with_the_time() {
    // A file of 1 TiB, and a part without content four million times: these take far longer.
    let head = Tar::default().raw(b'0', b"zeros", b"", HUGE, b"", |_| ()).0;
    let many = gzip(&[]).repeat(4 << 20);
    for (bytes, len) in [(&head[..], HUGE), (&many[..], many.len() as u64)] {
        let error = examined(spooled(bytes, len), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, PackageError::TooSlow(_)), "{error:?}");
    }
}

#[test]
fn few_packed_bytes_that_are_many_end_with_the_time_too() {
    let zeros = vec![0; 64 << 20];
    let zip = zips::zip_of(|zip| {
        zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
        zip.write_all(&zeros).unwrap();
    });
    let tar = gzip(&Tar::default().entry(b'0', "zeros", "", &zeros).end());
    for bytes in [zip, tar] {
        assert!(bytes.len() < 1 << 20, "{}", bytes.len());
        let error = examined(spooled(&bytes, bytes.len() as u64), Duration::from_millis(3)).unwrap_err();
        assert!(matches!(error, PackageError::TooSlow(_)), "{error:?}");
    }
}
