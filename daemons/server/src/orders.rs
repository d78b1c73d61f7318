//! Orders as agents get them: what the core decided, with what only the shell knows (images, environments, the registry,
//! streams), one document per node behind a watch that long polls wait on.

use crate::core::{Desired, NodeOrders, ReleaseSpec};
use crate::sync::Environments;
use dinp_common::api::agent::{InstanceSpec, Orders, RegistryAccess, StreamOrder};
use dinp_common::model::{NodeName, Timing};
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

/// What is the same in all orders of one leadership.
#[derive(Debug, Clone)]
pub struct Letterhead {
    /// Id of the cluster.
    pub cluster: String,
    /// Epoch of the leader.
    pub epoch: u64,
    /// The leader.
    pub holder: String,
    /// How to pull.
    pub registry: Option<RegistryAccess>,
    /// Time from start to ready.
    pub start_timeout_secs: u32,
}

/// Makes the document. An instance whose release is no longer known is named nowhere, and so runs on.
pub fn compose(
    head: &Letterhead,
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
        cluster: head.cluster.clone(),
        epoch: head.epoch,
        holder: head.holder.clone(),
        generation: decided.generation << SHELL_BITS,
        proof: String::new(),
        run: decided.run.iter().filter_map(spec).collect(),
        stop: decided.stop.clone(),
        release_ports: decided.release_ports.clone(),
        streams,
        registry: head.registry.clone(),
    }
}

fn instance_spec(
    head: &Letterhead,
    order: &crate::core::RunOrder,
    release: &ReleaseSpec,
    environments: &Environments,
) -> Option<InstanceSpec> {
    let env = match release.env_version {
        0 => Default::default(),
        version => environments.get(&(order.app.clone(), version))?.as_ref().clone(),
    };
    Some(InstanceSpec {
        instance: order.instance.clone(),
        app: order.app.clone(),
        release: release.id,
        image: release.image.clone(),
        command: release.command.clone(),
        resources: release.resources,
        env,
        health: release.health.clone(),
        start_timeout_secs: head.start_timeout_secs,
        port: APP_PORT,
        ticket: String::new(),
        host: String::new(),
        min_healthy_secs: Timing::MIN_HEALTHY_SECS,
    })
}

type Senders = HashMap<NodeName, watch::Sender<Option<Arc<Orders>>>>;

/// The documents in force.
#[derive(Clone, Default)]
pub struct OrdersHub(Arc<Mutex<Senders>>);

impl OrdersHub {
    /// Puts a document in force, if it says anything new.
    pub fn put(&self, node: &NodeName, mut orders: Orders) {
        let mut inner = self.lock();
        let sender = inner.entry(node.clone()).or_insert_with(|| watch::Sender::new(None));
        let newest = sender.borrow().clone();
        if let Some(newest) = newest.filter(|newest| newest.epoch == orders.epoch) {
            let decided = orders.generation;
            orders.generation = newest.generation;
            // A decision that changes nothing here is waited for by its generation all the same.
            if *newest == orders && core_generation(decided) <= core_generation(newest.generation) {
                return;
            }
            orders.generation = decided.max(newest.generation + 1);
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
            kind: StreamKind::Logs { instance: "0123456789abcdef".parse().unwrap(), tail: 1, follow: true },
        };
        Orders {
            cluster: "c".into(),
            epoch,
            holder: "a".into(),
            generation: core << SHELL_BITS,
            proof: String::new(),
            run: vec![],
            stop: vec![],
            release_ports: vec![],
            streams: (0..streams).map(stream).collect(),
            registry: None,
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
