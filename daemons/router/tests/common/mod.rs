//! A router in this process, a real Redis, and instances that behave as a test wants.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(missing_docs, clippy::unwrap_used)]

pub mod escape;

use dinp_common::api::router::RouterReport;
use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::credentials::Secret;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::model::{InstanceId, Version};
use dinp_common::network::Network;
use dinp_common::routes::{AppRoutes, Endpoint, EndpointState, Publisher, RouteOptions, RouteState, Table, difference};
use dinp_common::testing::{Redis, TestDir};
use dinp_router::{RedisAccess, RouterConfig, RunError, Settings};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub const CLUSTER: &str = "dinp";
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running router.
pub struct Router {
    pub http: SocketAddr,
    pub status: SocketAddr,
    pub lifecycle: Lifecycle,
    task: JoinHandle<Result<(), RunError>>,
}

pub struct Options {
    pub config: RouterConfig,
    pub redis_url: String,
    pub servers: Vec<url::Url>,
    pub status_networks: Vec<Network>,
}

impl Options {
    pub fn new(redis: &Redis, dir: &TestDir) -> Self {
        let config = RouterConfig {
            workers: 2,
            state_dir: dir.path().to_owned(),
            connect_timeout_ms: 300,
            request_timeout_secs: 3,
            head_timeout_secs: 1,
            body_timeout_secs: 2,
            drain_timeout_secs: 5,
            ..RouterConfig::default()
        };
        let servers = vec!["http://127.0.0.1:1".parse().unwrap()];
        Self { config, redis_url: redis.url(), servers, status_networks: Vec::new() }
    }
}

impl Router {
    pub async fn start(options: Options) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let status = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lifecycle = Lifecycle::for_tests();
        let settings = Settings {
            config_dir: options.config.state_dir.clone(),
            config: options.config,
            redis: RedisAccess {
                url: options.redis_url,
                user: "test".into(),
                password: Secret::new("test"),
                cluster: CLUSTER.into(),
            },
            servers: options.servers,
            status_networks: options.status_networks,
            credential: Credential::generate(CredentialKind::Service, "router1"),
        };
        let (http_address, status_address) = (http.local_addr().unwrap(), status.local_addr().unwrap());
        let task = tokio::spawn(dinp_router::serve(settings, vec![http], vec![status], lifecycle.clone()));
        Self { http: http_address, status: status_address, lifecycle, task }
    }

    /// Waits until a version is in force.
    pub async fn applied(&self, version: Version) {
        eventually("the version to be in force", || async { self.report().await.applied >= version }).await;
    }

    pub async fn report(&self) -> RouterReport {
        reqwest::get(format!("http://{}/v1/status", self.status)).await.unwrap().json().await.unwrap()
    }

    pub async fn ready(&self) -> bool {
        let answer = reqwest::get(format!("http://{}/ready", self.status)).await.unwrap();
        answer.status().is_success()
    }

    /// Sends bytes, closes nothing, and reads to the end.
    pub async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end").expect("a clean end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn get(&self, host: &str) -> (u16, String) {
        let answer = self.raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        split(&answer)
    }

    pub async fn stop(self) {
        self.lifecycle.shutdown().cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the router stops").unwrap().unwrap();
    }
}

/// Status and body of an answer.
pub fn split(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

pub async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let begin = Instant::now();
    while !check().await {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The leader's side.
pub struct Leader {
    pub publisher: Publisher,
    pub table: Table,
    pub version: Version,
}

impl Leader {
    pub async fn new(redis: &Redis) -> Self {
        let publisher = Publisher::connect(&redis.url(), "test", &Secret::new("test"), CLUSTER).await.unwrap();
        let mut leader = Self { publisher, table: Table::new(), version: Version::new(1, 1) };
        leader.rewrite(Version::new(1, 1)).await;
        leader
    }

    pub async fn rewrite(&mut self, version: Version) {
        self.version = version;
        self.publisher.rewrite(version, &self.table).await.unwrap();
    }

    /// Publishes an app with these instances; gives the version.
    pub async fn publish(&mut self, app: &str, endpoints: &[Endpoint]) -> Version {
        self.publish_routes(routes(app, endpoints)).await
    }

    pub async fn publish_routes(&mut self, routes: AppRoutes) -> Version {
        let mut table = self.table.clone();
        table.insert(routes.app.clone(), routes);
        let next = Version::new(self.version.epoch, self.version.seq + 1);
        self.publisher.publish(self.version, next, &difference(&self.table, &table)).await.unwrap();
        (self.table, self.version) = (table, next);
        next
    }
}

pub fn routes(app: &str, endpoints: &[Endpoint]) -> AppRoutes {
    AppRoutes {
        app: app.parse().unwrap(),
        state: RouteState::Started,
        domains: vec![format!("{app}.apps.localhost")],
        options: RouteOptions::default(),
        endpoints: endpoints.to_vec(),
    }
}

/// An instance: what it does with each connection is up to the test.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub id: InstanceId,
    task: JoinHandle<()>,
}

impl Backend {
    pub async fn start<F, Fut>(handle: F) -> Self
    where
        F: Fn(usize, TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                running.spawn(handle(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { address, connections, id: InstanceId::from_bits(u64::from(address.port())), task }
    }

    /// One that answers each request with `text`, and keeps connections.
    pub async fn answering(text: &'static str) -> Self {
        Self::start(move |_, mut stream| async move {
            while read_request(&mut stream).await.is_some() {
                if stream.write_all(ok(text).as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    pub fn endpoint(&self) -> Endpoint {
        endpoint(self.address, &self.id)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn endpoint(address: SocketAddr, id: &InstanceId) -> Endpoint {
    Endpoint {
        instance: id.clone(),
        release: 1,
        addr: address.to_string(),
        zone: String::new(),
        weight: 1,
        state: EndpointState::Ready,
    }
}

/// An address where nobody listens.
pub fn refusing() -> Endpoint {
    let port = dinp_common::testing::free_port();
    endpoint(SocketAddr::from(([127, 0, 0, 1], port)), &InstanceId::from_bits(u64::from(port)))
}

/// Reads one request, with a body of known length; none at the end.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            let chunked = head.contains("transfer-encoding: chunked");
            if (chunked && body.ends_with("0\r\n\r\n")) || (!chunked && body.len() >= length) {
                return Some(text.into_owned());
            }
        }
        let mut buffer = [0; 65_536];
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

pub fn ok(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}
