//! Guessing passwords gets slower: after a few failures for one user from one address, each try has to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Failures that cost nothing.
const FREE: u32 = 5;
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// After this long without a try all is forgotten.
const FORGET: Duration = Duration::from_secs(900);
/// Most pairs that are remembered.
const MAX_ENTRIES: usize = 10_000;

/// A user's name and where the tries come from.
type Key = (String, IpAddr);

struct Entry {
    tries: u32,
    last: Instant,
}

/// What is remembered of tries that did not succeed. No clock of its own.
#[derive(Default)]
pub struct Backoff {
    entries: HashMap<Key, Entry>,
}

impl Backoff {
    /// Begins a try, which counts as a failure until [`Backoff::succeeded`], so that many at once gain nothing.
    /// An error is the time left to wait.
    pub fn begin(&mut self, user: &str, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.make_room(now);
        let entry = self.entries.entry((user.to_owned(), network(address))).or_insert(Entry { tries: 0, last: now });
        if now.duration_since(entry.last) > FORGET {
            entry.tries = 0;
        }
        let ready = entry.last + wait(entry.tries);
        if now < ready {
            return Err(ready - now);
        }
        entry.tries += 1;
        entry.last = now;
        Ok(())
    }

    /// The password was right.
    pub fn succeeded(&mut self, user: &str, address: IpAddr) {
        self.entries.remove(&(user.to_owned(), network(address)));
    }

    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < MAX_ENTRIES {
            return;
        }
        self.entries.retain(|_, entry| now.duration_since(entry.last) <= FORGET);
        if self.entries.len() >= MAX_ENTRIES
            && let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.last).map(|(key, _)| key.clone())
        {
            self.entries.remove(&oldest);
        }
    }
}

/// Time from one try to the next after so many failures.
fn wait(tries: u32) -> Duration {
    match tries.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(over) => Duration::from_secs(1 << over.min(16)).min(MAX_WAIT),
    }
}

/// Who has one address of IPv6 has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut backoff = Backoff::default();
        let address = IpAddr::from([10, 0, 0, 1]);
        let start = Instant::now();
        for _ in 0..FREE {
            backoff.begin("anna", address, start).unwrap();
        }
        assert_eq!(backoff.begin("anna", address, start), Err(Duration::from_secs(1)));
        backoff.begin("bert", address, start).unwrap();
        backoff.begin("anna", IpAddr::from([10, 0, 0, 2]), start).unwrap();
        let later = start + Duration::from_secs(1);
        backoff.begin("anna", address, later).unwrap();
        assert_eq!(backoff.begin("anna", address, later), Err(Duration::from_secs(2)));
        backoff.succeeded("anna", address);
        backoff.begin("anna", address, later).unwrap();
    }

    #[test]
    fn waits_have_a_limit_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let address = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]);
        let neighbour = IpAddr::from([0xfe80, 0, 0, 0, 1, 0, 0, 2]);
        let mut now = Instant::now();
        for _ in 0..40 {
            now += MAX_WAIT;
            backoff.begin("anna", address, now).unwrap();
        }
        assert_eq!(backoff.begin("anna", neighbour, now), Err(MAX_WAIT));
        backoff.begin("anna", neighbour, now + FORGET + Duration::from_secs(1)).unwrap();
        assert!(backoff.entries.values().all(|entry| entry.tries == 1));
    }

    #[test]
    fn memory_is_bounded() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        for n in 0..(MAX_ENTRIES as u32 + 100) {
            backoff.begin("anna", IpAddr::from(n.to_be_bytes()), now).unwrap();
        }
        assert!(backoff.entries.len() <= MAX_ENTRIES);
    }
}
