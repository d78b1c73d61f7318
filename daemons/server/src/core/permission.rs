//! What this leader may do now: place, and destroy.

use super::Tick;
use dinp_common::model::NodeName;
use std::collections::{BTreeMap, BTreeSet};

/// What a freeze is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// Too many nodes are silent.
    Nodes,
    /// Too many routers are silent.
    Routers,
    /// Most instances carry tickets of a key that is not known.
    Tickets,
    /// Desired state is older than what was carried out.
    Revision,
}

/// Why nothing destructive is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Freeze {
    pub reason: String,
    /// There is no ground to place anything on either.
    pub is_blind: bool,
    /// Until then at least.
    pub until: Tick,
}

/// What has changed about a freeze.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has begun, and why.
    Frozen(String),
    /// It is over.
    Thawed,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Permission {
    settled: bool,
    /// Nodes that a new leader waits for.
    waits_for: BTreeSet<NodeName>,
    freezes: BTreeMap<Cause, Freeze>,
    holdover: bool,
}

impl Permission {
    /// Whether instances may be placed.
    pub(super) fn may_place(&self) -> bool {
        self.settled && !self.freezes.values().any(|freeze| freeze.is_blind)
    }

    /// Whether instances may be withdrawn and stopped.
    pub(super) fn may_destroy(&self) -> bool {
        self.settled && self.freezes.is_empty() && !self.holdover
    }

    /// Whether this leader has begun: each known node has acknowledged it, or is lost.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Nodes that it waits for before it begins.
    pub(super) fn waits_for(&self) -> &BTreeSet<NodeName> {
        &self.waits_for
    }

    /// Nodes that have neither acknowledged this leader nor are lost; with none left it begins. True when it does.
    pub(super) fn wait_for(&mut self, nodes: BTreeSet<NodeName>) -> bool {
        self.waits_for = nodes;
        let begins = !self.settled && self.waits_for.is_empty();
        self.settled |= begins;
        begins
    }

    /// Whether the lease cannot be renewed.
    pub(super) fn holds_over(&self) -> bool {
        self.holdover
    }

    pub(super) fn hold_over(&mut self, on: bool) {
        self.holdover = on;
    }

    /// Whether desired state is older than what was carried out.
    pub(super) fn is_behind(&self) -> bool {
        self.freezes.contains_key(&Cause::Revision)
    }

    /// Whether what is lost is replaced, and nothing else is done.
    pub(super) fn only_replaces(&self) -> bool {
        self.holdover || self.is_behind()
    }

    /// Why nothing destructive is done, if so.
    pub(super) fn frozen(&self) -> Option<String> {
        let reasons: Vec<&str> = self.freezes.values().map(|freeze| freeze.reason.as_str()).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Takes in whether there is ground for a freeze now. One that has begun lasts until its time is over.
    pub(super) fn freeze(&mut self, cause: Cause, ground: Option<Freeze>, now: Tick) -> Option<Turn> {
        match (ground, self.freezes.remove(&cause)) {
            (Some(freeze), before) => {
                let turn = before.is_none().then(|| Turn::Frozen(freeze.reason.clone()));
                self.freezes.insert(cause, freeze);
                turn
            }
            (None, Some(before)) if now < before.until => {
                self.freezes.insert(cause, before);
                None
            }
            (None, Some(_)) => Some(Turn::Thawed),
            (None, None) => None,
        }
    }

    /// When time alone ends something.
    pub(super) fn wake(&self) -> Option<Tick> {
        self.freezes.values().map(|freeze| freeze.until).min()
    }
}
