//! Taking in what agents say.
//!
//! A report counts in the order of its number within the agent's run; what is late or doubled changes nothing, and a
//! gap asks for a full report. A report can name only what may be on that node: an instance that is known on another
//! node is refused.

use super::fleet::{Instance, Node};
use super::{Reign, Tick};
use dinp_common::api::UnixMillis;
use dinp_common::api::agent::{
    Goodbye, InstanceReport, InstanceState, Limit, LimitReached, NodeFault, Report, ReportReply, Seen,
};
use dinp_common::model::{InstanceId, NodeName, Resources};
use std::collections::{BTreeMap, BTreeSet};

/// Runs of an agent that are remembered to tell what is late.
const OLD_RUNS: usize = 8;

/// What a report is good for.
enum Worth {
    /// Its content is the newest.
    Take,
    /// The agent lives, but something before this one is missing.
    Resync,
    /// It is late or doubled.
    Nothing,
}

fn weigh(node: &Node, report: &Report) -> Worth {
    if node.run_id == report.run_id {
        return match report.seq {
            seq if seq <= node.seq => Worth::Nothing,
            _ if report.full => Worth::Take,
            seq if node.synced && seq == node.seq.saturating_add(1) => Worth::Take,
            _ => Worth::Resync,
        };
    }
    let late = node.old_runs.iter().any(|(run, seq)| *run == report.run_id && report.seq <= *seq);
    match report.full {
        _ if late => Worth::Nothing,
        true => Worth::Take,
        false => Worth::Resync,
    }
}

/// What a report is compared with, to see what has happened since.
#[derive(Debug, Clone, Default)]
struct Past {
    state: Option<InstanceState>,
    restarts: u32,
    failures: u32,
    oom_kills: u32,
    limits: BTreeMap<Limit, LimitReached>,
}

impl Past {
    fn of(report: &InstanceReport) -> Self {
        let InstanceReport { state, restarts, failures, oom_kills, limits, .. } = report;
        let limits = limits.clone();
        Self { state: Some(*state), restarts: *restarts, failures: *failures, oom_kills: *oom_kills, limits }
    }
}

fn why_it_failed(report: &InstanceReport) -> String {
    match (report.last_failure.as_str(), report.reason.as_str(), report.exit_code) {
        ("", "", Some(code)) => format!("exit code {code}"),
        ("", reason, _) => reason.to_owned(),
        (why, ..) => why.to_owned(),
    }
}

impl Reign {
    /// Takes in what an agent reports.
    pub fn report(&mut self, name: &NodeName, report: &Report, now: Tick, wall: UnixMillis) -> ReportReply {
        self.wall_offset = wall - UnixMillis::try_from(now).unwrap_or(UnixMillis::MAX);
        let mut reply = ReportReply { resync: false, epoch: self.leader.epoch };
        if report.cluster != self.leader.cluster {
            return reply;
        }
        let node = self.fleet.know_node(name, now);
        match weigh(node, report) {
            Worth::Nothing => return reply,
            Worth::Resync => {
                take_facts(node, report, now, wall);
                self.update_behind(name, now);
                reply.resync = true;
                return reply;
            }
            Worth::Take => {}
        }
        take_order(node, report);
        take_facts(node, report, now, wall);
        self.update_behind(name, now);
        self.heed_refusal(&report.seen);
        self.heed_revision(&report.seen.highest_revision);
        let named: BTreeSet<&InstanceId> = report.instances.iter().map(|instance| &instance.instance).collect();
        for instance in &report.instances {
            if self.believes(name, instance) {
                self.meet(name, instance, now);
                self.take_instance(name, instance, now);
            }
        }
        self.forget_strangers(name, report.full, &named, &report.removed);
        for id in report.removed.iter().filter(|id| !named.contains(id)) {
            if self.fleet.get(id).is_some_and(|instance| instance.node == *name) {
                self.take_gone(id);
            }
        }
        self.take_missing(name, report, &named, now);
        self.note_held_ports(name);
        reply
    }

    /// Takes in that an agent stops.
    pub fn goodbye(&mut self, name: &NodeName, goodbye: Goodbye, now: Tick) {
        let node = self.fleet.know_node(name, now);
        match goodbye {
            Goodbye::Restart => node.patience_until = Some(now + self.settings.restart_patience_ms),
            Goodbye::Shutdown => node.shutdown = true,
        }
    }

    /// Somebody refuses this leader for a higher epoch, or for another holder of this one. A number alone is a mere
    /// claim: it counts with the proof that the servers once gave out with it.
    fn heed_refusal(&mut self, seen: &Seen) {
        let (epoch, holder) = (self.leader.epoch, self.leader.holder.as_str());
        let refuses = seen.epoch > epoch || (seen.epoch == epoch && !seen.holder.is_empty() && seen.holder != holder);
        if refuses && self.tickets.proves(&seen.proof, &self.leader.cluster, seen.epoch, &seen.holder) {
            self.refused_by = self.refused_by.max(Some(seen.epoch));
        }
    }

    /// Makes an instance known that is believed to be on the node.
    pub(super) fn meet(&mut self, name: &NodeName, report: &InstanceReport, now: Tick) {
        let id = &report.instance;
        if self.fleet.get(id).is_some_and(|known| known.node != *name && known.inherited.is_some()) {
            self.fleet.remove(id);
        }
        match self.fleet.get(id) {
            Some(known) if known.node != *name => {
                let detail = format!("it is known on node {}", known.node);
                self.event(Some(&report.app), Some(id), Some(name), "report_refused", detail);
            }
            Some(_) => {}
            None => {
                let mut instance = Instance::new(id.clone(), report.app.clone(), report.release, name.clone(), now);
                instance.maybe_routed = true;
                instance.left = self.table.version_without(id);
                instance.ticket.clone_from(&report.ticket);
                self.fleet.insert(instance);
            }
        }
    }

    pub(super) fn take_instance(&mut self, name: &NodeName, report: &InstanceReport, now: Tick) {
        let id = &report.instance;
        let window = self.settings.crash_window_ms;
        let Some(instance) = self.fleet.get_mut(id).filter(|one| one.node == *name) else { return };
        let before = instance.report.as_ref().map(Past::of);
        if instance.inherited.take().is_some() {
            instance.ticket.clone_from(&report.ticket);
        }
        instance.is_adopted &= instance.ticket != report.ticket;
        instance.missing_since = None;
        instance.book(Resources { memory_mb: report.memory_mb, cpu_millis: report.cpu_millis, cpu_limit_millis: None });
        let started_again = before.as_ref().map_or(0, |before| report.restarts.saturating_sub(before.restarts));
        // More than these would not say more.
        let most = self.settings.crash_restarts;
        for _ in 0..started_again.min(most) {
            instance.restarts.push_back(now);
        }
        while instance.restarts.len() > most as usize || instance.restarts.front().is_some_and(|at| at + window < now) {
            instance.restarts.pop_front();
        }
        match report.state {
            InstanceState::Ready if instance.ready_since.is_none() || started_again > 0 => {
                instance.ready_since = Some(now);
            }
            InstanceState::Ready => {}
            _ => instance.ready_since = None,
        }
        instance.was_ready |= matches!(report.state, InstanceState::Ready | InstanceState::Unfit);
        // What the node had before this leader heard of it is no news.
        let before = before.or_else(|| instance.ordered_in.map(|_| Past::default()));
        instance.report =
            Some(InstanceReport { app: instance.app.clone(), release: instance.release, ..report.clone() });
        if let Some(before) = before {
            self.tell_transition(name, report, &before);
            self.tell_limits(name, report, &before);
        }
    }

    /// One end is one event, with its most telling reason.
    fn tell_transition(&mut self, name: &NodeName, report: &InstanceReport, before: &Past) {
        let has_failed = report.failures > before.failures;
        let is_new = before.state != Some(report.state);
        let (kind, detail) = match report.state {
            _ if has_failed && report.out_of_memory => ("out_of_memory", why_it_failed(report)),
            _ if has_failed => ("exit", why_it_failed(report)),
            // The instance runs on.
            _ if report.oom_kills > before.oom_kills => ("out_of_memory", report.reason.clone()),
            InstanceState::BackOff if is_new && report.node_fault => ("not_started", report.reason.clone()),
            InstanceState::Ready if is_new || report.restarts > before.restarts => ("ready", report.reason.clone()),
            InstanceState::Unfit if is_new => ("unfit", report.reason.clone()),
            _ => return,
        };
        self.event(Some(&report.app), Some(&report.instance), Some(name), kind, detail);
    }

    /// What an instance has run into without an end.
    fn tell_limits(&mut self, name: &NodeName, report: &InstanceReport, before: &Past) {
        for (limit, reached) in &report.limits {
            let told = before.limits.get(limit).map_or(0, |before| before.times);
            if reached.times > told {
                let detail = reached.detail.clone();
                self.event(Some(&report.app), Some(&report.instance), Some(name), "limit_reached", detail);
            }
        }
    }

    fn take_gone(&mut self, id: &InstanceId) {
        let Some(instance) = self.fleet.remove(id) else { return };
        let kind = if instance.is_ending() { "stopped" } else { "vanished" };
        self.event(Some(&instance.app), Some(id), Some(&instance.node), kind, String::new());
    }

    /// What this leader or a report has placed on the node, and this report does not show.
    fn take_missing(&mut self, name: &NodeName, report: &Report, named: &BTreeSet<&InstanceId>, now: Tick) {
        let is_ours = report.seen.epoch == self.leader.epoch && report.seen.holder == self.leader.holder;
        let is_deaf = self.fleet.node(name).is_some_and(|node| self.is_deaf(node, now));
        let is_unfit = is_deaf || !report.faults.is_empty();
        let (mut gone, mut not_taken) = (Vec::new(), Vec::new());
        let ids: Vec<InstanceId> = self.fleet.of_node(name).map(|instance| instance.id.clone()).collect();
        for id in ids.into_iter().filter(|id| !named.contains(id)) {
            let Some(instance) = self.fleet.get_mut(&id) else { continue };
            if instance.report.is_some() || instance.inherited.is_some() {
                if report.full {
                    gone.push(id);
                }
                continue;
            }
            let is_accepted = instance.ordered_in.is_some_and(|at| at <= report.seen.generation);
            // An agent lists what it has accepted; one that does not is given a moment, and so is one that cannot accept.
            if is_ours && (is_accepted || is_unfit) {
                let since = *instance.missing_since.get_or_insert(now);
                if now.saturating_sub(since) >= self.settings.suspect_ms {
                    if is_accepted { &mut gone } else { &mut not_taken }.push(id);
                }
            }
        }
        for id in gone {
            self.take_gone(&id);
        }
        for id in not_taken {
            self.give_up(&id, &report.faults);
        }
    }

    /// What a node that is deaf, or has faults of its own, has not taken on runs elsewhere: orders name it no more.
    fn give_up(&mut self, id: &InstanceId, faults: &[NodeFault]) {
        let Some(instance) = self.fleet.remove(id) else { return };
        let why = faults.first().map_or("it accepts no orders", |fault| &fault.detail);
        let detail = format!("its node does not take it on: {why}");
        self.event(Some(&instance.app), Some(id), Some(&instance.node), "not_started", detail);
    }
}

/// What later reports are compared with.
fn take_order(node: &mut Node, report: &Report) {
    if node.run_id != report.run_id {
        if !node.run_id.is_empty() {
            node.old_runs.push_back((std::mem::take(&mut node.run_id), node.seq));
        }
        if node.old_runs.len() > OLD_RUNS {
            node.old_runs.pop_front();
        }
        node.run_id.clone_from(&report.run_id);
    }
    node.seq = report.seq;
    node.synced = true;
    node.held.clone_from(&report.held_ports);
}

/// What every report says of its node, whatever is missing between it and the one before.
fn take_facts(node: &mut Node, report: &Report, now: Tick, wall: UnixMillis) {
    node.last_heard = Some(now);
    node.last_report = Some(wall);
    node.seen.clone_from(&report.seen);
    node.capacity = report.capacity;
    node.agent_version.clone_from(&report.agent_version);
    node.docker_error.clone_from(&report.docker_error);
    match node.docker_error {
        Some(_) => node.docker_down_since = node.docker_down_since.or(Some(now)),
        None => node.docker_down_since = None,
    }
    node.patience_until = None;
    node.shutdown = false;
    node.faults.clone_from(&report.faults);
}
