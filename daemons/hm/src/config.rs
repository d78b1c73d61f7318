//! `hm.toml`.

use dinp_common::config::{ClusterConfig, ConfigError, DaemonConfig};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Settings of the health monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HmConfig {
    /// Addresses of the status listener.
    pub listen: Vec<SocketAddr>,
    /// Most probes under way at a time.
    pub max_probes: usize,
}

impl Default for HmConfig {
    fn default() -> Self {
        let any = |port| {
            vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]
        };
        Self { listen: any(1983), max_probes: 800 }
    }
}

impl DaemonConfig for HmConfig {
    fn validate(&self, _cluster: &ClusterConfig) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return Err(ConfigError::invalid("listen", "must name at least one address"));
        }
        if !(1..=100_000).contains(&self.max_probes) {
            return Err(ConfigError::invalid("max_probes", "must be from 1 to 100000"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_file_shows_every_key() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../etc/hm.toml")).unwrap();
        let keys = serde_json::to_value(HmConfig::default()).unwrap();
        for key in keys.as_object().unwrap().keys() {
            assert!(text.contains(&format!("\n#{key} = ")), "{key} is not in etc/hm.toml");
        }
    }

    #[test]
    fn wrong_values_name_the_key() {
        let config = HmConfig { max_probes: 0, ..HmConfig::default() };
        assert!(config.validate(&ClusterConfig::default()).unwrap_err().to_string().contains("max_probes"));
    }
}
