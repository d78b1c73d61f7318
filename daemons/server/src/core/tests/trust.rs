//! A bad release, a hostile node and a deaf node each harm themselves alone.

use super::{World, app, ids, node, two_nodes};
use dinp_common::api::agent::{InstanceReport, Registered, Seen};
use dinp_common::api::people::DeploymentState;
use dinp_common::model::InstanceId;
use dinp_common::testing::proved_report;
use std::collections::BTreeSet;

fn is_over(world: &World) -> bool {
    world.database.apps[&app("web")].deployment.is_none()
}

/// What the last word on the app's deployment was.
fn verdict(world: &World) -> (DeploymentState, String) {
    let (_, state, reason) = world.deployment_log.last().unwrap();
    (*state, reason.clone())
}

#[test]
fn a_release_that_crashes_soon_after_it_listens_takes_no_request_from_the_one_that_serves() {
    for count in [1, 3] {
        let mut world = two_nodes().with_app("web", count, 256);
        world.run(10_000);
        let before = ids(&world, "web");
        world.flaky.insert(2);
        world.deploy("web", 2, 256);
        world.until(30_000, "the verdict is there", |world| {
            assert_eq!(world.routed("web"), before, "nothing unproved is routed, nothing that serves is taken out");
            is_over(world)
        });
        let (state, reason) = verdict(&world);
        assert_eq!(state, DeploymentState::RolledBack);
        assert!(reason.contains("failed 3 times"), "{reason}");
        let is_verified = |(id, state, _): &(u64, _, String)| *id == 2 && *state == DeploymentState::Verifying;
        assert!(!world.deployment_log.iter().any(is_verified), "what listens for a moment is not being verified");
        world.run(10_000);
        assert_eq!(ids(&world, "web"), before);
        assert_eq!(world.containers("web").len(), count as usize);
    }
}

#[test]
fn until_the_verdict_the_old_instances_run_on_and_are_back_at_once_when_it_is_bad() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.run(10_000);
    let old = ids(&world, "web");
    world.deploy("web", 2, 256);
    world.until(60_000, "only new ones are routed", |world| world.routed("web").is_disjoint(&old));
    assert!(old.is_subset(&ids(&world, "web")), "the old ones run on");
    for _ in 0..3 {
        let now = world.now;
        for (id, at, release) in world.serving("web") {
            if release == 2 {
                world.agents.get_mut(&at).unwrap().crash(&id, now);
            }
        }
        world.run(1_000);
    }
    world.until(3_000, "the old ones are routed again", |world| world.routed("web") == old);
    world.until(60_000, "it is over", is_over);
    world.run(10_000);
    assert_eq!(verdict(&world).0, DeploymentState::RolledBack);
    assert_eq!((ids(&world, "web"), world.containers("web").len()), (old, 2), "and nothing was started anew");
}

#[test]
fn what_is_kept_until_the_verdict_gives_way_where_there_is_no_room() {
    let mut world = World::new(3, &[("node1", 1536)], 1).with_app("web", 2, 512);
    world.deploy("web", 2, 512);
    world.until(120_000, "it is over", is_over);
    assert_eq!(verdict(&world).0, DeploymentState::Succeeded);
    world.run(5_000);
    assert!(world.serving("web").iter().all(|one| one.2 == 2) && world.serving("web").len() == 2);
}

#[test]
fn a_release_that_nobody_waits_for_any_more_goes_before_the_one_in_force() {
    for seed in 1..=20 {
        let mut world = World::new(seed, &[("node1", 4096), ("node2", 4096)], 2).with_app("web", 4, 256);
        let old = ids(&world, "web");
        world.deploy("web", 2, 256);
        world.until(30_000, "release 2 listens", |world| world.serving("web").iter().any(|one| one.2 == 2));
        // The next leader knows of nothing that it serves for sure while it does not hear one of the routers.
        let silent = world.routers.values_mut().next().unwrap();
        silent.cut_off_since = Some(world.now);
        world.change_leader(0, 0);
        world.deploy("web", 3, 256);
        world.until(60_000, "release 3 is routed", |world| {
            let routed = world.routed("web");
            let is_new = |one: &(InstanceId, _, u64)| one.2 == 3 && routed.contains(&one.0);
            let has_begun = world.serving("web").iter().any(is_new);
            assert!(has_begun || old.is_subset(&routed), "seed {seed}: {}", world.picture());
            has_begun
        });
    }
}

fn lie(of: &str, release: u64) -> InstanceReport {
    InstanceReport { ticket: "k1.00".to_owned(), ..proved_report(InstanceId::from_bits(0xbad), app(of), release) }
}

#[test]
fn a_node_that_makes_up_an_instance_gets_neither_its_traffic_nor_its_environment() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.agents.get_mut(&node("node2")).unwrap().lies = vec![lie("web", 2)];
    world.deploy("web", 2, 256);
    let made_up = InstanceId::from_bits(0xbad);
    world.until(60_000, "it is over", |world| {
        let ordered = world.leader.orders.values().flat_map(|orders| &orders.run);
        assert!(!world.routed("web").contains(&made_up) && !ordered.map(|run| &run.instance).any(|id| *id == made_up));
        is_over(world)
    });
    assert_eq!(verdict(&world).0, DeploymentState::Succeeded);
    assert!(world.reign().instances(None).iter().all(|one| one.instance != made_up), "it counts nowhere");
    let problems = world.reign().status().problems;
    assert!(
        problems.iter().any(|text| text.contains("node node2: 1 instances without a valid ticket")),
        "{problems:?}"
    );
}

#[test]
fn a_node_that_says_it_has_more_than_it_was_registered_with_gets_no_more_for_that() {
    for (registered, fits) in [
        (Registered::default(), 4),
        (Registered { memory_mb: Some(1024), cpu_millis: None }, 2),
        (Registered { memory_mb: None, cpu_millis: Some(100) }, 1),
        (Registered { memory_mb: Some(1 << 20), cpu_millis: Some(1 << 20) }, 4),
    ] {
        let mut world = World::new(1, &[("node1", 65_536)], 1);
        world.database.nodes.get_mut(&node("node1")).unwrap().registered = registered;
        world.create_app("web", 4);
        world.deploy("web", 1, 512);
        world.run(20_000);
        assert_eq!(world.serving("web").len(), fits, "{registered:?}");
        let view = world.reign().nodes().remove(0);
        let memory_mb = registered.memory_mb.unwrap_or(65_536).min(65_536);
        assert_eq!((view.capacity.memory_mb, view.registered), (memory_mb, registered));
    }
}

#[test]
fn a_true_ticket_is_no_good_on_another_node() {
    let mut world = two_nodes().with_app("web", 1, 256);
    let (victim, at, _) = world.serving("web")[0].clone();
    let thief = if at == node("node1") { node("node2") } else { node("node1") };
    let ticket = world.leader.orders[&at].run[0].ticket.clone();
    let stolen = InstanceReport { instance: victim.clone(), ticket, ..lie("web", 1) };
    world.change_leader(0, 0);
    world.agents.get_mut(&thief).unwrap().lies = vec![stolen];
    world.run(70_000);
    let known = world.reign().instances(None).into_iter().find(|one| one.instance == victim);
    assert_eq!(known.map(|one| one.node), Some(at));
}

#[test]
fn the_highest_number_that_there_is_ends_no_leadership() {
    let mut world = two_nodes().with_app("web", 1, 256);
    for epoch in [u64::MAX, u64::MAX - 1, 2] {
        let (holder, proof) = ("somebody".to_owned(), "k1.00".to_owned());
        let seen = Seen { epoch, holder, generation: 1, proof, ..Seen::default() };
        world.agents.get_mut(&node("node2")).unwrap().claimed_seen = Some(seen);
        world.run(5_000);
        assert_eq!(world.reign().take_refusal(), None, "a number without proof is a mere claim");
    }
    world.agents.get_mut(&node("node2")).unwrap().claimed_seen = None;
    // What a leader of a later epoch has truly said counts.
    world.change_leader(0, 0);
    world.run(5_000);
    world.step_back_to(1);
    world.run(5_000);
    assert_eq!(world.reign().take_refusal(), Some(2));
}

#[test]
fn a_node_that_accepts_nothing_holds_up_a_new_leader_for_a_minute_and_then_only_itself() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.agents.get_mut(&node("node2")).unwrap().deaf = true;
    world.change_leader(0, 0);
    world.deploy("web", 2, 256);
    world.until(130_000, "deployed", is_over);
    assert_eq!(verdict(&world).0, DeploymentState::Succeeded);
    let problems = world.reign().status().problems;
    assert!(problems.iter().any(|text| text.starts_with("node node2: ") && text.contains("deaf")), "{problems:?}");
    let new: Vec<_> = world.serving("web").into_iter().filter(|one| one.2 == 2).collect();
    assert!(new.len() == 2 && new.iter().all(|one| one.1 == node("node1")), "nothing is placed on the deaf one");
    // A full disk still takes stop orders.
    world.until(10_000, "the old ones are gone", |world| world.containers("web").len() == 2);
}

#[test]
fn a_node_that_has_accepted_the_leader_and_then_takes_no_orders_fails_no_deployment() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let agent = world.agents.get_mut(&node("node2")).unwrap();
    (agent.deaf, agent.is_sly) = (true, true);
    world.deploy("web", 2, 256);
    world.until(150_000, "deployed", is_over);
    assert_eq!(verdict(&world).0, DeploymentState::Succeeded);
    let problems = world.reign().status().problems;
    assert!(problems.contains(&"node node2: it reports, and accepts no orders (deaf)".to_owned()), "{problems:?}");
    let routed = world.routed("web");
    let new: Vec<_> = world.serving("web").into_iter().filter(|(id, ..)| routed.contains(id)).collect();
    assert!(new.len() == 2 && new.iter().all(|(_, at, release)| *at == node("node1") && *release == 2), "{new:?}");

    let agent = world.agents.get_mut(&node("node2")).unwrap();
    (agent.deaf, agent.is_sly) = (false, false);
    world.until(20_000, "what ran on there is gone", |world| world.containers("web").len() == 2);
    assert_eq!(world.reign().status().problems, Vec::<String>::new());
    world.change("web", |app| app.instances = 4);
    world.until(20_000, "it gets its share again", |world| world.per_node("web") == [2, 2]);
}

#[test]
fn silence_is_not_deafness() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.agents.get_mut(&node("node2")).unwrap().cut_off = true;
    world.change("web", |app| app.instances = 6);
    world.run(200_000);
    world.agents.get_mut(&node("node2")).unwrap().cut_off = false;
    for _ in 0..100 {
        world.run(100);
        let problems = world.reign().status().problems;
        assert!(!problems.iter().any(|text| text.contains("deaf")), "{problems:?}");
    }
}

#[test]
fn an_agent_without_its_engine_holds_up_a_new_leader_no_longer_than_that() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let agent = world.agents.get_mut(&node("node2")).unwrap();
    agent.restart();
    agent.blind = true;
    agent.docker_error = Some("it does not answer".to_owned());
    world.change_leader(0, 0);
    world.change("web", |app| app.instances = 4);
    world.until(75_000, "scaled", |world| world.per_node("web")[0] == 3 && world.routed("web").len() == 4);
}

#[test]
fn with_all_routers_silent_a_deployment_waits_and_says_so() {
    let mut world = two_nodes().with_app("web", 1, 256);
    let before = ids(&world, "web");
    let now = world.now;
    for router in world.routers.values_mut() {
        router.cut_off_since = Some(now);
    }
    world.run(16_000);
    world.deploy("web", 2, 256);
    world.run(600_000);
    assert!(before.is_subset(&ids(&world, "web")), "what routers still send to runs on");
    assert!(!is_over(&world), "its clock is stopped");
    let (_, reason) = verdict(&world);
    assert!(reason.contains("waiting: no router is heard (router1, router2)"), "{reason}");
    let now = world.now;
    for router in world.routers.values_mut() {
        (router.cut_off_since, router.up_since) = (None, now);
    }
    world.until(60_000, "deployed", is_over);
    assert_eq!(verdict(&world).0, DeploymentState::Succeeded);
}

#[test]
fn rows_of_nodes_that_are_gone_take_nothing_out_of_the_table() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = world.routed("web");
    world.database.nodes.clear();
    world.commit();
    world.run(60_000);
    assert_eq!((world.routed("web"), ids(&world, "web")), (before.clone(), before.clone()));
    world.change_leader(0, 0);
    world.run(120_000);
    assert_eq!(
        (world.routed("web"), ids(&world, "web")),
        (before.clone(), before),
        "nor for a leader that never saw them"
    );
    let nodes: BTreeSet<_> = world.agents.keys().cloned().collect();
    world.database.deleted_nodes = nodes;
    world.commit();
    world.run(1_000);
    assert!(world.reign().nodes().iter().all(|node| node.address.is_empty()), "a deleted row is an order");
}

/// Of two instances of a superseded release the one that people used was taken out.
#[test]
fn a_new_leader_chooses_whom_to_take_out_only_when_it_knows_who_is_routed() {
    for seed in 1..20 {
        let mut world = World::new(seed, &[("node1", 8192)], 2).with_app("web", 3, 256);
        world.deploy("web", 2, 256);
        world.until(60_000, "a first new one is routed", |world| {
            let routed = world.routed("web");
            world.serving("web").iter().any(|(id, _, release)| *release == 2 && routed.contains(id))
        });
        world.change("web", |app| app.instances = 4);
        let is_beside = |world: &World| ids(world, "web").difference(&world.routed("web")).count() == 1;
        world.until(60_000, "a second one serves beside the table", is_beside);
        let used = |world: &World| ids(world, "web").intersection(&world.routed("web")).count();
        let before = used(&world);
        world.change_leader(3_000, 0);
        world.deploy("web", 3, 256);
        for _ in 0..100 {
            world.run(100);
            assert!(used(&world) >= before, "seed {seed}: {} of {before} are left", used(&world));
        }
    }
}

#[test]
fn what_ended_while_its_nodes_row_was_missing_leaves_the_table_when_the_row_is_back() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let rows = world.database.nodes.clone();
    let (ended, at, _) = world.serving("web")[0].clone();
    world.agents.get_mut(&at).unwrap().drop_container(&ended);
    world.database.nodes.clear();
    world.commit();
    world.change_leader(0, 0);
    world.run(30_000);
    assert!(world.routed("web").contains(&ended), "nobody that the leader knows says that it ended");
    world.database.nodes = rows;
    world.change("web", |app| app.instances = 1_000);
    world.until(60_000, "what fits serves, and nothing else is routed", |world| {
        let serving: BTreeSet<_> = world.serving("web").into_iter().map(|(id, ..)| id).collect();
        serving.len() > 2 && world.routed("web") == serving
    });
}

#[test]
fn an_app_that_was_stopped_while_its_nodes_rows_were_missing_ends_when_they_are_back() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let rows = world.database.nodes.clone();
    world.database.nodes.clear();
    world.commit();
    world.change_leader(0, 0);
    world.run(30_000);
    world.change("web", |app| app.started = false);
    world.until(60_000, "nothing is routed", |world| world.routed("web").is_empty());
    world.database.nodes = rows;
    world.commit();
    world.until(60_000, "nothing runs", |world| world.containers("web").is_empty());
}

#[test]
fn without_the_keys_the_last_table_stays_until_a_person_has_looked() {
    let mut world = two_nodes().with_app("web", 3, 256);
    world.run(10_000);
    let before = ids(&world, "web");
    world.change_keys();
    world.change_leader(0, 0);
    world.change("web", |app| app.instances = 1);
    world.run(60_000);
    assert_eq!((world.routed("web"), ids(&world, "web")), (before.clone(), before));
    let frozen = world.reign().status().frozen.unwrap();
    assert!(frozen.contains("dinp ticket adopt"), "{frozen}");
    let now = world.now;
    assert_eq!(world.reign().adopt_strangers(now), 3);
    world.until(20_000, "one is left", |world| world.containers("web").len() == 1 && world.routed("web").len() == 1);
    assert_eq!(world.reign().status().frozen, None);
}
