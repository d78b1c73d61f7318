//! Agent and server. The agent always dials.
//!
//! * `POST /v1/agent/report` [`Report`] -> [`ReportReply`], every 2 s and at once after a change
//! * `GET /v1/agent/orders?have=<epoch>-<generation>&wait_secs=20` -> [`Orders`], or 204
//! * `POST /v1/agent/goodbye` [`Goodbye`] -> 204
//! * `POST /v1/agent/streams/{id}`: the body carries the stream that the orders asked for, for logs lines of
//!   [`LogLine`]
//!
//! Authorization: the node's credential. The server takes the node's name from it and never from a document.

use super::{ProvedRevision, UnixMillis};
use crate::model::{AppName, HealthCheck, ImageRef, InstanceId, NodeName, Resources, Timing, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that an agent is to do: one document, replaced as a whole, kept on the agent's disk (without
/// environment values and registry passwords). An instance in neither list runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Cluster id. Orders of another cluster are refused.
    pub cluster: String,
    /// Epoch of the leader. A lower one than the highest seen is refused.
    pub epoch: u64,
    /// Who leads in this epoch. An equal epoch from another holder is refused.
    pub holder: String,
    /// Rises with each change of this node's orders within the epoch.
    pub generation: u64,
    /// Proof that the servers gave this epoch to this holder: an HMAC by a key of theirs over cluster, epoch and holder.
    /// Opaque to agents, which keep it with the orders and echo it in [`Seen::proof`]. Empty from servers without it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proof: String,
    /// The highest revision that was carried out when these orders were made. Agents keep the highest one that they have
    /// ever got, and echo it in [`Seen::highest_revision`].
    #[serde(default, skip_serializing_if = "ProvedRevision::is_none")]
    pub highest_revision: ProvedRevision,
    /// Instances to run.
    pub run: Vec<InstanceSpec>,
    /// Instances to stop. An entry stays until the agent reports the instance gone.
    pub stop: Vec<StopOrder>,
    /// Instances that are gone and that every router has forgotten: their ports are free again.
    #[serde(default)]
    pub release_ports: Vec<InstanceId>,
    /// Streams to open. An entry stays until the agent has dialled, or it is no longer wanted.
    #[serde(default)]
    pub streams: Vec<StreamOrder>,
    /// How to pull from the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryAccess>,
    /// The platform's other machines, for the node's packet filter.
    #[serde(default, skip_serializing_if = "Peers::is_empty")]
    pub peers: Peers,
}

impl Orders {
    /// Version of the document, `<epoch>-<generation>`.
    pub fn version(&self) -> Version {
        Version::new(self.epoch, self.generation)
    }
}

/// Machines that a node's packet filter must know, by IP address, network (`10.0.0.0/24`) or host name. Known ones, not
/// only those that were heard lately: who is missing in `routers` or `monitors` reaches no instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peers {
    /// Routers. They reach instances; instances reach their ports for users. While none is named, everybody reaches
    /// instances.
    pub routers: Vec<String>,
    /// Health monitors. They reach instances; instances reach nothing there.
    pub monitors: Vec<String>,
    /// All others: nodes, servers, database, registry. Instances reach nothing there.
    pub others: Vec<String>,
}

impl Peers {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Account for pulling images.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryAccess {
    /// Host and port of the registry.
    pub address: String,
    /// Account.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for RegistryAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAccess").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One instance to run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Its identity.
    pub instance: InstanceId,
    /// Its app.
    pub app: AppName,
    /// Id of its release.
    pub release: u64,
    /// The image, by digest.
    pub image: ImageRef,
    /// Command instead of the image's own (Docker's `CMD`: an entry point of the image stays), where the release names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// What it may use.
    #[serde(flatten)]
    pub resources: Resources,
    /// The app's environment. Empty in the copy on the agent's disk.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How to ask whether it is well; without one, any HTTP answer to `GET /` will do until it has proved itself, and
    /// nobody asks after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Time from start to ready, in seconds, after which a start has failed.
    pub start_timeout_secs: u32,
    /// Port that the app listens on inside the container (`PORT`).
    pub port: u16,
    /// Proof that a server has ordered this instance of this release to this node. Kept with the container, echoed in
    /// reports.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ticket: String,
    /// Host header of probes, as routers send it, unless the health check names another one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Seconds of being ready without an exit, a restart or a failed probe after which it has proved itself.
    #[serde(default = "default_min_healthy")]
    pub min_healthy_secs: u32,
}

fn default_min_healthy() -> u32 {
    Timing::MIN_HEALTHY_SECS
}

impl std::fmt::Debug for InstanceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceSpec")
            .field("instance", &self.instance)
            .field("app", &self.app)
            .field("release", &self.release)
            .field("env_names", &self.env.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// One instance to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// The instance.
    pub instance: InstanceId,
    /// Why, for the log and the event.
    pub reason: String,
    /// Seconds from SIGTERM to SIGKILL.
    pub grace_secs: u32,
}

/// A stream that the agent is to open to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOrder {
    /// Id of the stream: a secret for as long as it is open.
    pub stream: String,
    /// What to send.
    #[serde(flatten)]
    pub kind: StreamKind,
}

/// What a stream carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StreamKind {
    /// Output of an instance, as lines of [`LogLine`].
    Logs {
        /// The instance.
        instance: InstanceId,
        /// Last lines to begin with.
        tail: u32,
        /// Whether to go on with what comes.
        follow: bool,
        /// Only what was kept of an instance that is gone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        previous: bool,
    },
}

/// One line of an instance's output. In a stream: one JSON document per line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub at: UnixMillis,
    /// By which instance.
    pub instance: InstanceId,
    /// Where to.
    pub stream: LogStream,
    /// The text, without the line's end; what is not UTF-8 is replaced.
    pub text: String,
}

/// Output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What runs on a node, as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Cluster id that the agent belongs to.
    pub cluster: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Drawn when the agent's process starts.
    pub run_id: String,
    /// Number of this report within `run_id`, from 1. A gap makes the server ask for a full one.
    pub seq: u64,
    /// Whether `instances` holds all, or only those that changed since the report before.
    pub full: bool,
    /// Highest epoch and holder that the agent has accepted orders from.
    pub seen: Seen,
    /// What the node has for instances.
    pub capacity: Capacity,
    /// Why the Docker Engine cannot be used, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_error: Option<String>,
    /// What is wrong with the node itself, besides the engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<NodeFault>,
    /// Instances: containers, and accepted orders that are not containers yet.
    pub instances: Vec<InstanceReport>,
    /// Instances that are gone since the report before; their ports stay held.
    #[serde(default)]
    pub removed: Vec<InstanceId>,
    /// All ports held for instances that are gone, in every report.
    #[serde(default)]
    pub held_ports: Vec<HeldPort>,
    /// All instances that are gone and whose output is kept on the node, the newest first; at most [`ENDED_INSTANCES`].
    /// In full reports and when it has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Vec<EndedInstance>>,
}

/// Most ended instances that a report lists.
pub const ENDED_INSTANCES: usize = 500;

/// An instance that is gone, and whose output can still be read on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedInstance {
    /// Its identity.
    pub instance: InstanceId,
    /// Its app.
    pub app: AppName,
    /// Id of its release.
    pub release: u64,
    /// When its container was removed.
    pub at: UnixMillis,
    /// Exit code of its last end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The ticket that it had: without a valid one it is not shown as the app's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ticket: String,
}

/// Something that is wrong with a node itself: it gets no new work as long as it says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFault {
    /// What.
    pub kind: NodeFaultKind,
    /// More, for people.
    pub detail: String,
}

/// What can be wrong with a node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeFaultKind {
    /// Its state cannot be written down: the disk is full or broken.
    Disk,
    /// Its packet filter is not in force: no container is started.
    Firewall,
    /// It does not accept the orders of the server that leads. Servers say so, and no agent does.
    Deaf,
    /// A fault that this version does not know.
    #[serde(other)]
    Other,
}

impl NodeFaultKind {
    /// The word on the wire, in tables and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Firewall => "firewall",
            Self::Deaf => "deaf",
            Self::Other => "other",
        }
    }
}

/// Highest leadership that somebody has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Epoch.
    pub epoch: u64,
    /// Who led in it.
    pub holder: String,
    /// Generation of the orders accepted in that epoch.
    #[serde(default)]
    pub generation: u64,
    /// The [`Orders::proof`] that came with them: an epoch without a valid one is a mere claim.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proof: String,
    /// The highest [`Orders::highest_revision`] that this node has ever got.
    #[serde(default, skip_serializing_if = "ProvedRevision::is_none")]
    pub highest_revision: ProvedRevision,
}

/// What a node has for instances: the least of host, own cgroup and configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Memory in MiB.
    pub memory_mb: u32,
    /// CPU in thousandths of a core.
    pub cpu_millis: u32,
}

/// What a node was registered with: of what it reports, no more counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Memory in MiB; none: nobody has said how much it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// CPU in thousandths of a core; none: nobody has said how much it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
}

impl Registered {
    /// What of a capacity counts.
    pub fn bound(self, capacity: Capacity) -> Capacity {
        Capacity {
            memory_mb: self.memory_mb.map_or(capacity.memory_mb, |most| capacity.memory_mb.min(most)),
            cpu_millis: self.cpu_millis.map_or(capacity.cpu_millis, |most| capacity.cpu_millis.min(most)),
        }
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A port that stays closed to others until its routes are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPort {
    /// The instance that had it.
    pub instance: InstanceId,
    /// The port.
    pub port: u16,
}

/// One instance on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Its identity.
    pub instance: InstanceId,
    /// Its app.
    pub app: AppName,
    /// Id of its release.
    pub release: u64,
    /// Epoch in which it was ordered.
    pub epoch: u64,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Its port on the node's address, once there is a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Memory it is limited to, in MiB.
    pub memory_mb: u32,
    /// CPU share, in thousandths of a core.
    pub cpu_millis: u32,
    /// When it came into this state.
    pub since: UnixMillis,
    /// Times its agent has started it again.
    #[serde(default)]
    pub restarts: u32,
    /// Exit code of its last end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Why it is in this state, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether the orders in force name it; one that they do not name runs on.
    pub claimed: bool,
    /// The ticket of the order that made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ticket: String,
    /// Whether it has proved itself since its last start: ready for `min_healthy_secs` without an exit, a restart or a
    /// failed probe.
    #[serde(default)]
    pub proved: bool,
    /// Times that it ended, could not be started or was not ready in time by its own fault, since it was ordered. What
    /// the node did to it (pull, engine, disk) is not counted.
    #[serde(default)]
    pub failures: u32,
    /// Whether `reason` is the node's fault (pull, engine, disk, port) and none of the release's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub node_fault: bool,
    /// The last lines that it wrote before its last end; at most [`OUTPUT_LINES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// Why it failed last, for people: one sentence for each failure, there from the moment that `failures` counts it
    /// until the instance has proved itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_failure: String,
    /// Whether the last failure alone shows that this release does not serve: it had its time to start, and was not
    /// ready at the end, or its health path answered wrongly as often as the threshold says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed_start: bool,
    /// Whether the last failure was for memory: all of it, or a process in it, was killed at its limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
    /// Times that a process in it was killed for memory, and the instance ran on.
    #[serde(default)]
    pub oom_kills: u32,
    /// MiB that it has written to its disk, where that is more than its limit and its node is short of space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_disk_mb: Option<u32>,
    /// Limits that it has run into, and ran on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<Limit, LimitReached>,
}

/// A limit of an instance that does not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Processes and threads at the same time.
    Processes,
    /// Connections at the same time.
    Connections,
    /// Output that goes into the node's journal.
    Output,
    /// A limit that this version does not know.
    #[serde(other)]
    Other,
}

/// How often an instance ran into a limit, and what that meant the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitReached {
    /// Times that it was told. An agent that starts begins anew.
    pub times: u32,
    /// What happened, for people.
    pub detail: String,
}

/// Most lines of output that a report quotes of an ended instance.
pub const OUTPUT_LINES: usize = 20;
/// Most characters of each of them.
pub const OUTPUT_LINE_CHARS: usize = 300;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Ordered and written down; there is no container yet.
    Accepted,
    /// Its image is being pulled.
    Pulling,
    /// Its container runs and has not been ready yet.
    Starting,
    /// It serves.
    Ready,
    /// It was ready, and the agent's own check has failed as often as its threshold says.
    Unfit,
    /// It ended, could not start, or could not be pulled; its agent tries again after a while.
    BackOff,
    /// It was told to stop.
    Stopping,
}

impl InstanceState {
    /// Whether there is a process of it.
    pub fn runs(self) -> bool {
        matches!(self, Self::Starting | Self::Ready | Self::Unfit)
    }

    /// The word on the wire and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unfit => "unfit",
            Self::BackOff => "back_off",
            Self::Stopping => "stopping",
        }
    }
}

/// Answer to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReply {
    /// The next report must be full.
    pub resync: bool,
    /// Epoch of the leader that answers.
    pub epoch: u64,
}

/// Why an agent stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Goodbye {
    /// It comes back at once: 60 s of patience.
    Restart,
    /// The machine goes down.
    Shutdown,
}

/// What `dinp node add` prints and the agent gets as a credential.
#[derive(Clone, Serialize, Deserialize)]
pub struct NodeBundle {
    /// Cluster id.
    pub cluster: String,
    /// The node's name.
    pub node: NodeName,
    /// The address that stands in routes.
    pub address: String,
    /// URLs of the servers.
    pub servers: Vec<String>,
    /// Authority that signs the servers' certificates, in PEM; empty while URLs are http.
    #[serde(default)]
    pub ca: String,
    /// The node's credential as it goes into the Authorization header.
    pub secret: String,
    /// Registry (host and port) that nodes must be allowed to pull from over plain HTTP; empty if it has TLS.
    #[serde(default)]
    pub insecure_registry: String,
}
