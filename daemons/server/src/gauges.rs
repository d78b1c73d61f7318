//! What the leader knows of nodes, as metrics: `dinp_server_node_fault{node,kind}` is 1 while a node has that fault, and is
//! not there otherwise. Nodes come and go, and the recorder would keep each of them for ever.

use crate::input::Handle;
use dinp_common::api::agent::NodeFaultKind;
use dinp_common::api::control::NodeView;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(2);
/// The fault of a node whose Docker Engine cannot be used, beside those that agents and servers name.
const DOCKER: &str = "docker";
const TYPE: &str = "# TYPE dinp_server_node_fault gauge\n";

/// The faults that nodes had at the last look, as Prometheus text.
#[derive(Clone, Debug, Default)]
pub struct NodeFaults(Arc<RwLock<String>>);

impl NodeFaults {
    /// Looks until `shutdown`. Without a leadership nothing is known.
    pub async fn watch(self, driver: Handle, shutdown: CancellationToken) {
        loop {
            let nodes = driver.view(|view| view.reign.nodes()).await.unwrap_or_default();
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = text(&nodes);
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// The text.
    pub fn text(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn text(nodes: &[NodeView]) -> String {
    let mut text = TYPE.to_owned();
    for node in nodes {
        for kind in faults_of(node) {
            text += &format!("dinp_server_node_fault{{node=\"{}\",kind=\"{kind}\"}} 1\n", node.name);
        }
    }
    text
}

/// Each kind once: a series that comes twice makes the whole text void.
fn faults_of(node: &NodeView) -> BTreeSet<&'static str> {
    let kinds = node.faults.iter().map(|fault| fault.kind).map(NodeFaultKind::as_str);
    kinds.chain(node.docker_error.iter().map(|_| DOCKER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_without_faults_and_nodes_that_are_gone_have_no_series() {
        let node = |name: &str, docker_error: Option<&str>, kinds: &[&str]| -> NodeView {
            let faults: Vec<_> = kinds.iter().map(|kind| json!({"kind": kind, "detail": "so it is"})).collect();
            let size = json!({"memory_mb": 0, "cpu_millis": 0});
            serde_json::from_value(json!({
                "name": name, "address": "10.0.0.1", "zone": "", "condition": "ready", "cordoned": false,
                "capacity": size, "booked": size, "instances": 0, "docker_error": docker_error, "faults": faults,
            }))
            .unwrap()
        };
        let nodes = [node("a", None, &[]), node("b", Some("it hangs"), &["disk", "disk"])];
        let series = "dinp_server_node_fault{node=\"b\",kind=\"disk\"} 1\ndinp_server_node_fault{node=\"b\",kind=\"docker\"} 1\n";
        assert_eq!(text(&nodes), format!("{TYPE}{series}"));
        assert_eq!(text(&nodes[..1]), TYPE);
    }
}
