//! `dash.toml`.

use crate::quotas::Quotas;
use dinp_common::config::{ClusterConfig, ConfigError, DaemonConfig};
use dinp_common::model::Limits;
use dinp_common::network::Network;
use dinp_common::quota::Quota;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use url::Url;

/// Settings of dash.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DashConfig {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Networks of proxies in front that are believed about who calls them and how.
    pub trusted_proxies: Vec<Network>,
    /// URL of the routers without an app's label; empty: `http://<domain>`.
    pub apps_url: String,
    /// Names that no app may have.
    pub reserved_names: Vec<String>,
    /// Registries besides the cluster's own that images may come from.
    pub allowed_registries: Vec<String>,
    /// Largest package.
    pub upload_max_mb: u64,
    /// Most domains of one app.
    pub domains_max: u32,
    /// Most logs that one person reads at a time.
    pub log_readers_per_person: u32,
    /// Most logs that all people together read at a time.
    pub log_readers_max: u32,
    /// How long an access token is believed without asking uic again.
    pub token_cache_secs: u64,
    /// Days that the audit log is kept.
    pub audit_days: u32,
    /// Time for requests under way when stopping.
    pub drain_timeout_secs: u64,
    /// What users may ask for.
    pub limits: Limits,
    /// What one owner may have in all.
    pub quota: Quotas,
}

impl Default for DashConfig {
    fn default() -> Self {
        let reserved = ["admin", "api", "control", "dash", "dinp", "registry", "router", "server", "uic", "www"];
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 1985)), SocketAddr::from(([0_u16; 8], 1985))],
            trusted_proxies: Vec::new(),
            apps_url: String::new(),
            reserved_names: reserved.map(str::to_owned).to_vec(),
            allowed_registries: Vec::new(),
            upload_max_mb: 1024,
            domains_max: 100,
            log_readers_per_person: 10,
            log_readers_max: 200,
            token_cache_secs: 10,
            audit_days: 400,
            drain_timeout_secs: 10,
            limits: Limits::default(),
            quota: Quotas::default(),
        }
    }
}

impl DashConfig {
    /// The places for readers of logs.
    pub(crate) fn log_readers(&self) -> Quota<String> {
        Quota::new(self.log_readers_per_person as usize, self.log_readers_max as usize)
    }

    /// URL of the routers without an app's label.
    pub fn apps_url(&self, cluster: &ClusterConfig) -> Result<Url, ConfigError> {
        let text = if self.apps_url.is_empty() { format!("http://{}", cluster.domain) } else { self.apps_url.clone() };
        let url = Url::parse(&text)
            .map_err(|error| ConfigError::invalid("apps_url", format!("{text} is no URL: {error}")))?;
        if url.scheme() != "http"
            || url.path() != "/"
            || url.query().is_some()
            || url.host_str() != Some(&cluster.domain)
        {
            let rule = format!("must be empty or http://{} with the routers' port", cluster.domain);
            return Err(ConfigError::invalid("apps_url", rule));
        }
        Ok(url)
    }
}

impl DaemonConfig for DashConfig {
    fn validate(&self, cluster: &ClusterConfig) -> Result<(), ConfigError> {
        self.apps_url(cluster)?;
        if !(1..=102_400).contains(&self.upload_max_mb) {
            return Err(ConfigError::invalid("upload_max_mb", "must be from 1 to 102400"));
        }
        if self.log_readers_per_person == 0 || self.log_readers_max == 0 {
            return Err(ConfigError::invalid("log_readers_max", "must be at least 1, as log_readers_per_person"));
        }
        if self.token_cache_secs > 300 {
            return Err(ConfigError::invalid("token_cache_secs", "must be at most 300"));
        }
        if !(1..=36_500).contains(&self.audit_days) {
            return Err(ConfigError::invalid("audit_days", "must be from 1 to 36500"));
        }
        if self.drain_timeout_secs > 300 {
            return Err(ConfigError::invalid("drain_timeout_secs", "must be at most 300"));
        }
        let limits = &self.limits;
        if limits.memory_min_mb == 0 || limits.memory_min_mb > limits.memory_max_mb {
            return Err(ConfigError::invalid("limits.memory_min_mb", "must be from 1 to limits.memory_max_mb"));
        }
        if limits.instances_max == 0 || limits.cpu_max_millis == 0 {
            return Err(ConfigError::invalid("limits", "instances_max and cpu_max_millis must be at least 1"));
        }
        self.quota.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_are_those_of_the_shipped_file() {
        DashConfig::default().validate(&ClusterConfig::default()).unwrap();
        let shipped = include_str!("../../../etc/dash.toml");
        let keys: String = shipped
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| (line.contains(" = ") && !line.starts_with(' ')) || line.starts_with('['))
            .map(|line| format!("{line}\n"))
            .collect();
        let table: toml::Table = keys.parse().unwrap();
        assert_eq!(table, toml::Table::try_from(DashConfig::default()).unwrap());
    }

    #[test]
    fn the_routers_url_is_the_domain_with_a_port() {
        let cluster = ClusterConfig::default();
        let with = |url: &str| DashConfig { apps_url: url.into(), ..DashConfig::default() }.apps_url(&cluster);
        assert_eq!(with("").unwrap().as_str(), "http://apps.localhost/");
        assert_eq!(with("http://apps.localhost:8080").unwrap().as_str(), "http://apps.localhost:8080/");
        for bad in ["apps.localhost", "http://other.example:8080", "http://apps.localhost/x"] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }
}
