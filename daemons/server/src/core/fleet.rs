//! What is known of nodes and instances: what agents reported, and what was decided.
//!
//! An instance as the core sees it:
//!
//! ```text
//!              placed                       reported by a node (new leader, or late)
//!                |                                     |
//!                v                                     v
//!   +---------------------------- Wanted ---------------------------+
//!   | accepted -> pulling -> starting -> ready <-> unfit             |   (the agent's part; back_off and again)
//!   | ready -> in a published table -> confirmed by routers: serves  |
//!   +------+--------------------------------------------^-----------+
//!          | surplus, and what replaces it serves        | wanted again
//!          v                                             |
//!      Withdrawn: out of the table -> published -> confirmed by every live router
//!          | nothing in flight at any live router, or drain_timeout
//!          v
//!      Stopping: the stop order names it, until its node says that it is gone
//!          |
//!          v
//!      gone: its port stays held until every router not forgotten has confirmed a table without it
//! ```
//!
//! Only `withdraw` moves an instance to `Stopping`, and nothing moves it back.

use super::Tick;
use dinp_common::api::UnixMillis;
use dinp_common::api::agent::{Capacity, HeldPort, InstanceReport, InstanceState, NodeFault, Seen};
use dinp_common::model::{AppName, InstanceId, NodeName, Resources, Version};
use dinp_common::routes::Endpoint;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the core wants of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is to run.
    Wanted,
    /// It is to stop, and on its way out of the table.
    Withdrawn {
        reason: String,
        /// When all live routers had confirmed that it is out of the table.
        confirmed_at: Option<Tick>,
    },
    /// The stop order names it.
    Stopping { reason: String },
}

/// Why DINP itself wants an instance replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doom {
    /// Its agent and the health monitor both find it unfit.
    Unfit,
    /// It crashes again and again on this node.
    Crashing,
    /// The Docker Engine of its node has not been usable for minutes.
    DockerDown,
    /// It has written more than its limit, and its node is short of space.
    OverDisk,
}

impl Doom {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unfit => "agent and health monitor found it unfit",
            Self::Crashing => "it crashed again and again",
            Self::DockerDown => "the Docker Engine of its node cannot be used",
            Self::OverDisk => "it has written more to its disk than it may, and its node is short of space",
        }
    }
}

/// One instance.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub id: InstanceId,
    pub app: AppName,
    pub release: u64,
    pub node: NodeName,
    /// What its node said last; none until its node has named it.
    pub report: Option<InstanceReport>,
    /// What is booked for it: the larger of decided and reported.
    pub booked: Capacity,
    pub phase: Phase,
    /// When this leader placed it or first heard of it.
    pub known_since: Tick,
    /// Generation of the orders that named it first; none if another leader ordered it.
    pub ordered_in: Option<u64>,
    /// When its node had accepted those orders without naming it.
    pub missing_since: Option<Tick>,
    /// Whether any table, of this leader or of one before, may have held it.
    pub maybe_routed: bool,
    /// First published table that has held it since without a break.
    pub entered: Option<Version>,
    /// First published table without it.
    pub left: Option<Version>,
    /// Since when it has been ready without a break.
    pub ready_since: Option<Tick>,
    /// Whether it has ever been ready.
    pub was_ready: bool,
    /// When its agent started it again, within the crash window.
    pub restarts: VecDeque<Tick>,
    pub doom: Option<Doom>,
    /// It was itself placed for one that crashed: it is not placed elsewhere again.
    pub relocated: bool,
    /// Its endpoint in the table of the leader before, as long as no node has reported it.
    pub inherited: Option<Endpoint>,
    /// The ticket that orders name it with.
    pub ticket: String,
    /// A person had it taken over without a ticket.
    pub is_adopted: bool,
    /// It gives way to a placement that was refused: not kept until the verdict.
    pub gives_way: bool,
}

impl Instance {
    pub(super) fn new(id: InstanceId, app: AppName, release: u64, node: NodeName, now: Tick) -> Self {
        Self {
            id,
            app,
            release,
            node,
            report: None,
            booked: Capacity::default(),
            phase: Phase::Wanted,
            known_since: now,
            ordered_in: None,
            missing_since: None,
            maybe_routed: false,
            entered: None,
            left: None,
            ready_since: None,
            was_ready: false,
            restarts: VecDeque::new(),
            doom: None,
            relocated: false,
            inherited: None,
            ticket: String::new(),
            is_adopted: false,
            gives_way: false,
        }
    }

    /// Its state as its node said last; `Accepted` before that.
    pub(super) fn state(&self) -> InstanceState {
        match &self.report {
            Some(report) => report.state,
            None if self.inherited.is_some() => InstanceState::Ready,
            None => InstanceState::Accepted,
        }
    }

    /// Whether its end has begun and cannot be taken back.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. }) || self.state() == InstanceState::Stopping
    }

    /// Whether its node has named it, with a ticket or because a person has vouched for it.
    pub(super) fn is_believed(&self) -> bool {
        self.report.is_some()
    }

    /// Times that it ended or failed to start by its own fault.
    pub(super) fn failures(&self) -> u32 {
        self.report.as_ref().map_or(0, |report| report.failures)
    }

    /// Whether it has proved itself since its last start.
    pub(super) fn is_proved(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.proved)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.phase == Phase::Wanted && self.state() != InstanceState::Stopping
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        matches!(self.phase, Phase::Withdrawn { .. }) && self.state() != InstanceState::Stopping
    }

    /// Whether every live router has taken over a table without it since it was withdrawn.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.phase, Phase::Withdrawn { confirmed_at: Some(_), .. })
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.report.as_ref().and_then(|report| report.port)
    }

    pub(super) fn book(&mut self, resources: Resources) {
        self.booked.memory_mb = self.booked.memory_mb.max(resources.memory_mb);
        self.booked.cpu_millis = self.booked.cpu_millis.max(resources.cpu_millis);
    }
}

/// How a node is. The order is that of getting worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    /// Reports arrive.
    Ready,
    /// Its agent said that it restarts: what runs there is taken to run on.
    Restarting,
    /// Silent for a moment.
    Suspect,
    /// This leader has not heard it yet.
    Unknown,
    /// Silent for so long that its instances are replaced.
    Lost,
}

/// One node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Since when silence counts where nothing was heard yet.
    pub known_since: Tick,
    pub last_heard: Option<Tick>,
    pub last_report: Option<UnixMillis>,
    pub run_id: String,
    /// Runs of the agent before this one with their last numbers: what arrives from them now is mostly late.
    pub old_runs: VecDeque<(String, u64)>,
    pub seq: u64,
    /// Whether a full report of this run was taken in.
    pub synced: bool,
    /// Highest leadership it has seen.
    pub seen: Seen,
    /// The orders of this leader that it is to accept next, and since when it is heard without having done so.
    pub behind: Option<(u64, Tick)>,
    pub capacity: Capacity,
    pub agent_version: String,
    pub docker_error: Option<String>,
    pub docker_down_since: Option<Tick>,
    /// What else is wrong with it.
    pub faults: Vec<NodeFault>,
    pub patience_until: Option<Tick>,
    pub shutdown: bool,
    pub held: Vec<HeldPort>,
    pub condition: Condition,
    /// When it became lost.
    pub lost_at: Option<Tick>,
}

impl Node {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            known_since: now,
            last_heard: None,
            last_report: None,
            run_id: String::new(),
            old_runs: VecDeque::new(),
            seq: 0,
            synced: false,
            seen: Seen::default(),
            behind: None,
            capacity: Capacity::default(),
            agent_version: String::new(),
            docker_error: None,
            docker_down_since: None,
            faults: Vec::new(),
            patience_until: None,
            shutdown: false,
            held: Vec::new(),
            condition: Condition::Unknown,
            lost_at: None,
        }
    }

    /// Whether what it reported may be taken for what is.
    pub(super) fn is_heard(&self) -> bool {
        matches!(self.condition, Condition::Ready | Condition::Restarting)
    }
}

/// An instance that is gone, for as long as its port is held.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    pub node: NodeName,
    /// First published table without it.
    pub left: Option<Version>,
}

/// All nodes and instances.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    nodes: BTreeMap<NodeName, Node>,
    instances: BTreeMap<InstanceId, Instance>,
    by_app: BTreeMap<AppName, BTreeSet<InstanceId>>,
    by_node: BTreeMap<NodeName, BTreeSet<InstanceId>>,
    gone: BTreeMap<InstanceId, Gone>,
}

impl Fleet {
    pub(super) fn insert(&mut self, instance: Instance) {
        self.by_app.entry(instance.app.clone()).or_default().insert(instance.id.clone());
        self.by_node.entry(instance.node.clone()).or_default().insert(instance.id.clone());
        self.gone.remove(&instance.id);
        self.instances.insert(instance.id.clone(), instance);
    }

    /// Forgets an instance that its node says is gone; its port stays held.
    pub(super) fn remove(&mut self, id: &InstanceId) -> Option<Instance> {
        let instance = self.instances.remove(id)?;
        if let Some(ids) = self.by_app.get_mut(&instance.app) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_app.remove(&instance.app);
            }
        }
        if let Some(ids) = self.by_node.get_mut(&instance.node) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_node.remove(&instance.node);
            }
        }
        self.gone.insert(id.clone(), Gone { node: instance.node.clone(), left: instance.left });
        Some(instance)
    }

    /// Whether the id is taken, by an instance or by one that is gone and whose port is held.
    pub(super) fn knows(&self, id: &InstanceId) -> bool {
        self.instances.contains_key(id) || self.gone.contains_key(id)
    }

    pub(super) fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &InstanceId) -> Option<&mut Instance> {
        self.instances.get_mut(id)
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    pub(super) fn instances_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.instances.values_mut()
    }

    pub(super) fn has_any_of(&self, app: &AppName) -> bool {
        self.by_app.contains_key(app)
    }

    pub(super) fn gone(&self, id: &InstanceId) -> Option<&Gone> {
        self.gone.get(id)
    }

    pub(super) fn gone_mut(&mut self) -> impl Iterator<Item = (&InstanceId, &mut Gone)> {
        self.gone.iter_mut()
    }

    /// A port is held for an instance that this leader has never known.
    pub(super) fn hold_port(&mut self, id: InstanceId, gone: Gone) {
        self.gone.insert(id, gone);
    }

    /// Forgets what is gone and whose port is held no more.
    pub(super) fn forget_gone(&mut self, is_over: impl Fn(&InstanceId, &Gone) -> bool) {
        self.gone.retain(|id, gone| !is_over(id, gone));
    }

    pub(super) fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub(super) fn node_mut(&mut self, name: &NodeName) -> Option<&mut Node> {
        self.nodes.get_mut(name)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&NodeName, &Node)> {
        self.nodes.iter()
    }

    pub(super) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.values_mut()
    }

    /// The node of this name, whose silence counts from `since` if it is new.
    pub(super) fn know_node(&mut self, name: &NodeName, since: Tick) -> &mut Node {
        self.nodes.entry(name.clone()).or_insert_with(|| Node::new(since))
    }

    /// Forgets nodes that nobody wants, on which nothing is known to run, and that are silent.
    pub(super) fn forget_nodes(&mut self, is_wanted: impl Fn(&NodeName) -> bool) {
        let by_node = &self.by_node;
        self.nodes
            .retain(|name, node| is_wanted(name) || by_node.contains_key(name) || node.condition != Condition::Lost);
    }

    /// Begins the way out of an instance; false if it is on it or at its end.
    pub(super) fn withdraw(&mut self, id: &InstanceId, reason: &str) -> bool {
        let wanted = self.instances.get_mut(id).filter(|instance| instance.phase == Phase::Wanted);
        let Some(instance) = wanted else { return false };
        instance.phase = Phase::Withdrawn { reason: reason.to_owned(), confirmed_at: None };
        true
    }

    /// Takes an instance back from its way out.
    pub(super) fn want_again(&mut self, id: &InstanceId) {
        if let Some(instance) = self.instances.get_mut(id).filter(|one| matches!(one.phase, Phase::Withdrawn { .. })) {
            instance.phase = Phase::Wanted;
        }
    }

    pub(super) fn of_app<'a>(&'a self, app: &AppName) -> impl Iterator<Item = &'a Instance> + 'a {
        self.by_app.get(app).into_iter().flatten().filter_map(|id| self.instances.get(id))
    }

    pub(super) fn of_node<'a>(&'a self, node: &NodeName) -> impl Iterator<Item = &'a Instance> + 'a {
        self.by_node.get(node).into_iter().flatten().filter_map(|id| self.instances.get(id))
    }

    /// What is booked on a node: all that is known there, what is stopping and what was only decided included.
    pub(super) fn booked(&self, node: &NodeName) -> Capacity {
        self.of_node(node).fold(Capacity::default(), |sum, instance| Capacity {
            memory_mb: sum.memory_mb.saturating_add(instance.booked.memory_mb),
            cpu_millis: sum.cpu_millis.saturating_add(instance.booked.cpu_millis),
        })
    }

    pub(super) fn condition(&self, node: &NodeName) -> Condition {
        self.nodes.get(node).map_or(Condition::Lost, |node| node.condition)
    }
}
