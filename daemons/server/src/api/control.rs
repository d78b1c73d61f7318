//! What dash calls. See [`dinp_common::api::control`].
//!
//! * `GET /v1/status`, `GET /v1/instances`, `GET|POST /v1/nodes`, `DELETE /v1/nodes/{name}`, `GET /v1/orphans`,
//!   `DELETE /v1/orphans/{instance}`, `GET /v1/routers`, `DELETE /v1/routers/{name}`, `GET /v1/apps/{app}/logs`,
//!   `GET /v1/strangers`, `POST /v1/tickets/adopt`, `POST /v1/resume`, `POST /v1/hint`: service credential of role dash

use super::Api;
use crate::input::Input;
use crate::logs;
use crate::streams::{Reader, Stream};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use dinp_common::api::Page;
use dinp_common::api::agent::{NodeBundle, Registered};
use dinp_common::api::control::{
    Adopted, ClusterStatus, InstanceView, LogQuery, NodeAdd, NodeView, Resumed, RouterView, StrangerView, UpkeepView,
};
use dinp_common::auth::{Credential, CredentialKind, Role};
use dinp_common::error::ErrorChain;
use dinp_common::model::{AppName, InstanceId, InvalidValue, NodeName, ZoneName};
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use dinp_common::quota::Full;
use dinp_common::store::node::{self, NewNode};
use dinp_common::store::{Change, StoreError, raise_past};
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks for instances that have started, for somebody who follows an app's logs.
const LOOK: Duration = Duration::from_secs(1);

pub fn router() -> Router<Api> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/instances", get(instances))
        .route("/v1/nodes", get(nodes).post(add_node))
        .route("/v1/nodes/{name}", delete(remove_node))
        .route("/v1/orphans", get(orphans))
        .route("/v1/orphans/{instance}", delete(remove_orphan))
        .route("/v1/routers", get(routers))
        .route("/v1/routers/{name}", delete(forget_router))
        .route("/v1/apps/{app}/logs", get(app_logs))
        .route("/v1/strangers", get(strangers))
        .route("/v1/tickets/adopt", post(adopt_tickets))
        .route("/v1/resume", post(resume))
        .route("/v1/hint", post(hint))
        .route("/v1/upkeep", get(upkeep))
}

impl Api {
    async fn dash(&self, headers: &HeaderMap) -> Result<(), Problem> {
        self.services.require(headers, &[Role::Dash]).await?;
        self.leading().map(drop)
    }
}

fn page<T>(items: Vec<T>) -> ApiJson<Page<T>> {
    ApiJson(Page { items, next: None })
}

async fn status(State(api): State<Api>, headers: HeaderMap) -> Result<ApiJson<ClusterStatus>, Problem> {
    api.dash(&headers).await?;
    // Who answers leads.
    let leader = api.url.to_string();
    let holdover = !api.leadership.borrow().may_destroy_at(Instant::now());
    let status = api.driver.view(move |view| {
        let status = view.reign.status();
        ClusterStatus {
            cluster: view.cluster.to_owned(),
            leader,
            epoch: status.epoch,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            holdover,
            frozen: status.frozen,
            revision: status.revision,
            synced_at: view.synced_at,
            routes: status.routes,
            nodes_ready: status.nodes_ready,
            nodes_missing: status.nodes_missing,
            instances_ready: status.instances_ready,
            instances_wanted: status.instances_wanted,
            problems: status.problems,
        }
    });
    Ok(ApiJson(status.await?))
}

async fn upkeep(State(api): State<Api>, headers: HeaderMap) -> Result<ApiJson<UpkeepView>, Problem> {
    api.services.require(&headers, &[Role::Builder]).await?;
    api.leading()?;
    let holds_over = !api.leadership.borrow().may_destroy_at(Instant::now());
    let mut view = api.driver.view(|view| view.reign.upkeep()).await?;
    if holds_over {
        view.waits_for = Some("the leader could not renew its lease and destroys nothing".into());
    }
    Ok(ApiJson(view))
}

#[derive(Deserialize)]
struct InstanceQuery {
    app: Option<AppName>,
}

async fn instances(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<InstanceQuery>,
) -> Result<ApiJson<Page<InstanceView>>, Problem> {
    api.dash(&headers).await?;
    Ok(page(api.driver.view(move |view| view.reign.instances(query.app.as_ref())).await?))
}

async fn nodes(State(api): State<Api>, headers: HeaderMap) -> Result<ApiJson<Page<NodeView>>, Problem> {
    api.dash(&headers).await?;
    Ok(page(api.driver.view(|view| view.reign.nodes()).await?))
}

async fn add_node(
    State(api): State<Api>,
    headers: HeaderMap,
    ApiJson(add): ApiJson<NodeAdd>,
) -> Result<Response, Problem> {
    api.dash(&headers).await?;
    let invalid = |kind: &str, field: &str, error: InvalidValue| {
        Problem::unprocessable(kind, error.to_string()).with("field", field)
    };
    check_address(&add.address).map_err(|error| invalid("invalid-address", "address", error))?;
    check_zone(&add.zone).map_err(|error| invalid("invalid-zone", "zone", error))?;
    let registered = Registered { memory_mb: add.memory_mb, cpu_millis: add.cpu_millis };
    check_some("memory in MiB", registered.memory_mb).map_err(|error| invalid("invalid-memory", "memory_mb", error))?;
    check_some("CPU in thousandths of a core", registered.cpu_millis)
        .map_err(|error| invalid("invalid-cpu", "cpu_millis", error))?;
    let cluster = api.driver.view(|view| view.cluster.to_owned()).await?;
    let credential = Credential::generate(CredentialKind::Node, add.name.as_str());
    let work = async {
        let mut change = Change::begin(&api.pool).await?;
        if node::find(&mut change.tx, &add.name).await?.is_some() {
            return Ok(false);
        }
        let secret_hash = &credential.secret_hash();
        let new = NewNode { name: &add.name, address: &add.address, zone: &add.zone, secret_hash, registered };
        node::put(&mut change, &new).await?;
        change.commit().await.map(|_| true)
    };
    if !work.await.map_err(|error| store_problem(&error))? {
        let detail = format!("node \"{}\" exists already: remove it first, or choose another name", add.name);
        return Err(Problem::conflict("node-exists", detail));
    }
    api.hint.notify_one();
    let bundle = NodeBundle {
        cluster,
        node: add.name,
        address: add.address,
        servers: api.servers.iter().map(ToString::to_string).collect(),
        ca: String::new(),
        secret: credential.to_string(),
        insecure_registry: api.insecure_registry.clone(),
    };
    Ok((StatusCode::CREATED, axum::Json(bundle)).into_response())
}

/// The address goes into every route as it is, so it must be a plain IP address or host name.
fn check_address(address: &str) -> Result<(), InvalidValue> {
    let is_ip = address.parse::<std::net::IpAddr>().is_ok();
    let is_host = !address.is_empty()
        && address.len() <= 253
        && address.split('.').all(|label| label.to_ascii_lowercase().parse::<NodeName>().is_ok());
    if is_ip || is_host {
        return Ok(());
    }
    Err(InvalidValue::new("node address", address, "it must be an IP address or a host name, without a port"))
}

/// A node that counts for nothing is none.
fn check_some(what: &'static str, number: Option<u32>) -> Result<(), InvalidValue> {
    match number {
        Some(0) => Err(InvalidValue::new(what, "0", "it must be at least 1, or be left out")),
        _ => Ok(()),
    }
}

/// No zone is the empty one.
fn check_zone(zone: &str) -> Result<(), InvalidValue> {
    if zone.is_empty() { Ok(()) } else { zone.parse::<ZoneName>().map(drop) }
}

async fn remove_node(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(name): Path<NodeName>,
) -> Result<StatusCode, Problem> {
    api.dash(&headers).await?;
    let wanted = name.clone();
    let view = api.driver.view(move |view| view.reign.nodes().into_iter().find(|node| node.name == wanted)).await?;
    if let Some(view) = view.filter(|node| node.instances > 0) {
        let detail = format!("node \"{name}\" still has {} instances: they must be gone first", view.instances);
        return Err(Problem::conflict("node-in-use", detail));
    }
    let work = async {
        let mut change = Change::begin(&api.pool).await?;
        let removed = node::remove(&mut change, &name).await?;
        change.commit().await.map(|_| removed)
    };
    if !work.await.map_err(|error| store_problem(&error))? {
        return Err(Problem::not_found(format!("there is no node \"{name}\"")));
    }
    api.hint.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

async fn orphans(State(api): State<Api>, headers: HeaderMap) -> Result<ApiJson<Page<InstanceView>>, Problem> {
    api.dash(&headers).await?;
    Ok(page(api.driver.view(|view| view.reign.orphans()).await?))
}

async fn strangers(State(api): State<Api>, headers: HeaderMap) -> Result<ApiJson<Page<StrangerView>>, Problem> {
    api.dash(&headers).await?;
    Ok(page(api.driver.view(|view| view.reign.strangers()).await?))
}

async fn remove_orphan(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(instance): Path<InstanceId>,
) -> Result<StatusCode, Problem> {
    api.dash(&headers).await?;
    api.driver.ask(|reply| Input::RemoveOrphan(instance, reply)).await??;
    Ok(StatusCode::NO_CONTENT)
}

async fn routers(State(api): State<Api>, headers: HeaderMap) -> Result<ApiJson<Page<RouterView>>, Problem> {
    api.dash(&headers).await?;
    Ok(page(api.driver.view(|view| view.reign.routers()).await?))
}

async fn forget_router(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    api.dash(&headers).await?;
    let wanted = name.clone();
    let known = api.driver.view(move |view| view.reign.routers().iter().any(|router| router.name == wanted)).await?;
    if !known {
        return Err(Problem::not_found(format!("there is no router \"{name}\"")));
    }
    super::router::forget(&api, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn app_logs(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(app): Path<AppName>,
    ApiQuery(query): ApiQuery<LogQuery>,
) -> Result<Response, Problem> {
    api.dash(&headers).await?;
    let live = live_instances(&api, &app).await?;
    let known: BTreeSet<InstanceId> = live.iter().map(|view| view.instance.clone()).collect();
    let wanted = logs::choose(&app, &query, live, api.ended.of_app(&app))?;
    let refused = |full| too_many_readers(&app, full);
    let reader = api.streams.reader(&app).map_err(refused)?;
    let streams = reader.open(wanted).map_err(refused)?;
    // One instance is followed to its end.
    let later = match query.follow {
        true if query.instance.is_none() => Some(later_streams(api.clone(), app.clone(), reader, known)),
        true => Some(stream::empty().boxed()),
        false => None,
    };
    let lines = logs::merge(streams, later, api.shutdown.clone());
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(lines)).into_response())
}

async fn live_instances(api: &Api, app: &AppName) -> Result<Vec<InstanceView>, Problem> {
    let of = app.clone();
    api.driver.view(move |view| view.reign.instances(Some(&of))).await
}

/// The streams of instances of an app that start later, for as long as somebody reads. It ends where no more are possible.
fn later_streams(api: Api, app: AppName, reader: Reader, known: BTreeSet<InstanceId>) -> BoxStream<'static, Stream> {
    let looks = stream::unfold((api, app, reader, known), |(api, app, reader, mut known)| async move {
        tokio::time::sleep(LOOK).await;
        let live = live_instances(&api, &app).await.ok()?;
        let opened = reader.open(logs::of_new(&mut known, live)).ok()?;
        Some((stream::iter(opened), (api, app, reader, known)))
    });
    looks.flatten().boxed()
}

/// What is said where no more readers of logs are possible now.
fn too_many_readers(app: &AppName, full: Full) -> Problem {
    let (limit, detail) = match full {
        Full::Each(most) => {
            (most, format!("the logs of app {app} have {most} readers, the most at a time: end one and try again"))
        }
        Full::All(most) => {
            let detail = format!(
                "the readers of logs would have more than {most} streams open, the most at a time: read a single \
                 instance, or try again when others have ended"
            );
            (most, detail)
        }
    };
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-readers", detail).with("limit", limit)
}

/// Takes over instances whose tickets are of a key that the servers do not have.
async fn adopt_tickets(State(api): State<Api>, headers: HeaderMap) -> Result<ApiJson<Adopted>, Problem> {
    api.dash(&headers).await?;
    let adopted = api.driver.ask(Input::AdoptTickets).await?;
    Ok(ApiJson(Adopted { instances: u32::try_from(adopted).unwrap_or(u32::MAX) }))
}

/// Has desired state carried out though it is older than what was carried out before.
async fn resume(State(api): State<Api>, headers: HeaderMap) -> Result<ApiJson<Resumed>, Problem> {
    api.dash(&headers).await?;
    let Some(carried_out) = api.driver.ask(Input::Resume).await? else {
        return Err(Problem::conflict("nothing-held", "the database is not older than what runs: nothing is held"));
    };
    let revision = raise_past(&api.pool, carried_out).await.map_err(|error| store_problem(&error))?;
    api.hint.notify_one();
    Ok(ApiJson(Resumed { revision }))
}

async fn hint(State(api): State<Api>, headers: HeaderMap) -> Result<StatusCode, Problem> {
    api.dash(&headers).await?;
    api.hint.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// What the database refuses is not the caller's fault: it is told to try again.
pub fn store_problem(error: &StoreError) -> Problem {
    tracing::warn!(error = %ErrorChain(error), "the database could not be used for a request");
    Problem::unavailable("database-unavailable", "the database cannot be used now; nothing was changed, try again")
}
