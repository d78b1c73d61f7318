//! Agents and strangers in numbers: as many connections as a server's unit allows, and more.

use crate::harness::{Agent, Cluster, Server, Unit, as_ordered, eventually, full_report, seen};
use dinp_common::api::agent::{InstanceReport, Orders, Registered, Seen};
use dinp_common::api::control::ClusterStatus;
use dinp_common::auth::{Credential, CredentialKind, Role};
use dinp_common::client::ApiClient;
use dinp_common::model::{NodeName, Version};
use dinp_common::store::Change;
use dinp_common::store::node::{self, NewNode};
use dinp_common::testing::TestDir;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, UnixDatagram};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Nodes, and long polls of each. A server that is built for tests decides slowly over a thousand nodes; that many
/// connections are what this is about: more than there are descriptors by default.
const NODES: usize = 280;
const POLLS: usize = 4;
/// A client has an eighth of a listener's places; these stand for many machines.
const ADDRESSES: usize = 20;
/// Time between two heartbeats, as of the real agent.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which a node is suspect.
const SUSPECT: Duration = Duration::from_secs(5);
/// Descriptors of a process whose unit says nothing.
const BY_DEFAULT: u64 = 1_024;
const ANSWER: Duration = Duration::from_secs(10);

/// A setting of the unit that is installed.
fn unit_says(setting: &str) -> Option<u64> {
    let lines = include_str!("../../../../systemd/dinp-server.service").lines();
    lines.filter_map(|line| line.strip_prefix(setting)?.strip_prefix('=')?.parse().ok()).next()
}

/// Lets this process open as much as it can; how much that is.
fn open_much() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

/// What systemd hears of a server.
struct Watchdog {
    period: Duration,
    socket: PathBuf,
    fed: Arc<Mutex<Vec<Instant>>>,
    _directory: TestDir,
}

impl Watchdog {
    fn start() -> Self {
        let directory = TestDir::new("notify");
        let socket = directory.path().join("notify");
        let listener = UnixDatagram::bind(&socket).unwrap();
        let fed: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noted = fed.clone();
        tokio::spawn(async move {
            let mut message = [0; 4096];
            while let Ok(size) = listener.recv(&mut message).await {
                if message[..size].split(|byte| *byte == b'\n').any(|line| line == b"WATCHDOG=1") {
                    noted.lock().unwrap().push(Instant::now());
                }
            }
        });
        let period = Duration::from_secs(unit_says("WatchdogSec").unwrap());
        Self { period, socket, fed, _directory: directory }
    }

    fn unit(&self, descriptors: u64) -> Unit {
        Unit { descriptors: Some(descriptors), notify: Some((self.socket.clone(), self.period)) }
    }

    /// It is fed twice more from now on, and never kept waiting so long that systemd would have killed the server.
    async fn is_fed(&self) {
        let count = || self.fed.lock().unwrap().len();
        let known = count();
        eventually("the watchdog is fed", 30, async || (count() >= known + 2).then_some(())).await;
        let fed = self.fed.lock().unwrap();
        let longest = fed.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest < self.period, "the watchdog was kept waiting for {longest:?}");
    }
}

/// How the reports of all agents were answered.
#[derive(Default)]
struct Answers {
    good: AtomicUsize,
    slowest: Mutex<Duration>,
    failures: Mutex<Vec<String>>,
}

/// The agent of a node: it reports, and each of its polls has a connection of its own.
struct Member {
    http: reqwest::Client,
    url: String,
    credential: Credential,
    accepted: Mutex<(Seen, Vec<InstanceReport>)>,
    news: Notify,
    answers: Arc<Answers>,
}

impl Member {
    fn seen(&self) -> Seen {
        self.accepted.lock().unwrap().0.clone()
    }

    /// Takes over what is newer than what it has.
    fn accept(&self, orders: &Orders) {
        let named = orders.run.iter().zip(20_000_u16..).map(|(spec, port)| as_ordered(orders, spec, port));
        let mut accepted = self.accepted.lock().unwrap();
        if orders.version() > Version::new(accepted.0.epoch, accepted.0.generation) {
            *accepted = (seen(&accepted.0, orders), named.collect());
            self.news.notify_one();
        }
    }

    async fn polls(self: Arc<Self>) {
        loop {
            let Seen { epoch, generation, .. } = self.seen();
            let have = Version::new(epoch, generation);
            let url = format!("{}v1/agent/orders?have={have}&wait_secs=25", self.url);
            match self.http.get(url).bearer_auth(&self.credential).send().await {
                Ok(answer) if answer.status() == 204 => {}
                Ok(answer) if answer.status() == 200 => self.accept(&answer.json::<Orders>().await.unwrap()),
                outcome => return self.failed("poll", &outcome),
            }
        }
    }

    async fn reports(self: Arc<Self>, first: Duration) {
        let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + first, HEARTBEAT);
        for seq in 1.. {
            tokio::select! {
                _ = heartbeat.tick() => {}
                () = self.news.notified() => {}
            }
            let (seen, instances) = self.accepted.lock().unwrap().clone();
            let report = full_report("run", seq, &seen, instances);
            let begun = Instant::now();
            let url = format!("{}v1/agent/report", self.url);
            let outcome = self.http.post(url).bearer_auth(&self.credential).json(&report).send().await;
            match outcome {
                Ok(answer) if answer.status() == 200 => {
                    self.answers.good.fetch_add(1, Ordering::Relaxed);
                    let mut slowest = self.answers.slowest.lock().unwrap();
                    *slowest = begun.elapsed().max(*slowest);
                }
                outcome => return self.failed("report", &outcome),
            }
        }
    }

    fn failed(&self, what: &str, outcome: &Result<reqwest::Response, reqwest::Error>) {
        let why = match outcome {
            Ok(answer) => answer.status().to_string(),
            Err(error) => format!("{error:?}"),
        };
        self.answers.failures.lock().unwrap().push(format!("{what}: {why}"));
    }
}

/// Registers so many nodes.
async fn nodes(cluster: &Cluster, count: usize) -> Vec<Credential> {
    let mut change = Change::begin(&cluster.pool).await.unwrap();
    let mut credentials = Vec::new();
    for number in 0..count {
        let credential = Credential::generate(CredentialKind::Node, format!("node{number}"));
        let name: NodeName = credential.name.parse().unwrap();
        let address = format!("10.1.{}.{}", number / 250, number % 250 + 1);
        let (secret_hash, registered) = (&credential.secret_hash(), Registered::default());
        let new = NewNode { name: &name, address: &address, zone: "", secret_hash, registered };
        node::put(&mut change, &new).await.unwrap();
        credentials.push(credential);
    }
    change.commit().await.unwrap();
    credentials
}

/// All nodes' agents begin, a fair part of them at a time.
fn crowd(server: &Server, nodes: Vec<Credential>) -> (Vec<Arc<Member>>, Arc<Answers>, JoinSet<()>) {
    let clients: Vec<reqwest::Client> = (0..ADDRESSES)
        .map(|number| {
            let address = Ipv4Addr::new(127, 0, 1, u8::try_from(number + 1).unwrap());
            // Our own servers close idle connections after 10 s.
            let idle = Duration::from_secs(5);
            let client = reqwest::Client::builder().local_address(Some(address.into())).pool_idle_timeout(idle);
            client.no_proxy().build().unwrap()
        })
        .collect();
    let (answers, mut tasks) = (Arc::<Answers>::default(), JoinSet::new());
    let count = u32::try_from(nodes.len()).unwrap();
    let members: Vec<Arc<Member>> = (0..count)
        .zip(nodes)
        .map(|(number, credential)| {
            let member = Arc::new(Member {
                http: clients[number as usize % ADDRESSES].clone(),
                url: server.url.clone(),
                credential,
                accepted: Mutex::default(),
                news: Notify::new(),
                answers: answers.clone(),
            });
            for _ in 0..POLLS {
                tasks.spawn(member.clone().polls());
            }
            tasks.spawn(member.clone().reports(HEARTBEAT * number / count));
            member
        })
        .collect();
    (members, answers, tasks)
}

async fn status(dash: &ApiClient) -> Option<ClusterStatus> {
    dash.get("/v1/status", ANSWER).await.ok()
}

/// With 1,000 agents the server had no descriptors left: half of them got orders, and systemd killed it each 31 s.
#[tokio::test(flavor = "multi_thread")]
async fn with_more_connections_than_descriptors_by_default_all_agents_are_served_and_the_server_lives() {
    let most = open_much();
    assert!(most >= 8_192, "this test needs more descriptors: the hard limit is {most}");
    let cluster = Cluster::start().await;
    let nodes = nodes(&cluster, NODES).await;
    let watchdog = Watchdog::start();
    let descriptors = unit_says("LimitNOFILE").unwrap_or(BY_DEFAULT).min(most);
    let server = cluster.server_in(&watchdog.unit(descriptors)).await;
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let epoch = eventually("the server leads", 20, async || {
        status(&dash).await.filter(|status| status.nodes_missing > 0).map(|status| status.epoch)
    })
    .await;

    let (members, answers, _tasks) = crowd(&server, nodes);
    let begun = Instant::now();
    eventually("every agent has orders and every node is ready", 60, async || {
        let all = members.iter().all(|member| member.seen().epoch == epoch);
        let ready = status(&dash).await.map(|status| status.nodes_ready);
        (all && ready == u32::try_from(NODES).ok()).then_some(())
    })
    .await;
    println!("{NODES} nodes had orders after {:?}", begun.elapsed());
    eventually("each poll has its connection", 10, async || (server.descriptors() > NODES * POLLS).then_some(())).await;

    // While all of them wait, orders reach those that they concern, and reports are answered in time.
    *answers.slowest.lock().unwrap() = Duration::ZERO;
    cluster.deploy("hello", 20, &[]).await;
    eventually("a deployment has succeeded", 60, async || {
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;
    watchdog.is_fed().await;
    let now = status(&dash).await.unwrap();
    assert_eq!((now.epoch, now.holdover, now.nodes_missing, &now.frozen), (epoch, false, 0, &None));
    let (good, slowest) = (answers.good.load(Ordering::Relaxed), *answers.slowest.lock().unwrap());
    println!("{good} reports answered, the slowest in {slowest:?}; {} descriptors", server.descriptors());
    assert_eq!(*answers.failures.lock().unwrap(), [""; 0]);
    assert!(slowest < SUSPECT, "an answer took {slowest:?}");
}

/// Strangers who connect, say nothing, and come again when they are sent away; ten of each address.
fn strangers(server: SocketAddr, count: usize) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let address = Ipv4Addr::new(127, 0, 2, u8::try_from(number / 10 + 1).unwrap());
        tasks.spawn(async move {
            let mut again = tokio::time::interval(Duration::from_millis(100));
            loop {
                again.tick().await;
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((address, 0).into()).unwrap();
                let Ok(mut stream) = socket.connect(server).await else { continue };
                while let Ok(1..) = stream.read(&mut [0; 1]).await {}
            }
        });
    }
    tasks
}

/// At its bound the listener closes what is too much; the other half of the descriptors is the server's own.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_take_all_connections_shut_nobody_out_who_is_in_and_do_not_end_the_server() {
    const DESCRIPTORS: u64 = 256;
    let cluster = Cluster::start().await;
    let watchdog = Watchdog::start();
    let server = cluster.server_in(&watchdog.unit(DESCRIPTORS)).await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    eventually("the agent is in", 20, async || agent.report().await.ok()).await;
    let epoch = server.leader().await.epoch;
    let newcomer = async |path: &str| server.client(None).request(http::Method::GET, path).unwrap().send().await;

    let crowd = strangers(server.url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap(), 200);
    eventually("nobody else gets in", 20, async || {
        agent.live().await;
        newcomer("/health").await.is_err().then_some(())
    })
    .await;
    cluster.deploy("hello", 1, &[]).await;
    eventually("a deployment has succeeded", 60, async || {
        agent.live().await;
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;
    assert!(newcomer("/health").await.is_err(), "and there was no place all the time");
    watchdog.is_fed().await;
    drop(crowd);
    let metrics = eventually("newcomers get in again", 20, async || newcomer("/metrics").await.ok()).await;
    assert!(metrics.text().await.unwrap().contains("dinp_connections_refused_total{limit=\"all\"}"));
    let leader = server.leader().await;
    assert_eq!((leader.leading, leader.epoch), (true, epoch));
}
