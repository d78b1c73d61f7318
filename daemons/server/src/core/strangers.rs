//! Strangers: instances that a node names without a ticket that proves them. They are shown and told of, and never
//! routed, counted, or given an environment.

use super::fleet::Instance;
use super::permission::{Cause, Freeze};
use super::{Reign, Tick};
use crate::tickets::{Claim, Worth};
use dinp_common::api::agent::InstanceReport;
use dinp_common::api::control::StrangerView;
use dinp_common::model::{InstanceId, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// Most strangers of one node that are kept: what is beyond is neither counted, shown nor adopted.
const MOST: usize = 10_000;

/// What a node says of an instance that is not proved.
#[derive(Debug)]
struct Stranger {
    report: InstanceReport,
    worth: Worth,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    by_node: BTreeMap<NodeName, BTreeMap<InstanceId, Stranger>>,
}

impl Strangers {
    /// Takes one in; true if it is new.
    fn note(&mut self, node: &NodeName, report: &InstanceReport, worth: Worth) -> bool {
        let of_node = self.by_node.entry(node.clone()).or_default();
        if of_node.len() >= MOST && !of_node.contains_key(&report.instance) {
            return false;
        }
        of_node.insert(report.instance.clone(), Stranger { report: report.clone(), worth }).is_none()
    }

    /// Forgets those of a node that it does not name any more, or that have proved themselves.
    pub(super) fn forget(&mut self, node: &NodeName, is_gone: impl Fn(&InstanceId) -> bool) {
        if let Some(of_node) = self.by_node.get_mut(node) {
            of_node.retain(|id, _| !is_gone(id));
            if of_node.is_empty() {
                self.by_node.remove(node);
            }
        }
    }

    /// How many each node has.
    pub(super) fn per_node(&self) -> impl Iterator<Item = (&NodeName, usize)> {
        self.by_node.iter().map(|(node, of_node)| (node, of_node.len()))
    }

    /// All of them, as they are shown.
    pub(super) fn views(&self) -> Vec<StrangerView> {
        let all = self.by_node.iter().flat_map(|(node, of_node)| of_node.values().map(move |one| (node, one)));
        let view = |(node, one): (&NodeName, &Stranger)| StrangerView {
            node: node.clone(),
            instance: one.report.instance.clone(),
            app: one.report.app.clone(),
            release: one.report.release,
            adoptable: one.worth == Worth::UnknownKey,
        };
        all.map(view).collect()
    }

    fn with_unknown_key(&self) -> impl Iterator<Item = (&NodeName, &InstanceReport)> {
        let all = self.by_node.iter().flat_map(|(node, of_node)| of_node.values().map(move |one| (node, one)));
        all.filter(|(_, one)| one.worth == Worth::UnknownKey).map(|(node, one)| (node, &one.report))
    }
}

impl Reign {
    /// A new ticket for an instance.
    pub(super) fn ticket_for(&self, instance: &Instance) -> String {
        let Instance { id, app, release, node, .. } = instance;
        self.tickets.ticket(&Claim { cluster: &self.leader.cluster, node, instance: id, app, release: *release })
    }

    /// Whether a report of an instance is to be believed: its ticket proves that it was ordered to that node, or it
    /// is the one that was believed before. What is not becomes a stranger.
    pub(super) fn believes(&mut self, node: &NodeName, report: &InstanceReport) -> bool {
        let known = self.fleet.get(&report.instance).filter(|known| known.node == *node);
        if known.is_some_and(|known| known.is_adopted || (!known.ticket.is_empty() && known.ticket == report.ticket)) {
            return true;
        }
        // Of an instance that is known the server's own record counts, and not what the node says it is.
        let (app, release) = known.map_or((&report.app, report.release), |known| (&known.app, known.release));
        let claim = Claim { cluster: &self.leader.cluster, node, instance: &report.instance, app, release };
        let worth = self.tickets.judge(&report.ticket, &claim);
        if worth == Worth::Genuine {
            self.strangers.forget(node, |id| *id == report.instance);
            return true;
        }
        if self.strangers.note(node, report, worth) {
            let detail = match worth {
                Worth::UnknownKey => "its ticket is of a key that the servers do not have",
                _ => "it has no ticket for this node, app and release",
            };
            self.event(None, Some(&report.instance), Some(node), "report_refused", detail.to_owned());
        }
        false
    }

    /// Where instances carry a key that is not known on most nodes, the keys are the likelier fault. By nodes, so that one
    /// of them cannot freeze all others by what it says.
    pub(super) fn update_ticket_freeze(&mut self, now: Tick) {
        let mut unknown: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for (node, _) in self.strangers.with_unknown_key() {
            *unknown.entry(node).or_default() += 1;
        }
        let believed = |node: &NodeName| self.fleet.of_node(node).filter(|one| one.is_believed()).count();
        let affected = unknown.iter().filter(|(node, count)| **count > believed(node)).count();
        let sound = self.fleet.nodes().filter(|(node, _)| !unknown.contains_key(node) && believed(node) > 0).count();
        let ground = (affected > sound).then(|| Freeze {
            reason: format!(
                "{} instances carry tickets of a key that the servers do not have: if they are yours, say \
                 dinp ticket adopt",
                unknown.values().sum::<usize>()
            ),
            is_blind: true,
            until: now,
        });
        self.freeze(Cause::Tickets, ground, now);
    }

    /// Takes over what carries a key that is not known, because a person has looked and said so. Their next orders bring
    /// new tickets. Returns how many.
    pub fn adopt_strangers(&mut self, now: Tick) -> usize {
        let adopted: Vec<(NodeName, InstanceReport)> =
            self.strangers.with_unknown_key().map(|(node, report)| (node.clone(), report.clone())).collect();
        for (node, report) in &adopted {
            self.strangers.forget(node, |id| *id == report.instance);
            self.adopt(node, report, now);
        }
        adopted.len()
    }

    fn adopt(&mut self, node: &NodeName, report: &InstanceReport, now: Tick) {
        self.meet(node, report, now);
        let Some(instance) = self.fleet.get(&report.instance).filter(|one| one.node == *node) else { return };
        let ticket = self.ticket_for(instance);
        if let Some(instance) = self.fleet.get_mut(&report.instance) {
            instance.ticket = ticket;
            instance.is_adopted = true;
        }
        self.take_instance(node, report, now);
        self.event(Some(&report.app), Some(&report.instance), Some(node), "adopted", String::new());
    }

    /// Forgets strangers that a report does not name any more.
    pub(super) fn forget_strangers(
        &mut self,
        node: &NodeName,
        is_full: bool,
        named: &BTreeSet<&InstanceId>,
        removed: &[InstanceId],
    ) {
        self.strangers.forget(node, |id| removed.contains(id) || (is_full && !named.contains(id)));
    }
}
