//! Nothing small stops everything: one node with a fault of its own, or routers that nobody hears, and then a new leader.
//! The rest of the cluster works, and what is wrong is told by name.

use dinp_integration::testbed::{App, Cluster, Result, Scenario, eventually, secs};
use serde::Deserialize;
use std::time::Duration;

/// The node with the fault.
const NODE: &str = "node2";

#[derive(Deserialize)]
struct Node {
    name: String,
    #[serde(default)]
    docker_error: Option<String>,
    #[serde(default)]
    faults: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    kind: String,
    detail: String,
}

impl Node {
    /// What it is said to have, with its words.
    fn faults(self) -> Vec<(String, String)> {
        let docker = self.docker_error.map(|error| ("docker".to_owned(), error));
        self.faults.into_iter().map(|fault| (fault.kind, fault.detail)).chain(docker).collect()
    }
}

/// Waits until the fault is told where people look: on the dashboard's list of nodes, by `dinp node ls`, and by the
/// metrics of the server that leads.
async fn is_told(cluster: &Cluster, kind: &str, within: Duration) -> Result<()> {
    let leader = cluster.leader().await?;
    let metric = format!("dinp_server_node_fault{{node=\"{NODE}\",kind=\"{kind}\"}} 1");
    eventually(&format!("{NODE} is said to have the fault {kind}"), within, async || {
        let nodes: Vec<Node> = cluster.cli().list(&["node", "ls"]).await.map_err(|error| error.chain())?;
        let mut faults = Vec::new();
        for node in nodes {
            let is_it = node.name == NODE;
            let of_node = node.faults();
            if !is_it && !of_node.is_empty() {
                return Err(format!("another node has {of_node:?}"));
            }
            faults.extend(of_node);
        }
        let Some((_, detail)) = faults.iter().find(|(found, _)| found == kind) else {
            return Err(format!("{faults:?}"));
        };
        let table = cluster.dinp(&["node", "ls"]).await.map_err(|error| error.chain())?;
        let line = table.lines().find(|line| line.starts_with(NODE)).unwrap_or_default();
        if !line.contains(kind) {
            return Err(format!("nothing of {kind} ({detail}) in: {line}"));
        }
        let metrics = leader.exec("curl -fsS -m 5 http://127.0.0.1:1980/metrics").await;
        let metrics = metrics.map_err(|error| error.chain())?;
        if metrics.lines().any(|line| line == metric) { Ok(()) } else { Err(format!("no metric {metric}")) }
    })
    .await
}

/// An app with an instance on each node serves while one node has the fault and the leader changes; a new one is deployed
/// meanwhile, on the node that is well, within the time.
async fn the_rest_works(cluster: &Cluster, app: &App<'_>, kind: &str, within: Duration) -> Scenario {
    let load = app.steady().rate(50).start();
    cluster.restart_leader().await?;
    let began = std::time::Instant::now();
    let other = cluster.app(&format!("{kind}-next")).instances(2);
    let other = match tokio::time::timeout(within, other.deploy()).await {
        Ok(deployed) => deployed?,
        Err(_) => panic!("with a node that has the fault {kind} nothing was deployed within {within:?}"),
    };
    println!("{kind}: deployed {:.1} s after the change of leader", began.elapsed().as_secs_f32());
    other.settles(&[("node1", 2)], secs(10)).await?;
    is_told(cluster, kind, secs(70)).await?;
    load.stop().await?.none_failed()?;
    Ok(())
}

/// And the node is well again once the fault is gone.
async fn is_well_again(cluster: &Cluster, app: &App<'_>) -> Scenario {
    eventually(&format!("{NODE} has no fault"), secs(60), async || {
        let nodes: Vec<Node> = cluster.cli().list(&["node", "ls"]).await.map_err(|error| error.chain())?;
        let faults: Vec<_> = nodes.into_iter().flat_map(Node::faults).collect();
        if faults.is_empty() { Ok(()) } else { Err(format!("{faults:?}")) }
    })
    .await?;
    app.settles_at(2, secs(30)).await?;
    Ok(())
}

async fn on_both<'a>(cluster: &'a Cluster, name: &str) -> Result<App<'a>> {
    let app = cluster.app(name).instances(2).deploy().await?;
    app.settles(&[("node1", 1), (NODE, 1)], secs(30)).await?;
    Ok(app)
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn a_node_with_a_full_disk_harms_itself_alone() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = on_both(&cluster, "full").await?;
    let before = app.started().await?;
    cluster.host(NODE).fill_disk().await?;
    is_told(&cluster, "disk", secs(30)).await?;
    the_rest_works(&cluster, &app, "disk", secs(40)).await?;
    assert_eq!(app.started().await?, before, "what ran has not been touched");
    // And it still takes stop orders.
    app.scale(0).await?;
    app.settles_at(0, secs(60)).await?;
    app.scale(2).await?;
    cluster.host(NODE).heal().await?;
    is_well_again(&cluster, &app).await
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn an_agent_without_docker_harms_its_node_alone() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = on_both(&cluster, "engineless").await?;
    let (node, before) = (cluster.host(NODE), app.started().await?);
    // An agent that starts then has never read its containers.
    node.exec("systemctl stop docker.socket docker.service && systemctl restart dinp-agent").await?;
    is_told(&cluster, "docker", secs(60)).await?;
    // A new leader gives it a minute, for it has never named its containers.
    the_rest_works(&cluster, &app, "docker", secs(90)).await?;
    node.exec("systemctl start docker.service").await?;
    is_well_again(&cluster, &app).await?;
    assert_eq!(app.started().await?, before, "what ran has not been touched");
    Ok(())
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn a_node_that_accepts_nothing_harms_itself_alone() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = on_both(&cluster, "deaf").await?;
    let before = app.started().await?;
    cluster.host(NODE).lock_orders().await?;
    // A new leader gives it a minute.
    the_rest_works(&cluster, &app, "deaf", secs(90)).await?;
    cluster.host(NODE).heal().await?;
    is_well_again(&cluster, &app).await?;
    assert_eq!(app.started().await?, before, "what ran has not been touched");
    Ok(())
}

/// The deployment waits and says for whom; then the routers are heard again.
async fn waits(cluster: &Cluster, app: &App<'_>) -> Result<()> {
    let routers: Vec<&str> = cluster.routers().map(|router| router.name.as_str()).collect();
    eventually("the deployment says that it waits for the routers", secs(60), async || {
        let shown = cluster.dinp(&["app", "show", &app.name]).await.map_err(|error| error.chain())?;
        if routers.iter().all(|name| shown.contains(name)) { Ok(()) } else { Err(shown) }
    })
    .await?;
    // First they are late, and after their time nobody hears them.
    eventually("the cluster is frozen for them", secs(40), async || {
        let frozen = cluster.status().await.map_err(|error| error.chain())?.frozen.unwrap_or_default();
        if frozen.contains(&format!("no router is heard ({})", routers.join(", "))) { Ok(()) } else { Err(frozen) }
    })
    .await?;
    // Its clock stands still: nothing is judged in the time that new instances have, and nothing is taken away.
    tokio::time::sleep(secs(20)).await;
    assert!(app.started().await?.len() > 2, "new instances wait beside the old ones");
    for router in cluster.routers() {
        router.heal().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "minutes each: scripts/test full"]
async fn while_all_routers_are_silent_a_deployment_waits_and_says_for_whom() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = on_both(&cluster, "silent").await?;
    let load = app.steady().rate(50).start();
    let servers = cluster.servers();
    for router in cluster.routers() {
        router.lose(&servers).await?;
    }
    cluster.restart_leader().await?;

    let roll = app.roll_to("v2");
    let (rolled, watched) = tokio::join!(tokio::time::timeout(secs(180), roll), waits(&cluster, &app));
    watched?;
    rolled.unwrap_or_else(|_| panic!("the deployment does not go on when routers are heard again"))?;
    app.settles_at(2, secs(30)).await?;
    let report = load.stop().await?;
    report.none_failed()?;
    assert!(report.answers().contains_key("v2"), "{:?}", report.answers());
    Ok(())
}
