//! What one node's credential is good for: its own node, and nothing else.

use crate::harness::{Agent, Cluster, eventually};
use dinp_common::api::Page;
use dinp_common::api::agent::{InstanceReport, NodeBundle, Registered, Seen};
use dinp_common::api::control::{ClusterStatus, NodeAdd, NodeView};
use dinp_common::auth::Role;
use dinp_common::client::ClientError;
use dinp_common::model::InstanceId;
use dinp_common::testing::proved_report;
use mysql_async::prelude::Queryable;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(3);

fn made_up(app: &str, release: u64) -> InstanceReport {
    proved_report(InstanceId::from_bits(0xbad), app.parse().unwrap(), release)
}

/// A node that says it has all the memory in the world would be given every app.
#[tokio::test]
async fn a_node_counts_for_no_more_than_it_was_registered_with() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let mut add = NodeAdd {
        name: "node1".parse().unwrap(),
        address: "10.1.1.1".into(),
        zone: String::new(),
        memory_mb: Some(1000),
        cpu_millis: None,
    };
    let bundle: NodeBundle =
        eventually("the node is registered", 20, async || dash.post("/v1/nodes", &add, ANSWER).await.ok()).await;
    let mut agent = Agent::new(&[&server], bundle.secret.parse().unwrap());
    let view = eventually("the node is heard", 20, async || {
        agent.live().await;
        let nodes: Page<NodeView> = dash.get("/v1/nodes", ANSWER).await.ok()?;
        nodes.items.into_iter().find(|node| node.last_report.is_some())
    })
    .await;
    // The agent says 4096 MiB and 4 cores; a tenth is the host's.
    assert_eq!((view.capacity.memory_mb, view.capacity.cpu_millis), (900, 4000));
    assert_eq!(view.registered, Registered { memory_mb: Some(1000), cpu_millis: None });

    add.name = "node2".parse().unwrap();
    add.cpu_millis = Some(0);
    let refused = dash.post::<_, serde_json::Value>("/v1/nodes", &add, ANSWER).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Problem(problem) if problem.kind == "invalid-cpu"), "{refused}");
}

/// The attack of a stolen node bundle: it claims an instance of the release that the victim is about to deploy.
#[tokio::test]
async fn a_node_that_claims_an_app_reads_no_environment_and_gets_no_request() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut honest = Agent::new(&[&server], cluster.add_node("node1").await);
    let mut thief = Agent::new(&[&server], cluster.add_node("thief").await);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    // The thief claims the next releases, with every kind of ticket that it can have: none, a made-up one, and one that
    // the servers made for another instance on its own node.
    cluster.deploy("own", 1, &[]).await;
    eventually("the thief has an instance of its own", 30, async || {
        thief.live().await;
        thief.orders.as_ref().filter(|orders| !orders.run.is_empty()).map(drop)
    })
    .await;
    let own = thief.orders.as_ref().unwrap().run[0].ticket.clone();
    let forged = format!("k1.{}", "ab".repeat(32));
    for ticket in [String::new(), forged, own] {
        let victim = cluster.deploy("victim", 1, &[("PASSWORD", "very-secret")]).await;
        let count = cluster.deployment_states("victim").await.len();
        eventually("the victim is deployed", 60, async || {
            for release in victim..victim + 3 {
                let lie = InstanceReport { ticket: ticket.clone(), ..made_up("victim", release) };
                thief.instances.insert(lie.instance.clone(), lie);
                thief.live().await;
                let told = serde_json::to_string(&thief.orders).unwrap();
                let ordered = thief.orders.iter().flat_map(|orders| &orders.run);
                let made_up = InstanceId::from_bits(0xbad);
                assert!(!ordered.map(|spec| &spec.instance).any(|id| *id == made_up), "{told}");
                if let Some((_, table)) = cluster.table().await {
                    let routed = table.values().flat_map(|routes| &routes.endpoints);
                    assert!(!routed.map(|one| &one.instance).any(|id| *id == made_up), "{table:?}");
                }
            }
            honest.live().await;
            let states = cluster.deployment_states("victim").await;
            (states.len() == count && states.last().is_some_and(|state| state == "succeeded")).then_some(())
        })
        .await;
    }
    let status: ClusterStatus = dash.get("/v1/status", ANSWER).await.unwrap();
    assert!(status.problems.iter().any(|text| text.contains("node thief: 1 instances without a valid ticket")));
}

/// The attack of one report with a huge epoch.
#[tokio::test]
async fn a_node_that_claims_the_highest_epoch_ends_no_leadership() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut honest = Agent::new(&[&server], cluster.add_node("node1").await);
    let mut liar = Agent::new(&[&server], cluster.add_node("liar").await);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let status = async || dash.get::<ClusterStatus>("/v1/status", ANSWER).await.ok();
    let before = eventually("the server leads", 20, async || status().await.map(|status| status.epoch)).await;
    for epoch in [u64::MAX, u64::MAX - 1, before + 1] {
        let proof = format!("k1.{}", "cd".repeat(32));
        liar.seen = Seen { epoch, holder: "nobody".into(), generation: u64::MAX, proof, ..Seen::default() };
        let mut heard = 0;
        eventually("the claim is heard", 20, async || {
            heard += u32::from(liar.report().await.is_ok());
            honest.live().await;
            (heard >= 5).then_some(())
        })
        .await;
    }
    cluster.deploy("hello", 1, &[]).await;
    eventually("and it goes on to deploy", 60, async || {
        liar.report().await.ok();
        honest.live().await;
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;
    let now = status().await.unwrap();
    assert_eq!((now.epoch, now.holdover), (before, false));
    let mut conn = cluster.pool.get_conn().await.unwrap();
    let stored: Option<u64> = conn.query_first("SELECT epoch FROM lease WHERE name = 'leader'").await.unwrap();
    assert_eq!(stored, Some(before));
}

/// After a minute (here: 12 s) a node that accepts nothing is its own fault alone.
#[tokio::test]
async fn a_node_that_accepts_nothing_does_not_stop_the_cluster_after_a_change_of_leader() {
    let cluster = Cluster::start().await;
    let mut first = cluster.server().await;
    let second = cluster.server().await;
    let mut honest = Agent::new(&[&first, &second], cluster.add_node("node1").await);
    let mut deaf = Agent::new(&[&first, &second], cluster.add_node("deaf").await);
    let dash = second.client(Some(cluster.service("dash", Role::Dash).await));
    eventually("both nodes are heard", 20, async || {
        deaf.report().await.ok();
        honest.live().await;
        honest.orders.is_some().then_some(())
    })
    .await;
    first.kill();
    cluster.deploy("hello", 3, &[]).await;
    eventually("deployed by the node that hears", 60, async || {
        deaf.report().await.ok();
        honest.live().await;
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;
    let nodes: Page<NodeView> = dash.get("/v1/nodes", ANSWER).await.unwrap();
    let view = nodes.items.iter().find(|node| node.name.as_str() == "deaf").unwrap();
    assert_eq!(view.faults.len(), 1, "{view:?}");
    assert!(view.faults[0].detail.contains("accepts no orders"), "{view:?}");
    let client = second.client(None);
    eventually("metrics name it", 20, async || {
        let answer = client.request(http::Method::GET, "/metrics").unwrap().send().await.ok()?;
        let text = answer.text().await.ok()?;
        text.contains(r#"dinp_server_node_fault{node="deaf",kind="deaf"} 1"#).then_some(())
    })
    .await;
    assert_eq!(honest.instances.len(), 3);
}
