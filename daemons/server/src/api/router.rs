//! What routers call. See [`dinp_common::api::router`].
//!
//! * `POST /v1/router/report`, `POST /v1/router/goodbye`: service credential of role router; its name is the router's

use super::Api;
use crate::claims::Bounded;
use crate::input::Input;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use dinp_common::api::router::{RouterGoodbye, RouterReply, RouterReport};
use dinp_common::api::unix_millis;
use dinp_common::auth::Role;
use dinp_common::problem::{ApiJson, Problem};
use dinp_common::store;
use http::{HeaderMap, StatusCode};
use std::time::Duration;

pub fn router() -> Router<Api> {
    Router::new().route("/v1/router/report", post(report)).route("/v1/router/goodbye", post(goodbye))
}

/// The credential says who it is; a document that says otherwise is refused.
async fn named(api: &Api, headers: &HeaderMap, name: &str) -> Result<(), Problem> {
    let identity = api.services.require(headers, &[Role::Router]).await?;
    if identity.name == name {
        return Ok(());
    }
    Err(Problem::forbidden(format!("this credential is the router \"{}\"'s", identity.name)))
}

async fn report(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiJson(report): ApiJson<RouterReport>,
) -> Result<ApiJson<RouterReply>, Problem> {
    named(&api, &headers, &report.router).await?;
    api.leading()?;
    let report = Box::new(Bounded::of(report, unix_millis())?);
    let reply = api.driver.ask(|reply| Input::Router(report, Some(reply))).await?;
    Ok(ApiJson(reply))
}

async fn goodbye(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiJson(goodbye): ApiJson<RouterGoodbye>,
) -> Result<StatusCode, Problem> {
    named(&api, &headers, &goodbye.router).await?;
    api.leading()?;
    api.driver.send(Input::RouterGoodbye(goodbye.router)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets a router, here and for leaders to come: a person says that it will not come back with its old table.
pub async fn forget(api: &Api, router: String) -> Result<(), Problem> {
    let work = async {
        let mut conn = store::connect(&api.pool, Duration::from_secs(1)).await?;
        store::router::remove(&mut conn, &router).await
    };
    work.await.map_err(|error| super::control::store_problem(&error))?;
    api.driver.send(Input::RouterForget(router)).await
}
