//! Leadership: one server at a time holds the lease row in MySQL.
//!
//! ```text
//!              lease taken                    no renewal for 2 s
//!   Standby ----------------> Leading(epoch) --------------------> Holdover(epoch)
//!      ^                        |      ^                              |    |
//!      |   somebody else holds, |      +--- renewed ------------------+    |
//!      |   or leads in a higher |                    somebody else holds,  |
//!      +--- epoch --------------+------------------- or leads -------------+
//! ```
//!
//! The lease lasts 3 s on the database's clock and is renewed each 0.75 s ([`crate::candidate`]). It is counted from the
//! *sending* of the renewal on the monotonic clock and trusted for 2 s, so that a leader stops to act as one before a
//! standby can start to; who is about to destroy something asks [`Leadership::may_destroy_at`] first. In holdover nothing
//! is stopped, scaled in or deployed; what runs is kept, placed and routed. A leader is in holdover only while it cannot
//! reach the database and knows of nobody else.

use std::time::Duration;
use tokio::time::Instant;

/// How long a renewal is trusted.
const TRUST: Duration = Duration::from_secs(2);

/// Another server that leads, as the lease names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Where its API is.
    pub url: String,
    /// In this epoch.
    pub epoch: u64,
}

/// What this server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Somebody else leads, or nobody.
    Standby {
        /// Who leads, as far as known.
        leader: Option<Leader>,
    },
    /// This server leads.
    Leading {
        /// In this epoch.
        epoch: u64,
        /// The lease is this server's until then, whatever happens to the database.
        trusted_until: Instant,
    },
    /// This server led, and cannot renew its lease.
    Holdover {
        /// In this epoch.
        epoch: u64,
    },
}

impl Leadership {
    /// The epoch that this server may act in.
    pub fn epoch(&self) -> Option<u64> {
        match self {
            Self::Standby { .. } => None,
            Self::Leading { epoch, .. } | Self::Holdover { epoch } => Some(*epoch),
        }
    }

    /// Whether this server may stop, scale in or deploy at `now`. A process that stood still finds out here that its lease
    /// has run out meanwhile.
    pub fn may_destroy_at(&self, now: Instant) -> bool {
        matches!(self, Self::Leading { trusted_until, .. } if now < *trusted_until)
    }

    /// Whether both say the same but for how long it is trusted.
    pub(crate) fn is_same_standing(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leading { epoch, .. }, Self::Leading { epoch: of, .. }) => epoch == of,
            _ => self == other,
        }
    }
}

/// What an attempt on the lease showed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It is this server's; the statement that took it was sent then.
    Holds { epoch: u64, sent: Instant },
    /// It is somebody else's.
    HeldBy(Leader),
    /// The database did not say.
    Failed,
}

/// The state that follows at `now`: pure, so that the rule stands in one place. `above` is the epoch in which somebody
/// else is known to lead, or to have led.
pub(crate) fn next(before: &Leadership, attempt: Attempt, above: Option<u64>, now: Instant) -> Leadership {
    match attempt {
        Attempt::HeldBy(leader) => return Leadership::Standby { leader: Some(leader) },
        // An answer that was long on its way says what was, not what is.
        Attempt::Holds { epoch, sent } if now < sent + TRUST => {
            return Leadership::Leading { epoch, trusted_until: sent + TRUST };
        }
        Attempt::Holds { .. } | Attempt::Failed => {}
    }
    match before {
        Leadership::Leading { epoch, .. } | Leadership::Holdover { epoch }
            if above.is_some_and(|seen| seen >= *epoch) =>
        {
            Leadership::Standby { leader: None }
        }
        Leadership::Leading { epoch, trusted_until } if now >= *trusted_until => Leadership::Holdover { epoch: *epoch },
        _ => before.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    fn leading(renewed: Instant) -> Leadership {
        Leadership::Leading { epoch: 7, trusted_until: renewed + TRUST }
    }

    const HOLDOVER: Leadership = Leadership::Holdover { epoch: 7 };

    #[test]
    fn a_leader_goes_into_holdover_only_when_its_lease_is_no_longer_trusted() {
        let renewed = Instant::now();
        let before = leading(renewed);
        assert_eq!(next(&before, Attempt::Failed, None, renewed + secs(1.9)), before);
        assert_eq!(next(&before, Attempt::Failed, None, renewed + TRUST), HOLDOVER);
    }

    #[test]
    fn a_leader_that_stood_still_destroys_nothing_before_it_has_renewed() {
        let renewed = Instant::now();
        let before = leading(renewed);
        assert!(before.may_destroy_at(renewed + secs(1.9)));
        let woken = renewed + secs(60.0);
        assert!(!before.may_destroy_at(woken));
        // The answer to a renewal from before the halt is worth nothing any more.
        let late = next(&before, Attempt::Holds { epoch: 7, sent: renewed + secs(0.75) }, None, woken);
        assert_eq!(late, HOLDOVER);
        assert!(!late.may_destroy_at(woken));
        let again = next(&late, Attempt::Holds { epoch: 7, sent: woken }, None, woken + secs(0.1));
        assert_eq!(again, leading(woken));
        assert!(again.may_destroy_at(woken + secs(0.1)));
    }

    #[test]
    fn holdover_ends_with_a_renewal_or_with_somebody_else() {
        let now = Instant::now();
        assert_eq!(next(&HOLDOVER, Attempt::Failed, None, now), HOLDOVER);
        assert_eq!(next(&HOLDOVER, Attempt::Holds { epoch: 7, sent: now }, None, now), leading(now));
        let other = Leader { url: "http://b".into(), epoch: 8 };
        let standby = Leadership::Standby { leader: Some(other.clone()) };
        assert_eq!(next(&HOLDOVER, Attempt::HeldBy(other), None, now), standby);
    }

    #[test]
    fn who_hears_of_a_higher_epoch_and_cannot_ask_the_database_gives_up_at_once() {
        let now = Instant::now();
        let standby = Leadership::Standby { leader: None };
        for before in [leading(now), HOLDOVER] {
            assert_eq!(next(&before, Attempt::Failed, Some(8), now), standby);
            assert_eq!(next(&before, Attempt::Failed, Some(6), now), before, "that was before this one");
            let raised = next(&before, Attempt::Holds { epoch: 9, sent: now }, Some(8), now);
            assert_eq!(raised.epoch(), Some(9), "who holds the lease has raised it above");
        }
    }

    #[test]
    fn a_standby_without_a_database_stays_one() {
        let standby = Leadership::Standby { leader: None };
        assert_eq!(next(&standby, Attempt::Failed, Some(9), Instant::now()), standby);
    }
}
