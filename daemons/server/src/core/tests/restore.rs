//! A database that is older than what runs: restored from a backup, or failed over to a replica that lagged.

use super::{World, app, ids, node, told, two_nodes};
use dinp_common::api::ProvedRevision;
use dinp_common::api::agent::Seen;
use dinp_common::api::people::DeploymentState;

fn frozen(world: &mut World) -> Option<String> {
    world.reign().status().frozen
}

fn is_held(world: &mut World) -> bool {
    frozen(world).is_some_and(|reason| reason.contains("dinp resume"))
}

/// A cluster whose database was dumped, and then changed a lot: another release, another count, a second app, one stopped.
fn changed_since(world: &mut World) -> crate::core::Desired {
    world.create_app("old", 1);
    world.deploy("old", 10, 128);
    world.run(30_000);
    world.change("old", |app| app.started = false);
    world.run(30_000);
    let dump = world.database.clone();
    world.change("old", |app| app.started = true);
    world.deploy("web", 2, 256);
    world.change("web", |app| app.instances = 3);
    world.create_app("new", 1);
    world.deploy("new", 20, 128);
    world.run(60_000);
    assert!(world.database.apps.values().all(|app| app.deployment.is_none()));
    dump
}

/// A cluster that runs what was deployed since the dump that its database was restored from.
fn restored() -> World {
    let mut world = two_nodes().with_app("web", 2, 256);
    let dump = changed_since(&mut world);
    world.restore(dump);
    world.run(5_000);
    world
}

fn all_ids(world: &World) -> Vec<std::collections::BTreeSet<dinp_common::model::InstanceId>> {
    ["web", "old", "new"].map(|name| ids(world, name)).into()
}

#[test]
fn after_a_restore_what_runs_runs_on_and_is_routed_until_a_person_resumes() {
    for leader_changes in [false, true] {
        let mut world = two_nodes().with_app("web", 2, 256);
        let dump = changed_since(&mut world);
        let before = all_ids(&world);
        world.restore(dump);
        if leader_changes {
            world.change_leader(0, 0);
        }
        for _ in 0..120 {
            world.run(1_000);
            assert_eq!(all_ids(&world), before, "nothing is stopped, nothing is deployed");
            let routed = ["web", "old", "new"].map(|name| world.routed(name));
            assert_eq!(routed.as_slice(), before, "and all of it stays in the table");
        }
        assert!(is_held(&mut world));
        assert_eq!(told(&world, "freeze"), 1);

        assert!(world.resume());
        world.until(60_000, "the database is carried out", |world| {
            let serving = world.serving("web");
            serving.len() == 2 && serving.iter().all(|(_, _, release)| *release == 1) && ids(world, "old").is_empty()
        });
        assert_eq!(frozen(&mut world), None);
        assert_eq!(ids(&world, "new"), before[2], "what has no row is an orphan");
    }
}

#[test]
fn what_is_lost_meanwhile_is_replaced() {
    let mut world = restored();
    let (lost, at, _) = world.serving("web")[0].clone();
    world.agents.get_mut(&at).unwrap().drop_container(&lost);
    let (other, at, _) = world.serving("web")[0].clone();
    world.agents.get_mut(&at).unwrap().drop_container(&other);
    world.until(30_000, "as many as the database wants serve", |world| world.serving("web").len() == 2);
    world.until(10_000, "and are routed", |world| world.routed("web") == ids(world, "web"));
}

#[test]
fn a_deployment_waits_and_says_for_what() {
    let mut world = restored();
    let before = all_ids(&world);
    world.deploy("web", 30, 256);
    world.run(400_000);
    assert_eq!(all_ids(&world), before);
    let (id, state, reason) = world.deployment_log.last().unwrap();
    assert_eq!((*id, *state), (30, DeploymentState::Pending));
    assert!(reason.contains("dinp resume"), "{reason}");
    assert!(world.deployment_log.iter().filter(|(id, ..)| *id == 30).count() < 3, "it is said once");
    world.resume();
    world.until(60_000, "it is deployed", |world| world.database.apps[&app("web")].release == Some(30));
}

#[test]
fn changes_do_not_count_past_what_was_carried_out() {
    let mut world = restored();
    let before = all_ids(&world);
    for instances in 1..60 {
        world.change("web", |app| app.instances = 1 + instances % 2);
        world.run(500);
    }
    assert!(is_held(&mut world));
    // Another server has only the numbers to go by.
    world.run(10_000);
    world.change_leader(0, 0);
    world.run(20_000);
    assert!(is_held(&mut world));
    assert_eq!(all_ids(&world), before);
}

#[test]
fn a_new_leader_that_read_just_before_the_last_change_is_not_mistaken_for_a_restore() {
    let mut world = two_nodes().with_app("web", 2, 256);
    world.run(10_000);
    let stale = world.database.clone();
    world.change("web", |app| app.instances = 3);
    world.run(30_000);
    let newest = world.database.clone();
    let highest = world.reign().highest_revision().clone();
    world.until(200, "the database was just looked at", |world| world.now.is_multiple_of(200));
    world.change_leader(0, 0);
    world.restore(stale);
    world.step();
    world.reign().heed_revision(&highest);
    world.step();
    assert!(is_held(&mut world), "meanwhile nothing is stopped");
    world.restore(newest);
    world.run(60_000);
    assert_eq!(frozen(&mut world), None);
    assert!(told(&world, "freeze") == 0);
    assert_eq!(world.serving("web").len(), 3);
}

#[test]
fn a_revision_that_no_server_has_proved_holds_nobody_up() {
    let mut world = two_nodes().with_app("web", 2, 256);
    let claimed = ProvedRevision { number: u64::MAX, proof: "k1.00".to_owned() };
    world.agents.get_mut(&node("node2")).unwrap().claimed_seen =
        Some(Seen { highest_revision: claimed, ..Seen::default() });
    world.deploy("web", 2, 256);
    world.until(60_000, "it is deployed", |world| world.database.apps[&app("web")].release == Some(2));
    assert_eq!(frozen(&mut world), None);
}
