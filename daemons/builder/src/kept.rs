//! Packages of builds under way, on disk until their builds have ended: a build that is cut off by a restart goes on after it.
//!
//! `ID.package` is the package, `ID.json` what else is to be known. The second is written when the first is there, and read
//! only with it: what is half there is nothing.

use crate::direct::Old;
use crate::package::{Format, Spooled};
use dinp_common::api::UnixMillis;
use dinp_common::auth::hex;
use dinp_common::model::{AppName, ImageRef, RuntimeName};
use nix::fcntl::{AT_FDCWD, AtFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A build as it was begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The app that it is for.
    pub app: AppName,
    /// When that app was created, where it is known.
    pub app_created_at: Option<UnixMillis>,
    /// What this version is called.
    pub version: String,
    /// How.
    pub runtime: RuntimeName,
    /// Who asked.
    pub user: String,
    /// On what, where that is not the runtime's own base.
    #[serde(default)]
    pub base: Option<ImageRef>,
    /// From what.
    pub source: Source,
    /// SHA-256 of the package in hexadecimal.
    pub sha256: String,
    /// What its owner should know of it, one line each.
    pub notes: Vec<String>,
    /// Name of the image in the registry.
    pub image: ImageRef,
}

/// From what an image is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Source {
    /// A package of this format.
    Package(Format),
    /// The package that is in an older image.
    Image(Old),
}

/// The directory of kept packages.
#[derive(Debug, Clone)]
pub struct Kept(PathBuf);

impl Kept {
    /// Packages below this directory, which is created where it is not there.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// Keeps what a build needs: its package, where it has one.
    pub fn keep(&self, build: u64, order: &Order, package: Option<&Spooled>) -> io::Result<()> {
        if let Some(package) = package {
            name(package.file(), &self.package(build))?;
        }
        let new = self.0.join(format!("{build}.new"));
        fs::write(&new, serde_json::to_vec(order)?)?;
        fs::rename(new, self.order(build))
    }

    /// What was kept of a build, if all of it is there and as it was.
    pub fn take(&self, build: u64) -> io::Result<(Order, Option<Spooled>)> {
        let order: Order = serde_json::from_slice(&fs::read(self.order(build))?)?;
        if let Source::Image(_) = order.source {
            return Ok((order, None));
        }
        let mut file = File::open(self.package(build))?;
        let (len, sha256) = digest(&mut file)?;
        if sha256 != order.sha256 {
            return Err(io::Error::other("the package is damaged"));
        }
        Ok((order, Some(Spooled::new(file, len, sha256))))
    }

    /// The build has ended.
    pub fn forget(&self, build: u64) {
        for path in [self.order(build), self.package(build)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "package of an ended build stays on disk");
            }
        }
    }

    /// Forgets all builds but these.
    pub fn forget_all_but(&self, builds: &[u64]) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let build = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if !build.is_some_and(|build| builds.contains(&build)) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn package(&self, build: u64) -> PathBuf {
        self.0.join(format!("{build}.package"))
    }

    fn order(&self, build: u64) -> PathBuf {
        self.0.join(format!("{build}.json"))
    }
}

/// Gives an open file a name, whether it has one or not; it is copied where the file system cannot do that.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    if nix::unistd::linkat(AT_FDCWD, open.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW).is_ok() {
        return Ok(());
    }
    // Opened anew: the file's own position is somebody else's.
    io::copy(&mut File::open(open)?, &mut File::create(path)?).map(drop)
}

/// Size and SHA-256 in hexadecimal of a file, which is read from its beginning.
fn digest(file: &mut File) -> io::Result<(u64, String)> {
    let (hash, len) = hash(file)?;
    Ok((len, hex(&hash.finalize())))
}

/// The hash of a file, to which more may be added, and its size.
pub fn hash(file: &mut File) -> io::Result<(Sha256, u64)> {
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut len = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hash, len)),
            read => {
                hash.update(&buffer[..read]);
                len += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use std::io::Write;

    fn package(file: File) -> Spooled {
        let mut file = file;
        file.write_all(b"package").unwrap();
        let (len, sha256) = digest(&mut file).unwrap();
        Spooled::new(file, len, sha256)
    }

    fn order(package: &Spooled) -> Order {
        Order {
            app: "web".parse().unwrap(),
            app_created_at: Some(5),
            version: "v1".into(),
            runtime: "binary".parse().unwrap(),
            user: "ann".into(),
            base: None,
            source: Source::Package(Format::Tar),
            sha256: package.sha256().into(),
            notes: vec!["a note".into()],
            image: "control:5000/ann/web:v1".parse().unwrap(),
        }
    }

    #[test]
    fn a_package_is_kept_whole_or_not_at_all_and_gone_when_its_build_has_ended() {
        let dir = TestDir::new("kept");
        let kept = Kept::open(dir.path().join("builds")).unwrap();
        let nameless = package(tempfile::tempfile_in(dir.path()).unwrap());
        kept.keep(1, &order(&nameless), Some(&nameless)).unwrap();
        drop(nameless);
        let named = package(File::create_new(dir.path().join("upload")).unwrap());
        kept.keep(2, &order(&named), Some(&named)).unwrap();
        fs::remove_file(dir.path().join("upload")).unwrap();
        for build in [1, 2] {
            let (order, spooled) = kept.take(build).unwrap();
            assert_eq!((order.notes[0].as_str(), spooled.unwrap().len()), ("a note", 7), "build {build}");
        }

        fs::write(kept.package(2), "packagf").unwrap();
        assert_eq!(kept.take(2).unwrap_err().to_string(), "the package is damaged");
        fs::remove_file(kept.order(1)).unwrap();
        assert!(kept.take(1).is_err(), "it was not kept whole");
        kept.forget_all_but(&[2]).unwrap();
        assert_eq!(fs::read_dir(&kept.0).unwrap().count(), 2);
        kept.forget(2);
        kept.forget(2);
        assert_eq!(fs::read_dir(&kept.0).unwrap().count(), 0);
    }
}
