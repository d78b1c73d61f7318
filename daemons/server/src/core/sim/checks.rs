//! What must hold at every moment of every history, looked at from outside: on the nodes and in the routers.

use super::agent::Agent;
use super::history::LIES;
use super::world::{World, app};
use crate::core::Tick;
use dinp_common::model::{AppName, InstanceId};
use std::collections::{BTreeMap, BTreeSet};

/// Silence that the core may mistake for an end: a little less than `router_timeout_ms`.
const ROUTER_CUT_OFF_MS: u64 = 12_000;
/// Time for which a router that has just come up may not be known to have an old table.
const ROUTER_NEW_MS: u64 = 5_000;
/// Time for which what has failed by itself excuses that less than wanted serves.
const EXCUSE_MS: u64 = 30_000;
/// Time for which an app must be whole to be held to it.
const WHOLE_MS: u64 = 2_000;

#[derive(Debug, Default)]
pub struct Checks {
    /// What each app is held to at each router.
    held: BTreeMap<(AppName, String), Held>,
    /// When something of the app has failed by itself, last.
    excused: BTreeMap<AppName, Tick>,
}

/// What an app is held to at a router.
#[derive(Debug)]
struct Held {
    /// So many must serve, because so many have.
    floor: usize,
    /// So many are wanted,
    count: usize,
    /// and serve, since then.
    whole_since: Tick,
}

impl Checks {
    pub fn excuse(&mut self, name: &AppName, now: Tick) {
        self.excused.insert(name.clone(), now);
    }

    pub fn excuse_all(&mut self, world: &World) {
        for name in world.database.apps.keys() {
            self.excuse(name, world.now);
        }
    }

    pub fn check(&mut self, world: &mut World) -> Result<(), String> {
        let stopped: Vec<InstanceId> =
            world.agents.values_mut().flat_map(|agent| std::mem::take(&mut agent.stopped)).collect();
        for id in stopped {
            nobody_is_sent(world, &id)?;
        }
        for id in std::mem::take(&mut world.ordered_to_stop) {
            nobody_needs(world, &id)?;
        }
        // What lasts is seen by a look now and then.
        if world.now.is_multiple_of(200) {
            ports_are_not_mixed_up(world)?;
            nodes_are_not_overbooked(world)?;
            nobody_believes_lies(world)?;
        }
        self.enough_serve(world)
    }

    /// What serves from the routers' point of view never falls below what was wanted, unless something has died.
    fn enough_serve(&mut self, world: &World) -> Result<(), String> {
        for (name, wanted) in &world.database.apps {
            let count = if wanted.started && !wanted.deleted { wanted.instances as usize } else { 0 };
            // Before a release is in force nothing was promised.
            let count = if wanted.release.is_none() { 0 } else { count };
            let is_late = world.redis_troubled_at > 0 && world.now < world.redis_troubled_at + EXCUSE_MS;
            let excused = is_late || self.excused.get(name).is_some_and(|at| world.now < at + EXCUSE_MS);
            let serves = |id| world.agents.values().any(|agent| agent.is_serving(id));
            // What ends by itself, or is on a node that lies, is not counted on for later.
            let is_sound =
                |agent: &Agent, id| agent.lies.is_empty() && !world.flaky.contains(&agent.containers[id].release);
            let will_serve = |id| world.agents.values().any(|agent| agent.is_serving(id) && is_sound(agent, id));
            // What was wanted less for a moment is promised less, whatever routers were looked at then.
            for (_, held) in self.held.iter_mut().filter(|((app, _), _)| app == name) {
                held.floor = held.floor.min(count);
            }
            for router in world.routers.values().filter(|router| is_bound(world, &router.name) && router.was_current) {
                let endpoints = router.table.get(name).map_or(&[][..], |routes| &routes.endpoints);
                let serving = endpoints.iter().filter(|one| serves(&one.instance)).count();
                let sound = endpoints.iter().filter(|one| will_serve(&one.instance)).count();
                // One that is cut off shows what was, and promises nothing for later; nor does a release in force that
                // ends by itself.
                let is_flaky = wanted.release.is_some_and(|release| world.flaky.contains(&release));
                let excused = excused || is_flaky || router.cut_off_since.is_some();
                let key = (name.clone(), router.name.clone());
                let held = self.held.entry(key).or_insert(Held { floor: 0, count, whole_since: world.now });
                if excused {
                    held.floor = 0;
                }
                if serving < held.floor {
                    return Err(format!("{name}: {serving} serve at {}, {} did before", router.name, held.floor));
                }
                // One that lags shows what was wanted once.
                let lags = world.redis.as_ref().is_none_or(|(version, _)| *version != router.applied);
                if held.count != count || sound < count || excused || lags {
                    (held.count, held.whole_since) = (count, world.now);
                } else if world.now >= held.whole_since + WHOLE_MS {
                    held.floor = count;
                }
            }
        }
        Ok(())
    }
}

/// Whether the leader must wait for this router.
fn is_bound(world: &World, name: &str) -> bool {
    let router = &world.routers[name];
    let cut_off = router.cut_off_since.is_some_and(|since| world.now >= since + ROUTER_CUT_OFF_MS);
    router.up && !cut_off && world.known_routers.contains(name) && world.now >= router.up_since + ROUTER_NEW_MS
}

/// Law 4: when its stop is ordered, no live router has the instance in its table, and none has requests in flight to
/// it, or has had them for long.
fn nobody_needs(world: &World, id: &InstanceId) -> Result<(), String> {
    for router in world.routers.values().filter(|router| is_bound(world, &router.name)) {
        if router.endpoints().contains(id) {
            return Err(format!("the stop of {} is ordered, and {} sends to it", id.short(), router.name));
        }
        let in_flight = router.in_flight.get(id);
        if in_flight.is_some_and(|(since, until)| *until > world.now && world.now < since + 30_000) {
            return Err(format!("the stop of {} is ordered with requests in flight at {}", id.short(), router.name));
        }
    }
    Ok(())
}

/// However late the order arrives, and from whichever leader: the table in force is without it.
fn nobody_is_sent(world: &World, id: &InstanceId) -> Result<(), String> {
    let mut routes = world.redis.iter().flat_map(|(_, table)| table.values());
    match routes.any(|routes| routes.endpoints.iter().any(|one| one.instance == *id)) {
        true => Err(format!("{} is stopped, and is in the table in force", id.short())),
        false => Ok(()),
    }
}

/// No router, not even one that is down and will start from its disk, has an address that is another instance's now.
fn ports_are_not_mixed_up(world: &World) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    for (name, agent) in &world.agents {
        for (id, one) in &agent.containers {
            if let Some(wanted) = world.database.nodes.get(name) {
                owners.insert(format!("{}:{}", wanted.address, one.port), id);
            }
        }
    }
    for router in world.routers.values().filter(|router| world.known_routers.contains(&router.name)) {
        for endpoint in router.table.values().flat_map(|routes| &routes.endpoints) {
            if owners.get(&endpoint.addr).is_some_and(|owner| **owner != endpoint.instance) {
                return Err(format!(
                    "{} sends {}'s requests to another instance",
                    router.name,
                    endpoint.instance.short()
                ));
            }
        }
    }
    Ok(())
}

/// What a node made up is neither routed nor ordered: its environment goes nowhere.
fn nobody_believes_lies(world: &World) -> Result<(), String> {
    let is_lie = |id: &InstanceId| *id >= InstanceId::from_bits(LIES);
    let routed = world.redis.iter().flat_map(|(_, table)| table.values()).flat_map(|routes| &routes.endpoints);
    let ordered = world.leader.orders.values().flat_map(|orders| &orders.run);
    let believed = routed.map(|one| &one.instance).chain(ordered.map(|run| &run.instance)).find(|id| is_lie(id));
    believed.map_or(Ok(()), |id| Err(format!("{id} was made up, and is routed or ordered")))
}

fn nodes_are_not_overbooked(world: &World) -> Result<(), String> {
    for (name, agent) in &world.agents {
        if agent.booked() > agent.memory_mb {
            return Err(format!("{name} is overbooked: {} of {} MiB", agent.booked(), agent.memory_mb));
        }
    }
    Ok(())
}

/// Once all faults are over: exactly what is wanted runs, is routed, and nothing is left to do.
pub fn has_converged(world: &World) -> Result<(), String> {
    for (name, wanted) in &world.database.apps {
        if wanted.deployment.is_some() || !wanted.older_deployments.is_empty() {
            return Err(format!("{name}: a deployment is not final"));
        }
        let runs = wanted.started && !wanted.deleted;
        if runs && wanted.release.is_none() {
            // What a superseded deployment has brought runs on until somebody deploys.
            continue;
        }
        let count = if runs { wanted.instances as usize } else { 0 };
        let serving = world.serving(name.as_str());
        let all = world.containers(name.as_str());
        if serving.len() != count || all.len() != count {
            return Err(format!("{name}: {count} wanted, {} run, {} serve", all.len(), serving.len()));
        }
        if let Some((id, ..)) = serving.iter().find(|one| Some(one.2) != wanted.release) {
            return Err(format!("{name}: {} is not of the release in force", id.short()));
        }
        let ids: BTreeSet<InstanceId> = serving.into_iter().map(|(id, ..)| id).collect();
        for router in world.routers.values() {
            let routes = router.table.get(name);
            let routed = routes.into_iter().flat_map(|routes| &routes.endpoints).map(|one| one.instance.clone());
            if routed.collect::<BTreeSet<_>>() != ids || routes.is_none() != wanted.deleted {
                return Err(format!("{name}: {} does not send to what serves", router.name));
            }
        }
    }
    let held: usize = world.agents.values().map(|agent| agent.held.len()).sum();
    match held {
        0 => Ok(()),
        _ => Err(format!(
            "{held} ports are still held: {:?}",
            world.agents.values().map(|agent| &agent.held).collect::<Vec<_>>()
        )),
    }
}

/// Apps that a history begins with.
pub fn name_of(index: u64) -> AppName {
    app(&format!("app{index}"))
}
