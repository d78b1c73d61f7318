//! Heads of requests: which are served, and what the app gets of them; heads of answers, and what the client gets.

use super::headers::{Origin, Outgoing, sound_id, to_app, to_client};
use super::{Answer, Fault, Framing, Request, Response, Scan};
use proptest::prelude::*;

const LIMIT: usize = 8192;

fn scan(head: &str) -> Result<Request, u16> {
    match Request::scan(head.as_bytes(), 0, LIMIT) {
        Scan::Complete(request) => {
            assert_eq!(request.lines.end, head.len());
            Ok(request)
        }
        Scan::Fault(Fault { status, .. }) => Err(status.as_u16()),
        Scan::Partial(_) => Err(0),
    }
}

/// Its framing, and whether another protocol is asked for.
fn judge(head: &str) -> Result<(Framing, bool), u16> {
    scan(head).map(|request| (request.framing, request.is_upgrade))
}

#[test]
fn what_is_served() {
    let none = Ok((Framing::Length(0), false));
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: a.x\r\n\r\n", none),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a.x\r\n\r\n", none),
        ("GET / HTTP/1.0\r\nHost: a.x:8080\r\n\r\n", none),
        ("GET http://a.x/y?z HTTP/1.1\r\nHost: A.x\r\n\r\n", none),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", none),
        ("PROPFIND / HTTP/1.1\r\nhost:\t a.x \r\n\r\n", none),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a.x\r\nX: \u{e9}\r\n\r\n", none),
        ("POST / HTTP/1.1\r\nHost: a.x\r\nContent-Length: 0007\r\n\r\n", Ok((Framing::Length(7), false))),
        ("POST / HTTP/1.1\r\nHost: a.x\r\nTransfer-Encoding: Chunked\r\n\r\n", Ok((Framing::Chunked, false))),
        (
            "GET / HTTP/1.1\r\nHost: a.x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
            Ok((Framing::Length(0), true)),
        ),
        ("GET / HTTP/1.1\r\nHost: a.x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", none),
        ("GET / HTTP/1.1\r\nHost: a.x\r\nUpgrade: websocket\r\n\r\n", none),
        ("GET / HTTP/1.0\r\nHost: a.x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", none),
    ] {
        assert_eq!(judge(head), expected, "{head:?}");
    }
}

#[test]
fn what_is_refused() {
    let field = |line: &str| (format!("POST / HTTP/1.1\r\nHost: a.x\r\n{line}\r\n\r\n"), 400);
    let line = |line: &str, status| (format!("{line}\r\nHost: a.x\r\n\r\n"), status);
    let host = |lines: &str| (format!("GET / HTTP/1.1\r\n{lines}\r\n"), 400);
    for (head, expected) in [
        field("Content-Length: 5\r\nTransfer-Encoding: chunked"),
        field("Transfer-Encoding: chunked\r\nContent-Length: 5"),
        field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        field("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        field("Transfer-Encoding: gzip, chunked"),
        field("Transfer-Encoding: chunked, chunked"),
        field("Transfer-Encoding: ,chunked"),
        field("Transfer-Encoding: xchunked"),
        field("Transfer-Encoding: \u{b}chunked"),
        field("Transfer-Encoding: \"chunked\""),
        field("Transfer-Encoding: chunked;a=b"),
        field("Transfer-Encoding: identity"),
        field("Transfer-Encoding:"),
        field("Transfer-Encoding : chunked"),
        field("Transfer-Encoding\t: chunked"),
        field(" Transfer-Encoding: chunked"),
        field("X: y\r\n Transfer-Encoding: chunked"),
        field("X: y\r\n\tcontinued"),
        field("Content-Length: 5\r\nContent-Length: 5"),
        field("Content-Length: 5\r\nContent-Length: 6"),
        field("Content-Length: 5, 5"),
        field("Content-Length: +5"),
        field("Content-Length: -5"),
        field("Content-Length: 0x5"),
        field("Content-Length: 5 5"),
        field("Content-Length: 5_0"),
        field("Content-Length:"),
        field("Content-Length: 9999999999999999999"),
        field("No colon"),
        field(": empty name"),
        field("A\0: b"),
        field("A: b\0c"),
        field("A: b\rc"),
        field("A: b\x7fc"),
        field("A: b\x1b[1m"),
        field("A(b): c"),
        field("A: b\nC: d"),
        host(""),
        host("Host: a.x\r\nHost: a.x\r\n"),
        host("Host: a.x\r\nhost: b.x\r\n"),
        host("Host:\r\n"),
        host("Host: a.x, b.x\r\n"),
        host("Host: a.x b.x\r\n"),
        host("Host: a.x:80:80\r\n"),
        host("Host: a.x:http\r\n"),
        host("Host: a.x:123456\r\n"),
        host("Host: user@a.x\r\n"),
        host("Host: a.x/y\r\n"),
        host("Host: [::1\r\n"),
        host("Host: []\r\n"),
        host("Host: [::1]x\r\n"),
        host("Host: a.x\u{e9}\r\n"),
        line("GET / HTTP/1.1 ", 400),
        line("GET  / HTTP/1.1", 400),
        line(" GET / HTTP/1.1", 400),
        line("GET\t/\tHTTP/1.1", 400),
        line("GET /a b HTTP/1.1", 400),
        line("GET / HTTP/1.1\r", 400),
        line("GET /", 400),
        line("GET / http/1.1", 400),
        line("GET / HTTP/1.10", 400),
        line("GET / HTTP/11", 400),
        line("GET / HTTP/2.0", 505),
        line("GET / HTTP/0.9", 505),
        line("G(T / HTTP/1.1", 400),
        line("GET ! HTTP/1.1", 400),
        line("GET a.x/ HTTP/1.1", 400),
        line("GET * HTTP/1.1", 400),
        line("GET /#f HTTP/1.1", 400),
        line("GET /\u{7f} HTTP/1.1", 400),
        line("GET https://a.x/ HTTP/1.1", 400),
        line("GET http://b.x/ HTTP/1.1", 400),
        line("GET http://u@a.x/ HTTP/1.1", 400),
        line("GET http:///x HTTP/1.1", 400),
        line("CONNECT a.x:80 HTTP/1.1", 405),
        ("GET / HTTP/1.1\nHost: a.x\n\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a.x\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a.x\r\n\n".into(), 400),
        ("POST / HTTP/1.0\r\nHost: a.x\r\nTransfer-Encoding: chunked\r\n\r\n".into(), 400),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a.x\r\n\r\n".into(), 400),
        ("PRI * HTTP/2.0\r\n\r\n".into(), 505),
        (format!("GET / HTTP/1.1\r\nHost: a.x\r\n{}\r\n", "A: b\r\n".repeat(100)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a.x\r\nA: {}\r\n\r\n", "b".repeat(8200)), 431),
        (format!("GET /{}", "b".repeat(8200)), 431),
    ] {
        assert_eq!(judge(&head), Err(expected), "{head:?}");
    }
}

proptest! {
    /// However a head is cut into pieces, the verdict is the same.
    #[test]
    fn pieces_do_not_matter(
        head in "(GET|POST) /x HTTP/1.[01]\r?\n((Host: a|A : b|Content-Length: [0-9]{1,2}|Transfer-Encoding: chunked| x)\r?\n){0,4}\r?\n",
        piece in 1_usize..9,
    ) {
        let whole = Request::scan(head.as_bytes(), 0, LIMIT);
        let (mut end, mut scanned) = (0, 0);
        let pieced = loop {
            end = (end + piece).min(head.len());
            match Request::scan(&head.as_bytes()[..end], scanned, LIMIT) {
                Scan::Partial(so_far) if end < head.len() => scanned = so_far,
                verdict => break verdict,
            }
        };
        match (whole, pieced) {
            (Scan::Fault(a), Scan::Fault(b)) => prop_assert_eq!(a.status, b.status),
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    /// Never a panic, whatever comes.
    #[test]
    fn anything(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        Request::scan(&bytes, 0, 100);
        Response::scan(&bytes, 0, false);
    }

    /// What the app parses is what was parsed here.
    #[test]
    fn the_app_gets_a_head_that_is_served_and_means_the_same(
        method in "(GET|POST|HEAD)",
        target in "(/|http://a.x)[a-z?]{0,3}",
        lines in "((A: b|A:|Connection: (close|x-a, te|keep-alive)|X-A: c|TE: trailers|X-Forwarded-For: d|Expect: 100-continue)\r\n){0,5}",
        body in "(Content-Length: [0-9]{1,3}\r\n|Transfer-Encoding: chunked\r\n)?",
        is_trusted in any::<bool>(),
    ) {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a.x\r\n{lines}{body}\r\n");
        let before = scan(&head);
        prop_assume!(before.is_ok());
        let before = before.unwrap();
        let sent = sent(&head, is_trusted);
        let after = scan(&sent).unwrap();
        prop_assert_eq!((after.framing, after.is_head, after.is_safe), (before.framing, before.is_head, before.is_safe));
        prop_assert_eq!(&sent[after.host.clone()], "a.x");
        prop_assert!(sent[after.target.clone()].starts_with('/'));
        // Once more, by the next router, changes no more than the chain.
        prop_assert_eq!(scan(&self::sent(&sent, true)).unwrap().framing, before.framing);
    }
}

/// The head that the app gets.
fn sent(head: &str, is_trusted: bool) -> String {
    let request = scan(head).unwrap();
    let mut out = Vec::new();
    to_app(
        &mut out,
        &request,
        head.as_bytes(),
        Origin { client: "192.0.2.7", is_trusted, is_forwarded: false, id: "id" },
    );
    String::from_utf8(out).unwrap()
}

/// The lines of the head that the app gets of a GET with these lines, without those that are always there.
fn lines_sent(lines: &str, is_trusted: bool) -> Vec<String> {
    let sent = sent(&format!("GET / HTTP/1.1\r\nHost: a.x\r\n{lines}\r\n"), is_trusted);
    let usual = ["GET / HTTP/1.1", "Host: a.x", "x-request-id: id", ""];
    sent.lines().filter(|line| !usual.contains(line)).map(str::to_owned).collect()
}

const FORWARDED: [&str; 4] =
    ["x-forwarded-for: 192.0.2.7", "x-forwarded-proto: http", "x-forwarded-port: 80", "x-forwarded-host: a.x"];

#[test]
fn the_request_line_is_in_origin_form() {
    for (target, expected) in [
        ("GET /a?b", "GET /a?b"),
        ("GET http://a.x/b", "GET /b"),
        ("GET http://a.x", "GET /"),
        ("GET HTTP://A.x?b", "GET /?b"),
        ("OPTIONS *", "OPTIONS *"),
    ] {
        let sent = sent(&format!("{target} HTTP/1.0\r\nHost: a.x\r\n\r\n"), false);
        assert!(sent.starts_with(&format!("{expected} HTTP/1.1\r\nHost: a.x\r\n")), "{sent}");
    }
}

#[test]
fn order_and_case_are_the_client_s() {
    let lines = "X-B: 1\r\naccept:  */* \r\nX-B: 2\r\nX-a: \u{e9}\r\n";
    assert_eq!(lines_sent(lines, false)[..4], ["X-B: 1", "accept: */*", "X-B: 2", "X-a: \u{e9}"]);
}

#[test]
fn forwarded_headers() {
    assert_eq!(lines_sent("", false), FORWARDED);
    let sent = sent("GET / HTTP/1.1\r\nHost: a.x:8080\r\n\r\n", false);
    assert!(sent.contains("x-forwarded-port: 8080\r\n") && sent.contains("x-forwarded-host: a.x:8080\r\n"), "{sent}");
    let claims = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Port: 443\r\nX-Forwarded-Host: b.x\r\n";
    assert_eq!(lines_sent(claims, false), FORWARDED);
    let believed = ["X-Forwarded-Proto: https", "X-Forwarded-Port: 443", "X-Forwarded-Host: b.x"];
    let trusted = lines_sent(claims, true);
    assert_eq!(trusted[..3], believed);
    assert_eq!(trusted[3..], ["x-forwarded-for: 1.1.1.1, 2.2.2.2, 192.0.2.7"]);
}

#[test]
fn claims_of_anybody_do_not_reach_the_app() {
    let claims = "x_forwarded_proto: https\r\nx-forwarded_for: 127.0.0.1\r\nProxy: http://evil.example\r\n\
                  Forwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded: for=127.0.0.1\r\n\
                  X-Forwarded-Ssl: on\r\nX-Forwarded-Scheme: https\r\nX-Forwarded-Prefix: /admin\r\n";
    assert_eq!(lines_sent(claims, false), FORWARDED);
    let trusted = lines_sent(claims, true);
    for kept in ["Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1", "X-Forwarded-Ssl: on"] {
        assert!(trusted.contains(&kept.to_owned()), "{kept} in {trusted:?}");
    }
    assert!(!trusted.iter().any(|line| line.contains('_') || line.starts_with("Proxy")), "{trusted:?}");
}

#[test]
fn what_is_between_neighbours_ends_here() {
    let lines = "Connection: close, X-Secret, host, X-Forwarded-For\r\nX-Secret: s\r\nKeep-Alive: 5\r\n\
                 TE: trailers, gzip\r\nUpgrade: websocket\r\nProxy-Connection: close\r\nAccept: */*\r\n";
    let sent = lines_sent(lines, false);
    assert_eq!(sent[..3], ["Accept: */*", "te: trailers", "connection: te"]);
    assert_eq!(sent[3..], FORWARDED);
    let upgrade = lines_sent("Connection: Upgrade\r\nUpgrade: websocket\r\n", false);
    assert_eq!(upgrade[..2], ["Upgrade: websocket", "connection: upgrade"]);
}

#[test]
fn lengths_are_said_once_and_as_they_were_understood() {
    for (line, expected) in [
        ("Content-Length: 0007", Some("content-length: 7")),
        ("Content-Length: 0", Some("content-length: 0")),
        ("transfer-encoding: Chunked", Some("transfer-encoding: chunked")),
        ("Accept: */*", None),
    ] {
        let sent = lines_sent(&format!("{line}\r\n"), false);
        let found: Vec<_> = sent.iter().filter(|line| line.contains("length") || line.contains("transfer")).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{line}");
    }
}

#[test]
fn request_ids() {
    let id = |line: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: a.x\r\n{line}\r\n\r\n");
        sound_id(&scan(&head).unwrap(), head.as_bytes()).map(str::to_owned)
    };
    assert_eq!(id("X-Request-ID: abc-1"), Some("abc-1".into()));
    for line in ["X-Request-Id: a b", "X-Request-Id:", "A: b", "X-Request-Id: \u{e9}"] {
        assert_eq!(id(line), None, "{line}");
    }
    assert_eq!(id(&format!("X-Request-Id: {}", "a".repeat(129))), None);
}

fn passed_on(head: &str, outgoing: Outgoing<'_>) -> String {
    let Answer::Complete(response) = Response::scan(head.as_bytes(), 0, false) else { panic!("{head}") };
    let mut out = Vec::new();
    to_client(&mut out, &response, head.as_bytes(), outgoing);
    String::from_utf8(out).unwrap()
}

#[test]
fn answers() {
    let plain = Outgoing { is_chunked: false, is_upgrade: false, connection: None, id: "id" };
    let chunked = Outgoing { is_chunked: true, ..plain };
    for (head, outgoing, expected) in [
        (
            "HTTP/1.1 200 Fine\nConnection: keep-alive, Foo\nFoo: 1\nX-A: b\nX-Request-Id: own\nContent-Length: 05\n\n",
            plain,
            "HTTP/1.1 200 Fine\r\nX-A: b\r\nX-Request-Id: own\r\ncontent-length: 5\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nTrailer: x\r\n\r\n",
            chunked,
            "HTTP/1.1 200 OK\r\nTrailer: x\r\ntransfer-encoding: chunked\r\nx-request-id: id\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunked,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\nx-request-id: id\r\n\r\n",
        ),
        (
            "HTTP/1.0 200\r\n\r\n",
            Outgoing { connection: Some("close"), ..plain },
            "HTTP/1.1 200 \r\nconnection: close\r\nx-request-id: id\r\n\r\n",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            Outgoing { is_upgrade: true, connection: Some("upgrade"), ..plain },
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nconnection: upgrade\r\nx-request-id: id\r\n\r\n",
        ),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", plain, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            plain,
            "HTTP/1.1 204 No Content\r\nx-request-id: id\r\n\r\n",
        ),
    ] {
        assert_eq!(passed_on(head, outgoing), expected, "{head:?}");
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "Set-Cookie: a=b\r\n".repeat(500));
    assert_eq!(passed_on(&many, plain).matches("Set-Cookie").count(), 500, "an app may say as much as it likes");
}
