//! The head of a request.

use super::body::Framing;
use super::{Fault, decimal, has_token, is_name, is_value, tokens};
use std::ops::Range;

/// Header fields of one request.
const MAX_FIELDS: usize = 100;
/// Bytes of empty lines that are forgiven before a request.
const MAX_EMPTY: usize = 8;

/// A head that is beyond doubt. Places are those in the bytes that were scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Range<usize>,
    /// The target in origin form (or `*`): empty for an absolute one without a path, which means `/`.
    pub(crate) target: Range<usize>,
    /// The lines after the first, with the empty one at the end; the head ends with them.
    pub(crate) lines: Range<usize>,
    pub(crate) host: Range<usize>,
    pub(crate) framing: Framing,
    /// Spoken by a client of HTTP/1.0.
    pub(crate) is_old: bool,
    /// Whether the client is ready for another request on this connection.
    pub(crate) keeps_alive: bool,
    /// Whether the client waits before it sends the body.
    pub(crate) expects_continue: bool,
    /// Whether another protocol is asked for.
    pub(crate) is_upgrade: bool,
    pub(crate) is_head: bool,
    /// Whether the method is safe: RFC 9110, 9.2.1.
    pub(crate) is_safe: bool,
    /// Whether Connection names other headers, that end here.
    pub(crate) names_headers: bool,
}

/// What a scan of the bytes so far finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// A whole head.
    Complete(Request),
    /// Nothing wrong yet. Lines up to here have been looked at.
    Partial(usize),
    /// Not to be served.
    Fault(Fault),
}

impl Request {
    /// What its Host says. `bytes` are those in which it was found.
    pub(crate) fn host<'a>(&self, bytes: &'a [u8]) -> &'a str {
        // A host that was found valid is ASCII.
        std::str::from_utf8(&bytes[self.host.clone()]).unwrap_or_default()
    }

    /// Looks for a head at the begin of `bytes`, of which lines up to `scanned` have been seen before.
    pub(crate) fn scan(bytes: &[u8], scanned: usize, limit: usize) -> Scan {
        let skip = bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
        if skip > MAX_EMPTY {
            return Scan::Fault(Fault::bad("there are empty lines before the request"));
        }
        let mut line = scanned.max(skip);
        while let Some(length) = memchr::memchr(b'\n', &bytes[line..]) {
            let end = line + length;
            if end == line || bytes[end - 1] != b'\r' {
                return Scan::Fault(Fault::bad("a line does not end in CR LF"));
            }
            if end - 1 == line {
                let end = end + 1;
                if end - skip > limit {
                    return Scan::Fault(Fault::TOO_LARGE);
                }
                return match Self::parse(bytes, skip, end) {
                    Ok(request) => Scan::Complete(request),
                    Err(fault) => Scan::Fault(fault),
                };
            }
            line = end + 1;
        }
        if bytes.len() > limit { Scan::Fault(Fault::TOO_LARGE) } else { Scan::Partial(line) }
    }

    fn parse(bytes: &[u8], begin: usize, end: usize) -> Result<Self, Fault> {
        let first = begin + memchr::memchr(b'\n', &bytes[begin..end]).unwrap_or(0) + 1;
        let line = RequestLine::parse(bytes, begin, first.saturating_sub(2))?;
        let mut found = Fields::default();
        let (mut count, mut at) = (0, first);
        for line in bytes[first..end - 2].split_inclusive(|byte| *byte == b'\n') {
            count += 1;
            if count > MAX_FIELDS {
                return Err(Fault::TOO_LARGE);
            }
            found.add(&line[..line.len() - 2], at)?;
            at += line.len();
        }
        found.finish(bytes, line, first..end)
    }
}

struct RequestLine {
    method: Range<usize>,
    target: Range<usize>,
    /// Of an absolute target.
    authority: Option<Range<usize>>,
    is_old: bool,
}

impl RequestLine {
    /// Of the line without its end.
    fn parse(bytes: &[u8], begin: usize, end: usize) -> Result<Self, Fault> {
        let line = &bytes[begin..end];
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Fault::bad("the request line is not METHOD TARGET VERSION"));
        };
        if method.len() > 32 || !is_name(method) {
            return Err(Fault::bad("the method is not a word"));
        }
        if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#') {
            return Err(Fault::bad("the target holds characters that it may not"));
        }
        let is_old = match version {
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
        let method = begin..begin + method.len();
        let target = method.end + 1..method.end + 1 + target.len();
        let (authority, target) = match &bytes[target.clone()] {
            [b'/', ..] => (None, target),
            b"*" if bytes[method.clone()] == *b"OPTIONS" => (None, target),
            text => {
                let is_http = text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
                if !is_http {
                    return Err(Fault::bad("the target is neither a path nor an http:// URL"));
                }
                let from = target.start + 7;
                let length = text[7..].iter().position(|byte| matches!(byte, b'/' | b'?'));
                let to = length.map_or(target.end, |length| from + length);
                (Some(from..to), to..target.end)
            }
        };
        Ok(Self { method, target, authority, is_old })
    }
}

#[derive(Default)]
struct Fields {
    host: Option<Range<usize>>,
    length: Option<u64>,
    is_chunked: bool,
    upgrade: bool,
    h2c: bool,
    connection: Connection,
    expects_continue: bool,
}

/// What Connection says, over all its lines.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    names_headers: bool,
}

impl Connection {
    fn add(&mut self, value: &[u8]) {
        for token in tokens(value) {
            let is = |word: &[u8]| token.eq_ignore_ascii_case(word);
            match token.len() {
                5 if is(b"close") => self.close = true,
                7 if is(b"upgrade") => self.upgrade = true,
                10 if is(b"keep-alive") => self.keep_alive = true,
                _ => self.names_headers = true,
            }
        }
    }
}

impl Fields {
    /// Takes a line, without its end, that begins at `at`.
    fn add(&mut self, line: &[u8], at: usize) -> Result<(), Fault> {
        let colon = memchr::memchr(b':', line).ok_or(Fault::bad("a header line has no colon"))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // A space before the colon and a line that goes on the one before both fail here.
        if !is_name(name) {
            return Err(Fault::bad("a header's name holds characters that it may not"));
        }
        if !is_value(value) {
            return Err(Fault::bad("a header's value holds control characters"));
        }
        let begin = at + line.len() - value.trim_ascii_start().len();
        let value = value.trim_ascii();
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        let twice = match name.len() {
            4 if is(b"host") => self.host.replace(begin..begin + value.len()).is_some(),
            6 if is(b"expect") => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                false
            }
            7 if is(b"upgrade") => {
                self.upgrade = true;
                self.h2c |= has_token(value, b"h2c");
                false
            }
            10 if is(b"connection") => {
                self.connection.add(value);
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
                std::mem::replace(&mut self.is_chunked, true)
            }
            _ => false,
        };
        if twice {
            return Err(Fault::bad("Host, Content-Length or Transfer-Encoding is there twice"));
        }
        Ok(())
    }

    fn finish(self, bytes: &[u8], line: RequestLine, lines: Range<usize>) -> Result<Request, Fault> {
        let host = self.host.ok_or(Fault::bad("there is no Host header"))?;
        if !is_authority(&bytes[host.clone()]) {
            return Err(Fault::bad("the Host header is not a host name or address"));
        }
        if line.authority.is_some_and(|authority| !bytes[authority].eq_ignore_ascii_case(&bytes[host.clone()])) {
            return Err(Fault::bad("the Host header is not the host of the target"));
        }
        if self.is_chunked && self.length.is_some() {
            return Err(Fault::bad("there are both Content-Length and Transfer-Encoding"));
        }
        if self.is_chunked && line.is_old {
            return Err(Fault::bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        let framing = match (self.is_chunked, self.length.unwrap_or(0)) {
            (true, _) => Framing::Chunked,
            (false, length) => Framing::Length(length),
        };
        let Connection { close, keep_alive, upgrade, names_headers } = self.connection;
        let may_upgrade = self.upgrade && upgrade && !self.h2c && !line.is_old;
        let method = &bytes[line.method.clone()];
        Ok(Request {
            host,
            framing,
            is_old: line.is_old,
            keeps_alive: !close && (!line.is_old || keep_alive),
            expects_continue: self.expects_continue && !line.is_old && framing != Framing::Length(0),
            is_upgrade: may_upgrade && framing == Framing::Length(0),
            is_head: method == b"HEAD",
            is_safe: matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE"),
            names_headers,
            method: line.method,
            target: line.target,
            lines,
        })
    }
}

/// Whether a text is `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let address = &rest[..end];
            let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if address.is_empty() || !address.iter().all(is_part) {
                return false;
            }
            (&b"v6"[..], &rest[end + 1..])
        }
        _ => text.split_at(memchr::memchr(b':', text).unwrap_or(text.len())),
    };
    let host_ok = (1..=253).contains(&host.len())
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let port_ok = match port {
        [] => true,
        [b':'] => true,
        [b':', digits @ ..] => digits.len() <= 5 && decimal(digits).is_some_and(|port| port <= 65_535),
        _ => false,
    };
    host_ok && port_ok
}
