//! What stands before the router, and what it tells of its work: proxies, balancers, logs, pages.

use crate::common::{Backend, Leader, Options, PATIENCE, Router, eventually, ok, read_request, split};
use dinp_common::testing::{Redis, TestDir};
use dinp_router::{AccessLog, RouterConfig};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const GET: &str = "GET /a?token=secret HTTP/1.1\r\nHost: web.apps.localhost\r\n";

struct Scene {
    router: Router,
    dir: TestDir,
    _redis: Redis,
    _backend: Backend,
}

impl Scene {
    /// A router with one app, which answers with the head that it has got.
    async fn new(change: impl FnOnce(&mut RouterConfig, &TestDir)) -> Self {
        let redis = Redis::start().await;
        let dir = TestDir::new("router");
        let mut leader = Leader::new(&redis).await;
        let mut options = Options::new(&redis, &dir);
        change(&mut options.config, &dir);
        let router = Router::start(options).await;
        let backend = Backend::start(|_, mut stream| async move {
            while let Some(request) = read_request(&mut stream).await {
                if stream.write_all(ok(&request).as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let version = leader.publish("web", &[backend.endpoint()]).await;
        router.applied(version).await;
        Self { router, dir, _redis: redis, _backend: backend }
    }
}

/// Sends, and reads to the end; nothing where the connection was just cut.
async fn raw(router: &Router, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(router.http).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end").ok();
    String::from_utf8(answer).unwrap()
}

fn introduced(lines: &str) -> String {
    format!("PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\r\n{GET}{lines}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn a_proxy_says_for_whom_it_has_connected() {
    let scene = Scene::new(|config, _| config.proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let (status, seen) = split(&raw(&scene.router, introduced("X-Forwarded-For: 10.0.0.1\r\n").as_bytes()).await);
    assert_eq!(status, 200);
    assert!(seen.contains("x-forwarded-for: 192.0.2.1\r\n"), "{seen}");

    let version_2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\0\x50"[..]].concat();
    let mut stream = TcpStream::connect(scene.router.http).await.unwrap();
    for (cut, byte) in version_2.iter().enumerate() {
        stream.write_all(&[*byte]).await.unwrap_or_else(|error| panic!("byte {cut}: {error}"));
    }
    // Once for each connection, not for each request.
    for rest in ["\r\n", "Connection: close\r\n\r\n"] {
        stream.write_all(format!("{GET}{rest}").as_bytes()).await.unwrap();
    }
    let mut answers = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answers)).await.unwrap().unwrap();
    assert_eq!(answers.matches("x-forwarded-for: 192.0.2.7\r\n").count(), 2, "{answers}");

    for wrong in [format!("{GET}Connection: close\r\n\r\n"), introduced("").replace("TCP4", "TCP9")] {
        assert_eq!(raw(&scene.router, wrong.as_bytes()).await, "", "{wrong}");
    }
    scene.router.stop().await;
}

#[tokio::test]
async fn whom_a_proxy_names_is_trusted_no_more_than_if_it_had_come_itself() {
    let scene = Scene::new(|config, _| {
        config.proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
        config.trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    let claim = "X-Forwarded-For: 10.0.0.1\r\n";
    let seen = raw(&scene.router, introduced(claim).as_bytes()).await;
    assert!(seen.contains("x-forwarded-for: 10.0.0.1, 192.0.2.1\r\n"), "{seen}");
    let seen = raw(&scene.router, introduced(claim).replace("192.0.2.1", "203.0.113.1").as_bytes()).await;
    assert!(seen.contains("x-forwarded-for: 203.0.113.1\r\n"), "{seen}");
    scene.router.stop().await;
}

#[tokio::test]
async fn a_balancer_in_front_has_time_to_look_elsewhere() {
    let scene = Scene::new(|config, _| config.drain_wait_secs = 2).await;
    scene.router.lifecycle.shutdown().cancel();
    assert!(!scene.router.ready().await, "it is told so");
    let mut stream = TcpStream::connect(scene.router.http).await.unwrap();
    stream.write_all(format!("{GET}\r\n").as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    let count = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&buffer[..count]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("connection: close"), "{answer}");
    scene.router.stop().await;
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "and then it ends as ever");
}

/// The lines of the log so far.
fn lines(scene: &Scene) -> Vec<Value> {
    let text = std::fs::read_to_string(scene.dir.path().join("access.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_request_has_its_line_in_the_log() {
    let scene = Scene::new(|config, dir| config.access_log = AccessLog::File(dir.path().join("access.log"))).await;
    let request = format!("{GET}User-Agent: me\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n");
    assert_eq!(split(&raw(&scene.router, request.as_bytes()).await).0, 200);
    assert_eq!(scene.router.get("nobody.apps.localhost").await.0, 404);
    raw(&scene.router, b"nonsense\r\n\r\n").await;
    eventually("three lines", || async { lines(&scene).len() == 3 }).await;

    let mut lines = lines(&scene);
    lines.sort_by_key(|line| line["status"].as_u64());
    let [served, refused, unknown] = &lines[..] else { panic!("{lines:?}") };
    for (key, value) in [("method", "GET"), ("host", "web.apps.localhost"), ("path", "/a"), ("app", "web")] {
        assert_eq!(served[key], value, "{served}");
    }
    for (key, value) in [("request_id", "mine"), ("user_agent", "me"), ("client", "127.0.0.1")] {
        assert_eq!(served[key], value, "{served}");
    }
    assert_eq!((&served["attempts"], &served["release"]), (&1.into(), &1.into()), "{served}");
    assert!(served["duration"].as_f64() >= served["app_duration"].as_f64(), "{served}");
    assert!(served["sent"].as_u64() > Some(100), "{served}");
    assert!(!served.to_string().contains("secret"), "{served}");
    assert_eq!((&unknown["status"], &unknown["error"]), (&404.into(), &"unknown_host".into()), "{unknown}");
    assert_eq!((&refused["status"], &refused["error"]), (&400.into(), &"bad_request".into()), "{refused}");
    scene.router.stop().await;
}

#[tokio::test]
async fn a_client_that_gives_up_is_in_the_log_as_well() {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let mut leader = Leader::new(&redis).await;
    let mut options = Options::new(&redis, &dir);
    options.config.access_log = AccessLog::File(dir.path().join("access.log"));
    let router = Router::start(options).await;
    let silent =
        Backend::start(|_, mut stream| async move { while read_request(&mut stream).await.is_some() {} }).await;
    let version = leader.publish("web", &[silent.endpoint()]).await;
    router.applied(version).await;
    let mut stream = TcpStream::connect(router.http).await.unwrap();
    stream.write_all(format!("{GET}\r\n").as_bytes()).await.unwrap();
    eventually("the request to be there", || async { silent.connections() == 1 }).await;
    drop(stream);
    let scene = Scene { router, dir, _redis: redis, _backend: silent };
    eventually("its line", || async { lines(&scene).len() == 1 }).await;
    let line = &lines(&scene)[0];
    assert_eq!((&line["status"], &line["error"]), (&0.into(), &"client_gone".into()), "{line}");
    tokio::time::timeout(Duration::from_secs(10), scene.router.stop()).await.expect("nothing holds it up");
}

#[tokio::test]
async fn pages_come_in_the_form_that_is_asked_for() {
    let scene = Scene::new(|_, _| {}).await;
    for (accept, kind) in [
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json", "application/problem+json"),
        ("*/*", "text/plain; charset=utf-8"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: no.x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        let answer = raw(&scene.router, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        assert!(answer.contains(&format!("content-type: {kind}\r\n")), "{answer}");
    }
    scene.router.stop().await;
}

#[tokio::test]
async fn a_reload_changes_the_limits_and_ends_no_connection() {
    let scene = Scene::new(|_, _| {}).await;
    let mut kept = TcpStream::connect(scene.router.http).await.unwrap();
    let ask = async |kept: &mut TcpStream| {
        kept.write_all(format!("{GET}\r\n").as_bytes()).await.unwrap();
        let mut buffer = [0; 4096];
        let count = tokio::time::timeout(PATIENCE, kept.read(&mut buffer)).await.unwrap().unwrap();
        assert!(buffer[..count].starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", buffer[..count].escape_ascii());
    };
    ask(&mut kept).await;

    let large = format!("{GET}X-Large: {}\r\nConnection: close\r\n\r\n", "x".repeat(2000));
    let status = async || split(&raw(&scene.router, large.as_bytes()).await).0;
    assert_eq!(status().await, 200);
    let file = scene.dir.path().join("router.toml");
    std::fs::write(&file, "max_header_bytes = 1024\n").unwrap();
    scene.router.lifecycle.request_reload();
    eventually("the new limit", || async { status().await == 431 }).await;

    std::fs::write(&file, "max_header_bytes = 1\n").unwrap();
    scene.router.lifecycle.request_reload();
    eventually("the status to say what is wrong", || async {
        scene.router.lifecycle.status_line().contains("max_header_bytes")
    })
    .await;
    assert_eq!(status().await, 431, "the old one stays in force");
    ask(&mut kept).await;
    scene.router.stop().await;
}
