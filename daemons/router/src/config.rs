//! `router.toml`.

use crate::access::AccessLog;
use dinp_common::config::{ClusterConfig, ConfigError, DaemonConfig};
use dinp_common::listen;
use dinp_common::network::Network;
use dinp_common::quota::Quota;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
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
    /// Zone of this router, as nodes name theirs; empty for none.
    pub zone: String,
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
    /// Time between the word that the router stops and the moment from which it takes nothing new, in seconds.
    pub drain_wait_secs: u64,
    /// Time for requests and tunnels that are under way when the router stops, in seconds; and once more for what comes
    /// meanwhile.
    pub drain_timeout_secs: u64,
    /// How an app's instances share its requests.
    pub balance: Balance,
    /// Requests in flight from this router to one instance, tunnels among them; 0 for no limit.
    pub max_in_flight: u32,
    /// Requests for one app that wait while all of its instances have so many.
    pub max_queue: usize,
    /// Time for which they wait, in milliseconds.
    pub queue_timeout_ms: u64,
    /// Largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// Connections of one client; one IPv6 network of 64 bits is one client, a trusted proxy is none.
    pub max_connections_per_client: usize,
    /// Connections of all clients, as far as half of the descriptors suffice.
    pub max_connections: usize,
    /// Where each request is told of.
    pub access_log: AccessLog,
    /// Networks of proxies that begin each connection with the PROXY protocol.
    pub proxy_protocol: Vec<Network>,
    /// Networks of proxies before this router, whose X-Forwarded-* and Forwarded are believed.
    pub trusted_proxies: Vec<Network>,
    /// Whether apps are told of the client in Forwarded, too.
    pub forwarded: bool,
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
            zone: String::new(),
            state_dir: PathBuf::from("/var/lib/dinp/router"),
            connect_timeout_ms: 3000,
            request_timeout_secs: 60,
            head_timeout_secs: 10,
            keepalive_timeout_secs: 75,
            body_timeout_secs: 60,
            tunnel_timeout_secs: 3600,
            backend_idle_secs: 30,
            backend_idle_max: 1000,
            drain_wait_secs: 0,
            drain_timeout_secs: 30,
            balance: Balance::LeastRequests,
            max_in_flight: 0,
            max_queue: 1000,
            queue_timeout_ms: 5000,
            max_header_bytes: 65_536,
            max_connections_per_client: 1000,
            max_connections: 20_000,
            access_log: AccessLog::Off,
            proxy_protocol: Vec::new(),
            trusted_proxies: Vec::new(),
            forwarded: false,
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
        for (key, millis) in
            [("connect_timeout_ms", self.connect_timeout_ms), ("queue_timeout_ms", self.queue_timeout_ms)]
        {
            if !(10..=60_000).contains(&millis) {
                return Err(ConfigError::invalid(key, "must be from 10 to 60000"));
            }
        }
        if self.max_queue > 1_000_000 {
            return Err(ConfigError::invalid("max_queue", "must be at most 1000000"));
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
        if matches!(&self.access_log, AccessLog::File(path) if !path.is_absolute()) {
            return Err(ConfigError::invalid(
                "access_log",
                "must be \"off\", \"journal\" or the absolute path of a file",
            ));
        }
        if self.drain_wait_secs > 3600 {
            return Err(ConfigError::invalid("drain_wait_secs", "must be at most 3600"));
        }
        match &self.status_url {
            Some(url) if url.scheme() != "http" || url.host_str().is_none() => {
                Err(ConfigError::invalid("status_url", format!("{url} is not an http:// URL with a host")))
            }
            _ => Ok(()),
        }
    }
}

/// How an app's instances share its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Of two that are drawn, the one with fewer requests in flight.
    LeastRequests,
    /// By turns.
    RoundRobin,
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
    pub(crate) balance: Balance,
    /// Requests in flight to one instance.
    pub(crate) in_flight: u32,
    /// Requests that wait for one app.
    pub(crate) queued: usize,
    pub(crate) queue: Duration,
    pub(crate) head_bytes: usize,
    pub(crate) zone: String,
    pub(crate) trusted: Vec<Network>,
    pub(crate) forwarded: bool,
    pub(crate) proxy_protocol: Vec<Network>,
}

impl Limits {
    /// Whether what this peer says of others is believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }

    /// Whether this peer begins with the PROXY protocol, and nothing else is taken from it.
    pub(crate) fn is_introduced_by(&self, peer: IpAddr) -> bool {
        self.proxy_protocol.iter().any(|network| network.contains(peer))
    }
}

/// The limits in force in one worker. A reload replaces all of them at once; what has begun with the old ones goes on with
/// them until it asks again.
#[derive(Clone, Debug)]
pub(crate) struct InForce(Rc<RefCell<Rc<Limits>>>);

impl InForce {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Rc::new(RefCell::new(Rc::new(limits))))
    }

    pub(crate) fn now(&self) -> Rc<Limits> {
        self.0.borrow().clone()
    }

    pub(crate) fn replace(&self, limits: Limits) {
        *self.0.borrow_mut() = Rc::new(limits);
    }
}

/// Keys of which a reload changes nothing.
const FIXED: [&str; 9] = [
    "listen",
    "status_listen",
    "status_url",
    "workers",
    "state_dir",
    "max_connections_per_client",
    "max_connections",
    "drain_wait_secs",
    "access_log",
];

impl RouterConfig {
    /// Keys that differ from those of another configuration, and are read at the start alone.
    pub(crate) fn differs_in(&self, other: &Self) -> Vec<&'static str> {
        let value = |config: &Self| serde_json::to_value(config).unwrap_or_default();
        let (one, other) = (value(self), value(other));
        FIXED.into_iter().filter(|key| one.get(key) != other.get(key)).collect()
    }

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
            balance: self.balance,
            in_flight: if self.max_in_flight == 0 { u32::MAX } else { self.max_in_flight },
            queued: self.max_queue,
            queue: Duration::from_millis(self.queue_timeout_ms),
            head_bytes: self.max_header_bytes,
            zone: self.zone.clone(),
            trusted: self.trusted_proxies.clone(),
            forwarded: self.forwarded,
            proxy_protocol: self.proxy_protocol.clone(),
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
    fn what_a_reload_does_not_change_is_known() {
        let old = RouterConfig::default();
        let new = RouterConfig { workers: 3, body_timeout_secs: 7, ..RouterConfig::default() };
        assert_eq!(new.differs_in(&old), ["workers"]);
        let keys = serde_json::to_value(&old).unwrap();
        assert!(FIXED.iter().all(|key| keys.get(key).is_some()));
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
