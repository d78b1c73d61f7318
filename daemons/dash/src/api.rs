//! The public API: the list of its endpoints with what each needs is [`crate::permissions::API`], the documents are
//! those of [`dinp_common::api::people`].
//!
//! All but `/v1/meta` take an access token as bearer; errors are problem details.

mod apps;
mod builds;
mod operators;
mod uploads;

use crate::guard::{Surface, within_deadline};
use crate::{Caller, Dash};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use axum::{Extension, Router};
use dinp_common::api::people::{Meta, QuotaView};
use dinp_common::api::uic::UserInfo;
use dinp_common::api::{Page, PageQuery};
use dinp_common::problem::{ApiJson, Problem};
use dinp_common::web;
use std::sync::Arc;
use std::time::Duration;

/// Largest body but for packages.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// Longest time for an answer that is no stream.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

type Shared = State<Arc<Dash>>;

/// All endpoints.
pub fn router(dash: Arc<Dash>) -> Router {
    let routes = endpoints().into_iter().fold(Router::new(), |router, (path, handlers)| router.route(path, handlers));
    routes
        .route_layer(middleware::from_fn_with_state(dash.clone(), guard))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(|request, next| within_deadline(DEADLINE, request, next)))
        .layer(middleware::from_fn(|request, next| web::secure_headers("", request, next)))
        .with_state(dash)
}

fn endpoints() -> Vec<(&'static str, MethodRouter<Arc<Dash>>)> {
    vec![
        ("/v1/meta", get(meta)),
        ("/v1/me", get(me)),
        ("/v1/quotas", get(quotas)),
        ("/v1/status", get(operators::status)),
        ("/v1/apps", get(apps::list).post(apps::create)),
        ("/v1/apps/{app}", get(apps::show).delete(apps::remove)),
        ("/v1/apps/{app}/deployments", get(apps::deployments).post(apps::deploy)),
        ("/v1/deployments/{id}", get(apps::deployment)),
        ("/v1/deployments/{id}/cancel", post(apps::cancel_deployment)),
        ("/v1/apps/{app}/releases", get(apps::releases)),
        ("/v1/apps/{app}/rollback", post(apps::rollback)),
        ("/v1/apps/{app}/rebase", post(apps::rebase)),
        ("/v1/apps/{app}/images", get(apps::images)),
        ("/v1/apps/{app}/images/{version}", delete(apps::remove_image)),
        ("/v1/apps/{app}/scale", put(apps::scale)),
        ("/v1/apps/{app}/stop", post(apps::stop)),
        ("/v1/apps/{app}/start", post(apps::start)),
        ("/v1/apps/{app}/env", get(apps::env).patch(apps::patch_env)),
        ("/v1/apps/{app}/domains", get(apps::domains).post(apps::add_domain)),
        ("/v1/apps/{app}/domains/{domain}", delete(apps::remove_domain)),
        ("/v1/apps/{app}/instances", get(apps::instances)),
        ("/v1/apps/{app}/events", get(apps::events)),
        ("/v1/apps/{app}/logs", get(apps::logs)),
        ("/v1/builds", get(builds::list).post(builds::upload)),
        ("/v1/builds/{id}", get(builds::show)),
        ("/v1/builds/{id}/cancel", post(builds::cancel)),
        ("/v1/builds/{id}/log", get(builds::log)),
        ("/v1/uploads", post(uploads::begin)),
        ("/v1/uploads/{id}", get(uploads::show).patch(uploads::append).delete(uploads::forget)),
        ("/v1/uploads/{id}/build", post(uploads::build)),
        ("/v1/runtimes", get(builds::runtimes)),
        ("/v1/nodes", get(operators::nodes).post(operators::add_node)),
        ("/v1/nodes/{name}", delete(operators::remove_node)),
        ("/v1/orphans", get(operators::orphans)),
        ("/v1/orphans/{instance}", delete(operators::remove_orphan)),
        ("/v1/strangers", get(operators::strangers)),
        ("/v1/tickets/adopt", post(operators::adopt_tickets)),
        ("/v1/resume", post(operators::resume)),
        ("/v1/routers", get(operators::routers)),
        ("/v1/routers/{name}", delete(operators::forget_router)),
        ("/v1/users", get(operators::users).post(operators::create_user)),
        ("/v1/users/{name}", patch(operators::patch_user).delete(operators::remove_user)),
        ("/v1/teams", get(operators::teams).post(operators::create_team)),
        ("/v1/teams/{name}", delete(operators::remove_team)),
        ("/v1/teams/{name}/members/{user}", put(operators::put_member).delete(operators::remove_member)),
    ]
}

async fn guard(State(dash): Shared, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    dash.admit(Surface::Api, &mut parts).await?;
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// Parameters of a path, with a problem where they do not fit.
struct ApiPath<T>(T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned + Send> FromRequestParts<S> for ApiPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found("there is nothing at this address")),
        }
    }
}

/// The id or number to go on before, from a list's `after`.
fn before<T: std::str::FromStr>(query: &PageQuery) -> Result<Option<T>, Problem> {
    match &query.after {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => {
                Err(Problem::bad_request("invalid-query", "after: it must be what `next` of the page before said"))
            }
        },
    }
}

/// A page of what was read with one entry more than asked for.
fn page<T>(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = if more { items.last().map(key) } else { None };
    Page { items, next }
}

async fn meta(State(dash): Shared) -> ApiJson<Meta> {
    let trimmed = |url: &url::Url| url.as_str().trim_end_matches('/').to_owned();
    ApiJson(Meta {
        cluster: dash.cluster.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uic_url: trimmed(&dash.cluster.uic.public_url),
        domain: dash.cluster.domain.clone(),
        apps_url: trimmed(&dash.apps_url),
        limits: Some(dash.config.limits.clone()),
    })
}

async fn quotas(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
) -> Result<ApiJson<Page<QuotaView>>, Problem> {
    Ok(ApiJson(Page { items: dash.quota_views(&caller).await?, next: None }))
}

async fn me(Extension(caller): Extension<Caller>) -> ApiJson<UserInfo> {
    ApiJson((*caller.user).clone())
}
