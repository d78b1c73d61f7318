//! Status, and what operators and administrators see and change: the leader's and uic's answers, passed on.

use super::{ApiPath, Shared};
use crate::backend::{LIMIT, SERVER, problem};
use crate::{Caller, people};
use axum::Extension;
use axum::extract::{RawQuery, State};
use dinp_common::api::control::NodeAdd;
use dinp_common::api::uic::{MemberPut, PlatformRole, TeamCreate, TeamInfo, UserCreate, UserInfo, UserPatch};
use dinp_common::api::{Page, PageQuery};
use dinp_common::model::{InstanceId, NodeName};
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use http::{Method, StatusCode};
use serde_json::Value;

type Who = Extension<Caller>;
type Answer<T> = Result<ApiJson<T>, Problem>;

/// The query of a list, as it goes on to the daemon that has the list.
fn list_query(query: &PageQuery) -> String {
    let mut text = format!("limit={}", query.limit());
    if let Some(after) = &query.after {
        text.push_str("&after=");
        text.extend(url::form_urlencoded::byte_serialize(after.as_bytes()));
    }
    text
}

pub(super) async fn status(State(dash): Shared, Extension(caller): Who) -> Answer<Value> {
    let mut status = dash.status().await?;
    // They name apps, and not everybody may see each.
    if caller.user.role < PlatformRole::Operator {
        status.problems.clear();
    }
    let status = serde_json::to_value(status).map_err(|error| Problem::internal(&error))?;
    Ok(ApiJson(status))
}

pub(super) async fn nodes(State(dash): Shared, ApiQuery(query): ApiQuery<PageQuery>) -> Answer<Value> {
    Ok(ApiJson(dash.ask_server(&format!("/v1/nodes?{}", list_query(&query)), LIMIT).await?))
}

pub(super) async fn add_node(
    State(dash): Shared,
    Extension(caller): Who,
    ApiJson(body): ApiJson<NodeAdd>,
) -> Result<(StatusCode, ApiJson<Value>), Problem> {
    let bundle = dash.server.post("/v1/nodes", &body, LIMIT).await.map_err(|error| problem(error, &SERVER))?;
    dash.record_done(&caller, "node.add", &format!("node/{}", body.name)).await;
    Ok((StatusCode::CREATED, ApiJson(bundle)))
}

pub(super) async fn remove_node(
    State(dash): Shared,
    Extension(caller): Who,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    let name: NodeName = name.parse().map_err(|_| Problem::not_found("there is no node of this name"))?;
    dash.remove_at_server(&caller, &format!("/v1/nodes/{name}"), "node.remove", &format!("node/{name}")).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn orphans(State(dash): Shared, RawQuery(_): RawQuery) -> Answer<Value> {
    Ok(ApiJson(dash.ask_server("/v1/orphans", LIMIT).await?))
}

pub(super) async fn strangers(State(dash): Shared, RawQuery(_): RawQuery) -> Answer<Value> {
    Ok(ApiJson(dash.ask_server("/v1/strangers", LIMIT).await?))
}

pub(super) async fn adopt_tickets(State(dash): Shared, Extension(caller): Who) -> Answer<Value> {
    let nothing = serde_json::json!({});
    let adopted =
        dash.server.post("/v1/tickets/adopt", &nothing, LIMIT).await.map_err(|error| problem(error, &SERVER))?;
    dash.record_done(&caller, "ticket.adopt", "cluster").await;
    Ok(ApiJson(adopted))
}

pub(super) async fn resume(State(dash): Shared, Extension(caller): Who) -> Answer<Value> {
    let nothing = serde_json::json!({});
    let resumed = dash.server.post("/v1/resume", &nothing, LIMIT).await.map_err(|error| problem(error, &SERVER))?;
    dash.record_done(&caller, "cluster.resume", "cluster").await;
    Ok(ApiJson(resumed))
}

pub(super) async fn remove_orphan(
    State(dash): Shared,
    Extension(caller): Who,
    ApiPath(id): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    let id: InstanceId = id.parse().map_err(|_| Problem::not_found("there is no orphan of this id"))?;
    dash.remove_at_server(&caller, &format!("/v1/orphans/{id}"), "orphan.remove", &format!("instance/{id}")).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn routers(State(dash): Shared) -> Answer<Value> {
    Ok(ApiJson(dash.ask_server("/v1/routers", LIMIT).await?))
}

pub(super) async fn forget_router(
    State(dash): Shared,
    Extension(caller): Who,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    let segment: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    dash.remove_at_server(&caller, &format!("/v1/routers/{segment}"), "router.forget", &format!("router/{name}"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn users(State(dash): Shared, ApiQuery(query): ApiQuery<PageQuery>) -> Answer<Page<UserInfo>> {
    Ok(ApiJson(dash.users(&list_query(&query)).await?))
}

pub(super) async fn create_user(
    State(dash): Shared,
    Extension(caller): Who,
    ApiJson(body): ApiJson<UserCreate>,
) -> Result<(StatusCode, ApiJson<UserInfo>), Problem> {
    let info = dash.at_uic(&caller, Method::POST, "/v1/users", Some(&body)).await?;
    Ok((StatusCode::CREATED, ApiJson(info)))
}

pub(super) async fn patch_user(
    State(dash): Shared,
    Extension(caller): Who,
    ApiPath(name): ApiPath<String>,
    ApiJson(body): ApiJson<UserPatch>,
) -> Answer<UserInfo> {
    Ok(ApiJson(dash.at_uic(&caller, Method::PATCH, &people::user_path(&name), Some(&body)).await?))
}

pub(super) async fn remove_user(
    State(dash): Shared,
    Extension(caller): Who,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    dash.remove_user(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn teams(State(dash): Shared, ApiQuery(query): ApiQuery<PageQuery>) -> Answer<Page<TeamInfo>> {
    Ok(ApiJson(dash.teams(&list_query(&query)).await?))
}

pub(super) async fn create_team(
    State(dash): Shared,
    Extension(caller): Who,
    ApiJson(body): ApiJson<TeamCreate>,
) -> Result<(StatusCode, ApiJson<TeamInfo>), Problem> {
    let info = dash.at_uic(&caller, Method::POST, "/v1/teams", Some(&body)).await?;
    Ok((StatusCode::CREATED, ApiJson(info)))
}

pub(super) async fn remove_team(
    State(dash): Shared,
    Extension(caller): Who,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    dash.remove_team(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn put_member(
    State(dash): Shared,
    Extension(caller): Who,
    ApiPath((team, user)): ApiPath<(String, String)>,
    ApiJson(body): ApiJson<MemberPut>,
) -> Answer<TeamInfo> {
    Ok(ApiJson(dash.at_uic(&caller, Method::PUT, &people::member_path(&team, &user), Some(&body)).await?))
}

pub(super) async fn remove_member(
    State(dash): Shared,
    Extension(caller): Who,
    ApiPath((team, user)): ApiPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    dash.at_uic::<(), ()>(&caller, Method::DELETE, &people::member_path(&team, &user), None).await?;
    Ok(StatusCode::NO_CONTENT)
}
