//! The router's own answers: short pages in the form that the client prefers, with the reason in a header.

use super::form::Form;
use crate::codec::{Fault, Request};
use dinp_common::problem::{self, Problem};
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
    /// All instances have as much to do as they may, and enough requests wait or this one has waited long enough.
    Overloaded,
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
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "this app has more to do than it can"),
            Self::NoConnection => (StatusCode::BAD_GATEWAY, "no_connection", "no instance of this app can be reached"),
            Self::NoAnswer => (StatusCode::BAD_GATEWAY, "no_answer", "the app ended the connection without an answer"),
            Self::BadAnswer => (StatusCode::BAD_GATEWAY, "bad_answer", "what the app answered is not HTTP"),
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "timeout", "the app did not answer in time"),
        }
    }

    /// The status of the answer.
    pub(crate) fn status(self) -> u16 {
        self.parts().0.as_u16()
    }

    /// The reason as it stands in the header and in metrics.
    pub(crate) fn code(self) -> &'static str {
        self.parts().1
    }

    /// The answer, whole. `goes_on` says that another request may come after it.
    pub(crate) fn page(self, reader: Option<&Reader<'_>>, goes_on: bool) -> Vec<u8> {
        let (status, code, text) = self.parts();
        let (number, reason) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
        let connection = match reader {
            _ if !goes_on => "connection: close\r\n",
            Some(reader) if reader.request.is_old => "connection: keep-alive\r\n",
            _ => "",
        };
        let id = reader.map(|reader| format!("x-request-id: {}\r\n", reader.id)).unwrap_or_default();
        let form = reader.map(|reader| reader.form).unwrap_or_default();
        let (kind, body) = match form {
            Form::Text => ("text/plain; charset=utf-8", format!("{number} {reason}: {text}\n")),
            Form::Html => ("text/html; charset=utf-8", html(number, reason, text, reader.map(|reader| reader.id))),
            Form::Json => {
                let mut problem = Problem::new(status, code.replace('_', "-"), text);
                if let Some(reader) = reader {
                    problem.extra.insert("request_id".to_owned(), reader.id.into());
                }
                (problem::CONTENT_TYPE, serde_json::to_string(&problem).unwrap_or_default() + "\n")
            }
        };
        let mut page = format!(
            "HTTP/1.1 {number} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
             cache-control: no-store\r\nx-dinp-error: {code}\r\n{id}{connection}date: {date}\r\n\r\n",
            length = body.len(),
            date = httpdate::fmt_http_date(SystemTime::now()),
        );
        if !reader.is_some_and(|reader| reader.request.is_head) {
            page += &body;
        }
        page.into_bytes()
    }
}

/// Who reads an answer of the router's own: a request that is understood.
pub(crate) struct Reader<'a> {
    pub(crate) request: &'a Request,
    pub(crate) id: &'a str,
    pub(crate) form: Form,
}

/// For a browser: no script, nothing that it would have to fetch, and an end of its own whatever app is behind it.
fn html(number: u16, reason: &str, text: &str, id: Option<&str>) -> String {
    let id = id.map(|id| format!("<p><small>request {}</small>", escaped(id))).unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{number} {reason}</title>\
         <body style=\"font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem\">\
         <h1>{number} {reason}</h1><p>{text}.{id}\n"
    )
}

/// What a client has said of itself, as text of a page.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, one| {
        match one {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(one),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Scan;

    fn page(head: &str, id: &str) -> String {
        let Scan::Complete(request) = Request::scan(head.as_bytes(), 0, 8192) else { panic!("{head}") };
        let form = Form::preferred(head.as_bytes());
        String::from_utf8(Refusal::Stopped.page(Some(&Reader { request: &request, id, form }), true)).unwrap()
    }

    #[test]
    fn in_the_form_that_is_preferred() {
        for (accept, kind, body) in [
            ("*/*", "text/plain; charset=utf-8", "503 Service Unavailable: this app is stopped\n"),
            (
                "application/json",
                "application/problem+json",
                "{\"type\":\"urn:dinp:no-instances\",\"title\":\"No instances\",\"status\":503,\
                 \"detail\":\"this app is stopped\",\"request_id\":\"<i>\"}\n",
            ),
        ] {
            let page = page(&format!("GET / HTTP/1.1\r\nHost: a.x\r\nAccept: {accept}\r\n\r\n"), "<i>");
            let (head, rest) = page.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len())), "{head}");
            assert!(head.contains("x-dinp-error: no_instances\r\nx-request-id: <i>\r\n"), "{head}");
            assert_eq!(rest, body);
        }
        let page = page("GET / HTTP/1.1\r\nHost: a.x\r\nAccept: text/html\r\n\r\n", "<script>\"&");
        assert!(page.contains("<h1>503 Service Unavailable</h1><p>this app is stopped.<p>"), "{page}");
        assert!(page.contains("request &lt;script&gt;&quot;&amp;</small>"), "{page}");
    }

    #[test]
    fn to_a_head_and_to_what_is_not_understood() {
        let answer = page("HEAD / HTTP/1.1\r\nHost: a.x\r\n\r\n", "i");
        assert!(answer.ends_with("\r\n\r\n") && answer.contains("content-length: 45\r\n"), "{answer}");
        let refused = String::from_utf8(Refusal::Fault(Fault::bad("it is not")).page(None, false)).unwrap();
        assert!(refused.ends_with("\r\n\r\n400 Bad Request: it is not\n"), "{refused}");
        assert!(refused.contains("connection: close\r\n") && !refused.contains("x-request-id"), "{refused}");
    }
}
