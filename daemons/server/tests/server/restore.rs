//! The database is restored from a backup that is older than what runs.

use crate::harness::{Agent, Cluster, Server, eventually};
use dinp_common::api::control::{ClusterStatus, Resumed};
use dinp_common::auth::Role;
use dinp_common::client::ClientError;
use mysql_async::prelude::Queryable;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(3);
/// What desired state is made of, but for the nodes.
const DUMPED: [&str; 6] = ["revision", "lease", "app", "release", "env", "deployment"];

async fn dump(cluster: &Cluster) {
    let mut conn = cluster.pool.get_conn().await.unwrap();
    for table in DUMPED {
        conn.query_drop(format!("CREATE TABLE dump_{table} AS SELECT * FROM `{table}`")).await.unwrap();
    }
}

async fn restore(cluster: &Cluster) {
    let mut conn = cluster.pool.get_conn().await.unwrap();
    conn.query_drop("SET foreign_key_checks = 0").await.unwrap();
    for table in DUMPED {
        conn.query_drop(format!("DELETE FROM `{table}`")).await.unwrap();
        conn.query_drop(format!("INSERT INTO `{table}` SELECT * FROM dump_{table}")).await.unwrap();
        conn.query_drop(format!("ALTER TABLE `{table}` AUTO_INCREMENT = 1")).await.ok();
    }
    conn.query_drop("SET foreign_key_checks = 1").await.unwrap();
}

async fn until_deployed(cluster: &Cluster, agent: &mut Agent, deployments: usize) {
    eventually("the deployment has succeeded", 30, async || {
        agent.live().await;
        (cluster.deployment_states("hello").await == vec!["succeeded"; deployments]).then_some(())
    })
    .await;
}

fn releases_of(agent: &Agent) -> Vec<u64> {
    agent.instances.values().map(|instance| instance.release).collect()
}

async fn status(cluster: &Cluster, server: &Server) -> ClusterStatus {
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    eventually("the server leads", 20, async || dash.get("/v1/status", ANSWER).await.ok()).await
}

#[tokio::test]
async fn a_database_that_was_restored_meanwhile_is_carried_out_only_after_a_person_has_said_so() {
    restored(true).await;
}

#[tokio::test]
async fn so_is_one_that_is_restored_below_a_running_server() {
    restored(false).await;
}

async fn restored(while_stopped: bool) {
    let cluster = Cluster::start().await;
    let mut server = cluster.server().await;
    let credential = cluster.add_node("node1").await;
    let mut agent = Agent::new(&[&server], credential.clone());
    cluster.deploy("hello", 2, &[("WHICH", "a")]).await;
    until_deployed(&cluster, &mut agent, 1).await;
    dump(&cluster).await;
    let new = cluster.deploy("hello", 2, &[("WHICH", "lost")]).await;
    until_deployed(&cluster, &mut agent, 2).await;
    eventually("the old instances are gone", 30, async || {
        agent.live().await;
        (releases_of(&agent) == [new, new]).then_some(())
    })
    .await;

    if while_stopped {
        server.stop().await;
        restore(&cluster).await;
        server = cluster.server().await;
    } else {
        restore(&cluster).await;
    }
    let mut heir = Agent::new(&[&server], credential);
    (heir.instances, heir.seen) = (agent.instances.clone(), agent.seen.clone());
    let dash = server.client(Some(cluster.service("people", Role::Dash).await));
    let frozen = eventually("the server says what it waits for", 30, async || {
        heir.live().await;
        let status = dash.get::<ClusterStatus>("/v1/status", ANSWER).await.ok()?;
        status.frozen
    })
    .await;
    assert!(frozen.contains("dinp resume"), "{frozen}");
    let third = cluster.deploy("hello", 2, &[("WHICH", "b")]).await;
    for _ in 0..60 {
        heir.live().await;
    }
    assert_eq!(releases_of(&heir), [new, new], "nothing is deployed");
    assert!(heir.stopped.is_empty(), "and nothing is stopped");
    assert_eq!(cluster.endpoints("hello").await, 2);

    let resumed: Resumed = dash.post("/v1/resume", &serde_json::json!({}), ANSWER).await.unwrap();
    assert!(resumed.revision > heir.seen.highest_revision.number);
    eventually("the database is carried out", 60, async || {
        heir.live().await;
        (releases_of(&heir) == [third, third]).then_some(())
    })
    .await;
    let orders = heir.orders.as_ref().unwrap();
    assert!(
        orders.run.iter().all(|spec| spec.env["WHICH"] == "b"),
        "versions of an environment come again, their values do not"
    );
    assert!(status(&cluster, &server).await.frozen.is_none());
    let again = dash.post::<_, Resumed>("/v1/resume", &serde_json::json!({}), ANSWER).await.unwrap_err();
    assert!(matches!(&again, ClientError::Problem(problem) if problem.kind == "nothing-held"), "{again}");
}
