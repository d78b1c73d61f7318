//! How long to wait before the next attempt.

use std::time::Duration;

/// Attempts that failed in a row, and what follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Attempts that are repeated at once.
    free: u32,
    first: Duration,
    longest: Duration,
    failed: u32,
}

impl Backoff {
    /// After an instance ended: three times at once, then 10 s doubling to 10 min.
    pub const fn crashes() -> Self {
        Self { free: 3, first: Duration::from_secs(10), longest: Duration::from_secs(600), failed: 0 }
    }

    /// After a pull or a creation failed: 1 s doubling to 1 min.
    pub const fn preparation() -> Self {
        Self { free: 0, first: Duration::from_secs(1), longest: Duration::from_secs(60), failed: 0 }
    }

    /// After a call that the Docker Engine or a server did not answer: 250 ms doubling to 4 s.
    pub const fn calls() -> Self {
        Self { free: 0, first: Duration::from_millis(250), longest: Duration::from_secs(4), failed: 0 }
    }

    /// Counts a failure; the time to wait before the next attempt.
    pub fn fail(&mut self) -> Duration {
        let doublings = self.failed.saturating_sub(self.free);
        let at_once = self.failed < self.free;
        self.failed = self.failed.saturating_add(1);
        if at_once {
            return Duration::ZERO;
        }
        self.first.saturating_mul(1 << doublings.min(16)).min(self.longest)
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.failed = 0;
    }

    /// Failures in a row.
    #[cfg(test)]
    pub fn failed(&self) -> u32 {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_are_repeated_three_times_at_once_and_then_ever_later() {
        let mut backoff = Backoff::crashes();
        let waits: Vec<u64> = (0..12).map(|_| backoff.fail().as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        backoff.reset();
        assert_eq!(backoff.fail(), Duration::ZERO);
    }

    #[test]
    fn it_never_overflows() {
        let mut backoff = Backoff { failed: u32::MAX - 1, ..Backoff::preparation() };
        assert_eq!((backoff.fail(), backoff.fail()), (Duration::from_secs(60), Duration::from_secs(60)));
        assert_eq!(backoff.failed(), u32::MAX);
    }
}
