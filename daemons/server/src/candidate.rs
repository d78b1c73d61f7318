//! Competes for the lease: takes it, renews it, gives it back. What follows from each attempt is decided in
//! [`crate::leader`].
//!
//! It has a connection to the database of its own, so that no other work of this server can make it wait.

use crate::leader::{Attempt, Leader, Leadership, next};
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat, Lifecycle};
use dinp_common::store::lease::{self, EPOCH_MAX, Lease};
use dinp_common::store::{StoreError, connect_alone};
use mysql_async::{Conn, Opts};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

const LEASE_SECS: u32 = 3;
const LEASE: Duration = Duration::from_secs(LEASE_SECS as u64);
const RENEW: Duration = Duration::from_millis(750);
const TRY: Duration = Duration::from_millis(500);
/// Least time between two attempts, however many have seen a higher epoch.
const HASTE: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_millis(1500);

/// Competes for the lease until shutdown, and gives it back then.
pub struct Candidate {
    lease: LeaseRow,
    state: watch::Sender<Leadership>,
    /// Epochs above the own that somebody has seen.
    seen: mpsc::Receiver<u64>,
    condition: Condition,
    heartbeat: Heartbeat,
}

impl Candidate {
    /// A candidate that names itself `owner` and is reached at `url`.
    pub fn new(
        database: Opts,
        owner: String,
        url: String,
        state: watch::Sender<Leadership>,
        seen: mpsc::Receiver<u64>,
        lifecycle: &Lifecycle,
    ) -> Self {
        let condition = lifecycle.condition("database");
        let heartbeat = lifecycle.heartbeat("lease", Duration::from_secs(20));
        Self { lease: LeaseRow { database, conn: None, owner, url, watched: None }, state, seen, condition, heartbeat }
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: tokio_util::sync::CancellationToken) {
        let mut above = None;
        loop {
            let sent = Instant::now();
            let attempt = self.attempt(sent, above).await;
            self.heartbeat.beat();
            // Not in one expression: a borrow that is still held would lock out the change.
            let before = self.state.borrow().clone();
            self.enter(next(&before, attempt, above.take(), Instant::now()));
            tokio::select! {
                () = shutdown.cancelled() => break,
                seen = self.pause(sent) => above = seen,
            }
        }
        self.step_down().await;
    }

    async fn attempt(&mut self, sent: Instant, above: Option<u64>) -> Attempt {
        match self.lease.hold(above).await {
            Ok(held) => {
                self.condition.ok();
                if held.owner == self.lease.owner {
                    Attempt::Holds { epoch: held.epoch, sent }
                } else {
                    Attempt::HeldBy(Leader { url: held.url, epoch: held.epoch })
                }
            }
            Err(error) => {
                self.condition.missing(&ErrorChain(&error).to_string());
                Attempt::Failed
            }
        }
    }

    /// Waits for the next attempt, which is due earlier when somebody has seen a higher epoch.
    async fn pause(&mut self, sent: Instant) -> Option<u64> {
        let pause = if self.state.borrow().epoch().is_some() { RENEW } else { TRY };
        sleep_until(sent + HASTE).await;
        tokio::select! {
            // First: where attempts last longer than a pause, the pause is always over.
            biased;
            Some(seen) = self.seen.recv() => Some(seen),
            () = sleep_until(sent + pause) => None,
        }
    }

    fn enter(&self, next: Leadership) {
        self.state.send_if_modified(|state| {
            let changed = !state.is_same_standing(&next);
            if changed {
                tell(&next);
            }
            *state = next;
            changed
        });
    }

    async fn step_down(&mut self) {
        if self.state.borrow().epoch().is_none() {
            return;
        }
        self.state.send_replace(Leadership::Standby { leader: None });
        match self.lease.release().await {
            Ok(()) => info!("gave the lease back"),
            Err(error) => warn!(error = %ErrorChain(&error), "the lease could not be given back and will run out"),
        }
    }
}

fn tell(next: &Leadership) {
    match next {
        Leadership::Leading { epoch, .. } => info!(epoch, "leading"),
        Leadership::Holdover { epoch } => {
            warn!(epoch, "the lease cannot be renewed: nothing is stopped or deployed until it can");
        }
        Leadership::Standby { leader } => {
            info!(leader = leader.as_ref().map_or("unknown", |leader| &leader.url), "standing by");
        }
    }
}

/// The row in the database, over a connection that is opened when it is needed and given up after any failure.
struct LeaseRow {
    database: Opts,
    conn: Option<Conn>,
    owner: String,
    url: String,
    /// When somebody else's lease ends by the database's clock, and since when it has been seen to say so.
    watched: Option<(String, Instant)>,
}

impl LeaseRow {
    async fn hold(&mut self, above: Option<u64>) -> Result<Lease, StoreError> {
        let silent = self.silent();
        let held = self
            .in_time("hold the lease", async |row| {
                let (owner, url) = (row.owner.clone(), row.url.clone());
                let conn = row.conn().await?;
                let held = lease::hold(conn, &owner, &url, LEASE_SECS, silent.as_deref()).await?;
                match above.filter(|seen| *seen >= held.epoch && held.owner == owner) {
                    Some(seen) if seen >= EPOCH_MAX => {
                        warn!(seen, epoch = held.epoch, "somebody claims an epoch that cannot be; it is ignored");
                        Ok(held)
                    }
                    Some(seen) => {
                        warn!(seen, epoch = held.epoch, "somebody has seen a higher epoch; raising it above");
                        lease::raise(conn, &owner, seen).await
                    }
                    None => Ok(held),
                }
            })
            .await?;
        self.watch(&held);
        Ok(held)
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        self.in_time("give the lease back", async |row| {
            let owner = row.owner.clone();
            lease::release(row.conn().await?, &owner).await
        })
        .await
    }

    /// The end of somebody else's lease, once it has not been renewed for as long as a lease lasts: on this machine's
    /// monotonic clock, so that a jump of the database's clock leaves nobody without a leader.
    fn silent(&self) -> Option<String> {
        self.watched.as_ref().filter(|(_, since)| since.elapsed() >= LEASE).map(|(expires, _)| expires.clone())
    }

    fn watch(&mut self, held: &Lease) {
        let known = self.watched.as_ref().is_some_and(|(expires, _)| *expires == held.expires);
        if !known {
            self.watched = Some((held.expires.clone(), Instant::now()));
        }
    }

    async fn conn(&mut self) -> Result<&mut Conn, StoreError> {
        if self.conn.is_none() {
            self.conn = Some(connect_alone(self.database.clone()).await?);
        }
        Ok(self.conn.as_mut().expect("it was set above"))
    }

    async fn in_time<T>(
        &mut self,
        act: &'static str,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let outcome = timeout(ANSWER, work(self))
            .await
            .unwrap_or_else(|_| Err(StoreError::Timeout { act, secs: ANSWER.as_secs() }));
        if outcome.is_err() {
            self.conn = None;
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_leads_elsewhere_is_heard_of_however_long_the_database_lets_wait() {
        let state = watch::Sender::new(Leadership::Holdover { epoch: 1 });
        let (told, seen) = mpsc::channel(1);
        let (owner, url) = ("a".to_owned(), "http://a".to_owned());
        let lifecycle = Lifecycle::for_tests();
        let mut candidate = Candidate::new(Opts::default(), owner, url, state, seen, &lifecycle);
        for _ in 0..64 {
            told.send(2).await.unwrap();
            let sent = Instant::now() - ANSWER;
            assert_eq!(candidate.pause(sent).await, Some(2));
        }
    }
}
