//! Authorization code with PKCE (RFC 6749, RFC 7636), for two clients that are known from the start.
//!
//! A client that cannot be trusted with a redirect gets none: the browser is told. Everything else goes back to it as
//! OAuth's `error`. What a browser sees on the way is in [`crate::pages`].
//!
//! Where a browser is signed in, the dashboard gets its code at once. The command line gets none before the person has
//! said yes (RFC 8252, 8.6): any program on the machine could call itself that, and any page lead a browser here.

use crate::Uic;
use axum::Form;
use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dinp_common::api::uic::TokenReply;
use dinp_common::auth::{hash_matches, hex, secret_hash};
use dinp_common::problem::Problem;
use dinp_common::store::audit::{self, AuditEvent};
use dinp_common::store::session::{self, AuthCode, SessionKind};
use dinp_common::web::ClientAddress;
use http::{StatusCode, Uri};
use rand::TryRngCore;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use url::Url;

/// How long a code can be exchanged.
const CODE_TTL_SECS: u64 = 60;

/// Who may ask for codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// The dashboard.
    Dash,
    /// The command line.
    Cli,
}

impl Client {
    fn parse(id: &str) -> Option<Self> {
        match id {
            "dash" => Some(Self::Dash),
            "cli" => Some(Self::Cli),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Dash => "dash",
            Self::Cli => "cli",
        }
    }

    /// Whether a person has to say yes to each request: nothing proves that a native client is the one that it says.
    fn asks_first(self) -> bool {
        self == Self::Cli
    }

    /// Whether a code for this client may be sent there.
    fn may_redirect_to(self, uri: &str, dash_url: &Url) -> bool {
        match self {
            Self::Dash => uri == dash_callback(dash_url),
            Self::Cli => is_loopback_callback(uri),
        }
    }
}

/// The one address that codes for the dashboard go to.
fn dash_callback(dash_url: &Url) -> String {
    format!("{}/auth/callback", dash_url.as_str().trim_end_matches('/'))
}

/// `http://127.0.0.1:<port>/callback` or the same with `localhost`, and not a character more or less: without
/// a port it would be whoever serves port 80.
fn is_loopback_callback(uri: &str) -> bool {
    ["http://127.0.0.1:", "http://localhost:"].into_iter().any(|start| {
        let port = uri.strip_prefix(start).and_then(|rest| rest.strip_suffix("/callback")).unwrap_or_default();
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// Query of the authorization endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AuthorizeQuery {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    state: Option<String>,
    code_challenge: String,
    code_challenge_method: String,
}

/// What is wrong with a request whose client and redirect are sound, as OAuth's error and description.
fn check_authorize(query: &AuthorizeQuery) -> Result<(), (&'static str, &'static str)> {
    if query.response_type != "code" {
        return Err(("unsupported_response_type", "response_type must be code"));
    }
    if query.code_challenge_method != "S256" {
        return Err(("invalid_request", "code_challenge_method must be S256"));
    }
    let is_challenge = query.code_challenge.len() == 43
        && query.code_challenge.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !is_challenge {
        return Err(("invalid_request", "code_challenge must be 43 characters of base64url"));
    }
    if query.state.as_ref().is_some_and(|state| state.len() > 512) {
        return Err(("invalid_request", "state is too long"));
    }
    Ok(())
}

/// A sound request for a code: the client is known, and the answer goes to an address of its own.
pub(crate) struct CodeRequest {
    client: Client,
    query: AuthorizeQuery,
    /// Path and query that it came with.
    pub(crate) path: String,
}

/// Where the reason goes why a request for a code is not sound.
pub(crate) enum Refused {
    /// To the browser's own person: where the answer would go cannot be trusted.
    Here(Problem),
    /// Back to the client.
    Back(Response),
}

impl CodeRequest {
    /// The request that an address of the authorization endpoint holds.
    pub(crate) fn read(uic: &Uic, uri: &Uri) -> Result<Self, Box<Refused>> {
        let refuse = |kind, detail: &str| Box::new(Refused::Here(Problem::bad_request(kind, detail)));
        let Ok(Query(query)) = Query::<AuthorizeQuery>::try_from_uri(uri) else {
            return Err(refuse("invalid-request", "the sign-on request is malformed; start again"));
        };
        let client = Client::parse(&query.client_id);
        let client = client.filter(|client| client.may_redirect_to(&query.redirect_uri, &uic.dash_url));
        let Some(client) = client else {
            let detail = "the program that asks you to sign in is not known here, or wants the answer sent to an \
                          address that is not its own; check dash.public_url and uic.public_url in dinp.toml";
            return Err(refuse("invalid-client", detail));
        };
        let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let request = Self { client, query, path };
        match check_authorize(&request.query) {
            Ok(()) => Ok(request),
            Err((error, description)) => {
                let told = request.back(&[("error", error), ("error_description", description)]);
                Err(Box::new(told.map_or_else(Refused::Here, Refused::Back)))
            }
        }
    }

    /// The request at this address, if it is one that a person has to say yes to.
    pub(crate) fn to_be_asked(uic: &Uic, address: &str) -> Option<Self> {
        let request = Self::read(uic, &address.parse().ok()?).ok()?;
        request.asks_first().then_some(request)
    }

    /// Whether a person has to say yes to it.
    pub(crate) fn asks_first(&self) -> bool {
        self.client.asks_first()
    }

    /// Where the answer goes.
    pub(crate) fn redirect_uri(&self) -> &str {
        &self.query.redirect_uri
    }

    /// Gives the client a code that stands for a browser's session.
    pub(crate) async fn allow(&self, uic: &Uic, session_id: &str) -> Result<Response, Problem> {
        let code = issue_code(uic, session_id, self).await?;
        self.back(&[("code", &code)])
    }

    /// Tells the client that the person has said no.
    pub(crate) fn deny(&self) -> Result<Response, Problem> {
        self.back(&[("error", "access_denied"), ("error_description", "it was cancelled in the browser")])
    }

    /// Sends the browser back to the client.
    fn back(&self, values: &[(&str, &str)]) -> Result<Response, Problem> {
        let url = Url::parse(&self.query.redirect_uri);
        let mut url = url.map_err(|_| Problem::bad_request("invalid-client", "the redirect address is not a URL"))?;
        url.query_pairs_mut().extend_pairs(values);
        if let Some(state) = &self.query.state {
            url.query_pairs_mut().append_pair("state", state);
        }
        Ok(Redirect::to(url.as_str()).into_response())
    }
}

async fn issue_code(uic: &Uic, session_id: &str, request: &CodeRequest) -> Result<String, Problem> {
    let mut bytes = [0_u8; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the kernel's random source works");
    let code = hex(&bytes);
    let row = AuthCode {
        session_id: session_id.to_owned(),
        client: request.client.as_str().to_owned(),
        redirect_uri: request.query.redirect_uri.clone(),
        challenge: request.query.code_challenge.clone(),
    };
    let mut conn = uic.conn().await?;
    session::insert_code(&mut conn, &secret_hash(&code), &row, CODE_TTL_SECS).await?;
    Ok(code)
}

/// Form of the token endpoint.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct TokenForm {
    grant_type: String,
    code: String,
    redirect_uri: String,
    client_id: String,
    code_verifier: String,
}

/// An error as RFC 6749 5.2 wants it.
fn refuse(error: &str, description: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": error, "error_description": description}))).into_response()
}

/// Whether a verifier meets a challenge.
fn meets(verifier: &str, challenge: &str) -> bool {
    let computed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    (43..=128).contains(&verifier.len()) && hash_matches(computed.as_bytes(), challenge.as_bytes())
}

/// `POST /oauth/token`.
pub(crate) async fn token(
    State(uic): State<Arc<Uic>>,
    ClientAddress(client_address): ClientAddress,
    Form(form): Form<TokenForm>,
) -> Result<Response, Problem> {
    if form.grant_type != "authorization_code" {
        return Ok(refuse("unsupported_grant_type", "grant_type must be authorization_code"));
    }
    let Some(client) = Client::parse(&form.client_id) else {
        return Ok(refuse("invalid_client", "client_id is not known"));
    };
    let mut conn = uic.conn().await?;
    let code = session::take_code(&mut conn, &secret_hash(&form.code)).await?;
    let sound = code.filter(|code| {
        code.client == client.as_str()
            && code.redirect_uri == form.redirect_uri
            && meets(&form.code_verifier, &code.challenge)
    });
    let Some(code) = sound else {
        return Ok(refuse("invalid_grant", "the code is not valid: used, too old, or meant for another client"));
    };
    let ended = || refuse("invalid_grant", "the sign-on that the code stands for has ended");
    let browser = session::find(&mut conn, &code.session_id, SessionKind::Browser).await?;
    let Some(browser) = browser.filter(|browser| !browser.user.suspended) else { return Ok(ended()) };
    let ttl = match client {
        Client::Dash => uic.config.access_token_secs,
        Client::Cli => uic.config.cli_token_secs,
    };
    let credential = uic.begin_access(&mut conn, &browser, client.as_str(), ttl).await?;
    let Some(credential) = credential else { return Ok(ended()) };
    let event = AuditEvent {
        actor: &browser.user.name,
        address: &client_address.to_string(),
        action: "session.token",
        object: &format!("user/{}", browser.user.name),
        detail: client.as_str(),
    };
    audit::write(&mut conn, &event).await?;
    let reply = TokenReply { access_token: credential.to_string(), token_type: "Bearer".to_owned(), expires_in: ttl };
    Ok(Json(reply).into_response())
}

/// Form of the revocation endpoint.
#[derive(Deserialize)]
pub(crate) struct RevokeForm {
    token: String,
}

/// `POST /oauth/revoke`: 200 whether there was a session or not (RFC 7009).
pub(crate) async fn revoke(State(uic): State<Arc<Uic>>, Form(form): Form<RevokeForm>) -> Result<StatusCode, Problem> {
    uic.revoke(&form.token).await?;
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_to_known_addresses_only() {
        let dash = Url::parse("http://dash.example:1985/").unwrap();
        assert!(Client::Dash.may_redirect_to("http://dash.example:1985/auth/callback", &dash));
        for bad in [
            "http://dash.example:1985/auth/callback/",
            "http://dash.example:1985/auth/callback?x=1",
            "",
            "http://evil.example/auth/callback",
            "http://dash.example:1985@evil.example/auth/callback",
        ] {
            assert!(!Client::Dash.may_redirect_to(bad, &dash), "{bad}");
        }
        for good in ["http://127.0.0.1:33333/callback", "http://localhost:1/callback"] {
            assert!(Client::Cli.may_redirect_to(good, &dash), "{good}");
        }
        for bad in [
            "http://127.0.0.1/callback",
            "http://localhost/callback",
            "http://[::1]/callback",
            "http://[::1]:80/callback",
            "http://127.0.0.1:99999/callback",
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:1/callback2",
            "http://127.0.0.1.evil.example/callback",
            "http://127.0.0.1:1@evil.example/callback",
            "https://127.0.0.1:1/callback",
            "http://localhost:/callback",
            "http://localhost:+1/callback",
        ] {
            assert!(!Client::Cli.may_redirect_to(bad, &dash), "{bad}");
        }
    }

    #[test]
    fn a_verifier_meets_its_own_challenge() {
        // The pair of RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(meets(verifier, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));
        assert!(!meets(verifier, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cN"));
        assert!(!meets("short", &URL_SAFE_NO_PAD.encode(Sha256::digest(b"short"))));
    }

    #[test]
    fn requests_without_pkce_are_refused() {
        let good = AuthorizeQuery {
            response_type: "code".into(),
            code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".into(),
            code_challenge_method: "S256".into(),
            ..AuthorizeQuery::default()
        };
        assert!(check_authorize(&good).is_ok());
        let plain = AuthorizeQuery { code_challenge_method: "plain".into(), ..good.clone() };
        assert_eq!(check_authorize(&plain).unwrap_err().0, "invalid_request");
        let none = AuthorizeQuery { code_challenge: String::new(), ..good.clone() };
        assert_eq!(check_authorize(&none).unwrap_err().0, "invalid_request");
        let token = AuthorizeQuery { response_type: "token".into(), ..good };
        assert_eq!(check_authorize(&token).unwrap_err().0, "unsupported_response_type");
    }
}
