//! A world for one agent: a cluster of its own on the real Docker Engine, and a server that a test plays.

use crate::doubles::PacketFilter;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dinp_agent::config::AgentConfig;
use dinp_common::api::WatchQuery;
use dinp_common::api::agent::{
    EndedInstance, Goodbye, InstanceReport, InstanceSpec, InstanceState, LogLine, Orders, Report, ReportReply,
};
use dinp_common::config::Loaded;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::model::InstanceId;
use dinp_common::problem::ApiJson;
use dinp_common::testing::TestDir;
use futures_util::FutureExt;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(40);

/// The shell of the test's image.
pub const SHELL: &str = "/usr/local/bin/sh";

/// Runs a program to its end.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("run {program}: {error}"))
}

/// Runs docker and gives what it prints.
pub fn docker(arguments: &[&str]) -> String {
    let output = run("docker", arguments);
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The node's address: one of this machine that is not loopback, as real nodes have, where there is one.
pub fn address() -> String {
    let output = run("hostname", &["-I"]);
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().find(|address| !address.contains(':')).unwrap_or("127.0.0.1").to_owned()
}

/// The image of `app.c`, made if it is not there. Fails in words where no engine answers.
pub fn image() -> &'static str {
    const IMAGE: &str = "localhost/dinp-agent-test:4";
    assert!(
        run("docker", &["info"]).status.success(),
        "no Docker Engine answers: start one with scripts/lib/engine start, or leave these tests out with -E 'not binary(docker)'"
    );
    if run("docker", &["image", "inspect", IMAGE]).status.success() {
        return IMAGE;
    }
    let dir = TestDir::new("agent-image");
    let (root, tar) = (dir.path().join("root"), dir.path().join("root.tar"));
    std::fs::create_dir_all(root.join("tmp")).unwrap();
    app(&root);
    shell(&root);
    for (name, content, mode) in [
        ("plain", &b"#!/app\n"[..], 0o644),
        ("script", b"#!/usr/bin/nodejs\n", 0o755),
        ("dos", b"#!/bin/sh\r\necho hello\r\n", 0o755),
        ("foreign", &foreign(), 0o755),
    ] {
        std::fs::write(root.join(name), content).unwrap();
        std::fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    assert!(run("tar", &["-C", root.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."]).status.success());
    docker(&["import", "--change", "CMD [\"/app\"]", "--change", "LABEL dinp.testbed=1", tar.to_str().unwrap(), IMAGE]);
    IMAGE
}

/// The beginning of an executable for another machine than this one.
fn foreign() -> Vec<u8> {
    let machine = if std::env::consts::ARCH == "aarch64" { 62 } else { 183 };
    [&b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0"[..], &[machine, 0, 1, 0, 0, 0]].concat()
}

/// Copies this machine's shell with its libraries. Not to `/bin/sh`, where libc looks for one to run what is no program.
fn shell(root: &std::path::Path) {
    let libraries = String::from_utf8(run("ldd", &["/bin/sh"]).stdout).unwrap();
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(|path| (path, path));
    for (from, to) in libraries.chain([("/bin/sh", SHELL)]) {
        let to = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}

/// Compiles `app.c` into a directory.
pub fn app(directory: &std::path::Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docker/app.c");
    let app = directory.join("app");
    let cc = run("cc", &["-static", "-O1", "-o", app.to_str().unwrap(), source]);
    assert!(cc.status.success(), "cc -static: {}", String::from_utf8_lossy(&cc.stderr));
    app
}

/// What the server of a test has heard and says.
pub struct Server {
    orders: watch::Sender<Option<Orders>>,
    heard: watch::Sender<Heard>,
    lost: Mutex<bool>,
}

/// What the agent said.
#[derive(Clone, Default, Debug)]
pub struct Heard {
    /// The instances, as reports and deltas tell.
    pub instances: BTreeMap<InstanceId, InstanceReport>,
    /// All states that an instance was reported in, with the moment.
    pub states: Vec<(Instant, InstanceId, InstanceState)>,
    /// Instances that were reported as proved at any time.
    pub proved: BTreeSet<InstanceId>,
    /// Ended instances whose output the node keeps.
    pub ended: Vec<EndedInstance>,
    /// All reasons that were given.
    pub reasons: Vec<String>,
    /// The last report.
    pub last: Option<Report>,
    /// Instances reported gone.
    pub removed: Vec<InstanceId>,
    /// Full reports.
    pub full: usize,
    /// Streams by id.
    pub streams: BTreeMap<String, Vec<LogLine>>,
    /// The last goodbye.
    pub goodbye: Option<Goodbye>,
}

async fn report(State(server): State<Arc<Server>>, ApiJson(report): ApiJson<Report>) -> ApiJson<ReportReply> {
    let mut resync = false;
    server.heard.send_modify(|heard| {
        let before = heard.last.as_ref().map(|last| (last.run_id.clone(), last.seq));
        resync = !report.full && before != Some((report.run_id.clone(), report.seq - 1));
        if report.full {
            heard.full += 1;
            heard.instances.clear();
        }
        for instance in &report.instances {
            heard.instances.insert(instance.instance.clone(), instance.clone());
            if instance.proved {
                heard.proved.insert(instance.instance.clone());
            }
            heard.reasons.push(instance.reason.clone());
            heard.states.push((Instant::now(), instance.instance.clone(), instance.state));
        }
        for gone in &report.removed {
            heard.instances.remove(gone);
            heard.removed.push(gone.clone());
        }
        if let Some(ended) = &report.ended {
            heard.ended.clone_from(ended);
        }
        heard.last = Some(report.clone());
    });
    ApiJson(ReportReply { resync, epoch: report.seen.epoch })
}

async fn orders(State(server): State<Arc<Server>>, Query(query): Query<WatchQuery>) -> Response {
    let mut orders = server.orders.subscribe();
    let differs = |orders: &Option<Orders>| {
        orders.as_ref().is_some_and(|orders| Some(orders.version().to_string()) != query.have)
    };
    let wait = Duration::from_secs(query.wait_secs.into());
    match tokio::time::timeout(wait, orders.wait_for(differs)).await {
        Ok(Ok(orders)) => ApiJson(orders.clone()).into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn goodbye(State(server): State<Arc<Server>>, ApiJson(goodbye): ApiJson<Goodbye>) -> StatusCode {
    server.heard.send_modify(|heard| heard.goodbye = Some(goodbye));
    StatusCode::NO_CONTENT
}

async fn stream(State(server): State<Arc<Server>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<LogLine> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    server.heard.send_modify(|heard| {
        heard.streams.insert(id, lines);
    });
    StatusCode::OK
}

/// The world of one test. What it made in the engine goes when it is dropped.
pub struct World {
    /// Cluster id.
    pub cluster: String,
    /// The server that the test plays.
    pub server: Arc<Server>,
    /// Where the agent keeps its state.
    pub dir: TestDir,
    /// Says that the packet filter is in force, or not.
    pub filter: PacketFilter,
    /// The agent's configuration from its next start on.
    pub config: AgentConfig,
    port: u16,
    serving: Option<CancellationToken>,
    agent: Option<(Lifecycle, tokio::task::JoinHandle<()>)>,
}

impl World {
    /// A server and an agent.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`World::new`], with a changed configuration.
    pub async fn with(change: impl FnOnce(&mut AgentConfig)) -> Self {
        image();
        let tag = std::process::id();
        let dir = TestDir::new("agent");
        let first = 10_000 + u16::try_from(tag % 200).unwrap() * 50;
        let mut config = AgentConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            bundle_file: Some(dir.path().join("bundle.json")),
            state_dir: dir.path().to_owned(),
            ports: format!("{first}-{}", first + 49),
            ..AgentConfig::default()
        };
        let filter = PacketFilter::start(&dir.path().join("filter.sock"));
        config.firewall.socket = dir.path().join("filter.sock");
        config.docker.socket = PathBuf::from("/var/run/docker.sock");
        config.docker.network = format!("dinp-test-{tag}");
        config.docker.bridge = format!("dt{tag}");
        change(&mut config);
        let server = Arc::new(Server {
            orders: watch::channel(None).0,
            heard: watch::channel(Heard::default()).0,
            lost: Mutex::new(false),
        });
        let port = dinp_common::testing::free_port();
        let cluster = format!("test{tag}");
        let mut world = Self { cluster, server, dir, filter, config, port, serving: None, agent: None };
        world.server_comes().await;
        world.agent_starts();
        world
    }

    /// The server answers again.
    pub async fn server_comes(&mut self) {
        let app = Router::new()
            .route("/v1/agent/report", post(report))
            .route("/v1/agent/orders", get(orders))
            .route("/v1/agent/goodbye", post(goodbye))
            .route("/v1/agent/streams/{id}", post(stream))
            .with_state(self.server.clone());
        let listeners = dinp_common::listen::listeners("test", &[format!("127.0.0.1:{}", self.port).parse().unwrap()])
            .await
            .unwrap();
        let token = CancellationToken::new();
        tokio::spawn(dinp_common::listen::serve(listeners, app, token.clone(), Duration::ZERO));
        self.serving = Some(token);
        *self.server.lost.lock().unwrap() = false;
    }

    /// The server is gone.
    pub fn server_goes(&mut self) {
        self.serving.take().unwrap().cancel();
        *self.server.lost.lock().unwrap() = true;
    }

    /// The agent starts.
    pub fn agent_starts(&mut self) {
        let bundle = json!({
            "cluster": self.cluster, "node": "node1", "address": address(),
            "servers": [format!("http://127.0.0.1:{}", self.port)],
            "secret": format!("node:node1:{}", "0".repeat(64)),
        });
        std::fs::write(self.dir.path().join("bundle.json"), bundle.to_string()).unwrap();
        let lifecycle = Lifecycle::for_tests();
        let loaded = Loaded::for_tests("agent", self.config.clone());
        let life = lifecycle.clone();
        let task = tokio::spawn(async move { dinp_agent::run(loaded, life).await.unwrap() });
        self.agent = Some((lifecycle, task));
    }

    /// The agent stops in order.
    pub async fn agent_stops(&mut self) {
        let (lifecycle, task) = self.agent.take().unwrap();
        lifecycle.shutdown().cancel();
        task.await.unwrap();
    }

    /// Orders with the next generation of epoch 1.
    pub fn order(&self, run: &[&InstanceSpec], change: impl FnOnce(&mut Orders)) {
        self.server.orders.send_modify(|orders| {
            let generation = orders.as_ref().map_or(1, |orders| orders.generation + 1);
            let mut next = Orders {
                cluster: self.cluster.clone(),
                epoch: 1,
                holder: "server1".into(),
                generation,
                proof: String::new(),
                highest_revision: Default::default(),
                run: run.iter().map(|spec| (*spec).clone()).collect(),
                stop: Vec::new(),
                release_ports: Vec::new(),
                streams: Vec::new(),
                registry: None,
                peers: Default::default(),
            };
            change(&mut next);
            next.proof = format!("proof of {}", next.epoch);
            *orders = Some(next);
        });
    }

    /// Waits until what the server has heard fulfils the condition.
    pub async fn until(&self, what: &str, condition: impl FnMut(&Heard) -> bool) -> Heard {
        let mut heard = self.server.heard.subscribe();
        let fulfilled = tokio::time::timeout(PATIENCE, heard.wait_for(condition)).await;
        match fulfilled {
            Ok(Ok(heard)) => heard.clone(),
            _ => panic!("not within {PATIENCE:?}: {what}; last heard: {:#?}", *self.server.heard.borrow()),
        }
    }

    /// Waits until the instance is in the state.
    pub async fn until_state(&self, instance: &InstanceSpec, state: InstanceState) -> InstanceReport {
        let id = instance.instance.clone();
        let is = |heard: &Heard| heard.instances.get(&id).is_some_and(|report| report.state == state);
        self.until(&format!("{id} is {state:?}"), is).await.instances[&id].clone()
    }

    /// What was heard so far.
    pub fn heard(&self) -> Heard {
        self.server.heard.borrow().clone()
    }

    /// Forgets what was heard.
    pub fn forget(&self) {
        self.server.heard.send_modify(|heard| *heard = Heard::default());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((lifecycle, task)) = &self.agent {
            task.abort();
            // All that can be done here is to tell them; nobody waits.
            lifecycle.end_tasks().now_or_never();
        }
        let filter = format!("label=dinp.cluster={}", self.cluster);
        let ids = run("docker", &["ps", "-aq", "--filter", &filter]);
        for id in String::from_utf8_lossy(&ids.stdout).split_whitespace() {
            run("docker", &["rm", "-f", id]);
        }
        run("docker", &["network", "rm", &self.config.docker.network]);
    }
}

/// An instance of the test's app.
pub fn spec(number: u64) -> InstanceSpec {
    // The first eight digits are the end of the container's name, and tests run side by side.
    let bits = (number << 60) | (u64::from(std::process::id()) << 32);
    serde_json::from_value(json!({
        "instance": InstanceId::from_bits(bits), "app": "web", "release": 7, "image": image(),
        "memory_mb": 64, "cpu_millis": 100, "env": {"GREETING": "hello"}, "start_timeout_secs": 20, "port": 8080,
    }))
    .unwrap()
}

/// Asks an instance over its port.
pub async fn ask(report: &InstanceReport, path: &str) -> Result<String, reqwest::Error> {
    let url = format!("http://{}:{}{path}", address(), report.port.unwrap());
    reqwest::get(url).await?.text().await
}

/// What the engine says of an instance's container, in docker's template language.
pub fn inspect(spec: &InstanceSpec, template: &str) -> String {
    let id = docker(&["ps", "-aq", "--no-trunc", "--filter", &format!("label=dinp.instance={}", spec.instance)]);
    docker(&["inspect", "-f", template, &id])
}
