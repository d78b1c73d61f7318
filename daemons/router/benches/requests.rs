//! CPU time of one request through the router, beside HAProxy, nginx and a relay that understands nothing.
//!
//! `scripts/bench requests [--rounds N] [--case WORDS] [--proxy NAME] [--json]`. Client and instance run in this process on the first core, each proxy
//! in its own process on the second, one thread each. Rounds of all proxies are interleaved, because the speed of a shared
//! machine changes from one minute to the next: what counts is the ratio within a round, of which the median is shown.

#![allow(missing_docs, clippy::unwrap_used)]

use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::credentials::Secret;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::model::{InstanceId, Version};
use dinp_common::routes::{AppRoutes, Endpoint, EndpointState, Publisher, RouteOptions, RouteState, Table};
use dinp_common::testing::{Redis, TestDir};
use dinp_router::{RedisAccess, RouterConfig, Settings};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const CLUSTER: &str = "bench";
const HOST: &str = "web.apps.localhost";
/// The peers, in the order of the columns. The first is what ratios are of.
const PROXIES: [&str; 4] = ["dinp", "haproxy", "nginx", "relay"];

/// What is asked.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    connections: usize,
    requests: usize,
    /// Bytes of the request's body.
    sent: usize,
    /// Bytes of the answer's.
    received: usize,
}

const CASES: [Case; 6] = [
    Case { name: "43 B, 1 connection", connections: 1, requests: 6_000, sent: 0, received: 43 },
    Case { name: "43 B, 32 connections", connections: 32, requests: 40_000, sent: 0, received: 43 },
    Case { name: "43 B, 256 connections", connections: 256, requests: 40_000, sent: 0, received: 43 },
    Case { name: "16 KiB, 32 connections", connections: 32, requests: 20_000, sent: 0, received: 16_384 },
    Case { name: "1 MiB, 32 connections", connections: 32, requests: 1_000, sent: 0, received: 1_048_576 },
    Case { name: "POST 64 KiB, 32 connections", connections: 32, requests: 8_000, sent: 65_536, received: 43 },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dinp", redis, state, http] => return runtime().block_on(as_dinp(redis, state, http)),
        ["relay", from, to] => return runtime().block_on(as_relay(from, to)),
        _ => {}
    }
    let after = |name: &str| arguments.iter().skip_while(|word| *word != name).nth(1);
    let rounds = after("--rounds").map_or(5, |count| count.parse().unwrap());
    pin(Pid::from_raw(0), 0);
    let cases: Vec<Case> = CASES
        .into_iter()
        .filter(|case| after("--case").is_none_or(|words| case.name.contains(words.as_str())))
        .collect();
    let wanted = after("--proxy");
    let proxies: Vec<&'static str> =
        PROXIES.into_iter().filter(|name| *name == "dinp" || wanted.is_none_or(|wanted| wanted == name)).collect();
    let results = runtime().block_on(measure(rounds, &cases, &proxies));
    if arguments.iter().any(|word| word == "--json") {
        println!("{}", serde_json::to_string(&results).unwrap());
        return;
    }
    println!("{:<30} us of CPU per request (ratio of dinp to it)", "");
    print!("{:<30}", "");
    PROXIES.iter().for_each(|proxy| print!(" {proxy:>17}"));
    println!();
    for Case { name, .. } in &cases {
        let by_proxy = &results[name];
        print!("{name:<30}");
        for proxy in PROXIES {
            let Some(micros) = by_proxy.get(proxy) else {
                print!(" {:>17}", "-");
                continue;
            };
            print!(" {:>8.1} ({:>6.2})", median(micros), ratio(&by_proxy["dinp"], micros));
        }
        println!();
    }
}

/// Puts a process and all threads that it starts from now on onto one core.
fn pin(process: Pid, core: usize) {
    let mut set = CpuSet::new();
    set.set(core).unwrap();
    sched_setaffinity(process, &set).unwrap();
}

async fn as_dinp(redis: &str, state: &str, http: &str) {
    let settings = Settings {
        config: RouterConfig {
            workers: 1,
            state_dir: state.into(),
            max_connections_per_client: 10_000,
            ..RouterConfig::default()
        },
        config_dir: state.into(),
        redis: RedisAccess {
            url: redis.to_owned(),
            user: "test".into(),
            password: Secret::new("test"),
            cluster: CLUSTER.into(),
        },
        servers: vec!["http://127.0.0.1:1".parse().unwrap()],
        status_networks: Vec::new(),
        credential: Credential::generate(CredentialKind::Service, "router1"),
    };
    let http = TcpListener::bind(http).await.unwrap();
    let status = TcpListener::bind("127.0.0.1:0").await.unwrap();
    dinp_router::serve(settings, vec![http], vec![status], Lifecycle::for_tests()).await.unwrap();
}

async fn as_relay(from: &str, to: &str) {
    let listener = TcpListener::bind(from).await.unwrap();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let to = to.to_owned();
        tokio::spawn(async move {
            let mut app = TcpStream::connect(to).await?;
            client.set_nodelay(true)?;
            app.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut app).await
        });
    }
}

/// A proxy in its own process; ended when it is dropped.
struct Proxy {
    name: &'static str,
    process: Child,
    address: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Proxy {
    fn start(name: &'static str, app: &str, redis: &Redis, dir: &Path) -> Option<Self> {
        let port = dinp_common::testing::free_port();
        let address = format!("127.0.0.1:{port}");
        let file = dir.join(format!("{name}.conf"));
        let itself = std::env::current_exe().unwrap();
        let mut command = match name {
            "dinp" => {
                let mut command = Command::new(itself);
                command.args(["dinp", &redis.url(), &dir.display().to_string(), &address]);
                // As in the unit.
                command.env("MIMALLOC_PURGE_DELAY", "0");
                command
            }
            "relay" => {
                let mut command = Command::new(itself);
                command.args(["relay", &address, app]);
                command
            }
            "haproxy" => {
                std::fs::write(&file, haproxy(&address, app)).unwrap();
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&file);
                command
            }
            _ => {
                std::fs::write(&file, nginx(&address, app, dir)).unwrap();
                let mut command = Command::new("/usr/sbin/nginx");
                command.arg("-c").arg(&file).arg("-e").arg(dir.join("nginx.log"));
                command
            }
        };
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        pin(Pid::from_raw(process.id().cast_signed()), 1);
        Some(Self { name, process, address })
    }

    /// Waits until it passes requests on.
    async fn ready(&self) {
        let begun = Instant::now();
        let case = Case { name: "", connections: 1, requests: 1, sent: 0, received: 43 };
        while drive(&self.address, case).await.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} does not pass requests on", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// CPU time of all its threads so far.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let nanos = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

fn haproxy(address: &str, app: &str) -> String {
    format!(
        "global\n nbthread 1\n maxconn 4000\ndefaults\n mode http\n timeout connect 3s\n timeout client 75s\n \
         timeout server 60s\n http-reuse safe\nfrontend f\n bind {address}\n option forwardfor\n \
         unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid\n unique-id-header X-Request-Id\n \
         http-request set-header X-Forwarded-Proto http\n http-request set-header X-Forwarded-Port 80\n \
         http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n use_backend b if {{ req.hdr(Host) -i {HOST} }}\n\
         backend b\n server s {app} pool-max-conn 10000\n"
    )
}

fn nginx(address: &str, app: &str, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "worker_processes 1;\ndaemon off;\nmaster_process off;\nuser root;\npid {dir}/nginx.pid;\n\
         error_log {dir}/nginx.log;\nevents {{ worker_connections 20000; }}\nhttp {{\n access_log off;\n \
         client_body_temp_path {dir}/t1;\n proxy_temp_path {dir}/t2;\n fastcgi_temp_path {dir}/t3;\n \
         uwsgi_temp_path {dir}/t4;\n scgi_temp_path {dir}/t5;\n keepalive_requests 100000000;\n \
         client_max_body_size 0;\n upstream u {{ server {app}; keepalive 1000; keepalive_requests 100000000; }}\n \
         server {{ listen {address}; server_name {HOST}; location / {{ proxy_pass http://u; proxy_http_version 1.1;\n \
         proxy_set_header Connection \"\"; proxy_set_header Host $host;\n \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto http;\n \
         proxy_set_header X-Forwarded-Port 80; proxy_set_header X-Forwarded-Host $host;\n \
         proxy_set_header X-Request-Id $request_id; }} }}\n}}\n"
    )
}

/// The instance: answers with as many bytes as the path says.
async fn answer_all() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut answers = BTreeMap::new();
    for case in CASES {
        let size = case.received;
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size, b'x');
        answers.insert(size, answer);
    }
    let answers = Arc::new(answers);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answers = answers.clone();
            tokio::spawn(async move { answer_each(stream, &answers).await });
        }
    });
    address
}

async fn answer_each(mut stream: TcpStream, answers: &BTreeMap<usize, Vec<u8>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut bytes: Vec<u8> = Vec::with_capacity(131_072);
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
        };
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let size = head.split(' ').nth(1)?.trim_start_matches('/').parse().ok()?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
        });
        let end = end + length.unwrap_or(0);
        while bytes.len() < end {
            (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
        }
        bytes.drain(..end);
        stream.write_all(answers.get(&size)?).await.ok()?;
    }
}

/// Asks as a case says; none when a request was not answered as it is to be.
async fn drive(address: &str, case: Case) -> Option<()> {
    let each = case.requests.div_ceil(case.connections);
    let mut clients = JoinSet::new();
    for _ in 0..case.connections {
        let address = address.to_owned();
        clients.spawn(async move { ask(&address, case, each).await });
    }
    let mut answered = Some(());
    while let Some(client) = clients.join_next().await {
        answered = answered.and(client.ok().flatten());
    }
    answered
}

async fn ask(address: &str, case: Case, requests: usize) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let method = if case.sent > 0 { "POST" } else { "GET" };
    let length = if case.sent > 0 { format!("Content-Length: {}\r\n", case.sent) } else { String::new() };
    let head = format!(
        "{method} /{} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench\r\nAccept: */*\r\n{length}\r\n",
        case.received
    );
    let mut request = head.into_bytes();
    request.resize(request.len() + case.sent, b'x');
    let mut room = vec![0; 262_144];
    for _ in 0..requests {
        stream.write_all(&request).await.ok()?;
        let (mut have, mut end) = (0, None);
        while end.is_none_or(|end| have < end) {
            // Beyond the head nothing is looked at.
            let at = if end.is_some() { 0 } else { have };
            let count = stream.read(&mut room[at..]).await.ok().filter(|count| *count > 0)?;
            have += count;
            if end.is_none() {
                let head = room[..have].windows(4).position(|four| four == b"\r\n\r\n");
                end = head.map(|at| at + 4 + case.received);
                head.filter(|_| !room.starts_with(b"HTTP/1.1 200")).map_or(Some(()), |_| None)?;
            }
        }
    }
    Some(())
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of the ratios of each round.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

/// Microseconds of CPU per request of each round, by case and proxy.
async fn measure(
    rounds: usize,
    cases: &[Case],
    proxies: &[&'static str],
) -> BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>> {
    let app = answer_all().await;
    let redis = Redis::start().await;
    let dir = TestDir::new("bench-requests");
    publish(&redis, &app).await;
    let proxies: Vec<Proxy> = proxies.iter().filter_map(|name| Proxy::start(name, &app, &redis, dir.path())).collect();
    for proxy in &proxies {
        proxy.ready().await;
    }
    let mut results: BTreeMap<_, BTreeMap<_, Vec<f64>>> = BTreeMap::new();
    for &case in cases {
        for round in 0..=rounds {
            for proxy in &proxies {
                let before = proxy.cpu();
                drive(&proxy.address, case).await.unwrap_or_else(|| panic!("{} failed at {}", proxy.name, case.name));
                let requests = case.requests.div_ceil(case.connections) * case.connections;
                let micros = (proxy.cpu() - before).as_secs_f64() * 1e6 / requests as f64;
                // The first makes connections and warms caches.
                if round > 0 {
                    results.entry(case.name).or_default().entry(proxy.name).or_default().push(micros);
                }
            }
        }
    }
    results
}

async fn publish(redis: &Redis, app: &str) {
    let mut publisher = Publisher::connect(&redis.url(), "test", &Secret::new("test"), CLUSTER).await.unwrap();
    let endpoint = Endpoint {
        instance: InstanceId::from_bits(1),
        release: 1,
        addr: app.to_owned(),
        zone: String::new(),
        weight: 1,
        state: EndpointState::Ready,
    };
    let routes = AppRoutes {
        app: "web".parse().unwrap(),
        state: RouteState::Started,
        domains: vec![HOST.to_owned()],
        options: RouteOptions::default(),
        endpoints: vec![endpoint],
    };
    let table = Table::from([(routes.app.clone(), routes)]);
    publisher.rewrite(Version::new(1, 1), &table).await.unwrap();
}
