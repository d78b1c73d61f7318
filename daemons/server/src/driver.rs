//! The one task that owns the core: everything that happens comes in as an [`Input`], and what the core decides goes out
//! as orders, routes and journal entries.
//!
//! Only a leader has a core. It begins a leadership by reading the known routers from MySQL and the table in force from
//! Redis, so that what the leader before promised is kept.

use crate::config::ServerConfig;
use crate::core::{Actions, Core, Settings, Tick};
use crate::journal::Journal;
use crate::leader::Leadership;
use crate::orders::{self, Letterhead, OrdersHub};
use crate::publish::Routes;
use crate::streams::Streams;
use crate::sync::Snapshot;
use dinp_common::api::agent::{Goodbye, RegistryAccess, Report, ReportReply};
use dinp_common::api::hm::HmReport;
use dinp_common::api::router::{RouterReply, RouterReport};
use dinp_common::api::{UnixMillis, unix_millis};
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat, Lifecycle};
use dinp_common::model::{InstanceId, NodeName, Version};
use dinp_common::problem::Problem;
use dinp_common::routes::RouteError;
use dinp_common::store::deployment::Progress;
use dinp_common::store::{self, StoreError};
use mysql_async::Pool;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

/// Something that happened.
pub enum Input {
    /// A node has reported.
    Report(NodeName, Box<Report>, oneshot::Sender<ReportReply>),
    /// An agent stops.
    Goodbye(NodeName, Goodbye),
    /// A router has reported, or its status was read.
    Router(Box<RouterReport>, Option<oneshot::Sender<RouterReply>>),
    /// A router has stopped on purpose; ports that its table on disk names stay held.
    RouterGoodbye(String),
    /// A router is to be forgotten: nothing waits for it any more.
    RouterForget(String),
    /// A health monitor has reported.
    Hm(HmReport),
    /// An orphan is to be stopped.
    RemoveOrphan(InstanceId, oneshot::Sender<Result<(), Problem>>),
    /// Desired state has been read.
    Snapshot(Box<Snapshot>),
    /// Somebody wants to look.
    View(Box<dyn FnOnce(&View<'_>) + Send>),
}

/// What can be looked at.
pub struct View<'a> {
    /// The core.
    pub core: &'a Core,
    /// Id of the cluster.
    pub cluster: &'a str,
    /// When desired state was last read whole.
    pub synced_at: UnixMillis,
    /// Now, on the core's clock.
    pub now: Tick,
}

/// Longest queue of inputs; beyond it callers wait.
const QUEUE: usize = 4096;
/// Time between two comparisons of Redis with the table.
const MEND: Duration = Duration::from_secs(10);
/// Time until a table that could not be published is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The way to the driver.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Input>);

impl Handle {
    /// Hands an input over; a driver that has ended takes none.
    pub async fn send(&self, input: Input) -> Result<(), Problem> {
        self.0.send(input).await.map_err(|_| Problem::not_leader(None))
    }

    /// Hands an input over and waits for its answer.
    pub async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Problem> {
        let (sender, receiver) = oneshot::channel();
        self.send(input(sender)).await?;
        receiver.await.map_err(|_| Problem::not_leader(None))
    }

    /// Looks at the core.
    pub async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.ask(|reply| {
            Input::View(Box::new(move |view| {
                // Nobody waits for the answer any more: the caller has hung up.
                reply.send(look(view)).ok();
            }))
        })
        .await
    }
}

/// A leadership: what is there only while this server leads.
struct Reign {
    core: Core,
    epoch: u64,
    snapshot: Arc<Snapshot>,
    adopted: bool,
    routes_due: Option<Instant>,
    pending: Option<dinp_common::routes::Table>,
}

/// What the driver needs from outside.
pub struct Parts {
    /// Settings of the server.
    pub config: ServerConfig,
    /// Domain of the apps.
    pub domain: String,
    /// Name of this server process in the lease.
    pub owner: String,
    /// The database.
    pub pool: Pool,
    /// The table in Redis.
    pub routes: Routes,
    /// Orders in force.
    pub hub: OrdersHub,
    /// Open streams.
    pub streams: Streams,
    /// What is written to MySQL.
    pub journal: Journal,
    /// Account that nodes pull with.
    pub registry: Option<RegistryAccess>,
    /// What this server is.
    pub leadership: watch::Receiver<Leadership>,
    /// Where to say that a higher epoch was seen.
    pub seen: mpsc::Sender<u64>,
}

/// See the module.
pub struct Driver {
    parts: Parts,
    begin: Instant,
    reign: Option<Reign>,
    snapshot: Option<Arc<Snapshot>>,
    synced_at: UnixMillis,
    wake: Instant,
    mend: Instant,
    redis: Condition,
    heartbeat: Heartbeat,
}

impl Driver {
    /// Starts the driver and returns the way to it.
    pub fn start(parts: Parts, lifecycle: &Lifecycle) -> Handle {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let now = Instant::now();
        let driver = Self {
            parts,
            begin: now,
            reign: None,
            snapshot: None,
            synced_at: 0,
            wake: now,
            mend: now + MEND,
            redis: lifecycle.condition("redis"),
            heartbeat: lifecycle.heartbeat("decisions", Duration::from_secs(20)),
        };
        tokio::spawn(driver.run(receiver, lifecycle.shutdown()));
        Handle(sender)
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>, shutdown: tokio_util::sync::CancellationToken) {
        let mut streams = self.parts.streams.changes();
        let mut leadership = self.parts.leadership.clone();
        leadership.mark_changed();
        loop {
            let wake = self.wake.min(Instant::now() + Duration::from_secs(1));
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => {
                        self.take(input);
                        // What has come in meanwhile is decided on together.
                        while let Ok(input) = inputs.try_recv() {
                            self.take(input);
                        }
                    }
                    None => return,
                },
                _ = leadership.changed() => {
                    let now = leadership.borrow_and_update().clone();
                    self.follow(now).await;
                }
                _ = streams.changed() => self.rewrite_orders(),
                () = tokio::time::sleep_until(wake) => {}
                () = shutdown.cancelled() => return,
            }
            self.heartbeat.beat();
            self.act().await;
        }
    }

    fn now(&self) -> Tick {
        self.begin.elapsed().as_millis() as Tick
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        if let Input::Snapshot(snapshot) = input {
            self.synced_at = unix_millis();
            let snapshot = Arc::new(*snapshot);
            self.snapshot = Some(snapshot.clone());
            if let Some(reign) = &mut self.reign {
                reign.core.desired(snapshot.desired.clone(), now);
                reign.snapshot = snapshot;
            }
            return;
        }
        // Dropped without a leadership: who waits for an answer is told that this server does not lead.
        let Some(reign) = &mut self.reign else { return };
        let core = &mut reign.core;
        match input {
            Input::Report(node, mut report, reply) => {
                report.seen.generation = orders::core_generation(report.seen.generation);
                let answer = core.report(&node, &report, now, unix_millis());
                reply.send(answer).ok();
            }
            Input::Goodbye(node, goodbye) => core.goodbye(&node, goodbye, now),
            Input::Router(report, reply) => {
                core.router_report(&report, now);
                if let Some(reply) = reply {
                    let published = core.published().map_or(Version::ZERO, |(version, _)| version);
                    reply.send(RouterReply { epoch: reign.epoch, published }).ok();
                }
            }
            Input::RouterGoodbye(router) => core.router_goodbye(&router),
            Input::RouterForget(router) => core.router_forget(&router),
            Input::Hm(report) => core.hm_report(&report, now),
            Input::RemoveOrphan(instance, reply) => {
                let removed = core.remove_orphan(&instance).map_err(|error| match error {
                    crate::core::OrphanError::Unknown(_) => Problem::not_found(error.to_string()),
                    crate::core::OrphanError::Claimed(..) => Problem::conflict("not-an-orphan", error.to_string()),
                });
                reply.send(removed).ok();
            }
            Input::View(look) => {
                look(&View { core, cluster: &reign.snapshot.cluster, synced_at: self.synced_at, now });
            }
            Input::Snapshot(_) => {}
        }
    }

    async fn follow(&mut self, leadership: Leadership) {
        let now = self.now();
        match leadership {
            Leadership::Standby { .. } => {
                if self.reign.take().is_some() {
                    self.parts.hub.clear();
                }
            }
            Leadership::Holdover { epoch } => match &mut self.reign {
                Some(reign) if reign.epoch == epoch => reign.core.holdover(true, now),
                _ => {}
            },
            Leadership::Leading { epoch } => match &mut self.reign {
                Some(reign) if reign.epoch == epoch => reign.core.holdover(false, now),
                _ => self.begin_reign(epoch).await,
            },
        }
    }

    /// Begins a leadership; if what it needs is not there yet, [`Driver::act`] comes back to it.
    async fn begin_reign(&mut self, epoch: u64) {
        self.reign = None;
        let Some(snapshot) = self.snapshot.clone() else { return };
        let routers = match self.known_routers().await {
            Ok(routers) => routers,
            Err(error) => {
                warn!(error = %ErrorChain(&error), "the known routers cannot be read: not leading yet");
                return;
            }
        };
        let now = self.now();
        let settings = settings(&self.parts.config, &self.parts.domain);
        let mut core = Core::new(settings, snapshot.cluster.clone(), rand::random());
        core.lead(epoch, self.parts.owner.clone(), routers, now);
        core.desired(snapshot.desired.clone(), now);
        self.parts.routes.begin(epoch);
        self.reign = Some(Reign { core, epoch, snapshot, adopted: false, routes_due: None, pending: None });
        info!(epoch, "began to lead");
    }

    async fn known_routers(&self) -> Result<Vec<(String, String)>, StoreError> {
        let mut conn = store::connect(&self.parts.pool, Duration::from_secs(1)).await?;
        store::router::all(&mut conn).await
    }

    async fn act(&mut self) {
        let leadership = self.parts.leadership.borrow().clone();
        if let (None, Leadership::Leading { epoch }) = (&self.reign, leadership) {
            self.begin_reign(epoch).await;
        }
        let now = self.now();
        let Some(reign) = &mut self.reign else {
            self.wake = Instant::now() + RETRY;
            return;
        };
        if !reign.adopted && reign.routes_due.is_none_or(|due| due <= Instant::now()) {
            match self.parts.routes.adopt().await {
                Ok(table) => {
                    reign.adopted = true;
                    reign.core.adopt_routes(table, now);
                    self.redis.ok();
                }
                Err(error) => {
                    reign.routes_due = Some(Instant::now() + RETRY);
                    self.redis.missing(&ErrorChain(&error).to_string());
                }
            }
        }
        let actions = reign.core.decide(now);
        let next = self.begin + Duration::from_millis(actions.next_wake);
        self.carry_out(actions).await;
        let published = self.publish().await;
        self.mend().await;
        // What was published may allow the next step at once.
        self.wake =
            if published { Instant::now() } else { next.min(self.publish_due().unwrap_or(next)).min(self.mend) };
        self.report_refusals();
    }

    fn publish_due(&self) -> Option<Instant> {
        self.reign.as_ref().filter(|reign| reign.pending.is_some() || !reign.adopted)?.routes_due
    }

    async fn carry_out(&mut self, actions: Actions) {
        let Some(reign) = &mut self.reign else { return };
        for (node, decided) in &actions.orders {
            put_orders(&self.parts, reign, node, decided);
        }
        if let Some(table) = actions.routes {
            reign.pending = Some(table);
            reign.routes_due = None;
        }
        if !actions.deployments.is_empty() {
            let progress = actions.deployments.into_iter().map(|update| Progress {
                id: update.id,
                app: update.app,
                state: update.state,
                reason: update.reason,
                output: Vec::new(),
                previous: update.previous,
                release_in_force: update.release_in_force,
            });
            self.parts.journal.deployments(reign.epoch, progress.collect());
        }
        for event in actions.events {
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
        for app in &reign.snapshot.deleted_in_force {
            if reign.core.status().settled && reign.core.instances(Some(app)).is_empty() {
                self.parts.journal.retire(reign.epoch, app.clone());
            }
        }
    }

    /// Composes all orders again: streams have come or gone.
    fn rewrite_orders(&mut self) {
        let Some(reign) = &self.reign else { return };
        for node in reign.snapshot.desired.nodes.keys() {
            if let Some(decided) = reign.core.orders(node) {
                put_orders(&self.parts, reign, node, decided);
            }
        }
    }

    async fn publish(&mut self) -> bool {
        let now = self.now();
        let Some(reign) = &mut self.reign else { return false };
        let Some(table) = &reign.pending else { return false };
        if reign.routes_due.is_some_and(|due| due > Instant::now()) {
            return false;
        }
        match self.parts.routes.publish(table).await {
            Ok(version) => {
                reign.pending = None;
                reign.routes_due = None;
                self.redis.ok();
                reign.core.routes_published(version, now);
                true
            }
            Err(error) => {
                reign.routes_due = Some(Instant::now() + RETRY);
                self.refused(&error);
                false
            }
        }
    }

    async fn mend(&mut self) {
        let now = self.now();
        let Some(reign) = &mut self.reign else { return };
        if self.mend > Instant::now() {
            return;
        }
        self.mend = Instant::now() + MEND;
        if reign.pending.is_some() {
            return;
        }
        match self.parts.routes.mend().await {
            Ok(None) => self.redis.ok(),
            Ok(Some(version)) => {
                warn!(version = %version, "Redis did not hold the table that was published; wrote it anew");
                self.redis.ok();
                reign.core.routes_published(version, now);
            }
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&self, error: &RouteError) {
        self.redis.missing(&ErrorChain(error).to_string());
        warn!(error = %ErrorChain(error), "routes could not be published; trying again");
        if let RouteError::Fenced { highest } = error {
            self.raise(highest.epoch);
        }
    }

    fn report_refusals(&self) {
        if let Some(seen) = self.reign.as_ref().and_then(|reign| reign.core.refused_by()) {
            self.raise(seen);
        }
    }

    fn raise(&self, seen: u64) {
        // A full queue holds a number already.
        self.parts.seen.try_send(seen).ok();
    }
}

fn put_orders(parts: &Parts, reign: &Reign, node: &NodeName, decided: &crate::core::NodeOrders) {
    let head = Letterhead {
        cluster: reign.snapshot.cluster.clone(),
        epoch: reign.epoch,
        holder: parts.owner.clone(),
        registry: parts.registry.clone(),
        start_timeout_secs: parts.config.start_timeout_secs,
    };
    let desired = reign.core.current_desired().unwrap_or(&reign.snapshot.desired);
    let streams = parts.streams.orders(node);
    parts.hub.put(node, orders::compose(&head, decided, streams, desired, &reign.snapshot.environments));
}

/// The core's numbers from the configuration.
pub fn settings(config: &ServerConfig, domain: &str) -> Settings {
    let ms = |secs: u32| u64::from(secs) * 1000;
    Settings {
        suspect_ms: ms(config.suspect_secs),
        lost_ms: ms(config.lost_secs),
        unheard_ms: ms(config.unheard_secs),
        drain_timeout_ms: ms(config.drain_timeout_secs),
        stop_grace_secs: config.stop_grace_secs,
        start_timeout_secs: config.start_timeout_secs,
        progress_deadline_ms: ms(config.progress_deadline_secs),
        verify_ms: ms(config.verify_secs),
        domain: domain.to_owned(),
        ..Settings::default()
    }
}
