//! The router's own answers: short plain pages with the reason in a header.

use crate::codec::{Fault, Request};
use http::StatusCode;
use std::time::SystemTime;

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

    /// The answer, whole. `to` is the request and its id, where it is understood so far; `goes_on` says that another one
    /// may come after it.
    pub(crate) fn page(self, to: Option<(&Request, &str)>, goes_on: bool) -> Vec<u8> {
        let (status, code, text) = self.parts();
        let line = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
        let body = format!("{line}: {text}\n");
        let connection = match to {
            _ if !goes_on => "connection: close\r\n",
            Some((request, _)) if request.is_old => "connection: keep-alive\r\n",
            _ => "",
        };
        let id = to.map(|(_, id)| format!("x-request-id: {id}\r\n")).unwrap_or_default();
        let mut page = format!(
            "HTTP/1.1 {line}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
             cache-control: no-store\r\nx-dinp-error: {code}\r\n{id}{connection}date: {date}\r\n\r\n",
            length = body.len(),
            date = httpdate::fmt_http_date(SystemTime::now()),
        );
        if !to.is_some_and(|(request, _)| request.is_head) {
            page += &body;
        }
        page.into_bytes()
    }
}
