//! Instances that are gone and whose output is still on their node, as agents report.
//!
//! What a node says here opens nothing: it is asked for no other output than its own.

use dinp_common::api::agent::EndedInstance;
use dinp_common::model::{AppName, NodeName};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The last word of each node; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Ended(Arc<Mutex<BTreeMap<NodeName, Vec<EndedInstance>>>>);

impl Ended {
    /// Takes in all that a node has.
    pub fn take(&self, node: NodeName, all: Vec<EndedInstance>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, all);
    }

    /// The ended instances of an app, the newest first.
    pub fn of_app(&self, app: &AppName) -> Vec<(NodeName, EndedInstance)> {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = nodes.iter().flat_map(|(node, all)| all.iter().map(move |ended| (node, ended)));
        let of_app = all.filter(|(_, ended)| ended.app == *app);
        let mut found: Vec<_> = of_app.map(|(node, ended)| (node.clone(), ended.clone())).collect();
        found.sort_by_key(|(_, ended)| std::cmp::Reverse(ended.at));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(bits: u64, app: &str, at: i64) -> EndedInstance {
        let instance = dinp_common::model::InstanceId::from_bits(bits);
        EndedInstance { instance, app: app.parse().unwrap(), release: 7, at, exit_code: None }
    }

    #[test]
    fn what_a_node_says_last_counts() {
        let registry = Ended::default();
        let (one, two): (NodeName, NodeName) = ("node1".parse().unwrap(), "node2".parse().unwrap());
        registry.take(one.clone(), vec![ended(1, "web", 10), ended(2, "shop", 20)]);
        registry.take(two.clone(), vec![ended(3, "web", 30)]);
        let web: AppName = "web".parse().unwrap();
        assert_eq!(registry.of_app(&web), [(two.clone(), ended(3, "web", 30)), (one.clone(), ended(1, "web", 10))]);
        registry.take(one, vec![]);
        assert_eq!(registry.of_app(&web).len(), 1);
    }
}
