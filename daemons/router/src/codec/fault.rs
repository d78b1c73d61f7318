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
    const fn new(status: StatusCode, code: &'static str, text: &'static str) -> Self {
        Self { status, code, text }
    }

    pub(crate) const fn bad(text: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", text)
    }

    pub(crate) const TOO_LARGE: Self = Self::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "header_too_large",
        "the header of the request is too large",
    );
    pub(crate) const SLOW_HEAD: Self =
        Self::new(StatusCode::REQUEST_TIMEOUT, "header_timeout", "the header of the request did not arrive in time");
    pub(crate) const SLOW_BODY: Self =
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body of the request did not arrive in time");
    pub(super) const VERSION: Self =
        Self::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "bad_request", "only HTTP/1.0 and HTTP/1.1 are spoken here");
    pub(super) const CONNECT: Self =
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "bad_request", "CONNECT is not for this server");
}
