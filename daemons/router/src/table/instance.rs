//! What the router knows of one instance beyond its record: requests in flight, failures.

use dinp_common::model::InstanceId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// First time that an endpoint is set aside for; doubled with each failure in a row.
const ASIDE_FIRST: Duration = Duration::from_millis(100);
/// Longest time that an endpoint is set aside for.
const ASIDE_MOST: Duration = Duration::from_secs(10);

/// Time in which a new instance comes to its whole share: caches fill, code is compiled, connections are made.
const SLOW_START: Duration = Duration::from_secs(10);
/// A whole share, and what a new instance begins with.
const WARM: u32 = 1000;
const COLD: u32 = WARM / 10;

/// One instance, shared by all workers and by all tables that name it.
#[derive(Debug)]
pub struct Instance {
    /// Its identity.
    pub id: InstanceId,
    in_flight: AtomicU32,
    /// Endpoints of the table that name it.
    names: AtomicU32,
    /// The change of the table with which it came to its address.
    came: AtomicU32,
    failures: AtomicU8,
    /// Its address is that of a newer one.
    is_dispossessed: AtomicBool,
    /// Until when it is set aside, in milliseconds since [`origin`]; 0 for not at all.
    aside_until: AtomicU64,
    /// When it began to come to its share, as above; 0 where it has had it all along.
    began: AtomicU64,
}

// A large table has many: with its counts of references an instance takes one block of 64 bytes.
const _: () = assert!(size_of::<Instance>() <= 48);

/// Zero of the clock that [`Instance::aside_until`] counts on.
fn origin() -> Instant {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn millis(now: Instant) -> u64 {
    // The first millisecond counts as 1, because 0 means "not set aside".
    u64::try_from(now.saturating_duration_since(origin()).as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

impl Instance {
    /// An instance that nothing is known of yet.
    pub fn new(id: InstanceId) -> Arc<Self> {
        origin();
        Arc::new(Self {
            id,
            in_flight: AtomicU32::new(0),
            names: AtomicU32::new(0),
            came: AtomicU32::new(0),
            failures: AtomicU8::new(0),
            is_dispossessed: AtomicBool::new(false),
            aside_until: AtomicU64::new(0),
            began: AtomicU64::new(0),
        })
    }

    /// It is new beside others that are not.
    pub fn starts_slowly(&self, now: Instant) {
        self.began.store(millis(now), Ordering::Relaxed);
    }

    /// How much of its share it gets, in thousandths.
    pub fn warmth(&self, now: Instant) -> u32 {
        let began = self.began.load(Ordering::Relaxed);
        if began == 0 {
            return WARM;
        }
        let age = millis(now).saturating_sub(began);
        let whole = SLOW_START.as_millis() as u64;
        if age >= whole {
            self.began.store(0, Ordering::Relaxed);
            return WARM;
        }
        COLD + ((u64::from(WARM - COLD) * age) / whole) as u32
    }

    /// Requests in flight to it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// A request is in flight to it from now on, until its [`end`](Self::end); unless so many are already.
    pub(crate) fn begin(&self, most: u32) -> bool {
        let more = |count: u32| (count < most).then_some(count.wrapping_add(1));
        self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Notes that no connection could be made: it is set aside for a moment, longer each time in a row.
    pub fn refused(&self, now: Instant) {
        let more = |failures: u8| Some(failures.saturating_add(1));
        let (Ok(failures) | Err(failures)) = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let pause = ASIDE_FIRST.saturating_mul(1 << failures.min(16)).min(ASIDE_MOST);
        self.aside_until.store(millis(now + pause), Ordering::Relaxed);
    }

    /// Notes that a connection was made.
    pub fn connected(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.aside_until.store(0, Ordering::Relaxed);
        }
    }

    /// One more endpoint of the table names it.
    pub(super) fn named(&self) {
        self.names.fetch_add(1, Ordering::Relaxed);
    }

    /// One endpoint names it no more; true if none does.
    pub(super) fn unnamed(&self) -> bool {
        self.names.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// It has an address of its own from this change of the table on.
    pub(super) fn comes(&self, change: u32) {
        self.came.store(change, Ordering::Relaxed);
        self.is_dispossessed.store(false, Ordering::Release);
    }

    /// The change with which it came to its address.
    pub(super) fn came(&self) -> u32 {
        self.came.load(Ordering::Relaxed)
    }

    /// Another instance has been seen at its address.
    pub(super) fn dispossess(&self) {
        self.is_dispossessed.store(true, Ordering::Release);
    }

    /// Whether nothing may be sent to it: what listens at its address is not it.
    pub(crate) fn is_dispossessed(&self) -> bool {
        self.is_dispossessed.load(Ordering::Acquire)
    }

    /// Whether it is set aside now.
    pub fn is_aside(&self, now: Instant) -> bool {
        let until = self.aside_until.load(Ordering::Relaxed);
        until != 0 && millis(now) < until
    }
}

/// Something that is in flight to an instance for long, whatever becomes of the table: a tunnel.
#[derive(Debug)]
pub struct InFlight(Arc<Instance>);

impl InFlight {
    /// Counts one.
    pub fn new(instance: &Arc<Instance>) -> Self {
        // Who has agreed to a tunnel has it already.
        instance.begin(u32::MAX);
        Self(instance.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_aside_longer_each_time_and_not_for_ever() {
        let instance = Instance::new(InstanceId::from_bits(1));
        let start = Instant::now();
        assert!(!instance.is_aside(start));
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            instance.refused(start);
            let mut pause = Duration::ZERO;
            while instance.is_aside(start + pause) {
                pause += Duration::from_millis(50);
            }
            assert!(pause >= last && pause <= ASIDE_MOST + Duration::from_millis(50), "{pause:?}");
            last = pause;
        }
        assert!(last >= ASIDE_MOST);
        instance.connected();
        assert!(!instance.is_aside(start));
    }

    #[test]
    fn in_flight_counts_what_lives() {
        let instance = Instance::new(InstanceId::from_bits(1));
        let (one, two) = (InFlight::new(&instance), InFlight::new(&instance));
        assert_eq!(instance.in_flight(), 2);
        drop(one);
        drop(two);
        assert_eq!(instance.in_flight(), 0);
    }
}
