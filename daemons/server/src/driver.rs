//! The one task that owns the [`Reign`]: everything that happens comes in as an [`Input`], and what is decided goes out
//! as orders, routes and journal entries.
//!
//! Only a leader has a reign. No I/O waits in this task, for it answers reports: reading the known routers and the table in
//! force, publishing, and writing to MySQL are tasks of their own, which send what came of it as inputs.

use crate::core::{Actions, Event, Leader, NodeOrders, OrphanError, Reign, Settings, Tick};
use crate::input::{Input, Outcome, View};
use crate::journal::Journal;
use crate::leader::Leadership;
use crate::orders::{self, Letterhead, OrdersHub};
use crate::publish::Wanted;
use crate::snapshot::Snapshot;
use crate::streams::Streams;
use crate::tickets::Keys;
use dinp_common::api::agent::{Peers, RegistryAccess};
use dinp_common::api::router::RouterReply;
use dinp_common::api::{ProvedRevision, UnixMillis, unix_millis};
use dinp_common::lifecycle::{Heartbeat, Lifecycle};
use dinp_common::model::{NodeName, Version};
use dinp_common::network::host_of;
use dinp_common::problem::Problem;
use dinp_common::routes::Signature;
use dinp_common::store::deployment::Progress;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::info;

/// Longest time between two decisions, and between two looks at the leadership.
const LOOK: Duration = Duration::from_secs(1);

/// What there is while this server leads.
struct Leading {
    reign: Reign,
    epoch: u64,
    snapshot: Arc<Snapshot>,
}

/// What the driver needs from outside.
pub struct Parts {
    /// The numbers that decisions go by.
    pub settings: Settings,
    /// The keys of tickets.
    pub tickets: Arc<Keys>,
    /// Name of this server process in the lease.
    pub owner: String,
    /// Where to say which table is to be in Redis.
    pub routes: watch::Sender<Wanted>,
    /// Orders in force.
    pub hub: OrdersHub,
    /// Open streams.
    pub streams: Streams,
    /// What is written to MySQL.
    pub journal: Journal,
    /// Account that nodes pull with.
    pub registry: Option<RegistryAccess>,
    /// Machines of the platform that are neither nodes nor routers: servers, database, registry and so on. Health
    /// monitors run on those of the servers.
    pub platform: Peers,
    /// What this server is.
    pub leadership: watch::Receiver<Leadership>,
    /// When the database was last seen to show the desired state that was handed over.
    pub desired_stood_at: watch::Receiver<Option<Instant>>,
    /// Where to say that a higher epoch was seen.
    pub seen: mpsc::Sender<u64>,
}

/// See the module.
pub struct Driver {
    parts: Parts,
    inputs: mpsc::Receiver<Input>,
    begin: Instant,
    leading: Option<Leading>,
    snapshot: Option<Arc<Snapshot>>,
    synced_at: UnixMillis,
    wake: Instant,
    /// What nodes are told of the platform's machines.
    peers: Peers,
    heartbeat: Heartbeat,
}

impl Driver {
    /// A driver that takes these inputs.
    pub fn new(parts: Parts, inputs: mpsc::Receiver<Input>, lifecycle: &Lifecycle) -> Self {
        let now = Instant::now();
        Self {
            parts,
            inputs,
            begin: now,
            leading: None,
            snapshot: None,
            synced_at: 0,
            wake: now,
            peers: Peers::default(),
            heartbeat: lifecycle.heartbeat("decisions", Duration::from_secs(20)),
        }
    }

    /// Decides until `shutdown`.
    pub async fn run(mut self, shutdown: tokio_util::sync::CancellationToken) {
        let mut streams = self.parts.streams.changes();
        let mut leadership = self.parts.leadership.clone();
        loop {
            let wake = self.wake.min(Instant::now() + LOOK);
            tokio::select! {
                input = self.inputs.recv() => {
                    let Some(input) = input else { return };
                    self.take(input);
                    // What has come in meanwhile is decided on together.
                    while let Ok(input) = self.inputs.try_recv() {
                        self.take(input);
                    }
                }
                changed = leadership.changed() => if changed.is_err() { return },
                _ = streams.changed() => self.rewrite_orders(),
                () = tokio::time::sleep_until(wake) => {}
                () = shutdown.cancelled() => return,
            }
            self.heartbeat.beat();
            self.follow();
            self.act();
        }
    }

    fn now(&self) -> Tick {
        self.begin.elapsed().as_millis() as Tick
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        if let Input::Snapshot(snapshot) = input {
            self.take_snapshot(Arc::new(*snapshot), now);
            return;
        }
        // Dropped without a leadership: who waits for an answer is told that this server does not lead.
        let Some(Leading { reign, epoch, snapshot }) = &mut self.leading else { return };
        match input {
            Input::Report(node, report, reply) => {
                let mut report = report.into_inner();
                report.seen.generation = orders::core_generation(report.seen.generation);
                reply.send(reign.report(&node, &report, now, unix_millis())).ok();
            }
            Input::Goodbye(node, goodbye) => reign.goodbye(&node, goodbye, now),
            Input::Router(report, reply) => {
                reign.router_report(&report, now);
                if let Some(reply) = reply {
                    let published = reign.published().map_or(Version::ZERO, |(version, _)| version);
                    reply.send(RouterReply { epoch: *epoch, published }).ok();
                }
            }
            Input::RouterWritten(router) => reign.router_written(&router),
            Input::RouterGoodbye(router) => reign.router_goodbye(&router),
            Input::RouterForget(router) => reign.router_forget(&router),
            Input::Hm(report) => reign.hm_report(&report, now),
            Input::RemoveOrphan(instance, reply) => {
                reply.send(reign.remove_orphan(&instance).map_err(orphan_problem)).ok();
            }
            Input::Resume(reply) => {
                reply.send(reign.resume()).ok();
            }
            Input::AdoptTickets(reply) => {
                reply.send(reign.adopt_strangers(now)).ok();
            }
            Input::KnownRouters(of, routers) if of == *epoch => reign.routers_known(routers, now),
            Input::Routes(of, outcome) if of == *epoch => match outcome {
                Outcome::Adopted(table, highest) => reign.adopt_routes(table, &highest),
                Outcome::Published(version) => reign.routes_published(version, now),
                Outcome::Failed => reign.routes_failed(now),
                Outcome::Fenced(highest) => {
                    reign.routes_failed(now);
                    raise(&self.parts.seen, highest);
                }
            },
            Input::KnownRouters(..) | Input::Routes(..) => {}
            Input::View(look) => {
                look(&View { reign, cluster: &snapshot.cluster, synced_at: self.synced_at, now });
            }
            Input::Snapshot(_) => unreachable!("it was taken above"),
        }
    }

    fn take_snapshot(&mut self, snapshot: Arc<Snapshot>, now: Tick) {
        self.synced_at = unix_millis();
        self.snapshot = Some(snapshot.clone());
        if let Some(leading) = &mut self.leading {
            leading.reign.desired(snapshot.desired.clone(), now);
            leading.snapshot = snapshot;
        }
    }

    /// Begins a reign, holds over, or ends one, as the lease says.
    fn follow(&mut self) {
        let leadership = self.parts.leadership.borrow().clone();
        let is_trusted = leadership.may_destroy_at(Instant::now());
        match (leadership, &mut self.leading) {
            (Leadership::Standby { .. }, None) => {}
            (Leadership::Standby { .. }, leading) => {
                *leading = None;
                self.parts.hub.clear();
                self.parts.routes.send_replace(Wanted::default());
            }
            (Leadership::Holdover { epoch }, Some(leading)) if leading.epoch == epoch => {
                leading.reign.holdover(true);
            }
            (Leadership::Holdover { .. }, _) => {}
            // A process that stood still finds out here that its lease has run out meanwhile.
            (Leadership::Leading { epoch, .. }, Some(leading)) if leading.epoch == epoch => {
                leading.reign.holdover(!is_trusted);
            }
            (Leadership::Leading { epoch, .. }, _) => self.begin_reign(epoch),
        }
    }

    /// Begins a leadership, as soon as desired state has been read.
    fn begin_reign(&mut self, epoch: u64) {
        let Some(snapshot) = self.snapshot.clone() else { return };
        let now = self.now();
        let settings = self.parts.settings.clone();
        let leader = Leader { cluster: snapshot.cluster.clone(), epoch, holder: self.parts.owner.clone(), since: now };
        let mut reign = Reign::begin(settings, self.parts.tickets.clone(), leader, rand::random());
        reign.desired(snapshot.desired.clone(), now);
        let signature = Signature {
            proof: self.parts.tickets.proof(&snapshot.cluster, epoch, &self.parts.owner),
            holder: self.parts.owner.clone(),
            highest_revision: ProvedRevision::default(),
        };
        self.parts.routes.send_replace(Wanted::of_epoch(epoch, signature));
        self.leading = Some(Leading { reign, epoch, snapshot });
        info!(epoch, "began to lead");
    }

    fn act(&mut self) {
        let now = self.now();
        let Some(leading) = &mut self.leading else {
            self.wake = Instant::now() + LOOK;
            return;
        };
        if let Some(stood_at) = *self.parts.desired_stood_at.borrow() {
            leading.reign.desired_stands(stood_at.saturating_duration_since(self.begin).as_millis() as Tick);
        }
        let actions = leading.reign.decide(now);
        let highest = leading.reign.highest_revision().clone();
        // No reason to wake anybody: it goes along with the next table, or with the next look at the one in force.
        self.parts.routes.send_if_modified(|wanted| {
            wanted.note_revision(highest);
            false
        });
        if let Some(seen) = leading.reign.take_refusal() {
            raise(&self.parts.seen, seen);
        }
        self.wake = self.begin + Duration::from_millis(actions.next_wake);
        if self.update_peers() {
            self.rewrite_orders();
        }
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Actions) {
        let Some(leading) = &self.leading else { return };
        for (node, decided) in &actions.orders {
            self.put_orders(leading, node, decided);
        }
        if let Some(table) = actions.routes {
            self.parts.routes.send_modify(|wanted| wanted.next(table));
        }
        if !actions.deployments.is_empty() {
            let progress = actions.deployments.into_iter().map(|update| Progress {
                id: update.id,
                app: update.app,
                state: update.state,
                reason: update.reason,
                output: update.output,
                previous: update.previous,
                release_in_force: update.release_in_force,
            });
            self.parts.journal.deployments(leading.epoch, progress.collect());
        }
        for event in actions.events {
            self.tell(event);
        }
        for app in &leading.snapshot.deleted_in_force {
            if leading.reign.status().settled && leading.reign.instances(Some(app)).is_empty() {
                self.parts.journal.retire(leading.epoch, app.clone());
            }
        }
    }

    fn tell(&self, event: Event) {
        let (instance, node) = (event.instance.map(String::from), event.node.map(String::from));
        // Those of deployments are logged when they are on record, with their numbers.
        if event.kind != "deployment" {
            let reason = Some(&*event.detail).filter(|reason| !reason.is_empty());
            info!(app = event.app.as_ref().map(|app| app.as_str()), instance, node, reason, "{}", event.kind);
        }
        if let Some(app) = &event.app {
            self.parts.journal.event(app, instance, node, event.kind, &event.detail);
        }
    }

    /// What nodes are to know of the platform's machines now; true if it is something else than before.
    fn update_peers(&mut self) -> bool {
        let Some(leading) = &self.leading else { return false };
        let mut peers = self.parts.platform.clone();
        let host = |url: &str| host_of(&url.parse().ok()?);
        peers.routers = leading.reign.routers().iter().filter_map(|router| host(&router.status_url)).collect();
        let nodes = leading.reign.current_desired().into_iter().flat_map(|desired| desired.nodes.values());
        peers.others.extend(nodes.map(|node| node.address.clone()));
        let is_new = peers != self.peers;
        self.peers = peers;
        is_new
    }

    fn put_orders(&self, leading: &Leading, node: &NodeName, decided: &NodeOrders) {
        let head = Letterhead {
            cluster: &leading.snapshot.cluster,
            epoch: leading.epoch,
            holder: &self.parts.owner,
            registry: self.parts.registry.as_ref(),
            settings: &self.parts.settings,
            peers: &self.peers,
            tickets: &self.parts.tickets,
            highest_revision: leading.reign.highest_revision(),
        };
        let desired = leading.reign.current_desired().unwrap_or(&leading.snapshot.desired);
        let streams = self.parts.streams.orders(node);
        let orders = orders::compose(&head, decided, streams, desired, &leading.snapshot.environments);
        self.parts.hub.put(node, orders);
    }

    /// Composes all orders again: streams have come or gone, or other machines belong to the platform.
    fn rewrite_orders(&self) {
        let Some(leading) = &self.leading else { return };
        for node in leading.snapshot.desired.nodes.keys() {
            if let Some(decided) = leading.reign.orders(node) {
                self.put_orders(leading, node, decided);
            }
        }
    }
}

fn orphan_problem(error: OrphanError) -> Problem {
    match error {
        OrphanError::Unknown(_) => Problem::not_found(error.to_string()),
        OrphanError::Claimed(..) => Problem::conflict("not-an-orphan", error.to_string()),
    }
}

fn raise(seen: &mpsc::Sender<u64>, epoch: u64) {
    // A full queue holds a number already.
    seen.try_send(epoch).ok();
}
