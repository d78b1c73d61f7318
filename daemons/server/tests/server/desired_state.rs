//! Desired state is read whole or not at all.

use crate::harness::{Agent, Cluster, eventually};
use dinp_common::api::Page;
use dinp_common::api::control::{ClusterStatus, InstanceView};
use dinp_common::auth::Role;
use dinp_common::testing::free_port;
use dinp_server::snapshot::{Environments, snapshot};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: Duration = Duration::from_secs(3);

/// A relay to MySQL that ends each connection once so many bytes of answers have passed; 0 is no limit.
async fn cutting_relay(target: u16) -> (u16, Arc<AtomicUsize>) {
    let port = free_port();
    let limit = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let shared = limit.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, target, shared.clone()));
        }
    });
    (port, limit)
}

async fn relay(client: TcpStream, target: u16, limit: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move {
        tokio::io::copy(&mut from_client, &mut to_server).await.ok();
    });
    let mut passed = 0;
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
        passed += count;
        let limit = limit.load(Ordering::Relaxed);
        if (limit > 0 && passed > limit) || to_client.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    up.abort();
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_the_rows_stops_no_app() {
    let mut cluster = Cluster::start().await;
    let (port, limit) = cutting_relay(cluster.mysql.port()).await;
    cluster.mysql_port = port;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    let apps: Vec<String> = (0..8).map(|number| format!("app{number}")).collect();
    for app in &apps {
        cluster.deploy(app, 1, &[]).await;
    }
    eventually("all apps run", 30, async || {
        agent.live().await;
        (agent.instances.len() == apps.len()).then_some(())
    })
    .await;

    // From now on every read of desired state ends somewhere in the middle, each time somewhere else.
    let mut conn = cluster.pool.get_conn().await.unwrap();
    for bytes in (600..4200).step_by(300) {
        limit.store(bytes, Ordering::Relaxed);
        conn.query_drop("UPDATE revision SET rev = rev + 1").await.unwrap();
        for _ in 0..10 {
            agent.live().await;
        }
    }
    limit.store(0, Ordering::Relaxed);
    for _ in 0..30 {
        agent.live().await;
    }
    assert!(agent.stopped.is_empty(), "stopped: {:?}", agent.stopped);
    assert_eq!(agent.instances.len(), apps.len(), "and nothing was started twice");
}

#[tokio::test]
async fn an_app_whose_row_is_missing_is_an_orphan_and_runs_on() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    cluster.deploy("hello", 1, &[]).await;
    eventually("the app runs", 20, async || {
        agent.live().await;
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;
    let mut conn = cluster.pool.get_conn().await.unwrap();
    conn.query_drop("DELETE FROM app").await.unwrap();
    conn.query_drop("UPDATE revision SET rev = rev + 1").await.unwrap();
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let orphans = eventually("the instance is shown as an orphan", 20, async || {
        agent.live().await;
        let page: Page<InstanceView> = dash.get("/v1/orphans", ANSWER).await.ok()?;
        page.items.into_iter().next()
    })
    .await;
    for _ in 0..30 {
        agent.live().await;
    }
    assert!(agent.stopped.is_empty());
    dash.delete::<()>(&format!("/v1/orphans/{}", orphans.instance), ANSWER).await.unwrap();
    eventually("the orphan is stopped once a person says so", 40, async || {
        agent.live().await;
        (agent.stopped == [orphans.instance.clone()]).then_some(())
    })
    .await;
}

/// All apps answered 503 within one poll.
#[tokio::test]
async fn rows_of_nodes_that_are_gone_stop_nothing_and_take_nothing_out_of_the_table() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    cluster.deploy("hello", 2, &[]).await;
    eventually("the app runs", 20, async || {
        agent.live().await;
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;
    let mut conn = cluster.pool.get_conn().await.unwrap();
    conn.query_drop("DELETE FROM node").await.unwrap();
    conn.query_drop("UPDATE revision SET rev = rev + 1").await.unwrap();
    let rev: u64 = conn.query_first("SELECT rev FROM revision").await.unwrap().unwrap();
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    eventually("the server has read that", 20, async || {
        agent.live().await;
        let status: ClusterStatus = dash.get("/v1/status", ANSWER).await.ok()?;
        (status.revision >= rev).then_some(())
    })
    .await;
    for _ in 0..30 {
        agent.report().await.unwrap();
        agent.obey().await.unwrap();
        assert_eq!(cluster.endpoints("hello").await, 2);
    }
    assert!(agent.stopped.is_empty(), "stopped: {:?}", agent.stopped);
    // The leader compares what is in Redis with its own table each 10 s.
    cluster.deploy("other", 1, &[]).await;
    eventually("the next app is placed there", 30, async || {
        agent.live().await;
        (cluster.endpoints("other").await == 1).then_some(())
    })
    .await;
    assert_eq!(cluster.endpoints("hello").await, 2);
}

#[tokio::test]
async fn a_snapshot_holds_what_the_rows_say() {
    let cluster = Cluster::start().await;
    let release = cluster.deploy("hello", 3, &[("A", "1"), ("B", "2")]).await;
    let mut conn = cluster.pool.get_conn().await.unwrap();
    let snapshot = snapshot(&mut conn, &cluster.key, &Environments::new()).await.unwrap();
    let app = &snapshot.desired.apps["hello"];
    assert_eq!((app.instances, app.release, app.started, app.deleted), (3, None, true, false));
    assert_eq!(app.deployment.as_ref().unwrap().release, release);
    let environment = &snapshot.environments[&release];
    assert_eq!(environment.get("B").map(String::as_str), Some("2"));
}
