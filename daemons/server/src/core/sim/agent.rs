//! A modelled agent: what the real one promises, with time in milliseconds and failures at will.

use super::super::{NodeOrders, RunOrder, Tick};
use dinp_common::api::ProvedRevision;
use dinp_common::api::agent::{
    Capacity, HeldPort, InstanceReport, InstanceState, NodeFault, NodeFaultKind, Report, Seen,
};
use dinp_common::model::{AppName, InstanceId};
use dinp_common::testing::proved_report;
use std::collections::{BTreeMap, BTreeSet};

/// First port of an agent's range. Few of them, and the lowest first, so that ports come around at once.
const FIRST_PORT: u16 = 20_000;

/// Time of being ready after which an instance is proved.
const MIN_HEALTHY_MS: u64 = 5_000;
/// Time of being ready after which an instance of a flaky release ends.
const FLAKY_MS: u64 = 3_000;

#[derive(Debug, Clone)]
pub struct Container {
    pub app: AppName,
    pub release: u64,
    pub epoch: u64,
    pub state: InstanceState,
    pub port: u16,
    pub memory_mb: u32,
    pub since: Tick,
    /// When its state moves on by itself.
    pub due: Option<Tick>,
    pub restarts: u32,
    pub failures: u32,
    /// Whether the last failure was for memory.
    pub out_of_memory: bool,
    pub ticket: String,
    /// It never becomes ready.
    pub broken: bool,
    /// It ends a moment after it has become ready, each time.
    pub flaky: bool,
    changed: bool,
    is_proved: bool,
}

/// What a release is like.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub memory_mb: u32,
    pub broken: bool,
    pub flaky: bool,
}

/// Orders as they travel.
#[derive(Debug, Clone)]
pub struct SentOrders {
    pub epoch: u64,
    pub holder: String,
    pub proof: String,
    pub highest_revision: ProvedRevision,
    pub orders: NodeOrders,
}

#[derive(Debug)]
pub struct Agent {
    pub name: String,
    pub up: bool,
    pub cut_off: bool,
    pub memory_mb: u32,
    pub docker_error: Option<String>,
    pub containers: BTreeMap<InstanceId, Container>,
    pub held: BTreeMap<InstanceId, u16>,
    pub seen: Seen,
    pub orders: NodeOrders,
    pub run: u64,
    pub seq: u64,
    pub needs_full: bool,
    pub last_sent: Tick,
    removed: Vec<InstanceId>,
    dirty: bool,
    /// It reports, and accepts nothing but stops: its disk is full.
    pub deaf: bool,
    /// Deaf, it does not obey stops either, and says nothing of a fault.
    pub is_sly: bool,
    /// Its engine has not answered since it started: it knows nothing of its instances.
    pub blind: bool,
    /// What it claims besides the truth.
    pub lies: Vec<InstanceReport>,
    /// The leadership that it claims to have seen.
    pub claimed_seen: Option<Seen>,
    /// Instances that have written more than they may.
    pub over_disk: BTreeSet<InstanceId>,
    /// Instances that it was told to stop since the last look.
    pub stopped: Vec<InstanceId>,
    pub start_ms: u64,
}

impl Agent {
    pub fn new(name: &str, memory_mb: u32) -> Self {
        Self {
            name: name.to_owned(),
            up: true,
            cut_off: false,
            memory_mb,
            docker_error: None,
            containers: BTreeMap::new(),
            held: BTreeMap::new(),
            seen: Seen::default(),
            orders: NodeOrders::default(),
            run: 1,
            seq: 0,
            needs_full: true,
            last_sent: 0,
            removed: Vec::new(),
            dirty: true,
            deaf: false,
            is_sly: false,
            blind: false,
            lies: Vec::new(),
            claimed_seen: None,
            over_disk: BTreeSet::new(),
            stopped: Vec::new(),
            start_ms: 300,
        }
    }

    /// Takes orders, unless they are of a leader of the past.
    pub fn take(&mut self, sent: &SentOrders, kind_of: impl Fn(&RunOrder) -> Kind, now: Tick) {
        let newer = (sent.epoch, sent.orders.generation) > (self.seen.epoch, self.seen.generation);
        let same_holder = sent.epoch > self.seen.epoch || sent.holder == self.seen.holder;
        if !newer || !same_holder {
            return;
        }
        if self.deaf {
            if !self.is_sly {
                self.stop(&sent.orders, now);
            }
            return;
        }
        self.seen = Seen {
            epoch: sent.epoch,
            holder: sent.holder.clone(),
            generation: sent.orders.generation,
            proof: sent.proof.clone(),
            highest_revision: std::mem::take(&mut self.seen.highest_revision).or_newer(sent.highest_revision.clone()),
        };
        self.orders = sent.orders.clone();
        self.dirty = true;
        for id in &sent.orders.release_ports {
            if !self.containers.contains_key(id) {
                self.held.remove(id);
            }
        }
        for order in &sent.orders.run {
            if !self.containers.contains_key(&order.instance) {
                self.create(order, sent.epoch, kind_of(order), now);
            }
        }
        self.stop(&sent.orders, now);
    }

    /// The disk is short, and this one has written more than it may.
    pub fn names_writer(&mut self, id: &InstanceId) {
        self.over_disk.insert(id.clone());
        self.needs_full = true;
    }

    fn stop(&mut self, orders: &NodeOrders, now: Tick) {
        for stop in &orders.stop {
            if let Some(container) = self.containers.get_mut(&stop.instance)
                && container.state != InstanceState::Stopping
            {
                self.stopped.push(stop.instance.clone());
                container.turn(InstanceState::Stopping, now, Some(now + 400));
            }
        }
    }

    fn create(&mut self, order: &RunOrder, epoch: u64, kind: Kind, now: Tick) {
        let taken: BTreeSet<u16> =
            self.containers.values().map(|one| one.port).chain(self.held.values().copied()).collect();
        let own = self.held.remove(&order.instance);
        let port = own.or((FIRST_PORT..).find(|port| !taken.contains(port))).unwrap_or(FIRST_PORT);
        let container = Container {
            app: order.app.clone(),
            release: order.release,
            epoch,
            state: InstanceState::Accepted,
            port,
            memory_mb: kind.memory_mb,
            since: now,
            due: Some(now + 100),
            restarts: 0,
            failures: 0,
            out_of_memory: false,
            ticket: order.ticket.clone(),
            broken: kind.broken,
            flaky: kind.flaky,
            changed: true,
            is_proved: false,
        };
        self.containers.insert(order.instance.clone(), container);
        self.dirty = true;
    }

    /// Lets time pass.
    pub fn step(&mut self, now: Tick) {
        if !self.up {
            return;
        }
        let mut gone = Vec::new();
        for (id, one) in &mut self.containers {
            if one.due.is_none_or(|due| due > now) {
                continue;
            }
            self.dirty = true;
            match one.state {
                InstanceState::Accepted => one.turn(InstanceState::Pulling, now, Some(now + 200)),
                InstanceState::Pulling => one.turn(InstanceState::Starting, now, Some(now + self.start_ms)),
                InstanceState::Starting if one.broken => one.end(now),
                InstanceState::Starting => one.become_ready(now),
                InstanceState::BackOff => {
                    one.restarts += 1;
                    one.turn(InstanceState::Starting, now, Some(now + self.start_ms));
                }
                InstanceState::Unfit => one.turn(InstanceState::Ready, now, None),
                InstanceState::Stopping => gone.push(id.clone()),
                InstanceState::Ready if one.flaky => one.end(now),
                InstanceState::Ready => one.prove(),
            }
        }
        for id in gone {
            self.drop_container(&id);
        }
    }

    /// The container goes; its port stays held.
    pub fn drop_container(&mut self, id: &InstanceId) {
        if let Some(one) = self.containers.remove(id) {
            self.held.insert(id.clone(), one.port);
            self.removed.push(id.clone());
            self.dirty = true;
        }
    }

    /// The instance's process ends by itself.
    pub fn crash(&mut self, id: &InstanceId, now: Tick) {
        if let Some(one) = self.containers.get_mut(id).filter(|one| one.state != InstanceState::Stopping) {
            one.end(now);
            self.dirty = true;
        }
    }

    /// The instance is killed for memory.
    pub fn run_out_of_memory(&mut self, id: &InstanceId, now: Tick) {
        self.crash(id, now);
        if let Some(one) = self.containers.get_mut(id) {
            one.out_of_memory = true;
        }
    }

    /// The instance hangs for a while.
    pub fn hang(&mut self, id: &InstanceId, now: Tick, until: Tick) {
        if let Some(one) = self.containers.get_mut(id).filter(|one| one.state == InstanceState::Ready) {
            one.turn(InstanceState::Unfit, now, Some(until));
            self.dirty = true;
        }
    }

    /// The agent's process starts again: what runs runs on.
    pub fn restart(&mut self) {
        self.run += 1;
        self.seq = 0;
        self.needs_full = true;
        self.removed.clear();
        self.dirty = true;
    }

    /// The machine goes down, and everything on it.
    pub fn power_off(&mut self) {
        self.up = false;
    }

    /// The machine is back: what was not told to stop starts again from what is on disk.
    pub fn power_on(&mut self, now: Tick) {
        self.up = true;
        self.restart();
        let mut gone = Vec::new();
        for (id, one) in &mut self.containers {
            match one.state {
                InstanceState::Stopping => gone.push(id.clone()),
                _ => one.turn(InstanceState::Starting, now, Some(now + self.start_ms)),
            }
        }
        for id in gone {
            self.drop_container(&id);
        }
    }

    /// The next report, when one is due.
    pub fn report(&mut self, cluster: &str, now: Tick) -> Option<Report> {
        if !self.up || (!self.dirty && now < self.last_sent + 2_000) {
            return None;
        }
        self.last_sent = now;
        self.seq += 1;
        self.dirty = false;
        // Before the engine has answered nothing is known of instances, and no report is full.
        let full = !self.blind && std::mem::take(&mut self.needs_full);
        let named = self.containers.iter().filter(|(_, one)| !self.blind && (full || one.changed));
        let is_claimed = |id: &InstanceId| self.orders.run.iter().any(|run| run.instance == *id);
        let mut instances: Vec<InstanceReport> = named.map(|(id, one)| one.report(id, is_claimed(id))).collect();
        for one in &mut instances {
            one.over_disk_mb = self.over_disk.contains(&one.instance).then_some(9_000);
        }
        instances.extend(self.lies.iter().cloned());
        for one in self.containers.values_mut().filter(|_| !self.blind) {
            one.changed = false;
        }
        let disk = (self.deaf && !self.is_sly)
            .then(|| NodeFault { kind: NodeFaultKind::Disk, detail: "the disk is full".to_owned() });
        Some(Report {
            cluster: cluster.to_owned(),
            agent_version: "1".to_owned(),
            run_id: format!("{}-{}", self.name, self.run),
            seq: self.seq,
            full,
            seen: self.claimed_seen.clone().unwrap_or_else(|| self.seen.clone()),
            capacity: Capacity { memory_mb: self.memory_mb, cpu_millis: 64_000 },
            docker_error: self.docker_error.clone(),
            faults: disk.into_iter().collect(),
            instances,
            removed: if self.blind { Vec::new() } else { std::mem::take(&mut self.removed) },
            ended: None,
            held_ports: self.held.iter().map(|(id, port)| HeldPort { instance: id.clone(), port: *port }).collect(),
        })
    }

    pub fn is_serving(&self, id: &InstanceId) -> bool {
        self.up && self.containers.get(id).is_some_and(|one| one.state == InstanceState::Ready)
    }

    pub fn booked(&self) -> u32 {
        self.containers.values().map(|one| one.memory_mb).sum()
    }
}

impl Container {
    fn turn(&mut self, state: InstanceState, now: Tick, due: Option<Tick>) {
        self.state = state;
        self.since = now;
        self.due = due;
        self.changed = true;
    }

    fn become_ready(&mut self, now: Tick) {
        let due = if self.flaky { now + FLAKY_MS } else { now + MIN_HEALTHY_MS };
        self.turn(InstanceState::Ready, now, Some(due));
    }

    fn prove(&mut self) {
        self.due = None;
        self.is_proved = true;
        self.changed = true;
    }

    fn end(&mut self, now: Tick) {
        self.is_proved = false;
        self.failures += 1;
        self.out_of_memory = false;
        let wait = if self.restarts < 3 { 100 } else { 10_000 };
        self.turn(InstanceState::BackOff, now, Some(now + wait));
    }

    fn report(&self, id: &InstanceId, claimed: bool) -> InstanceReport {
        InstanceReport {
            epoch: self.epoch,
            state: self.state,
            port: (self.state != InstanceState::Accepted).then_some(self.port),
            memory_mb: self.memory_mb,
            since: i64::try_from(self.since).unwrap(),
            restarts: self.restarts,
            claimed,
            ticket: self.ticket.clone(),
            proved: self.is_proved,
            failures: self.failures,
            out_of_memory: self.out_of_memory,
            ..proved_report(id.clone(), self.app.clone(), self.release)
        }
    }
}
