//! One document of orders per node, made anew each time and handed out when it differs.
//!
//! A node gets none before it has sent a full report to this leader: an empty document would make it drop what it
//! accepted from the leader before.

use super::fleet::Phase;
use super::{Desired, NodeOrders, Reign, RunOrder, StopOrder, Tick};
use dinp_common::api::agent::InstanceState;
use dinp_common::model::NodeName;
use std::collections::BTreeMap;

impl Reign {
    /// Orders of a node in force, whole; none before its first full report to this leader.
    pub fn orders(&self, node: &NodeName) -> Option<&NodeOrders> {
        self.orders.get(node).filter(|orders| orders.generation > 0)
    }

    /// Makes room for the orders of nodes that have reported.
    pub(super) fn open_orders(&mut self, desired: &Desired) {
        for (name, node) in self.fleet.nodes() {
            if node.synced && desired.nodes.contains_key(name) && !self.orders.contains_key(name) {
                self.orders.insert(name.clone(), NodeOrders::default());
            }
        }
    }

    /// The orders that changed.
    pub(super) fn next_orders(&mut self, desired: &Desired, now: Tick) -> BTreeMap<NodeName, NodeOrders> {
        let mut changed = BTreeMap::new();
        let names: Vec<NodeName> = self.orders.keys().cloned().collect();
        for name in names {
            let next = self.build_orders(desired, &name);
            let Some(orders) = self.orders.get_mut(&name) else { continue };
            let same = orders.run == next.run && orders.stop == next.stop && orders.release_ports == next.release_ports;
            if orders.generation == 0 || !same {
                *orders = NodeOrders { generation: orders.generation + 1, ..next };
                if let Some(node) = self.fleet.node_mut(&name) {
                    node.behind.get_or_insert((orders.generation, now));
                }
                changed.insert(name, orders.clone());
            }
        }
        changed
    }

    fn build_orders(&self, desired: &Desired, name: &NodeName) -> NodeOrders {
        let mut orders = NodeOrders { release_ports: self.free_ports(name), ..NodeOrders::default() };
        for one in self.fleet.of_node(name) {
            match &one.phase {
                Phase::Stopping { reason } => orders.stop.push(StopOrder {
                    instance: one.id.clone(),
                    reason: reason.clone(),
                    grace_secs: self.times_of(one).stop_grace_secs,
                }),
                // What another leader has begun to stop ends by itself.
                _ if one.state() == InstanceState::Stopping => {}
                Phase::Wanted | Phase::Withdrawn { .. } => {
                    let app = desired.apps.get(&one.app);
                    if app.is_some_and(|app| app.releases.contains_key(&one.release)) {
                        orders.run.push(RunOrder {
                            instance: one.id.clone(),
                            app: one.app.clone(),
                            release: one.release,
                            ticket: one.ticket.clone(),
                        });
                    }
                }
            }
        }
        orders
    }
}
