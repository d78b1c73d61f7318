//! What users and operators are promised, one example each, in a modelled cluster on an ideal network.

mod failures;
mod restore;
mod trust;
mod verdicts;
mod wishes;

use super::sim::world::{World, app, node};
use dinp_common::model::InstanceId;
use std::collections::BTreeSet;

fn two_nodes() -> World {
    World::new(1, &[("node1", 4096), ("node2", 4096)], 2)
}

fn ids(world: &World, name: &str) -> BTreeSet<InstanceId> {
    world.serving(name).into_iter().map(|(id, ..)| id).collect()
}

/// How many events of this kind people were told of.
fn told(world: &World, kind: &str) -> usize {
    world.told.iter().filter(|event| event.kind == kind).count()
}
