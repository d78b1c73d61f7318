//! The pages: the list of their addresses with what each needs is [`crate::permissions::PAGES`].
//!
//! Rendered here, usable without scripts; a small script refreshes what is live and follows logs. The access token is
//! in a cookie that scripts cannot read; every form carries a token made from it and must come from our own pages.

mod app;
mod apps;
mod auth;
mod builds;
mod deploy;
mod form;
mod frame;
mod logs;
mod operators;
mod settings;
mod settings_form;
mod show;

use crate::api::DEADLINE;
use crate::guard::{Surface, within_deadline};
use crate::{Caller, Dash};
use askama::Template;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::web;
pub(crate) use frame::BannerCache;
use frame::Frame;
use http::{Method, StatusCode, header};
use std::sync::Arc;

/// Largest form but for packages.
const MAX_FORM: usize = 256 * 1024;

type Shared = State<Arc<Dash>>;
/// A page, or the problem that is shown as one.
type Page = Result<Response, Oops>;

/// A problem, shown as a page of its own.
pub(crate) struct Oops(Problem);

impl<E: Into<Problem>> From<E> for Oops {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Oops {
    fn into_response(self) -> Response {
        let problem = self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        html(status, &ErrorPage { frame: Frame::anonymous(), title: &problem.title, detail: &problem.detail })
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: Frame,
    title: &'a str,
    detail: &'a str,
}

/// A rendered template.
fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// Back to a page, which says in a line what was done.
fn done(path: &str, what: &str) -> Response {
    Redirect::to(&format!("{path}?done={what}")).into_response()
}

/// Back to the app's page, which shows how a deployment goes on.
fn to_app(row: &AppRow) -> Response {
    Redirect::to(&format!("/apps/{}", row.name)).into_response()
}

/// All pages.
pub(crate) fn router(dash: Arc<Dash>) -> Router {
    // Browsers apply form-action to the redirects that follow a form too, and a form may end at sign-on.
    let targets: Arc<str> = dash.cluster.uic.public_url.origin().ascii_serialization().into();
    let routes = endpoints().into_iter().fold(Router::new(), |router, (path, handlers)| router.route(path, handlers));
    routes
        .route_layer(middleware::from_fn_with_state(dash.clone(), guard))
        .fallback(nothing)
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn(|request, next| async {
            within_deadline(DEADLINE, request, next).await.map_err(Oops::from)
        }))
        .layer(middleware::from_fn(move |request, next| {
            let targets = targets.clone();
            async move { web::secure_headers(&targets, request, next).await }
        }))
        .with_state(dash)
}

fn endpoints() -> Vec<(&'static str, MethodRouter<Arc<Dash>>)> {
    vec![
        ("/", get(|| async { Redirect::to("/apps") })),
        ("/login", get(auth::login)),
        ("/auth/callback", get(auth::callback)),
        ("/signed-out", get(auth::signed_out)),
        ("/logout", post(auth::logout)),
        ("/assets/style.css", get(|| asset("text/css; charset=utf-8", web::STYLE))),
        ("/assets/live.js", get(|| asset("text/javascript; charset=utf-8", include_str!("../assets/live.js")))),
        ("/apps", get(apps::list).post(apps::create)),
        ("/apps/new", get(apps::new)),
        ("/apps/{app}", get(app::overview)),
        ("/apps/{app}/scale", post(app::scale)),
        ("/apps/{app}/state", post(app::state)),
        ("/apps/{app}/cancel", post(app::cancel)),
        ("/apps/{app}/events", get(app::events)),
        ("/apps/{app}/logs", get(logs::logs)),
        ("/apps/{app}/logs/stream", get(logs::stream)),
        ("/apps/{app}/delete", get(app::confirm_delete).post(app::delete)),
        ("/apps/{app}/deploy", get(deploy::form).post(deploy::deploy)),
        ("/apps/{app}/history", get(deploy::history)),
        ("/apps/{app}/rollback", post(deploy::rollback)),
        ("/apps/{app}/env", get(settings::env).post(settings::change_env)),
        ("/apps/{app}/domains", get(settings::domains).post(settings::add_domain)),
        ("/apps/{app}/domains/remove", post(settings::remove_domain)),
        ("/apps/{app}/upload", get(builds::upload_form).post(builds::upload).layer(DefaultBodyLimit::disable())),
        ("/builds", get(builds::list)),
        ("/builds/{id}", get(builds::show)),
        ("/builds/{id}/log", get(builds::log)),
        ("/builds/{id}/cancel", post(builds::cancel)),
        ("/builds/{id}/deploy", post(builds::deploy)),
        ("/nodes", get(operators::nodes)),
        ("/people", get(operators::people)),
        ("/people/users", post(operators::create_user)),
        ("/people/users/{name}", post(operators::change_user)),
        ("/people/teams", post(operators::create_team)),
        ("/people/teams/{name}", post(operators::change_team)),
    ]
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=3600")], text).into_response()
}

async fn nothing(uri: http::Uri) -> Response {
    let problem = Problem::not_found("there is nothing at this address");
    if uri.path().starts_with("/v1/") { problem.into_response() } else { Oops(problem).into_response() }
}

async fn guard(State(dash): Shared, request: Request, next: Next) -> Page {
    let (mut parts, body) = request.into_parts();
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if !reads {
        web::require_same_origin(&parts.headers, &dash.cluster.dash.public_url)?;
    }
    let here = parts.uri.path_and_query().map(|path| path.as_str()).filter(|_| reads).unwrap_or("/apps").to_owned();
    match dash.admit(Surface::Pages, &mut parts).await {
        Ok(()) => {}
        Err(problem) if problem.status == 401 => return Ok(to_sign_in(&here)),
        Err(problem) => {
            let frame = match parts.extensions.get::<Caller>() {
                Some(caller) => Frame::new(&dash, caller, "").await,
                None => Frame::anonymous(),
            };
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(html(status, &ErrorPage { frame, title: &problem.title, detail: &problem.detail }));
        }
    }
    let response = next.run(Request::from_parts(parts, body)).await;
    // uic may know of a sign-on's end before dash does.
    if response.status() == StatusCode::UNAUTHORIZED { Ok(to_sign_in(&here)) } else { Ok(response) }
}

/// Through sign-on to a page.
fn to_sign_in(page: &str) -> Response {
    let next: String = url::form_urlencoded::byte_serialize(page.as_bytes()).collect();
    Redirect::to(&format!("/login?next={next}")).into_response()
}
