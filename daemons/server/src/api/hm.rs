//! What health monitors call. See [`dinp_common::api::hm`].
//!
//! * `GET /v1/hm/targets`, `POST /v1/hm/report`: service credential of role hm

use super::Api;
use super::agent::WAIT_MAX;
use crate::claims::Bounded;
use crate::input::Input;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dinp_common::api::hm::HmReport;
use dinp_common::api::{WatchQuery, unix_millis};
use dinp_common::auth::Role;
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use http::{HeaderMap, StatusCode};
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks of a waiting monitor at the targets.
const LOOK: Duration = Duration::from_millis(250);

pub fn router() -> Router<Api> {
    Router::new().route("/v1/hm/targets", get(targets)).route("/v1/hm/report", post(report))
}

async fn targets(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<WatchQuery>,
) -> Result<Response, Problem> {
    api.services.require(&headers, &[Role::Hm]).await?;
    let until = Instant::now() + Duration::from_secs(query.wait_secs.into()).min(WAIT_MAX);
    loop {
        api.leading()?;
        let targets = api.driver.view(|view| view.reign.targets()).await?;
        if query.have.as_deref() != Some(&targets.version) {
            return Ok(ApiJson(targets).into_response());
        }
        if Instant::now() >= until {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = api.shutdown.cancelled() => return Err(Problem::not_leader(None)),
        }
    }
}

async fn report(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiJson(mut report): ApiJson<HmReport>,
) -> Result<StatusCode, Problem> {
    let identity = api.services.require(&headers, &[Role::Hm]).await?;
    api.leading()?;
    report.monitor = identity.name;
    api.driver.send(Input::Hm(Bounded::of(report, unix_millis())?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
