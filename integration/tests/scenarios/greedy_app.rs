//! A container that takes without end: its node and its neighbour are unharmed, and its own event says what happened.

use dinp_integration::testbed::{App, Cluster, Instance, Result, Scenario, eventually, secs};

/// It takes what it is told to, in a thread of its own, and never gives anything back.
const GREEDY: &str = "\
import os, socket, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

def forks(query):
    while True:
        try:
            os.fork()
        except OSError:
            pass

def connections(query):
    held, targets = [], [to.split(':') for to in query['to']]
    while True:
        for host, port in targets:
            try:
                held.append(socket.create_connection((host, int(port)), 2))
            except OSError:
                time.sleep(0.01)

def output(query):
    while True:
        print('of a flood ' * 20, flush=True)

def disk(query):
    with open('/var/tmp/more', 'wb') as file:
        for _ in range(250):
            file.write(os.urandom(1 << 20) * 8)
            file.flush()
            time.sleep(0.1)

class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'ok\\n')
    def do_POST(self):
        url = urlparse(self.path)
        take, query = globals()[url.path.strip('/')], parse_qs(url.query)
        # One process is not all that it has.
        for _ in range(4):
            timer = threading.Timer(0.5, take, [query])
            timer.daemon = True
            timer.start()
        self.do_GET()
    def log_message(self, *args):
        pass

ThreadingHTTPServer(('', int(os.environ['PORT'])), Page).serve_forever()
";

/// The offender, and who lives beside it.
struct Beside<'a> {
    greedy: App<'a>,
    offender: Instance,
    neighbour: App<'a>,
    /// Of the neighbour, on the offender's node.
    beside: Instance,
}

impl<'a> Beside<'a> {
    async fn deployed(cluster: &'a Cluster, name: &str) -> Result<Self> {
        let neighbour = cluster.app(&format!("{name}-beside")).instances(2).deploy().await?;
        let both = neighbour.settles(&[("node1", 1), ("node2", 1)], secs(30)).await?;
        let package = cluster.package("hello-python").await?;
        let package = package.with_file("server.py", GREEDY)?.with_file("Procfile", "web: exec python3 server.py\n")?;
        let package = package.packed().await?;
        let greedy = cluster.app(name);
        cluster.dinp(&["deploy", &package, "--app", &greedy.name, "--runtime", "python", "--memory", "1024"]).await?;
        let offender = greedy.settles_at(1, secs(30)).await?.remove(0);
        let beside = both.into_iter().find(|one| one.node == offender.node);
        let beside = beside.expect("the neighbour has an instance on each node");
        Ok(Self { greedy, offender, neighbour, beside })
    }

    /// The offender takes without end. Its event says what happened, the neighbour serves on, and the node is ready.
    async fn stands(&self, cluster: &Cluster, takes: &str, kind: &str, says: &str) -> Scenario {
        let started = self.neighbour.started().await?;
        let load = self.neighbour.steady().rate(50).start();
        self.greedy.ask(&self.offender, "POST", takes).await?;
        let node = &*self.offender.node;
        eventually(&format!("an event {kind} says {says:?}"), secs(60), async || {
            let events = cluster.dinp(&["events", &self.greedy.name]).await.map_err(|error| error.chain())?;
            let is_told = |line: &str| line.contains(kind) && line.contains(says) && line.contains(node);
            if events.lines().any(is_told) { Ok(()) } else { Err(events) }
        })
        .await?;
        // It goes on, and so does the neighbour.
        tokio::time::sleep(secs(5)).await;
        cluster.cli().nodes_ready(&[node], secs(5)).await?;
        load.stop().await?.none_failed()?;
        assert_eq!(self.neighbour.started().await?, started, "the neighbour was not touched");
        let others = cluster.dinp(&["events", &self.neighbour.name]).await?;
        assert!(!others.contains(says), "and nobody says so of it: {others}");
        Ok(())
    }
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn who_forks_without_end_is_told_and_its_neighbour_serves_on() -> Scenario {
    let cluster = Cluster::shared().await?;
    let both = Beside::deployed(&cluster, "forks").await?;
    both.stands(&cluster, "/forks", "limit_reached", "reached its limit of 512 processes and threads").await
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn who_opens_connections_without_end_is_told_and_its_neighbour_serves_on() -> Scenario {
    let cluster = Cluster::shared().await?;
    let both = Beside::deployed(&cluster, "connections").await?;
    let routers: Vec<String> = cluster.routers().map(|router| format!("to={}:80", router.address)).collect();
    let takes = format!("/connections?{}", routers.join("&"));
    both.stands(&cluster, &takes, "limit_reached", "connections open").await?;
    // The routers know both by the address of their node.
    for router in cluster.routers() {
        let path = format!("/tcp?addr={}:80", router.address);
        let reached = both.neighbour.ask(&both.beside, "GET", &path).await?;
        assert_eq!(reached, "connected", "the neighbour cannot use {}", router.name);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn who_logs_without_end_is_told_and_its_neighbours_lines_are_kept() -> Scenario {
    let cluster = Cluster::shared().await?;
    let both = Beside::deployed(&cluster, "output").await?;
    both.stands(&cluster, "/output", "limit_reached", "lines were left out").await?;
    let lines = format!("journalctl --since=-4s --output=cat DINP_APP={} | grep -c /version", both.neighbour.name);
    let lines = cluster.host(&both.offender.node).exec(&lines).await?;
    assert!(lines.trim().parse::<u32>().is_ok_and(|count| count > 5), "of the neighbour: {lines}");
    Ok(())
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn who_writes_without_end_is_stopped_by_name_and_its_neighbour_serves_on() -> Scenario {
    let cluster = Cluster::shared().await?;
    let both = Beside::deployed(&cluster, "disk").await?;
    let node = cluster.host(&both.offender.node);
    node.take_disk_for_full().await?;
    cluster.cli().nodes_ready(&[&node.name], secs(30)).await?;
    both.stands(&cluster, "/disk", "exit", "stopped: it had written").await?;
    node.heal().await?;
    both.greedy.settles_at(1, secs(90)).await?;
    Ok(())
}
