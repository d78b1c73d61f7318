//! How often each may do something: so many times a minute, and after a pause some more at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Holders that are remembered before those are forgotten who have their whole burst again.
const MANY: usize = 10_000;

/// The limit, and how far each holder is from it. No clock of its own.
#[derive(Debug)]
pub struct Rate<K> {
    /// Time in which one more is allowed.
    interval: Duration,
    burst: u32,
    /// When each holder has the whole burst again.
    whole: Mutex<HashMap<K, Instant>>,
}

impl<K: Clone + Eq + Hash> Rate<K> {
    /// So many times a minute, and `burst` times at once by who has paused; both at least 1.
    pub fn new(per_minute: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(60) / per_minute.max(1);
        Self { interval, burst: burst.max(1), whole: Mutex::default() }
    }

    /// Once more; an error is the time to wait, and then it did not count.
    pub fn take(&self, holder: &K, now: Instant) -> Result<(), Duration> {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = whole.get(holder).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let after = spent + self.interval;
        let most = self.interval * self.burst;
        if after > most {
            return Err(after - most);
        }
        if whole.len() >= MANY {
            whole.retain(|_, at| *at > now);
        }
        whole.insert(holder.clone(), now + after);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_at_once_and_then_one_at_a_time() {
        let rate = Rate::new(60, 3);
        let start = Instant::now();
        for _ in 0..3 {
            rate.take(&"anna", start).unwrap();
        }
        assert_eq!(rate.take(&"anna", start), Err(Duration::from_secs(1)));
        rate.take(&"bert", start).unwrap();
        // Who was refused has lost nothing by asking.
        let later = start + Duration::from_secs(1);
        rate.take(&"anna", later).unwrap();
        assert_eq!(rate.take(&"anna", later), Err(Duration::from_secs(1)));
        // A pause gives the burst again, and no more than that.
        let rested = start + Duration::from_secs(600);
        for _ in 0..3 {
            rate.take(&"anna", rested).unwrap();
        }
        assert!(rate.take(&"anna", rested).is_err());
    }

    #[test]
    fn who_has_the_whole_burst_again_is_forgotten() {
        let rate = Rate::new(60, 3);
        let start = Instant::now();
        for n in 0..MANY {
            rate.take(&n, start).unwrap();
        }
        rate.take(&MANY, start + Duration::from_secs(2)).unwrap();
        assert_eq!(rate.whole.lock().unwrap().len(), 1);
    }
}
