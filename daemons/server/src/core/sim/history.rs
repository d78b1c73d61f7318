//! One history: a cluster, what people do, what fails; then peace, in which everything must come to rest.

use super::agent::Agent;
use super::checks::{Checks, has_converged, name_of};
use super::mail::Network;
use super::router::Router;
use super::world::World;
use crate::core::{Desired, Tick};
use dinp_common::api::ProvedRevision;
use dinp_common::api::agent::{Goodbye, InstanceReport, InstanceState, Seen};
use dinp_common::api::hm::{HmReport, Unfit};
use dinp_common::model::{AppName, InstanceId, NodeName};
use dinp_common::testing::proved_report;
use std::collections::BTreeMap;

/// Longest time to come to rest: a progress deadline, a way back, drains, and crashed instances' longest waits.
const PEACE_MS: u64 = 900_000;
/// Time without any action that is rest.
const REST_MS: u64 = 8_000;
/// Memory of each node, in instances of the largest kind.
const NODE_MB: u32 = 6_144;
/// Ids of instances that nodes make up: above them none is drawn in so few draws.
pub const LIES: u64 = 0xffff_ffff_ffff_0000;

struct History {
    world: World,
    checks: Checks,
    /// What ends by itself, and when.
    endings: Vec<(Tick, Ending)>,
    next_release: u64,
    /// Rows that somebody has taken away for a while.
    missing: BTreeMap<AppName, crate::core::DesiredApp>,
    verdicts: Vec<InstanceId>,
    /// What the database was once.
    dump: Option<Desired>,
}

enum Ending {
    CutOff(NodeName),
    PowerOff(NodeName),
    Docker(NodeName),
    RouterCutOff(String),
    RouterDown(String),
    RedisDown,
    Holdover,
    RowMissing(AppName),
    Cordon(NodeName),
    Verdicts,
    Deaf(NodeName),
    Blind(NodeName),
    Liar(NodeName),
    NodeRowMissing(NodeName, crate::core::DesiredNode),
    Restored,
}

/// What is wrong with a release.
enum Fault {
    NeverReady,
    EndsAfterReady,
}

/// Plays the history of a seed.
pub fn play(seed: u64) -> Result<(), String> {
    let mut dice = super::world::Dice(seed);
    let nodes = 1 + dice.below(4);
    let names: Vec<String> = (1..=nodes).map(|n| format!("node{n}")).collect();
    let nodes: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), NODE_MB)).collect();
    let world = World::new(seed, &nodes, 1 + dice.below(2) as usize);
    let mut history = History {
        world,
        checks: Checks::default(),
        endings: Vec::new(),
        next_release: 1,
        missing: BTreeMap::new(),
        verdicts: Vec::new(),
        dump: None,
    };
    history.play().map_err(|error| format!("{error}\n{}", history.world.picture()))
}

impl History {
    fn play(&mut self) -> Result<(), String> {
        let world = &mut self.world;
        world.network = match world.dice.below(3) {
            0 => Network::default(),
            1 => Network { most_delay_ms: 200, reorder: true, ..Network::default() },
            _ => Network { loss_percent: 15, double_percent: 10, most_delay_ms: 900, reorder: true },
        };
        world.request_ms = [0, 500, 45_000][world.dice.below(3) as usize];
        for index in 0..1 + world.dice.below(3) {
            self.new_app(index);
        }
        let faulty = self.world.dice.percent(85);
        let length = 5_000 + self.world.dice.below(60_000);
        let mut next = 3_000;
        while self.world.now < length {
            self.step()?;
            if self.world.now >= next {
                next = self.world.now + 100 + self.world.dice.below(6_000);
                match faulty && self.world.dice.percent(60) {
                    true => self.fail(),
                    false => self.ask(),
                }
            }
        }
        self.make_peace();
        let end = self.world.now + PEACE_MS;
        loop {
            self.step()?;
            if self.world.now.is_multiple_of(20_000) {
                self.deploy_where_nothing_is_in_force();
                self.world.resume();
            }
            let rests = self.world.now >= self.world.last_put_out + REST_MS;
            if rests && has_converged(&self.world).is_ok() {
                return Ok(());
            }
            if self.world.now > end {
                has_converged(&self.world)?;
                return Err("it does not come to rest".to_owned());
            }
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.world.step();
        let now = self.world.now;
        if !self.verdicts.is_empty() && now.is_multiple_of(2_000) {
            let verdict = |id: &InstanceId| Unfit { instance: id.clone(), since: 0, detail: String::new() };
            let unfit = self.verdicts.iter().map(verdict).collect();
            let report = HmReport { monitor: "hm1".to_owned(), targets: String::new(), unfit };
            self.world.leader.reign.hm_report(&report, now);
            self.checks.excuse_all(&self.world);
        }
        let ended: Vec<usize> = (0..self.endings.len()).rev().filter(|index| self.endings[*index].0 <= now).collect();
        for index in ended {
            let (_, ending) = self.endings.swap_remove(index);
            self.end(ending);
        }
        self.checks.check(&mut self.world)
    }

    fn new_app(&mut self, index: u64) {
        let name = name_of(index);
        let count = 1 + self.world.dice.below(4) as u32;
        self.world.create_app(name.as_str(), count);
        self.deploy(&name, None);
    }

    fn deploy(&mut self, name: &AppName, fault: Option<Fault>) {
        let release = self.next_release;
        self.next_release += 1;
        match fault {
            Some(Fault::NeverReady) => self.world.broken.insert(release),
            Some(Fault::EndsAfterReady) => self.world.flaky.insert(release),
            None => false,
        };
        let memory_mb = [128, 256][self.world.dice.below(2) as usize];
        self.world.deploy(name.as_str(), release, memory_mb);
    }

    fn some_app(&mut self) -> AppName {
        let apps: Vec<AppName> = self.world.database.apps.keys().cloned().collect();
        match apps.is_empty() {
            true => name_of(0),
            false => apps[self.world.dice.below(apps.len() as u64) as usize].clone(),
        }
    }

    fn some_node(&mut self) -> NodeName {
        let names: Vec<NodeName> = self.world.agents.keys().cloned().collect();
        names[self.world.dice.below(names.len() as u64) as usize].clone()
    }

    fn some_router(&mut self) -> String {
        let names: Vec<String> = self.world.routers.keys().cloned().collect();
        names[self.world.dice.below(names.len() as u64) as usize].clone()
    }

    /// A person changes something.
    fn ask(&mut self) {
        let name = self.some_app();
        if !self.world.database.apps.contains_key(&name) {
            return;
        }
        let count = self.world.dice.below(6) as u32;
        match self.world.dice.below(20) {
            0..=6 => self.world.change(name.as_str(), |app| app.instances = count),
            7..=11 => self.deploy(&name, None),
            12 => self.deploy(&name, Some(Fault::NeverReady)),
            13 => self.deploy(&name, Some(Fault::EndsAfterReady)),
            14 => self.world.change(name.as_str(), |app| {
                if let Some(deployment) = &mut app.deployment {
                    deployment.cancel = true;
                }
            }),
            15 | 16 => self.world.change(name.as_str(), |app| app.started = !app.started),
            17 => self.world.change(name.as_str(), |app| app.deleted = true),
            18 if self.world.database.apps.len() < 4 => self.new_app(10 + self.next_release),
            _ => {
                let node = self.some_node();
                let until = self.world.now + 20_000;
                if let Some(wanted) = self.world.database.nodes.get_mut(&node) {
                    wanted.cordoned = true;
                }
                self.world.commit();
                self.endings.push((until, Ending::Cordon(node)));
            }
        }
    }

    /// Something fails.
    fn fail(&mut self) {
        let now = self.world.now;
        let until = now + 500 + self.world.dice.below(40_000);
        let node = self.some_node();
        let router = self.some_router();
        match self.world.dice.below(30) {
            0 | 1 => self.with_agent(&node, |agent| agent.cut_off = true, Some((until, Ending::CutOff(node.clone())))),
            2 | 3 => {
                self.world.note(|| format!("power off {node}"));
                self.checks.excuse_all(&self.world);
                self.with_agent(&node, Agent::power_off, Some((until, Ending::PowerOff(node.clone()))));
            }
            4 => self.with_agent(&node, Agent::restart, None),
            5 => {
                self.world.leader.reign.goodbye(&node, Goodbye::Restart, now);
                self.with_agent(&node, |agent| agent.cut_off = true, Some((now + 3_000, Ending::CutOff(node.clone()))));
            }
            6..=8 => self.crash_one(),
            9 => self.doubt(until),
            10 => {
                let broken = |agent: &mut Agent| agent.docker_error = Some("it does not answer".to_owned());
                self.with_agent(&node, broken, Some((until, Ending::Docker(node.clone()))));
            }
            11 => self.with_router(&router, |router| router.stalled_until = until, None),
            12 => {
                self.with_router(
                    &router,
                    |router| router.cut_off_since = Some(now),
                    Some((until, Ending::RouterCutOff(router.clone()))),
                );
            }
            13 => self.with_router(&router, Router::kill, Some((until, Ending::RouterDown(router.clone())))),
            14 => {
                self.world.redis_down = true;
                self.endings.push((until, Ending::RedisDown));
            }
            15..=17 => {
                let adopt_after = [0, 3_000, 20_000][self.world.dice.below(3) as usize];
                let desired_after = self.world.dice.below(4_000);
                self.world.change_leader(adopt_after, desired_after);
            }
            18 => {
                self.world.holdover = true;
                self.endings.push((until, Ending::Holdover));
            }
            19 => {
                self.world.note(|| "the leader pauses".to_owned());
                self.world.now += 1_000 + (until - now) / 50 * 50;
                // What was sent before arrives only now.
                self.checks.excuse_all(&self.world);
            }
            20 => {
                let name = self.some_app();
                if let Some(row) = self.world.database.apps.remove(&name) {
                    self.world.note(|| format!("the row of {name} is missing"));
                    self.missing.insert(name.clone(), row);
                    self.world.commit();
                    self.checks.excuse(&name, now);
                    self.endings.push((until, Ending::RowMissing(name)));
                }
            }
            21 => {
                let is_sly = self.world.dice.percent(50);
                let falls = |agent: &mut Agent| (agent.deaf, agent.is_sly) = (true, is_sly);
                self.with_agent(&node, falls, Some((until, Ending::Deaf(node.clone()))));
            }
            22 => {
                let blind = |agent: &mut Agent| {
                    agent.restart();
                    agent.blind = true;
                };
                self.with_agent(&node, blind, Some((until, Ending::Blind(node.clone()))));
            }
            23 => self.lie(&node, until),
            24 => self.world.redis_hangs_until = until,
            25 => {
                for name in self.world.routers.keys().cloned().collect::<Vec<_>>() {
                    let ending = (until, Ending::RouterCutOff(name.clone()));
                    self.with_router(&name, |router| router.cut_off_since = Some(now), Some(ending));
                }
            }
            26 => {
                if let Some(row) = self.world.database.nodes.remove(&node) {
                    self.world.note(|| format!("the row of {node} is missing"));
                    self.world.commit();
                    self.endings.push((until, Ending::NodeRowMissing(node, row)));
                }
            }
            27 | 28 => match self.dump.take() {
                // In a backup of a database that lacks rows they would be missing for ever.
                None if self.lacks_rows() => {}
                None => self.dump = Some(self.world.database.clone()),
                Some(dump) => self.restore(dump, until),
            },
            _ if self.world.routers.len() < 4 => {
                let name = format!("router{}", self.world.routers.len() + 1);
                self.world.note(|| format!("{name} joins"));
                self.world.routers.insert(name.clone(), Router::new(&name, now));
            }
            _ => {}
        }
    }

    /// A node claims what is not so: another app's instance, as many as it likes, and the highest epoch that there is.
    fn lie(&mut self, node: &NodeName, until: Tick) {
        let app = self.some_app();
        let release = 1 + self.world.dice.below(self.next_release + 1);
        let instance = InstanceId::from_bits(LIES | self.world.dice.below(1_000));
        let lie = InstanceReport {
            port: Some(1),
            memory_mb: 1,
            cpu_millis: 1,
            ticket: "k1.00".to_owned(),
            ..proved_report(instance, app, release)
        };
        let seen = Seen {
            epoch: u64::MAX - 1,
            holder: "nobody".to_owned(),
            generation: u64::MAX,
            proof: "k1.00".to_owned(),
            highest_revision: ProvedRevision { number: u64::MAX, proof: "k1.00".to_owned() },
        };
        let lying = |agent: &mut Agent| {
            agent.lies = vec![lie];
            agent.claimed_seen = Some(seen);
        };
        self.with_agent(node, lying, Some((until, Ending::Liar(node.clone()))));
    }

    fn lacks_rows(&self) -> bool {
        let is_missing = |ending: &Ending| matches!(ending, Ending::RowMissing(_) | Ending::NodeRowMissing(..));
        self.endings.iter().any(|(_, ending)| is_missing(ending))
    }

    /// The database is restored from a backup, half the time with a change of leader.
    fn restore(&mut self, dump: Desired, until: Tick) {
        self.checks.excuse_all(&self.world);
        self.world.restore(dump);
        if self.world.dice.percent(50) {
            self.world.change_leader(0, 0);
        }
        self.endings.push((until, Ending::Restored));
    }

    fn with_agent(&mut self, name: &NodeName, how: impl FnOnce(&mut Agent), ending: Option<(Tick, Ending)>) {
        if let Some(agent) = self.world.agents.get_mut(name).filter(|agent| agent.up && !agent.cut_off) {
            how(agent);
            self.endings.extend(ending);
            self.world.note(|| format!("fault at {name}"));
        }
    }

    fn with_router(&mut self, name: &str, how: impl FnOnce(&mut Router), ending: Option<(Tick, Ending)>) {
        if let Some(router) = self.world.routers.get_mut(name).filter(|one| one.up && one.cut_off_since.is_none()) {
            how(router);
            self.endings.extend(ending);
            self.world.note(|| format!("fault at {name}"));
        }
    }

    fn some_instance(&mut self) -> Option<(NodeName, InstanceId, AppName)> {
        let all: Vec<(NodeName, InstanceId, AppName)> = self
            .world
            .agents
            .iter()
            .filter(|(_, agent)| agent.up)
            .flat_map(|(node, agent)| agent.containers.iter().map(move |(id, one)| (node, id, one)))
            .filter(|(_, _, one)| one.state == InstanceState::Ready)
            .map(|(node, id, one)| (node.clone(), id.clone(), one.app.clone()))
            .collect();
        let index = self.world.dice.below(all.len() as u64) as usize;
        all.get(index).cloned()
    }

    fn crash_one(&mut self) {
        let Some((node, id, app)) = self.some_instance() else { return };
        let now = self.world.now;
        self.checks.excuse(&app, now);
        self.world.note(|| format!("{} crashes", id.short()));
        let removes = self.world.dice.percent(20);
        if let Some(agent) = self.world.agents.get_mut(&node) {
            match removes {
                true => agent.drop_container(&id),
                false => agent.crash(&id, now),
            }
        }
    }

    /// The monitor finds an instance unfit, and its agent may agree.
    fn doubt(&mut self, until: Tick) {
        let Some((node, id, app)) = self.some_instance() else { return };
        let now = self.world.now;
        self.checks.excuse(&app, now);
        self.world.note(|| format!("{} is doubted", id.short()));
        if self.world.dice.percent(50)
            && let Some(agent) = self.world.agents.get_mut(&node)
        {
            agent.hang(&id, now, until);
        }
        if self.world.dice.percent(70) {
            self.verdicts.push(id);
            self.endings.push((until, Ending::Verdicts));
        }
    }

    fn end(&mut self, ending: Ending) {
        let now = self.world.now;
        match ending {
            Ending::CutOff(name) => {
                if let Some(agent) = self.world.agents.get_mut(&name) {
                    agent.cut_off = false;
                    agent.needs_full = true;
                }
            }
            Ending::PowerOff(name) => {
                self.checks.excuse_all(&self.world);
                if let Some(agent) = self.world.agents.get_mut(&name).filter(|agent| !agent.up) {
                    agent.power_on(now);
                }
            }
            Ending::Docker(name) => {
                if let Some(agent) = self.world.agents.get_mut(&name) {
                    agent.docker_error = None;
                }
            }
            Ending::RouterCutOff(name) => {
                if let Some(router) = self.world.routers.get_mut(&name) {
                    router.cut_off_since = None;
                    router.up_since = now;
                }
            }
            Ending::RouterDown(name) => {
                if let Some(router) = self.world.routers.get_mut(&name) {
                    router.start(now);
                }
            }
            Ending::RedisDown => self.world.redis_down = false,
            Ending::Holdover => self.world.holdover = false,
            Ending::RowMissing(name) => {
                self.checks.excuse(&name, now);
                if let Some(row) = self.missing.remove(&name) {
                    self.world.database.apps.insert(name, row);
                    self.world.commit();
                }
            }
            Ending::Cordon(name) => {
                if let Some(wanted) = self.world.database.nodes.get_mut(&name) {
                    wanted.cordoned = false;
                }
                self.world.commit();
            }
            Ending::Restored => {
                // Who looks before that also sees the cordons that came back with the backup.
                self.world.database.nodes.values_mut().for_each(|node| node.cordoned = false);
                self.world.commit();
                self.world.resume();
            }
            Ending::Verdicts => self.verdicts.clear(),
            Ending::Deaf(name) => self.mend(&name, |agent| (agent.deaf, agent.is_sly) = (false, false)),
            Ending::Blind(name) => self.mend(&name, |agent| agent.blind = false),
            Ending::Liar(name) => self.mend(&name, |agent| {
                agent.lies.clear();
                agent.claimed_seen = None;
                agent.needs_full = true;
            }),
            Ending::NodeRowMissing(name, row) => {
                // Whoever cordoned it has had no row to take that back from.
                let row = crate::core::DesiredNode { cordoned: false, ..row };
                self.world.database.nodes.insert(name, row);
                self.world.commit();
            }
        }
    }

    fn mend(&mut self, name: &NodeName, how: impl FnOnce(&mut Agent)) {
        if let Some(agent) = self.world.agents.get_mut(name) {
            how(agent);
        }
    }

    /// All faults are over.
    fn make_peace(&mut self) {
        self.world.note(|| "peace".to_owned());
        for (_, ending) in std::mem::take(&mut self.endings) {
            self.end(ending);
        }
        self.verdicts.clear();
        self.world.network = Network { most_delay_ms: 50, ..Network::default() };
        self.world.request_ms = self.world.request_ms.min(5_000);
        for router in self.world.routers.values_mut() {
            router.stalled_until = 0;
        }
        // A release that was deployed while nothing ran of the app may be a broken one: somebody mends it.
        let apps = self.world.database.apps.values();
        let is_broken = |release: Option<u64>| release.is_some_and(|release| self.is_bad(release));
        let to_mend: Vec<AppName> = apps.filter(|app| is_broken(app.release)).map(|app| app.name.clone()).collect();
        for name in to_mend {
            self.deploy(&name, None);
        }
    }

    fn is_bad(&self, release: u64) -> bool {
        self.world.broken.contains(&release) || self.world.flaky.contains(&release)
    }

    /// What superseded deployments have left where no release is in force runs on, and may end for ever: somebody deploys.
    fn deploy_where_nothing_is_in_force(&mut self) {
        let apps = self.world.database.apps.values();
        let is_left = |app: &&crate::core::DesiredApp| {
            app.release.is_none() && app.deployment.is_none() && !app.deleted && app.started && app.instances > 0
        };
        let left: Vec<AppName> = apps.filter(is_left).map(|app| app.name.clone()).collect();
        for name in left.into_iter().filter(|name| !self.world.containers(name.as_str()).is_empty()).collect::<Vec<_>>()
        {
            self.deploy(&name, None);
        }
    }
}
