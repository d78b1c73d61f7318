//! What lies in a directory, opened as what it was seen to be: somebody else may put a link, a pipe or a device in its place
//! meanwhile, and none of them is followed, waited for or read.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

/// Opens a regular file that a person named, along links; none where it is no regular file. It never waits.
pub fn regular(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// An open directory. Names in it lead nowhere else, whatever becomes of its own.
#[derive(Debug)]
pub(super) struct Directory {
    file: File,
    /// What it was called when it was opened.
    pub(super) path: PathBuf,
}

/// An entry that was seen, and not opened.
#[derive(Debug)]
pub(super) struct Seen {
    file: File,
    /// What it is, a link by itself.
    pub(super) meta: Metadata,
}

impl Directory {
    /// Opens the one that a person named, along links.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// One that lies in another and was opened there.
    pub(super) fn within(file: File, path: &Path) -> Self {
        Self { file, path: path.to_owned() }
    }

    /// Names of its entries in order. They are read by its path: where that leads elsewhere by now, they are not found here.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        let mut names = entries.collect::<io::Result<Vec<OsString>>>()?;
        names.sort();
        Ok(names)
    }

    /// What lies under a name.
    pub(super) fn see(&self, name: &OsStr) -> io::Result<Seen> {
        let file = File::from(self.at(name, OFlag::O_PATH)?);
        Ok(Seen { meta: file.metadata()?, file })
    }

    /// Opens what was seen, a file or directory; none where something else lies there now.
    pub(super) fn take(&self, name: &OsStr, seen: &Seen) -> io::Result<Option<(File, Metadata)>> {
        let file = match self.at(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            // A link, or a socket.
            Err(Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            opened => File::from(opened?),
        };
        let meta = file.metadata()?;
        // What was seen is held open: no other one has its number.
        Ok(((meta.dev(), meta.ino()) == (seen.meta.dev(), seen.meta.ino())).then_some((file, meta)))
    }

    fn at(&self, name: &OsStr, flags: OFlag) -> nix::Result<std::os::fd::OwnedFd> {
        openat(&self.file, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    }
}

impl Seen {
    /// Where the link leads that was seen.
    pub(super) fn target(&self) -> io::Result<PathBuf> {
        Ok(readlinkat(&self.file, "")?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use nix::sys::stat::Mode;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_was_put_in_the_place_of_a_file_or_directory_is_neither_followed_nor_waited_for() {
        let (dir, elsewhere) = (TestDir::new("opened"), TestDir::new("opened"));
        let secret = elsewhere.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let (file, sub) = (dir.path().join("file"), dir.path().join("sub"));
        std::fs::write(&file, "content").unwrap();
        std::fs::create_dir(&sub).unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let [seen_file, seen_sub] = ["file", "sub"].map(|name| directory.see(name.as_ref()).unwrap());
        let is_taken = |name: &str, seen: &Seen| directory.take(name.as_ref(), seen).unwrap().is_some();
        assert!(is_taken("file", &seen_file) && is_taken("sub", &seen_sub));

        std::fs::remove_file(&file).unwrap();
        std::fs::remove_dir(&sub).unwrap();
        symlink(&secret, &file).unwrap();
        symlink(elsewhere.path(), &sub).unwrap();
        assert!(!is_taken("file", &seen_file) && !is_taken("sub", &seen_sub), "a link");

        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::S_IRWXU).unwrap();
        assert!(!is_taken("file", &seen_file), "a pipe that nobody writes into");

        std::fs::remove_file(&file).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&file).unwrap();
        assert!(!is_taken("file", &seen_file), "a socket");

        std::fs::remove_file(&file).unwrap();
        std::fs::copy(&secret, &file).unwrap();
        assert!(!is_taken("file", &seen_file), "another file");
    }

    #[test]
    fn a_directory_whose_name_leads_elsewhere_meanwhile_is_still_itself() {
        let (dir, elsewhere) = (TestDir::new("opened"), TestDir::new("opened"));
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        for (directory, content) in [(sub.as_path(), "ours"), (elsewhere.path(), "another's")] {
            std::fs::write(directory.join("file"), content).unwrap();
        }
        std::fs::write(elsewhere.path().join("secret"), "another's").unwrap();
        let directory = Directory::open(&sub).unwrap();
        std::fs::rename(&sub, dir.path().join("moved")).unwrap();
        symlink(elsewhere.path(), &sub).unwrap();

        assert_eq!(directory.names().unwrap(), ["file", "secret"]);
        let seen = directory.see("file".as_ref()).unwrap();
        let mut content = String::new();
        directory.take("file".as_ref(), &seen).unwrap().unwrap().0.read_to_string(&mut content).unwrap();
        assert_eq!(content, "ours");
        assert!(directory.see("secret".as_ref()).is_err());
    }

    #[test]
    fn what_a_person_names_is_a_regular_file_and_may_be_a_link_to_one() {
        let dir = TestDir::new("opened");
        let (file, link, pipe) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("pipe"));
        std::fs::write(&file, "content").unwrap();
        symlink("file", &link).unwrap();
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert!(regular(&file).unwrap().is_some() && regular(&link).unwrap().is_some());
        assert!(regular(&pipe).unwrap().is_none() && regular(dir.path()).unwrap().is_none());
    }
}
