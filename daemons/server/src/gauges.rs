//! What the leader knows of nodes, as metrics: `dinp_server_node_fault{node,kind}` is 1 while a node has that fault.

use crate::input::Handle;
use dinp_common::api::agent::NodeFaultKind;
use dinp_common::api::control::NodeView;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(2);
/// The fault of a node whose Docker Engine cannot be used, beside those that agents and servers name.
const DOCKER: &str = "docker";

/// Shows them until `shutdown`. Without a leadership there are none.
pub async fn show(driver: Handle, shutdown: CancellationToken) {
    let mut shown = BTreeSet::new();
    loop {
        let nodes = driver.view(|view| view.reign.nodes()).await.unwrap_or_default();
        let faults: BTreeSet<(String, &str)> = nodes.iter().flat_map(faults_of).collect();
        for (node, kind) in shown.difference(&faults) {
            set(node, kind, 0.0);
        }
        for (node, kind) in &faults {
            set(node, kind, 1.0);
        }
        shown = faults;
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn faults_of(node: &NodeView) -> impl Iterator<Item = (String, &'static str)> {
    let kinds = node.faults.iter().map(|fault| fault.kind).map(NodeFaultKind::as_str);
    let docker = node.docker_error.iter().map(|_| DOCKER);
    kinds.chain(docker).map(|kind| (node.name.to_string(), kind))
}

fn set(node: &str, kind: &'static str, value: f64) {
    metrics::gauge!("dinp_server_node_fault", "node" => node.to_owned(), "kind" => kind).set(value);
}
