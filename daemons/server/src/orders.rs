//! Orders as agents get them: what the core decided, with what only the shell knows (images, environments, the registry,
//! streams), one document per node behind a watch that long polls wait on.

use crate::core::{Desired, NodeOrders, Settings};
use crate::snapshot::Environments;
use crate::tickets::Keys;
use dinp_common::api::ProvedRevision;
use dinp_common::api::agent::{InstanceSpec, Orders, Peers, RegistryAccess, StreamOrder};
use dinp_common::model::{NodeName, ReleaseSpec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The port that every app listens on inside its container.
const APP_PORT: u16 = 8080;
/// The document's generation is the core's, shifted by this, plus a count of the documents that the shell made of one
/// decision: streams come and go without one.
const SHELL_BITS: u32 = 20;

/// The core's generation in a document's.
pub fn core_generation(generation: u64) -> u64 {
    generation >> SHELL_BITS
}

/// What the core's decisions do not hold.
#[derive(Debug, Clone, Copy)]
pub struct Letterhead<'a> {
    /// Id of the cluster.
    pub cluster: &'a str,
    /// Epoch of the leader.
    pub epoch: u64,
    /// The leader.
    pub holder: &'a str,
    /// How to pull.
    pub registry: Option<&'a RegistryAccess>,
    /// The cluster's times, for apps that have none of their own.
    pub settings: &'a Settings,
    /// The platform's machines, for the nodes' packet filters.
    pub peers: &'a Peers,
    /// What proves the epoch.
    pub tickets: &'a Keys,
    /// The highest revision that was carried out.
    pub highest_revision: &'a ProvedRevision,
}

/// Makes the document. An instance whose release is no longer known is named nowhere, and so runs on.
pub fn compose(
    head: &Letterhead<'_>,
    decided: &NodeOrders,
    streams: Vec<StreamOrder>,
    desired: &Desired,
    environments: &Environments,
) -> Orders {
    let spec = |order: &crate::core::RunOrder| {
        let release = desired.apps.get(&order.app)?.releases.get(&order.release)?;
        instance_spec(head, order, release, environments)
    };
    Orders {
        cluster: head.cluster.to_owned(),
        epoch: head.epoch,
        holder: head.holder.to_owned(),
        proof: head.tickets.proof(head.cluster, head.epoch, head.holder),
        highest_revision: head.highest_revision.clone(),
        generation: decided.generation << SHELL_BITS,
        run: decided.run.iter().filter_map(spec).collect(),
        stop: decided.stop.clone(),
        release_ports: decided.release_ports.clone(),
        streams,
        registry: head.registry.cloned(),
        peers: head.peers.clone(),
    }
}

fn instance_spec(
    head: &Letterhead<'_>,
    order: &crate::core::RunOrder,
    release: &ReleaseSpec,
    environments: &Environments,
) -> Option<InstanceSpec> {
    let env = match release.env_version {
        0 => Default::default(),
        _ => environments.get(&release.id)?.as_ref().clone(),
    };
    let times = head.settings.times_of(release);
    Some(InstanceSpec {
        instance: order.instance.clone(),
        app: order.app.clone(),
        release: release.id,
        image: release.image.clone(),
        command: release.command.clone(),
        resources: release.resources,
        env,
        health: release.health.clone(),
        start_timeout_secs: times.start_timeout_secs,
        port: APP_PORT,
        ticket: order.ticket.clone(),
        host: format!("{}.{}", order.app, head.settings.domain),
        min_healthy_secs: times.min_healthy_secs,
    })
}

type Senders = HashMap<NodeName, watch::Sender<Option<Arc<Orders>>>>;

/// The documents in force.
#[derive(Clone, Default)]
pub struct OrdersHub(Arc<Mutex<Senders>>);

impl OrdersHub {
    /// Puts a document in force, if it says anything new. A higher revision alone is nothing new: what it has changed on
    /// this node is said by the rest.
    pub fn put(&self, node: &NodeName, mut orders: Orders) {
        let mut inner = self.lock();
        let sender = inner.entry(node.clone()).or_insert_with(|| watch::Sender::new(None));
        let newest = sender.borrow().clone();
        if let Some(newest) = newest.filter(|newest| newest.epoch == orders.epoch) {
            let decided = orders.generation;
            orders.generation = newest.generation;
            let revision = std::mem::replace(&mut orders.highest_revision, newest.highest_revision.clone());
            // A decision that changes nothing here is waited for by its generation all the same.
            if *newest == orders && core_generation(decided) <= core_generation(newest.generation) {
                return;
            }
            orders.generation = decided.max(newest.generation + 1);
            orders.highest_revision = revision;
        }
        sender.send_replace(Some(Arc::new(orders)));
    }

    /// The document of a node, as it changes.
    pub fn watch(&self, node: &NodeName) -> watch::Receiver<Option<Arc<Orders>>> {
        self.lock().entry(node.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// Takes all documents back: this server no longer leads. Long polls end.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Senders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::api::agent::StreamKind;

    fn orders(epoch: u64, core: u64, streams: usize) -> Orders {
        let stream = |number: usize| StreamOrder {
            stream: format!("s{number}"),
            kind: StreamKind::Logs {
                instance: "0123456789abcdef".parse().unwrap(),
                tail: 1,
                follow: true,
                previous: false,
            },
        };
        Orders {
            cluster: "c".into(),
            epoch,
            holder: "a".into(),
            generation: core << SHELL_BITS,
            proof: String::new(),
            highest_revision: ProvedRevision::default(),
            run: vec![],
            stop: vec![],
            release_ports: vec![],
            streams: (0..streams).map(stream).collect(),
            registry: None,
            peers: Peers::default(),
        }
    }

    #[test]
    fn streams_raise_the_generation_without_hiding_the_cores() {
        let hub = OrdersHub::default();
        let node: NodeName = "node1".parse().unwrap();
        let generation = || hub.watch(&node).borrow().as_ref().unwrap().generation;
        hub.put(&node, orders(1, 1, 0));
        let first = generation();
        hub.put(&node, orders(1, 1, 0));
        assert_eq!(generation(), first, "the same document is no news");
        hub.put(&node, orders(1, 1, 1));
        assert_eq!((generation(), core_generation(generation())), (first + 1, 1));
        hub.put(&node, orders(1, 2, 1));
        assert_eq!(core_generation(generation()), 2);
        hub.put(&node, orders(2, 1, 1));
        assert_eq!(
            hub.watch(&node).borrow().as_ref().unwrap().version(),
            dinp_common::model::Version::new(2, 1 << SHELL_BITS)
        );
    }
}
