//! An app that can do only so much at a time: what waits, for how long, and what is said to the rest.

use crate::common::{Backend, Leader, Options, Router, eventually, ok, read_request, split};
use dinp_common::testing::{Redis, TestDir};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// An app that answers when the test says so, and remembers what it was asked in which order.
struct Slow {
    backend: Backend,
    asked: Arc<Mutex<Vec<String>>>,
    may_answer: Arc<Semaphore>,
}

impl Slow {
    async fn start() -> Self {
        let (asked, may_answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Semaphore::new(0)));
        let (asks, gate) = (asked.clone(), may_answer.clone());
        let backend = Backend::start(move |_, mut stream| {
            let (asks, gate) = (asks.clone(), gate.clone());
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    asks.lock().unwrap().push(request.split(' ').nth(1).unwrap().to_owned());
                    gate.acquire().await.unwrap().forget();
                    if stream.write_all(ok("done").as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        });
        Self { backend: backend.await, asked, may_answer }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

struct Scene {
    _redis: Redis,
    _dir: TestDir,
    leader: Leader,
    router: Arc<Router>,
    app: Slow,
}

impl Scene {
    /// One instance that may have two requests at a time; two more may wait for at most as long as this.
    async fn new(queue_timeout_ms: u64) -> Self {
        let (redis, dir) = (Redis::start().await, TestDir::new("router"));
        let mut leader = Leader::new(&redis).await;
        let mut options = Options::new(&redis, &dir);
        options.config.max_in_flight = 2;
        options.config.max_queue = 2;
        options.config.queue_timeout_ms = queue_timeout_ms;
        let router = Arc::new(Router::start(options).await);
        let app = Slow::start().await;
        router.applied(leader.publish("web", &[app.backend.endpoint()]).await).await;
        Self { _redis: redis, _dir: dir, leader, router, app }
    }

    /// Asks on a connection of its own.
    fn ask(&self, path: &str) -> JoinHandle<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\n\r\n");
        let router = self.router.clone();
        tokio::spawn(async move { split(&router.raw(request.as_bytes()).await) })
    }

    async fn queued(&self, count: u64) {
        eventually("the queue to have its length", || async {
            let url = format!("http://{}/v1/traffic", self.router.status);
            let traffic: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
            traffic["queued"] == count
        })
        .await;
    }

    async fn asked(&self, paths: &[&str]) {
        eventually("the app to be asked", || async { self.app.asked().len() >= paths.len() }).await;
        assert_eq!(self.app.asked(), paths);
    }
}

#[tokio::test]
async fn an_instance_gets_no_more_than_it_may_and_who_waits_comes_in_turn() {
    let scene = Scene::new(60_000).await;
    let first = scene.ask("/1");
    scene.asked(&["/1"]).await;
    let second = scene.ask("/2");
    scene.asked(&["/1", "/2"]).await;
    let third = scene.ask("/3");
    scene.queued(1).await;
    let fourth = scene.ask("/4");
    scene.queued(2).await;
    let (status, text) = scene.ask("/5").await.unwrap();
    assert_eq!((status, text.as_str()), (503, "503 Service Unavailable: this app has more to do than it can\n"));
    assert_eq!(scene.app.asked(), ["/1", "/2"]);
    scene.app.may_answer.add_permits(1);
    scene.asked(&["/1", "/2", "/3"]).await;
    scene.app.may_answer.add_permits(1);
    scene.asked(&["/1", "/2", "/3", "/4"]).await;
    scene.app.may_answer.add_permits(2);
    for waited in [first, second, third, fourth] {
        assert_eq!(waited.await.unwrap(), (200, "done".into()));
    }
    scene.queued(0).await;
}

#[tokio::test]
async fn nobody_waits_for_ever_and_who_leaves_makes_room_in_the_queue() {
    let scene = Scene::new(700).await;
    let served = [scene.ask("/1"), scene.ask("/2")];
    eventually("both to be asked", || async { scene.app.asked().len() == 2 }).await;
    let mut gone = TcpStream::connect(scene.router.http).await.unwrap();
    gone.write_all(b"GET /gone HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n").await.unwrap();
    let late = scene.ask("/late");
    scene.queued(2).await;
    drop(gone);
    scene.queued(1).await;
    assert_eq!(late.await.unwrap().0, 503);
    scene.app.may_answer.add_permits(2);
    for one in served {
        assert_eq!(one.await.unwrap().0, 200);
    }
    assert_eq!(scene.app.asked().len(), 2, "neither of them came to the app");
}

#[tokio::test]
async fn a_new_instance_takes_what_waits_for_the_old_one() {
    let mut scene = Scene::new(60_000).await;
    let _served = [scene.ask("/1"), scene.ask("/2")];
    eventually("both to be asked", || async { scene.app.asked().len() == 2 }).await;
    let waits = scene.ask("/3");
    scene.queued(1).await;
    let new = Backend::answering("new").await;
    let endpoints = [scene.app.backend.endpoint(), new.endpoint()];
    scene.leader.publish("web", &endpoints).await;
    assert_eq!(waits.await.unwrap(), (200, "new".into()));
}
