//! Dashboard and server: what only the leader knows, and what only it may do.
//!
//! * `GET /v1/status` -> [`ClusterStatus`]
//! * `GET /v1/instances?app=` -> `Page<`[`InstanceView`]`>`
//! * `GET /v1/nodes` -> `Page<`[`NodeView`]`>`
//! * `POST /v1/nodes` [`NodeAdd`] -> 201 [`crate::api::agent::NodeBundle`]
//! * `DELETE /v1/nodes/{name}` -> 204; refused while instances run there
//! * `GET /v1/orphans` -> `Page<`[`InstanceView`]`>`; `DELETE /v1/orphans/{instance}` -> 204
//! * `GET /v1/routers` -> `Page<`[`RouterView`]`>`; `DELETE /v1/routers/{name}` forgets a router -> 204
//! * `GET /v1/apps/{app}/logs?instance=&previous=&tail=&follow=&since=` -> lines of [`crate::api::agent::LogLine`] (application/x-ndjson)
//! * `GET /v1/strangers` -> `Page<`[`StrangerView`]`>`
//! * `POST /v1/tickets/adopt` -> [`Adopted`]; takes over instances whose tickets are of a key that the servers lack
//! * `POST /v1/resume` -> [`Resumed`]; carries out desired state that is older than what was carried out before
//! * `POST /v1/hint` -> 204; wakes the poll of desired state
//!
//! Authorization: a service credential of role dash. A server that does not lead answers 503 `not-leader` with the
//! leader's URL in `leader`.

use super::UnixMillis;
use super::agent::{Capacity, InstanceState, NodeFault, Registered};
use crate::model::{AppName, InstanceId, InvalidValue, NodeName, Version};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How the cluster is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Cluster id.
    pub cluster: String,
    /// URL of the leader.
    pub leader: String,
    /// Its epoch.
    pub epoch: u64,
    /// Version of the server's program.
    pub version: String,
    /// Whether the lease cannot be renewed: no deployment, no scale-in, no stop until it can.
    pub holdover: bool,
    /// Why nothing destructive is done now, if so.
    #[serde(default)]
    pub frozen: Option<String>,
    /// Revision of desired state that is being carried out.
    pub revision: u64,
    /// Since when desired state was last read whole and in time.
    pub synced_at: UnixMillis,
    /// Table that was published last.
    pub routes: Version,
    /// Nodes by condition.
    pub nodes_ready: u32,
    /// Nodes that are suspect, lost or never heard.
    pub nodes_missing: u32,
    /// Instances that serve.
    pub instances_ready: u32,
    /// Instances wanted.
    pub instances_wanted: u32,
    /// Instances that cannot be placed, as sentences.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// One instance as the leader knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its identity.
    pub instance: InstanceId,
    /// Its app.
    pub app: AppName,
    /// Id of its release.
    pub release: u64,
    /// Its node.
    pub node: NodeName,
    /// Its address on the node, once it has a port.
    #[serde(default)]
    pub address: Option<String>,
    /// Its port.
    #[serde(default)]
    pub port: Option<u16>,
    /// As its agent says.
    pub state: InstanceState,
    /// Whether routers send to it.
    pub routed: bool,
    /// Since when it is in this state.
    pub since: UnixMillis,
    /// Times its agent has started it again.
    pub restarts: u32,
    /// Exit code of its last end.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// Why it is in this state, for people.
    #[serde(default)]
    pub reason: String,
    /// What its node is: an instance of a suspect node may still run.
    pub node_condition: NodeCondition,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeCondition {
    /// Reports arrive.
    Ready,
    /// Reports arrive and its Docker Engine cannot be used: no new work.
    DockerDown,
    /// No report for 5 s: no new work, replacements are planned.
    Suspect,
    /// No report for 10 s: replaced.
    Lost,
    /// This leader has never heard of it.
    Unknown,
}

/// One node as the leader knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its address in routes.
    pub address: String,
    /// Its zone, or empty.
    pub zone: String,
    /// How it is.
    pub condition: NodeCondition,
    /// Whether it takes no new work because a person said so.
    pub cordoned: bool,
    /// Time of its last report.
    #[serde(default)]
    pub last_report: Option<UnixMillis>,
    /// What of it can be booked: of what it reports, no more than it was registered with, less what its host needs.
    pub capacity: Capacity,
    /// What it was registered with.
    #[serde(default, skip_serializing_if = "Registered::is_empty")]
    pub registered: Registered,
    /// What is booked of it.
    pub booked: Capacity,
    /// Instances on it.
    pub instances: u32,
    /// Version of its agent.
    #[serde(default)]
    pub agent_version: String,
    /// Why its Docker Engine cannot be used.
    #[serde(default)]
    pub docker_error: Option<String>,
    /// What else is wrong with the node itself.
    #[serde(default)]
    pub faults: Vec<NodeFault>,
}

impl NodeView {
    /// What is wrong with the node itself, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let faults = self.faults.iter().map(|fault| format!("{}: {}", fault.kind.as_str(), fault.detail));
        let docker = self.docker_error.iter().map(|error| format!("docker: {error}"));
        docker.chain(faults).collect()
    }
}

/// An instance that a node names without a ticket that proves it: it is neither routed nor counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StrangerView {
    /// The node that names it.
    pub node: NodeName,
    /// What the node says it is.
    pub instance: InstanceId,
    /// Its app, by the node's word.
    pub app: AppName,
    /// Id of its release, by the node's word.
    pub release: u64,
    /// Whether its ticket is of a key that the servers do not have: it may be theirs, and can be adopted.
    pub adoptable: bool,
}

/// What came of taking over instances whose tickets are of a key that the servers do not have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adopted {
    /// How many were taken over.
    pub instances: u32,
}

/// That a desired state which is older than what was carried out before is in force now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resumed {
    /// Its revision, raised past all that were carried out before.
    pub revision: u64,
}

/// A node to add.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAdd {
    /// Its name.
    pub name: NodeName,
    /// The address that routers reach its instances at: an IP address or a host name.
    pub address: String,
    /// Its zone.
    #[serde(default)]
    pub zone: String,
    /// Memory in MiB that it counts for at most, whatever it reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// CPU in thousandths of a core that it counts for at most, whatever it reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
}

/// One router as the leader knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouterView {
    /// Its name.
    pub name: String,
    /// URL of its status listener.
    pub status_url: String,
    /// Version of its program.
    pub version: String,
    /// Table in force in it.
    pub applied: Version,
    /// Time of its last report or of the last time that its status could be read.
    #[serde(default)]
    pub last_seen: Option<UnixMillis>,
    /// Whether deployments wait for its confirmation.
    pub live: bool,
}

/// Query of logs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LogQuery {
    /// Only this instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceDigits>,
    /// Last lines of each instance to begin with, by default 100, at most 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Whether to go on with what comes.
    #[serde(default)]
    pub follow: bool,
    /// Only what was kept of instances that are gone. Without instances that run, that is what is shown anyway.
    #[serde(default)]
    pub previous: bool,
    /// Nothing of instances that ended before this. Dash says when the app was created, whatever its caller says: before
    /// that its name may have been somebody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
}

/// An instance by the first digits of its id, or by all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceDigits(String);

impl InstanceDigits {
    /// Whether an id begins with them.
    pub fn begins(&self, id: &InstanceId) -> bool {
        id.as_str().starts_with(&self.0)
    }
}

impl FromStr for InstanceDigits {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if (1..=16).contains(&text.len()) && text.bytes().all(is_digit) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidValue::new("instance", text, "it must be 1 to 16 of the digits 0-9 and a-f"))
    }
}

impl TryFrom<String> for InstanceDigits {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<InstanceDigits> for String {
    fn from(digits: InstanceDigits) -> Self {
        digits.0
    }
}

impl fmt::Display for InstanceDigits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_by_digits_alone() {
        let digits: InstanceDigits = "cafe".parse().unwrap();
        assert!(digits.begins(&InstanceId::from_bits(0xcafe << 48)) && !digits.begins(&InstanceId::from_bits(0xcafe)));
        for bad in ["", "CAFE", "cafe&tail=1", "00000000000000000"] {
            assert!(bad.parse::<InstanceDigits>().is_err(), "{bad:?}");
        }
    }
}

/// `GET /v1/upkeep`, for builders: what images are needed for, as far as the leader knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpkeepView {
    /// Why nothing may be deleted now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The releases that instances on any node are of.
    pub releases: Vec<u64>,
}
