//! Instances that are gone and whose output is still on their node, as agents report.
//!
//! A node names what it likes here. It is asked for no other output than its own, and what it names counts as an app's
//! only with the ticket by which the instance was ordered there: nobody else's people are shown what it makes up.

use crate::tickets::{Claim, Keys, Worth};
use dinp_common::api::agent::EndedInstance;
use dinp_common::model::{AppName, NodeName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The last word of each node, as far as tickets prove it; clones are the same.
#[derive(Clone, Debug)]
pub struct Ended {
    tickets: Arc<Keys>,
    by_node: Arc<Mutex<BTreeMap<NodeName, Vec<EndedInstance>>>>,
}

impl Ended {
    /// Nothing yet.
    pub fn new(tickets: Arc<Keys>) -> Self {
        Self { tickets, by_node: Arc::default() }
    }

    /// Takes in all that a node of this cluster has.
    pub fn take(&self, cluster: &str, node: NodeName, mut all: Vec<EndedInstance>) {
        all.retain(|ended| {
            let EndedInstance { instance, app, release, ticket, .. } = ended;
            let claim = Claim { cluster, node: &node, instance, app, release: *release };
            self.tickets.judge(ticket, &claim) == Worth::Genuine
        });
        self.by_node().insert(node, all);
    }

    /// Forgets what nodes have that were removed: nobody can ask them any more.
    pub fn forget(&self, removed: &BTreeSet<NodeName>) {
        self.by_node().retain(|node, _| !removed.contains(node));
    }

    /// The ended instances of an app, the newest first.
    pub fn of_app(&self, app: &AppName) -> Vec<(NodeName, EndedInstance)> {
        let nodes = self.by_node();
        let all = nodes.iter().flat_map(|(node, all)| all.iter().map(move |ended| (node, ended)));
        let of_app = all.filter(|(_, ended)| ended.app == *app);
        let mut found: Vec<_> = of_app.map(|(node, ended)| (node.clone(), ended.clone())).collect();
        found.sort_by_key(|(_, ended)| std::cmp::Reverse(ended.at));
        found
    }

    fn by_node(&self) -> MutexGuard<'_, BTreeMap<NodeName, Vec<EndedInstance>>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::credentials::Secret;
    use dinp_common::model::InstanceId;

    const CLUSTER: &str = "c";

    fn keys() -> Arc<Keys> {
        Arc::new(Keys::parse(&Secret::new(format!("k1:{}", "01".repeat(32)))).unwrap())
    }

    fn name(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    /// An instance that was ordered to this node.
    fn ended(node: &NodeName, bits: u64, app: &str, at: i64) -> EndedInstance {
        let (instance, app) = (InstanceId::from_bits(bits), app.parse().unwrap());
        let claim = Claim { cluster: CLUSTER, node, instance: &instance, app: &app, release: 7 };
        let ticket = keys().ticket(&claim);
        EndedInstance { instance, app, release: 7, at, exit_code: None, ticket }
    }

    #[test]
    fn what_a_node_says_last_counts_until_it_is_removed() {
        let registry = Ended::new(keys());
        let (one, two) = (name("node1"), name("node2"));
        let [first, second, third] = [ended(&one, 1, "web", 10), ended(&one, 2, "shop", 20), ended(&two, 3, "web", 30)];
        registry.take(CLUSTER, one.clone(), vec![first.clone(), second]);
        registry.take(CLUSTER, two.clone(), vec![third.clone()]);
        let web: AppName = "web".parse().unwrap();
        assert_eq!(registry.of_app(&web), [(two.clone(), third), (one.clone(), first)], "the newest first");
        registry.take(CLUSTER, one.clone(), vec![]);
        assert_eq!(registry.of_app(&web).len(), 1);
        registry.forget(&[two].into());
        assert_eq!(registry.of_app(&web), []);
    }

    #[test]
    fn a_node_shows_nobody_output_of_an_instance_that_was_not_ordered_to_it() {
        let registry = Ended::new(keys());
        let (thief, victim) = (name("thief"), name("node1"));
        let own = ended(&thief, 1, "own", 10);
        let lies = [
            EndedInstance { ticket: String::new(), ..ended(&thief, 2, "shop", 10) },
            EndedInstance { ticket: format!("k1.{}", "ab".repeat(32)), ..ended(&thief, 3, "shop", 10) },
            EndedInstance { ticket: format!("k9.{}", "ab".repeat(32)), ..ended(&thief, 4, "shop", 10) },
            EndedInstance { ticket: own.ticket.clone(), ..ended(&thief, 1, "shop", 10) },
            EndedInstance { release: 8, ..ended(&thief, 5, "shop", 10) },
            ended(&victim, 6, "shop", 10),
        ];
        registry.take(CLUSTER, thief.clone(), lies.into_iter().chain([own]).collect());
        assert_eq!(registry.of_app(&"shop".parse().unwrap()), []);
        assert_eq!(registry.of_app(&"own".parse().unwrap()).len(), 1);
        registry.take("another", thief.clone(), vec![ended(&thief, 1, "own", 10)]);
        assert_eq!(registry.of_app(&"own".parse().unwrap()), []);
    }
}
