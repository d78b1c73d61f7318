//! Guessing passwords gets slower: after a few failures for one user from one address each try has to wait, and after
//! more of them from one address whatever the user.
//!
//! The second limit keeps one machine that tries many names from taking all turns of hashing; many people may share an
//! address, all of them where a proxy stands before uic that `trusted_proxies` does not name, so it allows many, forgives
//! steadily and never asks for a long wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Failures of one user from one address that cost nothing.
const FREE: u32 = 5;
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// After this long without a try all is forgotten.
const FORGET: Duration = Duration::from_secs(900);
/// Failures from one address that cost nothing.
const FREE_OF_ADDRESS: u32 = 50;
/// Time in which an address is forgiven one failure.
const FORGIVE: Duration = Duration::from_secs(FORGET.as_secs() / FREE_OF_ADDRESS as u64);
/// Most pairs, and most addresses, that are remembered.
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
    pairs: HashMap<Key, Entry>,
    /// When each address has been forgiven all of its failures.
    addresses: HashMap<IpAddr, Instant>,
}

impl Backoff {
    /// Begins a try, which counts as a failure until [`Backoff::succeeded`], so that many at once gain nothing.
    /// An error is the time left to wait; a try that has to wait does not count.
    pub fn begin(&mut self, user: &str, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let network = network(address);
        let pair = (user.to_owned(), network);
        let wait = self.wait_of_pair(&pair, now).max(self.wait_of_address(network, now));
        if !wait.is_zero() {
            return Err(wait);
        }
        make_room(&mut self.pairs, |entry| entry.last + FORGET, now);
        let entry = self.pairs.entry(pair).or_insert(Entry { tries: 0, last: now });
        if now.duration_since(entry.last) > FORGET {
            entry.tries = 0;
        }
        entry.tries += 1;
        entry.last = now;
        make_room(&mut self.addresses, |forgiven| *forgiven, now);
        let forgiven = self.addresses.entry(network).or_insert(now);
        *forgiven = now.max(*forgiven) + FORGIVE;
        Ok(())
    }

    /// The password was right: the user's failures are forgotten. The address has only this try back, or who has one
    /// password could go on guessing others.
    pub fn succeeded(&mut self, user: &str, address: IpAddr) {
        let network = network(address);
        self.pairs.remove(&(user.to_owned(), network));
        self.forgive_one(network);
    }

    /// The password was not compared: the try never was.
    pub fn withdraw(&mut self, user: &str, address: IpAddr) {
        let network = network(address);
        if let Some(entry) = self.pairs.get_mut(&(user.to_owned(), network)) {
            entry.tries = entry.tries.saturating_sub(1);
        }
        self.forgive_one(network);
    }

    fn forgive_one(&mut self, network: IpAddr) {
        if let Some(forgiven) = self.addresses.get_mut(&network) {
            *forgiven -= FORGIVE;
        }
    }

    fn wait_of_pair(&self, pair: &Key, now: Instant) -> Duration {
        let Some(entry) = self.pairs.get(pair) else { return Duration::ZERO };
        let since = now.duration_since(entry.last);
        if since > FORGET { Duration::ZERO } else { wait(entry.tries).saturating_sub(since) }
    }

    fn wait_of_address(&self, network: IpAddr, now: Instant) -> Duration {
        let forgiven = self.addresses.get(&network).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        forgiven.saturating_sub(FORGIVE * (FREE_OF_ADDRESS - 1))
    }
}

/// Makes room for one more: what is over goes, and where that is not enough, what is over first.
fn make_room<K: Clone + Eq + Hash, V>(entries: &mut HashMap<K, V>, over: impl Fn(&V) -> Instant, now: Instant) {
    if entries.len() < MAX_ENTRIES {
        return;
    }
    entries.retain(|_, entry| over(entry) >= now);
    if entries.len() >= MAX_ENTRIES
        && let Some(first) = entries.iter().min_by_key(|(_, entry)| over(entry)).map(|(key, _)| key.clone())
    {
        entries.remove(&first);
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
        assert!(backoff.pairs.values().all(|entry| entry.tries == 1));
    }

    #[test]
    fn an_address_that_tries_many_names_has_to_wait_and_no_other_has() {
        let mut backoff = Backoff::default();
        let address = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]);
        let neighbour = IpAddr::from([0xfe80, 0, 0, 0, 1, 0, 0, 2]);
        let start = Instant::now();
        for n in 0..FREE_OF_ADDRESS {
            backoff.begin(&format!("name{n}"), address, start).unwrap();
        }
        assert_eq!(backoff.begin("anna", neighbour, start), Err(FORGIVE));
        backoff.begin("anna", IpAddr::from([10, 0, 0, 1]), start).unwrap();
        // Having waited did not count; one failure is forgiven, and then the next.
        backoff.begin("anna", neighbour, start + FORGIVE).unwrap();
        assert_eq!(backoff.begin("bert", address, start + FORGIVE), Err(FORGIVE));
        // Whoever knows a password gets no more than that try for it.
        backoff.succeeded("anna", address);
        backoff.begin("bert", address, start + FORGIVE).unwrap();
        assert_eq!(backoff.begin("carl", address, start + FORGIVE), Err(FORGIVE));
        // In the end all is forgiven.
        let later = start + FORGIVE + FORGET;
        for n in 0..FREE_OF_ADDRESS {
            backoff.begin(&format!("other{n}"), address, later).unwrap();
        }
    }

    #[test]
    fn what_was_never_compared_is_no_failed_try() {
        let mut backoff = Backoff::default();
        let (address, now) = (IpAddr::from([10, 0, 0, 1]), Instant::now());
        for _ in 0..10 * FREE_OF_ADDRESS {
            backoff.begin("anna", address, now).unwrap();
            backoff.withdraw("anna", address);
        }
    }

    #[test]
    fn right_passwords_cost_an_address_nothing() {
        let mut backoff = Backoff::default();
        let (office, now) = (IpAddr::from([10, 0, 0, 1]), Instant::now());
        for n in 0..10 * FREE_OF_ADDRESS {
            backoff.begin(&format!("name{n}"), office, now).unwrap();
            backoff.succeeded(&format!("name{n}"), office);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        for n in 0..(MAX_ENTRIES as u32 + 100) {
            backoff.begin("anna", IpAddr::from(n.to_be_bytes()), now).unwrap();
        }
        assert!(backoff.pairs.len() <= MAX_ENTRIES && backoff.addresses.len() <= MAX_ENTRIES);
    }
}
