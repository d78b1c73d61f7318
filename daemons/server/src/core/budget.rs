//! How many instances DINP may condemn by its own decision.

use super::Tick;
use std::collections::VecDeque;

const MINUTE_MS: u64 = 60_000;

/// What was condemned in the whole cluster within the last minute.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: VecDeque<Tick>,
}

impl Budget {
    /// Takes one of so many in a minute; false if none is left.
    pub(super) fn spend(&mut self, per_minute: u32, now: Tick) -> bool {
        self.spent.retain(|at| now.saturating_sub(*at) < MINUTE_MS);
        let is_left = self.spent.len() < per_minute as usize;
        if is_left {
            self.spent.push_back(now);
        }
        is_left
    }
}
