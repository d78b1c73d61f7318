//! The status listener.
//!
//! * `GET /health`, `GET /ready`, `GET /metrics`: as with every daemon
//! * `GET /v1/status` -> [`dinp_common::api::router::RouterReport`]: what the leader is told
//! * `GET /v1/routes?app=` -> [`Routes`]: the table in force
//! * `GET /v1/traffic` -> [`Traffic`]: what each release has answered

use crate::report::Reporter;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use dinp_common::api::router::RouterReport;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::metrics::ops_router_with;
use dinp_common::model::{AppName, Version};
use dinp_common::problem::ApiQuery;
use dinp_common::routes::AppRoutes;
use serde::{Deserialize, Serialize};

/// The table in force.
#[derive(Debug, Serialize, Deserialize)]
pub struct Routes {
    /// Its version.
    pub version: Version,
    /// Its apps.
    pub apps: Vec<AppRoutes>,
}

/// What the router has done since its start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Traffic {
    /// Open connections of clients.
    pub connections: u64,
    /// Requests that wait for room at instances which have as much to do as they may.
    #[serde(default)]
    pub queued: u64,
    /// The releases that are in the table or were until a moment ago, and have answered something.
    pub releases: Vec<ReleaseTraffic>,
}

/// What one release of an app has answered; as in [`dinp_common::api::router::ReleaseCounters`].
#[derive(Debug, Serialize, Deserialize)]
pub struct ReleaseTraffic {
    /// The app.
    pub app: String,
    /// Id of the release.
    pub release: u64,
    /// Answers by first digit of the status.
    pub answers: [u64; 5],
    /// Attempts that got no answer.
    pub failed: u64,
    /// Time until the answers began, of all together, in microseconds.
    pub micros: u64,
    /// Requests in flight to its instances in the table.
    pub in_flight: u64,
}

#[derive(Debug, Deserialize)]
struct RoutesQuery {
    #[serde(default)]
    app: Option<AppName>,
}

pub(crate) fn router(reporter: Reporter, lifecycle: &Lifecycle) -> Router {
    let releases = reporter.clone();
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/routes", get(routes))
        .route("/v1/traffic", get(traffic))
        .with_state(reporter)
        .merge(ops_router_with(lifecycle, move || releases.release_metrics()))
}

async fn status(State(reporter): State<Reporter>) -> Json<RouterReport> {
    Json(reporter.report())
}

async fn traffic(State(reporter): State<Reporter>) -> Json<Traffic> {
    Json(reporter.traffic())
}

async fn routes(State(reporter): State<Reporter>, ApiQuery(query): ApiQuery<RoutesQuery>) -> Json<Routes> {
    let (version, apps) = {
        let ledger = reporter.ledger.lock();
        (ledger.version().unwrap_or_default(), ledger.apps(query.app.as_ref()))
    };
    let mut apps: Vec<AppRoutes> = apps.iter().map(|app| app.record()).collect();
    apps.sort_by(|one, other| one.app.cmp(&other.app));
    Json(Routes { version, apps })
}
