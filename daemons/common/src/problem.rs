//! Errors on the wire: RFC 9457 problem details.
//!
//! ```json
//! {"type": "urn:dinp:not-leader", "title": "Not the leader", "status": 503, "detail": "...", "leader": "http://..."}
//! ```

use std::error::Error;
use std::fmt;

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::ErrorChain;

/// Media type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Machine-readable kind, `not-leader`; on the wire `"type": "urn:dinp:not-leader"`.
    #[serde(rename = "type", with = "urn")]
    pub kind: String,
    /// The kind in words; the same for every occurrence.
    #[serde(default)]
    pub title: String,
    /// HTTP status.
    #[serde(default = "internal_status")]
    pub status: u16,
    /// This occurrence in words.
    #[serde(default)]
    pub detail: String,
    /// Further members, for programs.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Problem {
    /// Any problem; the title is made from the kind.
    pub fn new(status: StatusCode, kind: impl Into<String>, detail: impl Into<String>) -> Self {
        let kind = kind.into();
        let mut title = kind.replace('-', " ");
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self { kind, title, status: status.as_u16(), detail: detail.into(), extra: Map::new() }
    }

    /// 400: the request itself is malformed.
    pub fn bad_request(kind: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind, detail)
    }

    /// 401 `unauthorized`: no valid credential; carries `WWW-Authenticate: Bearer`.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403 `forbidden`: a valid credential that may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404 `not-found`.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 409: the state of the thing does not allow it.
    pub fn conflict(kind: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, detail)
    }

    /// 422: well-formed, but a value cannot be.
    pub fn unprocessable(kind: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind, detail)
    }

    /// 503: not now; try again, or elsewhere.
    pub fn unavailable(kind: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail)
    }

    /// 503 `not-leader`, with the leader's address where it is known: [`crate::client::ApiClient`] follows it.
    pub fn not_leader(leader: Option<&str>) -> Self {
        let problem = Self::unavailable("not-leader", "this server does not lead the cluster");
        match leader {
            Some(url) => problem.with("leader", url),
            None => problem,
        }
    }

    /// 500 `internal`: the chain is logged, the answer does not contain it.
    pub fn internal(error: &dyn Error) -> Self {
        tracing::error!(error = %ErrorChain(error), "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "an internal error occurred; it has been logged")
    }

    /// Adds a member for programs.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The member `name`, if it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.extra.get(name).and_then(Value::as_str)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() { f.write_str(&self.title) } else { f.write_str(&self.detail) }
    }
}

impl Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"dinp\""));
        }
        response
    }
}

fn internal_status() -> u16 {
    500
}

mod urn {
    use serde::{Deserialize, Deserializer, Serializer};

    const PREFIX: &str = "urn:dinp:";

    pub(super) fn serialize<S: Serializer>(kind: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{PREFIX}{kind}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(text.strip_prefix(PREFIX).unwrap_or(&text).to_owned())
    }
}

/// `axum::Json`, with a [`Problem`] that names the field where the body does not fit.
#[derive(Clone, Copy, Debug)]
pub struct ApiJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(rejected(&rejection)),
        }
    }
}

impl<T: Serialize> IntoResponse for ApiJson<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn rejected(rejection: &JsonRejection) -> Problem {
    match rejection {
        JsonRejection::JsonDataError(error) => {
            // The innermost wording is "<path>: <what>", or just "<what>" for the document as a whole.
            let text = innermost(error);
            let (path, what) = match text.split_once(": ") {
                Some((path, what)) if !path.contains(' ') => (path, what),
                _ => ("", text.as_str()),
            };
            let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            let unknown = what.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
            let field = match (path, missing) {
                ("" | ".", Some(name)) => name.to_owned(),
                (_, Some(name)) => format!("{path}.{name}"),
                ("" | ".", None) => unknown.unwrap_or_default().to_owned(),
                (_, None) => path.to_owned(),
            };
            // serde_json adds the position in the text, which tells a caller nothing.
            let what = what.split(" at line ").next().unwrap_or(what);
            if field.is_empty() {
                Problem::unprocessable("invalid-body", what)
            } else {
                Problem::unprocessable("invalid-body", format!("{field}: {what}")).with("field", field)
            }
        }
        JsonRejection::JsonSyntaxError(error) => Problem::bad_request("invalid-json", innermost(error)),
        JsonRejection::MissingJsonContentType(_) => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "the body must be application/json",
        ),
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large")
        }
        other => Problem::new(other.status(), "invalid-body", other.body_text()),
    }
}

/// The text of the second error of the chain: below axum's wording, above serde_json's own, which
/// does not know the path.
fn innermost(error: &dyn Error) -> String {
    let path_error = error.source().and_then(|inner| if inner.source().is_some() { Some(inner) } else { None });
    path_error.or_else(|| error.source()).unwrap_or(error).to_string()
}

/// `axum::extract::Query`, with a [`Problem`] as rejection.
#[derive(Clone, Copy, Debug)]
pub struct ApiQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::bad_request("invalid-query", innermost(&rejection))),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::json;

    use super::*;

    #[test]
    fn wire_form_and_back() {
        let problem = Problem::conflict("name-taken", "app web exists").with("app", "web");
        let wire = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            wire,
            json!({"type": "urn:dinp:name-taken", "title": "Name taken", "status": 409, "detail": "app web exists", "app": "web"})
        );
        assert_eq!(serde_json::from_value::<Problem>(wire).unwrap(), problem);
        assert_eq!(problem.text("app"), Some("web"));
    }

    #[test]
    fn response_headers() {
        let response = Problem::unauthorized("no credential").into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        #[serde(rename = "parts")]
        _parts: Vec<Part>,
    }

    #[derive(Debug, Deserialize)]
    struct Part {
        #[serde(rename = "count")]
        _count: u32,
    }

    async fn post(body: &str) -> Problem {
        let request = Request::builder()
            .method("POST")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        ApiJson::<Doc>::from_request(request, &()).await.unwrap_err()
    }

    #[tokio::test]
    async fn rejections_name_the_field() {
        let problem = post(r#"{"parts": [{"count": "x"}]}"#).await;
        assert_eq!((problem.status, problem.text("field")), (422, Some("parts[0].count")));
        assert_eq!(problem.detail, "parts[0].count: invalid type: string \"x\", expected u32");
        assert_eq!(post(r#"{"parts": [{}]}"#).await.text("field"), Some("parts[0].count"));
        assert_eq!(post("{}").await.text("field"), Some("parts"));
        assert_eq!(post(r#"{"part": 1}"#).await.text("field"), Some("part"));
        assert_eq!(post("{").await.kind, "invalid-json");
    }
}
