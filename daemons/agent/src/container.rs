//! From an order to a container, and from a found container back to an instance.
//!
//! What the agent needs to know of an instance after its own restart stands in the container's labels.

use crate::config::ContainerConfig;
use crate::docker::Traits;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, PortBinding, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use dinp_common::api::agent::InstanceSpec;
use dinp_common::model::{AppName, HealthCheck, InstanceId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Label with the cluster's id: what bears another one is not ours.
pub const CLUSTER: &str = "dinp.cluster";
/// Label with the app's name.
pub const APP: &str = "dinp.app";
/// Label with the release's id.
pub const RELEASE: &str = "dinp.release";
/// Label with the instance's id.
pub const INSTANCE: &str = "dinp.instance";
/// Label with the epoch in which the instance was ordered.
pub const EPOCH: &str = "dinp.epoch";
/// Label with the ticket of the order: the servers' proof that the instance was ordered to this node.
pub const TICKET: &str = "dinp.ticket";
/// Label with [`Settings`] as JSON.
pub const SETTINGS: &str = "dinp.settings";

/// The log driver by which the engine writes to the journal itself.
pub const JOURNALD: &str = "journald";

/// What ordinary web applications need when they start as root and hand their work to another user:
/// CHOWN and DAC_OVERRIDE to prepare directories, SETUID and SETGID to change the user, KILL to signal
/// workers that have another one, NET_BIND_SERVICE for ports below 1024 on engines that guard them.
/// Everything else, RAW sockets first, is dropped.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];

/// What an agent must know of an instance besides who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Port on the node.
    pub port: u16,
    /// Port inside the container.
    pub container_port: u16,
    /// Time from start to ready.
    pub start_timeout_secs: u32,
    /// Memory limit in MiB.
    pub memory_mb: u32,
    /// CPU share in thousandths of a core.
    pub cpu_millis: u32,
    /// How to ask whether it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Host header of probes; none was sent by agents that did not write it here.
    #[serde(default)]
    pub host: String,
    /// Time of being ready after which it has proved itself; agents that did not write it here knew no proof.
    #[serde(default)]
    pub min_healthy_secs: Option<u32>,
}

impl Settings {
    /// Containers that run keep the check that stands in their labels: what was made without a check by an agent that
    /// knew no proof was asked by connection, and may speak no HTTP.
    fn keep_old_check(mut self) -> Self {
        if self.min_healthy_secs.is_none() {
            self.health.get_or_insert_with(HealthCheck::tcp);
        }
        self
    }
}

/// An instance as its container tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The instance.
    pub instance: InstanceId,
    /// Its app.
    pub app: AppName,
    /// Id of its release.
    pub release: u64,
    /// Epoch in which it was ordered.
    pub epoch: u64,
    /// The ticket of its order; empty if it was made without one.
    pub ticket: String,
}

impl Identity {
    /// A leader gave an instance that has a container another ticket: the label cannot change, the orders keep it.
    pub fn renew_ticket(&mut self, spec: &InstanceSpec) {
        if !spec.ticket.is_empty() {
            self.ticket.clone_from(&spec.ticket);
        }
    }
}

/// What all containers of a node have in common.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Cluster id.
    pub cluster: String,
    /// The machine's address, for apps.
    pub host_ip: String,
    /// Address of the log collector.
    pub scribe_ip: String,
    /// Port of the log collector.
    pub scribe_port: u16,
    /// Network of instances.
    pub network: String,
    /// Address that instances are published on; none for all.
    pub publish_address: Option<IpAddr>,
    /// What the Docker Engine is like.
    pub traits: Traits,
    /// Configuration.
    pub config: ContainerConfig,
}

/// Name of an instance's container.
pub fn name(app: &AppName, instance: &InstanceId) -> String {
    format!("dinp-{app}-{}", instance.short())
}

/// Name where another container has the usual one: with the whole id.
pub fn long_name(app: &AppName, instance: &InstanceId) -> String {
    format!("dinp-{app}-{instance}")
}

/// The image as Docker is asked for it: by digest alone where there is one.
pub fn image_name(spec: &InstanceSpec) -> String {
    let image = &spec.image;
    match image.digest() {
        Some(digest) => format!("{}/{}@{digest}", image.registry(), image.repository()),
        None => format!("{}/{}:{}", image.registry(), image.repository(), image.reference()),
    }
}

/// The container of an instance.
pub fn body(spec: &InstanceSpec, epoch: u64, port: u16, around: &Surroundings) -> ContainerCreateBody {
    let inner = format!("{}/tcp", spec.port);
    ContainerCreateBody {
        image: Some(image_name(spec)),
        hostname: Some(format!("{}-{}", cut(spec.app.as_str(), 54), spec.instance.short())),
        cmd: spec.command.clone(),
        env: Some(environment(spec, around)),
        labels: Some(labels(spec, epoch, port, around)),
        exposed_ports: Some(vec![inner.clone()]),
        host_config: Some(host_config(spec, &inner, port, around)),
        ..ContainerCreateBody::default()
    }
}

fn cut(text: &str, most: usize) -> &str {
    text[..text.len().min(most)].trim_end_matches('-')
}

fn environment(spec: &InstanceSpec, around: &Surroundings) -> Vec<String> {
    // What the platform says wins: an app that listens elsewhere than PORT would never be ready.
    let platform = [
        ("PORT", spec.port.to_string()),
        ("APP_NAME", spec.app.to_string()),
        ("HOST_IP", around.host_ip.clone()),
        ("SCRIBE_IP", around.scribe_ip.clone()),
        ("SCRIBE_PORT", around.scribe_port.to_string()),
        // The init in the container: under a shell that does not hand signals on, the app would miss its end.
        ("TINI_KILL_PROCESS_GROUP", "1".to_owned()),
    ];
    let mut all: BTreeMap<&str, &str> = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.extend(platform.iter().map(|(name, value)| (*name, value.as_str())));
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn labels(spec: &InstanceSpec, epoch: u64, port: u16, around: &Surroundings) -> HashMap<String, String> {
    let settings = Settings {
        port,
        container_port: spec.port,
        start_timeout_secs: spec.start_timeout_secs,
        memory_mb: spec.resources.memory_mb,
        cpu_millis: spec.resources.cpu_millis,
        health: spec.health.clone(),
        host: spec.host.clone(),
        min_healthy_secs: Some(spec.min_healthy_secs),
    };
    let settings = serde_json::to_string(&settings).expect("settings are numbers and texts, which JSON can hold");
    [
        (CLUSTER, around.cluster.clone()),
        (APP, spec.app.to_string()),
        (RELEASE, spec.release.to_string()),
        (INSTANCE, spec.instance.to_string()),
        (EPOCH, epoch.to_string()),
        (TICKET, spec.ticket.clone()),
        (SETTINGS, settings),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn host_config(spec: &InstanceSpec, inner: &str, port: u16, around: &Surroundings) -> HostConfig {
    let memory = i64::from(spec.resources.memory_mb) * 1024 * 1024;
    let binding = PortBinding {
        host_ip: Some(around.publish_address.map(|ip| ip.to_string()).unwrap_or_default()),
        host_port: Some(port.to_string()),
    };
    HostConfig {
        memory: Some(memory),
        // The same as memory: no swap.
        memory_swap: Some(memory),
        cpu_shares: Some((i64::from(spec.resources.cpu_millis) * 1024 / 1000).clamp(2, 262_144)),
        nano_cpus: spec.resources.cpu_limit_millis.map(|millis| i64::from(millis) * 1_000_000),
        pids_limit: Some(around.config.pids_limit),
        ulimits: Some(vec![ulimit("core", 0), ulimit("nofile", around.config.open_files_limit)]),
        storage_opt: storage(around),
        readonly_rootfs: around.config.read_only_root.then_some(true),
        tmpfs: around.config.read_only_root.then(|| tmpfs(around.config.tmpfs_mb)),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(vec!["no-new-privileges".into()]),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        init: Some(true),
        cgroup_parent: Some(cgroup_parent(&around.config.cgroup_parent, around.traits.systemd_cgroups)),
        network_mode: Some(around.network.clone()),
        port_bindings: Some(HashMap::from([(inner.to_owned(), Some(vec![binding]))])),
        log_config: Some(log_config(&around.config)),
        ..HostConfig::default()
    }
}

fn ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(limit), hard: Some(limit) }
}

/// The limit of what it may write to its own layer, where the engine can hold it.
fn storage(around: &Surroundings) -> Option<HashMap<String, String>> {
    let size = || ("size".to_owned(), format!("{}M", around.config.disk_mb));
    around.traits.sized_layers.then(|| HashMap::from([size()]))
}

/// Where an app may write although its root is read-only. What is written there counts as its memory.
fn tmpfs(size_mb: u32) -> HashMap<String, String> {
    let options = format!("rw,exec,nosuid,nodev,mode=1777,size={size_mb}m");
    ["/tmp", "/var/tmp", "/run"].map(|path| (path.to_owned(), options.clone())).into()
}

/// The slice as the engine's cgroup driver wants it: its name, or its path (`a-b.slice` is `/a.slice/a-b.slice`).
fn cgroup_parent(slice: &str, systemd: bool) -> String {
    if systemd {
        return slice.to_owned();
    }
    let stem = slice.trim_end_matches(".slice");
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("/{}.slice", &stem[..end])).collect()
}

/// What the engine keeps of the output is bounded by itself; a journal that the engine writes to has its own bounds.
fn log_config(config: &ContainerConfig) -> HostConfigLogConfig {
    let driver = config.log_driver.as_str();
    let options = match driver {
        JOURNALD => vec![("labels", format!("{APP},{RELEASE},{INSTANCE}")), ("tag", "{{.Name}}".to_owned())],
        "local" | "json-file" => {
            vec![("max-size", format!("{}m", config.log_file_mb)), ("max-file", config.log_files.to_string())]
        }
        _ => Vec::new(),
    };
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    HostConfigLogConfig { typ: Some(driver.to_owned()), config: Some(options) }
}

/// The instance that a container of ours is; none if its labels do not say.
pub fn recognise(labels: &HashMap<String, String>, cluster: &str) -> Option<(Identity, Settings)> {
    if labels.get(CLUSTER)? != cluster {
        return None;
    }
    let identity = Identity {
        instance: labels.get(INSTANCE)?.parse().ok()?,
        app: labels.get(APP)?.parse().ok()?,
        release: labels.get(RELEASE)?.parse().ok()?,
        epoch: labels.get(EPOCH)?.parse().ok()?,
        ticket: labels.get(TICKET).cloned().unwrap_or_default(),
    };
    let settings: Settings = serde_json::from_str(labels.get(SETTINGS)?).ok()?;
    Some((identity, settings.keep_old_check()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn spec() -> InstanceSpec {
        serde_json::from_value(json!({
            "instance": "00000000deadbeef", "app": "web", "release": 7,
            "image": format!("reg:5000/team/web:v1@sha256:{}", "a".repeat(64)),
            "memory_mb": 256, "cpu_millis": 500, "cpu_limit_millis": 1500,
            "env": {"GREETING": "a = b", "PORT": "1", "TINI_KILL_PROCESS_GROUP": "0"}, "health": {"path": "/health"},
            "start_timeout_secs": 60, "port": 8080, "host": "web.apps.localhost", "min_healthy_secs": 2,
            "ticket": "k1.abc",
        }))
        .unwrap()
    }

    pub(crate) fn around() -> Surroundings {
        Surroundings {
            cluster: "c1".into(),
            host_ip: "10.0.0.1".into(),
            scribe_ip: "10.0.0.2".into(),
            scribe_port: 1463,
            network: "dinp".into(),
            publish_address: None,
            traits: Traits { systemd_cgroups: true, ..Traits::default() },
            config: ContainerConfig::default(),
        }
    }

    #[test]
    fn golden() {
        let digest = format!("reg:5000/team/web@sha256:{}", "a".repeat(64));
        let body = serde_json::to_value(body(&spec(), 3, 20_001, &around())).unwrap();
        let mut labels = body["Labels"].clone();
        let settings: serde_json::Value = serde_json::from_str(labels["dinp.settings"].as_str().unwrap()).unwrap();
        labels["dinp.settings"] = settings;
        assert_eq!(
            labels,
            json!({
                "dinp.cluster": "c1", "dinp.app": "web", "dinp.release": "7", "dinp.instance": "00000000deadbeef",
                "dinp.epoch": "3", "dinp.ticket": "k1.abc",
                "dinp.settings": {
                    "port": 20001, "container_port": 8080, "start_timeout_secs": 60, "memory_mb": 256, "cpu_millis": 500,
                    "health": {"path": "/health", "interval_secs": 5, "timeout_secs": 2, "threshold": 3},
                    "host": "web.apps.localhost", "min_healthy_secs": 2,
                },
            })
        );
        let mut rest = body;
        rest.as_object_mut().unwrap().remove("Labels");
        assert_eq!(
            rest,
            json!({
                "Image": digest,
                "Hostname": "web-00000000",
                "Env": ["APP_NAME=web", "GREETING=a = b", "HOST_IP=10.0.0.1", "PORT=8080", "SCRIBE_IP=10.0.0.2", "SCRIBE_PORT=1463", "TINI_KILL_PROCESS_GROUP=1"],
                "ExposedPorts": {"8080/tcp": {}},
                "HostConfig": {
                    "Memory": 268_435_456, "MemorySwap": 268_435_456, "CpuShares": 512, "NanoCpus": 1_500_000_000,
                    "PidsLimit": 512, "Init": true,
                    "Ulimits": [
                        {"Name": "core", "Soft": 0, "Hard": 0}, {"Name": "nofile", "Soft": 16_384, "Hard": 16_384},
                    ],
                    "CapDrop": ["ALL"],
                    "CapAdd": ["CHOWN", "DAC_OVERRIDE", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"],
                    "SecurityOpt": ["no-new-privileges"],
                    "RestartPolicy": {"Name": "no"},
                    "CgroupParent": "dinp-apps.slice",
                    "NetworkMode": "dinp",
                    "PortBindings": {"8080/tcp": [{"HostIp": "", "HostPort": "20001"}]},
                    "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}},
                },
            })
        );
    }

    #[test]
    fn disks_are_limited_where_the_engine_can_and_closed_where_the_node_says_so() {
        let mut around = around();
        let host_config = |around: &Surroundings| body(&spec(), 1, 1, around).host_config.unwrap();
        assert_eq!(host_config(&around).storage_opt, None);
        around.traits.sized_layers = true;
        assert_eq!(host_config(&around).storage_opt.unwrap()["size"], "4096M");
        around.config.read_only_root = true;
        let closed = host_config(&around);
        assert_eq!(closed.readonly_rootfs, Some(true));
        assert_eq!(closed.tmpfs.unwrap()["/tmp"], "rw,exec,nosuid,nodev,mode=1777,size=64m");
    }

    #[test]
    fn a_container_tells_which_instance_it_is() {
        let mut labels = body(&spec(), 3, 20_001, &around()).labels.unwrap();
        let (identity, settings) = recognise(&labels, "c1").unwrap();
        assert_eq!((identity.app.as_str(), identity.release, identity.epoch), ("web", 7, 3));
        assert_eq!(identity.ticket, "k1.abc");
        assert_eq!((settings.port, settings.health), (20_001, spec().health));
        assert_eq!(recognise(&labels, "c2"), None, "containers of another cluster are foreign");
        labels.remove(TICKET);
        assert_eq!(recognise(&labels, "c1").unwrap().0.ticket, "", "a container from before tickets claims none");
        assert_eq!(recognise(&HashMap::from([(CLUSTER.to_owned(), "c1".to_owned())]), "c1"), None);
    }

    #[test]
    fn containers_of_an_agent_that_knew_no_proof_are_asked_as_before() {
        let mut labels = body(&spec(), 3, 20_001, &around()).labels.unwrap();
        let mut old = json!({
            "port": 20001, "container_port": 8080, "start_timeout_secs": 60, "memory_mb": 256, "cpu_millis": 500,
        });
        labels.insert(SETTINGS.into(), old.to_string());
        assert_eq!(recognise(&labels, "c1").unwrap().1.health, Some(HealthCheck::tcp()));
        old["health"] = json!({"path": "/health", "interval_secs": 5, "timeout_secs": 2, "threshold": 3});
        labels.insert(SETTINGS.into(), old.to_string());
        assert_eq!(recognise(&labels, "c1").unwrap().1.health, Some(HealthCheck::new("/health")));
    }

    #[test]
    fn output_is_bounded_and_a_journal_is_told_whose_it_is() {
        let log =
            |driver: &str| log_config(&ContainerConfig { log_driver: driver.into(), ..ContainerConfig::default() });
        assert_eq!(log("json-file").config.unwrap()["max-size"], "10m");
        assert_eq!(log("journald").config.unwrap()["labels"], "dinp.app,dinp.release,dinp.instance");
        assert_eq!(log("none").config.unwrap().len(), 0);
    }

    #[test]
    fn the_slice_fits_the_cgroup_driver() {
        assert_eq!(cgroup_parent("dinp-apps.slice", true), "dinp-apps.slice");
        assert_eq!(cgroup_parent("dinp-apps.slice", false), "/dinp.slice/dinp-apps.slice");
        assert_eq!(cgroup_parent("apps.slice", false), "/apps.slice");
    }

    #[test]
    fn names() {
        let mut spec = spec();
        assert_eq!(name(&spec.app, &spec.instance), "dinp-web-00000000");
        assert_eq!(long_name(&spec.app, &spec.instance), "dinp-web-00000000deadbeef");
        spec.app = "a".repeat(63).parse().unwrap();
        assert_eq!(body(&spec, 1, 1, &around()).hostname.unwrap().len(), 63);
        spec.image = "reg:5000/web:v2".parse().unwrap();
        assert_eq!(image_name(&spec), "reg:5000/web:v2");
    }
}
