//! The node: which instances have a task, and what the orders in force say to each.
//!
//! One task owns all of it. Containers are adopted before any orders are carried out, and orders are on
//! the disk before they are. Orders of the disk are carried out when no server has given any for a while.

use crate::container::Identity;
use crate::instance::{Found, News, Ordered, Task, Wanted};
use crate::ledger::Ledger;
use crate::orders::{OrderBook, Refusal};
use crate::shared::Shared;
use crate::streams::Streams;
use dinp_common::api::agent::{Orders, StopOrder};
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Heartbeat;
use dinp_common::model::{InstanceId, Version};
use futures_util::StreamExt;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a starting agent waits for a server before it carries out the orders of the disk.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time between two signs of life.
const BEAT: Duration = Duration::from_secs(10);

/// Containers that are read at the same time when the agent starts.
const READ_AT_ONCE: usize = 16;

/// What the node's task is told.
#[derive(Debug)]
pub enum Message {
    /// All containers of ours.
    Listed(Vec<Found>),
    /// Something happened to the container of an instance, perhaps its end.
    Touched(InstanceId, Option<News>),
    /// A server answered with orders; the version is sent back if they were accepted.
    Orders(Box<Orders>, oneshot::Sender<Option<Version>>),
    /// The task of an instance has ended.
    Ended(InstanceId),
}

/// Orders to carry out.
#[derive(Debug)]
struct InForce {
    orders: Orders,
    /// Instances whose environment is not known.
    without_env: BTreeSet<InstanceId>,
}

/// See the module.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    book: OrderBook,
    in_force: Option<InForce>,
    tasks: HashMap<InstanceId, Task>,
    streams: Streams,
    own: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
}

impl Node {
    /// A node without tasks; tell it things by the sender.
    pub fn new(shared: Arc<Shared>, book: OrderBook, streams: Streams) -> (Self, mpsc::Sender<Message>) {
        let (own, inbox) = mpsc::channel(1024);
        shared.board.set_seen(book.seen(), true);
        let node = Self { shared, book, in_force: None, tasks: HashMap::new(), streams, own: own.clone(), inbox };
        (node, own)
    }

    /// Works for ever.
    pub async fn run(mut self, heartbeat: Heartbeat) {
        let mut patience = std::pin::pin!(tokio::time::sleep(PATIENCE));
        let mut beats = tokio::time::interval(BEAT);
        loop {
            heartbeat.beat();
            tokio::select! {
                _ = beats.tick() => {}
                message = self.inbox.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                () = &mut patience, if self.in_force.is_none() && self.book.kept().is_some() => self.fall_back().await,
            }
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Listed(found) => self.listed(found).await,
            Message::Touched(instance, news) => {
                if let Some(task) = self.tasks.get(&instance) {
                    task.nudge(news);
                }
            }
            Message::Orders(orders, answer) => {
                let accepted = self.accept(*orders).await;
                // Who asked may have gone on meanwhile.
                answer.send(accepted).ok();
            }
            Message::Ended(instance) => {
                self.tasks.remove(&instance);
                // It ended on orders that may have changed in the same moment.
                let named =
                    self.in_force.as_ref().is_some_and(|f| f.orders.run.iter().any(|spec| spec.instance == instance));
                if named {
                    self.carry_out().await;
                }
            }
        }
    }

    async fn listed(&mut self, found: Vec<Found>) {
        for task in self.tasks.values() {
            task.nudge(None);
        }
        let present: BTreeSet<InstanceId> = found.iter().map(|found| found.identity.instance.clone()).collect();
        let fresh: Vec<_> = found.into_iter().filter(|f| !self.tasks.contains_key(&f.identity.instance)).collect();
        self.adopt(fresh).await;
        if self.shared.board.is_complete() {
            return;
        }
        let unfinished: BTreeSet<InstanceId> =
            self.book.kept().into_iter().flat_map(|kept| &kept.orders.run).map(|spec| spec.instance.clone()).collect();
        self.change_ledger(move |ledger| {
            ledger.hold_others(|instance| present.contains(instance) || unfinished.contains(instance));
        })
        .await;
        self.shared.board.set_complete();
        self.carry_out().await;
    }

    /// Begins the tasks of containers that were found.
    async fn adopt(&mut self, found: Vec<Found>) {
        if found.is_empty() {
            return;
        }
        let ports: Vec<_> = found.iter().map(|found| (found.identity.instance.clone(), found.settings.port)).collect();
        let write_down = move |ledger: &mut Ledger| ports.iter().for_each(|(id, port)| ledger.adopt(id, *port));
        self.change_ledger(write_down).await;
        let beginnings = found.into_iter().map(|mut found| {
            if let Some(spec) = self.book.kept().and_then(|kept| kept.spec(&found.identity.instance)) {
                found.identity.renew_ticket(spec);
            }
            let Identity { instance, app, .. } = found.identity.clone();
            let wanted = match &self.in_force {
                Some(in_force) => in_force.wanted(&instance),
                None => Wanted::Undecided { claimed: self.book.kept().is_some_and(|kept| kept.names(&instance)) },
            };
            let (shared, ended) = (self.shared.clone(), self.ended());
            async move { (app, instance, Task::found(&shared, found, wanted, ended).await) }
        });
        let begun: Vec<_> = futures_util::stream::iter(beginnings).buffer_unordered(READ_AT_ONCE).collect().await;
        for (app, instance, task) in begun {
            match task {
                Ok(task) => {
                    tracing::info!(%app, %instance, "instance adopted");
                    self.tasks.insert(instance, task);
                }
                Err(error) => {
                    tracing::warn!(%app, %instance, error = %ErrorChain(&error), "a container cannot be read, it is adopted with the next list");
                }
            }
        }
    }

    async fn change_ledger(&self, change: impl FnOnce(&mut Ledger) + Send + 'static) {
        if let Err(error) = self.shared.ledger.change(change).await {
            tracing::error!(error = %ErrorChain(&error), "the port ledger cannot be written");
        }
    }

    fn ended(&self) -> impl FnOnce(InstanceId) + Send + 'static {
        let own = self.own.clone();
        move |instance| {
            tokio::spawn(async move { own.send(Message::Ended(instance)).await });
        }
    }

    async fn accept(&mut self, orders: Orders) -> Option<Version> {
        match self.book.accept(&orders) {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                metrics::counter!("dinp_agent_orders_refused_total").increment(1);
                match &refusal {
                    Refusal::Generation { .. } => tracing::debug!(%refusal, "orders ignored: {refusal}"),
                    _ => tracing::warn!(%refusal, "orders refused: {refusal}"),
                }
                return None;
            }
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "orders cannot be written down and are not carried out");
                return None;
            }
        }
        let version = orders.version();
        tracing::debug!(%version, run = orders.run.len(), stop = orders.stop.len(), "orders accepted");
        self.shared.board.set_seen(self.book.seen(), false);
        self.in_force = Some(InForce { orders, without_env: BTreeSet::new() });
        self.carry_out().await;
        Some(version)
    }

    /// Carries out the orders of the disk.
    async fn fall_back(&mut self) {
        let Some(kept) = self.book.kept().cloned() else { return };
        tracing::warn!(version = %kept.orders.version(), "no server has answered, the orders of the disk are in force");
        self.in_force = Some(InForce { orders: kept.orders, without_env: kept.without_env });
        self.carry_out().await;
    }

    /// Tells each task what the orders in force say, begins those that are missing.
    async fn carry_out(&mut self) {
        let Some(in_force) = self.in_force.take() else { return };
        self.streams.open(&in_force.orders.streams);
        if self.shared.board.is_complete() {
            self.give_orders(&in_force).await;
            self.release_ports(&in_force.orders.release_ports).await;
        }
        self.in_force = Some(in_force);
    }

    async fn give_orders(&mut self, in_force: &InForce) {
        for (instance, task) in &self.tasks {
            task.set(in_force.wanted(instance));
        }
        for spec in &in_force.orders.run {
            if !self.tasks.contains_key(&spec.instance)
                && let Wanted::Run(ordered) = in_force.wanted(&spec.instance)
            {
                tracing::info!(app = %spec.app, instance = %spec.instance, release = spec.release, "instance ordered");
                let task = Task::ordered(&self.shared, ordered, self.ended());
                self.tasks.insert(spec.instance.clone(), task);
            }
        }
        for StopOrder { instance, .. } in &in_force.orders.stop {
            if !self.tasks.contains_key(instance) {
                let id = instance.clone();
                self.change_ledger(move |ledger| ledger.hold(&id)).await;
                self.shared.board.gone(instance);
            }
        }
    }

    async fn release_ports(&self, instances: &[InstanceId]) {
        if instances.is_empty() {
            return;
        }
        let (instances, now) = (instances.to_vec(), dinp_common::api::unix_millis());
        self.change_ledger(move |ledger| ledger.release(&instances, now)).await;
        self.shared.board.touch();
    }
}

impl InForce {
    /// What the orders say about an instance. One that is to run and to be stopped runs.
    fn wanted(&self, instance: &InstanceId) -> Wanted {
        if let Some(spec) = self.orders.run.iter().find(|spec| spec.instance == *instance) {
            return Wanted::Run(Arc::new(Ordered {
                spec: spec.clone(),
                epoch: self.orders.epoch,
                env_known: !self.without_env.contains(instance),
                registry: self.orders.registry.clone(),
            }));
        }
        match self.orders.stop.iter().find(|stop| stop.instance == *instance) {
            Some(stop) => Wanted::Stop(stop.clone()),
            None => Wanted::Unnamed,
        }
    }
}
