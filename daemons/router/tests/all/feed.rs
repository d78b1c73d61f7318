//! The table: from Redis, through its outages, from disk; and what the leader is told.

use crate::common;
use crate::common::{Backend, Leader, Options, Router, eventually};
use axum::Json;
use axum::extract::State;
use axum::routing::post;
use dinp_common::api::router::{RouterGoodbye, RouterReply, RouterReport};
use dinp_common::model::Version;
use dinp_common::testing::{Redis, TestDir};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn an_outage_of_redis_is_not_noticed() {
    let mut redis = Redis::start().await;
    let dir = TestDir::new("router");
    let mut leader = Leader::new(&redis).await;
    let router = Router::start(Options::new(&redis, &dir)).await;
    let backend = Backend::answering("web").await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let served = async |what: &str| assert_eq!(router.get("web.apps.localhost").await, (200, "web".into()), "{what}");

    redis.stop();
    served("stopped").await;
    assert!(router.ready().await);
    redis.start_again().await;
    served("started again, empty").await;

    // A leader with a lower version, or one that is not through yet, changes nothing.
    let mut other = Leader::new(&redis).await;
    let empty = Leader { table: Default::default(), ..other };
    other = empty;
    served("a table of the past").await;
    assert_eq!(router.report().await.applied, version);
    // The leader rewrites.
    let mut leader = Leader { table: leader.table, ..other };
    leader.rewrite(Version::new(1, 7)).await;
    router.applied(Version::new(1, 7)).await;
    served("rewritten").await;

    let mut connection = redis.connection().await.unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
    served("flushed").await;
    let second = Backend::answering("second").await;
    leader.rewrite(Version::new(2, 1)).await;
    let version = leader.publish("other", &[second.endpoint()]).await;
    router.applied(version).await;
    served("rewritten after the flush").await;
    assert_eq!(router.get("other.apps.localhost").await, (200, "second".into()));
    router.stop().await;
}

#[tokio::test]
async fn a_start_without_redis_uses_the_table_on_disk() {
    let mut redis = Redis::start().await;
    let dir = TestDir::new("router");
    let backend = Backend::answering("web").await;
    let mut leader = Leader::new(&redis).await;
    let router = Router::start(Options::new(&redis, &dir)).await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    // Written soon after the change, not only at the end.
    eventually("the file", || async {
        std::fs::read_to_string(dir.path().join("routes.jsonl")).is_ok_and(|text| text.contains("web.apps"))
    })
    .await;
    router.stop().await;
    redis.stop();

    let router = Router::start(Options::new(&redis, &dir)).await;
    router.applied(version).await;
    assert!(router.ready().await);
    assert_eq!(router.get("web.apps.localhost").await, (200, "web".into()));
    router.stop().await;
}

#[tokio::test]
async fn neither_redis_nor_disk_is_not_ready() {
    let mut redis = Redis::start().await;
    redis.stop();
    let dir = TestDir::new("router");
    let router = Router::start(Options::new(&redis, &dir)).await;
    assert!(!router.ready().await);
    let (status, body) = router.get("web.apps.localhost").await;
    assert_eq!((status, body.contains("no routes yet")), (503, true), "{body}");
    redis.start_again().await;
    assert!(!router.ready().await);
    let _leader = Leader::new(&redis).await;
    eventually("readiness", || router.ready()).await;
    assert_eq!(router.get("web.apps.localhost").await.0, 404);
    router.stop().await;
}

/// A leader that takes reports.
#[derive(Clone, Default)]
struct FakeServer {
    reports: Arc<Mutex<Vec<(Instant, RouterReport)>>>,
    goodbyes: Arc<Mutex<Vec<String>>>,
}

impl FakeServer {
    async fn start(&self) -> url::Url {
        let report =
            async |State(server): State<FakeServer>, headers: http::HeaderMap, Json(report): Json<RouterReport>| {
                assert!(headers["authorization"].to_str().unwrap().starts_with("Bearer service:router1:"));
                server.reports.lock().unwrap().push((Instant::now(), report));
                Json(RouterReply { epoch: 1, published: Version::new(1, 1) })
            };
        let goodbye = async |State(server): State<FakeServer>, Json(goodbye): Json<RouterGoodbye>| {
            server.goodbyes.lock().unwrap().push(goodbye.router);
        };
        let app = axum::Router::new()
            .route("/v1/router/report", post(report))
            .route("/v1/router/goodbye", post(goodbye))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn first_with(&self, version: Version) -> Option<Instant> {
        let reports = self.reports.lock().unwrap();
        reports.iter().find(|(_, report)| report.applied >= version).map(|(at, _)| *at)
    }
}

#[tokio::test]
async fn the_leader_hears_of_each_change_at_once() {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let mut leader = Leader::new(&redis).await;
    let server = FakeServer::default();
    let mut options = Options::new(&redis, &dir);
    options.servers = vec![server.start().await];
    let router = Router::start(options).await;
    router.applied(Version::new(1, 1)).await;
    let backend = Backend::answering("web").await;
    let mut worst = Duration::ZERO;
    for n in 0..20 {
        let begin = Instant::now();
        let endpoints = if n % 2 == 0 { vec![backend.endpoint()] } else { vec![] };
        let version = leader.publish("web", &endpoints).await;
        eventually("the report", || async { server.first_with(version).is_some() }).await;
        worst = worst.max(server.first_with(version).unwrap() - begin);
        // Odd steps, so that reports meet the timer in all phases.
        tokio::time::sleep(Duration::from_millis(37)).await;
    }
    println!("slowest report after a change: {worst:?}");
    assert!(worst < Duration::from_millis(100), "{worst:?}");
    let count = server.reports.lock().unwrap().len();
    eventually("a report without a change", || async { server.reports.lock().unwrap().len() > count }).await;
    router.stop().await;
    assert_eq!(*server.goodbyes.lock().unwrap(), ["router1"]);
}

/// Instances are replaced one after the other under steady load, each stopped as soon as the router has nothing in
/// flight to it: no request fails.
#[tokio::test]
async fn a_rolling_swap_loses_nothing() {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let mut leader = Leader::new(&redis).await;
    let router = Router::start(Options::new(&redis, &dir)).await;
    let slow = || {
        Backend::start(|_, mut stream| async move {
            while common::read_request(&mut stream).await.is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if stream.write_all(common::ok("x").as_bytes()).await.is_err() {
                    return;
                }
            }
        })
    };
    let mut backends = vec![slow().await, slow().await, slow().await];
    let endpoints = |backends: &[Backend]| backends.iter().map(Backend::endpoint).collect::<Vec<_>>();
    let version = leader.publish("web", &endpoints(&backends)).await;
    router.applied(version).await;

    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (stop, served, http) = (stop.clone(), served.clone(), router.http);
        clients.spawn(async move {
            let client = reqwest::Client::new();
            let mut failures = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let request = match number % 2 {
                    0 => client.get(format!("http://{http}/")),
                    _ => client.post(format!("http://{http}/")).body("body"),
                };
                match request.header("host", "web.apps.localhost").send().await {
                    Ok(answer) if answer.status() == 200 => {
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                    other => failures.push(format!("{other:?}")),
                }
            }
            failures
        });
    }
    for _ in 0..12 {
        backends.push(slow().await);
        leader.publish("web", &endpoints(&backends)).await;
        let old = backends.remove(0);
        let version = leader.publish("web", &endpoints(&backends)).await;
        router.applied(version).await;
        eventually("the old instance to drain", || async { router.report().await.in_flight.is_empty() }).await;
        drop(old);
    }
    stop.store(true, Ordering::SeqCst);
    let failures: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} of {}: {:?}", failures.len(), served.load(Ordering::SeqCst), failures.first());
    assert!(served.load(Ordering::SeqCst) > 100);
    router.stop().await;
}
