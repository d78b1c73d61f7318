//! Metrics, and the endpoints that every daemon has for those who operate it.
//!
//! * `GET /health`: 200 while the process answers.
//! * `GET /ready`: 200, or 503 with the conditions that are missing; in both cases the tasks that run.
//! * `GET /metrics`: Prometheus text.

use std::convert::Infallible;
use std::iter;
use std::sync::OnceLock;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use http::{StatusCode, header};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::json;

use crate::lifecycle::Lifecycle;

/// Upper bounds for everything named `..._seconds`.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Makes the `metrics` macros record. Further calls change nothing; without any call they do nothing.
pub fn install(daemon: &'static str) {
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS);
        match builder.and_then(PrometheusBuilder::install_recorder) {
            Ok(handle) => {
                let version = env!("CARGO_PKG_VERSION");
                ::metrics::gauge!("dinp_build_info", "daemon" => daemon, "version" => version).set(1.0);
                Some(handle)
            }
            Err(error) => {
                tracing::error!(%error, "metrics cannot be recorded");
                None
            }
        }
    });
}

/// The metrics as Prometheus text.
pub fn render() -> String {
    match HANDLE.get() {
        Some(Some(handle)) => {
            handle.run_upkeep();
            handle.render()
        }
        _ => String::new(),
    }
}

/// `/health`, `/ready` and `/metrics`; merge it into the daemon's own router.
pub fn ops_router(lifecycle: &Lifecycle) -> Router {
    ops_router_with(lifecycle, || None)
}

/// As [`ops_router`], with further metrics as Prometheus text, in parts that are made one after the other as the reader
/// takes them: for series that come and go, which the recorder would keep for ever.
pub fn ops_router_with<T>(lifecycle: &Lifecycle, further: impl Fn() -> T + Clone + Send + Sync + 'static) -> Router
where
    T: IntoIterator<Item = String>,
    T::IntoIter: Send + 'static,
{
    let metrics = move || async move {
        let parts = iter::once(render()).chain(further());
        let text = Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>)));
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
    };
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(lifecycle.clone())
}

async fn ready(State(lifecycle): State<Lifecycle>) -> Response {
    let stopping = lifecycle.shutdown().is_cancelled();
    let missing = lifecycle.missing();
    let ready = lifecycle.is_ready() && !stopping;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let tasks = lifecycle.tasks();
    (status, Json(json!({"ready": ready, "stopping": stopping, "missing": missing, "tasks": tasks}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn status(lifecycle: &Lifecycle) -> (u16, serde_json::Value) {
        let response = ready(State(lifecycle.clone())).await;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn ready_tells_what_is_missing() {
        let lifecycle = Lifecycle::for_tests();
        let database = lifecycle.condition("database");
        lifecycle.ready();
        database.missing("connection refused");
        let (code, body) = status(&lifecycle).await;
        assert_eq!((code, &body["missing"][0]["condition"]), (503, &json!("database")));
        database.ok();
        assert_eq!(status(&lifecycle).await.0, 200);
        lifecycle.shutdown().cancel();
        assert_eq!(status(&lifecycle).await.0, 503);
    }

    #[test]
    fn renders_what_is_recorded() {
        install("test");
        ::metrics::counter!("dinp_test_calls_total").increment(2);
        ::metrics::histogram!("dinp_test_call_seconds").record(0.002);
        let text = render();
        assert!(text.contains("dinp_test_calls_total 2"), "{text}");
        assert!(text.contains("dinp_test_call_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
        assert!(text.contains("dinp_build_info"), "{text}");
    }
}
