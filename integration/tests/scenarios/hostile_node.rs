//! A stolen node: its credential is good for its own node, with two servers as with one.

use dinp_integration::testbed::{App, Cluster, Error, Host, Result, Scenario, eventually, secs};
use serde_json::{Value, json};
use std::time::Duration;

/// An instance that nobody has ordered.
const MADE_UP: &str = "0000000000000bad";

/// Time from one report of the thief to the next: more often than an agent does it.
const PACE: Duration = Duration::from_millis(100);

/// Who has the credential of a node, and speaks in its place.
struct Thief {
    client: reqwest::Client,
    servers: Vec<String>,
    secret: String,
    cluster: String,
    run: u64,
    seq: u64,
    /// What the agent has truly to report.
    truth: Vec<Value>,
    seen: Value,
    /// All that servers have told.
    told: String,
    heard: u32,
}

impl Thief {
    /// Stops the agent of the node, and goes on in its place.
    async fn takes_over(cluster: &Cluster, node: &Host, run: u64) -> Result<Self> {
        let text = |command: &'static str| async move { node.exec(command).await };
        let bundle = read(&text("cat /etc/dinp/credentials/node-bundle").await?)?;
        let status = read(&text("curl -fsS http://127.0.0.1:1981/v1/status").await?)?;
        text("systemctl stop dinp-agent").await?;
        let client = reqwest::Client::builder().no_proxy().timeout(secs(3)).build();
        Ok(Self {
            client: client.map_err(failed)?,
            servers: cluster.servers().map(|server| format!("http://{}:1980", server.address)).into(),
            secret: bundle["secret"].as_str().unwrap_or_default().to_owned(),
            cluster: bundle["cluster"].as_str().unwrap_or_default().to_owned(),
            run,
            seq: 0,
            truth: status["instances"].as_array().cloned().unwrap_or_default(),
            seen: status["seen"].clone(),
            told: String::new(),
            heard: 0,
        })
    }

    /// Says to all servers that these run here too, and asks each for orders. There is no room for more on this node.
    async fn reports(&mut self, lies: &[Value], seen: &Value) -> Result<()> {
        self.seq += 1;
        let instances = [&self.truth[..], lies].concat();
        let report = json!({
            "cluster": self.cluster, "agent_version": "0", "run_id": format!("thief-{}", self.run), "seq": self.seq,
            "full": true, "seen": seen, "capacity": {"memory_mb": 0, "cpu_millis": 0},
            "instances": instances,
        });
        for server in &self.servers {
            let url = format!("{server}/v1/agent/report");
            let answer = self.client.post(url).bearer_auth(&self.secret).json(&report).send().await;
            self.heard += u32::from(answer.map_err(failed)?.status().is_success());
            let url = format!("{server}/v1/agent/orders?have=0-0&wait_secs=0");
            let answer = self.client.get(url).bearer_auth(&self.secret).send().await.map_err(failed)?;
            if answer.status().is_success() {
                self.told += &answer.text().await.map_err(failed)?;
            }
        }
        Ok(())
    }

    /// A ticket that the servers have made for this node.
    fn own_ticket(&self) -> String {
        let tickets = self.truth.iter().filter_map(|instance| instance["ticket"].as_str());
        tickets.max().unwrap_or_default().to_owned()
    }
}

fn read(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::other(format!("{error}: {text}")))
}

fn failed(error: reqwest::Error) -> Error {
    Error::other(format!("a server cannot be asked: {error}"))
}

/// An instance of the victim, as the thief would like it.
fn lie(app: &App<'_>, release: u64, ticket: &str) -> Value {
    json!({
        "instance": MADE_UP, "app": app.name, "release": release, "epoch": 1, "state": "ready", "port": 29_999,
        "memory_mb": 64, "cpu_millis": 100, "since": 1, "claimed": true, "proved": true, "ticket": ticket,
    })
}

/// From the database, where no node can look.
async fn newest_release(cluster: &Cluster, app: &App<'_>) -> Result<u64> {
    let query = format!("SELECT id FROM `release` WHERE app = '{}' ORDER BY number DESC LIMIT 1", app.name);
    let id = cluster.sql(&query).await?;
    id.trim().parse().map_err(|_| Error::other(format!("the release of {} has the id {id:?}", app.name)))
}

/// The instances that each router sends to, as the server's host is told.
async fn routed(cluster: &Cluster) -> Result<Vec<String>> {
    let mut tables = Vec::new();
    for router in cluster.routers() {
        let url = format!("curl -fsS -m 5 http://{}:1982/v1/routes", router.address);
        tables.push(cluster.host("control").exec(&url).await?);
    }
    Ok(tables)
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn the_credential_of_a_node_reads_nothing_of_others_and_gets_no_request() -> Scenario {
    let cluster = Cluster::shared().await?;
    let own = cluster.app("own").instances(2).deploy().await?;
    own.settles(&[("node1", 1), ("node2", 1)], secs(30)).await?;
    let victim = cluster.app("victim").instances(1).deploy().await?;
    let honest = victim.settles_at(1, secs(30)).await?.remove(0).node;
    let node = cluster.host(if honest == "node1" { "node2" } else { "node1" });
    let mut thief = Thief::takes_over(&cluster, node, 1).await?;
    assert!(!thief.own_ticket().is_empty(), "it has a true ticket of another instance");
    // Nothing of the victim is placed there in good faith.
    eventually("the node has no room", secs(10), async || {
        thief.reports(&[], &thief.seen.clone()).await.map_err(|error| error.chain())?;
        let nodes: Vec<Value> = cluster.cli().list(&["node", "ls"]).await.map_err(|error| error.chain())?;
        let has_none = |one: &Value| one["name"] == *node.name && one["capacity"]["memory_mb"] == 0;
        if nodes.iter().any(has_none) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await?;
    let load = victim.steady().rate(50).start();

    for (round, ticket) in [String::new(), format!("k1.{}", "ab".repeat(32)), thief.own_ticket()].iter().enumerate() {
        let setting = format!("PASSWORD=very-secret-{round}");
        let args = ["app", "env", &victim.name, "set", &setting];
        let mut deployed = std::pin::pin!(cluster.dinp(&args));
        loop {
            tokio::select! {
                outcome = &mut deployed => break drop(outcome?),
                () = tokio::time::sleep(PACE) => {
                    // It even knows the id of the release to come, which it could not guess.
                    let lies = lie(&victim, newest_release(&cluster, &victim).await?, ticket);
                    thief.reports(&[lies], &thief.seen.clone()).await?;
                }
            }
        }
        let tables = routed(&cluster).await?;
        let serving = victim.settles_at(1, secs(30)).await?;
        for table in &tables {
            assert!(table.contains(&serving[0].id), "the true one is routed: {table}");
            assert!(!table.contains(MADE_UP), "the made-up one is routed: {table}");
        }
        assert!(!serving.iter().any(|one| one.id == MADE_UP), "{serving:?}");
    }
    assert!(thief.heard > 20, "it was heard {} times", thief.heard);
    assert!(thief.told.contains(&own.name), "it is told what is its own");
    assert!(!thief.told.contains("very-secret") && !thief.told.contains(MADE_UP), "it was told of the victim");
    load.stop().await?.none_failed()?;
    eventually("the claim is shown by name", secs(10), async || {
        let problems = cluster.status().await.map_err(|error| error.chain())?.problems;
        let is_shown =
            problems.iter().any(|text| text.contains(&*node.name) && text.contains("without a valid ticket"));
        if is_shown { Ok(()) } else { Err(format!("{problems:?}")) }
    })
    .await?;
    node.exec("systemctl start dinp-agent").await?;
    cluster.cli().nodes_ready(&[&node.name], secs(60)).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn the_credential_of_a_node_ends_no_leadership() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("led").instances(2).deploy().await?;
    app.settles(&[("node1", 1), ("node2", 1)], secs(30)).await?;
    let node = cluster.host("node2");
    let before = cluster.status().await?;
    let mut thief = Thief::takes_over(&cluster, node, 2).await?;
    let load = app.steady().rate(50).start();
    for epoch in [u64::MAX, u64::MAX - 1, before.epoch + 1] {
        let proofs = [json!(format!("k1.{}", "cd".repeat(32))), thief.seen["proof"].clone()];
        for proof in proofs {
            let seen = json!({"epoch": epoch, "holder": "nobody", "generation": u64::MAX, "proof": proof});
            for _ in 0..10 {
                thief.reports(&[], &seen).await?;
                tokio::time::sleep(PACE).await;
            }
        }
    }
    assert!(thief.heard >= 60, "it was heard {} times", thief.heard);
    let next = cluster.app("led-next").instances(1).deploy().await?;
    next.settles(&[("node1", 1)], secs(10)).await?;
    load.stop().await?.none_failed()?;
    let after = cluster.status().await?;
    assert_eq!((after.epoch, &after.leader, after.holdover), (before.epoch, &before.leader, false));
    let stored = cluster.sql("SELECT epoch FROM lease WHERE name = 'leader'").await?;
    assert_eq!(stored.trim(), before.epoch.to_string());
    node.exec("systemctl start dinp-agent").await?;
    cluster.cli().nodes_ready(&[&node.name], secs(60)).await?;
    Ok(())
}
