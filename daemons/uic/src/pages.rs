//! What a browser sees: signing in and out, saying yes to a client, the own account.

use crate::Uic;
use crate::oauth::{self, CodeRequest};
use crate::people::{self, Actor};
use crate::sessions::{Browser, COOKIE};
use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use dinp_common::api::uic::TeamMembership;
use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::credentials::Secret;
use dinp_common::problem::Problem;
use dinp_common::store::audit::{self, AuditEvent};
use dinp_common::store::session;
use dinp_common::store::user::{self, UserRow};
use dinp_common::web::{self, ClientAddress};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// Cookie that ties the sign-in form to the browser that got it.
const FORM_COOKIE: &str = "dinp_uic_form";
/// How long a sign-in form can be sent.
const FORM_TTL_SECS: u64 = 3600;
/// What is said whether the name or the password is wrong.
const WRONG: &str = "The name or the password is wrong.";

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    csrf: &'a str,
    next: &'a str,
    /// Whether the password says yes to the command line too, which the page must name then.
    for_cli: bool,
    name: &'a str,
    error: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage<'a> {
    csrf: &'a str,
    request: &'a CodeRequest,
    user: &'a UserRow,
    role: &'a str,
    lasts: &'a str,
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage<'a> {
    csrf: &'a str,
    user: &'a UserRow,
    role: &'a str,
    teams: &'a [TeamMembership],
    dash_url: &'a str,
    saved: bool,
    error: Option<&'a str>,
}

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

/// Where to go after signing in: on with a client's request, or to the account; never to another site.
fn safe_next(next: &str) -> &str {
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if plain && next.starts_with("/oauth/authorize?") { next } else { "/" }
}

/// The sign-in form.
pub(crate) fn login_form(uic: &Uic, headers: &HeaderMap, next: &str, name: &str, message: Option<&str>) -> Response {
    // The secret in the cookie is only compared with the form; the credential type draws and checks it.
    let kept = uic.cookies.get(headers, FORM_COOKIE).and_then(|text| text.parse::<Credential>().ok());
    let credential = kept.unwrap_or_else(|| Credential::generate(CredentialKind::Session, "form"));
    let csrf = web::form_token(credential.secret.expose());
    let status = if message.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let next = safe_next(next);
    let for_cli = oauth::to_be_asked(uic, next).is_some();
    let mut response = html(status, &LoginPage { csrf: &csrf, next, for_cli, name, error: message });
    let cookie = uic.cookies.set(FORM_COOKIE, &credential.to_string(), FORM_TTL_SECS);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

/// Asks whether the command line may sign in as the person whose browser this is.
pub(crate) fn consent(uic: &Uic, browser: &Browser, request: &CodeRequest) -> Response {
    let page = ConsentPage {
        csrf: &browser.form_token(),
        request,
        user: &browser.session.user,
        role: &role_word(browser),
        lasts: &in_words(uic.config.cli_token_secs),
    };
    html(StatusCode::OK, &page)
}

/// A time of five minutes or more.
fn in_words(secs: u64) -> String {
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    match secs {
        days if days >= 2 * DAY => format!("{} days", days / DAY),
        hours if hours >= 2 * HOUR => format!("{} hours", hours / HOUR),
        minutes => format!("{} minutes", minutes / 60),
    }
}

fn role_word(browser: &Browser) -> String {
    format!("{:?}", browser.session.user.role).to_lowercase()
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct LoginQuery {
    next: String,
}

/// `GET /login`.
pub(crate) async fn login(
    State(uic): State<Arc<Uic>>,
    headers: HeaderMap,
    Query(query): Query<LoginQuery>,
) -> Response {
    match uic.browser(&headers).await {
        Ok(Some(_)) => Redirect::to(safe_next(&query.next)).into_response(),
        Ok(None) => login_form(&uic, &headers, &query.next, "", None),
        Err(problem) => error(&problem),
    }
}

#[derive(Deserialize)]
pub(crate) struct LoginForm {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    next: String,
    username: String,
    password: String,
}

/// `POST /login`.
pub(crate) async fn sign_in(
    State(uic): State<Arc<Uic>>,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Response {
    if let Err(problem) = web::require_same_origin(&headers, &uic.public_url) {
        return error(&problem);
    }
    let name: String = form.username.trim().to_lowercase().chars().take(63).collect();
    let again = |message: &str| login_form(&uic, &headers, &form.next, &name, Some(message));
    let secret = uic.cookies.get(&headers, FORM_COOKIE).and_then(|text| text.parse::<Credential>().ok());
    if !secret.is_some_and(|secret| web::is_form_token(secret.secret.expose(), &form.csrf)) {
        return again("This form was open for too long, or cookies are switched off. Please try again.");
    }
    let outcome = check_password(&uic, &name, &form.password, client).await;
    let result = match &outcome {
        Ok(Ok(_)) => "ok",
        Ok(Err(_)) => "refused",
        Err(_) => "failed",
    };
    metrics::counter!("dinp_uic_logins_total", "result" => result).increment(1);
    let user = match outcome {
        Ok(Ok(user)) => user,
        Ok(Err(refusal)) => return again(&refusal),
        Err(problem) => return error(&problem),
    };
    match begin(&uic, &headers, &user, client).await {
        Ok(None) => again(WRONG),
        Ok(Some(session)) => {
            let next = safe_next(&form.next);
            // The page has said what the password is for: who has typed it there is not asked once more.
            let mut response = match oauth::to_be_asked(&uic, next) {
                Some(request) => request.allow(&uic, &session.name).await,
                None => Redirect::to(next).into_response(),
            };
            let begun = uic.cookies.set(COOKIE, &session.to_string(), uic.config.session_secs);
            let done = uic.cookies.remove(FORM_COOKIE);
            for cookie in [begun, done] {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(problem) => error(&problem),
    }
}

/// A try that the back-off counts, unless it is dropped before the password was compared.
struct Attempt<'a> {
    uic: &'a Uic,
    name: &'a str,
    address: IpAddr,
    compared: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.compared {
            self.uic.backoff.lock().unwrap_or_else(PoisonError::into_inner).withdraw(self.name, self.address);
        }
    }
}

/// The person whose name and password these are, or what to say instead.
async fn check_password(
    uic: &Uic,
    name: &str,
    password: &str,
    client: IpAddr,
) -> Result<Result<UserRow, String>, Problem> {
    let mut conn = uic.conn().await?;
    // MySQL takes some names for equal that are not, such as one with spaces after it: each would have tries of its own.
    let row = user::by_name(&mut conn, name).await?.filter(|row| row.name == name);
    let stored = row.as_ref().map(|row| row.password_hash.clone());
    // The connection is for others while the hash is computed.
    drop(conn);
    // Only here, so that a database that is away does not count as wrong passwords of all who try.
    let begun = {
        let mut backoff = uic.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        backoff.begin(name, client, Instant::now())
    };
    if let Err(wait) = begun {
        tracing::warn!(user = name, address = %client, "sign-on refused, too many failed tries");
        return Ok(Err(format!("Too many tries have failed. Please wait {} s and try again.", wait.as_secs() + 1)));
    }
    let mut attempt = Attempt { uic, name, address: client, compared: false };
    let right = uic.passwords.verify(Secret::new(password), stored).await?;
    attempt.compared = true;
    let Some(row) = row.filter(|_| right) else {
        tracing::info!(user = name, address = %client, "sign-on failed");
        return Ok(Err(WRONG.to_owned()));
    };
    uic.backoff.lock().unwrap_or_else(PoisonError::into_inner).succeeded(name, client);
    if row.suspended {
        return Ok(Err("This account is suspended. Please ask an administrator.".to_owned()));
    }
    Ok(Ok(row))
}

async fn begin(uic: &Uic, headers: &HeaderMap, user: &UserRow, client: IpAddr) -> Result<Option<Credential>, Problem> {
    let before = uic.browser(headers).await?;
    let mut conn = uic.conn().await?;
    if let Some(before) = before {
        session::remove(&mut conn, &before.session.id).await?;
    }
    let Some(session) = uic.begin_browser(&mut conn, user).await? else { return Ok(None) };
    record(&mut conn, &user.name, client, "session.begin").await?;
    Ok(Some(session))
}

async fn record(conn: &mut mysql_async::Conn, name: &str, client: IpAddr, action: &str) -> Result<(), Problem> {
    let (object, address) = (format!("user/{name}"), client.to_string());
    let event = AuditEvent { actor: name, address: &address, action, object: &object, detail: "browser" };
    Ok(audit::write(conn, &event).await?)
}

async fn account_page(uic: &Uic, browser: &Browser, saved: bool, message: Option<&str>) -> Response {
    let teams = async {
        let mut conn = uic.conn().await?;
        Ok::<_, Problem>(user::teams_of(&mut conn, browser.session.user.id).await?)
    };
    let teams = match teams.await {
        Ok(teams) => teams,
        Err(problem) => return error(&problem),
    };
    let page = AccountPage {
        csrf: &browser.form_token(),
        user: &browser.session.user,
        role: &role_word(browser),
        teams: &teams,
        dash_url: uic.dash_url.as_str(),
        saved,
        error: message,
    };
    let status = if message.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    html(status, &page)
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct AccountQuery {
    saved: Option<String>,
}

/// `GET /`.
pub(crate) async fn account(
    State(uic): State<Arc<Uic>>,
    headers: HeaderMap,
    Query(query): Query<AccountQuery>,
) -> Response {
    match uic.browser(&headers).await {
        Ok(Some(browser)) => account_page(&uic, &browser, query.saved.is_some(), None).await,
        Ok(None) => Redirect::to("/login").into_response(),
        Err(problem) => error(&problem),
    }
}

#[derive(Deserialize)]
pub(crate) struct LogoutForm {
    #[serde(default)]
    csrf: String,
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

/// `POST /logout`.
pub(crate) async fn sign_out(
    State(uic): State<Arc<Uic>>,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
    Form(form): Form<LogoutForm>,
) -> Response {
    let browser = match sender(&uic, &headers, &form.csrf, "/login").await {
        Ok(browser) => browser,
        Err(response) => return response,
    };
    let end = async {
        let mut conn = uic.conn().await?;
        uic.end_browser(&mut conn, &browser.session.id).await?;
        record(&mut conn, &browser.session.user.name, client, "session.end").await
    };
    if let Err(problem) = end.await {
        return error(&problem);
    }
    let mut response = Redirect::to("/login").into_response();
    response.headers_mut().append(header::SET_COOKIE, uic.cookies.remove(COOKIE));
    response
}

#[derive(Deserialize)]
pub(crate) struct PasswordForm {
    #[serde(default)]
    csrf: String,
    current: String,
    new: String,
    repeated: String,
}

/// `POST /password`.
pub(crate) async fn change_password(
    State(uic): State<Arc<Uic>>,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
    Form(form): Form<PasswordForm>,
) -> Response {
    let browser = match sender(&uic, &headers, &form.csrf, "/login").await {
        Ok(browser) => browser,
        Err(response) => return response,
    };
    let user = &browser.session.user;
    if form.new != form.repeated {
        return account_page(&uic, &browser, false, Some("The two new passwords differ.")).await;
    }
    match check_password(&uic, &user.name, &form.current, client).await {
        Ok(Ok(_)) => {}
        Ok(Err(refusal)) => {
            let refusal = if refusal == WRONG { "The current password is wrong.".to_owned() } else { refusal };
            return account_page(&uic, &browser, false, Some(&refusal)).await;
        }
        Err(problem) => return error(&problem),
    }
    let actor = Actor { name: user.name.clone(), address: client.to_string() };
    match people::change_own_password(&uic.pool, &uic.passwords, &actor, user, &browser.session.id, form.new).await {
        Ok(()) => Redirect::to("/?saved=1").into_response(),
        Err(problem) if problem.status == 422 => account_page(&uic, &browser, false, Some(&problem.detail)).await,
        Err(problem) => error(&problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_words() {
        assert_eq!([300, 7199, 86_400, 30 * 86_400].map(in_words), ["5 minutes", "119 minutes", "24 hours", "30 days"]);
    }

    #[test]
    fn signing_in_never_leads_to_another_site() {
        assert_eq!(safe_next("/oauth/authorize?client_id=dash&x=%2F"), "/oauth/authorize?client_id=dash&x=%2F");
        for bad in
            ["", "//evil.example", "https://evil.example", "/\\evil.example", "/oauth/authorize?\r\nx: y", "/other"]
        {
            assert_eq!(safe_next(bad), "/");
        }
    }
}
