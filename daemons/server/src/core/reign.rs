//! One leadership: who leads, what is desired, and the owners of everything else; and the steps of one decision.

use super::budget::Budget;
use super::fleet::{Fleet, Instance, Phase};
use super::health::Monitors;
use super::news::News;
use super::orphans::Orphans;
use super::permission::Permission;
use super::placement::InstanceIds;
use super::revision::HighestRevision;
use super::rollout::Rollouts;
use super::routers::Routers;
use super::routes::RouteTable;
use super::strangers::Strangers;
use super::{Actions, Desired, Event, NodeOrders, Settings, Tick, Times};
use crate::tickets::Keys;
use dinp_common::api::UnixMillis;
use dinp_common::model::{AppName, InstanceId, NodeName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest time between two decisions.
const WAKE_MS: u64 = 1_000;
/// Rounds after which a decision ends even if it has not come to rest; a second pass is the rule, a third is rare.
const ROUNDS: usize = 16;

/// Whose reign it is.
#[derive(Debug, Clone)]
pub struct Leader {
    /// Cluster id.
    pub cluster: String,
    /// Epoch of the lease.
    pub epoch: u64,
    /// Who holds it.
    pub holder: String,
    /// When it began.
    pub since: Tick,
}

/// What nodes and routers report, what is desired, and what was decided, for one leadership.
#[derive(Debug)]
pub struct Reign {
    pub(super) settings: Settings,
    pub(super) tickets: Arc<Keys>,
    pub(super) leader: Leader,
    pub(super) desired: Option<Arc<Desired>>,
    pub(super) fleet: Fleet,
    pub(super) routers: Routers,
    pub(super) monitors: Monitors,
    pub(super) table: RouteTable,
    pub(super) orders: BTreeMap<NodeName, NodeOrders>,
    pub(super) rollouts: Rollouts,
    pub(super) permission: Permission,
    pub(super) budget: Budget,
    pub(super) refusals: BTreeMap<AppName, String>,
    pub(super) orphans: Orphans,
    pub(super) strangers: Strangers,
    pub(super) refused_by: Option<u64>,
    pub(super) revision: HighestRevision,
    pub(super) ids: InstanceIds,
    /// Wall clock minus tick, for what people read.
    pub(super) wall_offset: UnixMillis,
    pub(super) decided_at: Option<Tick>,
    pub(super) news: News,
}

impl Reign {
    /// A reign that begins: it knows nothing, for only nodes, routers and the database know what is true. Instance ids
    /// are made from `seed`: it is to be drawn at random.
    pub fn begin(settings: Settings, tickets: Arc<Keys>, leader: Leader, seed: u64) -> Self {
        let since = leader.since;
        Self {
            settings,
            tickets,
            leader,
            desired: None,
            fleet: Fleet::default(),
            routers: Routers::default(),
            monitors: Monitors::default(),
            table: RouteTable::default(),
            orders: BTreeMap::new(),
            rollouts: Rollouts::default(),
            permission: Permission::default(),
            budget: Budget::default(),
            refusals: BTreeMap::new(),
            orphans: Orphans::default(),
            strangers: Strangers::default(),
            refused_by: None,
            revision: HighestRevision::default(),
            ids: InstanceIds::new(seed),
            wall_offset: 0,
            decided_at: Some(since),
            news: News::default(),
        }
    }

    /// The numbers that decisions go by.
    #[cfg(test)]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.leader.epoch
    }

    /// The lease cannot be renewed, or can again. Meanwhile nothing is deployed, withdrawn or stopped.
    pub fn holdover(&mut self, on: bool) {
        self.permission.hold_over(on);
    }

    /// Takes in a complete snapshot of desired state. A node that it has neither among those that are wanted nor among
    /// those that are deleted has lost its row: it stays as it was, for a missing row is no order.
    pub fn desired(&mut self, mut desired: Desired, now: Tick) {
        let before = self.desired.take();
        for (name, node) in before.iter().flat_map(|before| &before.nodes) {
            if !desired.deleted_nodes.contains(name) && !desired.nodes.contains_key(name) {
                desired.nodes.insert(name.clone(), node.clone());
            }
        }
        let since = if before.is_none() { self.leader.since } else { now };
        for name in desired.nodes.keys() {
            self.fleet.know_node(name, since);
        }
        self.desired = Some(Arc::new(desired));
    }

    /// The desired state that is being carried out: orders are to be filled in from this one.
    pub fn current_desired(&self) -> Option<&Desired> {
        self.desired.as_deref()
    }

    /// Highest epoch seen, and proved, by somebody who refuses this leader for it: the next lease must take a higher
    /// one. Told once; who goes on refusing says so again.
    pub fn take_refusal(&mut self) -> Option<u64> {
        self.refused_by.take()
    }

    /// Decides everything. Without new facts a second call has no effect.
    pub fn decide(&mut self, now: Tick) -> Actions {
        self.forgive_own_silence(now);
        let Some(desired) = self.desired.clone() else {
            return Actions { next_wake: now + WAKE_MS, ..Actions::default() };
        };
        self.update_revision_freeze(&desired, now);
        self.update_nodes(&desired, now);
        self.take_adopted(&desired, now);
        self.open_orders(&desired);
        self.tell_orphans(&desired);
        self.update_ticket_freeze(now);
        self.update_dooms(&desired, now);
        self.sync_rollouts(&desired, now);
        for _ in 0..ROUNDS {
            let before = self.news.changes();
            self.proceed_withdrawals(now);
            for app in desired.apps.values() {
                let standing = self.plan(&desired, app, now);
                self.tell_refusal(&app.name, standing.refused.clone());
                self.advance(app, &standing, now);
            }
            if self.news.changes() == before {
                break;
            }
        }
        let routes = self.next_table(&desired, now);
        let orders = self.next_orders(&desired, now);
        let deployments = self.tell_deployments(&desired, now);
        Actions { orders, routes, deployments, events: self.news.take(), next_wake: self.next_wake(now) }
    }

    /// When time alone changes something.
    fn next_wake(&self, now: Tick) -> Tick {
        let settings = &self.settings;
        let nodes = self.fleet.nodes().map(|(_, node)| node).flat_map(|node| {
            let heard = node.last_heard;
            [
                heard.map(|at| at + settings.suspect_ms),
                heard.map(|at| at + settings.lost_ms),
                node.patience_until,
                heard.is_none().then_some(node.known_since + settings.unheard_ms),
                self.deaf_at(node),
            ]
        });
        let drains = self.fleet.instances().map(|one| match one.phase {
            Phase::Withdrawn { confirmed_at: Some(at), .. } => Some(at + self.times_of(one).drain_timeout_ms),
            _ => None,
        });
        let rollouts = self.rollouts.iter().map(|rollout| rollout.wake());
        let others = [self.permission.wake(), self.table.wake()];
        let all = nodes.chain(drains).chain(rollouts).chain(others);
        all.flatten().filter(|at| *at > now).fold(now + WAKE_MS, Tick::min)
    }

    /// The times of an instance's release.
    pub(super) fn times_of(&self, instance: &Instance) -> Times {
        let app = self.desired.as_ref().and_then(|desired| desired.apps.get(&instance.app));
        let release = app.and_then(|app| app.releases.get(&instance.release));
        release.map_or_else(|| self.settings.times(), |release| self.settings.times_of(release))
    }

    pub(super) fn event(
        &mut self,
        app: Option<&AppName>,
        instance: Option<&InstanceId>,
        node: Option<&NodeName>,
        kind: &'static str,
        detail: String,
    ) {
        self.news.tell(Event { app: app.cloned(), instance: instance.cloned(), node: node.cloned(), kind, detail });
    }
}
