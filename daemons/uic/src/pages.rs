//! What a browser sees, module by module: [`sign_in`], [`consent`] to a client, the own [`account`].

pub(crate) mod account;
pub(crate) mod consent;
pub(crate) mod sign_in;

use crate::Uic;
use crate::sessions::Browser;
use askama::Template;
use axum::response::{Html, IntoResponse, Redirect, Response};
use dinp_common::problem::Problem;
use dinp_common::store::audit::{self, AuditEvent};
use dinp_common::web;
use http::{HeaderMap, StatusCode, header};
use std::net::IpAddr;

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    title: &'a str,
    detail: &'a str,
}

fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// A problem as a page.
pub(crate) fn error(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    html(status, &ErrorPage { title: &problem.title, detail: &problem.detail })
}

/// `GET /assets/style.css`.
pub(crate) async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, web::STYLE).into_response()
}

/// A problem as who asks for this address can read it: people get a page, programs a document.
pub(crate) fn refuse(path: &str, problem: Problem) -> Response {
    let for_programs = path.starts_with("/v1/") || path.starts_with("/oauth/");
    if for_programs && path != "/oauth/authorize" { problem.into_response() } else { error(&problem) }
}

/// What there is no page for.
pub(crate) async fn not_found(uri: http::Uri) -> Response {
    refuse(uri.path(), Problem::not_found("there is nothing at this address"))
}

fn role_word(browser: &Browser) -> String {
    format!("{:?}", browser.session.user.role).to_lowercase()
}

/// The signed-in browser that sent a form of its own; otherwise the answer to give. `anew` is where one that is not
/// signed in goes.
pub(crate) async fn sender(uic: &Uic, headers: &HeaderMap, csrf: &str, anew: &str) -> Result<Browser, Response> {
    web::require_same_origin(headers, &uic.public_url).map_err(|problem| error(&problem))?;
    let browser = uic.browser(headers).await.map_err(|problem| error(&problem))?;
    let Some(browser) = browser else { return Err(Redirect::to(anew).into_response()) };
    if !web::is_form_token(browser.credential.secret.expose(), csrf) {
        let detail = "this form is not of this session; open the page again and send it from there";
        return Err(error(&Problem { kind: "cross-site".into(), ..Problem::forbidden(detail) }));
    }
    Ok(browser)
}

async fn record(conn: &mut mysql_async::Conn, name: &str, client: IpAddr, action: &str) -> Result<(), Problem> {
    let (object, address) = (format!("user/{name}"), client.to_string());
    let event = AuditEvent { actor: name, address: &address, action, object: &object, detail: "browser" };
    Ok(audit::write(conn, &event).await?)
}
