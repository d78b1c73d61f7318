//! What the router is started with, besides its configuration: addresses and secrets.

use dinp_common::auth::Credential;
use dinp_common::config::{ClusterConfig, Loaded};
use dinp_common::credentials::{CredentialError, Secret};
use dinp_common::network::Network;
use std::path::PathBuf;
use url::Url;

use crate::config::RouterConfig;

/// How to reach the routes.
#[derive(Debug, Clone)]
pub struct RedisAccess {
    /// URL without account.
    pub url: String,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Name of the cluster: the prefix of the keys.
    pub cluster: String,
}

impl RedisAccess {
    /// As configured for this daemon.
    pub fn new(cluster: &ClusterConfig) -> Result<Self, CredentialError> {
        let user = cluster.redis.user_for("router");
        Ok(Self {
            url: cluster.redis.url.to_string(),
            // In the configuration an empty text stands for Redis' own account.
            user: if user.is_empty() { "default".to_owned() } else { user },
            password: cluster.redis.password_for("router")?,
            cluster: cluster.cluster.clone(),
        })
    }
}

/// All that the router needs to start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `router.toml`.
    pub config: RouterConfig,
    /// The directory that it is read from, again at each reload.
    pub config_dir: PathBuf,
    /// How to reach the routes.
    pub redis: RedisAccess,
    /// The servers to report to.
    pub servers: Vec<Url>,
    /// Networks from which the status may be read, besides this machine and the servers.
    pub status_networks: Vec<Network>,
    /// Who this router is; the credential's name is the router's.
    pub credential: Credential,
}

impl Settings {
    /// Reads the credentials.
    pub fn new(loaded: Loaded<RouterConfig>) -> Result<Self, CredentialError> {
        Ok(Self {
            redis: RedisAccess::new(&loaded.cluster)?,
            servers: loaded.cluster.servers,
            status_networks: loaded.cluster.status_networks,
            credential: Credential::read("service-router")?,
            config: loaded.daemon,
            config_dir: loaded.dir,
        })
    }
}
