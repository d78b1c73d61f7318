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
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let all = usize::try_from(descriptors / 2).unwrap_or(ALL).min(ALL);
        Self { head: super::HEADER_READ_TIMEOUT, each: all / 8, all, admits: None }
    }
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

    /// A place for a connection from this address; none where it is refused, which is counted and told now and then.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        let refusal = if self.admits.as_ref().is_some_and(|admits| !admits(peer)) {
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

/// Refused connections that the log has not told of.
#[derive(Debug, Default)]
struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl Untold {
    /// One more; how many are to be told now, if it is time.
    fn note(&mut self, now: Instant) -> Option<u64> {
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
        let places = [admission.admit(address("192.0.2.1")), admission.admit(address("::ffff:192.0.2.1"))];
        assert!(places.iter().all(Option::is_some));
        assert!(admission.admit(address("192.0.2.1")).is_none(), "it has its two");
        let other = admission.admit(address("2001:db8::1"));
        assert!(other.is_some());
        assert!(admission.admit(address("192.0.2.9")).is_none(), "all are taken");
        drop(places);
        let neighbour = admission.admit(address("2001:db8::2"));
        assert!(neighbour.is_some());
        assert!(admission.admit(address("2001:db8::3")).is_none(), "of the same network");
    }

    #[test]
    fn a_network_that_is_not_admitted_gets_no_place() {
        let local: Arc<dyn Fn(IpAddr) -> bool + Send + Sync> = Arc::new(|peer| peer.is_loopback());
        let admission = Admission::new(&Limits { admits: Some(local), ..Limits::default() });
        assert!(admission.admit(address("::ffff:127.0.0.1")).is_some());
        assert!(admission.admit(address("172.30.0.2")).is_none());
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
