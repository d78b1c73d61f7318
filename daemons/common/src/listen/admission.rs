//! Which connections a listener takes: so many of each client and so many in all, and of some networks only.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use crate::quota::{Full, Quota, Share};

/// Most connections of all clients, as far as there are descriptors.
const ALL: usize = 8192;

/// Time from one line in the log about refused connections to the next.
const TELL: Duration = Duration::from_secs(10);

/// What a listener bears.
#[derive(Clone)]
pub struct Limits {
    /// Time for the head of a request, from its first byte; an idle connection is kept as long.
    pub head: Duration,
    /// Connections of one client: of one IPv4 address, or one IPv6 network of 64 bits.
    pub each: usize,
    /// Connections of all clients together.
    pub all: usize,
    /// Whose connections are taken at all; everybody's where there is none.
    pub admits: Option<Arc<dyn Fn(IpAddr) -> bool + Send + Sync>>,
}

impl Default for Limits {
    fn default() -> Self {
        // The other half of the descriptors is for what the daemon itself opens.
        let all = ALL.min(descriptors() / 2);
        Self { head: super::HEADER_READ_TIMEOUT, each: all / 8, all, admits: None }
    }
}

/// How many descriptors this process may have open.
pub fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// A connection's place, until it is dropped.
pub(super) type Place = Share<IpAddr>;

/// The limits, and what is taken.
pub(super) struct Admission {
    places: Quota<IpAddr>,
    admits: Option<Arc<dyn Fn(IpAddr) -> bool + Send + Sync>>,
    untold: Mutex<Untold>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        let Limits { each, all, .. } = *limits;
        Self { places: Quota::new(each, all), admits: limits.admits.clone(), untold: Mutex::default() }
    }

    /// A place for a connection from `peer` to our address `own`; none where it is refused, which is counted and told
    /// now and then.
    pub(super) fn admit(&self, peer: IpAddr, own: Option<IpAddr>) -> Option<Place> {
        let peer = peer.to_canonical();
        // A machine that calls itself, by whichever of its addresses, is no stranger.
        let itself = own.is_some_and(|own| own.to_canonical() == peer);
        let refusal = if !itself && self.admits.as_ref().is_some_and(|admits| !admits(peer)) {
            "network"
        } else {
            match self.places.take(&client(peer), 1) {
                Ok(place) => return Some(place),
                Err(Full::Each(_)) => "address",
                Err(Full::All(_)) => "all",
            }
        };
        ::metrics::counter!("dinp_connections_refused_total", "limit" => refusal).increment(1);
        let due = self.untold.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now());
        if let Some(refused) = due {
            tracing::warn!(%peer, limit = refusal, refused, "connections are refused, the last one of {peer}");
        }
        None
    }
}

/// Who counts as one client: whoever has an IPv6 address has a whole network of them.
pub fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// Refused connections that the log has not told of: it tells of the first at once, then every ten seconds at most.
#[derive(Debug, Default)]
pub struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl Untold {
    /// One more; how many are to be told now, if it is time.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < TELL) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_cannot_take_all_places() {
        let admission = Admission::new(&Limits { each: 2, all: 3, ..Limits::default() });
        let admit = |peer| admission.admit(address(peer), None);
        let places = [admit("192.0.2.1"), admit("::ffff:192.0.2.1")];
        assert!(places.iter().all(Option::is_some));
        assert!(admit("192.0.2.1").is_none(), "it has its two");
        let other = admit("2001:db8::1");
        assert!(other.is_some());
        assert!(admit("192.0.2.9").is_none(), "all are taken");
        drop(places);
        let neighbour = admit("2001:db8::2");
        assert!(neighbour.is_some());
        assert!(admit("2001:db8::3").is_none(), "of the same network");
    }

    /// With a thousand agents the server had no descriptors left.
    #[test]
    fn every_unit_has_descriptors_for_all_connections_of_a_listener_and_as_many_again() {
        for daemon in ["agent", "builder", "dash", "hm", "router", "server", "uic"] {
            let path = format!("{}/../../systemd/dinp-{daemon}.service", env!("CARGO_MANIFEST_DIR"));
            let unit = std::fs::read_to_string(&path).unwrap();
            let limit = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE="));
            let limit: usize = limit.map_or(1024, |limit| limit.parse().unwrap());
            assert!(limit >= 2 * ALL, "{path}: {limit}");
        }
    }

    #[test]
    fn a_network_that_is_not_admitted_gets_no_place() {
        let local: Arc<dyn Fn(IpAddr) -> bool + Send + Sync> = Arc::new(|peer| peer.is_loopback());
        let admission = Admission::new(&Limits { admits: Some(local), ..Limits::default() });
        let admit = |peer, own| admission.admit(address(peer), Some(address(own))).is_some();
        assert!(admit("::ffff:127.0.0.1", "127.0.0.1"));
        assert!(admit("10.0.0.1", "::ffff:10.0.0.1"), "the machine itself");
        assert!(!admit("172.30.0.2", "10.0.0.1"));
    }

    #[test]
    fn the_log_tells_at_once_and_then_now_and_then() {
        let (mut untold, now) = (Untold::default(), Instant::now());
        assert_eq!(untold.note(now), Some(1));
        assert_eq!(untold.note(now), None);
        assert_eq!(untold.note(now + TELL / 2), None);
        assert_eq!(untold.note(now + TELL), Some(3));
    }
}
