//! When there is a verdict, and what people are told of what ends.

use super::{World, app, ids, node, two_nodes};
use dinp_common::api::agent::{InstanceReport, InstanceState};
use dinp_common::api::people::DeploymentState;
use dinp_common::model::{HealthCheck, InstanceId};
use dinp_common::testing::proved_report;

/// There was none in 14 minutes.
#[test]
fn a_first_release_that_crashes_soon_after_it_listens_has_its_verdict_within_half_a_minute() {
    let mut world = two_nodes();
    world.flaky.insert(1);
    world.create_app("web", 2);
    world.deploy("web", 1, 256);
    world.until(30_000, "it is over", |world| world.database.apps[&app("web")].deployment.is_none());
    let (_, state, reason) = world.deployment_log.last().unwrap();
    assert_eq!(*state, DeploymentState::RolledBack);
    assert!(reason.contains("failed 3 times"), "{reason}");
    world.run(5_000);
    assert!(world.containers("web").is_empty() && world.routed("web").is_empty());
}

/// The clock of a deployment was set back by every router that lagged behind some table.
#[test]
fn a_router_that_lags_for_ever_holds_a_deployment_up_no_longer_than_its_deadline_and_is_named() {
    let mut world = two_nodes().with_app("web", 1, 256);
    world.create_app("other", 1);
    world.deploy("other", 100, 256);
    world.run(20_000);
    let before = ids(&world, "web");
    world.routers.get_mut("router2").unwrap().stalled_until = u64::MAX;
    world.deploy("web", 2, 256);
    let is_over = |world: &World| world.deployment_log.iter().any(|one| one.1 == DeploymentState::RollingBack);
    let begun = world.now;
    // Another app brings new tables all the time, behind which the router lags as well.
    for count in [2, 1].into_iter().cycle() {
        if is_over(&world) {
            break;
        }
        assert!(world.now - begun < 330_000, "no verdict:\n{}", world.picture());
        world.change("other", |app| app.instances = count);
        world.run(10_000);
    }
    let (.., reason) = world.deployment_log.iter().find(|one| one.1 == DeploymentState::RollingBack).unwrap();
    assert!(reason.contains("no progress in 300 s") && reason.contains("router2"), "{reason}");
    assert!(before.is_subset(&world.routed("web")), "what served serves on");
}

/// One instance of an app, of which its node says what a test wants.
struct Told {
    world: World,
    instance: InstanceId,
    truth: InstanceReport,
}

impl Told {
    fn new() -> Self {
        let world = two_nodes().with_app("web", 1, 256);
        let (instance, at, release) = world.serving("web")[0].clone();
        let container = &world.agents[&at].containers[&instance];
        let truth = InstanceReport {
            port: Some(container.port),
            memory_mb: container.memory_mb,
            ticket: container.ticket.clone(),
            ..proved_report(instance.clone(), app("web"), release)
        };
        Self { world, instance, truth }
    }

    /// The node says this in several reports; which ends people are told of.
    fn ends(&mut self, report: InstanceReport) -> Vec<(&'static str, String)> {
        let at = self.world.reign().fleet.get(&self.instance).unwrap().node.clone();
        let known = self.world.told.len();
        self.world.agents.get_mut(&at).unwrap().lies = vec![report];
        self.world.run(10_000);
        let new = self.world.told[known..].iter().filter(|event| event.instance.as_ref() == Some(&self.instance));
        new.map(|event| (event.kind, event.detail.clone())).filter(|(kind, _)| *kind != "ready").collect()
    }
}

/// It was a 502 for somebody, and nothing else.
#[test]
fn a_worker_that_was_killed_for_memory_is_one_event_of_an_instance_that_serves_on() {
    let mut told = Told::new();
    let reason = "a process in it was killed: out of memory (limit 256 MiB)".to_owned();
    for kills in 1..=2 {
        let report = InstanceReport { oom_kills: kills, reason: reason.clone(), ..told.truth.clone() };
        assert_eq!(told.ends(report), [("out_of_memory", reason.clone())]);
    }
    assert!(told.world.routed("web").contains(&told.instance));
}

/// `docker kill` was recorded as out of memory, and one crash was two events.
#[test]
fn an_end_is_one_event_and_only_what_the_kernel_killed_for_memory_is_out_of_memory() {
    let mut told = Told::new();
    let ends = [
        ("exit", "exited with code 137 (killed by SIGKILL, from inside or by hand)"),
        ("out_of_memory", "out of memory (limit 256 MiB)"),
        ("exit", "exited with code 127 (its command was not found)"),
        ("out_of_memory", "exited with code 1 after a process in it was killed: out of memory (limit 256 MiB)"),
    ];
    for (failures, (kind, why)) in (1..).zip(ends) {
        let failed = InstanceReport {
            state: InstanceState::BackOff,
            failures,
            exit_code: Some(137),
            reason: format!("next start in 10 s: {why}"),
            last_failure: why.to_owned(),
            out_of_memory: kind == "out_of_memory",
            proved: false,
            ..told.truth.clone()
        };
        assert_eq!(told.ends(failed.clone()), [(kind, why.to_owned())]);
        // The start after it is no second end.
        let again = InstanceReport { state: InstanceState::Starting, ..failed };
        assert_eq!(told.ends(again), []);
    }
}

/// Two probes each five seconds filled the access logs of apps, and one of them came with a host that no app knows.
#[test]
fn while_an_agent_finds_nothing_wrong_the_monitor_rests_and_it_asks_as_people_do() {
    let mut world = two_nodes().with_app("web", 2, 256);
    assert!(world.reign().targets().targets.is_empty(), "who has no check is not asked");
    world.change("web", |app| app.releases.get_mut(&1).unwrap().health = Some(HealthCheck::new("/health")));
    world.run(1_000);
    let targets = world.reign().targets().targets;
    assert!(targets.iter().all(|target| target.host == "web.apps.localhost"), "{targets:?}");
    let resting = |world: &mut World| {
        let targets = world.reign().targets().targets;
        let rests = targets.iter().filter(|target| target.rest_secs.is_some_and(|secs| secs >= 30)).count();
        (targets.len(), rests)
    };
    assert_eq!(resting(&mut world), (2, 2));
    let (victim, at, _) = world.serving("web")[0].clone();
    let now = world.now;
    world.agents.get_mut(&at).unwrap().hang(&victim, now, now + 2_500);
    world.run(500);
    assert_eq!(resting(&mut world), (2, 1), "the agent sees a failure: the monitor looks, too");
    world.run(5_000);
    assert_eq!(resting(&mut world), (2, 2));
    world.agents.get_mut(&node("node2")).unwrap().cut_off = true;
    world.run(6_000);
    assert_eq!(resting(&mut world), (2, 1), "nobody else asks what runs on a silent node");
}
