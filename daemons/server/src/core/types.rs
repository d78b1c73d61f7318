//! What goes into the core and what comes out of it.

use dinp_common::api::agent::Registered;
use dinp_common::api::people::DeploymentState;
use dinp_common::model::{AppName, DomainName, InstanceId, NodeName, ReleaseSpec, Version};
use dinp_common::routes::Table;
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds of a monotonic clock; the zero point is the caller's.
pub type Tick = u64;

/// Desired state, whole, as one snapshot of the database shows it. Whoever builds one vouches for its completeness.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Revision of the snapshot.
    pub revision: u64,
    /// All apps, the deleted ones too.
    pub apps: BTreeMap<AppName, DesiredApp>,
    /// All nodes that are not deleted.
    pub nodes: BTreeMap<NodeName, DesiredNode>,
    /// Nodes that are: one that is in neither list has lost its row, which is no order.
    pub deleted_nodes: BTreeSet<NodeName>,
}

/// One app as people want it.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredApp {
    /// Its name.
    pub name: AppName,
    /// Whether it is meant to run.
    pub started: bool,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Instances wanted.
    pub instances: u32,
    /// The release in force.
    pub release: Option<u64>,
    /// Domains besides the platform's own.
    pub domains: Vec<DomainName>,
    /// Every release that may still run: the one in force, the one being deployed, the one before.
    pub releases: BTreeMap<u64, ReleaseSpec>,
    /// The newest deployment, if it is not final.
    pub deployment: Option<DesiredDeployment>,
    /// Older deployments that are not final either: the core says that they are superseded.
    pub older_deployments: Vec<u64>,
}

/// A deployment that is not final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredDeployment {
    /// Its id.
    pub id: u64,
    /// The release that it brings.
    pub release: u64,
    /// Whether a person wants it undone.
    pub cancel: bool,
    /// Its state as written.
    pub state: DeploymentState,
    /// The release that was in force when it began, as written.
    pub previous: Option<u64>,
}

/// A node as people want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredNode {
    /// Its name.
    pub name: NodeName,
    /// The address that stands in routes.
    pub address: String,
    /// Its zone, or empty.
    pub zone: String,
    /// Whether it takes no new work.
    pub cordoned: bool,
    /// What it was registered with: of what it reports, no more counts.
    pub registered: Registered,
}

/// Everything that is to be done now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Actions {
    /// Orders that changed since the last decision, each as a whole.
    pub orders: BTreeMap<NodeName, NodeOrders>,
    /// The whole table, when it differs from the last one that was handed out. The shell publishes it under a version
    /// that it assigns, and calls `routes_published` or `routes_failed`; until then no further table is handed out.
    pub routes: Option<Table>,
    /// What to write about deployments. A change is repeated each second until a `Desired` shows it.
    pub deployments: Vec<DeploymentUpdate>,
    /// What to tell people.
    pub events: Vec<Event>,
    /// When to decide again at the latest.
    pub next_wake: Tick,
}

#[cfg(test)]
impl Actions {
    /// Whether there is nothing to do but to wait.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.routes.is_none() && self.deployments.is_empty() && self.events.is_empty()
    }
}

/// Orders of one node without what only the shell knows (images, environment, registry).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeOrders {
    /// Rises with each change within the epoch, from 1.
    pub generation: u64,
    /// Instances to run.
    pub run: Vec<RunOrder>,
    /// Instances to stop.
    pub stop: Vec<StopOrder>,
    /// Instances that are gone and whose ports are free again.
    pub release_ports: Vec<InstanceId>,
}

/// One instance to run. The release is always one of `DesiredApp::releases`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOrder {
    /// Its identity.
    pub instance: InstanceId,
    /// Its app.
    pub app: AppName,
    /// Its release.
    pub release: u64,
    /// What its node is to show for it.
    pub ticket: String,
}

/// One instance to stop: the same as on the wire.
pub type StopOrder = dinp_common::api::agent::StopOrder;

/// A change of a deployment, to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentUpdate {
    /// The deployment.
    pub id: u64,
    /// Its app.
    pub app: AppName,
    /// Its state.
    pub state: DeploymentState,
    /// Why, or what it waits for; for people.
    pub reason: String,
    /// The last lines of the instance for which it failed.
    pub output: Vec<String>,
    /// The release that was in force when it began; to be written where it is set.
    pub previous: Option<u64>,
    /// The release that is in force from now on; to be written to the app in the same transaction.
    pub release_in_force: Option<u64>,
}

/// Something that people want to read about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The app; none for what concerns a node or the cluster, which goes to the log only.
    pub app: Option<AppName>,
    /// The instance, where it is about one.
    pub instance: Option<InstanceId>,
    /// The node, where it is about one.
    pub node: Option<NodeName>,
    /// What: one word of a fixed set, such as `start`, `ready`, `exit`, `stop`.
    pub kind: &'static str,
    /// More.
    pub detail: String,
}

/// How the cluster is, as far as the core knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Epoch of this leadership.
    pub epoch: u64,
    /// Whether the lease cannot be renewed.
    pub holdover: bool,
    /// Whether every known node has acknowledged this leader or is lost: before that nothing is placed or stopped.
    pub settled: bool,
    /// Why nothing destructive is done, if so.
    pub frozen: Option<String>,
    /// Revision of desired state that is being carried out.
    pub revision: u64,
    /// Table that was published last.
    pub routes: Version,
    /// Nodes whose reports arrive.
    pub nodes_ready: u32,
    /// Nodes that are suspect, lost or never heard.
    pub nodes_missing: u32,
    /// Instances that serve.
    pub instances_ready: u32,
    /// Instances wanted.
    pub instances_wanted: u32,
    /// What cannot be done, as sentences.
    pub problems: Vec<String>,
}

/// Refusal to stop an instance as an orphan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrphanError {
    /// There is no such instance.
    #[error("instance {0} is not known on any node")]
    Unknown(InstanceId),
    /// Its app has a row: it is not an orphan.
    #[error("instance {0} is not an orphan: it belongs to the app \"{1}\"")]
    Claimed(InstanceId, AppName),
}
