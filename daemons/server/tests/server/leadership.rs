//! Who leads, and what a change of leader does to what runs: nothing.

use crate::harness::{Agent, Cluster, eventually};
use std::time::Instant;

async fn run_hello(cluster: &Cluster, agent: &mut Agent) {
    cluster.deploy("hello", 2, &[]).await;
    eventually("the deployment has succeeded", 20, async || {
        agent.live().await;
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_standby_leads_within_5_s_of_a_kill_and_neither_starts_nor_stops_anything() {
    let cluster = Cluster::start().await;
    let mut first = cluster.server().await;
    let credential = cluster.add_node("node1").await;
    let mut agent = Agent::new(&[&first], credential.clone());
    run_hello(&cluster, &mut agent).await;
    let second = cluster.server().await;
    let before: Vec<_> = agent.instances.keys().cloned().collect();
    let (version, _) = cluster.table().await.unwrap();

    first.kill();
    let killed = Instant::now();
    let mut heir = Agent::new(&[&first, &second], credential);
    heir.instances = agent.instances.clone();
    eventually("the standby leads", 5, async || heir.report().await.ok()).await;
    println!("a standby led {} ms after the kill", killed.elapsed().as_millis());
    eventually("the new leader has published", 15, async || {
        heir.live().await;
        cluster.table().await.filter(|(now, _)| now.epoch > version.epoch)
    })
    .await;
    for _ in 0..20 {
        heir.live().await;
    }
    assert_eq!(heir.instances.keys().cloned().collect::<Vec<_>>(), before);
    assert!(heir.stopped.is_empty());
    assert_eq!(cluster.endpoints("hello").await, 2);
}

#[tokio::test]
async fn a_clean_stop_gives_the_lease_back_at_once() {
    let cluster = Cluster::start().await;
    let mut first = cluster.server().await;
    let credential = cluster.add_node("node1").await;
    let mut agent = Agent::new(&[&first], credential.clone());
    eventually("the first server leads", 20, async || agent.report().await.ok()).await;
    let second = cluster.server().await;
    assert!(first.stop().await.success());
    let stopped = Instant::now();
    let mut agent = Agent::new(&[&second], credential);
    eventually("the second server leads", 3, async || agent.report().await.ok()).await;
    println!("the second server led {} ms after the first one's end", stopped.elapsed().as_millis());
}

#[tokio::test]
async fn with_mysql_and_redis_down_nothing_stops_and_afterwards_nothing_was_started_twice() {
    let mut cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    run_hello(&cluster, &mut agent).await;
    let before: Vec<_> = agent.instances.keys().cloned().collect();
    cluster.mysql.stop();
    cluster.redis.stop();
    let down = Instant::now();
    while down.elapsed().as_secs() < 6 {
        agent.live().await;
    }
    cluster.redis.start_again().await;
    cluster.mysql.start_again().await;
    eventually("the flushed Redis has the table again", 25, async || {
        agent.live().await;
        (cluster.endpoints("hello").await == 2).then_some(())
    })
    .await;
    assert_eq!(agent.instances.keys().cloned().collect::<Vec<_>>(), before);
    assert!(agent.stopped.is_empty());
}
