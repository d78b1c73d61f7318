//! The table of raw requests, at the level of heads.

use super::head::{Fault, Framing, Scan, scan};
use proptest::prelude::*;

fn judge(head: &str) -> Result<Framing, u16> {
    judge_bytes(head.as_bytes())
}

fn judge_bytes(head: &[u8]) -> Result<Framing, u16> {
    match scan(head, 0, 8192) {
        Scan::Complete { end, framing, .. } => {
            assert_eq!(end, head.len());
            Ok(framing)
        }
        Scan::Fault(Fault { status, .. }) => Err(status.as_u16()),
        Scan::Partial { .. } => Err(0),
    }
}

#[test]
fn what_is_served() {
    let none = Ok(Framing::Length(0));
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: a.x\r\n\r\n", none),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a.x\r\n\r\n", none),
        ("GET / HTTP/1.0\r\nHost: a.x:8080\r\n\r\n", none),
        ("GET http://a.x/y?z HTTP/1.1\r\nHost: A.x\r\n\r\n", none),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", none),
        ("PROPFIND / HTTP/1.1\r\nhost:\t a.x \r\n\r\n", none),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a.x\r\nX: \u{e9}\r\n\r\n", none),
        ("POST / HTTP/1.1\r\nHost: a.x\r\nContent-Length: 0007\r\n\r\n", Ok(Framing::Length(7))),
        ("POST / HTTP/1.1\r\nHost: a.x\r\nTransfer-Encoding: Chunked\r\n\r\n", Ok(Framing::Chunked)),
        (
            "GET / HTTP/1.1\r\nHost: a.x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
            Ok(Framing::Upgrade),
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
        let whole = scan(head.as_bytes(), 0, 8192);
        let (mut end, mut scanned) = (0, 0);
        let pieced = loop {
            end = (end + piece).min(head.len());
            match scan(&head.as_bytes()[..end], scanned, 8192) {
                Scan::Partial { scanned: so_far } if end < head.len() => scanned = so_far,
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
        scan(&bytes, 0, 100);
    }
}
