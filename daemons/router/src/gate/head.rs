//! Is the head of a request beyond doubt? What two parsers could read differently is an attack, so it is refused.

use http::StatusCode;

/// Header fields of one request.
const MAX_FIELDS: usize = 100;

/// How the bytes after a head are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; 0 for no body.
    Length(u64),
    /// Chunks.
    Chunked,
    /// None now, and another protocol if the app agrees to it.
    Upgrade,
}

/// Why a request is refused.
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
    const VERSION: Self = Self {
        status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        code: "bad_request",
        text: "only HTTP/1.0 and HTTP/1.1 are spoken here",
    };
    const CONNECT: Self =
        Self { status: StatusCode::METHOD_NOT_ALLOWED, code: "bad_request", text: "CONNECT is not for this server" };
}

/// What a scan of the bytes so far finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// A whole head: its first bytes to skip (empty lines before it), its end, its framing.
    Complete { skip: usize, end: usize, framing: Framing },
    /// Nothing wrong yet. Lines up to here have been looked at.
    Partial { scanned: usize },
    /// Not to be served.
    Fault(Fault),
}

/// Looks for the end of a head in `bytes`, of which the first `scanned` have been seen before.
pub(crate) fn scan(bytes: &[u8], scanned: usize, limit: usize) -> Scan {
    let skip = leading_empty_lines(bytes);
    if skip > 8 {
        return Scan::Fault(Fault::bad("there are empty lines before the request"));
    }
    let mut line = scanned.max(skip);
    while let Some(length) = bytes[line..].iter().position(|byte| *byte == b'\n') {
        let end = line + length;
        if end == line || bytes[end - 1] != b'\r' {
            return Scan::Fault(Fault::bad("a line does not end in CR LF"));
        }
        if end - 1 == line {
            let end = end + 1;
            if end - skip > limit {
                return Scan::Fault(Fault::TOO_LARGE);
            }
            return match check(&bytes[skip..end]) {
                Ok(framing) => Scan::Complete { skip, end, framing },
                Err(fault) => Scan::Fault(fault),
            };
        }
        line = end + 1;
    }
    if bytes.len() > limit {
        return Scan::Fault(Fault::TOO_LARGE);
    }
    Scan::Partial { scanned: line }
}

fn leading_empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2
}

/// Checks a whole head, with the empty line at its end.
fn check(head: &[u8]) -> Result<Framing, Fault> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Fields::default();
    let mut count = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        count += 1;
        if count > MAX_FIELDS {
            return Err(Fault::TOO_LARGE);
        }
        fields.add(line)?;
    }
    fields.finish(&request)
}

struct RequestLine<'a> {
    authority: Option<&'a [u8]>,
    old: bool,
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Fault> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Fault::bad("the request line is not METHOD TARGET VERSION"));
    };
    if method.is_empty() || method.len() > 32 || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Fault::bad("the method is not a word"));
    }
    if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#') {
        return Err(Fault::bad("the target holds characters that it may not"));
    }
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Fault::VERSION);
        }
        _ => return Err(Fault::bad("the request line does not end in a version of HTTP")),
    };
    if method == b"CONNECT" {
        return Err(Fault::CONNECT);
    }
    let authority = match target {
        [b'/', ..] => None,
        b"*" if method == b"OPTIONS" => None,
        _ => Some(authority(target).ok_or(Fault::bad("the target is neither a path nor an http:// URL"))?),
    };
    Ok(RequestLine { authority, old })
}

/// The authority of an absolute target.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let rest = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"http://")).map(|_| &target[7..])?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Some(&rest[..end])
}

#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    h2c: bool,
    connection_upgrade: bool,
}

impl<'a> Fields<'a> {
    fn add(&mut self, line: &'a [u8]) -> Result<(), Fault> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Fault::bad("a header line has no colon"))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // A space before the colon and a line that goes on the one before both fail here.
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(Fault::bad("a header's name holds characters that it may not"));
        }
        if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(Fault::bad("a header's value holds control characters"));
        }
        let value = value.trim_ascii();
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        let twice = match name.len() {
            4 if is(b"host") => self.host.replace(value).is_some(),
            7 if is(b"upgrade") => {
                self.upgrade = true;
                self.h2c |= has_token(value, b"h2c");
                false
            }
            10 if is(b"connection") => {
                self.connection_upgrade |= has_token(value, b"upgrade");
                false
            }
            14 if is(b"content-length") => {
                let length = decimal(value).ok_or(Fault::bad("Content-Length is not a number"))?;
                self.length.replace(length).is_some()
            }
            17 if is(b"transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::bad("Transfer-Encoding is not \"chunked\""));
                }
                std::mem::replace(&mut self.chunked, true)
            }
            _ => false,
        };
        if twice {
            return Err(Fault::bad("Host, Content-Length or Transfer-Encoding is there twice"));
        }
        Ok(())
    }

    fn finish(&self, request: &RequestLine<'_>) -> Result<Framing, Fault> {
        let host = self.host.ok_or(Fault::bad("there is no Host header"))?;
        if !is_authority(host) {
            return Err(Fault::bad("the Host header is not a host name or address"));
        }
        if request.authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
            return Err(Fault::bad("the Host header is not the host of the target"));
        }
        if self.chunked && self.length.is_some() {
            return Err(Fault::bad("there are both Content-Length and Transfer-Encoding"));
        }
        if self.chunked && request.old {
            return Err(Fault::bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        let length = self.length.unwrap_or(0);
        if self.chunked {
            Ok(Framing::Chunked)
        } else if self.upgrade && self.connection_upgrade && !self.h2c && !request.old && length == 0 {
            Ok(Framing::Upgrade)
        } else {
            Ok(Framing::Length(length))
        }
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether a comma-separated list has a word.
pub(crate) fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(token))
}

/// A character of a method or of a header's name.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a text is `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let address = &rest[..end];
            if address.is_empty() || !address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
            {
                return false;
            }
            (&b"v6"[..], &rest[end + 1..])
        }
        _ => text.split_at(text.iter().position(|byte| *byte == b':').unwrap_or(text.len())),
    };
    let host_ok = (1..=253).contains(&host.len())
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_ok && port_ok
}
