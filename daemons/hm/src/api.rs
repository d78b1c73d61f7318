//! The status listener.
//!
//! * `GET /health`, `GET /ready`, `GET /metrics`: as with every daemon
//! * `GET /v1/targets` -> list of [`TargetView`]

use crate::monitor::{Monitor, TargetView};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use dinp_common::lifecycle::Lifecycle;
use dinp_common::metrics::ops_router;

pub(crate) fn router(monitor: Monitor, lifecycle: &Lifecycle) -> Router {
    Router::new().route("/v1/targets", get(targets)).with_state(monitor).merge(ops_router(lifecycle))
}

async fn targets(State(monitor): State<Monitor>) -> Json<Vec<TargetView>> {
    Json(monitor.view())
}
