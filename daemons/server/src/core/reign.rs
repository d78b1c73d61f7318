//! One leadership: who leads, what is desired, and the owners of everything else; and the steps of one decision.

use super::fleet::{self, Fleet, Phase};
use super::health::Monitor;
use super::nodes::Freeze;
use super::rollout::{Ended, Rollout};
use super::routers::Routers;
use super::routes::TableState;
use super::{Actions, Desired, Event, NodeOrders, Settings, Tick};
use dinp_common::api::UnixMillis;
use dinp_common::model::{AppName, InstanceId, NodeName};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Longest time between two decisions.
const WAKE_MS: u64 = 1_000;
/// Rounds after which a decision ends even if it has not come to rest; a second pass is the rule, a third is rare.
const ROUNDS: usize = 16;

/// What nodes and routers report, what is desired, and what was decided, for one leadership.
#[derive(Debug)]
pub struct Reign {
    pub(super) settings: Settings,
    pub(super) cluster: String,
    pub(super) rng: u64,
    pub(super) epoch: u64,
    pub(super) holder: String,
    pub(super) lead_at: Tick,
    /// Wall clock minus tick, for what people read.
    pub(super) wall_offset: UnixMillis,
    pub(super) holdover: bool,
    pub(super) desired: Option<Arc<Desired>>,
    pub(super) fleet: Fleet,
    pub(super) routers: Routers,
    pub(super) monitors: BTreeMap<String, Monitor>,
    pub(super) table: TableState,
    pub(super) published_at: Tick,
    pub(super) orders: BTreeMap<NodeName, NodeOrders>,
    pub(super) rollouts: BTreeMap<AppName, Rollout>,
    pub(super) ended: Ended,
    pub(super) settled: bool,
    /// Nodes that a new leader waits for.
    pub(super) unsettled: BTreeSet<NodeName>,
    pub(super) freeze: Option<Freeze>,
    /// When instances were condemned, within the last minute.
    pub(super) kills: VecDeque<Tick>,
    pub(super) refusals: BTreeMap<AppName, String>,
    pub(super) known_orphans: BTreeSet<InstanceId>,
    pub(super) refused_by: Option<u64>,
    pub(super) decided_at: Option<Tick>,
    pub(super) events: Vec<Event>,
    /// Counts what a decision changes: it goes on until nothing does.
    pub(super) changes: u64,
}

impl Reign {
    /// A reign that begins now, in this epoch: it forgets everything, for only nodes, routers and the database know what is
    /// true. Instance ids are made from `seed`: it is to be drawn at random.
    pub fn begin(settings: Settings, cluster: String, seed: u64, (epoch, holder): (u64, String), now: Tick) -> Self {
        Self {
            settings,
            cluster,
            rng: seed,
            epoch,
            holder,
            lead_at: now,
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
            decided_at: Some(now),
            events: Vec::new(),
            changes: 0,
        }
    }

    /// The numbers that decisions go by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
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
        let Some(desired) = self.desired.clone() else {
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
        let others = [self.freeze.as_ref().map(|freeze| freeze.until), self.table.retry_at];
        let all = nodes.chain(drains).chain(rollouts).chain(others);
        all.flatten().filter(|at| *at > now).fold(now + WAKE_MS, Tick::min)
    }

    pub(super) fn event(
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
