//! How nodes are: ready, suspect, lost; when a new leader may begin; when too much looks dead at once.

use super::fleet::{Condition, Node};
use super::permission::{Cause, Freeze, Turn};
use super::{Desired, Reign, Tick};
use dinp_common::model::NodeName;

/// Gap between two decisions from which on the leader itself was not listening.
const DEAF_MS: u64 = 3_000;
/// Time within which many nodes must not vanish.
const VANISH_MS: u64 = 60_000;
/// Share of nodes, in percent, that may vanish within that time; at least two may.
const VANISH_PERCENT: usize = 30;

impl Reign {
    /// Brings the conditions of all nodes up to now.
    pub(super) fn update_nodes(&mut self, desired: &Desired, now: Tick) {
        for name in desired.nodes.keys() {
            self.fleet.know_node(name, now);
        }
        self.fleet.forget_nodes(|name| desired.nodes.contains_key(name));
        let names: Vec<NodeName> = self.fleet.nodes().map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(node) = self.fleet.node_mut(&name) else { continue };
            let before = node.condition;
            node.condition = condition(node, &self.settings, now);
            let after = node.condition;
            if after == before {
                continue;
            }
            node.lost_at = (after == Condition::Lost).then_some(now);
            let kind = match after {
                Condition::Ready if before > Condition::Unknown => "node_returned",
                Condition::Ready => "node_ready",
                Condition::Suspect => "node_suspect",
                Condition::Lost => "node_lost",
                Condition::Restarting | Condition::Unknown => continue,
            };
            self.event(None, None, Some(&name), kind, String::new());
        }
        self.update_freeze(desired, now);
        self.update_router_freeze(now);
        self.update_settled(desired, now);
    }

    /// A leader that was stopped for a while has heard nothing because it did not listen.
    pub(super) fn forgive_own_silence(&mut self, now: Tick) {
        let gap = now.saturating_sub(self.decided_at.unwrap_or(now));
        self.decided_at = Some(now);
        if gap < DEAF_MS {
            return;
        }
        for node in self.fleet.nodes_mut() {
            node.last_heard = node.last_heard.map(|at| (at + gap).min(now));
            node.known_since = (node.known_since + gap).min(now);
            node.behind = node.behind.map(|(next, since)| (next, (since + gap).min(now)));
        }
        self.routers.forgive(gap, now);
        self.leader.since = (self.leader.since + gap).min(now);
    }

    fn update_freeze(&mut self, desired: &Desired, now: Tick) {
        let total = desired.nodes.len();
        let announced = |node: &&Node| node.shutdown;
        let nodes = || desired.nodes.keys().filter_map(|name| self.fleet.node(name));
        let missing: Vec<&Node> = nodes()
            .filter(|node| matches!(node.condition, Condition::Suspect | Condition::Lost) && !node.shutdown)
            .collect();
        let all_silent = !missing.is_empty() && missing.len() + nodes().filter(announced).count() == total;
        let allowed = (total * VANISH_PERCENT / 100).max(2);
        let mut since: Vec<Tick> = missing.iter().map(|node| node.last_heard.unwrap_or(node.known_since)).collect();
        since.sort_unstable();
        let too_many = since.windows(allowed + 1).any(|window| window[allowed] - window[0] <= VANISH_MS);
        let reason = if all_silent {
            Some(format!("no node is heard ({} of {total} are silent)", missing.len()))
        } else if too_many {
            Some(format!("{} of {total} nodes are silent, most of them within a minute", missing.len()))
        } else {
            None
        };
        let until = now + self.settings.lost_ms;
        self.freeze(Cause::Nodes, reason.map(|reason| Freeze { reason, is_blind: all_silent, until }), now);
    }

    /// Freezes for this ground, or goes on, and tells of what has changed.
    pub(super) fn freeze(&mut self, cause: Cause, ground: Option<Freeze>, now: Tick) {
        match self.permission.freeze(cause, ground, now) {
            Some(Turn::Frozen(reason)) => self.event(None, None, None, "freeze", reason),
            Some(Turn::Thawed) => self.event(None, None, None, "freeze_over", String::new()),
            None => {}
        }
    }

    /// A new leader begins when each known node has acknowledged its epoch, is lost, or is deaf.
    fn update_settled(&mut self, desired: &Desired, now: Tick) {
        if self.permission.is_settled() {
            return;
        }
        let waits_for = desired.nodes.keys().filter(|name| {
            let Some(node) = self.fleet.node(name) else { return true };
            node.condition != Condition::Lost && !self.has_acknowledged(node) && !self.is_deaf(node, now)
        });
        let waits_for = waits_for.cloned().collect();
        if self.permission.wait_for(waits_for) {
            self.event(None, None, None, "settled", format!("{} nodes known", desired.nodes.len()));
        }
    }

    /// Whether the node reports, and has not accepted this leader, or its next orders, in all the time that it had.
    /// Nothing is placed there; what runs there serves on, and nobody waits for it.
    pub(super) fn is_deaf(&self, node: &Node, now: Tick) -> bool {
        node.last_heard.is_some() && self.deaf_at(node).is_some_and(|at| now >= at)
    }

    /// When a node that goes on accepting nothing becomes deaf.
    pub(super) fn deaf_at(&self, node: &Node) -> Option<Tick> {
        let since = match self.has_acknowledged(node) {
            true => node.behind.map(|(_, since)| since)?,
            false => node.known_since.max(self.leader.since),
        };
        Some(since + self.settings.unheard_ms)
    }

    /// Keeps track of whether a node that has just been heard follows its orders. Time in which it was silent counts
    /// for nothing.
    pub(super) fn update_behind(&mut self, name: &NodeName, now: Tick) {
        let ordered = self.orders.get(name).map_or(0, |orders| orders.generation);
        let Some(node) = self.fleet.node(name) else { return };
        let accepted = if self.has_acknowledged(node) { node.seen.generation } else { 0 };
        let waits = node.behind.filter(|(next, _)| node.is_heard() && accepted < *next);
        let behind = waits.or_else(|| (accepted < ordered).then_some((ordered, now)));
        if let Some(node) = self.fleet.node_mut(name) {
            node.behind = behind;
        }
    }

    /// Whether the node has accepted this leader: it obeys no other one any more.
    pub(super) fn has_acknowledged(&self, node: &Node) -> bool {
        node.synced && node.seen.epoch == self.leader.epoch && node.seen.holder == self.leader.holder
    }
}

fn condition(node: &Node, settings: &super::Settings, now: Tick) -> Condition {
    if node.shutdown {
        return Condition::Lost;
    }
    let Some(heard) = node.last_heard else {
        let unheard = now.saturating_sub(node.known_since) >= settings.unheard_ms;
        return if unheard { Condition::Lost } else { Condition::Unknown };
    };
    match now.saturating_sub(heard) {
        silence if silence < settings.suspect_ms => Condition::Ready,
        _ if node.patience_until.is_some_and(|until| now < until) => Condition::Restarting,
        silence if silence < settings.lost_ms => Condition::Suspect,
        _ => Condition::Lost,
    }
}
