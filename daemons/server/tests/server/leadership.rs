//! Who leads, and what a change of leader does to what runs: nothing.

use crate::harness::{Agent, Cluster, RouterPeer, Server, client_of, eventually};
use crate::line::Line;
use dinp_common::api::control::ClusterStatus;
use dinp_common::auth::{Credential, CredentialKind, Role};
use dinp_common::model::Version;
use mysql_async::prelude::Queryable;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

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
    let ready = second.client(None);
    eventually("the standby is ready", 10, async || {
        let answer = ready.request(http::Method::GET, "/ready").unwrap().send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
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

#[tokio::test]
async fn a_number_in_redis_that_no_server_has_proved_keeps_nobody_from_publishing() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    run_hello(&cluster, &mut agent).await;
    let epoch = server.leader().await.epoch;
    let mut redis = cluster.redis.connection().await.unwrap();
    let mut forge = redis::cmd("XADD");
    forge.arg("dinp:dinp:log").arg(format!("{}-1", u64::MAX)).arg("prev").arg("0-0").arg("changes").arg("[]");
    forge.query_async::<()>(&mut redis).await.unwrap();
    cluster.deploy("other", 1, &[]).await;
    eventually("the next app is served", 30, async || {
        agent.live().await;
        (cluster.endpoints("other").await == 1).then_some(())
    })
    .await;
    assert_eq!(server.leader().await.epoch, epoch, "and nobody's epoch was raised for it");
    assert_eq!(cluster.endpoints("hello").await, 2);
}

/// `dinp status` fell silent after 20 s, the log filled with the same lines, and what happened meanwhile was forgotten.
#[tokio::test]
async fn while_mysql_is_away_the_status_says_so_the_log_says_it_once_and_no_event_is_lost() {
    const OUTAGE: Duration = Duration::from_secs(25);
    let mut cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let status = async || dash.get::<ClusterStatus>("/v1/status", Duration::from_secs(3)).await;
    run_hello(&cluster, &mut agent).await;
    assert!(!status().await.unwrap().holdover);

    cluster.mysql.stop();
    let stopped = Instant::now();
    eventually("the status says so", 10, async || {
        agent.live().await;
        status().await.unwrap().holdover.then_some(())
    })
    .await;
    let failed = agent.instances.values_mut().next().unwrap();
    (failed.failures, failed.last_failure) = (1, "exited with code 3".into());
    let troubles = || {
        let is_trouble = |line: &&str| line.contains(" WARN ") || line.contains("ERROR ");
        server.log().lines().filter(is_trouble).map(str::to_owned).collect::<Vec<_>>()
    };
    // By then everybody has met the outage.
    let told = eventually("half of the outage is over", 30, async || {
        agent.report().await.unwrap();
        status().await.unwrap();
        (stopped.elapsed() > OUTAGE / 2).then(&troubles)
    })
    .await;
    assert!(!told.is_empty());
    eventually("the outage is over", 30, async || {
        agent.report().await.unwrap();
        assert!(status().await.unwrap().holdover);
        (stopped.elapsed() > OUTAGE).then_some(())
    })
    .await;
    assert_eq!(troubles(), told, "what was told is told again");

    cluster.mysql.start_again().await;
    eventually("the event is written", 20, async || {
        let mut conn = cluster.pool.get_conn().await.ok()?;
        let events: Option<Vec<String>> =
            conn.query("SELECT detail FROM instance_event WHERE kind = 'exit'").await.ok();
        (events? == ["exited with code 3"]).then_some(())
    })
    .await;
    eventually("holdover is over", 20, async || (!status().await.unwrap().holdover).then_some(())).await;
}

/// The second server leads, and the first one knows that it does not.
async fn change_of_leader(first: &Server, second: &Server) {
    eventually("the second server leads", 6, async || second.leader().await.leading.then_some(())).await;
    eventually("the first server has given up", 6, async || (!first.leader().await.leading).then_some(())).await;
}

#[tokio::test]
async fn when_the_leader_alone_loses_mysql_all_follow_the_next_one_and_a_dead_node_is_replaced() {
    let cluster = Cluster::start().await;
    let line = Line::to(cluster.mysql.port()).await;
    let [first, second] = cluster.pair(line.port()).await;
    let servers = [&first, &second];
    let mut agents =
        [Agent::new(&servers, cluster.add_node("node1").await), Agent::new(&servers, cluster.add_node("node2").await)];
    let router = RouterPeer::new(&servers, cluster.service("router1", Role::Router).await);
    let dash = client_of(&servers, cluster.service("dash", Role::Dash).await);
    cluster.deploy("hello", 1, &[]).await;
    eventually("the app is served", 20, async || {
        for agent in &mut agents {
            agent.live().await;
        }
        (cluster.endpoints("hello").await == 1).then_some(())
    })
    .await;
    let epoch = first.leader().await.epoch;

    line.cut();
    let cut = Instant::now();
    let [mut dead, mut alive] = agents;
    if dead.instances.is_empty() {
        std::mem::swap(&mut dead, &mut alive);
    }
    eventually("agent, router and dash follow the second server", 9, async || {
        alive.obey().await.ok();
        let agent = alive.report().await.ok()?.epoch;
        let router = router.report(Version::ZERO).await.ok()?.epoch;
        let status: ClusterStatus = dash.get("/v1/status", Duration::from_secs(3)).await.ok()?;
        (agent > epoch && router > epoch && status.leader == second.url && !status.holdover).then_some(())
    })
    .await;
    println!("all followed {} ms after the cut", cut.elapsed().as_millis());
    change_of_leader(&first, &second).await;
    eventually("the instance of the dead node is served from the other one", 30, async || {
        alive.live().await;
        let (version, table) = cluster.table().await?;
        router.report(version).await.ok();
        let served = table.get("hello")?.endpoints.first()?.instance.clone();
        alive.instances.contains_key(&served).then_some(())
    })
    .await;
    println!("served again {} ms after the cut", cut.elapsed().as_millis());

    line.mend();
    let mut names = None;
    eventually("the first server names the leader", 10, async || {
        names = first.leader().await.leader;
        (names.as_ref() == Some(&second.url)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_stood_still_finds_another_one_and_stops_nothing() {
    let cluster = Cluster::start().await;
    let [first, second] = cluster.pair(cluster.mysql_port).await;
    let mut agent = Agent::new(&[&first, &second], cluster.add_node("node1").await);
    run_hello(&cluster, &mut agent).await;
    first.signal(Signal::SIGSTOP);
    eventually("the second server leads", 8, async || second.leader().await.leading.then_some(())).await;
    first.signal(Signal::SIGCONT);
    change_of_leader(&first, &second).await;
    eventually("the agent follows", 10, async || {
        agent.live().await;
        (agent.report().await.ok()?.epoch == second.leader().await.epoch).then_some(())
    })
    .await;
    assert!(agent.stopped.is_empty());
    assert_eq!(cluster.endpoints("hello").await, 2);
}

#[tokio::test]
async fn strangers_whose_look_up_hangs_do_not_keep_the_leader_from_its_lease() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    eventually("the server leads", 20, async || server.leader().await.leading.then_some(())).await;
    let epoch = server.leader().await.epoch;
    let mut lock = cluster.pool.get_conn().await.unwrap();
    lock.query_drop("LOCK TABLES service_credential WRITE").await.unwrap();
    let strangers: Vec<_> = (0..40)
        .map(|number| {
            let stranger = Credential::generate(CredentialKind::Service, format!("x{number}"));
            let client = server.client(Some(stranger));
            tokio::spawn(async move { client.get::<ClusterStatus>("/v1/status", Duration::from_secs(20)).await })
        })
        .collect();
    let mut conn = cluster.pool.get_conn().await.unwrap();
    for stranger in strangers {
        let refused = stranger.await.unwrap().unwrap_err();
        assert_eq!(refused.status(), Some(503), "{refused}");
        let held: Option<bool> = conn.query_first("SELECT expires > UTC_TIMESTAMP(6) FROM lease").await.unwrap();
        assert_eq!(held, Some(true), "the lease has run out");
    }
    lock.query_drop("UNLOCK TABLES").await.unwrap();
    assert_eq!(server.leader().await.epoch, epoch);
    let stranger = server.client(Some(Credential::generate(CredentialKind::Service, "x0")));
    let refused = stranger.get::<ClusterStatus>("/v1/status", Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(refused.status(), Some(401), "{refused}");
}
