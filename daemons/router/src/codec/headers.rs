//! Heads on their way through: what ends here, what goes on, and what is added.

use super::body::Framing;
use super::forwarded::{self, Said};
use super::host::port_of;
use super::{Request, Response, fields, has_token, tokens};

/// Headers that are between two neighbours only, besides those that Connection names.
const HOP_BY_HOP: [&[u8]; 8] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"transfer-encoding",
    b"upgrade",
];

/// What the router knows of a request beyond its head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// Its address as text.
    pub(crate) client: &'a str,
    /// Whether what the client says of others is believed.
    pub(crate) is_trusted: bool,
    /// Whether the app is told all of it in Forwarded, too.
    pub(crate) is_forwarded: bool,
    /// Names the request in the logs of all that it passes.
    pub(crate) id: &'a str,
}

/// Whether a header ends here. `message` are the lines that it stands in.
fn ends_here(name: &[u8], message: &[u8], names_headers: bool) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    HOP_BY_HOP.iter().any(|other| is(other)) || names_headers && is_named(name, message)
}

/// Whether Connection names a header. What says where a message goes and where it ends is nobody's to remove.
fn is_named(name: &[u8], message: &[u8]) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let connections = fields(message).filter(|(other, _)| other.eq_ignore_ascii_case(b"connection"));
    !is(b"host") && !is(b"content-length") && connections.into_iter().any(|(_, list)| has_token(list, name))
}

/// Whether a client could claim with a header to have come from a proxy. An app that reads its headers from an environment
/// takes `X_Forwarded_Proto` for `X-Forwarded-Proto` and `Proxy` for the proxy to use itself, so those go whoever sends
/// them.
pub(super) fn is_claim(name: &[u8], is_trusted: bool) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let begins = |other: &[u8]| name.get(..other.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(other));
    let of_a_proxy = || begins(b"x-forwarded-") || is(b"forwarded") || is(b"x-forwarded") || is(b"x-real-ip");
    name.contains(&b'_') || is(b"proxy") || !is_trusted && of_a_proxy()
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length_line(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    digits(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Writes a number: as a request needs it too often for the machinery of formatting.
fn digits(out: &mut Vec<u8>, mut number: u64) {
    let mut room = [0; 20];
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&room[at..]);
}

/// The request's id: the client's own if it is sound.
pub(crate) fn sound_id<'a>(request: &Request, bytes: &'a [u8]) -> Option<&'a str> {
    let found = fields(&bytes[request.lines.clone()]).find(|(name, _)| name.eq_ignore_ascii_case(b"x-request-id"));
    let is_sound = |value: &&[u8]| (1..=128).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    found.map(|(_, value)| value).filter(is_sound).and_then(|value| std::str::from_utf8(value).ok())
}

/// Writes the head for the app. `bytes` are those in which the request was found.
pub(crate) fn to_app(out: &mut Vec<u8>, request: &Request, bytes: &[u8], origin: Origin<'_>) {
    let target = &bytes[request.target.clone()];
    out.extend_from_slice(&bytes[request.method.clone()]);
    out.push(b' ');
    if !matches!(target, [b'/', ..] | [b'*']) {
        out.push(b'/');
    }
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let message = &bytes[request.lines.clone()];
    let (mut takes_trailers, mut believed) = (false, Believed::default());
    let (mut chain, mut forwarded): (Vec<u8>, Vec<u8>) = Default::default();
    for (name, value) in fields(message) {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is(b"te") => takes_trailers |= has_token(value, b"trailers"),
            7 if is(b"upgrade") && request.is_upgrade => line(out, name, value),
            12 if is(b"x-request-id") => {}
            14 if is(b"content-length") => {}
            9 | 15 if is(b"x-forwarded-for") || origin.is_forwarded && is(b"forwarded") => {
                if origin.is_trusted && !(request.names_headers && is_named(name, message)) {
                    let chain = if name.len() == 15 { &mut chain } else { &mut forwarded };
                    chain.extend_from_slice(value);
                    chain.extend_from_slice(b", ");
                }
            }
            _ if is_claim(name, origin.is_trusted) || ends_here(name, message, request.names_headers) => {}
            _ => {
                believed.note(name, value);
                line(out, name, value);
            }
        }
    }
    match request.framing {
        Framing::Chunked => line(out, b"transfer-encoding", b"chunked"),
        // Whoever says that there is nothing says so to the app.
        Framing::Length(0) if !says_length(message) => {}
        Framing::Length(length) => length_line(out, length),
        Framing::UntilClose => {}
    }
    if request.is_upgrade {
        line(out, b"connection", b"upgrade");
    } else if takes_trailers {
        line(out, b"te", b"trailers");
        line(out, b"connection", b"te");
    }
    out.extend_from_slice(b"x-forwarded-for: ");
    out.extend_from_slice(&chain);
    out.extend_from_slice(origin.client.as_bytes());
    out.extend_from_slice(b"\r\n");
    let host = request.host(bytes);
    if believed.proto.is_none() {
        line(out, b"x-forwarded-proto", b"http");
    }
    if !believed.port {
        line(out, b"x-forwarded-port", port_of(host).unwrap_or("80").as_bytes());
    }
    if believed.host.is_none() {
        line(out, b"x-forwarded-host", host.as_bytes());
    }
    if origin.is_forwarded {
        let said = Said { forwarded, chain: &chain, proto: believed.proto, host: believed.host };
        line(out, b"forwarded", &forwarded::value(&said, origin.client, host));
    }
    line(out, b"x-request-id", origin.id.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn says_length(message: &[u8]) -> bool {
    fields(message).any(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))
}

/// What a trusted proxy has said already.
#[derive(Default)]
struct Believed<'a> {
    proto: Option<&'a [u8]>,
    port: bool,
    host: Option<&'a [u8]>,
}

impl<'a> Believed<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            17 if is(b"x-forwarded-proto") => self.proto = Some(value),
            16 => {
                self.port |= is(b"x-forwarded-port");
                if is(b"x-forwarded-host") {
                    self.host = Some(value);
                }
            }
            _ => {}
        }
    }
}

/// How an answer goes to the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// Whether the body is written in chunks.
    pub(crate) is_chunked: bool,
    /// Whether the connection becomes a tunnel.
    pub(crate) is_upgrade: bool,
    /// What is said of the connection's future, where anything is.
    pub(crate) connection: Option<&'static str>,
    pub(crate) id: &'a str,
}

/// Writes the head for the client. `bytes` are those in which the answer was found.
pub(crate) fn to_client(out: &mut Vec<u8>, response: &Response, bytes: &[u8], outgoing: Outgoing<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    digits(out, u64::from(response.status));
    out.push(b' ');
    out.extend_from_slice(&bytes[response.reason.clone()]);
    out.extend_from_slice(b"\r\n");
    let message = &bytes[response.lines.clone()];
    let mut has_id = false;
    for (name, value) in fields(message) {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            7 if is(b"upgrade") && outgoing.is_upgrade => line(out, name, value),
            14 if is(b"content-length") => {}
            17 if is(b"transfer-encoding") => {}
            _ if ends_here(name, message, response.names_headers) => {}
            _ => {
                has_id |= is(b"x-request-id");
                line(out, name, value);
            }
        }
    }
    // An answer of a status below 200 has none of these, whatever an app says.
    if response.status >= 200 {
        if outgoing.is_chunked {
            out.extend_from_slice(b"transfer-encoding: ");
            for coding in codings(message) {
                out.extend_from_slice(coding);
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(b"chunked\r\n");
        } else if let Some(length) = response.length.filter(|_| response.status != 204) {
            length_line(out, length);
        }
    }
    if let Some(connection) = outgoing.connection {
        line(out, b"connection", connection.as_bytes());
    }
    if !has_id && (response.status >= 200 || outgoing.is_upgrade) {
        line(out, b"x-request-id", outgoing.id.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Transfer codings besides chunked.
fn codings(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = fields(message).filter(|(name, _)| name.eq_ignore_ascii_case(b"transfer-encoding"));
    lines.flat_map(|(_, list)| tokens(list)).filter(|coding| !coding.eq_ignore_ascii_case(b"chunked"))
}
