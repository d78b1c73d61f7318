//! The monitor against a server that says what to probe, and instances over real TCP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dinp_common::api::WatchQuery;
use dinp_common::api::hm::{HmReport, Target, Targets};
use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::StatusReaders;
use dinp_common::model::{HealthCheck, InstanceId};
use dinp_common::problem::Problem;
use dinp_hm::{HmConfig, probe};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(30);

/// A server that hands out targets and collects reports.
#[derive(Clone)]
struct FakeServer {
    targets: watch::Sender<Targets>,
    reports: Arc<Mutex<Vec<(Instant, HmReport)>>>,
    /// Whether it answers to nothing.
    away: Arc<AtomicBool>,
    address: SocketAddr,
}

impl FakeServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let empty = Targets { version: "0 & nothing".into(), targets: Vec::new() };
        let address = listener.local_addr().unwrap();
        let server = Self { targets: watch::channel(empty).0, reports: Arc::default(), away: Arc::default(), address };
        tokio::spawn(axum::serve(listener, server.app()).into_future());
        server
    }

    fn app(&self) -> Router {
        Router::new()
            .route("/v1/hm/targets", get(Self::targets))
            .route("/v1/hm/report", post(Self::report))
            .with_state(self.clone())
    }

    async fn targets(State(server): State<Self>, Query(query): Query<WatchQuery>) -> Response {
        if server.away.load(Ordering::SeqCst) {
            return Problem::unavailable("away", "this server is away").into_response();
        }
        let mut targets = server.targets.subscribe();
        let wait = Duration::from_secs(u64::from(query.wait_secs));
        let changed = targets.wait_for(|targets| Some(&targets.version) != query.have.as_ref());
        match tokio::time::timeout(wait, changed).await {
            Ok(Ok(targets)) => Json(targets.clone()).into_response(),
            _ => http::StatusCode::NO_CONTENT.into_response(),
        }
    }

    async fn report(State(server): State<Self>, headers: http::HeaderMap, Json(report): Json<HmReport>) -> Response {
        if server.away.load(Ordering::SeqCst) {
            return Problem::unavailable("away", "this server is away").into_response();
        }
        assert!(headers["authorization"].to_str().unwrap().starts_with("Bearer service:hm1:"));
        server.reports.lock().unwrap().push((Instant::now(), report));
        http::StatusCode::NO_CONTENT.into_response()
    }

    fn set(&self, version: &str, targets: Vec<Target>) {
        self.targets.send_replace(Targets { version: version.into(), targets });
    }

    /// Waits for a report; gives when it came and what it says.
    async fn heard(&self, what: &str, check: impl Fn(&HmReport) -> bool) -> (Instant, HmReport) {
        let begin = Instant::now();
        loop {
            let found = self.reports.lock().unwrap().iter().find(|(_, report)| check(report)).cloned();
            if let Some(found) = found {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "no report with {what}: {:?}", self.reports.lock().unwrap().last());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn forget(&self) {
        self.reports.lock().unwrap().clear();
    }
}

fn start(server: &FakeServer) -> Lifecycle {
    let lifecycle = Lifecycle::for_tests();
    let url = format!("http://{}", server.address).parse().unwrap();
    let credential = Credential::generate(CredentialKind::Service, "hm1");
    let life = lifecycle.clone();
    tokio::spawn(async move {
        let status = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let readers = StatusReaders::new(Vec::new());
        dinp_hm::serve(HmConfig::default(), vec![url], credential, vec![status], readers, life).await;
    });
    lifecycle
}

/// An instance; `answer` writes what it wants to each connection, after the request.
async fn instance<F, Fut>(answer: F) -> SocketAddr
where
    F: Fn(String, TcpStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap_or(0);
            request.truncate(count);
            tokio::spawn(answer(String::from_utf8(request).unwrap(), stream));
        }
    });
    address
}

async fn status(line: &'static str) -> SocketAddr {
    instance(move |_, mut stream| async move {
        stream.write_all(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.ok();
    })
    .await
}

fn target(bits: u64, address: SocketAddr) -> Target {
    Target {
        instance: InstanceId::from_bits(bits),
        app: "web".parse().unwrap(),
        address: address.ip().to_string(),
        port: address.port(),
        host: "web.apps.localhost".into(),
        check: HealthCheck { interval_secs: 1, timeout_secs: 1, ..HealthCheck::new("/health?deep=1") },
        rest_secs: None,
    }
}

/// An instance that is well and counts its probes.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let probes = Arc::new(AtomicUsize::new(0));
    let counted = probes.clone();
    let address = instance(move |_, mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok();
        }
    })
    .await;
    (address, probes)
}

fn names(report: &HmReport) -> Vec<u64> {
    report.unfit.iter().map(|unfit| u64::from_str_radix(unfit.instance.as_str(), 16).unwrap()).collect()
}

#[tokio::test]
async fn probes() {
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let silent = instance(|_, stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let dribbling = instance(|_, mut stream| async move {
        while stream.write_all(b"HTTP/1.1 200 OK\r\nX".get(..1).unwrap()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let exact = instance(|request, mut stream| async move {
        let lines = ["host: web.apps.localhost\r\n", "x-forwarded-proto: http\r\n", "user-agent: dinp-hm/"];
        let good =
            request.starts_with("GET /health?deep=1 HTTP/1.1\r\n") && lines.iter().all(|line| request.contains(line));
        let status = if good { "204 No Content" } else { "400 Bad Request" };
        stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.ok();
    })
    .await;
    for (address, expected) in [
        (exact, None),
        (status("200 OK").await, None),
        (status("302 Found").await, None),
        (status("404 Not Found").await, Some("status 404 Not Found")),
        (status("500 Internal Server Error").await, Some("status 500 Internal Server Error")),
        (refusing, Some("no connection: refused")),
        (instance(|_, stream| async move { drop(stream) }).await, Some("no answer: ")),
        (instance(|_, mut s| async move { s.write_all(b"SMTP\r\n\r\n").await.unwrap() }).await, Some("no answer: ")),
        (silent, Some("no answer within 1 s")),
        (dribbling, Some("no answer")),
    ] {
        let begin = Instant::now();
        let outcome = probe(&target(1, address)).await.map_err(|error| error.to_string());
        assert!(begin.elapsed() < Duration::from_millis(1500), "a hard deadline: {:?}", begin.elapsed());
        match expected {
            None => assert_eq!(outcome, Ok(())),
            Some(text) => {
                assert!(outcome.as_ref().is_err_and(|error| error.starts_with(text)), "{outcome:?}, not {text}")
            }
        }
    }
}

#[tokio::test]
async fn a_check_can_name_another_host_and_can_be_a_connection_alone() {
    let picky = instance(|request, mut stream| async move {
        let status = if request.contains("host: shop.example.org\r\n") { "204 No Content" } else { "400 Bad Request" };
        stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.ok();
    })
    .await;
    assert!(probe(&target(1, picky)).await.is_err(), "it knows its own host alone");
    let check = HealthCheck { host: Some("shop.example.org".into()), ..HealthCheck::new("/health") };
    probe(&Target { check, ..target(1, picky) }).await.unwrap();
    let speechless = instance(|_, mut stream| async move { stream.write_all(b"SMTP\r\n\r\n").await.unwrap() }).await;
    probe(&Target { check: HealthCheck::tcp(), ..target(1, speechless) }).await.unwrap();
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    assert!(probe(&Target { check: HealthCheck::tcp(), ..target(1, refusing) }).await.is_err());
}

/// The original killed an instance after one failed probe. Three in a row are a verdict here, three good ones take it
/// back, and the server hears of either at once.
#[tokio::test]
async fn verdicts_take_three_probes() {
    let server = FakeServer::start().await;
    let bad = Arc::new(AtomicBool::new(false));
    let probes = Arc::new(AtomicUsize::new(0));
    let flaky = instance({
        let (bad, probes) = (bad.clone(), probes.clone());
        move |_, mut stream| {
            let status = if bad.load(Ordering::SeqCst) { "500 Broken" } else { "200 OK" };
            probes.fetch_add(1, Ordering::SeqCst);
            async move {
                stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.ok();
            }
        }
    })
    .await;
    server.set("v1", vec![target(1, flaky)]);
    let lifecycle = start(&server);
    let (_, first) = server.heard("the list", |report| report.targets == "v1").await;
    assert_eq!((first.monitor.as_str(), names(&first)), ("hm1", vec![]));

    let until = |count: usize| {
        let probes = probes.clone();
        async move {
            let target = probes.load(Ordering::SeqCst) + count;
            let begin = Instant::now();
            while probes.load(Ordering::SeqCst) < target {
                assert!(begin.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    until(1).await;
    bad.store(true, Ordering::SeqCst);
    until(1).await;
    bad.store(false, Ordering::SeqCst);
    until(2).await;
    server.heard("nobody unfit after one failure", |report| names(report).is_empty()).await;
    assert!(server.reports.lock().unwrap().iter().all(|(_, report)| report.unfit.is_empty()));

    bad.store(true, Ordering::SeqCst);
    until(3).await;
    let third = Instant::now();
    let (at, report) = server.heard("the verdict", |report| names(report) == [1]).await;
    assert!(at < third + Duration::from_millis(500), "at once, not with the next timer: {:?}", at - third);
    assert_eq!(report.unfit[0].detail, "status 500 Internal Server Error");
    bad.store(false, Ordering::SeqCst);
    until(3).await;
    server.forget();
    server.heard("fitness again", |report| names(report).is_empty()).await;
    lifecycle.shutdown().cancel();
}

/// Two probes each 5 s filled the access logs of apps: the agent asks, the monitor only now and then unless it sees a failure.
#[tokio::test]
async fn at_rest_the_monitor_asks_as_seldom_as_the_server_says_and_a_failure_wakes_it() {
    let server = FakeServer::start().await;
    let ((resting, few), (watched, many)) = (counting().await, counting().await);
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let at_rest = |bits, address| Target { rest_secs: Some(300), ..target(bits, address) };
    server.set("v1", vec![at_rest(1, resting), target(2, watched), at_rest(3, refusing)]);
    let lifecycle = start(&server);
    let (_, report) = server.heard("the verdict after three probes at the check's interval", |r| names(r) == [3]).await;
    assert_eq!(report.unfit[0].detail, "no connection: refused");
    let asked = async |probes: &AtomicUsize, count| {
        let begin = Instant::now();
        while probes.load(Ordering::SeqCst) < count {
            assert!(begin.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    asked(&many, 5).await;
    assert_eq!(few.load(Ordering::SeqCst), 1);
    server.set("v2", vec![target(1, resting)]);
    asked(&few, 3).await;
    lifecycle.shutdown().cancel();
}

#[tokio::test]
async fn a_slow_target_delays_no_other() {
    let server = FakeServer::start().await;
    let silent = instance(|_, stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let probes = Arc::new(AtomicUsize::new(0));
    let good = instance({
        let probes = probes.clone();
        move |_, mut stream| {
            probes.fetch_add(1, Ordering::SeqCst);
            async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok();
            }
        }
    })
    .await;
    let mut targets: Vec<Target> = (1..=100).map(|bits| target(bits, silent)).collect();
    targets.push(target(500, good));
    server.set("v1", targets);
    let lifecycle = start(&server);
    let (_, report) = server.heard("all silent ones", |report| report.unfit.len() == 100).await;
    assert!(!names(&report).contains(&500));
    assert!(probes.load(Ordering::SeqCst) >= 2, "{}", probes.load(Ordering::SeqCst));
    lifecycle.shutdown().cancel();
}

#[tokio::test]
async fn targets_come_and_go_and_an_absent_server_changes_nothing() {
    let server = FakeServer::start().await;
    let lifecycle = start(&server);
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    server.heard("the empty list", |report| report.targets == "0 & nothing").await;
    server.set("v1", vec![target(1, refusing), target(2, refusing)]);
    server.heard("both", |report| names(report) == [1, 2]).await;
    server.set("v2", vec![target(2, refusing)]);
    server.heard("one less", |report| report.targets == "v2" && names(report) == [2]).await;
    // A leader that does not know it for a moment: the verdict is still there when it is back.
    server.forget();
    server.set("v3", vec![target(1, refusing), target(2, refusing)]);
    let (_, back) = server.heard("the list", |report| report.targets == "v3").await;
    assert_eq!(names(&back), [1, 2]);

    // The server is away: probes go on, and what they found is in the first report when it is back.
    let probes = Arc::new(AtomicUsize::new(0));
    let counted = instance({
        let probes = probes.clone();
        move |_, _| {
            probes.fetch_add(1, Ordering::SeqCst);
            async {}
        }
    })
    .await;
    server.set("v4", vec![target(1, refusing), target(3, counted)]);
    server.heard("the list", |report| report.targets == "v4").await;
    server.away.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    while probes.load(Ordering::SeqCst) < 4 {
        assert!(begin.elapsed() < PATIENCE, "no probes while the server is away");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.forget();
    server.away.store(false, Ordering::SeqCst);
    let (_, first) = server.heard("anything", |_| true).await;
    assert_eq!((first.targets.as_str(), names(&first)), ("v4", vec![1, 3]));
    lifecycle.shutdown().cancel();
}
