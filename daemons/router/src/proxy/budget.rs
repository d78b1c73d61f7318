//! How many requests of a release may be sent once more after one has reached it without an answer.
//!
//! Such a request may be what ended the instance, and its copy would end the next one; and an app that is overloaded gets
//! no better when it is asked everything twice.

use crate::table::ReleaseStats;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time after which all is forgotten.
const WINDOW: Duration = Duration::from_secs(10);
/// What every release may, in each window and worker; beyond that a fifth of what it has answered meanwhile.
const ANY: u64 = 100;

/// The requests that one worker has sent once more.
pub(crate) struct Budget(RefCell<Window>);

struct Window {
    since: Instant,
    /// By the release's id: the requests, and its answers before the first of them.
    spent: HashMap<u64, (u64, u64)>,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self(RefCell::new(Window { since: now, spent: HashMap::new() }))
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(&self, stats: &ReleaseStats, now: Instant) -> bool {
        let mut window = self.0.borrow_mut();
        if now.saturating_duration_since(window.since) >= WINDOW {
            *window = Window { since: now, spent: HashMap::new() };
        }
        let answered = stats.answered();
        let (spent, before) = window.spent.entry(stats.release).or_insert((0, answered));
        let is_left = *spent < ANY + answered.saturating_sub(*before) / 5;
        *spent += u64::from(is_left);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::News;
    use http::StatusCode;

    #[test]
    fn a_share_of_what_is_answered() {
        let now = Instant::now();
        let (budget, news) = (Budget::new(now), News::default());
        let [one, other] = [1, 2].map(|release| ReleaseStats::new("a".parse().unwrap(), release));
        let answer = || (0..500).for_each(|_| news.answered(&other, StatusCode::OK, Duration::ZERO));
        let granted = |stats, now| (0..1000).filter(|_| budget.take(stats, now)).count();
        answer();
        assert_eq!(granted(&one, now), 100);
        assert_eq!(granted(&other, now), 100, "each has its own, and what was long ago does not count");
        answer();
        assert_eq!(granted(&other, now), 100, "a fifth of its answers since");
        assert_eq!(granted(&one, now + WINDOW), 100, "after a while all is forgotten");
    }
}
