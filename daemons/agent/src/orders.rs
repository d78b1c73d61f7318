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
//! The copy on the disk has neither environment values nor the registry's password. Only what is on the disk is
//! acknowledged. Of orders that cannot be written the stops are obeyed all the same: they need no disk, and may be what
//! frees it. From then on a lower leader is refused until the agent's end, as if they had been written.

use crate::disk::{DiskError, Stored};
use dinp_common::api::agent::{InstanceSpec, Orders, Seen};
use dinp_common::model::InstanceId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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

    /// Goes on from the orders before: a leader whose database is older than they are must hear of their revision.
    fn remember(&mut self, before: &Self) {
        let newer = std::mem::take(&mut self.orders.highest_revision);
        self.orders.highest_revision = before.orders.highest_revision.clone().or_newer(newer);
    }

    /// The highest leadership seen: that of the orders in force.
    pub fn seen(&self) -> Seen {
        let Orders { epoch, holder, generation, proof, highest_revision, .. } = &self.orders;
        Seen {
            epoch: *epoch,
            holder: holder.clone(),
            generation: *generation,
            proof: proof.clone(),
            highest_revision: highest_revision.clone(),
        }
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

/// Why orders are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// They are not for this node to carry out.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// They are, and cannot be written down: only their stops may be carried out.
    #[error(transparent)]
    NotKept(#[from] DiskError),
}

/// The orders in force, and their file.
#[derive(Debug)]
pub struct OrderBook {
    stored: Stored<Option<Kept>>,
    cluster: String,
    kept: Option<Kept>,
    /// The highest leadership that was obeyed without being written down.
    unwritten: Seen,
}

impl OrderBook {
    /// Begins with what is stored. Orders of another cluster are none of this node's.
    pub fn open(stored: Stored<Option<Kept>>, cluster: &str) -> Self {
        let kept = stored.read(Option::clone).filter(|kept| kept.orders.cluster == cluster);
        Self { stored, cluster: cluster.to_owned(), kept, unwritten: Seen::default() }
    }

    /// The orders in force.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The highest leadership that is acknowledged: it is on the disk.
    pub fn seen(&self) -> Seen {
        self.kept.as_ref().map(Kept::seen).unwrap_or_default()
    }

    /// The leadership below which orders are refused.
    fn fence(&self) -> Seen {
        std::cmp::max_by_key(self.seen(), self.unwritten.clone(), |seen| (seen.epoch, seen.generation))
    }

    /// Judges orders and writes accepted ones down before they are carried out.
    pub async fn accept(&mut self, orders: &Orders) -> Result<(), NotAccepted> {
        judge(orders, &self.cluster, &self.fence())?;
        let mut kept = Kept::of(orders);
        if let Some(before) = &self.kept {
            kept.remember(before);
        }
        if self.kept.as_ref() != Some(&kept) {
            let next = Some(kept.clone());
            if let Err(error) = self.stored.change(move |stored| *stored = next).await {
                self.unwritten = kept.seen();
                return Err(error.into());
            }
            self.kept = Some(kept);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::{fill_up, make_room};
    use dinp_common::api::ProvedRevision;
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
        let proof = "proof of 5".into();
        let seen = Seen { epoch: 5, holder: "a".into(), generation: 3, proof, ..Seen::default() };
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

    fn book(dir: &TestDir, cluster: &str) -> OrderBook {
        let stored = Stored::open(dir.path().join("orders"), 4096, Default::default()).unwrap();
        OrderBook::open(stored, cluster)
    }

    #[tokio::test]
    async fn accepted_orders_survive_without_their_secrets() {
        let dir = TestDir::new("agent-orders");
        let mut first = book(&dir, "c1");
        assert_eq!(first.seen(), Seen::default());
        first.accept(&orders(5, "a", 3)).await.unwrap();
        assert!(matches!(first.accept(&orders(4, "a", 3)).await, Err(NotAccepted::Refused(_))));
        let text = std::fs::read_to_string(dir.path().join("orders.1")).unwrap();
        assert!(text.contains("ticket of aa") && !text.contains("geheim"), "{text}");

        let book = |cluster| book(&dir, cluster);
        let again = book("c1");
        assert_eq!(again.seen(), first.seen());
        assert_eq!((again.seen().epoch, again.seen().proof.as_str()), (5, "proof of 5"));
        let kept = again.kept().unwrap();
        assert!(kept.without_env.contains(&InstanceId::from_bits(0xaa)));
        assert_eq!(kept.spec(&InstanceId::from_bits(0xaa)).unwrap().ticket, "ticket of aa");
        assert!(kept.names(&InstanceId::from_bits(0xbb)) && !kept.names(&InstanceId::from_bits(0xcc)));
        assert!(book("c2").kept().is_none());
    }

    #[tokio::test]
    async fn the_highest_revision_outlasts_orders_of_a_lower_one() {
        let dir = TestDir::new("agent-orders-revision");
        let at = |number: u64| ProvedRevision { number, proof: format!("proof of revision {number}") };
        let mut first = book(&dir, "c1");
        first.accept(&Orders { highest_revision: at(40), ..orders(5, "a", 3) }).await.unwrap();
        first.accept(&Orders { highest_revision: at(12), ..orders(6, "b", 1) }).await.unwrap();
        assert_eq!(first.seen().highest_revision, at(40), "the next leader must hear of it");
        assert_eq!(book(&dir, "c1").seen().highest_revision, at(40));
        first.accept(&Orders { highest_revision: at(41), ..orders(6, "b", 2) }).await.unwrap();
        assert_eq!(first.seen().highest_revision, at(41));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_not_acknowledged_and_fences_all_the_same() {
        let dir = TestDir::new("agent-orders-full");
        let mut book = book(&dir, "c1");
        book.accept(&orders(5, "a", 3)).await.unwrap();
        fill_up(&dir.path().join("orders"));
        assert!(matches!(book.accept(&orders(6, "b", 1)).await, Err(NotAccepted::NotKept(_))));
        assert_eq!(book.seen().epoch, 5, "only what is on the disk is acknowledged");
        let refused = book.accept(&orders(5, "a", 9)).await;
        assert!(matches!(refused, Err(NotAccepted::Refused(Refusal::Epoch { seen: 6, .. }))), "{refused:?}");
        make_room(&dir.path().join("orders"));
        book.accept(&orders(6, "b", 1)).await.unwrap();
        assert_eq!((book.seen().epoch, book.seen().proof.as_str()), (6, "proof of 6"));
    }
}
