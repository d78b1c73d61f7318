//! Where access tokens are kept: `$XDG_CONFIG_HOME/dinp/contexts.toml`, readable by its owner only.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dinp_common::api::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// All clusters that were signed in to.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One cluster.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Address of its dashboard.
    pub server: String,
    /// Certificates of its own authority, besides those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Who signed in.
    #[serde(default)]
    pub user: String,
    /// The access token; none after a logout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// When the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
}

/// The file.
#[derive(Clone, Debug)]
pub struct ContextFile(PathBuf);

impl ContextFile {
    /// The one of the person who runs us.
    pub fn of_user() -> Result<Self, CliError> {
        let dir = |name: &str| std::env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let config = dir("XDG_CONFIG_HOME").or_else(|| dir("HOME").map(|home| home.join(".config")));
        match config {
            Some(config) => Ok(Self(config.join("dinp/contexts.toml"))),
            None => Err(CliError::usage(
                "neither XDG_CONFIG_HOME nor HOME is set, so there is no place for what `dinp login` keeps",
                "set HOME, or give DINP_SERVER and DINP_TOKEN instead of signing in",
            )),
        }
    }

    /// Its path.
    #[cfg(test)]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it; a missing file is an empty one.
    pub fn read(&self) -> Result<Contexts, CliError> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => return Err(CliError::file("read", &self.0, error)),
        };
        toml::from_str(&text).map_err(|error| {
            let message = format!("{} is damaged: {}", self.0.display(), error.message());
            CliError::refused(message, "mend it, or remove it and sign in again with `dinp login`")
        })
    }

    /// Writes it as a whole: a reader sees the old file or the new one, and nobody else sees either.
    pub fn write(&self, contexts: &Contexts) -> Result<(), CliError> {
        let text = toml::to_string(contexts)
            .map_err(|error| CliError::Other(format!("cannot write {}: {error}", self.0.display())))?;
        let dir = self.0.parent().unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| CliError::file("make", dir, error))?;
        write_private(&self.0, text.as_bytes())
    }
}

/// Writes a file that only its owner can read, atomically.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    written.map_err(|error| {
        // Of no use to anybody; the error that matters is the first one.
        fs::remove_file(&new).ok();
        CliError::file("write", path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use std::os::unix::fs::PermissionsExt;

    fn some() -> Contexts {
        let context = Context {
            server: "http://x:1985".into(),
            ca_file: None,
            user: "anna".into(),
            token: Some("t".into()),
            expires_at: Some(7),
        };
        Contexts { current: Some("dinp".into()), contexts: [("dinp".to_owned(), context)].into() }
    }

    #[test]
    fn only_the_owner_can_read_the_file() {
        let dir = TestDir::new("contexts");
        let file = ContextFile(dir.path().join("a/dinp/contexts.toml"));
        assert!(file.read().unwrap().contexts.is_empty());
        file.write(&some()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(file.path().parent().unwrap()), 0o700);
        // One that was opened to others is closed by the next write.
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        file.write(&some()).unwrap();
        assert_eq!(mode(file.path()), 0o600);
        let read = file.read().unwrap();
        assert_eq!(read.contexts["dinp"].user, "anna");
        assert_eq!(fs::read_dir(file.path().parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = TestDir::new("contexts");
        let file = ContextFile(dir.path().join("contexts.toml"));
        fs::write(file.path(), "current = 1\n").unwrap();
        let error = file.read().err().unwrap();
        assert!(error.to_string().contains("contexts.toml is damaged"), "{error}");
    }
}
