//! What `server.toml` says.

use dinp_common::config::{ClusterConfig, ConfigError, DaemonConfig};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use url::Url;

/// Settings of the server alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Addresses to listen on, unless a socket unit owns them.
    pub listen: Vec<SocketAddr>,
    /// URL at which agents, routers and other daemons reach this server; by default the first of `servers`.
    pub url: Option<Url>,
    /// Seconds without a report after which a node is suspect: no new work, replacements are planned.
    pub suspect_secs: u32,
    /// Seconds without a report after which a node is lost and its instances are replaced.
    pub lost_secs: u32,
    /// Seconds that a new leader waits for a node that it has never heard before it counts as lost.
    pub unheard_secs: u32,
    /// Longest time that a withdrawn instance may go on with its requests, in seconds.
    pub drain_timeout_secs: u32,
    /// Seconds from SIGTERM to SIGKILL when an instance is stopped.
    pub stop_grace_secs: u32,
    /// Seconds that an instance may take from its start to being ready.
    pub start_timeout_secs: u32,
    /// Seconds without progress after which a deployment is rolled back.
    pub progress_deadline_secs: u32,
    /// Seconds that all instances of a new release must have proved themselves before a deployment has succeeded.
    pub verify_secs: u32,
    /// Days that instance events are kept.
    pub event_retention_days: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 1980))],
            url: None,
            suspect_secs: 5,
            lost_secs: 10,
            unheard_secs: 60,
            drain_timeout_secs: 30,
            stop_grace_secs: 10,
            start_timeout_secs: 60,
            progress_deadline_secs: 300,
            verify_secs: 5,
            event_retention_days: 30,
        }
    }
}

impl DaemonConfig for ServerConfig {
    fn validate(&self, _: &ClusterConfig) -> Result<(), ConfigError> {
        if self.suspect_secs < 3 {
            return Err(ConfigError::invalid("suspect_secs", "must be at least 3, for agents report every 2 s"));
        }
        if self.lost_secs <= self.suspect_secs {
            return Err(ConfigError::invalid("lost_secs", "must be more than suspect_secs"));
        }
        if self.event_retention_days == 0 {
            return Err(ConfigError::invalid("event_retention_days", "must be at least 1"));
        }
        Ok(())
    }
}

impl ServerConfig {
    /// URL that others are told.
    pub fn public_url(&self, cluster: &ClusterConfig) -> Url {
        self.url.clone().unwrap_or_else(|| cluster.servers[0].clone())
    }
}
