//! What the testbed keeps on this machine beside the engine's own things.

use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// Directory of one cluster: its apt repository, the first login, the command line of its packages.
#[derive(Clone, Debug)]
pub struct State {
    dir: PathBuf,
}

impl State {
    /// The directory that all clusters share.
    #[must_use]
    pub fn root() -> PathBuf {
        std::env::var_os("DINP_STATE").map_or_else(|| "/var/lib/dinp-testbed".into(), PathBuf::from)
    }

    /// The directory of a cluster; it need not exist.
    #[must_use]
    pub fn of(cluster: &str) -> Self {
        Self { dir: Self::root().join(cluster) }
    }

    /// A file or directory in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the directory, for root only: it holds a login.
    pub fn create(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::create_dir_all(&self.dir).map_err(at("make", &self.dir))?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&self.dir, private).map_err(at("protect", &self.dir))
    }

    /// Removes it with all that is in it.
    pub fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at("remove", &self.dir)(error)),
            _ => Ok(()),
        }
    }

    /// The content of a file, if it is there.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.path(name);
        std::fs::write(&path, content).map_err(at("write", &path))
    }

    /// Password of the first administrator, made up once for each cluster.
    pub fn admin_password(&self) -> Result<String> {
        if let Some(password) = self.read("admin-password") {
            return Ok(password);
        }
        let password = random_word();
        self.write("admin-password", &password)?;
        Ok(password)
    }
}

/// Twenty letters and digits that cannot be mistaken for each other.
fn random_word() -> String {
    use rand::Rng as _;
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut rng = rand::rng();
    (0..20).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

/// An error about a file, for `map_err`.
pub fn at(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File { act, path: path.to_owned(), source }
}
