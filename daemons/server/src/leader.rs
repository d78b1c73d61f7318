//! Leadership: one server at a time holds the lease row in MySQL.
//!
//! ```text
//!              lease taken                    no renewal for 2 s
//!   Standby ----------------> Leading(epoch) --------------------> Holdover(epoch)
//!      ^                        |      ^                              |    |
//!      |   somebody else holds  |      +--- renewed ------------------+    |
//!      +------------------------+------------ somebody else holds ---------+
//! ```
//!
//! The lease lasts 3 s on the database's clock and is renewed each 0.75 s. It is counted from the *sending* of the
//! renewal on the monotonic clock and trusted for 2 s, so that a leader stops to act as one before a standby
//! can start to. In holdover nothing is stopped, scaled in or deployed; what runs is kept, placed and routed.

use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat, Lifecycle};
use dinp_common::store::{self, StoreError, lease};
use mysql_async::Pool;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

const LEASE_SECS: u32 = 3;
const RENEW: Duration = Duration::from_millis(750);
const TRY: Duration = Duration::from_millis(500);
const TRUST: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_millis(1500);

/// What this server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Somebody else leads, or nobody.
    Standby {
        /// URL of who leads, as far as known.
        leader: Option<String>,
    },
    /// This server leads.
    Leading {
        /// In this epoch.
        epoch: u64,
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
            Self::Leading { epoch } | Self::Holdover { epoch } => Some(*epoch),
        }
    }
}

/// What an attempt on the lease showed.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Holds { epoch: u64 },
    HeldBy { url: String },
    Failed,
}

/// The state that follows: pure, so that the rule stands in one place.
fn next(now: &Leadership, attempt: &Attempt, since_renewal: Duration) -> Leadership {
    match (attempt, now.epoch()) {
        (Attempt::Holds { epoch }, _) => Leadership::Leading { epoch: *epoch },
        (Attempt::HeldBy { url }, _) => Leadership::Standby { leader: (!url.is_empty()).then(|| url.clone()) },
        (Attempt::Failed, Some(epoch)) if since_renewal >= TRUST => Leadership::Holdover { epoch },
        (Attempt::Failed, _) => now.clone(),
    }
}

/// Competes for the lease until shutdown, and gives it back then.
pub struct Candidate {
    pool: Pool,
    owner: String,
    url: String,
    state: watch::Sender<Leadership>,
    /// Epochs above the own that somebody has seen.
    seen: mpsc::Receiver<u64>,
    condition: Condition,
    heartbeat: Heartbeat,
}

impl Candidate {
    /// A candidate that names itself `owner` and is reached at `url`.
    pub fn new(
        pool: Pool,
        owner: String,
        url: String,
        state: watch::Sender<Leadership>,
        seen: mpsc::Receiver<u64>,
        lifecycle: &Lifecycle,
    ) -> Self {
        let condition = lifecycle.condition("database");
        let heartbeat = lifecycle.heartbeat("lease", Duration::from_secs(20));
        Self { pool, owner, url, state, seen, condition, heartbeat }
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: tokio_util::sync::CancellationToken) {
        let mut renewed = Instant::now();
        let mut above = None;
        loop {
            let sent = Instant::now();
            let attempt = self.attempt(above.take()).await;
            if matches!(attempt, Attempt::Holds { .. }) {
                renewed = sent;
            }
            self.heartbeat.beat();
            // Not in one expression: a borrow that is still held would lock out the change.
            let now = self.state.borrow().clone();
            self.enter(next(&now, &attempt, renewed.elapsed()));
            let pause = if self.state.borrow().epoch().is_some() { RENEW } else { TRY };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep_until(sent + pause) => {}
                epoch = self.seen.recv() => above = epoch,
            }
        }
        self.step_down().await;
    }

    async fn attempt(&self, above: Option<u64>) -> Attempt {
        let work = async {
            let mut conn = store::connect(&self.pool, ANSWER).await?;
            let mut held = lease::hold(&mut conn, &self.owner, &self.url, LEASE_SECS).await?;
            if let Some(seen) = above.filter(|seen| *seen >= held.epoch && held.owner == self.owner) {
                warn!(seen, epoch = held.epoch, "somebody has seen a higher epoch; raising it above");
                held = lease::raise(&mut conn, &self.owner, seen).await?;
            }
            Ok::<_, StoreError>(held)
        };
        let held = match tokio::time::timeout(ANSWER, work).await {
            Ok(held) => held,
            Err(_) => Err(StoreError::Timeout { act: "hold the lease", secs: ANSWER.as_secs() }),
        };
        match held {
            Ok(held) => {
                self.condition.ok();
                if held.owner == self.owner {
                    Attempt::Holds { epoch: held.epoch }
                } else {
                    Attempt::HeldBy { url: held.url }
                }
            }
            Err(error) => {
                self.condition.missing(&ErrorChain(&error).to_string());
                Attempt::Failed
            }
        }
    }

    fn enter(&self, next: Leadership) {
        let before = self.state.borrow().clone();
        if before == next {
            return;
        }
        match &next {
            Leadership::Leading { epoch } => info!(epoch, "leading"),
            Leadership::Holdover { epoch } => {
                warn!(epoch, "the lease cannot be renewed: nothing is stopped or deployed until it can");
            }
            Leadership::Standby { leader } => info!(leader = leader.as_deref().unwrap_or("nobody"), "standing by"),
        }
        self.state.send_replace(next);
    }

    async fn step_down(&self) {
        if self.state.borrow().epoch().is_none() {
            return;
        }
        self.state.send_replace(Leadership::Standby { leader: None });
        let work = async {
            let mut conn = store::connect(&self.pool, ANSWER).await?;
            lease::release(&mut conn, &self.owner).await
        };
        match tokio::time::timeout(ANSWER, work).await {
            Ok(Ok(())) => info!("gave the lease back"),
            Ok(Err(error)) => warn!(error = %ErrorChain(&error), "the lease could not be given back and will run out"),
            Err(_) => warn!("the lease could not be given back in time and will run out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leading() -> Leadership {
        Leadership::Leading { epoch: 7 }
    }

    #[test]
    fn a_leader_goes_into_holdover_only_when_its_lease_is_no_longer_trusted() {
        assert_eq!(next(&leading(), &Attempt::Failed, Duration::from_millis(1900)), leading());
        assert_eq!(next(&leading(), &Attempt::Failed, TRUST), Leadership::Holdover { epoch: 7 });
    }

    #[test]
    fn holdover_ends_with_a_renewal_or_with_somebody_else() {
        let holdover = Leadership::Holdover { epoch: 7 };
        assert_eq!(next(&holdover, &Attempt::Failed, Duration::from_secs(600)), holdover);
        assert_eq!(next(&holdover, &Attempt::Holds { epoch: 7 }, Duration::ZERO), leading());
        let other = Attempt::HeldBy { url: "http://b".into() };
        assert_eq!(next(&holdover, &other, Duration::ZERO), Leadership::Standby { leader: Some("http://b".into()) });
    }

    #[test]
    fn a_standby_without_a_database_stays_one() {
        let standby = Leadership::Standby { leader: None };
        assert_eq!(next(&standby, &Attempt::Failed, Duration::from_secs(600)), standby);
    }
}
