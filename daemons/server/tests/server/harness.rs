//! A server process with its databases, and the people and nodes around it.

use dinp_common::api::agent::{
    Capacity, EndedInstance, InstanceReport, InstanceSpec, Orders, Registered, Report, ReportReply, Seen,
};
use dinp_common::api::leader::{LEADER_PATH, LeaderView};
use dinp_common::api::router::{RouterReply, RouterReport};
use dinp_common::auth::{Credential, CredentialKind, Role};
use dinp_common::client::{ApiClient, ClientError};
use dinp_common::model::{InstanceId, NodeName, Version};
use dinp_common::routes::{Reader, Table};
use dinp_common::seal::OpeningKey;
use dinp_common::store::node::{self, NewNode};
use dinp_common::store::{Change, service};
use dinp_common::testing::{Mysql, Redis, TestDir, free_port, proved_report};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Cluster id that `dinp_common::testing` writes.
pub const CLUSTER: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
const ANSWER: Duration = Duration::from_secs(3);

/// Waits for a condition, and says what it was if it does not come.
pub async fn eventually<T>(what: &str, secs: u64, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(secs), "not within {secs} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Databases and configuration of one cluster.
pub struct Cluster {
    pub mysql: Mysql,
    pub redis: Redis,
    pub pool: Pool,
    pub key: OpeningKey,
    /// Where servers find MySQL: a test may put something between.
    pub mysql_port: u16,
}

impl Cluster {
    pub async fn start() -> Self {
        let (mysql, redis) = tokio::join!(Mysql::start(), Redis::start());
        let pool = mysql.database().await;
        mysql.account(&pool, "dinp_server").await;
        let mysql_port = mysql.port();
        Self { mysql, redis, pool, key: OpeningKey::generate(), mysql_port }
    }

    /// A server that knows of no other.
    pub async fn server(&self) -> Server {
        self.server_in(&Unit::default()).await
    }

    /// The same, as a unit starts it.
    pub async fn server_in(&self, unit: &Unit) -> Server {
        let port = free_port();
        self.server_among(&[port], port, self.mysql_port, unit).await
    }

    /// Two servers that know each other, the first of them leading; it alone reaches MySQL by this port.
    pub async fn pair(&self, mysql_port: u16) -> [Server; 2] {
        let ports = [free_port(), free_port()];
        let first = self.server_among(&ports, ports[0], mysql_port, &Unit::default()).await;
        eventually("the first server leads", 20, async || first.leader().await.leading.then_some(())).await;
        [first, self.server_among(&ports, ports[1], self.mysql_port, &Unit::default()).await]
    }

    async fn server_among(&self, all: &[u16], port: u16, mysql: u16, unit: &Unit) -> Server {
        let directory = TestDir::new("server");
        let database: String = {
            let mut conn = self.pool.get_conn().await.unwrap();
            conn.query_first("SELECT DATABASE()").await.unwrap().unwrap()
        };
        let url_of = |port: &u16| format!("http://127.0.0.1:{port}/");
        let url = url_of(&port);
        let servers: Vec<String> = all.iter().map(url_of).collect();
        let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        std::fs::create_dir(directory.path().join("credentials")).unwrap();
        file("credentials/mysql-server", "test");
        file("credentials/redis-server", "test");
        file("credentials/env-key", self.key.to_hex().expose());
        file("credentials/ticket-keys", &format!("k1:{}", "01".repeat(32)));
        let redis = self.redis.port();
        file(
            "dinp.toml",
            &format!(
                "domain = \"apps.localhost\"\nservers = {servers:?}\n[mysql]\nport = {mysql}\ndatabase = \"{database}\"\n\
             [redis]\nurl = \"redis://127.0.0.1:{redis}\"\nuser = \"test\"\n",
            ),
        );
        file(
            "server.toml",
            &format!("listen = [\"127.0.0.1:{port}\"]\nurl = \"{url}\"\nunheard_secs = 12\nverify_secs = 2\n"),
        );
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = unit
            .command()
            .arg("--config-dir")
            .arg(directory.path())
            .env_remove("CREDENTIALS_DIRECTORY")
            .env("DINP_LOG", "debug")
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap();
        let server = Server { child, url, directory };
        let client = server.client(None);
        eventually("the server answers", 20, async || {
            client.request(http::Method::GET, "/health").unwrap().send().await.ok()
        })
        .await;
        server
    }

    pub async fn add_node(&self, name: &str) -> Credential {
        let credential = Credential::generate(CredentialKind::Node, name);
        let mut change = Change::begin(&self.pool).await.unwrap();
        let name: NodeName = name.parse().unwrap();
        let (secret_hash, registered) = (&credential.secret_hash(), Registered::default());
        let new = NewNode { name: &name, address: "10.1.1.1", zone: "", secret_hash, registered };
        node::put(&mut change, &new).await.unwrap();
        change.commit().await.unwrap();
        credential
    }

    pub async fn service(&self, name: &str, role: Role) -> Credential {
        let credential = Credential::generate(CredentialKind::Service, name);
        let mut conn = self.pool.get_conn().await.unwrap();
        service::put(&mut conn, name, role, &credential.secret_hash()).await.unwrap();
        credential
    }

    /// A release, and a deployment of it, as dash writes them.
    pub async fn deploy(&self, app: &str, instances: u32, env: &[(&str, &str)]) -> u64 {
        let mut change = Change::begin(&self.pool).await.unwrap();
        let rev = change.rev;
        let tx = &mut change.tx;
        let number: u32 = tx
            .exec_first("SELECT COALESCE(MAX(number), 0) + 1 FROM `release` WHERE app = ?", (app,))
            .await
            .unwrap()
            .unwrap();
        let env_version = if env.is_empty() { 0 } else { number };
        for (name, value) in env {
            let sealed = dinp_common::seal::seal(&self.key.public_key(), value).unwrap();
            tx.exec_drop(
                "INSERT INTO env (app, version, name, sealed, key_id, created_by, rev) VALUES (?, ?, ?, ?, 1, 'a', ?)",
                (app, env_version, name, sealed, rev),
            )
            .await
            .unwrap();
        }
        tx.exec_drop(
            "INSERT INTO app (name, owner, instances, rev) VALUES (?, 'a', ?, ?) \
             ON DUPLICATE KEY UPDATE instances = VALUES(instances), rev = VALUES(rev)",
            (app, instances, rev),
        )
        .await
        .unwrap();
        let release = dinp_common::store::release::draw_id();
        let image = format!("registry.test:5000/{app}@sha256:{}", "a".repeat(64));
        tx.exec_drop(
            "INSERT INTO `release` (id, app, number, image, memory_mb, cpu_millis, env_version, instances, domains, created_by, rev) \
             VALUES (?, ?, ?, ?, 128, 100, ?, ?, '[]', 'a', ?)",
            (release, app, number, image, env_version, instances, rev),
        )
        .await
        .unwrap();
        tx.exec_drop(
            "INSERT INTO deployment (app, release_id, created_by, rev) VALUES (?, ?, 'a', ?)",
            (app, release, rev),
        )
        .await
        .unwrap();
        change.commit().await.unwrap();
        release
    }

    pub async fn deployment_states(&self, app: &str) -> Vec<String> {
        let mut conn = self.pool.get_conn().await.unwrap();
        conn.exec("SELECT state FROM deployment WHERE app = ? ORDER BY id", (app,)).await.unwrap()
    }

    /// The table that a router reads now; none while Redis has no complete one.
    pub async fn table(&self) -> Option<(Version, Table)> {
        let password = dinp_common::credentials::Secret::new("test");
        let mut reader = Reader::connect(&self.redis.url(), "test", &password, "dinp").await.ok()?;
        let snapshot = reader.load().await.ok()??;
        Some((snapshot.version, snapshot.table))
    }

    pub async fn endpoints(&self, app: &str) -> usize {
        let table = self.table().await;
        table.and_then(|(_, table)| table.get(app).map(|routes| routes.endpoints.len())).unwrap_or(0)
    }
}

/// What the service manager gives a server and hears of it, as far as a test is about that.
#[derive(Default)]
pub struct Unit {
    /// Most descriptors; as many as the test has where there is none.
    pub descriptors: Option<u64>,
    /// Where it is heard, and how often it must be.
    pub notify: Option<(PathBuf, Duration)>,
}

impl Unit {
    fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_dinp-server");
        let mut command = match self.descriptors {
            None => Command::new(program),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &most.to_string(), program]);
                shell
            }
        };
        if let Some((socket, watchdog)) = &self.notify {
            command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        command
    }
}

/// A running server.
pub struct Server {
    child: Child,
    pub url: String,
    directory: TestDir,
}

impl Server {
    pub fn client(&self, credential: Option<Credential>) -> ApiClient {
        ApiClient::new(vec![self.url.parse().unwrap()], credential, "test")
    }

    /// Who leads, by what it says.
    pub async fn leader(&self) -> LeaderView {
        self.client(None).get(LEADER_PATH, ANSWER).await.unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        eventually("the server ends", 20, async || self.child.try_wait().unwrap()).await
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(80).collect();
            eprintln!("--- log of the server at {}", self.url);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A client that follows the leader of these.
pub fn client_of(servers: &[&Server], credential: Credential) -> ApiClient {
    let urls = servers.iter().map(|server| server.url.parse().unwrap()).collect();
    ApiClient::of_servers(urls, Some(credential), "test")
}

/// What a node says of itself and of all its instances.
pub fn full_report(run_id: &str, seq: u64, seen: &Seen, instances: Vec<InstanceReport>) -> Report {
    Report {
        cluster: CLUSTER.into(),
        agent_version: "test".into(),
        run_id: run_id.into(),
        seq,
        full: true,
        seen: seen.clone(),
        capacity: Capacity { memory_mb: 4096, cpu_millis: 4000 },
        docker_error: None,
        faults: Vec::new(),
        instances,
        removed: vec![],
        held_ports: vec![],
        ended: None,
    }
}

/// What an agent acknowledges that has accepted these orders.
pub fn seen(before: &Seen, orders: &Orders) -> Seen {
    Seen {
        epoch: orders.epoch,
        holder: orders.holder.clone(),
        generation: orders.generation,
        proof: orders.proof.clone(),
        highest_revision: before.highest_revision.clone().or_newer(orders.highest_revision.clone()),
    }
}

/// An instance as it was ordered, proved at once.
pub fn as_ordered(orders: &Orders, spec: &InstanceSpec, port: u16) -> InstanceReport {
    InstanceReport {
        epoch: orders.epoch,
        port: Some(port),
        memory_mb: spec.resources.memory_mb,
        cpu_millis: spec.resources.cpu_millis,
        ticket: spec.ticket.clone(),
        ..proved_report(spec.instance.clone(), spec.app.clone(), spec.release)
    }
}

/// An agent that obeys at once: what it is told to run is ready, what it is told to stop is gone.
pub struct Agent {
    client: ApiClient,
    run_id: String,
    seq: u64,
    pub orders: Option<Orders>,
    pub instances: BTreeMap<InstanceId, InstanceReport>,
    pub stopped: Vec<InstanceId>,
    /// Instances that are gone and whose output it keeps.
    pub ended: Vec<EndedInstance>,
    pub seen: Seen,
    next_port: u16,
}

impl Agent {
    pub fn new(servers: &[&Server], credential: Credential) -> Self {
        Self {
            client: client_of(servers, credential),
            run_id: format!("{:x}", rand::random::<u64>()),
            seq: 0,
            orders: None,
            instances: BTreeMap::new(),
            stopped: Vec::new(),
            ended: Vec::new(),
            seen: Seen::default(),
            next_port: 20_000,
        }
    }

    /// Reports everything.
    pub async fn report(&mut self) -> Result<ReportReply, ClientError> {
        self.seq += 1;
        let instances = self.instances.values().cloned().collect();
        let report = full_report(&self.run_id, self.seq, &self.seen, instances);
        let report = Report { ended: Some(self.ended.clone()), ..report };
        self.client.post("/v1/agent/report", &report, ANSWER).await
    }

    /// Fetches orders if there are new ones, and obeys.
    pub async fn obey(&mut self) -> Result<(), ClientError> {
        let have = self.orders.as_ref().map_or(Version::ZERO, Orders::version);
        let path = format!("/v1/agent/orders?have={have}&wait_secs=0");
        let Some(orders) = self.client.get::<Option<Orders>>(&path, ANSWER).await? else { return Ok(()) };
        if orders.epoch < self.seen.epoch {
            return Ok(());
        }
        self.seen = seen(&self.seen, &orders);
        for spec in &orders.run {
            let port = &mut self.next_port;
            self.instances.entry(spec.instance.clone()).or_insert_with(|| {
                *port += 1;
                as_ordered(&orders, spec, *port)
            });
        }
        for stop in &orders.stop {
            if self.instances.remove(&stop.instance).is_some() {
                self.stopped.push(stop.instance.clone());
            }
        }
        self.orders = Some(orders);
        Ok(())
    }

    /// One round of a node's life; what cannot be reached is left for the next.
    pub async fn live(&mut self) {
        self.report().await.ok();
        self.obey().await.ok();
    }
}

/// A router that confirms whatever is published.
pub struct RouterPeer {
    client: ApiClient,
    name: String,
}

impl RouterPeer {
    pub fn new(servers: &[&Server], credential: Credential) -> Self {
        Self { name: credential.name.clone(), client: client_of(servers, credential) }
    }

    pub async fn report(&self, applied: Version) -> Result<RouterReply, ClientError> {
        let report = RouterReport {
            router: self.name.clone(),
            version: "test".into(),
            status_url: "http://127.0.0.1:1".into(),
            applied,
            in_flight: BTreeMap::new(),
            counters: vec![],
        };
        self.client.post("/v1/router/report", &report, ANSWER).await
    }
}
