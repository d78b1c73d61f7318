//! What agents call. See [`dinp_common::api::agent`].
//!
//! * `POST /v1/agent/report`, `GET /v1/agent/orders`, `POST /v1/agent/goodbye`, `POST /v1/agent/streams/{id}`:
//!   the node's own credential

use super::Api;
use crate::claims::Bounded;
use crate::input::Input;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use dinp_common::api::agent::{Goodbye, Report, ReportReply};
use dinp_common::api::{WatchQuery, unix_millis};
use dinp_common::model::Version;
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use std::time::Duration;

/// Largest report: ten thousand instances.
const REPORT_BYTES: usize = 16 << 20;
/// Longest wait of a long poll.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

pub fn router() -> Router<Api> {
    Router::new()
        .route("/v1/agent/report", post(report).layer(DefaultBodyLimit::max(REPORT_BYTES)))
        .route("/v1/agent/orders", get(orders))
        .route("/v1/agent/goodbye", post(goodbye))
        .route("/v1/agent/streams/{id}", post(stream).layer(DefaultBodyLimit::disable()))
}

async fn report(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiJson(report): ApiJson<Report>,
) -> Result<ApiJson<ReportReply>, Problem> {
    let node = api.node(&headers)?;
    api.leading()?;
    let mut report = Bounded::of(report, unix_millis())?;
    if let Some(ended) = report.take_ended() {
        let cluster = api.driver.view(|view| view.cluster.to_owned()).await?;
        api.ended.take(&cluster, node.clone(), ended);
    }
    let reply = api.driver.ask(|reply| Input::Report(node, Box::new(report), reply)).await?;
    Ok(ApiJson(reply))
}

async fn orders(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<WatchQuery>,
) -> Result<Response, Problem> {
    let node = api.node(&headers)?;
    api.leading()?;
    let have: Version = query.have.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
    let mut orders = api.hub.watch(&node);
    let news = orders.wait_for(|orders| orders.as_ref().is_some_and(|orders| orders.version() != have));
    let wait = Duration::from_secs(query.wait_secs.into()).min(WAIT_MAX);
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(wait, news) => outcome,
        () = api.shutdown.cancelled() => return Err(Problem::not_leader(None)),
    };
    match outcome {
        Ok(Ok(orders)) => Ok(axum::Json(orders.as_deref()).into_response()),
        Ok(Err(_)) => Err(Problem::not_leader(None)),
        Err(_) => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

async fn goodbye(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiJson(goodbye): ApiJson<Goodbye>,
) -> Result<StatusCode, Problem> {
    let node = api.node(&headers)?;
    api.leading()?;
    api.driver.send(Input::Goodbye(node, goodbye)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stream(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let node = api.node(&headers)?;
    api.leading()?;
    let gone = || Problem::new(StatusCode::GONE, "stream-gone", "nobody reads this stream any more");
    let reader = api.streams.accept(&node, &id).ok_or_else(gone)?;
    let mut chunks = body.into_data_stream();
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            () = reader.closed() => return Err(gone()),
            () = api.shutdown.cancelled() => return Err(Problem::not_leader(None)),
        };
        match chunk {
            Some(Ok(chunk)) => reader.send(chunk).await.map_err(|_| gone())?,
            Some(Err(_)) | None => break,
        }
    }
    drop(reader);
    api.streams.finish(&id);
    Ok(StatusCode::NO_CONTENT)
}
