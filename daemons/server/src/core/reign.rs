//! One leadership: who leads, what is desired, and the owners of everything else; and the steps of one decision.

use super::budget::Budget;
use super::fleet::{Fleet, Phase};
use super::health::Monitors;
use super::news::News;
use super::orphans::Orphans;
use super::permission::Permission;
use super::placement::InstanceIds;
use super::rollout::Rollouts;
use super::routers::Routers;
use super::routes::RouteTable;
use super::{Actions, Desired, Event, NodeOrders, Settings, Tick};
use dinp_common::api::UnixMillis;
use dinp_common::model::{AppName, InstanceId, NodeName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest time between two decisions.
const WAKE_MS: u64 = 1_000;
/// Rounds after which a decision ends even if it has not come to rest; a second pass is the rule, a third is rare.
const ROUNDS: usize = 16;

/// Whose reign it is.
#[derive(Debug)]
pub(super) struct Leader {
    pub cluster: String,
    pub epoch: u64,
    pub holder: String,
    /// When it began.
    pub since: Tick,
}

/// What nodes and routers report, what is desired, and what was decided, for one leadership.
#[derive(Debug)]
pub struct Reign {
    pub(super) settings: Settings,
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
    pub(super) refused_by: Option<u64>,
    pub(super) ids: InstanceIds,
    /// Wall clock minus tick, for what people read.
    pub(super) wall_offset: UnixMillis,
    pub(super) decided_at: Option<Tick>,
    pub(super) news: News,
}

impl Reign {
    /// A reign that begins now, in this epoch: it knows nothing, for only nodes, routers and the database know what is
    /// true. Instance ids are made from `seed`: it is to be drawn at random.
    pub fn begin(settings: Settings, cluster: String, seed: u64, (epoch, holder): (u64, String), now: Tick) -> Self {
        Self {
            settings,
            leader: Leader { cluster, epoch, holder, since: now },
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
            refused_by: None,
            ids: InstanceIds::new(seed),
            wall_offset: 0,
            decided_at: Some(now),
            news: News::default(),
        }
    }

    /// The numbers that decisions go by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.leader.epoch
    }

    /// The lease cannot be renewed, or can again. Meanwhile nothing is deployed, withdrawn or stopped.
    pub fn holdover(&mut self, on: bool, _now: Tick) {
        self.permission.hold_over(on);
    }

    /// Takes in a complete snapshot of desired state.
    pub fn desired(&mut self, desired: Desired, now: Tick) {
        let is_first = self.desired.is_none();
        for name in desired.nodes.keys() {
            let since = if is_first { self.leader.since } else { now };
            self.fleet.know_node(name, since);
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
        let orders = self.next_orders(&desired);
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
            ]
        });
        let drains = self.fleet.instances().map(|one| match one.phase {
            Phase::Withdrawn { confirmed_at: Some(at), .. } => Some(at + settings.drain_timeout_ms),
            _ => None,
        });
        let rollouts = self.rollouts.iter().map(|rollout| rollout.wake(settings));
        let others = [self.permission.wake(), self.table.wake()];
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
        self.news.tell(Event { app: app.cloned(), instance: instance.cloned(), node: node.cloned(), kind, detail });
    }
}
