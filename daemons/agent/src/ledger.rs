//! The port ledger: which instance has which port, and which ports must stay closed.
//!
//! ```text
//! free --take--> used --hold (instance gone)--> held --release (leader: every router forgot it)--> free
//! ```
//!
//! A port that a router may still send requests to is never given to another instance. The port that
//! has been free longest is given first. Each change is on the disk before it counts.

use dinp_common::api::UnixMillis;
use dinp_common::api::agent::HeldPort;
use dinp_common::model::InstanceId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What the disk holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    taken: BTreeMap<u16, Taken>,
    /// Ports that were taken once, and since when they are free.
    freed: BTreeMap<u16, UnixMillis>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    instance: InstanceId,
    held: bool,
}

impl Ledger {
    /// The port of an instance that has one.
    pub fn port_of(&self, instance: &InstanceId) -> Option<u16> {
        self.taken.iter().find(|(_, taken)| taken.instance == *instance && !taken.held).map(|(port, _)| *port)
    }

    /// Gives an instance a port of the range at which nobody else listens: the one it has, else the one
    /// that has been free longest.
    pub fn take(
        &mut self,
        instance: &InstanceId,
        range: &RangeInclusive<u16>,
        is_open: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        if let Some(port) = self.port_of(instance) {
            return Some(port);
        }
        let mut free: Vec<u16> = range.clone().filter(|port| !self.taken.contains_key(port)).collect();
        free.sort_by_key(|port| (self.freed.get(port).copied().unwrap_or(0), *port));
        let port = free.into_iter().find(|port| is_open(*port))?;
        self.freed.remove(&port);
        self.taken.insert(port, Taken { instance: instance.clone(), held: false });
        Some(port)
    }

    /// Writes down the port of a container that was found.
    pub fn adopt(&mut self, instance: &InstanceId, port: u16) {
        self.freed.remove(&port);
        self.taken.insert(port, Taken { instance: instance.clone(), held: false });
    }

    /// The instance is gone: its port stays closed.
    pub fn hold(&mut self, instance: &InstanceId) {
        for taken in self.taken.values_mut().filter(|taken| taken.instance == *instance) {
            taken.held = true;
        }
    }

    /// The port could not be opened for the instance: somebody else has it. It goes to the end of the line.
    pub fn give_back(&mut self, instance: &InstanceId, now: UnixMillis) {
        self.free(now, |taken| taken.instance == *instance && !taken.held);
    }

    /// Every router has forgotten these instances. One that still has its port in use keeps it.
    pub fn release(&mut self, instances: &[InstanceId], now: UnixMillis) {
        self.free(now, |taken| taken.held && instances.contains(&taken.instance));
    }

    /// Holds the ports of all instances but these.
    pub fn hold_others(&mut self, present: impl Fn(&InstanceId) -> bool) {
        for taken in self.taken.values_mut().filter(|taken| !present(&taken.instance)) {
            taken.held = true;
        }
    }

    /// The ports that are held.
    pub fn held(&self) -> Vec<HeldPort> {
        let held = self.taken.iter().filter(|(_, taken)| taken.held);
        held.map(|(port, taken)| HeldPort { instance: taken.instance.clone(), port: *port }).collect()
    }

    fn free(&mut self, now: UnixMillis, which: impl Fn(&Taken) -> bool) {
        let ports: Vec<u16> = self.taken.iter().filter(|(_, taken)| which(taken)).map(|(port, _)| *port).collect();
        for port in ports {
            self.taken.remove(&port);
            self.freed.insert(port, now);
        }
    }
}

/// Whether no process of this machine listens at the port.
pub fn nobody_listens(port: u16) -> bool {
    std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::free_port;

    fn id(bits: u64) -> InstanceId {
        InstanceId::from_bits(bits)
    }

    const RANGE: RangeInclusive<u16> = 20_000..=20_003;

    #[test]
    fn a_port_stays_closed_until_the_routers_forgot_it() {
        let mut ledger = Ledger::default();
        let port = ledger.take(&id(1), &RANGE, |_| true).unwrap();
        assert_eq!(ledger.take(&id(1), &RANGE, |_| true), Some(port), "an instance keeps its port");
        ledger.release(&[id(1)], 1);
        assert_eq!(ledger.port_of(&id(1)), Some(port), "a port in use is not released");
        ledger.hold(&id(1));
        assert_eq!(ledger.held(), [HeldPort { instance: id(1), port }]);
        for n in 2..=4 {
            assert_ne!(ledger.take(&id(n), &RANGE, |_| true), Some(port));
        }
        assert_eq!(ledger.take(&id(5), &RANGE, |_| true), None, "all are taken");
        ledger.release(&[id(1)], 2);
        assert_eq!(ledger.take(&id(5), &RANGE, |_| true), Some(port));
    }

    #[test]
    fn longest_free_first_and_only_where_nobody_listens() {
        let mut ledger = Ledger::default();
        for n in 0..4 {
            ledger.take(&id(n), &RANGE, |_| true).unwrap();
            ledger.hold(&id(n));
        }
        for (now, n) in [(10, 2), (20, 0), (30, 1), (40, 3)] {
            ledger.release(&[id(n)], now);
        }
        assert_eq!(ledger.take(&id(9), &RANGE, |port| port != 20_002), Some(20_000));
        ledger.give_back(&id(9), 50);
        assert_eq!(ledger.take(&id(9), &RANGE, |_| true), Some(20_002));
        assert_eq!(ledger.take(&id(10), &RANGE, |_| true), Some(20_001));
    }

    #[test]
    fn what_was_found_is_written_down_and_what_is_missing_is_held() {
        let mut ledger = Ledger::default();
        ledger.adopt(&id(1), 20_001);
        ledger.adopt(&id(2), 20_002);
        ledger.hold_others(|instance| *instance == id(1));
        assert_eq!(ledger.port_of(&id(1)), Some(20_001));
        assert_eq!(ledger.held(), [HeldPort { instance: id(2), port: 20_002 }]);
    }

    #[test]
    fn a_listener_is_seen() {
        let port = free_port();
        assert!(nobody_listens(port));
        let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(!nobody_listens(port));
    }
}
