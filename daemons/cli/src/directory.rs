//! A directory as a package: packed on the way, without what its ignore files name.

mod opened;

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use tar::{Builder, EntryType, Header};

use crate::error::CliError;
use opened::Directory;
pub use opened::regular;

/// The file that says what is left out, and the one that counts where it is missing.
const IGNORE_FILES: [&str; 2] = [".dinpignore", ".gitignore"];
/// Left out of every package.
const NEVER: [&str; 5] = [".git", ".hg", ".svn", ".DS_Store", ".dinpignore"];
/// Directories of libraries, which people keep out of Git and yet want to run.
const LIBRARIES: [&str; 3] = ["node_modules", "vendor", "site-packages"];
/// Most that is named of what was left out.
const MOST_NAMED: usize = 8;

/// A directory that was packed.
#[derive(Debug)]
pub struct Packed {
    /// The package, which is a tar.gz.
    pub file: File,
    /// Number of files and links in it.
    pub files: usize,
    /// Bytes of the files.
    pub unpacked: u64,
    /// What is not in it, relative to the directory; directories with a slash at the end.
    pub left_out: Vec<String>,
    /// The name of the file that said so, if there is one.
    pub ignore_file: Option<&'static str>,
}

impl Packed {
    /// What a person should know of what was left out, if anything.
    pub fn notes(&self) -> Vec<String> {
        let Some(ignore_file) = self.ignore_file.filter(|_| !self.left_out.is_empty()) else { return Vec::new() };
        let named = self.left_out.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = match self.left_out.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let mut notes = vec![format!("left out by {ignore_file}: {named}{more}")];
        let is_library =
            |path: &&String| LIBRARIES.contains(&path.trim_end_matches('/').rsplit('/').next().unwrap_or(path));
        if let Some(library) = self.left_out.iter().find(is_library)
            && ignore_file != IGNORE_FILES[0]
        {
            notes.push(format!(
                "{library} is not in the package: if the app needs it, say in {} what to leave out",
                IGNORE_FILES[0]
            ));
        }
        notes
    }
}

/// Packs what is in a directory into a file that goes with the process. Files belong to root in it, and who may execute one still
/// may.
pub fn pack(directory: &Path) -> Result<Packed, CliError> {
    let unpacked = tempfile::tempfile().map_err(|error| CliError::file("make", &std::env::temp_dir(), error))?;
    let ignore_file = IGNORE_FILES.into_iter().find(|name| directory.join(name).is_file());
    let mut packer = Packer {
        top: directory,
        tar: Builder::new(GzEncoder::new(BufWriter::new(unpacked), Compression::default())),
        rules: Vec::new(),
        packed: (0, 0),
        left_out: Vec::new(),
        ignore_file,
    };
    let top = Directory::open(directory).map_err(|error| CliError::file("read directory", directory, error))?;
    packer.directory(&top)?;
    let Packer { tar, packed: (files, unpacked), left_out, .. } = packer;
    let finish = || -> io::Result<File> {
        let mut file = tar.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    };
    let file = finish().map_err(|error| CliError::file("pack", directory, error))?;
    Ok(Packed { file, files, unpacked, left_out, ignore_file })
}

struct Packer<'a> {
    top: &'a Path,
    tar: Builder<GzEncoder<BufWriter<File>>>,
    /// Of the directories on the way here, outermost first.
    rules: Vec<Gitignore>,
    /// Files and bytes so far.
    packed: (usize, u64),
    left_out: Vec<String>,
    ignore_file: Option<&'static str>,
}

impl Packer<'_> {
    fn directory(&mut self, directory: &Directory) -> Result<(), CliError> {
        let has_rules = self.read_rules(&directory.path)?;
        // In order: the same directory makes the same package.
        let names = directory.names().map_err(|error| CliError::file("read directory", &directory.path, error))?;
        for name in names {
            self.entry(directory, &name)?;
        }
        if has_rules {
            self.rules.pop();
        }
        Ok(())
    }

    fn read_rules(&mut self, directory: &Path) -> Result<bool, CliError> {
        let Some(path) = self.ignore_file.map(|name| directory.join(name)).filter(|path| path.is_file()) else {
            return Ok(false);
        };
        let failed = |error| CliError::file("read", &path, error);
        let mut text = String::new();
        let mut file = regular(&path).map_err(failed)?.ok_or_else(|| changed(&path))?;
        file.read_to_string(&mut text).map_err(failed)?;
        let unsound = |error: ignore::Error| CliError::refused(format!("{}: {error}", path.display()), "");
        let mut rules = GitignoreBuilder::new(directory);
        for line in text.trim_start_matches('\u{feff}').lines() {
            rules.add_line(None, line).map_err(unsound)?;
        }
        self.rules.push(rules.build().map_err(unsound)?);
        Ok(true)
    }

    fn entry(&mut self, directory: &Directory, name: &OsStr) -> Result<(), CliError> {
        let path = &directory.path.join(name);
        let failed = |error| CliError::file("read", path, error);
        let seen = directory.see(name).map_err(failed)?;
        let meta = &seen.meta;
        if NEVER.iter().any(|never| name == *never) {
            return Ok(());
        }
        let shown = path.strip_prefix(self.top).unwrap_or(path);
        if self.is_ignored(path, meta.is_dir()) {
            let slash = if meta.is_dir() { "/" } else { "" };
            self.left_out.push(format!("{}{slash}", shown.display()));
            return Ok(());
        }
        if meta.is_symlink() {
            self.packed.0 += 1;
            let target = seen.target().map_err(failed)?;
            let mut header = header(meta, EntryType::Symlink, 0, 0o777);
            return self.tar.append_link(&mut header, shown, target).map_err(failed);
        }
        if !meta.is_dir() && !meta.is_file() {
            return Err(CliError::refused(
                format!("{} is neither a file, nor a directory, nor a link", path.display()),
                format!("name it in {}", IGNORE_FILES[0]),
            ));
        }
        let (file, meta) = directory.take(name, &seen).map_err(failed)?.ok_or_else(|| changed(path))?;
        if meta.is_dir() {
            let mut header = header(&meta, EntryType::Directory, 0, 0o755);
            self.tar.append_data(&mut header, shown, io::empty()).map_err(failed)?;
            return self.directory(&Directory::within(file, path));
        }
        self.packed.0 += 1;
        let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        let mut content = file.take(meta.len());
        let mut header = header(&meta, EntryType::Regular, meta.len(), mode);
        self.tar.append_data(&mut header, shown, &mut content).map_err(failed)?;
        self.packed.1 += meta.len();
        // An archive whose sizes are wrong would be refused with a worse sentence.
        if content.limit() > 0 { Err(changed(path)) } else { Ok(()) }
    }

    /// Whether the nearest rule that speaks of a path leaves it out.
    fn is_ignored(&self, path: &Path, is_directory: bool) -> bool {
        let verdicts = self.rules.iter().rev().map(|rules| rules.matched(path, is_directory));
        verdicts
            .into_iter()
            .find(|verdict| !verdict.is_none())
            .is_some_and(|verdict| matches!(verdict, Match::Ignore(_)))
    }
}

fn changed(path: &Path) -> CliError {
    CliError::refused(format!("{} has changed while it was packed", path.display()), "try again")
}

fn header(meta: &Metadata, kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use flate2::read::GzDecoder;
    use std::collections::BTreeMap;

    /// Names of the entries with their modes.
    fn entries(packed: &mut Packed) -> BTreeMap<String, u32> {
        let mut archive = tar::Archive::new(GzDecoder::new(&mut packed.file));
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
            })
            .collect()
    }

    fn write(dir: &TestDir, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn what_git_ignores_is_left_out_and_said() {
        let dir = TestDir::new("directory");
        write(
            &dir,
            &[
                (".gitignore", "node_modules/\n*.log\n!kept.log\n"),
                (".git/HEAD", "x"),
                ("node_modules/express/index.js", "x"),
                ("server.js", "x"),
                ("a.log", "x"),
                ("kept.log", "x"),
                ("sub/.gitignore", "/secret\n"),
                ("sub/secret", "x"),
                ("sub/deep/secret", "x"),
            ],
        );
        std::fs::set_permissions(dir.path().join("server.js"), PermissionsExt::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("server.js", dir.path().join("link")).unwrap();
        let mut packed = pack(dir.path()).unwrap();
        let expected = [
            (".gitignore", 0o644),
            ("kept.log", 0o644),
            ("link", 0o777),
            ("server.js", 0o755),
            ("sub", 0o755),
            ("sub/.gitignore", 0o644),
            ("sub/deep", 0o755),
            ("sub/deep/secret", 0o644),
        ];
        assert_eq!(entries(&mut packed), expected.map(|(name, mode)| (name.to_owned(), mode)).into());
        assert_eq!(packed.left_out, ["a.log", "node_modules/", "sub/secret"]);
        assert_eq!(
            packed.notes(),
            [
                "left out by .gitignore: a.log, node_modules/, sub/secret",
                "node_modules/ is not in the package: if the app needs it, say in .dinpignore what to leave out",
            ]
        );

        write(&dir, &[(".dinpignore", "*.log\n")]);
        let mut packed = pack(dir.path()).unwrap();
        let names = entries(&mut packed);
        assert!(names.contains_key("node_modules/express/index.js") && names.contains_key("sub/secret"), "{names:?}");
        assert_eq!(packed.notes(), ["left out by .dinpignore: a.log, kept.log"]);
    }

    #[test]
    fn the_same_directory_makes_the_same_package() {
        let dir = TestDir::new("directory");
        write(&dir, &[("b", "1"), ("a/c", "2")]);
        let bytes = || {
            let mut bytes = Vec::new();
            pack(dir.path()).unwrap().file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(), bytes());
        assert!(pack(dir.path()).unwrap().notes().is_empty());
    }

    #[test]
    fn what_cannot_be_packed_is_named() {
        let dir = TestDir::new("directory");
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = pack(dir.path()).unwrap_err();
        assert!(refused.to_string().ends_with("pipe is neither a file, nor a directory, nor a link"), "{refused}");
    }
}
