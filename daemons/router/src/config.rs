//! `router.toml`.

use dinp_common::config::{ClusterConfig, ConfigError, DaemonConfig};
use dinp_common::listen;
use dinp_common::network::Network;
use dinp_common::quota::Quota;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Settings of the router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterConfig {
    /// Addresses for the apps' users, unless a socket unit owns them.
    pub listen: Vec<SocketAddr>,
    /// Addresses of the status listener.
    pub status_listen: Vec<SocketAddr>,
    /// URL at which the leader reads the status; by default this host's name and the first status port.
    pub status_url: Option<Url>,
    /// Threads that carry requests; 0 for one per core.
    pub workers: usize,
    /// Where the last good table is kept.
    pub state_dir: PathBuf,
    /// Time for one connection to an instance, in milliseconds; longer than the second after which the kernel sends a lost
    /// first packet again.
    pub connect_timeout_ms: u64,
    /// Time for all attempts until an answer begins, in seconds; counted anew while a request body moves.
    pub request_timeout_secs: u64,
    /// Time for the head of a request from its first byte, in seconds.
    pub head_timeout_secs: u64,
    /// Time that a client's connection may wait for its next request, in seconds.
    pub keepalive_timeout_secs: u64,
    /// Time without a byte of a body in either direction, in seconds.
    pub body_timeout_secs: u64,
    /// Time without a byte of an upgraded connection, in seconds.
    pub tunnel_timeout_secs: u64,
    /// Time that a connection to an instance is kept for the next request, in seconds.
    pub backend_idle_secs: u64,
    /// Connections to one instance that each worker keeps for the next requests.
    pub backend_idle_max: usize,
    /// Time for requests that are under way when the router stops, in seconds.
    pub drain_timeout_secs: u64,
    /// Largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// Connections of one client; one IPv6 network of 64 bits is one client, a trusted proxy is none.
    pub max_connections_per_client: usize,
    /// Connections of all clients, as far as half of the descriptors suffice.
    pub max_connections: usize,
    /// Networks of proxies before this router, whose X-Forwarded-* and Forwarded are believed.
    pub trusted_proxies: Vec<Network>,
}

impl Default for RouterConfig {
    fn default() -> Self {
        let any = |port| {
            vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]
        };
        Self {
            listen: any(80),
            status_listen: any(1982),
            status_url: None,
            workers: 0,
            state_dir: PathBuf::from("/var/lib/dinp/router"),
            connect_timeout_ms: 3000,
            request_timeout_secs: 60,
            head_timeout_secs: 10,
            keepalive_timeout_secs: 75,
            body_timeout_secs: 60,
            tunnel_timeout_secs: 3600,
            backend_idle_secs: 30,
            backend_idle_max: 1000,
            drain_timeout_secs: 30,
            max_header_bytes: 65_536,
            max_connections_per_client: 1000,
            max_connections: 20_000,
            trusted_proxies: Vec::new(),
        }
    }
}

impl DaemonConfig for RouterConfig {
    fn validate(&self, _cluster: &ClusterConfig) -> Result<(), ConfigError> {
        if self.status_listen.is_empty() {
            return Err(ConfigError::invalid("status_listen", "must name at least one address"));
        }
        if self.workers > 256 {
            return Err(ConfigError::invalid("workers", "must be at most 256"));
        }
        if !(1024..=1_048_576).contains(&self.max_header_bytes) {
            return Err(ConfigError::invalid("max_header_bytes", "must be from 1024 to 1048576"));
        }
        for (key, most) in
            [("max_connections_per_client", self.max_connections_per_client), ("max_connections", self.max_connections)]
        {
            if !(1..=1_000_000).contains(&most) {
                return Err(ConfigError::invalid(key, "must be from 1 to 1000000"));
            }
        }
        if !(10..=60_000).contains(&self.connect_timeout_ms) {
            return Err(ConfigError::invalid("connect_timeout_ms", "must be from 10 to 60000"));
        }
        let times = [
            ("request_timeout_secs", self.request_timeout_secs),
            ("head_timeout_secs", self.head_timeout_secs),
            ("keepalive_timeout_secs", self.keepalive_timeout_secs),
            ("body_timeout_secs", self.body_timeout_secs),
            ("tunnel_timeout_secs", self.tunnel_timeout_secs),
            ("backend_idle_secs", self.backend_idle_secs),
            ("drain_timeout_secs", self.drain_timeout_secs),
        ];
        for (key, secs) in times {
            if !(1..=86_400).contains(&secs) {
                return Err(ConfigError::invalid(key, "must be from 1 to 86400"));
            }
        }
        match &self.status_url {
            Some(url) if url.scheme() != "http" || url.host_str().is_none() => {
                Err(ConfigError::invalid("status_url", format!("{url} is not an http:// URL with a host")))
            }
            _ => Ok(()),
        }
    }
}

/// The settings that workers use, as durations.
#[derive(Clone, Debug)]
pub struct Limits {
    pub(crate) connect: Duration,
    pub(crate) request: Duration,
    pub(crate) head: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) body: Duration,
    pub(crate) tunnel: Duration,
    pub(crate) backend_idle: Duration,
    pub(crate) backend_idle_max: usize,
    pub(crate) drain: Duration,
    pub(crate) head_bytes: usize,
    pub(crate) trusted: Vec<Network>,
}

impl Limits {
    /// Whether what this peer says of others is believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }
}

impl RouterConfig {
    /// Places for clients' connections, for all workers together.
    pub(crate) fn places(&self) -> Quota<IpAddr> {
        // Each may need a second descriptor, to an instance.
        Quota::new(self.max_connections_per_client, self.max_connections.min(listen::descriptors() / 2))
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            connect: Duration::from_millis(self.connect_timeout_ms),
            request: Duration::from_secs(self.request_timeout_secs),
            head: Duration::from_secs(self.head_timeout_secs),
            keepalive: Duration::from_secs(self.keepalive_timeout_secs),
            body: Duration::from_secs(self.body_timeout_secs),
            tunnel: Duration::from_secs(self.tunnel_timeout_secs),
            backend_idle: Duration::from_secs(self.backend_idle_secs),
            backend_idle_max: self.backend_idle_max,
            drain: Duration::from_secs(self.drain_timeout_secs),
            head_bytes: self.max_header_bytes,
            trusted: self.trusted_proxies.clone(),
        }
    }

    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packaged() -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../etc/router.toml");
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_packaged_file_shows_every_key_at_its_default() {
        let uncommented: String = packaged()
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '!'])))
            .map(|line| format!("{line}\n"))
            .collect();
        let shown: toml_check::Table = toml_check::parse(&uncommented);
        let keys = serde_json::to_value(RouterConfig::default()).unwrap();
        for key in keys.as_object().unwrap().keys() {
            assert!(shown.contains(key), "{key} is not in etc/router.toml");
        }
    }

    #[test]
    fn wrong_values_name_the_key() {
        let config = RouterConfig { max_header_bytes: 1, ..RouterConfig::default() };
        let error = config.validate(&ClusterConfig::default()).unwrap_err().to_string();
        assert!(error.contains("max_header_bytes"), "{error}");
    }

    /// Names of the keys of a flat TOML text.
    mod toml_check {
        pub(super) type Table = std::collections::BTreeSet<String>;

        pub(super) fn parse(text: &str) -> Table {
            text.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.to_owned()).collect()
        }
    }
}
