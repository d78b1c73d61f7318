//! Signing in and out: authorization code with PKCE at uic; the access token goes into a cookie of ours.

use super::form::Sent;
use super::frame::Frame;
use super::{Oops, Page, Shared, html};
use crate::backend::{self, LIMIT, UIC};
use crate::guard::COOKIE;
use crate::{Caller, Dash};
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dinp_common::api::uic::TokenReply;
use dinp_common::auth::{hash_matches, hex};
use dinp_common::problem::Problem;
use http::{HeaderMap, Method, StatusCode, header};
use rand::TryRngCore;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

/// Cookie that remembers a sign-on under way.
const LOGIN_COOKIE: &str = "dinp_dash_login";
/// How long a sign-on may take.
const LOGIN_TTL_SECS: u64 = 900;

#[derive(Template)]
#[template(path = "signed_out.html")]
struct SignedOutPage {
    frame: Frame,
    failed: Option<String>,
}

/// Where to go after signing in: a page of ours, never another site.
fn safe_next(next: &str) -> &str {
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if plain && next.starts_with('/') && !next.starts_with("//") && next.len() <= 1024 { next } else { "/apps" }
}

fn random() -> String {
    let mut bytes = [0_u8; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the kernel's random source works");
    hex(&bytes)
}

/// A sign-on under way, as its cookie holds it.
#[derive(Debug, PartialEq, Eq)]
struct Attempt {
    state: String,
    verifier: String,
    next: String,
}

impl Attempt {
    fn cookie(&self) -> String {
        format!("{}.{}.{}", self.state, self.verifier, URL_SAFE_NO_PAD.encode(&self.next))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let (state, verifier, next) = (parts.next()?, parts.next()?, parts.next()?);
        let next = String::from_utf8(URL_SAFE_NO_PAD.decode(next).ok()?).ok()?;
        Some(Self { state: state.to_owned(), verifier: verifier.to_owned(), next })
    }
}

fn callback_url(dash: &Dash) -> String {
    format!("{}/auth/callback", dash.cluster.dash.public_url.as_str().trim_end_matches('/'))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct LoginQuery {
    next: String,
}

/// `GET /login`: on to uic.
pub(super) async fn login(State(dash): Shared, Query(query): Query<LoginQuery>) -> Page {
    let attempt = Attempt { state: random(), verifier: random(), next: safe_next(&query.next).to_owned() };
    let base = dash.cluster.uic.public_url.as_str().trim_end_matches('/');
    let mut url = Url::parse(&format!("{base}/oauth/authorize")).map_err(|error| Problem::internal(&error))?;
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", "dash"),
        ("redirect_uri", &callback_url(&dash)),
        ("state", &attempt.state),
        ("code_challenge", &URL_SAFE_NO_PAD.encode(Sha256::digest(attempt.verifier.as_bytes()))),
        ("code_challenge_method", "S256"),
    ]);
    let mut response = Redirect::to(url.as_str()).into_response();
    let cookie = dash.cookies.set(LOGIN_COOKIE, &attempt.cookie(), LOGIN_TTL_SECS);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CallbackQuery {
    code: String,
    state: String,
    error: String,
    error_description: String,
}

fn not_signed_in(detail: &str) -> Response {
    let page = SignedOutPage { frame: Frame::anonymous(), failed: Some(detail.to_owned()) };
    html(StatusCode::BAD_REQUEST, &page)
}

/// `GET /auth/callback`: uic sends the browser back here.
pub(super) async fn callback(State(dash): Shared, headers: HeaderMap, Query(query): Query<CallbackQuery>) -> Page {
    let attempt = dash.cookies.get(&headers, LOGIN_COOKIE).and_then(Attempt::parse);
    let Some(attempt) = attempt.filter(|attempt| hash_matches(attempt.state.as_bytes(), query.state.as_bytes())) else {
        return Ok(not_signed_in(
            "The sign-on took too long, was begun in another window, or cookies are switched off.",
        ));
    };
    if !query.error.is_empty() {
        let said: String = format!("{} {}", query.error, query.error_description).chars().take(300).collect();
        return Ok(not_signed_in(&format!("Sign-on was refused: {said}")));
    }
    let reply = match exchange(&dash, &attempt, &query.code).await {
        Ok(reply) => reply,
        Err(problem) if problem.status == 400 => {
            return Ok(not_signed_in("The code of this sign-on was used already or is too old."));
        }
        Err(problem) => return Err(Oops(problem)),
    };
    let mut response = Redirect::to(safe_next(&attempt.next)).into_response();
    let cookies = response.headers_mut();
    cookies.append(header::SET_COOKIE, dash.cookies.set(COOKIE, &reply.access_token, reply.expires_in));
    cookies.append(header::SET_COOKIE, dash.cookies.remove(LOGIN_COOKIE));
    Ok(response)
}

async fn exchange(dash: &Dash, attempt: &Attempt, code: &str) -> Result<TokenReply, Problem> {
    let callback = callback_url(dash);
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", callback.as_str()),
        ("client_id", "dash"),
        ("code_verifier", attempt.verifier.as_str()),
    ];
    let request = dash.uic.request(Method::POST, "/oauth/token").map_err(|error| backend::problem(error, &UIC))?;
    let response = backend::head(request.form(&form), Some(LIMIT), &UIC).await?;
    response.json().await.map_err(|error| Problem::internal(&error))
}

/// `POST /logout`: ends the sign-on at uic too.
pub(super) async fn logout(State(dash): Shared, Extension(caller): Extension<Caller>, Sent(_): Sent) -> Page {
    let request = dash.uic.request(Method::POST, "/oauth/revoke").map_err(|error| backend::problem(error, &UIC))?;
    let form = [("token", caller.token.expose())];
    backend::head(request.form(&form), Some(LIMIT), &UIC).await?;
    dash.tokens.forget(caller.token.expose());
    let mut response = Redirect::to("/signed-out").into_response();
    response.headers_mut().append(header::SET_COOKIE, dash.cookies.remove(COOKIE));
    Ok(response)
}

/// `GET /signed-out`.
pub(super) async fn signed_out() -> Response {
    html(StatusCode::OK, &SignedOutPage { frame: Frame::anonymous(), failed: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_on_under_way_survives_its_cookie() {
        let attempt = Attempt { state: random(), verifier: random(), next: "/apps/web?x=1&y=;".into() };
        assert_eq!(Attempt::parse(&attempt.cookie()), Some(attempt));
        assert_eq!(Attempt::parse("a.b"), None);
    }

    #[test]
    fn signing_in_never_leads_to_another_site() {
        assert_eq!(safe_next("/apps/web?tab=1"), "/apps/web?tab=1");
        for bad in ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb"] {
            assert_eq!(safe_next(bad), "/apps");
        }
    }
}
