//! Requests that somebody has tampered with: what the app parses is what was parsed here, however they look.
//!
//! The corpus is the table of raw requests. `DINP_FUZZ_CASES` says how many mutants are made of it (20,000), `DINP_FUZZ_SEED`
//! from where on. The judge beside this codec is httparse, which knows nothing of it.

#[path = "../../tests/common/escape.rs"]
mod escape;

use super::headers::{Origin, to_app};
use super::{Body, Encoding, Framing, Request, Scan, SizeLine};
use escape::unescaped;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const LIMIT: usize = 65_536;
/// What is put in: all that parsers have disagreed on.
const TRICKS: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\xa0",
    b"\x7f",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Host: web.apps.localhost\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length\r\n",
    b"Upgrade: websocket\r\n",
    b"0\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\n",
    b"3;",
    b"Expect: 100-continue\r\n",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The requests of the table, as far as they are written without repetitions.
fn corpus() -> Vec<Vec<u8>> {
    let table = include_str!("../../tests/golden/requests.txt");
    let requests = table.lines().filter_map(|line| line.strip_prefix("> ").or_else(|| line.strip_prefix(">| ")));
    requests.filter(|text| !text.contains("\\(")).map(unescaped).collect()
}

fn mutant(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let to = random.random_range(at..=bytes.len().min(at + 16));
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] = random.random(),
            1 => bytes.insert(at, random.random()),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let trick = TRICKS[random.random_range(0..TRICKS.len())];
                bytes.splice(at..at, trick.iter().copied());
            }
        }
    }
    bytes
}

/// What is served, as the app gets it: head, framed body, and what is left of the bytes.
fn passed_on(bytes: &[u8], is_trusted: bool) -> Option<(Request, Vec<u8>, usize)> {
    let Scan::Complete(request) = Request::scan(bytes, 0, LIMIT) else { return None };
    let mut out = Vec::new();
    to_app(&mut out, &request, bytes, Origin { client: "192.0.2.7", is_trusted, is_forwarded: false, id: "id" });
    let mut rest = bytes[request.lines.end..].to_vec();
    let mut body = Body::of_request(request.framing);
    let piece = body.take(&mut rest).ok()?;
    let encoding = if request.framing == Framing::Chunked { Encoding::Chunked } else { Encoding::Plain };
    let mut line = SizeLine::default();
    for slice in encoding.slices(&rest[..piece.content], body.is_done(), body.trailers(), &mut line) {
        out.extend_from_slice(&slice);
    }
    body.is_done().then_some((request, out, rest.len() - piece.consumed))
}

/// An app with another parser sees one request, with the same bounds, and nothing behind it.
fn check(bytes: &[u8], is_trusted: bool) {
    let Some((request, sent, left)) = passed_on(bytes, is_trusted) else { return };
    let shown = || format!("{}\n---\n{}", bytes.escape_ascii(), sent.escape_ascii());
    // The judge knows targets as text alone.
    if std::str::from_utf8(&bytes[request.target.clone()]).is_err() {
        return;
    }
    let mut headers = [httparse::EMPTY_HEADER; 200];
    let mut app = httparse::Request::new(&mut headers);
    let head = match app.parse(&sent) {
        Ok(httparse::Status::Complete(head)) => head,
        other => panic!("{other:?}: {}", shown()),
    };
    assert_eq!(app.method.map(str::as_bytes), Some(&bytes[request.method.clone()]), "{}", shown());
    assert_eq!(app.version, Some(1), "{}", shown());
    let all = |name: &str| {
        let found = app.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned()).collect::<Vec<_>>()
    };
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    let end = match request.framing {
        Framing::Chunked => {
            assert_eq!((lengths.len(), &codings[..]), (0, &["chunked".to_owned()][..]), "{}", shown());
            head + chunked_end(&sent[head..]).unwrap_or_else(|| panic!("{}", shown()))
        }
        Framing::Length(length) => {
            assert!(codings.is_empty() && lengths.len() <= 1, "{}", shown());
            assert_eq!(lengths.first().map_or(0, |text| text.parse().unwrap()), length, "{}", shown());
            head + length as usize
        }
        Framing::UntilClose => panic!("a request has an end: {}", shown()),
    };
    assert_eq!(end, sent.len(), "{}", shown());
    assert!(left <= bytes.len() - request.lines.end, "{}", shown());
    assert_eq!(all("host"), [request.host(bytes)], "{}", shown());
    assert_eq!(all("x-request-id"), ["id"], "{}", shown());
    assert_eq!(all("x-forwarded-for").len(), 1, "{}", shown());
    if !is_trusted {
        assert_eq!(all("x-forwarded-for"), ["192.0.2.7"], "{}", shown());
        assert!(all("forwarded").is_empty() && all("x-real-ip").is_empty(), "{}", shown());
    }
    let is_claim =
        |header: &&httparse::Header<'_>| header.name.contains('_') || header.name.eq_ignore_ascii_case("proxy");
    assert!(!app.headers.iter().any(|header| is_claim(&header)), "{}", shown());
}

fn chunked_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let httparse::Status::Complete((line, size)) = httparse::parse_chunk_size(&bytes[at..]).ok()? else {
            return None;
        };
        at += line;
        if size == 0 {
            break;
        }
        at += size as usize;
        at += bytes[at..].starts_with(b"\r\n").then_some(2)?;
    }
    let mut trailers = [httparse::EMPTY_HEADER; 100];
    match httparse::parse_headers(&bytes[at..], &mut trailers).ok()? {
        httparse::Status::Complete((end, _)) => Some(at + end),
        httparse::Status::Partial => None,
    }
}

#[test]
fn the_app_parses_what_was_parsed_here() {
    let corpus = corpus();
    assert!(corpus.len() > 300);
    let (first, count) = (number("DINP_FUZZ_SEED", 1), number("DINP_FUZZ_CASES", 20_000));
    let mut served = 0;
    for seed in first..first + count {
        let bytes = mutant(&corpus, &mut StdRng::seed_from_u64(seed));
        let is_trusted = seed % 2 == 0;
        let outcome = std::panic::catch_unwind(|| check(&bytes, is_trusted));
        served += u64::from(passed_on(&bytes, is_trusted).is_some());
        assert!(outcome.is_ok(), "DINP_FUZZ_SEED={seed} DINP_FUZZ_CASES=1 shows it");
    }
    assert!(served > count / 100, "{served} of {count} are served: the mutants are too wild to show anything");
}
