//! Raw requests and what becomes of them: the answer, and the bytes that the app saw.

use crate::common::escape::unescaped;
use crate::common::{Backend, Leader, Options, Router};
use dinp_common::testing::{Redis, TestDir};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Lines `> request`, of which `=` is what the app saw and `<` the answer, or `<+` where the connection went on: where a
/// request behind it was served as well. Behind `>|` comes none. `UPDATE_GOLDEN=1` writes what is found.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/requests.txt");

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\n\r\n";
const NEXT_SEEN: &str = "GET /next HTTP/1.1\r\nHost: web.apps.localhost\r\n<usual>\r\n";
/// What the router tells the app of every request from here, in this order; `<usual>` in the table.
const USUAL: &str = "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-port: 80\r\n\
    x-forwarded-host: web.apps.localhost\r\nx-request-id: ID\r\n";
/// The begin of each page of the router's own, behind the status line; `<page>` in the table.
const PAGE: &str = "content-type: text/plain; charset=utf-8\r\ncontent-length: LENGTH\r\ncache-control: no-store\r\n\
    x-dinp-error: ";
const NEXT_ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\nx-request-id: ID\r\n\r\nok";

#[tokio::test]
async fn raw_requests() {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let mut leader = Leader::new(&redis).await;
    let router = Router::start(Options::new(&redis, &dir)).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let backend = Backend::start({
        let seen = seen.clone();
        move |_, stream| answer_each(stream, seen.clone())
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;

    let wanted = std::fs::read_to_string(TABLE).unwrap();
    let mut found = String::new();
    let mut count = 0;
    for line in wanted.lines() {
        let (request, next) = match (line.strip_prefix("> "), line.strip_prefix(">| ")) {
            (Some(request), _) => (request, NEXT),
            (_, Some(request)) => (request, ""),
            _ if line.is_empty() || line.starts_with('#') => {
                writeln!(found, "{line}").unwrap();
                continue;
            }
            _ => continue,
        };
        count += 1;
        let answer = router.raw(&[&unescaped(request), next.as_bytes()].concat()).await;
        let bytes = std::mem::take(&mut *seen.lock().unwrap());
        let (answer, bytes) = (masked(answer.as_bytes()).replace(&page_of(&answer), "<page>"), masked(&bytes));
        let bytes = bytes.replace(USUAL, "<usual>");
        // Whatever the table says: what is refused does not reach the app, nor does what is smuggled behind it.
        assert!(!bytes.contains("/smuggled"), "{line}\n{bytes}");
        assert!(
            !answer.contains("bad_request") || !answer.starts_with("HTTP/1.1 4") || bytes.is_empty(),
            "{line}\n{bytes}"
        );
        let goes_on = !next.is_empty() && bytes.ends_with(NEXT_SEEN) && answer.ends_with(NEXT_ANSWER);
        let (end, seen_end) = if goes_on { (NEXT_ANSWER, NEXT_SEEN) } else { ("", "") };
        writeln!(found, "{line}").unwrap();
        let bytes = bytes.strip_suffix(seen_end).unwrap();
        if !bytes.is_empty() {
            writeln!(found, "= {}", escaped(bytes)).unwrap();
        }
        let plus = if goes_on { "+" } else { "" };
        writeln!(found, "<{plus} {}", escaped(answer.strip_suffix(end).unwrap())).unwrap();
    }
    assert!(count >= 300, "{count} requests");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(TABLE, &found).unwrap();
    }
    let wanted = std::fs::read_to_string(TABLE).unwrap();
    for (found, wanted) in found.lines().zip(wanted.lines()) {
        assert_eq!(found, wanted, "UPDATE_GOLDEN=1 writes it anew");
    }
    assert_eq!(found, wanted);
    router.stop().await;
}

/// The begin of a page with the length that it has to have.
fn page_of(answer: &str) -> String {
    let length = answer.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
    PAGE.replace("LENGTH", &length.to_string())
}

/// An app that notes all bytes, and answers each request when it has all of it.
async fn answer_each(mut stream: TcpStream, seen: Arc<Mutex<Vec<u8>>>) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        seen.lock().unwrap().extend_from_slice(&buffer[..count]);
        bytes.extend_from_slice(&buffer[..count]);
        while let Some(end) = end_of_request(&bytes) {
            let is_head = bytes.starts_with(b"HEAD ");
            bytes.drain(..end);
            let body = if is_head { "" } else { "ok" };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Where the first request ends, as an app reads it that believes what it is told.
fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let line_end = |from: usize| bytes[from..].windows(2).position(|pair| pair == b"\r\n").map(|at| from + at);
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|n| n.parse().unwrap());
    if !text.contains("\r\ntransfer-encoding: chunked\r\n") {
        let end = head + length.unwrap_or(0_usize);
        return (bytes.len() >= end).then_some(end);
    }
    let mut at = head;
    loop {
        let end = line_end(at)?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..end]).unwrap(), 16).unwrap();
        at = end + 2;
        if size == 0 {
            break;
        }
        at += size + 2;
        if at > bytes.len() {
            return None;
        }
    }
    loop {
        let end = line_end(at)?;
        let is_last = end == at;
        at = end + 2;
        if is_last {
            return Some(at);
        }
    }
}

/// Without what differs from one time to the next.
fn masked(bytes: &[u8]) -> String {
    let text: String = bytes.iter().copied().map(char::from).collect();
    let mask = |line: &str| match line.split_once(": ") {
        Some(("date", _)) => "date: DATE".to_owned(),
        Some(("x-request-id", id)) if id.len() == 32 => "x-request-id: ID".to_owned(),
        _ => line.to_owned(),
    };
    text.split("\r\n").map(mask).collect::<Vec<_>>().join("\r\n")
}

/// As one line of ASCII; what is repeated often as `\\(times*character)`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(one) = rest.chars().next() {
        let run = rest.chars().take_while(|other| *other == one).count();
        if run >= 32 && one.is_ascii_alphanumeric() {
            write!(out, "\\({run}*{one})").unwrap();
            rest = &rest[run..];
            continue;
        }
        match one {
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(one),
            _ => write!(out, "\\x{:02x}", u32::from(one)).unwrap(),
        }
        rest = &rest[one.len_utf8()..];
    }
    out
}

#[tokio::test]
async fn curl_gets_a_clean_431() {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let _leader = Leader::new(&redis).await;
    let router = Router::start(Options::new(&redis, &dir)).await;
    router.applied(dinp_common::model::Version::new(1, 1)).await;
    let header = dir.path().join("header");
    std::fs::write(&header, format!("X-Large: {}\n", "x".repeat(262_144))).unwrap();
    for _ in 0..10 {
        let output = tokio::process::Command::new("curl")
            .args(["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}", "--header"])
            .arg(format!("@{}", header.display()))
            .arg(format!("http://{}/", router.http))
            .output()
            .await
            .expect("curl is installed");
        let (code, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && code == "431", "{code} {error}");
    }
    router.stop().await;
}
