//! What the daemons with pages share: who calls, cookies, protection against forged requests, response headers, a
//! deadline.

mod client;
mod cookies;

pub use client::{ClientAddress, know_client};
pub use cookies::Cookies;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use sha2::{Digest, Sha256};
use std::time::Duration;
use url::Url;

use crate::auth::{hash_matches, hex};
use crate::listen::Handlers;
use crate::problem::Problem;

/// The style sheet of all pages.
pub const STYLE: &str = include_str!("web.css");

/// The token that a form must carry, made from a secret that only the browser and this daemon have.
pub fn form_token(secret: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"dinp form token\0");
    hasher.update(secret.as_bytes());
    hex(&hasher.finalize())
}

/// Whether a form carries the token of this secret.
pub fn is_form_token(secret: &str, token: &str) -> bool {
    hash_matches(form_token(secret).as_bytes(), token.as_bytes())
}

/// Refuses a request that another site's page has caused: 403 `cross-site`.
///
/// Browsers say where a request comes from in `Sec-Fetch-Site`, older ones in `Origin`; a client that says neither
/// is no browser, and the form's token decides. Behind [`know_client`], `X-Forwarded-Proto` is a trusted proxy's.
pub fn require_same_origin(headers: &HeaderMap, public_url: &Url) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let refused = || {
        let problem =
            Problem::forbidden("this form was sent by another site; open the page again and send it from there");
        Err(Problem { kind: "cross-site".into(), ..problem })
    };
    match text(HeaderName::from_static("sec-fetch-site")) {
        Some("same-origin" | "none") | None => {}
        Some(_) => return refused(),
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let scheme = text(client::X_FORWARDED_PROTO).unwrap_or("http");
    let of_host = text(header::HOST).is_some_and(|host| origin == format!("{scheme}://{host}"));
    if of_host || origin == public_url.origin().ascii_serialization() { Ok(()) } else { refused() }
}

/// Middleware that adds the headers every page and answer of ours bears: no framing, no sniffing, no foreign content,
/// no referrer, and no copy in caches unless the handler says otherwise.
///
/// `form_targets` are the origins besides our own that a form may end at by way of redirects.
pub async fn secure_headers(form_targets: &str, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self' {form_targets}; frame-ancestors 'none'; base-uri 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Runs the rest with a deadline, so that a database that hangs is an answer and not silence: 503 `timeout`. What may
/// change something is not cut off by it, but goes on to its end.
pub async fn within_deadline(limit: Duration, request: Request, next: Next) -> Result<Response, Problem> {
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let handlers = request.extensions().get::<Handlers>().filter(|_| !only_reads).cloned();
    let late = "the answer took too long: something that it needs does not respond";
    let (answered, detail) = match handlers {
        None => (tokio::time::timeout(limit, next.run(request)).await, late.to_owned()),
        Some(handlers) => {
            let answer = tokio::time::timeout(limit, handlers.run(next.run(request))).await;
            (answer, format!("{late}; what you have asked for may still be done, look before you ask again"))
        }
    };
    answered.map_err(|_| {
        tracing::error!("request not answered in time");
        Problem::unavailable("timeout", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn forms_of_other_sites_are_refused() {
        let url = Url::parse("http://dash.example:1985").unwrap();
        let check = |pairs: &[(&'static str, &str)]| require_same_origin(&headers(pairs), &url).is_ok();
        assert!(check(&[]));
        assert!(check(&[("sec-fetch-site", "same-origin"), ("origin", "http://dash.example:1985")]));
        assert!(check(&[("host", "127.0.0.1:1985"), ("origin", "http://127.0.0.1:1985")]));
        assert!(!check(&[("host", "127.0.0.1:1985"), ("origin", "https://127.0.0.1:1985")]));
        let by_tls = ("x-forwarded-proto", "https");
        assert!(check(&[("host", "other.example"), ("origin", "https://other.example"), by_tls]));
        assert!(!check(&[("sec-fetch-site", "cross-site")]));
        assert!(!check(&[("sec-fetch-site", "same-site")]));
        assert!(!check(&[("host", "dash.example:1985"), ("origin", "http://evil.example")]));
        assert!(!check(&[("origin", "null")]));
    }

    #[test]
    fn a_form_token_belongs_to_one_secret() {
        assert!(is_form_token("a", &form_token("a")));
        assert!(!is_form_token("b", &form_token("a")));
        assert!(!is_form_token("a", ""));
    }
}
