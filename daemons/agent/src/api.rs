//! The agent's own listener, for operators on this machine. It asks nobody who they are: it is bound to the
//! loopback address and changes nothing.
//!
//! * `GET /v1/status` -> [`Status`]
//! * `GET /health`, `/ready`, `/metrics`

use crate::shared::Shared;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use dinp_common::api::agent::{HeldPort, InstanceReport, NodeFault, Seen};
use dinp_common::lifecycle::Lifecycle;
use dinp_common::metrics::ops_router;
use dinp_common::problem::Problem;
use serde::Serialize;
use std::sync::Arc;

/// What the agent knows.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The cluster's id.
    pub cluster: String,
    /// Highest leadership seen.
    pub seen: Seen,
    /// Whether no server has given orders since the agent started.
    pub orders_from_disk: bool,
    /// Whether the engine's containers have been read.
    pub complete: bool,
    /// Why the Docker Engine cannot be used.
    pub docker_error: Option<String>,
    /// What is wrong with this node besides the engine.
    pub faults: Vec<NodeFault>,
    /// Instances of this node.
    pub instances: Vec<InstanceReport>,
    /// Ports that stay closed until the routers have forgotten them.
    pub held_ports: Vec<HeldPort>,
}

/// All endpoints.
pub fn router(shared: Arc<Shared>, lifecycle: &Lifecycle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .fallback(|| async { Problem::not_found("this listener has /v1/status, /health, /ready and /metrics") })
        .with_state(shared)
        .merge(ops_router(lifecycle))
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<Status> {
    let (batch, orders_from_disk) = shared.board.look();
    Json(Status {
        node: shared.bundle.node.to_string(),
        cluster: shared.bundle.cluster.clone(),
        seen: batch.seen,
        orders_from_disk,
        complete: batch.full,
        docker_error: batch.docker_error,
        faults: shared.faults.list(),
        instances: batch.instances,
        held_ports: shared.ledger.read(crate::ledger::Ledger::held),
    })
}
