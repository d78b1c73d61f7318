//! What people ask for.

use super::{World, app, ids, node, two_nodes};
use dinp_common::api::people::DeploymentState;

#[test]
fn a_first_deployment_ends_with_ready_instances_in_the_table() {
    let mut world = two_nodes().with_app("web", 2, 256);
    assert_eq!(world.per_node("web"), [1, 1]);
    assert_eq!(world.database.apps[&app("web")].release, Some(1));
    assert_eq!(world.routed("web"), ids(&world, "web"));
    let before = world.put_out;
    world.run(60_000);
    assert_eq!(world.put_out, before, "nothing is done once all is well");
    let routes = &world.redis.as_ref().unwrap().1["web"];
    assert_eq!(routes.domains, ["web.apps.localhost"]);
    assert_eq!(routes.endpoints[0].addr.split(':').next(), Some("10.0.0.1"));
}

#[test]
fn scaling_from_1_to_4_puts_two_on_each_node_and_back_to_1_removes_three() {
    let mut world = two_nodes().with_app("web", 1, 256);
    world.change("web", |app| app.instances = 4);
    world.until(5_000, "four serve", |world| world.routed("web").len() == 4);
    assert_eq!(world.per_node("web"), [2, 2]);
    let before = ids(&world, "web");
    world.change("web", |app| app.instances = 1);
    world.until(5_000, "one is left", |world| world.containers("web").len() == 1);
    assert!(ids(&world, "web").is_subset(&before));
    assert_eq!(world.routed("web").len(), 1);
}

#[test]
fn instances_of_one_round_do_not_all_go_to_one_node() {
    let mut world = World::new(2, &[("node1", 1024), ("node2", 1024), ("node3", 1024)], 1);
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.create_app(name, 1);
        world.deploy(name, name.as_bytes()[0].into(), 256);
    }
    world.until(10_000, "all serve", |world| {
        ["a", "b", "c", "d", "e", "f"].iter().all(|name| world.serving(name).len() == 1)
    });
    let per_node: Vec<usize> = world.agents.values().map(|agent| agent.containers.len()).collect();
    assert_eq!(per_node, [2, 2, 2]);
}

#[test]
fn what_does_not_fit_is_refused_in_words_and_placed_when_there_is_room() {
    let mut world = World::new(3, &[("node1", 1024), ("node2", 512)], 1);
    world.create_app("big", 4);
    world.deploy("big", 1, 512);
    world.run(10_000);
    assert_eq!(world.containers("big").len(), 3);
    let problems = world.reign().status().problems;
    assert!(
        problems[0].contains("1 instances of 512 MiB cannot be placed: no node has room: 2 short of memory"),
        "{problems:?}"
    );
    world.agents.get_mut(&node("node2")).unwrap().memory_mb = 1024;
    world.until(10_000, "the fourth runs", |world| world.serving("big").len() == 4);
}

#[test]
fn a_rolling_deployment_is_never_below_the_count_and_ends_with_the_new_version_alone() {
    let mut world = two_nodes().with_app("web", 4, 256);
    world.request_ms = 3_000;
    world.deploy("web", 2, 256);
    world.until(120_000, "it has succeeded", |world| {
        for router in world.routers.values() {
            let serving =
                router.endpoints().iter().filter(|id| world.agents.values().any(|agent| agent.is_serving(id))).count();
            assert!(serving >= 4, "only {serving} serve\n{}", world.picture());
        }
        assert!(world.containers("web").len() <= 8, "more than the new ones and the old ones, kept until the verdict");
        world.database.apps[&app("web")].deployment.is_none()
    });
    assert_eq!(world.database.apps[&app("web")].release, Some(2));
    world.run(5_000);
    assert_eq!(world.serving("web").iter().map(|(.., release)| *release).collect::<Vec<_>>(), [2, 2, 2, 2]);
    assert_eq!(world.per_node("web"), [2, 2]);
    let states: Vec<DeploymentState> =
        world.deployment_log.iter().filter(|(id, ..)| *id == 2).map(|one| one.1).collect();
    assert_eq!(states, [DeploymentState::Rolling, DeploymentState::Verifying, DeploymentState::Succeeded]);
}

#[test]
fn a_release_that_does_not_start_is_rolled_back_and_no_old_instance_is_stopped() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = ids(&world, "web");
    world.broken.insert(2);
    world.deploy("web", 2, 256);
    world.until(60_000, "it is over", |world| world.database.apps[&app("web")].deployment.is_none());
    world.run(10_000);
    assert_eq!(ids(&world, "web"), before);
    assert_eq!(world.containers("web").len(), 2);
    assert_eq!(world.database.apps[&app("web")].release, Some(1));
    let (_, state, reason) = world.deployment_log.last().unwrap();
    assert_eq!(*state, DeploymentState::RolledBack);
    assert!(reason.contains("failed 3 times"), "{reason}");
}

#[test]
fn a_first_release_that_does_not_start_leaves_nothing() {
    let mut world = two_nodes();
    world.broken.insert(1);
    world.create_app("web", 3);
    world.deploy("web", 1, 256);
    world.until(60_000, "it is over", |world| world.database.apps[&app("web")].deployment.is_none());
    world.run(5_000);
    assert!(world.containers("web").is_empty());
    assert_eq!(world.deployment_log.last().unwrap().1, DeploymentState::RolledBack);
}

#[test]
fn a_deployment_without_room_for_one_more_fails_by_its_deadline_and_says_why() {
    let mut world = World::new(4, &[("node1", 512)], 1).with_app("web", 1, 512);
    let before = ids(&world, "web");
    world.deploy("web", 2, 512);
    world.until(330_000, "it is over", |world| world.database.apps[&app("web")].deployment.is_none());
    assert_eq!(ids(&world, "web"), before);
    let (_, state, reason) = world.deployment_log.last().unwrap();
    assert_eq!(*state, DeploymentState::RolledBack);
    assert!(reason.contains("no progress in 300 s") && reason.contains("short of memory"), "{reason}");
}

#[test]
fn a_person_cancels_and_a_newer_deployment_supersedes() {
    let mut world = two_nodes().with_app("web", 4, 256);
    world.deploy("web", 2, 256);
    world.until(30_000, "two new ones", |world| world.serving("web").iter().filter(|one| one.2 == 2).count() == 2);
    world.change("web", |app| app.deployment.as_mut().unwrap().cancel = true);
    world.until(60_000, "it is over", |world| world.database.apps[&app("web")].deployment.is_none());
    world.run(5_000);
    assert_eq!(world.deployment_log.last().unwrap().1, DeploymentState::Cancelled);
    assert!(world.serving("web").iter().all(|one| one.2 == 1) && world.serving("web").len() == 4);
    world.deploy("web", 3, 256);
    world.run(2_000);
    world.deploy("web", 4, 256);
    world.until(60_000, "it is over", |world| world.database.apps[&app("web")].deployment.is_none());
    world.run(5_000);
    assert!(world.deployment_log.iter().any(|one| one.0 == 3 && one.1 == DeploymentState::Superseded));
    assert!(world.serving("web").iter().all(|one| one.2 == 4) && world.serving("web").len() == 4);
}

#[test]
fn an_instance_is_stopped_only_when_every_live_router_has_let_go_of_it() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.routers.get_mut("router2").unwrap().stalled_until = world.now + 20_000;
    world.change("web", |app| app.instances = 1);
    world.run(15_000);
    assert_eq!(world.serving("web").len(), 2, "router2 still sends to both");
    assert!(world.reign().status().problems.iter().any(|text| text.contains("router router2 has not taken")));
    world.until(10_000, "one is stopped", |world| world.containers("web").len() == 1);
    // Requests in flight keep it, up to the drain timeout.
    world.change("web", |app| app.instances = 2);
    world.until(5_000, "two again", |world| world.routed("web").len() == 2);
    world.request_ms = 1_000_000;
    let begun = world.now;
    world.change("web", |app| app.instances = 1);
    world.until(40_000, "one is stopped", |world| world.containers("web").len() == 1);
    assert!(world.now - begun >= 30_000);
}

#[test]
fn a_router_that_is_silent_for_15_s_does_not_hold_up_and_its_ports_stay_held() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.routers.get_mut("router2").unwrap().kill();
    world.change("web", |app| app.instances = 1);
    world.run(12_000);
    assert_eq!(world.serving("web").len(), 2);
    world.until(10_000, "one is stopped", |world| world.containers("web").len() == 1);
    world.run(30_000);
    let held = |world: &World| world.agents.values().map(|agent| agent.held.len()).sum::<usize>();
    assert_eq!(held(&world), 1, "router2 may come back with its old table");
    world.reign().router_forget("router2");
    world.until(5_000, "the port is free", |world| held(world) == 0);
}

#[test]
fn stop_start_and_delete_are_kept_apart() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.change("web", |app| app.started = false);
    world.until(5_000, "nothing runs", |world| world.containers("web").is_empty());
    assert!(world.redis.as_ref().unwrap().1["web"].endpoints.is_empty(), "503, not 404");
    world.change("web", |app| app.started = true);
    world.until(5_000, "two serve", |world| world.routed("web").len() == 2);
    world.change("web", |app| app.deleted = true);
    world.until(5_000, "nothing runs", |world| world.containers("web").is_empty());
    assert!(!world.redis.as_ref().unwrap().1.contains_key("web"), "404");
}
