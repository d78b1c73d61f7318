//! What fails.

use super::{World, app, ids, node, told, two_nodes};
use dinp_common::api::agent::{Goodbye, InstanceState};
use dinp_common::api::hm::{HmReport, Unfit};
use dinp_common::model::InstanceId;
use std::collections::BTreeSet;

#[test]
fn late_heartbeats_do_not_create_instances_twice() {
    let mut world = two_nodes();
    world.network.most_delay_ms = 3_000;
    let mut world = world.with_app("web", 3, 256);
    world.change("web", |app| app.instances = 6);
    world.run(60_000);
    assert_eq!(world.serving("web").len(), 6);
    let ever: BTreeSet<_> =
        world.agents.values().flat_map(|agent| agent.containers.keys().chain(agent.held.keys())).collect();
    assert_eq!(ever.len(), 6, "six were created, ever");
}

#[test]
fn a_lost_node_is_replaced_and_back_again_nothing_runs_twice() {
    let mut world = two_nodes().with_app("web", 4, 256);
    world.agents.get_mut(&node("node2")).unwrap().power_off();
    world.run(8_000);
    assert_eq!(world.routed("web").len(), 4, "silence removes no endpoint");
    world.until(12_000, "whole on node1", |world| {
        world.per_node("web") == [4, 0] && world.routed("web") == ids(world, "web")
    });
    let now = world.now;
    world.agents.get_mut(&node("node2")).unwrap().power_on(now);
    world.run(30_000);
    assert_eq!(world.containers("web").len(), 4);
    assert_eq!(world.routed("web"), ids(&world, "web"));
}

#[test]
fn an_agent_that_restarts_loses_nothing() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = ids(&world, "web");
    let now = world.now;
    world.reign().goodbye(&node("node2"), Goodbye::Restart, now);
    world.agents.get_mut(&node("node2")).unwrap().cut_off = true;
    world.run(40_000);
    let agent = world.agents.get_mut(&node("node2")).unwrap();
    agent.cut_off = false;
    agent.restart();
    world.run(20_000);
    assert_eq!(ids(&world, "web"), before);
}

#[test]
fn a_new_leader_stops_and_places_nothing_before_every_node_has_acknowledged_it() {
    let mut world = two_nodes().with_app("web", 4, 256);
    let before = ids(&world, "web");
    world.agents.get_mut(&node("node2")).unwrap().cut_off = true;
    world.change_leader(0, 0);
    world.change("web", |app| app.instances = 1);
    world.run(50_000);
    assert_eq!(ids(&world, "web"), before);
    assert_eq!(world.routed("web").len(), 4);
    assert!(world.reign().status().problems[0].contains("node2"));
    world.agents.get_mut(&node("node2")).unwrap().cut_off = false;
    world.until(20_000, "one is left", |world| world.containers("web").len() == 1);
}

#[test]
fn a_new_leader_replaces_a_node_that_it_never_hears_after_a_minute() {
    let mut world = two_nodes().with_app("web", 4, 256);
    world.agents.get_mut(&node("node2")).unwrap().power_off();
    world.change_leader(0, 0);
    world.run(55_000);
    assert_eq!(world.per_node("web"), [2, 0]);
    world.until(20_000, "whole on node1", |world| {
        world.per_node("web") == [4, 0] && world.routed("web") == ids(world, "web")
    });
}

#[test]
fn a_new_leader_goes_on_with_the_deployment_of_the_one_before() {
    let mut world = two_nodes().with_app("web", 4, 256);
    world.deploy("web", 2, 256);
    world.until(30_000, "two new ones", |world| world.serving("web").iter().filter(|one| one.2 == 2).count() == 2);
    world.change_leader(100, 200);
    world.until(60_000, "it is over", |world| world.database.apps[&app("web")].deployment.is_none());
    world.run(5_000);
    assert!(world.serving("web").iter().all(|one| one.2 == 2) && world.serving("web").len() == 4);
}

#[test]
fn an_app_whose_row_is_missing_has_orphans_and_nothing_is_stopped() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = ids(&world, "web");
    let row = world.database.apps.remove(&app("web")).unwrap();
    world.commit();
    world.run(60_000);
    assert_eq!(ids(&world, "web"), before);
    assert_eq!(world.routed("web"), before, "they are still reached");
    assert_eq!(world.reign().orphans().len(), 2);
    let one = before.first().unwrap();
    world.reign().remove_orphan(one).unwrap();
    world.until(5_000, "one is stopped", |world| world.containers("web").len() == 1);
    world.database.apps.insert(app("web"), row);
    world.commit();
    assert!(world.reign().remove_orphan(before.last().unwrap()).is_err());
    world.until(5_000, "two again", |world| world.routed("web").len() == 2);
    assert!(world.reign().orphans().is_empty());
}

#[test]
fn what_has_written_more_than_it_may_is_replaced_one_at_a_time() {
    let mut world = two_nodes().with_app("web", 4, 256);
    world.run(10_000);
    let writers = world.serving("web");
    let before = ids(&world, "web");
    for (id, at, _) in &writers {
        world.agents.get_mut(at).unwrap().names_writer(id);
    }
    world.until(400_000, "all are replaced", |world| {
        let left = ids(world, "web").intersection(&before).count();
        assert!(world.routed("web").len() >= 4 && ids(world, "web").len() <= 6, "{left} are left");
        left == 0
    });
    assert_eq!(told(&world, "condemned"), 4);
}

#[test]
fn no_release_in_force_is_no_order_to_stop() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = ids(&world, "web");
    world.change("web", |app| app.release = None);
    world.run(30_000);
    assert_eq!(ids(&world, "web"), before);
}

#[test]
fn when_all_nodes_are_silent_everything_is_frozen() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = ids(&world, "web");
    for agent in world.agents.values_mut() {
        agent.cut_off = true;
    }
    world.run(6_000);
    assert!(world.reign().status().frozen.unwrap().contains("no node is heard"));
    world.change("web", |app| app.instances = 1);
    world.run(60_000);
    assert_eq!(world.routed("web"), before);
    world.agents.get_mut(&node("node1")).unwrap().cut_off = false;
    world.run(1_000);
    world.agents.get_mut(&node("node2")).unwrap().cut_off = false;
    world.run(5_000);
    assert_eq!(ids(&world, "web"), before, "the first that is heard is not given the work of the others at once");
    world.until(20_000, "thawed", |world| world.containers("web").len() == 1);
}

#[test]
fn when_half_of_many_nodes_vanish_at_once_nothing_is_stopped() {
    let nodes: Vec<(String, u32)> = (1..=8).map(|n| (format!("node{n}"), 4096)).collect();
    let nodes: Vec<(&str, u32)> = nodes.iter().map(|(name, memory)| (name.as_str(), *memory)).collect();
    let mut world = World::new(5, &nodes, 1).with_app("web", 8, 256);
    let before = ids(&world, "web");
    for agent in world.agents.values_mut().take(4) {
        agent.cut_off = true;
    }
    world.run(120_000);
    assert!(world.reign().status().frozen.is_some());
    assert!(before.is_subset(&world.routed("web")), "silence withdraws nothing");
    for agent in world.agents.values_mut() {
        agent.cut_off = false;
    }
    world.until(60_000, "eight again", |world| world.containers("web").len() == 8);
    assert!(world.reign().status().frozen.is_none());
}

#[test]
fn a_leader_that_was_paused_does_not_take_its_own_silence_for_the_nodes() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = ids(&world, "web");
    world.now += 90_000;
    world.run(30_000);
    assert_eq!(ids(&world, "web"), before);
    assert_eq!(world.containers("web").len(), 2);
}

#[test]
fn in_holdover_nothing_is_stopped_or_deployed_and_what_died_is_replaced() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.holdover = true;
    world.change("web", |app| app.instances = 1);
    world.deploy("web", 2, 256);
    world.run(20_000);
    assert_eq!(world.serving("web").iter().map(|one| one.2).collect::<Vec<_>>(), [1, 1]);
    world.change("web", |app| app.instances = 2);
    world.agents.get_mut(&node("node2")).unwrap().power_off();
    world.until(20_000, "whole on node1", |world| world.per_node("web") == [2, 0]);
    world.holdover = false;
    world.until(60_000, "deployed", |world| world.database.apps[&app("web")].deployment.is_none());
    world.run(2_000);
    assert!(world.serving("web").iter().all(|one| one.2 == 2));
}

fn verdict(unfit: &[&InstanceId]) -> HmReport {
    let unfit = unfit.iter().map(|id| Unfit { instance: (*id).clone(), since: 0, detail: String::new() }).collect();
    HmReport { monitor: "hm1".to_owned(), targets: String::new(), unfit }
}

#[test]
fn the_monitor_alone_takes_out_of_the_table_and_with_the_agent_replaces() {
    let mut world = two_nodes().with_app("web", 3, 256);
    let victim = ids(&world, "web").first().unwrap().clone();
    for _ in 0..20 {
        let now = world.now;
        world.reign().hm_report(&verdict(&[&victim]), now);
        world.run(2_000);
    }
    assert!(!world.routed("web").contains(&victim));
    assert_eq!(world.serving("web").len(), 3, "one witness kills nobody");
    let all: Vec<InstanceId> = ids(&world, "web").into_iter().collect();
    let now = world.now;
    world.reign().hm_report(&verdict(&all.iter().collect::<Vec<_>>()), now);
    world.run(2_000);
    assert_eq!(world.routed("web").len(), 3, "a monitor that finds all unfit is the likelier fault");
    let now = world.now;
    for agent in world.agents.values_mut() {
        agent.hang(&victim, now, now + 1_000_000);
    }
    for _ in 0..10 {
        let now = world.now;
        world.reign().hm_report(&verdict(&[&victim]), now);
        world.run(2_000);
    }
    assert!(!world.agents.values().any(|agent| agent.containers.contains_key(&victim)), "two witnesses do");
    assert_eq!((world.serving("web").len(), world.routed("web").len()), (3, 3));
}

#[test]
fn an_instance_that_crashes_again_and_again_is_placed_elsewhere() {
    let mut world = two_nodes().with_app("web", 1, 256);
    let (victim, at, _) = world.serving("web")[0].clone();
    for _ in 0..7 {
        let now = world.now;
        world.agents.get_mut(&at).unwrap().crash(&victim, now);
        world.run(11_000);
    }
    world.until(60_000, "it runs elsewhere", |world| {
        world.containers("web").len() == 1 && world.serving("web").iter().all(|one| one.1 != at)
    });
}

#[test]
fn a_crash_is_left_to_the_agent() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = ids(&world, "web");
    let (victim, at, _) = world.serving("web")[0].clone();
    let now = world.now;
    world.agents.get_mut(&at).unwrap().crash(&victim, now);
    world.run(100);
    world.run(200);
    assert!(!world.routed("web").contains(&victim), "a crashed one is out of the table");
    world.until(5_000, "it is back", |world| world.routed("web").len() == 2);
    assert_eq!(ids(&world, "web"), before);
    assert_eq!(told(&world, "exit"), 1, "one end is one event: {:?}", world.told);
    assert!(world.containers("web").iter().all(|one| one.2 == InstanceState::Ready));
}

#[test]
fn what_ran_out_of_memory_is_told_as_such_by_its_agent_and_not_by_a_word_in_a_sentence() {
    let mut world = two_nodes().with_app("web", 1, 256);
    let (victim, at, _) = world.serving("web")[0].clone();
    let now = world.now;
    world.agents.get_mut(&at).unwrap().run_out_of_memory(&victim, now);
    world.until(5_000, "it is told", |world| told(world, "out_of_memory") > 0);
    assert!(told(&world, "exit") == 0, "one end is one event: {:?}", world.told);
    world.until(5_000, "it is back", |world| world.routed("web").len() == 1);
    let now = world.now;
    world.agents.get_mut(&at).unwrap().crash(&victim, now);
    world.until(5_000, "the next end is another", |world| told(world, "exit") > 0);
    assert_eq!(told(&world, "out_of_memory"), 1);
}

#[test]
fn a_leader_that_is_late_to_read_redis_drops_no_route() {
    let mut world = two_nodes().with_app("web", 4, 256);
    world.database.apps.remove(&app("web")).unwrap();
    world.commit();
    let before = world.routed("web");
    world.agents.get_mut(&node("node2")).unwrap().cut_off = true;
    world.change_leader(90_000, 0);
    world.run(100_000);
    assert!(world.reign().status().settled);
    assert_eq!(world.routed("web"), before, "neither for a missing row nor for a silent node");
}

/// The node stayed ready, and what was ordered there stayed accepted for ever.
#[test]
fn what_was_ordered_to_a_node_whose_disk_takes_nothing_is_placed_elsewhere() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let before = ids(&world, "web");
    world.agents.get_mut(&node("node2")).unwrap().deaf = true;
    // The leader does not know yet.
    world.change("web", |app| app.instances = 6);
    world.until(90_000, "six serve", |world| world.routed("web").len() == 6 && ids(world, "web").len() == 6);
    assert!(before.is_subset(&ids(&world, "web")), "what runs there serves on");
    assert_eq!(world.per_node("web"), [5, 1]);
    let problems = world.reign().status().problems;
    assert!(problems.contains(&"node node2: the disk is full (disk)".to_owned()), "{problems:?}");
    world.change("web", |app| app.instances = 1);
    world.until(10_000, "one is left", |world| world.containers("web").len() == 1);
    world.agents.get_mut(&node("node2")).unwrap().deaf = false;
    world.run(10_000);
    assert_eq!(world.containers("web").len(), 1, "nothing of what it refused is started afterwards");
}
