//! What a decision has changed, and what people are told of it.

use super::Event;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct News {
    events: Vec<Event>,
    changes: u64,
}

impl News {
    /// A decision has changed something: it goes on until nothing does.
    pub(super) fn change(&mut self) {
        self.changes += 1;
    }

    /// Changes so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Something that people want to read about.
    pub(super) fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    /// What was told since this was asked last.
    pub(super) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}
