//! `agent.toml`, and the bundle that makes this machine a node.

use dinp_common::api::agent::NodeBundle;
use dinp_common::config::{ClusterConfig, ConfigError, DaemonConfig, Loaded};
use dinp_common::credentials::{self, CredentialError};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use url::Url;

/// The agent's settings (`/etc/dinp/agent.toml`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Address of the own listener: loopback, for operators on this machine.
    pub listen: SocketAddr,
    /// Credential with the node's bundle, as `dinp node add` printed it.
    pub bundle_credential: Option<String>,
    /// File with the bundle, instead of a credential.
    pub bundle_file: Option<PathBuf>,
    /// Where the agent keeps what it must know after a restart.
    pub state_dir: PathBuf,
    /// Memory for instances, in MiB; by default what the machine has.
    pub memory_mb: Option<u32>,
    /// CPU for instances, in thousandths of a core; by default what the machine has.
    pub cpu_millis: Option<u32>,
    /// Memory kept for the system and its daemons, in MiB, taken off what the machine has.
    pub reserve_memory_mb: u32,
    /// Ports that instances are published on, `first-last`.
    pub ports: String,
    /// Address that instances are published on; by default all of the machine's.
    pub publish_address: Option<IpAddr>,
    /// Image pulls at the same time.
    pub pull_limit: usize,
    /// Seconds after which a pull has failed.
    pub pull_timeout_secs: u64,
    /// Address of this machine, as apps find it in `HOST_IP`; by default the node's, at which routers reach it.
    pub host_ip: Option<String>,
    /// Address of the log collector, as apps find it in `SCRIBE_IP`; by default that of this machine.
    pub scribe_ip: Option<String>,
    /// Port of the log collector, as apps find it in `SCRIBE_PORT`.
    pub scribe_port: u16,
    /// Addresses (of hosts, or networks) that instances must not reach, besides those of `servers` and of the machines
    /// that the orders name.
    pub denied_addresses: Vec<String>,
    /// The Docker Engine.
    pub docker: DockerConfig,
    /// The packet filter.
    pub firewall: FirewallConfig,
    /// Space on disks.
    pub disk: DiskConfig,
    /// What every container gets.
    pub container: ContainerConfig,
    /// What instances write.
    pub logs: LogsConfig,
}

/// `[disk]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// With less free space than this, in MiB, the node gets no new work, and unused images of apps are removed.
    pub low_mb: u32,
    /// With less than this, in MiB, the instance that has written most is stopped.
    pub reserve_mb: u32,
}

/// `[firewall]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FirewallConfig {
    /// Where to ask whether it is in force: the address of `dinp-agent-firewall.socket`.
    pub socket: PathBuf,
    /// Ports of routers that instances reach: those for users.
    pub router_ports: Vec<u16>,
    /// Addresses or networks that reach instances besides routers and monitors.
    pub allowed_sources: Vec<String>,
}

/// `[docker]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// Its socket.
    pub socket: PathBuf,
    /// Seconds after which a call that should be quick counts as hanging.
    pub timeout_secs: u64,
    /// Name of the network of instances.
    pub network: String,
    /// Name of its bridge.
    pub bridge: String,
    /// Its subnet; by default Docker chooses.
    pub subnet: Option<String>,
}

/// `[container]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainerConfig {
    /// Slice that all instances live in.
    pub cgroup_parent: String,
    /// Most processes and threads of an instance.
    pub pids_limit: i64,
    /// Most files and connections that a process of an instance has open.
    pub open_files_limit: i64,
    /// Most connections that an instance has opened at the same time.
    pub connections_limit: u32,
    /// What an instance may write to its disk, in MiB, where the engine can limit it: overlay2 on XFS with project quotas.
    pub disk_mb: u32,
    /// Whether the root of instances is read-only; they write to /tmp, /var/tmp and /run then.
    pub read_only_root: bool,
    /// Size of each of these, in MiB; it counts as memory.
    pub tmpfs_mb: u32,
    /// Docker's log driver for instances.
    pub log_driver: String,
    /// Most that the engine keeps of an instance's output in one file, in MiB, and in how many files.
    pub log_file_mb: u32,
    /// See `log_file_mb`.
    pub log_files: u32,
}

/// `[logs]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// Most that is kept of the output of all instances that are gone, in MiB.
    pub ended_mb: u64,
    /// Socket of the journal that output is handed on to; empty for none.
    pub journal_socket: PathBuf,
    /// Most that is handed on of each instance in a second, in bytes.
    pub journal_bytes_per_sec: u32,
    /// Most that is handed on of each instance at once after a quiet time, in bytes.
    pub journal_burst_bytes: u32,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            ended_mb: 256,
            journal_socket: dinp_common::journal::SOCKET.into(),
            journal_bytes_per_sec: 16 * 1024,
            journal_burst_bytes: 1 << 20,
        }
    }
}

impl LogsConfig {
    /// The journal that output is handed on to, if there is one on this machine.
    pub fn journal(&self) -> Option<PathBuf> {
        self.journal_socket.exists().then(|| self.journal_socket.clone())
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1981)),
            bundle_credential: None,
            bundle_file: None,
            state_dir: "/var/lib/dinp/agent".into(),
            memory_mb: None,
            cpu_millis: None,
            reserve_memory_mb: 512,
            ports: "20000-29999".into(),
            publish_address: None,
            pull_limit: 3,
            pull_timeout_secs: 900,
            host_ip: None,
            scribe_ip: None,
            scribe_port: 1463,
            denied_addresses: Vec::new(),
            docker: DockerConfig::default(),
            firewall: FirewallConfig::default(),
            disk: DiskConfig::default(),
            container: ContainerConfig::default(),
            logs: LogsConfig::default(),
        }
    }
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            socket: "/run/docker.sock".into(),
            timeout_secs: 10,
            network: "dinp".into(),
            bridge: "dinp0".into(),
            subnet: None,
        }
    }
}

impl Default for FirewallConfig {
    fn default() -> Self {
        Self {
            socket: "/run/dinp/agent-firewall.sock".into(),
            router_ports: vec![80, 443],
            allowed_sources: Vec::new(),
        }
    }
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self { low_mb: 1024, reserve_mb: 256 }
    }
}

impl Default for ContainerConfig {
    fn default() -> Self {
        Self {
            cgroup_parent: "dinp-apps.slice".into(),
            pids_limit: 512,
            open_files_limit: 16_384,
            connections_limit: 8192,
            disk_mb: 4096,
            read_only_root: false,
            tmpfs_mb: 64,
            log_driver: "local".into(),
            log_file_mb: 10,
            log_files: 3,
        }
    }
}

impl AgentConfig {
    /// The ports that instances are published on.
    pub fn port_range(&self) -> Result<RangeInclusive<u16>, ConfigError> {
        let parse = || -> Option<RangeInclusive<u16>> {
            let (first, last) = self.ports.split_once('-')?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first >= 1024 && first <= last).then_some(first..=last)
        };
        parse().ok_or_else(|| ConfigError::invalid("ports", "must be first-last, both from 1024 to 65535"))
    }
}

impl DaemonConfig for AgentConfig {
    fn validate(&self, _: &ClusterConfig) -> Result<(), ConfigError> {
        self.port_range()?;
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !self.listen.ip().is_loopback() {
            return Err(ConfigError::invalid("listen", "must be a loopback address: it asks nobody who they are"));
        }
        if !is_name(&self.docker.network) {
            return Err(ConfigError::invalid("docker.network", "must be letters, digits, - _ and ."));
        }
        if !is_name(&self.docker.bridge) || self.docker.bridge.len() > 15 {
            return Err(ConfigError::invalid(
                "docker.bridge",
                "must be the name of an interface: at most 15 letters, digits and -",
            ));
        }
        let slice = &self.container.cgroup_parent;
        if !is_name(slice) || !slice.ends_with(".slice") || slice.starts_with('-') {
            return Err(ConfigError::invalid(
                "container.cgroup_parent",
                "must be the name of a slice, such as dinp-apps.slice",
            ));
        }
        for (key, zero) in [
            ("pull_limit", self.pull_limit == 0),
            ("pull_timeout_secs", self.pull_timeout_secs == 0),
            ("docker.timeout_secs", self.docker.timeout_secs == 0),
            ("container.pids_limit", self.container.pids_limit <= 0),
            ("container.open_files_limit", self.container.open_files_limit <= 0),
            ("container.connections_limit", self.container.connections_limit == 0),
            ("container.disk_mb", self.container.disk_mb == 0),
            ("container.tmpfs_mb", self.container.tmpfs_mb == 0),
            ("container.log_file_mb", self.container.log_file_mb == 0),
            ("container.log_files", self.container.log_files == 0),
            ("logs.journal_bytes_per_sec", self.logs.journal_bytes_per_sec == 0),
            ("logs.journal_burst_bytes", self.logs.journal_burst_bytes == 0),
            ("memory_mb", self.memory_mb == Some(0)),
            ("cpu_millis", self.cpu_millis == Some(0)),
        ] {
            if zero {
                return Err(ConfigError::invalid(key, "must be at least 1"));
            }
        }
        Ok(())
    }
}

/// The bundle that this machine was given.
pub fn bundle(config: &AgentConfig) -> Result<NodeBundle, CredentialError> {
    const DEFAULT: &str = "node-bundle";
    let credential = config.bundle_credential.as_deref();
    let secret = credentials::resolve(credential, config.bundle_file.as_deref(), DEFAULT)?;
    let malformed = |problem: String| CredentialError::Malformed {
        id: config
            .bundle_file
            .as_ref()
            .map_or_else(|| credential.unwrap_or(DEFAULT).to_owned(), |f| f.display().to_string()),
        problem,
    };
    // The error of serde would quote the secret.
    let bundle: NodeBundle = serde_json::from_str(secret.expose()).map_err(|error| {
        malformed(format!("it is not a node's bundle (line {}, column {})", error.line(), error.column()))
    })?;
    if bundle.cluster.is_empty() || bundle.address.is_empty() {
        return Err(malformed("cluster and address must not be empty".into()));
    }
    Ok(bundle)
}

/// URLs of the servers: those of the configuration where a file names some, else those of the bundle.
pub fn servers(loaded: &Loaded<AgentConfig>, bundle: &NodeBundle) -> Result<Vec<Url>, ConfigError> {
    if loaded.origins.contains_key("servers") || bundle.servers.is_empty() {
        return Ok(loaded.cluster.servers.clone());
    }
    let parse = |text: &String| match Url::parse(text) {
        Ok(url) if url.scheme() == "https" => {
            Err(ConfigError::invalid("servers", format!("{text} in the node's bundle: TLS is not supported yet")))
        }
        Ok(url) if url.scheme() == "http" && url.host_str().is_some() => Ok(url),
        _ => Err(ConfigError::invalid(
            "servers",
            format!("{text} in the node's bundle is not an http:// URL with a host"),
        )),
    };
    bundle.servers.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::config::load;
    use dinp_common::testing::TestDir;

    fn bundle_in(text: &str) -> Result<NodeBundle, CredentialError> {
        let dir = TestDir::new("agent-bundle");
        let file = dir.path().join("bundle");
        std::fs::write(&file, text).unwrap();
        bundle(&AgentConfig { bundle_file: Some(file), ..AgentConfig::default() })
    }

    const BUNDLE: &str = r#"{"cluster": "c1", "node": "node1", "address": "10.0.0.1", "servers": ["http://control:1980"], "secret": "node:node1:00"}"#;

    #[test]
    fn defaults_are_valid_and_ports_are_checked() {
        let config = AgentConfig::default();
        config.validate(&ClusterConfig::default()).unwrap();
        assert_eq!(config.port_range().unwrap(), 20_000..=29_999);
        for bad in ["", "20000", "3-2", "80-90", "20000-99999", "a-b"] {
            assert!(AgentConfig { ports: bad.into(), ..AgentConfig::default() }.port_range().is_err(), "{bad}");
        }
        let open = AgentConfig { listen: "0.0.0.0:1981".parse().unwrap(), ..AgentConfig::default() };
        assert!(open.validate(&ClusterConfig::default()).is_err());
    }

    #[test]
    fn the_packaged_file_names_every_key_at_its_default() {
        let packaged = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/agent.toml");
        let text = std::fs::read_to_string(&packaged).unwrap();
        let dir = TestDir::new("agent-toml");
        let open: String = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
            .collect();
        std::fs::write(dir.path().join("agent.toml"), open).unwrap();
        let mut config = load::<AgentConfig>(dir.path(), "agent").unwrap().daemon;
        // Keys without a default stand there with an example.
        for (example, name) in [
            (config.memory_mb.take().is_some(), "memory_mb"),
            (config.cpu_millis.take().is_some(), "cpu_millis"),
            (config.bundle_credential.take().is_some(), "bundle_credential"),
            (config.bundle_file.take().is_some(), "bundle_file"),
            (config.publish_address.take().is_some(), "publish_address"),
            (config.host_ip.take().is_some(), "host_ip"),
            (config.scribe_ip.take().is_some(), "scribe_ip"),
            (config.docker.subnet.take().is_some(), "docker.subnet"),
        ] {
            assert!(example, "{name} is missing");
        }
        assert_eq!(config, AgentConfig::default());
        let all = dinp_common::config::Loaded::for_tests("agent", AgentConfig::default()).show();
        for line in all.split_once("# agent").unwrap().1.lines() {
            if let Some((key, _)) = line.split_once(" = ") {
                assert!(text.contains(&format!("#{key} = ")), "{key} is missing");
            }
        }
    }

    #[test]
    fn bundles_are_read_and_never_quoted() {
        assert_eq!(bundle_in(BUNDLE).unwrap().node.as_str(), "node1");
        let error = bundle_in(r#"{"cluster": 7, "secret": "node:a:geheim"}"#).err().unwrap().to_string();
        assert!(error.contains("is not a node's bundle") && !error.contains("geheim"), "{error}");
    }

    #[test]
    fn configured_servers_win_over_those_of_the_bundle() {
        let bundle = bundle_in(BUNDLE).unwrap();
        let mut loaded = Loaded::for_tests("agent", AgentConfig::default());
        assert_eq!(servers(&loaded, &bundle).unwrap()[0].as_str(), "http://control:1980/");
        loaded.origins.insert("servers".into(), "dinp.toml".into());
        assert_eq!(servers(&loaded, &bundle).unwrap(), loaded.cluster.servers);
        let mut tls = bundle;
        tls.servers = vec!["https://control:1980".into()];
        loaded.origins.clear();
        assert!(servers(&loaded, &tls).unwrap_err().to_string().contains("TLS is not supported yet"));
    }
}
