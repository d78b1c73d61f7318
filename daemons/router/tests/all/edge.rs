//! What strangers can do to the router's listeners: slow heads, too many connections, claims, questions about the inside.

use crate::common::{Backend, Leader, Options, PATIENCE, Router, eventually, ok, read_request};
use dinp_common::testing::{Redis, TestDir};
use dinp_router::RouterConfig;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n";

/// A router with one worker and the app `web`, of one instance.
struct Scene {
    router: Router,
    leader: Leader,
    backend: Backend,
    _redis: Redis,
    _dir: TestDir,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut Options)) -> Self {
        let (redis, dir) = (Redis::start().await, TestDir::new("router"));
        let mut leader = Leader::new(&redis).await;
        let mut options = Options::new(&redis, &dir);
        options.config.workers = 1;
        change(&mut options);
        let router = Router::start(options).await;
        let backend = Backend::answering("web").await;
        let version = leader.publish("web", &[backend.endpoint()]).await;
        router.applied(version).await;
        Self { router, leader, backend, _redis: redis, _dir: dir }
    }

    async fn limited(change: impl FnOnce(&mut RouterConfig)) -> Self {
        Self::new(|options| change(&mut options.config)).await
    }

    /// A connection of one of several clients.
    async fn connect(&self, client: &str) -> TcpStream {
        connect(client.parse().unwrap(), self.router.http).await.unwrap()
    }
}

async fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// One answer, and whether it is the app's.
async fn is_answered(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let whole = async {
        stream.write_all(GET).await?;
        while !answer.ends_with(b"web") {
            if stream.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200 "))
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("an answer or an end").unwrap_or(false)
}

/// Waits for the router to close a connection; what it said before.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the end").ok();
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off_at_its_deadline() {
    let scene = Scene::limited(|config| config.head_timeout_secs = 1).await;
    let mut stream = scene.connect("127.0.0.1").await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\nX-Slow: ").await.unwrap();
    let begin = Instant::now();
    let (mut read, mut write) = stream.split();
    let mut answer = [0; 512];
    let mut drops = tokio::time::interval(Duration::from_millis(100));
    let answered = async {
        loop {
            tokio::select! {
                count = read.read(&mut answer) => break count.unwrap(),
                // It may be closed already, which the read tells.
                _ = drops.tick() => drop(write.write_all(b"x").await),
            }
        }
    };
    let count = tokio::time::timeout(PATIENCE, answered).await.expect("it is cut off");
    let answer = String::from_utf8_lossy(&answer[..count]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let took = begin.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&took), "{took:?}");
    scene.router.stop().await;
}

#[tokio::test]
async fn a_head_behind_another_request_has_its_time_as_well() {
    let scene = Scene::limited(|config| config.head_timeout_secs = 1).await;
    let mut stream = scene.connect("127.0.0.1").await;
    stream.write_all(&[GET, b"GET / HTTP/1.1\r\nHost:"].concat()).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("HTTP/1.1 408 "), "{said}");
    scene.router.stop().await;
}

#[tokio::test]
async fn a_connection_that_stays_idle_after_an_answer_is_ended() {
    let scene = Scene::limited(|config| config.keepalive_timeout_secs = 1).await;
    let mut stream = scene.connect("127.0.0.1").await;
    assert!(is_answered(&mut stream).await);
    assert_eq!(rest(&mut stream).await, "");
    scene.router.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_is_not_cut_off_as_idle() {
    let mut scene = Scene::limited(|config| {
        config.keepalive_timeout_secs = 1;
        config.max_connections = 1;
        config.body_timeout_secs = 30;
    })
    .await;
    // Too much for the kernel's buffers of this connection, which has small segments; not too much for hyper's.
    let body: &str = "x".repeat(180_000).leak();
    let backend = Backend::answering(body).await;
    let version = scene.leader.publish("web", &[backend.endpoint()]).await;
    scene.router.applied(version).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    setsockopt(&socket, sockopt::TcpMaxSeg, &536).unwrap();
    let mut slow = socket.connect(scene.router.http).await.unwrap();
    slow.write_all(GET).await.unwrap();
    slow.readable().await.unwrap();
    // Longer than an idle connection is kept, with somebody waiting for its place.
    let mut attempts = tokio::time::interval(Duration::from_millis(300));
    for _ in 0..6 {
        attempts.tick().await;
        let mut other = scene.connect("127.0.0.2").await;
        assert_eq!(rest(&mut other).await, "", "there is no place");
    }
    let answer = rest(&mut slow).await;
    assert!(answer.ends_with(body), "{} bytes", answer.len());
    scene.router.stop().await;
}

#[tokio::test]
async fn who_opens_connections_without_end_does_not_lock_out_others() {
    let scene = Scene::limited(|config| config.max_connections_per_client = 4).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = scene.connect("127.0.0.1").await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        held.push(stream);
    }
    assert!(is_answered(&mut scene.connect("127.0.0.2").await).await);
    // Of its own connections the oldest had to go.
    assert_eq!(rest(&mut held[0]).await, "");
    scene.router.stop().await;
}

#[tokio::test]
async fn the_connection_that_is_idle_for_longest_makes_room_and_none_that_is_at_work() {
    let scene = Scene::limited(|config| config.max_connections = 3).await;
    let mut working = scene.connect("127.0.0.1").await;
    working.write_all(b"POST / HTTP/1.1\r\nHost: web.apps.localhost\r\nContent-Length: 5\r\n\r\nab").await.unwrap();
    let (mut older, mut newer) = (scene.connect("127.0.0.2").await, scene.connect("127.0.0.3").await);
    assert!(is_answered(&mut older).await);
    assert!(is_answered(&mut newer).await);
    let mut fresh = scene.connect("127.0.0.4").await;
    assert!(is_answered(&mut fresh).await);
    assert_eq!(rest(&mut older).await, "", "it was idle for longest");
    assert!(is_answered(&mut newer).await);
    working.write_all(b"cde").await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, working.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    scene.router.stop().await;
}

#[tokio::test]
async fn claims_of_strangers_do_not_reach_the_app() {
    let mut scene = Scene::limited(|config| config.trusted_proxies = vec!["127.0.0.9/32".parse().unwrap()]).await;
    let seen = Arc::new(Mutex::new(String::new()));
    let backend = Backend::start({
        let seen = seen.clone();
        move |_, mut stream| {
            let seen = seen.clone();
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    *seen.lock().unwrap() = request.to_ascii_lowercase();
                    stream.write_all(ok("web").as_bytes()).await.unwrap();
                }
            }
        }
    })
    .await;
    let version = scene.leader.publish("web", &[backend.endpoint()]).await;
    scene.router.applied(version).await;
    let request = "GET / HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\nX_Forwarded_Proto: https\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Ssl: on\r\nX-Forwarded-Prefix: /a\r\n\
         Forwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nProxy: http://evil.example\r\n\r\n";

    let mut stranger = scene.connect("127.0.0.2").await;
    stranger.write_all(request.as_bytes()).await.unwrap();
    rest(&mut stranger).await;
    let app_saw = std::mem::take(&mut *seen.lock().unwrap());
    for line in ["x-forwarded-proto: http", "x-forwarded-for: 127.0.0.2", "x-forwarded-port: 80"] {
        assert!(app_saw.contains(&format!("\r\n{line}\r\n")), "{line} in {app_saw}");
    }
    for claim in ["x_forwarded", "https", "-ssl", "-prefix", "\r\nforwarded", "x-real-ip", "\r\nproxy", "127.0.0.1"] {
        assert!(!app_saw.contains(claim), "{claim} in {app_saw}");
    }

    let mut proxy = scene.connect("127.0.0.9").await;
    proxy.write_all(request.as_bytes()).await.unwrap();
    rest(&mut proxy).await;
    let app_saw = std::mem::take(&mut *seen.lock().unwrap());
    for line in ["x-forwarded-proto: https", "x-forwarded-for: 127.0.0.1, 127.0.0.9", "x-forwarded-ssl: on"] {
        assert!(app_saw.contains(&format!("\r\n{line}\r\n")), "{line} in {app_saw}");
    }
    assert!(!app_saw.contains("x_forwarded") && !app_saw.contains("\r\nproxy"), "{app_saw}");
    scene.router.stop().await;
}

/// This machine's address towards others: from it, the router on 127.0.0.1 is called by what could be an app.
fn stranger() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the kernel only chooses the address.
    socket.connect("192.0.2.1:9").expect("this machine has a network");
    socket.local_addr().unwrap().ip()
}

async fn status(router: &Router, path: &str) -> String {
    let mut stream = connect(stranger(), router.status).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: router\r\nConnection: close\r\n\r\n");
    // It may be closed before it is written.
    stream.write_all(request.as_bytes()).await.ok();
    rest(&mut stream).await
}

#[tokio::test]
async fn the_status_is_read_by_this_machine_the_servers_and_named_networks_alone() {
    let scene = Scene::new(|_| {}).await;
    for path in ["/v1/routes", "/v1/status", "/metrics", "/health", "/ready"] {
        assert_eq!(status(&scene.router, path).await, "", "{path} answers an app");
    }
    assert!(scene.router.ready().await, "this machine reads it");
    scene.router.stop().await;

    let named = Scene::new(|options| options.status_networks = vec![stranger().to_string().parse().unwrap()]).await;
    assert!(status(&named.router, "/v1/routes").await.contains(named.backend.id.as_str()));
    named.router.stop().await;

    let server = |options: &mut Options| options.servers = vec![format!("http://{}:1", stranger()).parse().unwrap()];
    let served = Scene::new(server).await;
    eventually("the leader to read the status", || async { !status(&served.router, "/v1/status").await.is_empty() })
        .await;
    served.router.stop().await;
}

#[tokio::test]
async fn metrics_name_the_releases_that_are_there_and_count_their_answers() {
    let scene = Scene::new(|_| {}).await;
    assert!(is_answered(&mut scene.connect("127.0.0.1").await).await);
    let text = reqwest::get(format!("http://{}/metrics", scene.router.status)).await.unwrap().text().await.unwrap();
    assert!(text.contains("dinp_router_answers_total{app=\"web\",release=\"1\",class=\"2xx\"} 1\n"), "{text}");
    assert!(text.contains("dinp_router_answer_seconds_bucket{app=\"web\",release=\"1\",le=\"10\"} 1\n"), "{text}");
    assert!(text.contains("dinp_router_answer_seconds_count{app=\"web\",release=\"1\"} 1\n"), "{text}");
    assert!(text.contains("dinp_router_failed_attempts_total{app=\"web\",release=\"1\"} 0\n"), "{text}");
    scene.router.stop().await;
}
