//! Packages that scenarios hand in: a sample's, changed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::docker::run;
use super::error::Result;
use super::state::at;

/// A package under work, unpacked in a directory of its own that goes with it.
#[derive(Debug)]
pub struct Package {
    dir: PathBuf,
}

impl Package {
    /// The package of a sample.
    pub(super) async fn of(samples: &Path, sample: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("dinp-package-{}-{count}", std::process::id()));
        let package = Self { dir };
        let tree = package.tree();
        std::fs::create_dir_all(&tree).map_err(at("make", &tree))?;
        let archive = super::samples::file(samples, sample);
        run("tar", &["-xzf".as_ref(), archive.as_os_str(), "-C".as_ref(), tree.as_os_str()]).await?;
        Ok(package)
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// Puts a file into it, or another content into a file of it.
    pub fn with_file(self, name: &str, content: impl AsRef<[u8]>) -> Result<Self> {
        let path = self.tree().join(name);
        std::fs::write(&path, content).map_err(at("write", &path))?;
        Ok(self)
    }

    /// Takes a file out of it.
    pub fn without(self, name: &str) -> Result<Self> {
        let path = self.tree().join(name);
        std::fs::remove_file(&path).map_err(at("remove", &path))?;
        Ok(self)
    }

    /// Puts a file into it that no compression makes smaller.
    pub fn with_ballast(self, name: &str, bytes: usize) -> Result<Self> {
        use rand::RngCore as _;
        let mut content = vec![0; bytes];
        rand::rng().fill_bytes(&mut content);
        self.with_file(name, content)
    }

    /// Packs it as tar.gz.
    pub async fn packed(self) -> Result<Packed> {
        let archive = self.dir.join("package.tar.gz");
        let tree = self.tree();
        let args = ["-czf".as_ref(), archive.as_os_str(), "-C".as_ref(), tree.as_os_str(), ".".as_ref()];
        run("tar", &args).await?;
        let path = archive.to_string_lossy().into_owned();
        Ok(Packed { package: self, path })
    }
}

/// A package that can be handed in, by its path; it is there as long as this is.
#[derive(Debug)]
pub struct Packed {
    package: Package,
    path: String,
}

impl Packed {
    /// The same package under another file name.
    pub fn named(&self, name: &str) -> Result<String> {
        let content = std::fs::read(&self.path).map_err(at("read", Path::new(&self.path)))?;
        self.beside(name, content)
    }

    /// Writes a file that may be no package at all beside it, and returns its path.
    pub fn beside(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        let path = self.package.dir.join(name);
        std::fs::write(&path, content).map_err(at("write", &path))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl std::ops::Deref for Packed {
    type Target = str;

    fn deref(&self) -> &str {
        &self.path
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("{} is left behind: {error}", self.dir.display());
        }
    }
}
