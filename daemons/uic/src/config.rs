//! `uic.toml`.

use dinp_common::config::{ClusterConfig, ConfigError, DaemonConfig};
use dinp_common::network::Network;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Settings of uic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UicConfig {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Networks of proxies in front that are believed about who calls them and how.
    pub trusted_proxies: Vec<Network>,
    /// How long a browser stays signed in.
    pub session_secs: u64,
    /// How long a dashboard's access token lasts.
    pub access_token_secs: u64,
    /// How long a command line's access token lasts.
    pub cli_token_secs: u64,
    /// Memory that hashing one password takes.
    pub password_memory_kib: u32,
    /// Passes over that memory.
    pub password_passes: u32,
    /// Passwords that are hashed at the same time.
    pub password_parallel: u32,
    /// Time for requests under way when stopping.
    pub drain_timeout_secs: u64,
}

impl Default for UicConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 1984)), SocketAddr::from(([0_u16; 8], 1984))],
            trusted_proxies: Vec::new(),
            session_secs: 12 * 3600,
            access_token_secs: 12 * 3600,
            cli_token_secs: 30 * 24 * 3600,
            password_memory_kib: 19_456,
            password_passes: 2,
            password_parallel: 2,
            drain_timeout_secs: 10,
        }
    }
}

impl DaemonConfig for UicConfig {
    fn validate(&self, _cluster: &ClusterConfig) -> Result<(), ConfigError> {
        let lifetimes = [
            ("session_secs", self.session_secs),
            ("access_token_secs", self.access_token_secs),
            ("cli_token_secs", self.cli_token_secs),
        ];
        for (key, value) in lifetimes {
            if !(300..=366 * 24 * 3600).contains(&value) {
                return Err(ConfigError::invalid(key, "must be from 300 (5 minutes) to 31622400 (366 days)"));
            }
        }
        if !(19_456..=1_048_576).contains(&self.password_memory_kib) {
            return Err(ConfigError::invalid("password_memory_kib", "must be from 19456 to 1048576"));
        }
        if !(1..=64).contains(&self.password_passes) {
            return Err(ConfigError::invalid("password_passes", "must be from 1 to 64"));
        }
        if !(1..=64).contains(&self.password_parallel) {
            return Err(ConfigError::invalid("password_parallel", "must be from 1 to 64"));
        }
        if self.drain_timeout_secs > 300 {
            return Err(ConfigError::invalid("drain_timeout_secs", "must be at most 300"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_are_those_of_the_shipped_file() {
        UicConfig::default().validate(&ClusterConfig::default()).unwrap();
        let shipped = include_str!("../../../etc/uic.toml");
        let keys: String = shipped
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| line.contains(" = ") && !line.starts_with(' '))
            .map(|line| format!("{line}\n"))
            .collect();
        let table: toml::Table = keys.parse().unwrap();
        assert_eq!(table, toml::Table::try_from(UicConfig::default()).unwrap());
    }
}
