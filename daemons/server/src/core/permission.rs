//! What this leader may do now: place, and destroy.

use super::Tick;
use dinp_common::model::NodeName;
use std::collections::BTreeSet;

/// Why nothing destructive is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Freeze {
    pub reason: String,
    /// Nobody is heard: there is no ground to place anything on either.
    pub all_silent: bool,
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
    freeze: Option<Freeze>,
    holdover: bool,
}

impl Permission {
    /// Whether instances may be placed.
    pub(super) fn may_place(&self) -> bool {
        self.settled && !self.freeze.as_ref().is_some_and(|freeze| freeze.all_silent)
    }

    /// Whether instances may be withdrawn and stopped.
    pub(super) fn may_destroy(&self) -> bool {
        self.settled && self.freeze.is_none() && !self.holdover
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

    /// Why nothing destructive is done, if so.
    pub(super) fn frozen(&self) -> Option<&str> {
        self.freeze.as_ref().map(|freeze| freeze.reason.as_str())
    }

    /// Takes in whether there is ground for a freeze now. One that has begun lasts until its time is over.
    pub(super) fn freeze(&mut self, ground: Option<Freeze>, now: Tick) -> Option<Turn> {
        match (ground, self.freeze.take()) {
            (Some(freeze), before) => {
                let turn = before.is_none().then(|| Turn::Frozen(freeze.reason.clone()));
                self.freeze = Some(freeze);
                turn
            }
            (None, Some(before)) if now < before.until => {
                self.freeze = Some(before);
                None
            }
            (None, Some(_)) => Some(Turn::Thawed),
            (None, None) => None,
        }
    }

    /// When time alone ends something.
    pub(super) fn wake(&self) -> Option<Tick> {
        self.freeze.as_ref().map(|freeze| freeze.until)
    }
}
