//! Signing in: the form, and the password that is compared.

use super::{error, html, record};
use crate::Uic;
use crate::oauth::CodeRequest;
use crate::sessions::COOKIE;
use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::credentials::Secret;
use dinp_common::problem::Problem;
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
pub(super) const WRONG: &str = "The name or the password is wrong.";

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

/// Where to go after signing in: on with a client's request, or to the account; never to another site.
fn safe_next(next: &str) -> &str {
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if plain && next.starts_with("/oauth/authorize?") { next } else { "/" }
}

/// The sign-in form.
pub(super) fn login_form(uic: &Uic, headers: &HeaderMap, next: &str, name: &str, message: Option<&str>) -> Response {
    // The secret in the cookie is only compared with the form; the credential type draws and checks it.
    let kept = uic.cookies.get(headers, FORM_COOKIE).and_then(|text| text.parse::<Credential>().ok());
    let credential = kept.unwrap_or_else(|| Credential::generate(CredentialKind::Session, "form"));
    let csrf = web::form_token(credential.secret.expose());
    let status = if message.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let next = safe_next(next);
    let for_cli = CodeRequest::to_be_asked(uic, next).is_some();
    let mut response = html(status, &LoginPage { csrf: &csrf, next, for_cli, name, error: message });
    let cookie = uic.cookies.set(FORM_COOKIE, &credential.to_string(), FORM_TTL_SECS);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
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
            let mut response = match CodeRequest::to_be_asked(&uic, next) {
                Some(request) => request.allow(&uic, &session.name).await.unwrap_or_else(|problem| error(&problem)),
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
pub(super) async fn check_password(
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

#[cfg(test)]
mod tests {
    use super::*;

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
