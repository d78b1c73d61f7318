//! How many instances DINP may condemn by its own decision.

use super::Tick;
use dinp_common::model::AppName;
use std::collections::VecDeque;

const MINUTE_MS: u64 = 60_000;

/// What was condemned in the whole cluster within the last minute.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: VecDeque<(Tick, AppName)>,
}

impl Budget {
    /// Takes one of so many in a minute; false if none is left. One app has at most half of them, so that its troubles
    /// leave some for the others.
    pub(super) fn spend(&mut self, app: &AppName, per_minute: u32, now: Tick) -> bool {
        self.spent.retain(|(at, _)| now.saturating_sub(*at) < MINUTE_MS);
        let per_minute = per_minute as usize;
        let of_app = self.spent.iter().filter(|(_, other)| other == app).count();
        let is_left = self.spent.len() < per_minute && of_app < per_minute.div_ceil(2);
        if is_left {
            self.spent.push_back((now, app.clone()));
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_app_does_not_use_up_what_others_may_need() {
        let (mut budget, web, shop) = (Budget::default(), "web".parse().unwrap(), "shop".parse().unwrap());
        let spent = (0..10).filter(|_| budget.spend(&web, 10, 0)).count();
        assert_eq!(spent, 5);
        assert!(budget.spend(&shop, 10, 0));
        assert!(!budget.spend(&web, 10, MINUTE_MS - 1) && budget.spend(&web, 10, MINUTE_MS));
    }
}
