//! Which orders are accepted, and what is kept of them.
//!
//! ```text
//! another cluster                        refused
//! lower epoch than the highest seen      refused
//! equal epoch, another holder            refused
//! equal epoch, lower generation          ignored: an answer that came late
//! else                                   accepted, written down, carried out
//! ```
//!
//! The copy on the disk has neither environment values nor the registry's password.

use crate::disk::{self, DiskError};
use dinp_common::api::agent::{InstanceSpec, Orders, Seen};
use dinp_common::model::InstanceId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Why orders are not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They are not for this node's cluster.
    #[error("orders of cluster {0:?}, this node belongs to another one")]
    Cluster(String),
    /// A newer leader has spoken.
    #[error("orders of epoch {epoch}, epoch {seen} has been seen")]
    Epoch {
        /// Of the orders.
        epoch: u64,
        /// The highest.
        seen: u64,
    },
    /// Two claim the same epoch.
    #[error("orders of {holder:?} in epoch {epoch}, which belongs to {seen:?}")]
    Holder {
        /// Of the orders.
        holder: String,
        /// The epoch of both.
        epoch: u64,
        /// Whom it belongs to.
        seen: String,
    },
    /// Newer orders are in force.
    #[error("orders of generation {generation}, generation {seen} is in force")]
    Generation {
        /// Of the orders.
        generation: u64,
        /// In force.
        seen: u64,
    },
}

/// Whether a node of `cluster` that has seen `seen` carries out `orders`.
pub fn judge(orders: &Orders, cluster: &str, seen: &Seen) -> Result<(), Refusal> {
    if orders.cluster != cluster {
        return Err(Refusal::Cluster(orders.cluster.clone()));
    }
    if orders.epoch < seen.epoch {
        return Err(Refusal::Epoch { epoch: orders.epoch, seen: seen.epoch });
    }
    if orders.epoch > seen.epoch {
        return Ok(());
    }
    if orders.holder != seen.holder {
        return Err(Refusal::Holder { holder: orders.holder.clone(), epoch: orders.epoch, seen: seen.holder.clone() });
    }
    if orders.generation < seen.generation {
        return Err(Refusal::Generation { generation: orders.generation, seen: seen.generation });
    }
    Ok(())
}

/// Orders as they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The orders without secrets.
    pub orders: Orders,
    /// Instances whose environment was left out: they cannot be created from this copy.
    pub without_env: BTreeSet<InstanceId>,
}

impl Kept {
    /// Leaves the secrets out.
    pub fn of(orders: &Orders) -> Self {
        let mut orders = orders.clone();
        let mut without_env = BTreeSet::new();
        for spec in &mut orders.run {
            if !spec.env.is_empty() {
                spec.env.clear();
                without_env.insert(spec.instance.clone());
            }
        }
        orders.registry = None;
        // A stream's id is a secret too, and its time is over.
        orders.streams.clear();
        Self { orders, without_env }
    }

    /// The highest leadership seen: that of the orders in force.
    pub fn seen(&self) -> Seen {
        let Orders { epoch, holder, generation, proof, .. } = &self.orders;
        Seen { epoch: *epoch, holder: holder.clone(), generation: *generation, proof: proof.clone() }
    }

    /// The order to run the instance.
    pub fn spec(&self, instance: &InstanceId) -> Option<&InstanceSpec> {
        self.orders.run.iter().find(|spec| spec.instance == *instance)
    }

    /// Whether the orders name the instance.
    pub fn names(&self, instance: &InstanceId) -> bool {
        self.spec(instance).is_some() || self.orders.stop.iter().any(|stop| stop.instance == *instance)
    }
}

/// The orders in force, and their file.
#[derive(Debug)]
pub struct OrderBook {
    path: PathBuf,
    cluster: String,
    kept: Option<Kept>,
}

impl OrderBook {
    /// Opens the file. Orders of another cluster in it are none of this node's.
    pub fn open(path: PathBuf, cluster: &str) -> Result<Self, DiskError> {
        let kept = disk::load::<Kept>(&path)?.filter(|kept| kept.orders.cluster == cluster);
        Ok(Self { path, cluster: cluster.to_owned(), kept })
    }

    /// The orders in force.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The highest leadership seen.
    pub fn seen(&self) -> Seen {
        self.kept.as_ref().map(Kept::seen).unwrap_or_default()
    }

    /// Judges orders and writes accepted ones down before they are carried out.
    pub fn accept(&mut self, orders: &Orders) -> Result<Result<(), Refusal>, DiskError> {
        if let Err(refusal) = judge(orders, &self.cluster, &self.seen()) {
            return Ok(Err(refusal));
        }
        let kept = Kept::of(orders);
        if self.kept.as_ref() != Some(&kept) {
            disk::save(&self.path, &kept)?;
            self.kept = Some(kept);
        }
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use serde_json::json;

    fn orders(epoch: u64, holder: &str, generation: u64) -> Orders {
        serde_json::from_value(json!({
            "cluster": "c1", "epoch": epoch, "holder": holder, "generation": generation, "proof": format!("proof of {epoch}"),
            "run": [{
                "instance": "00000000000000aa", "app": "web", "release": 7, "image": "reg:5000/web:1",
                "memory_mb": 128, "cpu_millis": 100, "env": {"TOKEN": "geheim"}, "start_timeout_secs": 60, "port": 8080,
                "ticket": "ticket of aa",
            }],
            "stop": [{"instance": "00000000000000bb", "reason": "scaled in", "grace_secs": 10}],
            "streams": [{"stream": "geheim2", "kind": "logs", "instance": "00000000000000aa", "tail": 1, "follow": false}],
            "registry": {"address": "reg:5000", "username": "pull", "password": "geheim3"},
        }))
        .unwrap()
    }

    #[test]
    fn only_the_highest_leader_is_obeyed() {
        let seen = Seen { epoch: 5, holder: "a".into(), generation: 3, proof: "proof of 5".into() };
        let judge = |orders: &Orders| judge(orders, "c1", &seen);
        assert_eq!(judge(&orders(5, "a", 3)), Ok(()), "the same again brings the environment after a restart");
        assert_eq!(judge(&orders(5, "a", 4)), Ok(()));
        assert_eq!(judge(&orders(6, "b", 1)), Ok(()));
        assert_eq!(judge(&orders(4, "a", 9)), Err(Refusal::Epoch { epoch: 4, seen: 5 }));
        assert!(matches!(judge(&orders(5, "b", 9)), Err(Refusal::Holder { .. })));
        assert_eq!(judge(&orders(5, "a", 2)), Err(Refusal::Generation { generation: 2, seen: 3 }));
        let other = Orders { cluster: "c2".into(), ..orders(9, "a", 9) };
        assert_eq!(judge(&other), Err(Refusal::Cluster("c2".into())));
    }

    #[test]
    fn accepted_orders_survive_without_their_secrets() {
        let dir = TestDir::new("agent-orders");
        let path = dir.path().join("orders.json");
        let mut book = OrderBook::open(path.clone(), "c1").unwrap();
        assert_eq!(book.seen(), Seen::default());
        book.accept(&orders(5, "a", 3)).unwrap().unwrap();
        assert!(book.accept(&orders(4, "a", 3)).unwrap().is_err());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("geheim"), "{text}");

        let book = OrderBook::open(path.clone(), "c1").unwrap();
        assert_eq!(book.seen(), Seen { epoch: 5, holder: "a".into(), generation: 3, proof: "proof of 5".into() });
        let kept = book.kept().unwrap();
        assert!(kept.without_env.contains(&InstanceId::from_bits(0xaa)));
        assert_eq!(kept.spec(&InstanceId::from_bits(0xaa)).unwrap().ticket, "ticket of aa");
        assert!(kept.names(&InstanceId::from_bits(0xbb)) && !kept.names(&InstanceId::from_bits(0xcc)));
        assert!(OrderBook::open(path, "c2").unwrap().kept().is_none());
    }
}
