//! Headers on their way through: what ends here, and what is added.

use super::host::port_of;
use crate::gate::has_token;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// Names a request in the logs of all that it passes.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers that are between two neighbours only, besides those that Connection names.
const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    UPGRADE,
    TE,
];

/// Turns a client's headers into those for the app.
pub(crate) fn to_app(
    headers: &mut HeaderMap,
    client: IpAddr,
    trusted: bool,
    has_body: bool,
    upgrade: bool,
    id: &HeaderValue,
) {
    let protocol = headers.get(UPGRADE).filter(|_| upgrade).cloned();
    let trailers = headers.get_all(TE).iter().any(|value| has_token(value.as_bytes(), b"trailers"));
    let chunked = has_body && !headers.contains_key(CONTENT_LENGTH);
    remove_hop_by_hop(headers);
    headers.remove(TRANSFER_ENCODING);
    // The router itself asks the client to go on, as soon as the app's connection takes the body.
    headers.remove(EXPECT);
    if chunked {
        // Said on purpose: hyper would leave out the body of a GET whose length it does not know.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if trailers && !upgrade {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    remove_claims(headers, trusted);
    forwarded(headers, client);
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Removes what a client could claim to have come from a proxy. An app that reads its headers from an environment takes
/// `X_Forwarded_Proto` for `X-Forwarded-Proto` and `Proxy` for the proxy to use itself, so those go whoever sends them.
fn remove_claims(headers: &mut HeaderMap, trusted: bool) {
    let claim = |name: &&HeaderName| {
        let name = name.as_str();
        let of_a_proxy = name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-forwarded" | "x-real-ip");
        name.contains('_') || name == "proxy" || of_a_proxy && !trusted
    };
    let claims: Vec<HeaderName> = headers.keys().filter(claim).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

fn forwarded(headers: &mut HeaderMap, client: IpAddr) {
    let mut chain = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&chain) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    let host = headers.get(HOST).cloned().unwrap_or(HeaderValue::from_static(""));
    let port = host.to_str().ok().and_then(port_of).and_then(|port| HeaderValue::from_str(port).ok());
    // What is still there is believed.
    let mut set = |name: HeaderName, value: HeaderValue| {
        headers.entry(name).or_insert(value);
    };
    set(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    set(X_FORWARDED_PORT, port.unwrap_or(HeaderValue::from_static("80")));
    set(X_FORWARDED_HOST, host);
}

/// Turns an app's headers into those for the client.
pub(crate) fn to_client(headers: &mut HeaderMap, upgraded: bool, id: &HeaderValue) {
    let protocol = headers.get(UPGRADE).filter(|_| upgraded).cloned();
    remove_hop_by_hop(headers);
    if headers.remove(TRANSFER_ENCODING).is_some() {
        // The chunks count, whatever length is claimed beside them.
        headers.remove(CONTENT_LENGTH);
    }
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.entry(X_REQUEST_ID).or_insert_with(|| id.clone());
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // What says where a message goes and where it ends is nobody's to remove.
            .filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The request's id: the client's own if it is sound, else a new one.
pub(crate) fn request_id(headers: &HeaderMap, random: impl FnOnce() -> u128) -> HeaderValue {
    let sound = |value: &&HeaderValue| {
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(|byte| matches!(byte, b'!'..=b'~'))
    };
    if let Some(value) = headers.get(X_REQUEST_ID).filter(sound) {
        return value.clone();
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = random();
    let text: [u8; 32] = std::array::from_fn(|digit| DIGITS[(random >> (4 * digit)) as usize & 15]);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn sorted(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn request(lines: &[(&'static str, &'static str)], trusted: bool, has_body: bool, upgrade: bool) -> Vec<String> {
        let mut headers = map(lines);
        to_app(&mut headers, "192.0.2.7".parse().unwrap(), trusted, has_body, upgrade, &HeaderValue::from_static("id"));
        sorted(&headers)
    }

    #[test]
    fn forwarded_headers() {
        assert_eq!(
            request(&[("host", "a.x:8080")], false, false, false),
            [
                "host: a.x:8080",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: a.x:8080",
                "x-forwarded-port: 8080",
                "x-forwarded-proto: http",
                "x-request-id: id",
            ]
        );
        let claims = [
            ("host", "a.x"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-host", "b.x"),
        ];
        let untrusted = request(&claims, false, false, false);
        assert!(untrusted.contains(&"x-forwarded-for: 192.0.2.7".to_owned()), "{untrusted:?}");
        assert!(untrusted.contains(&"x-forwarded-proto: http".to_owned()));
        assert!(untrusted.contains(&"x-forwarded-port: 80".to_owned()));
        assert!(untrusted.contains(&"x-forwarded-host: a.x".to_owned()));
        let trusted = request(&claims, true, false, false);
        assert!(trusted.contains(&"x-forwarded-for: 1.1.1.1, 2.2.2.2, 192.0.2.7".to_owned()), "{trusted:?}");
        assert!(trusted.contains(&"x-forwarded-proto: https".to_owned()));
        assert!(trusted.contains(&"x-forwarded-host: b.x".to_owned()));
    }

    #[test]
    fn claims_of_anybody_do_not_reach_the_app() {
        let claims = [
            ("host", "a.x"),
            ("x_forwarded_proto", "https"),
            ("x-forwarded_for", "127.0.0.1"),
            ("proxy", "http://evil.example"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded", "for=127.0.0.1"),
            ("x-forwarded-ssl", "on"),
            ("x-forwarded-scheme", "https"),
            ("x-forwarded-prefix", "/admin"),
        ];
        let own = ["host: a.x", "x-forwarded-for: 192.0.2.7", "x-forwarded-host: a.x", "x-forwarded-port: 80"];
        let lines = request(&claims, false, false, false);
        assert_eq!(lines[..4], own);
        assert_eq!(lines[4..], ["x-forwarded-proto: http", "x-request-id: id"]);
        let trusted = request(&claims, true, false, false);
        for kept in ["forwarded: for=127.0.0.1", "x-real-ip: 127.0.0.1", "x-forwarded-ssl: on"] {
            assert!(trusted.contains(&kept.to_owned()), "{kept} in {trusted:?}");
        }
        assert!(!trusted.iter().any(|line| line.contains('_') || line.starts_with("proxy")), "{trusted:?}");
    }

    #[test]
    fn what_is_between_neighbours_ends_here() {
        let lines = request(
            &[
                ("host", "a.x"),
                ("connection", "close, X-Secret, host, x-forwarded-for"),
                ("x-secret", "s"),
                ("keep-alive", "5"),
                ("te", "trailers, gzip"),
                ("upgrade", "websocket"),
                ("proxy-connection", "close"),
                ("transfer-encoding", "chunked"),
                ("accept", "*/*"),
            ],
            false,
            true,
            false,
        );
        assert_eq!(
            lines[..5],
            ["accept: */*", "connection: te", "host: a.x", "te: trailers", "transfer-encoding: chunked"]
        );
        assert!(lines.contains(&"x-forwarded-for: 192.0.2.7".to_owned()));
    }

    #[test]
    fn an_upgrade_keeps_its_protocol() {
        let lines =
            request(&[("host", "a.x"), ("connection", "Upgrade"), ("upgrade", "websocket")], false, false, true);
        assert_eq!(lines[..3], ["connection: upgrade", "host: a.x", "upgrade: websocket"]);
        let mut answer = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        to_client(&mut answer, true, &HeaderValue::from_static("id"));
        assert_eq!(sorted(&answer), ["connection: upgrade", "upgrade: websocket", "x-request-id: id"]);
    }

    #[test]
    fn answers() {
        let mut answer = map(&[
            ("connection", "keep-alive, foo"),
            ("foo", "1"),
            ("transfer-encoding", "chunked"),
            ("x-request-id", "own"),
        ]);
        to_client(&mut answer, false, &HeaderValue::from_static("id"));
        assert_eq!(sorted(&answer), ["x-request-id: own"]);
        let mut answer = map(&[("content-length", "5"), ("transfer-encoding", "chunked")]);
        to_client(&mut answer, false, &HeaderValue::from_static("id"));
        assert_eq!(sorted(&answer), ["x-request-id: id"]);
    }

    #[test]
    fn request_ids() {
        assert_eq!(request_id(&map(&[("x-request-id", "abc-1")]), || 0), "abc-1");
        assert_eq!(request_id(&map(&[("x-request-id", "a b")]), || 0x1f), "f1000000000000000000000000000000");
        assert_eq!(request_id(&HeaderMap::new(), || u128::MAX), "f".repeat(32).as_str());
    }
}
