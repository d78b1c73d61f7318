//! The decision core.
mod types;
pub use types::*;
use dinp_common::api::UnixMillis;
use dinp_common::api::agent::{Goodbye, HeldPort, Report, ReportReply};
use dinp_common::api::control::{InstanceView, NodeView, RouterView};
use dinp_common::api::hm::{HmReport, Targets};
use dinp_common::api::router::RouterReport;
use dinp_common::model::{AppName, InstanceId, NodeName, Version};
use dinp_common::routes::Table;

/// The core: what nodes and routers report, what is desired, and what was decided.
pub struct Core {
    settings: Settings,
    cluster: String,
    epoch: u64,
    holder: String,
    routes: Version,
    desired: Option<Desired>,
    holdover: bool,
}

#[allow(unused_variables, missing_docs)]
impl Core {
    /// A core that does not lead yet. `seed` makes instance ids: draw it at random.
    pub fn new(settings: Settings, cluster: String, seed: u64) -> Self {
        Self { settings, cluster, epoch: 0, holder: String::new(), routes: Version::ZERO, desired: None, holdover: false }
    }
    /// Begins a new leadership.
    pub fn lead(&mut self, epoch: u64, holder: String, known_routers: Vec<(String, String)>, now: Tick) {
        self.epoch = epoch;
        self.holder = holder;
        self.desired = None;
    }
    pub fn settings(&self) -> &Settings { &self.settings }
    /// New settings (reload).
    pub fn set_settings(&mut self, settings: Settings) { self.settings = settings; }
    /// Table of the leader before, read from Redis (an empty one if Redis holds none). Call it once after `lead`, when
    /// Redis can be read; without it the first table waits until all nodes were heard.
    pub fn adopt_routes(&mut self, table: Table, now: Tick) {}
    pub fn holdover(&mut self, on: bool, now: Tick) { self.holdover = on; }
    pub fn desired(&mut self, desired: Desired, now: Tick) { self.desired = Some(desired); }
    /// The desired state that is being carried out: orders are resolved against this one.
    pub fn current_desired(&self) -> Option<&Desired> { self.desired.as_ref() }
    pub fn report(&mut self, node: &NodeName, report: &Report, now: Tick, wall: UnixMillis) -> ReportReply {
        ReportReply { resync: false, epoch: self.epoch }
    }
    pub fn goodbye(&mut self, node: &NodeName, goodbye: Goodbye, now: Tick) {}
    pub fn router_report(&mut self, report: &RouterReport, now: Tick) {}
    pub fn router_goodbye(&mut self, router: &str) {}
    pub fn router_forget(&mut self, router: &str) {}
    pub fn routers_to_read(&self, now: Tick) -> Vec<(String, String)> { Vec::new() }
    pub fn hm_report(&mut self, report: &HmReport, now: Tick) {}
    pub fn remove_orphan(&mut self, instance: &InstanceId) -> Result<(), OrphanError> { Err(OrphanError::Unknown(instance.clone())) }
    pub fn decide(&mut self, now: Tick) -> Actions { Actions { next_wake: now + 1000, ..Actions::default() } }
    /// The shell has written the table of the last decision.
    pub fn routes_published(&mut self, version: Version, now: Tick) { self.routes = version; }
    /// The shell could not write it, or does not know whether it did: the next decision hands out a table again.
    pub fn routes_failed(&mut self, now: Tick) {}
    /// The table that was published last: for the comparison with Redis.
    pub fn published(&self) -> Option<(Version, &Table)> { None }
    /// Highest epoch that an agent or router has seen, when it makes them refuse this leader: the next lease must take a higher one.
    pub fn refused_by(&self) -> Option<u64> { None }
    /// Orders of a node in force, whole; none before its first full report to this leader.
    pub fn orders(&self, node: &NodeName) -> Option<&NodeOrders> { None }
    pub fn status(&self) -> Status {
        Status { epoch: self.epoch, holdover: self.holdover, settled: false, frozen: None, revision: self.desired.as_ref().map_or(0, |d| d.revision), routes: self.routes, nodes_ready: 0, nodes_missing: 0, instances_ready: 0, instances_wanted: 0, problems: Vec::new() }
    }
    pub fn instances(&self, app: Option<&AppName>) -> Vec<InstanceView> { Vec::new() }
    pub fn nodes(&self) -> Vec<NodeView> { Vec::new() }
    pub fn routers(&self) -> Vec<RouterView> { Vec::new() }
    pub fn orphans(&self) -> Vec<InstanceView> { Vec::new() }
    /// What health monitors are to probe.
    pub fn targets(&self) -> Targets { Targets { version: String::new(), targets: Vec::new() } }
    /// Ports held on a node for instances that are gone.
    pub fn held_ports(&self, node: &NodeName) -> Vec<HeldPort> { Vec::new() }
}
