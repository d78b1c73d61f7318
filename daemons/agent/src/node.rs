//! The node: which instances have a task, and what the orders in force say to each.
//!
//! One task owns all of it. Containers are adopted before any orders are carried out, and orders are on
//! the disk before they are; those to stop are obeyed without it. Orders of the disk are carried out when no server
//! has given any for a while. Orders are acknowledged without the engine, and carried out once it has been read.

use crate::container::Identity;
use crate::instance::{Found, News, Ordered, Task, Wanted};
use crate::ledger::Ledger;
use crate::orders::{Kept, NotAccepted, OrderBook, Refusal};
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
    /// An instance is to be stopped for what it does to the node, and why. Its agent starts it again after a while.
    Evict(InstanceId, String),
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
            Message::Evict(instance, reason) => {
                if let Some(task) = self.tasks.get(&instance) {
                    task.evict(reason);
                }
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
            // It is a fault of the node, and told as such.
            tracing::debug!(error = %ErrorChain(&error), "the port ledger cannot be written");
        }
    }

    fn ended(&self) -> impl FnOnce(InstanceId) + Send + 'static {
        let own = self.own.clone();
        move |instance| {
            tokio::spawn(async move { own.send(Message::Ended(instance)).await });
        }
    }

    async fn accept(&mut self, orders: Orders) -> Option<Version> {
        let before = self.book.kept().map(|kept| kept.orders.peers.clone());
        match self.book.accept(&orders).await {
            Ok(()) if before.as_ref() != Some(&orders.peers) => self.shared.filter.renew(),
            Ok(()) => {}
            Err(NotAccepted::Refused(refusal)) => {
                metrics::counter!("dinp_agent_orders_refused_total").increment(1);
                match &refusal {
                    Refusal::Generation { .. } => tracing::debug!(%refusal, "orders ignored: {refusal}"),
                    _ => tracing::warn!(%refusal, "orders refused: {refusal}"),
                }
                return None;
            }
            Err(NotAccepted::NotKept(error)) => {
                tracing::debug!(error = %ErrorChain(&error), "orders cannot be written down, only their stops are obeyed");
                self.obey_stops(&orders).await;
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

    /// Adds the stops of orders that could not be written down to what is in force.
    async fn obey_stops(&mut self, orders: &Orders) {
        let of_disk = || self.book.kept().cloned().map(InForce::from);
        let mut in_force = self.in_force.take().or_else(of_disk).unwrap_or_else(|| InForce::without_run(orders));
        in_force.add_stops(orders);
        self.in_force = Some(in_force);
        self.carry_out().await;
    }

    /// Carries out the orders of the disk.
    async fn fall_back(&mut self) {
        let Some(kept) = self.book.kept().cloned() else { return };
        tracing::warn!(version = %kept.orders.version(), "no server has answered, the orders of the disk are in force");
        self.in_force = Some(kept.into());
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

impl From<Kept> for InForce {
    fn from(Kept { orders, without_env }: Kept) -> Self {
        Self { orders, without_env }
    }
}

impl InForce {
    /// Nothing to run, nothing to stop: of a leader whose orders cannot be written, on a node that has none.
    fn without_run(orders: &Orders) -> Self {
        let orders = Orders { run: Vec::new(), stop: Vec::new(), release_ports: Vec::new(), ..orders.clone() };
        Self { orders, without_env: BTreeSet::new() }
    }

    /// Stops what newer orders stop, and goes on as before with all else.
    fn add_stops(&mut self, newer: &Orders) {
        let is_stopped = |instance: &InstanceId| newer.stop.iter().any(|stop| stop.instance == *instance);
        let is_run = |instance: &InstanceId| newer.run.iter().any(|spec| spec.instance == *instance);
        let orders = &mut self.orders;
        orders.run.retain(|spec| !is_stopped(&spec.instance) || is_run(&spec.instance));
        orders.stop.retain(|stop| !is_stopped(&stop.instance));
        orders.stop.extend(newer.stop.iter().cloned());
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn orders(run: &[&str], stop: &[&str]) -> Orders {
        let spec = |id: &&str| {
            json!({
                "instance": id, "app": "web", "release": 7, "image": "reg:5000/web:1", "memory_mb": 128,
                "cpu_millis": 100, "start_timeout_secs": 60, "port": 8080,
            })
        };
        let stop_order = |id: &&str| json!({"instance": id, "reason": "scaled in", "grace_secs": 10});
        serde_json::from_value(json!({
            "cluster": "c1", "epoch": 5, "holder": "a", "generation": 3,
            "run": run.iter().map(spec).collect::<Vec<_>>(),
            "stop": stop.iter().map(stop_order).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn stops_of_orders_that_cannot_be_written_are_obeyed_and_nothing_else_of_them() {
        let [a, b, c, d] = ["000000000000000a", "000000000000000b", "000000000000000c", "000000000000000d"];
        let mut in_force = InForce { orders: orders(&[a, b], &[d]), without_env: BTreeSet::new() };
        in_force.add_stops(&orders(&[b, c], &[a]));
        let wanted = |id: &str| in_force.wanted(&id.parse().unwrap());
        assert!(matches!(wanted(a), Wanted::Stop(_)));
        assert!(matches!(wanted(b), Wanted::Run(_)));
        assert!(matches!(wanted(c), Wanted::Unnamed), "nothing is started that is not written down");
        assert!(matches!(wanted(d), Wanted::Stop(_)), "what was to stop before goes on stopping");
        in_force.add_stops(&orders(&[], &[a]));
        assert_eq!(in_force.orders.stop.len(), 2, "the same again adds nothing");
    }
}
