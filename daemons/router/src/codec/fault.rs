//! Why a request is refused.

use http::StatusCode;

/// Why a request is refused; its connection ends with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    /// Machine-readable, for the header `x-dinp-error`.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) text: &'static str,
}

impl Fault {
    pub(crate) const fn bad(text: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "bad_request", text }
    }

    pub(crate) const TOO_LARGE: Self = Self {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        code: "header_too_large",
        text: "the header of the request is too large",
    };
    pub(crate) const SLOW_HEAD: Self = Self {
        status: StatusCode::REQUEST_TIMEOUT,
        code: "header_timeout",
        text: "the header of the request did not arrive in time",
    };
    pub(crate) const SLOW_BODY: Self = Self {
        status: StatusCode::REQUEST_TIMEOUT,
        code: "body_timeout",
        text: "the body of the request did not arrive in time",
    };
    pub(super) const VERSION: Self = Self {
        status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        code: "bad_request",
        text: "only HTTP/1.0 and HTTP/1.1 are spoken here",
    };
    pub(super) const CONNECT: Self =
        Self { status: StatusCode::METHOD_NOT_ALLOWED, code: "bad_request", text: "CONNECT is not for this server" };
}
