//! Raw requests and what becomes of them: the answer, and the bytes that the app saw. The table of heads is in the
//! codec's own tests; here it is shown that what is refused does not reach an app, and what does is framed anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Backend, Leader, Options, Router, ok, split};
use dinp_common::testing::{Redis, TestDir};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HOST: &str = "Host: web.apps.localhost\r\n";

/// A whole request to the app, with everything after the request line given.
fn post(rest: &str) -> String {
    format!("POST /x HTTP/1.1\r\n{HOST}{rest}")
}

#[tokio::test]
async fn raw_requests() {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let mut leader = Leader::new(&redis).await;
    let router = Router::start(Options::new(&redis, &dir)).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    // Answers when the last chunk has come, not before: the router does not forward the rest of a request that an app
    // has answered already.
    let backend = Backend::start({
        let seen = seen.clone();
        move |_, mut stream| {
            let seen = seen.clone();
            async move {
                let mut buffer = [0; 65_536];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    let whole = {
                        let mut seen = seen.lock().unwrap();
                        seen.extend_from_slice(&buffer[..count]);
                        seen.ends_with(b"\r\n0\r\n\r\n")
                    };
                    if whole {
                        stream.write_all(ok("ok").as_bytes()).await.ok();
                    }
                }
            }
        }
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;

    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n";
    for (request, status) in [
        (post(&format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")), 400),
        (post(&format!("Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n{smuggled}")), 400),
        (post(&format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{smuggled}")), 400),
        (post(&format!("Transfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n{smuggled}")), 400),
        (post(&format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}")), 400),
        (post(&format!("X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")), 400),
        (post(&format!("Content-Length: 0\r\nContent-Length: 60\r\n\r\n{smuggled}")), 400),
        (post(&format!("Content-Length: +0\r\n\r\n{smuggled}")), 400),
        (post(&format!("X: a\rContent-Length: 60\r\n\r\n{smuggled}")), 400),
        (post(&format!("X: a\nContent-Length: 60\r\n\r\n{smuggled}")), 400),
        (post(&format!("X: a\0b\r\n\r\n{smuggled}")), 400),
        (format!("POST /x HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"), 400),
        (format!("GET /x HTTP/1.1\r\n{HOST}Host: other.example\r\n\r\n"), 400),
        ("GET /x HTTP/1.1\r\n\r\n".into(), 400),
        (format!("GET http://other.example/x HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET x HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /x HTTP/1.1 HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("CONNECT web.apps.localhost:80 HTTP/1.1\r\n{HOST}\r\n"), 405),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
    ] {
        let answer = router.raw(request.as_bytes()).await;
        assert_eq!(split(&answer).0, status, "{request:?}: {answer}");
        assert!(answer.contains("connection: close\r\n") && answer.contains("x-dinp-error: "), "{request:?}: {answer}");
        assert_eq!(answer.matches("content-length: ").count(), 1, "{request:?}: {answer}");
        assert_eq!(String::from_utf8_lossy(&seen.lock().unwrap()), "", "{request:?}");
    }

    // What is sound arrives, framed anew: no extension, no leading zero, nothing after it.
    let sound = post("Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n0005;a=b\r\nhello\r\n0;c\r\n\r\n");
    let answer = router.raw(sound.as_bytes()).await;
    assert_eq!(split(&answer).0, 200, "{answer}");
    let bytes = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(bytes.starts_with("POST /x HTTP/1.1\r\n"), "{bytes}");
    assert!(bytes.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{bytes}");
    router.stop().await;
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
