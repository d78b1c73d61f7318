//! The endpoints of uic.
//!
//! | endpoint | who |
//! |---|---|
//! | `GET /` account page, `GET /login`, `POST /login`, `POST /logout`, `POST /password` | browsers |
//! | `GET /oauth/authorize`, and `POST` of the page that it shows | browsers, led there by the clients `dash` and `cli` |
//! | `POST /oauth/token`, `POST /oauth/revoke` | clients `dash` and `cli` |
//! | `POST /v1/introspect`, `GET /v1/users`, `GET /v1/users/{name}`, `GET /v1/teams` | service dash |
//! | `POST /v1/users`, `PATCH`, `DELETE /v1/users/{name}`, `POST /v1/teams`, `DELETE /v1/teams/{name}`, `PUT`, `DELETE /v1/teams/{name}/members/{user}` | service dash, with the access token of an admin in `X-Dinp-Access-Token` |
//! | `GET /health`, `/ready`, `/metrics` | anybody |
//!
//! The documents are those of [`dinp_common::api::uic`]. Where dash calls for a person, `X-Dinp-Client-Address` says
//! where the person is, for the audit log.

use crate::pages::{account, consent, sign_in};
use crate::people::{self, Actor};
use crate::{Uic, oauth, pages};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware;
use axum::routing::{get, patch, post, put};
use dinp_common::api::uic::{
    Introspect, Introspection, MemberPut, PlatformRole, TeamCreate, TeamInfo, UserCreate, UserInfo, UserPatch,
};
use dinp_common::api::{Page, PageQuery};
use dinp_common::auth::Role;
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use dinp_common::store::{team, user};
use dinp_common::web;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// Largest body of any request.
const MAX_BODY: usize = 64 * 1024;
/// Header with the access token of the person for whom dash calls.
const ACCESS_TOKEN: &str = "x-dinp-access-token";
/// Header with that person's address.
const CLIENT_ADDRESS: &str = "x-dinp-client-address";

/// All endpoints but those for operators.
pub fn router(uic: Arc<Uic>) -> Router {
    // Browsers apply form-action to the redirects that follow a form too, and signing in ends at the client.
    let targets = format!("{} http://127.0.0.1:* http://localhost:*", uic.dash_url.origin().ascii_serialization());
    let targets: Arc<str> = targets.into();
    let (deadline, trusted) = (uic.deadline, uic.config.trusted_proxies.clone());
    Router::new()
        .route("/", get(account::account))
        .route("/login", get(sign_in::login).post(sign_in::sign_in))
        .route("/logout", post(account::sign_out))
        .route("/password", post(account::change_password))
        .route("/assets/style.css", get(pages::style))
        .route("/oauth/authorize", get(consent::authorize).post(consent::consent))
        .route("/oauth/token", post(oauth::token))
        .route("/oauth/revoke", post(oauth::revoke))
        .route("/v1/introspect", post(introspect))
        .route("/v1/users", get(list_users).post(create_user))
        .route("/v1/users/{name}", patch(patch_user).delete(remove_user).get(show_user))
        .route("/v1/teams", get(list_teams).post(create_team))
        .route("/v1/teams/{name}", axum::routing::delete(remove_team))
        .route("/v1/teams/{name}/members/{user}", put(put_member).delete(remove_member))
        .fallback(pages::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(move |request: Request, next| async move {
            let path = request.uri().path().to_owned();
            let answer = web::within_deadline(deadline, request, next).await;
            answer.unwrap_or_else(|problem| pages::refuse(&path, problem))
        }))
        .layer(middleware::from_fn(move |request, next| {
            let targets = targets.clone();
            async move { web::secure_headers(&targets, request, next).await }
        }))
        .layer(middleware::from_fn(move |request, next| {
            let trusted = trusted.clone();
            async move { web::know_client(&trusted, request, next).await }
        }))
        .with_state(uic)
}

type Shared = State<Arc<Uic>>;

impl Uic {
    async fn require_dash(&self, headers: &HeaderMap) -> Result<(), Problem> {
        self.services.require(headers, &[Role::Dash]).await.map(drop)
    }

    /// The administrator for whom dash calls.
    async fn require_admin(&self, headers: &HeaderMap) -> Result<Actor, Problem> {
        self.require_dash(headers).await?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let token = text(ACCESS_TOKEN).ok_or_else(|| {
            Problem::forbidden("the access token of an administrator is needed").with("header", ACCESS_TOKEN)
        })?;
        let session = self.access(token).await?;
        let session = session.ok_or_else(|| Problem::unauthorized("the sign-on has ended; sign in again"))?;
        if session.user.role != PlatformRole::Admin {
            let detail =
                format!("{} is no administrator; users and teams are changed by administrators", session.user.name);
            return Err(Problem::forbidden(detail));
        }
        Ok(Actor { name: session.user.name, address: text(CLIENT_ADDRESS).unwrap_or_default().to_owned() })
    }
}

async fn introspect(
    State(uic): Shared,
    headers: HeaderMap,
    ApiJson(body): ApiJson<Introspect>,
) -> Result<ApiJson<Introspection>, Problem> {
    uic.require_dash(&headers).await?;
    let Some(session) = uic.access(&body.token).await? else {
        return Ok(ApiJson(Introspection { active: false, user: None, expires_at: None }));
    };
    let mut conn = uic.conn().await?;
    let teams = user::teams_of(&mut conn, session.user.id).await?;
    let expires_at = Some(session.expires_at);
    Ok(ApiJson(Introspection { active: true, user: Some(session.user.into_info(teams)), expires_at }))
}

/// A page of what was read with one entry more than asked for.
fn page<T>(mut items: Vec<T>, limit: u32, name: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = if more { items.last().map(name) } else { None };
    Page { items, next }
}

async fn list_users(
    State(uic): Shared,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<ApiJson<Page<UserInfo>>, Problem> {
    uic.require_dash(&headers).await?;
    let mut conn = uic.conn().await?;
    let users = user::list(&mut conn, query.after.as_deref().unwrap_or_default(), query.limit() + 1).await?;
    Ok(ApiJson(page(users, query.limit(), |user| user.name.clone())))
}

async fn show_user(
    State(uic): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<ApiJson<UserInfo>, Problem> {
    uic.require_dash(&headers).await?;
    Ok(ApiJson(people::find_user(&mut uic.conn().await?, &name).await?))
}

async fn create_user(
    State(uic): Shared,
    headers: HeaderMap,
    ApiJson(body): ApiJson<UserCreate>,
) -> Result<(StatusCode, ApiJson<UserInfo>), Problem> {
    let actor = uic.require_admin(&headers).await?;
    let name = body.name.clone();
    people::create_user(&uic.pool, &uic.passwords, &actor, body).await?;
    Ok((StatusCode::CREATED, ApiJson(people::find_user(&mut uic.conn().await?, &name).await?)))
}

async fn patch_user(
    State(uic): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
    ApiJson(body): ApiJson<UserPatch>,
) -> Result<ApiJson<UserInfo>, Problem> {
    let actor = uic.require_admin(&headers).await?;
    people::patch_user(&uic.pool, &uic.passwords, &actor, &name, body).await?;
    Ok(ApiJson(people::find_user(&mut uic.conn().await?, &name).await?))
}

async fn remove_user(State(uic): Shared, headers: HeaderMap, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let actor = uic.require_admin(&headers).await?;
    people::remove_user(&uic.pool, &actor, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_teams(
    State(uic): Shared,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<ApiJson<Page<TeamInfo>>, Problem> {
    uic.require_dash(&headers).await?;
    let mut conn = uic.conn().await?;
    let teams = team::list(&mut conn, query.after.as_deref().unwrap_or_default(), query.limit() + 1).await?;
    Ok(ApiJson(page(teams, query.limit(), |team| team.name.clone())))
}

async fn create_team(
    State(uic): Shared,
    headers: HeaderMap,
    ApiJson(body): ApiJson<TeamCreate>,
) -> Result<(StatusCode, ApiJson<TeamInfo>), Problem> {
    let actor = uic.require_admin(&headers).await?;
    people::create_team(&uic.pool, &actor, &body.name).await?;
    Ok((StatusCode::CREATED, ApiJson(TeamInfo { name: body.name, members: Vec::new() })))
}

async fn remove_team(State(uic): Shared, headers: HeaderMap, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let actor = uic.require_admin(&headers).await?;
    people::remove_team(&uic.pool, &actor, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_member(
    State(uic): Shared,
    headers: HeaderMap,
    Path((team, user)): Path<(String, String)>,
    ApiJson(body): ApiJson<MemberPut>,
) -> Result<ApiJson<TeamInfo>, Problem> {
    let actor = uic.require_admin(&headers).await?;
    Ok(ApiJson(people::set_member(&uic.pool, &actor, &team, &user, Some(body.role)).await?))
}

async fn remove_member(
    State(uic): Shared,
    headers: HeaderMap,
    Path((team, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let actor = uic.require_admin(&headers).await?;
    people::set_member(&uic.pool, &actor, &team, &user, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
