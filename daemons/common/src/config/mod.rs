//! Configuration: TOML files of one directory, merged in a fixed order.
//!
//! ```text
//! dinp.toml  dinp.toml.d/*.toml   ->  ClusterConfig, shared by all daemons
//! <daemon>.toml  <daemon>.toml.d/*.toml   ->  the daemon's own struct
//! ```
//!
//! Later files win key by key: tables merge, scalars and arrays replace. A daemon's file may also
//! override cluster-wide settings for this one daemon (`[log]` in `router.toml`, say). A missing
//! file is an empty one. Every struct is `#[serde(default, deny_unknown_fields)]`, so that each file
//! can be checked on its own and a mistake is reported with its line.

mod cluster;
mod error;
mod layer;
mod show;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use cluster::{
    BuilderEndpoint, ClusterConfig, DashEndpoint, LogConfig, LogSink, MysqlConfig, RedisConfig, RegistryAccount,
    RegistryConfig, UicEndpoint,
};
pub use error::ConfigError;

/// Where configuration lives unless `--config-dir` or `DINP_CONFIG_DIR` says otherwise.
pub const DEFAULT_DIR: &str = "/etc/dinp";

/// A daemon's own settings (`<daemon>.toml`). Derive serde with `default, deny_unknown_fields` on
/// the struct and on all structs within it.
pub trait DaemonConfig: Serialize + DeserializeOwned + Default + Send + Sync + 'static {
    /// Checks what types cannot say; use [`ConfigError::invalid`].
    fn validate(&self, cluster: &ClusterConfig) -> Result<(), ConfigError> {
        let _ = cluster;
        Ok(())
    }
}

/// For programs without a file of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoConfig {}

impl DaemonConfig for NoConfig {}

/// Which file set a (dotted) key; keys that no file set have their default.
pub type Origins = BTreeMap<String, PathBuf>;

/// A configuration that was read completely and is valid.
#[derive(Clone, Debug)]
pub struct Loaded<C> {
    /// Cluster-wide settings.
    pub cluster: ClusterConfig,
    /// The daemon's own settings.
    pub daemon: C,
    /// Which file set which key.
    pub origins: Origins,
    /// The daemon's name (`server`), as in its files, accounts and credentials.
    pub name: String,
    /// The directory that was read.
    pub dir: PathBuf,
}

impl<C: DaemonConfig> Loaded<C> {
    /// Default settings, for tests.
    pub fn for_tests(name: &str, daemon: C) -> Self {
        Self {
            cluster: ClusterConfig::default(),
            daemon,
            origins: Origins::new(),
            name: name.to_owned(),
            dir: PathBuf::from(DEFAULT_DIR),
        }
    }

    /// Reads the same files again.
    pub fn reload(&self) -> Result<Self, ConfigError> {
        load(&self.dir, &self.name)
    }

    /// The merged configuration as TOML, each key with the file that it came from.
    pub fn show(&self) -> String {
        show::show(self)
    }
}

/// Reads, merges and checks the configuration of `daemon` (`server`) in `dir`.
pub fn load<C: DaemonConfig>(dir: &Path, daemon: &str) -> Result<Loaded<C>, ConfigError> {
    let mut merged = layer::Merged::default();
    for path in layer::files(dir, "dinp")? {
        merged.add_cluster_file(&path)?;
    }
    for path in layer::files(dir, daemon)? {
        merged.add_daemon_file::<C>(&path)?;
    }
    let (cluster, own, origins) = merged.finish::<C>(dir)?;
    let valid = cluster.validate().and_then(|()| own.validate(&cluster));
    valid.map_err(|error| with_origin(error, &origins))?;
    Ok(Loaded { cluster, daemon: own, origins, name: daemon.to_owned(), dir: dir.to_owned() })
}

fn with_origin(error: ConfigError, origins: &Origins) -> ConfigError {
    match error {
        ConfigError::Invalid { key, problem, origin: None } => {
            let origin = origins.get(&key).cloned();
            ConfigError::Invalid { key, problem, origin }
        }
        other => other,
    }
}

#[cfg(test)]
pub(crate) mod tests;
