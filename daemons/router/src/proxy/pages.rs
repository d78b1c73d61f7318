//! The router's own answers: short plain pages with the reason in a header.

use super::body::ResponseBody;
use crate::gate::{Busy, Fault};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// Says why the router itself has answered.
const X_DINP_ERROR: HeaderName = HeaderName::from_static("x-dinp-error");

/// Why the router answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is not to be served; the connection ends.
    Fault(Fault),
    /// There has never been a table.
    NoTable,
    /// No app answers to the host.
    UnknownHost,
    /// The app was stopped by a person.
    Stopped,
    /// The app has no instance.
    NoInstances,
    /// No connection could be made to any instance.
    NoConnection,
    /// The connection ended before an answer.
    NoAnswer,
    /// What came is no answer.
    BadAnswer,
    /// The deadline has passed.
    TimedOut,
}

impl Refusal {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Fault(Fault { status, code, text }) => (status, code, text),
            Self::NoTable => (StatusCode::SERVICE_UNAVAILABLE, "no_table", "this router has no routes yet"),
            Self::UnknownHost => (StatusCode::NOT_FOUND, "unknown_host", "no app answers to this host name"),
            Self::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "no_instances", "this app is stopped"),
            Self::NoInstances => (StatusCode::SERVICE_UNAVAILABLE, "no_instances", "this app has no running instance"),
            Self::NoConnection => (StatusCode::BAD_GATEWAY, "no_connection", "no instance of this app can be reached"),
            Self::NoAnswer => (StatusCode::BAD_GATEWAY, "no_answer", "the app ended the connection without an answer"),
            Self::BadAnswer => (StatusCode::BAD_GATEWAY, "bad_answer", "what the app answered is not HTTP"),
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "timeout", "the app did not answer in time"),
        }
    }

    /// The reason as it stands in the header and in metrics.
    pub(crate) fn code(self) -> &'static str {
        self.parts().1
    }

    /// The answer.
    pub(crate) fn page(self, busy: Busy) -> Response<ResponseBody> {
        let (status, code, text) = self.parts();
        let line = format!("{} {}: {text}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
        let mut response = Response::new(ResponseBody::page(Bytes::from(line), busy));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_DINP_ERROR, HeaderValue::from_static(code));
        if matches!(self, Self::Fault(_)) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
