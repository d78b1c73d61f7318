//! Releases that are broken, in the ways that people's are, and what is said of each.

use crate::world::{World, ask, docker, spec};
use dinp_common::api::agent::{InstanceReport, InstanceSpec, InstanceState::*, StopOrder, StreamKind, StreamOrder};
use dinp_common::model::HealthCheck;
use std::time::{Duration, Instant};

/// An instance with one more variable in its environment.
fn with(number: u64, name: &str, value: &str) -> InstanceSpec {
    let mut web = spec(number);
    web.env.insert(name.into(), value.into());
    web
}

async fn until(world: &World, of: &InstanceSpec, what: &str, is: impl Fn(&InstanceReport) -> bool) -> InstanceReport {
    let id = of.instance.clone();
    let heard = world.until(what, |heard| heard.instances.get(&id).is_some_and(&is)).await;
    heard.instances[&id].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_crashes_at_start_has_failed_three_times_within_seconds() {
    let world = World::new().await;
    let web = with(1, "DIE_MS", "200");
    let begin = Instant::now();
    world.order(&[&web], |_| {});
    let report = until(&world, &web, "three failures", |report| report.failures >= 3).await;
    println!("three failures of a crash at start: {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(report.last_failure, "exited with code 5");
    assert_eq!(report.output.last().unwrap(), "ImportError: no module named shop");
    assert!(!report.proved && !report.failed_start && !report.node_fault);
}

/// There was no verdict on it in 280 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_goes_into_the_background_has_failed_three_times_within_seconds() {
    let world = World::new().await;
    let web = with(1, "DAEMON", "1");
    let begin = Instant::now();
    world.order(&[&web], |_| {});
    let report = until(&world, &web, "three failures", |report| report.failures >= 3).await;
    assert!(begin.elapsed() < Duration::from_secs(20));
    let reason = "exited with code 0 (its command ended by itself: it must stay in the foreground)";
    assert_eq!((report.last_failure.as_str(), report.proved), (reason, false));
}

/// It was removed from the table and back in each time, and called deployed.
#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_crashes_after_it_listens_never_proves_itself() {
    let world = World::new().await;
    let mut web = with(1, "DIE_MS", "900");
    web.min_healthy_secs = 2;
    world.order(&[&web], |_| {});
    let report = until(&world, &web, "three failures", |report| report.failures >= 3).await;
    assert_eq!(report.last_failure, "exited with code 5");
    let states: Vec<_> = world.heard().states.iter().map(|(_, _, state)| *state).collect();
    assert!(states.contains(&Ready), "it was ready in between: {states:?}");
    assert!(!world.heard().proved.contains(&web.instance));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_path_that_answers_500_is_quoted_long_before_the_start_timeout() {
    let world = World::new().await;
    let mut web = with(1, "SICK", "1");
    web.start_timeout_secs = 60;
    web.health = Some(HealthCheck { interval_secs: 1, timeout_secs: 1, ..HealthCheck::new("/health") });
    world.order(&[&web], |_| {});
    let report = until(&world, &web, "the failure", |report| report.failures == 1).await;
    assert_eq!(report.last_failure, "GET /health answered 500: no database: connection refused");
    assert!(report.failed_start);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_elsewhere_is_told_where() {
    let world = World::new().await;
    let (mut other, mut loopback) = (with(1, "LISTEN", "0.0.0.0:5000"), with(2, "LISTEN", "127.0.0.1:8080"));
    (other.start_timeout_secs, loopback.start_timeout_secs) = (2, 2);
    world.order(&[&other, &loopback], |_| {});
    for (spec, reason) in [
        (&other, "not ready within 2 s: nothing listens on port 8080: it listens on 5000"),
        (&loopback, "not ready within 2 s: nothing listens on port 8080: it listens on 127.0.0.1 only"),
    ] {
        let report = until(&world, spec, reason, |report| report.failures > 0).await;
        assert_eq!((report.last_failure.as_str(), report.failed_start), (reason, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_run_is_told_by_name() {
    let world = World::new().await;
    let other = if std::env::consts::ARCH == "aarch64" { ("amd64", "arm64") } else { ("arm64", "amd64") };
    let foreign = format!("`/foreign` is an executable for {}, this node is {}", other.0, other.1);
    let cases = [
        ("/missing", "`/missing` was not found"),
        ("/plain", "`/plain` is not executable"),
        ("/script", "`/script`: no such interpreter: /usr/bin/nodejs"),
        ("/dos", "`/dos` has the line ends of Windows: no such interpreter: \"/bin/sh\\r\""),
        ("/foreign", &foreign),
    ];
    let of = |(number, (command, _)): (u64, &(&str, &str))| {
        let mut web = spec(number);
        web.command = Some(vec![(*command).to_owned()]);
        web
    };
    let specs: Vec<InstanceSpec> = (1..).zip(&cases).map(of).collect();
    world.order(&specs.iter().collect::<Vec<_>>(), |_| {});
    for (spec, (_, reason)) in specs.iter().zip(&cases) {
        let report = until(&world, spec, reason, |report| report.failures > 0).await;
        assert_eq!(report.last_failure, *reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_killed_by_hand_was_not_out_of_memory() {
    let world = World::new().await;
    let web = spec(1);
    world.order(&[&web], |_| {});
    world.until_state(&web, Ready).await;
    docker(&["kill", &format!("dinp-web-{}", web.instance.short())]);
    let report = until(&world, &web, "the failure", |report| report.failures == 1).await;
    assert_eq!(report.last_failure, "exited with code 137 (killed by SIGKILL, from inside or by hand)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_for_memory_is_told_while_the_app_serves_on() {
    let world = World::new().await;
    let web = spec(1);
    world.order(&[&web], |_| {});
    let report = world.until_state(&web, Ready).await;
    ask(&report, "/worker").await.unwrap();
    let report = until(&world, &web, "the kill", |report| report.oom_kills == 1).await;
    assert_eq!(report.reason, "a process in it was killed: out of memory (limit 64 MiB)");
    assert_eq!((report.state, report.restarts, report.failures), (Ready, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_instance_wrote_can_be_read_when_it_is_gone() {
    let world = World::new().await;
    let web = with(1, "DIE_MS", "200");
    world.order(&[&web], |_| {});
    // It is tried at once three times, and then only after a while.
    until(&world, &web, "the back-off", |report| report.failures > 3).await;
    let instance = web.instance.clone();
    let stop = StopOrder { instance: instance.clone(), reason: "rolled back".into(), grace_secs: 1 };
    world.order(&[], |orders| orders.stop = vec![stop]);
    let heard = world.until("gone", |heard| heard.removed.contains(&instance)).await;
    let ended = &heard.ended[0];
    assert_eq!((&ended.instance, ended.app.as_str(), ended.release, ended.exit_code), (&instance, "web", 7, Some(5)));
    for (stream, previous) in [("by-id", false), ("previous", true)] {
        let kind = StreamKind::Logs { instance: instance.clone(), tail: 1, follow: false, previous };
        world.order(&[], |orders| orders.streams = vec![StreamOrder { stream: stream.into(), kind }]);
        let heard = world.until("the stream", |heard| heard.streams.contains_key(stream)).await;
        let texts: Vec<&str> = heard.streams[stream].iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["ImportError: no module named shop"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proof_and_failures_outlive_the_agent_and_end_with_the_start() {
    let mut world = World::new().await;
    let mut web = spec(1);
    web.min_healthy_secs = 1;
    world.order(&[&web], |_| {});
    let report = until(&world, &web, "the proof", |report| report.proved).await;
    ask(&report, "/crash").await.ok();
    let failed = until(&world, &web, "the failure", |report| report.failures == 1).await;
    assert!(!failed.proved, "it must prove itself again");
    until(&world, &web, "the proof", |report| report.proved).await;
    world.agent_stops().await;
    world.forget();
    world.agent_starts();
    let heard = world.until("a full report", |heard| heard.full > 0).await;
    let first = &heard.instances[&web.instance];
    assert_eq!((first.state, first.proved, first.failures, first.restarts), (Ready, true, 1, 1));
}
