//! The decision core: from what is desired and what is observed to what is to be done.
//!
//! It has no clock, does no I/O and awaits nothing: time comes in as [`Tick`]s, facts as method calls, and
//! [`Core::decide`] puts out [`Actions`]. It decides by level: the same facts give the same decision, and deciding
//! twice does nothing twice.
//!
//! * [`fleet`]: nodes and instances, and the life of an instance as a diagram
//! * [`reports`]: taking in what agents say; [`routers`]: what routers confirm; [`health`]: verdicts and their budget
//! * [`nodes`]: ready, suspect, lost; freeze; when a new leader may begin
//! * [`rollout`]: deployments; [`plan`]: one app's instances against what is wanted; [`placement`]: choosing nodes
//! * [`routes`]: the table and its versions; [`withdraw`]: out of the table, drained, stopped; [`orders`]
//! * [`views`]: what the API shows

mod fleet;
mod health;
mod nodes;
mod orders;
mod placement;
mod plan;
mod reports;
mod rollout;
mod routers;
mod routes;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod types;
mod views;
mod withdraw;

pub use types::*;

use dinp_common::api::UnixMillis;
use dinp_common::model::{AppName, InstanceId, NodeName};
use fleet::{Fleet, Phase};
use health::Monitor;
use nodes::Freeze;
use rollout::{Ended, Rollout};
use routers::Routers;
use routes::TableState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Longest time between two decisions.
const WAKE_MS: u64 = 1_000;
/// Rounds after which a decision ends even if it has not come to rest; a second pass is the rule, a third is rare.
const ROUNDS: usize = 16;

/// What nodes and routers report, what is desired, and what was decided, for one leadership.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    cluster: String,
    rng: u64,
    epoch: u64,
    holder: String,
    lead_at: Tick,
    /// Wall clock minus tick, for what people read.
    wall_offset: UnixMillis,
    holdover: bool,
    desired: Option<Arc<Desired>>,
    fleet: Fleet,
    routers: Routers,
    monitors: BTreeMap<String, Monitor>,
    table: TableState,
    published_at: Tick,
    orders: BTreeMap<NodeName, NodeOrders>,
    rollouts: BTreeMap<AppName, Rollout>,
    ended: Ended,
    settled: bool,
    /// Nodes that a new leader waits for.
    unsettled: BTreeSet<NodeName>,
    freeze: Option<Freeze>,
    /// When instances were condemned, within the last minute.
    kills: VecDeque<Tick>,
    refusals: BTreeMap<AppName, String>,
    known_orphans: BTreeSet<InstanceId>,
    refused_by: Option<u64>,
    decided_at: Option<Tick>,
    events: Vec<Event>,
    /// Counts what a decision changes: it goes on until nothing does.
    changes: u64,
}

impl Core {
    /// A core that does not lead yet. Instance ids are made from `seed`: it is to be drawn at random.
    pub fn new(settings: Settings, cluster: String, seed: u64) -> Self {
        Self {
            settings,
            cluster,
            rng: seed,
            epoch: 0,
            holder: String::new(),
            lead_at: 0,
            wall_offset: 0,
            holdover: false,
            desired: None,
            fleet: Fleet::default(),
            routers: Routers::default(),
            monitors: BTreeMap::new(),
            table: TableState::default(),
            published_at: 0,
            orders: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            ended: Ended::new(),
            settled: false,
            unsettled: BTreeSet::new(),
            freeze: None,
            kills: VecDeque::new(),
            refusals: BTreeMap::new(),
            known_orphans: BTreeSet::new(),
            refused_by: None,
            decided_at: None,
            events: Vec::new(),
            changes: 0,
        }
    }

    /// Begins a leadership: forgets everything, for only nodes, routers and the database know what is true.
    /// `known_routers` are the names and status URLs of those that must confirm, as the database has them.
    pub fn lead(&mut self, epoch: u64, holder: String, known_routers: Vec<(String, String)>, now: Tick) {
        *self = Self {
            epoch,
            holder,
            lead_at: now,
            decided_at: Some(now),
            wall_offset: self.wall_offset,
            ..Self::new(self.settings.clone(), std::mem::take(&mut self.cluster), self.rng)
        };
        for (name, status_url) in known_routers {
            self.routers.know(name, status_url, now);
        }
    }

    /// The numbers that decisions go by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Other numbers, from now on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The lease cannot be renewed, or can again. Meanwhile nothing is deployed, withdrawn or stopped.
    pub fn holdover(&mut self, on: bool, _now: Tick) {
        self.holdover = on;
    }

    /// Takes in a complete snapshot of desired state.
    pub fn desired(&mut self, desired: Desired, now: Tick) {
        let is_first = self.desired.is_none();
        for name in desired.nodes.keys() {
            let since = if is_first { self.lead_at } else { now };
            self.fleet.nodes.entry(name.clone()).or_insert_with(|| fleet::Node::new(since));
        }
        self.desired = Some(Arc::new(desired));
    }

    /// The desired state that is being carried out: orders are to be filled in from this one.
    pub fn current_desired(&self) -> Option<&Desired> {
        self.desired.as_deref()
    }

    /// Highest epoch seen by somebody who refuses this leader for it: the next lease must take a higher one.
    pub fn refused_by(&self) -> Option<u64> {
        self.refused_by
    }

    /// Decides everything. Without new facts a second call has no effect.
    pub fn decide(&mut self, now: Tick) -> Actions {
        self.forgive_own_silence(now);
        let Some(desired) = self.desired.clone().filter(|_| self.epoch > 0) else {
            return Actions { next_wake: now + WAKE_MS, ..Actions::default() };
        };
        self.update_nodes(&desired, now);
        self.take_adopted(&desired, now);
        self.open_orders(&desired);
        self.tell_orphans(&desired);
        self.update_dooms(&desired, now);
        self.sync_rollouts(&desired, now);
        for _ in 0..ROUNDS {
            let before = self.changes;
            self.proceed_withdrawals(now);
            for app in desired.apps.values() {
                let standing = self.plan(&desired, app, now);
                self.tell_refusal(&app.name, standing.refused.clone());
                self.advance(app, &standing, now);
            }
            if self.changes == before {
                break;
            }
        }
        let routes = self.next_table(&desired, now);
        let orders = self.next_orders(&desired);
        let deployments = self.tell_deployments(&desired, now);
        Actions {
            orders,
            routes,
            deployments,
            events: std::mem::take(&mut self.events),
            next_wake: self.next_wake(now),
        }
    }

    /// When time alone changes something.
    fn next_wake(&self, now: Tick) -> Tick {
        let settings = &self.settings;
        let nodes = self.fleet.nodes.values().flat_map(|node| {
            let heard = node.last_heard;
            [
                heard.map(|at| at + settings.suspect_ms),
                heard.map(|at| at + settings.lost_ms),
                node.patience_until,
                heard.is_none().then_some(node.known_since + settings.unheard_ms),
            ]
        });
        let drains = self.fleet.instances.values().map(|one| match one.phase {
            Phase::Withdrawn { confirmed_at: Some(at), .. } => Some(at + settings.drain_timeout_ms),
            _ => None,
        });
        let rollouts = self.rollouts.values().map(|rollout| rollout.wake(settings));
        let freeze = std::iter::once(self.freeze.as_ref().map(|freeze| freeze.until));
        let all = nodes.chain(drains).chain(rollouts).chain(freeze);
        all.flatten().filter(|at| *at > now).fold(now + WAKE_MS, Tick::min)
    }

    fn event(
        &mut self,
        app: Option<&AppName>,
        instance: Option<&InstanceId>,
        node: Option<&NodeName>,
        kind: &'static str,
        detail: String,
    ) {
        self.events.push(Event { app: app.cloned(), instance: instance.cloned(), node: node.cloned(), kind, detail });
    }
}
