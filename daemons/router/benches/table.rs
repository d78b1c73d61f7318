//! What a large route table costs a router: memory, CPU at rest, starts, changes, metrics.
//!
//! `scripts/bench table [--apps N] [--quick] [--json]`. Client, instances and leader run in this process, the router in another
//! one of the same program, so that its memory and CPU time are its own.

#![allow(missing_docs, clippy::unwrap_used)]

use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::credentials::Secret;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::model::{InstanceId, Version};
use dinp_common::routes::{
    AppRoutes, Change, Endpoint, EndpointState, Publisher, RouteOptions, RouteState, Table, difference,
};
use dinp_common::testing::{Figure, Redis, TestDir};
use dinp_router::{RedisAccess, RouterConfig, Settings};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CLUSTER: &str = "bench";
/// Endpoints of each app.
const ENDPOINTS: u64 = 3;
/// What instances answer, and the leader to each report.
const ANSWER: &str = r#"{"epoch":1,"published":"1-1"}"#;
/// How long the router is left alone to see what it does by itself.
const REST: Duration = Duration::from_secs(10);
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| arguments.iter().skip_while(|word| *word != name).nth(1);
    if arguments.first().is_some_and(|role| role == "router") {
        return as_router(&arguments[1..]);
    }
    limit_descriptors(1);
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let apps = if has("--quick") { 10_000 } else { 100_000 };
    let apps = after("--apps").map_or(apps, |count| count.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let figures = runtime.block_on(measure(apps));
    if has("--json") {
        println!("{}", serde_json::to_string(&figures).unwrap());
        return;
    }
    println!("{apps} apps, {ENDPOINTS} endpoints each");
    for Figure { metric, unit, ours, target, .. } in figures {
        let target = target.map_or(String::new(), |target| format!("(at most {target})"));
        println!("{metric:<40} {ours:>12.2} {unit:<10} {target}");
    }
}

/// Gives this process that part of the descriptors that it may have.
///
/// The router connects to one instance of each app, and keeps these connections until it is out of descriptors. It has to
/// be out of them before the instances are, which are all in one process: they would refuse it.
fn limit_descriptors(part: u64) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most / part, most / part).unwrap();
}

/// The router itself, until its standard input ends: url of Redis, state directory, the three ports.
fn as_router(arguments: &[String]) {
    limit_descriptors(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let [redis, state, http, status, leader] = arguments else { panic!("url, directory, three ports") };
    let settings = Settings {
        config: RouterConfig { workers: 2, state_dir: state.into(), ..RouterConfig::default() },
        config_dir: state.into(),
        redis: RedisAccess {
            url: redis.clone(),
            user: "test".into(),
            password: Secret::new("test"),
            cluster: CLUSTER.into(),
        },
        servers: vec![format!("http://127.0.0.1:{leader}").parse().unwrap()],
        status_networks: Vec::new(),
        credential: Credential::generate(CredentialKind::Service, "router1"),
    };
    runtime.block_on(async {
        let bind = |port: &String| TcpListener::bind(format!("127.0.0.1:{port}"));
        let (http, status) = (bind(http).await.unwrap(), bind(status).await.unwrap());
        let lifecycle = Lifecycle::for_tests();
        let stop = lifecycle.shutdown();
        std::thread::spawn(move || {
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            stop.cancel();
        });
        dinp_router::serve(settings, vec![http], vec![status], lifecycle).await.unwrap();
    });
}

struct Router {
    process: Child,
    http: SocketAddr,
    status: SocketAddr,
    started: Instant,
}

impl Router {
    async fn start(redis: &Redis, state: &TestDir, leader: u16) -> Self {
        let (http, status) = (free().await, free().await);
        let started = Instant::now();
        let process = Command::new(std::env::current_exe().unwrap())
            // As in the unit.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .arg("router")
            .args([redis.url(), state.path().display().to_string()])
            .args([http.port(), status.port(), leader].map(|port| port.to_string()))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process, http, status, started }
    }

    /// Milliseconds from its start until it sends the requests of this app to an instance.
    async fn serves(&self, app: &str) -> f64 {
        while self.started.elapsed() < PATIENCE {
            if let Ok(mut client) = Client::to(self.http).await
                && client.get(app).await.is_some_and(|(status, _)| status == 200)
            {
                return millis(self.started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{app} is not served");
    }

    fn resident_bytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }

    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let after_name: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = after_name[11].parse::<u64>().unwrap() + after_name[12].parse::<u64>().unwrap();
        // Linux counts in hundredths of a second for programs, on every architecture.
        Duration::from_millis(ticks * 10)
    }

    /// Percent of a core that it takes when nothing is asked of it.
    async fn cpu_at_rest(&self) -> f64 {
        let before = self.cpu();
        tokio::time::sleep(REST).await;
        (self.cpu() - before).as_secs_f64() / REST.as_secs_f64() * 100.0
    }

    /// Ends it as a service manager would.
    fn stop(mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

/// A keep-alive connection.
struct Client(TcpStream);

impl Client {
    async fn to(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Status and length of the answer.
    async fn get(&mut self, app: &str) -> Option<(u16, usize)> {
        self.ask(&format!("GET / HTTP/1.1\r\nHost: {app}.apps.localhost\r\n\r\n")).await
    }

    async fn ask(&mut self, request: &str) -> Option<(u16, usize)> {
        self.0.write_all(request.as_bytes()).await.ok()?;
        let mut bytes = vec![0; 65_536];
        let (mut have, mut total, mut status) = (0, None, 0);
        while total.is_none_or(|total| have < total) {
            // Of a long answer the beginning is kept, and all is counted.
            let room = if status == 0 { have } else { 0 };
            match self.0.read(&mut bytes[room..]).await.ok()? {
                0 => return total.is_none().then_some((status, have)).filter(|_| status > 0),
                count => have += count,
            }
            if status == 0
                && let Some(end) = bytes[..have].windows(4).position(|four| four == b"\r\n\r\n")
            {
                let head = std::str::from_utf8(&bytes[..end]).ok()?.to_ascii_lowercase();
                status = head.split(' ').nth(1)?.parse().ok()?;
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                total = length.map(|length| end + 4 + length.parse::<usize>().unwrap_or(0));
            }
        }
        Some((status, have))
    }
}

async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Instances on all addresses of 127/8, and the leader: whatever is asked, the answer is the same.
async fn answer_all() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{ANSWER}",
            ANSWER.len()
        );
        let text: Arc<str> = text.into();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors. Who gave up here would leave the router with instances that refuse it for ever.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let text = text.clone();
            tokio::spawn(async move { answer_each(stream, &text).await });
        }
    });
    port
}

async fn answer_each(mut stream: TcpStream, text: &str) -> Option<()> {
    let mut bytes: Vec<u8> = Vec::with_capacity(65_536);
    loop {
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let end = end + length.map_or(0, |length| length.parse::<usize>().unwrap_or(0));
            while bytes.len() < end {
                (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
            }
            bytes.drain(..end);
            stream.write_all(text.as_bytes()).await.ok()?;
        }
        (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
    }
}

fn name(number: u64) -> String {
    format!("app{number}")
}

fn app(number: u64, port: u16, weight: u32) -> AppRoutes {
    let endpoint = |index| {
        let bits = number * ENDPOINTS + index + 1;
        let address = 0x7f00_0000_u32 | (u32::try_from(bits % 0xff_fffe).unwrap() + 1);
        Endpoint {
            instance: InstanceId::from_bits(bits),
            release: number + 1,
            addr: format!("{}:{port}", std::net::Ipv4Addr::from(address)),
            zone: format!("zone{}", index % 3),
            weight,
            state: EndpointState::Ready,
        }
    };
    AppRoutes {
        app: name(number).parse().unwrap(),
        state: RouteState::Started,
        domains: vec![format!("{}.apps.localhost", name(number))],
        options: RouteOptions::default(),
        endpoints: (0..ENDPOINTS).map(endpoint).collect(),
    }
}

fn table(apps: u64, port: u16, weight: u32) -> Table {
    (0..apps).map(|number| app(number, port, weight)).map(|routes| (routes.app.clone(), routes)).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// The value that this share of them does not exceed.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// Latencies of one client that asks without a pause, in milliseconds, while something else is done.
async fn meanwhile<T>(router: &Router, something: impl Future<Output = T>) -> (Vec<f64>, T) {
    let stop = Arc::new(AtomicBool::new(false));
    let (http, stopped) = (router.http, stop.clone());
    let client = tokio::spawn(async move {
        let mut client = Client::to(http).await.unwrap();
        let mut times = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let begun = Instant::now();
            assert_eq!(client.get("app0").await.map(|(status, _)| status), Some(200));
            times.push(millis(begun.elapsed()));
        }
        times
    });
    let done = something.await;
    stop.store(true, Ordering::Relaxed);
    (client.await.unwrap(), done)
}

async fn measure(apps: u64) -> Vec<Figure> {
    let mut figures = Vec::new();
    let case = format!("{apps} apps, {ENDPOINTS} endpoints each");
    // The targets are those of the whole size.
    let mut add = |metric: &str, unit: &str, ours: f64, target: Option<f64>| {
        let target = target.filter(|_| apps >= 100_000);
        figures.push(Figure::alone(&case, metric, unit, ours, target));
    };
    let port = answer_all().await;
    let mut redis = Redis::start().await;
    let state = TestDir::new("bench-table");
    let mut publisher = Publisher::connect(&redis.url(), "test", &Secret::new("test"), CLUSTER).await.unwrap();
    let (first, last) = (table(apps, port, 1), name(apps - 1));

    let one = table(1, port, 1);
    publisher.rewrite(Version::new(1, 1), &one).await.unwrap();
    let small = Router::start(&redis, &state, port).await;
    small.serves("app0").await;
    let floor = small.resident_bytes();
    small.stop();

    publisher.rewrite(Version::new(1, 2), &first).await.unwrap();
    let empty = TestDir::new("bench-table");
    let router = Router::start(&redis, &empty, port).await;
    add("in force from Redis", "ms", router.serves(&last).await, Some(1000.0));
    add("memory per endpoint", "bytes", (router.resident_bytes() - floor) / (apps * ENDPOINTS) as f64, Some(400.0));
    // It is written to the disk first.
    tokio::time::sleep(REST / 2).await;
    add("CPU at rest", "% of a core", router.cpu_at_rest().await, Some(1.0));

    let mut client = Client::to(router.http).await.unwrap();
    for number in 0..apps {
        assert_eq!(client.get(&name(number)).await.map(|(status, _)| status), Some(200), "{}", name(number));
    }
    add("CPU at rest, all apps used", "% of a core", router.cpu_at_rest().await, Some(1.0));
    let begun = Instant::now();
    let mut status = Client::to(router.status).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (times, metrics) = meanwhile(&router, status.ask(request)).await;
    add("/metrics", "ms", millis(begun.elapsed()), Some(300.0));
    add("/metrics", "MiB", metrics.unwrap().1 as f64 / 1_048_576.0, None);
    add("/metrics, longest stall", "ms", times.into_iter().fold(0.0, f64::max), None);

    let mut version = Version::new(1, 2);
    let mut publish = async |publisher: &mut Publisher, routes: AppRoutes| {
        let next = Version::new(version.epoch, version.seq + 1);
        let change = Change { app: routes.app.clone(), routes: Some(routes) };
        publisher.publish(version, next, &[change]).await.unwrap();
        version = next;
    };
    let mut delays = Vec::new();
    let before = router.cpu();
    for number in apps..apps + 200 {
        publish(&mut publisher, app(number, port, 1)).await;
        let begun = Instant::now();
        while client.get(&name(number)).await.unwrap().0 != 200 {
            assert!(begun.elapsed() < PATIENCE, "{} is not served", name(number));
        }
        delays.push(millis(begun.elapsed()));
    }
    add("a new app serves after, median", "ms", quantile(&mut delays, 0.5), None);
    add("a new app serves after, p99", "ms", quantile(&mut delays, 0.99), Some(20.0));
    add("CPU per change and look", "ms", millis(router.cpu() - before) / 200.0, None);

    let (mut quiet, ()) = meanwhile(&router, tokio::time::sleep(REST / 2)).await;
    let busy = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        for number in 0..5_000 {
            ticks.tick().await;
            publish(&mut publisher, app(number % apps, port, 2)).await;
        }
    };
    let (mut changing, ()) = meanwhile(&router, busy).await;
    add("p99 without changes", "ms", quantile(&mut quiet, 0.99), None);
    add("p99 with up to 1,000 changes/s", "ms", quantile(&mut changing, 0.99), None);

    let second = table(apps, port, 3);
    assert_eq!(difference(&first, &second).len() as u64, apps);
    let replaced = async {
        publisher.rewrite(Version::new(2, 1), &second).await.unwrap();
        let is_new = |report: &str| report.contains(r#""applied":"2-1""#);
        let url = format!("http://{}/v1/status", router.status);
        let begun = Instant::now();
        while !is_new(&reqwest::get(&url).await.unwrap().text().await.unwrap()) {
            assert!(begun.elapsed() < PATIENCE, "the new table is not in force");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (mut times, ()) = meanwhile(&router, replaced).await;
    add("whole table replaced, longest stall", "ms", times.iter().copied().fold(0.0, f64::max), Some(20.0));
    add("whole table replaced, p99.9", "ms", quantile(&mut times, 0.999), None);
    router.stop();

    redis.stop();
    let router = Router::start(&redis, &empty, port).await;
    add("in force from disk", "ms", router.serves(&last).await, Some(300.0));
    router.stop();
    figures
}
