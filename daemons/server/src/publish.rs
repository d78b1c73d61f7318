//! The leader's table in Redis: a task takes in what is there when a leadership begins, publishes what was decided, and
//! mends what somebody else has changed.

use crate::input::{Handle, Input, Outcome};
use crate::leader::Leadership;
use crate::tickets::Keys;
use dinp_common::api::ProvedRevision;
use dinp_common::credentials::Secret;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat};
use dinp_common::model::Version;
use dinp_common::routes::{Head, Publisher, RouteError, Signature, Table, difference};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Longest wait for Redis, and what is granted on top for each app of the table.
const ANSWER: Duration = Duration::from_secs(2);
/// See [`ANSWER`].
const PER_APP: Duration = Duration::from_millis(1);
/// Longest wait for the table of the leader before.
const ADOPTION: Duration = Duration::from_secs(15);
/// Time between two comparisons of Redis with the table.
const MEND: Duration = Duration::from_secs(10);
/// Time until a table that could not be read is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What is to be in Redis.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Epoch of the reign; 0 for none.
    pub epoch: u64,
    /// Rises with each table of the reign.
    number: u64,
    table: Option<Arc<Table>>,
    /// What goes into the head with it.
    signature: Signature,
}

impl Wanted {
    /// A reign begins: there is no table yet.
    pub fn of_epoch(epoch: u64, signature: Signature) -> Self {
        Self { epoch, signature, ..Self::default() }
    }

    /// From now on this is the highest revision that was carried out.
    pub fn note_revision(&mut self, highest: ProvedRevision) {
        self.signature.highest_revision = highest;
    }

    /// From now on it is this table.
    pub fn next(&mut self, table: Table) {
        self.number += 1;
        self.table = Some(Arc::new(table));
    }
}

/// The task. It tells the driver what came of each table.
pub struct Publication {
    /// The table in Redis.
    pub routes: Routes,
    /// What is to be there.
    pub wanted: watch::Receiver<Wanted>,
    /// Who is told.
    pub handle: Handle,
    /// What this server is.
    pub leadership: watch::Receiver<Leadership>,
    /// Whether Redis can be used.
    pub redis: Condition,
    /// Sign of life.
    pub heartbeat: Heartbeat,
}

impl Publication {
    /// Longest silence of the task.
    pub const SILENCE: Duration = Duration::from_secs(120);

    /// Publishes until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut adopted = false;
        let mut done = 0;
        let mut mend = Instant::now() + MEND;
        loop {
            self.heartbeat.beat();
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted.epoch != self.routes.epoch {
                self.routes.begin(wanted.epoch);
                (adopted, done) = (false, 0);
            }
            self.routes.signature = wanted.signature;
            let is_due = Instant::now() >= mend;
            let wait = match &wanted.table {
                // It is the leader's: who stands by is ready without it.
                _ if wanted.epoch == 0 => {
                    self.redis.ok();
                    MEND
                }
                _ if !adopted => {
                    adopted = self.adopt().await;
                    if adopted { Duration::ZERO } else { RETRY }
                }
                Some(table) if wanted.number != done => {
                    done = wanted.number;
                    self.publish(table).await;
                    Duration::ZERO
                }
                Some(_) if is_due => {
                    self.mend().await;
                    mend = Instant::now() + MEND;
                    MEND
                }
                _ => MEND,
            };
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn adopt(&mut self) -> bool {
        match self.routes.adopt().await {
            Ok((table, highest)) => {
                self.redis.ok();
                self.tell(Outcome::Adopted(table, highest)).await;
                true
            }
            Err(error) => {
                self.redis.missing(&ErrorChain(&error).to_string());
                false
            }
        }
    }

    async fn publish(&mut self, table: &Table) {
        let outcome = match self.routes.publish(table).await {
            Ok(version) => {
                self.redis.ok();
                Outcome::Published(version)
            }
            Err(error) => self.refused(&error).await,
        };
        self.tell(outcome).await;
    }

    async fn mend(&mut self) {
        match self.routes.mend().await {
            Ok(None) => self.redis.ok(),
            // The same table under a later version: what waits for the earlier one is satisfied by it.
            Ok(Some(version)) => {
                warn!(version = %version, "Redis did not hold the table that was published; wrote it anew");
                self.redis.ok();
            }
            Err(error) => {
                let outcome = self.refused(&error).await;
                self.tell(outcome).await;
            }
        }
    }

    /// What follows from a refusal. A higher number in Redis counts with the proof of a server alone; one without is
    /// nobody's, and is cleared away by who holds the lease: it would keep everybody from publishing for ever.
    async fn refused(&mut self, error: &RouteError) -> Outcome {
        self.redis.missing(&ErrorChain(error).to_string());
        warn!(error = %ErrorChain(error), "routes could not be published; trying again");
        let RouteError::Fenced { highest, head } = error else { return Outcome::Failed };
        match head.as_ref().filter(|head| head.version.epoch >= self.routes.epoch && self.routes.is_proved(head)) {
            Some(head) => Outcome::Fenced(head.version.epoch),
            None if self.leadership.borrow().may_destroy_at(Instant::now()) => {
                warn!(highest = %highest, "no server has published this version: its log is forgotten");
                self.routes.forget_log().await;
                Outcome::Failed
            }
            None => Outcome::Failed,
        }
    }

    async fn tell(&self, outcome: Outcome) {
        // A driver that has ended needs no answer.
        self.handle.send(Input::Routes(self.routes.epoch, outcome)).await.ok();
    }
}

/// Publishes the table of one leadership under its epoch. Not connected until the first use, and again after a failure.
pub struct Routes {
    url: String,
    user: String,
    password: Secret,
    cluster: String,
    keys: Arc<Keys>,
    epoch: u64,
    signature: Signature,
    seq: u64,
    connection: Option<Publisher>,
    /// What Redis holds, as far as this leader knows.
    known: Option<(Version, Table)>,
}

impl Routes {
    /// A publisher that has no epoch yet.
    pub fn new(url: String, user: String, password: Secret, cluster: String, keys: Arc<Keys>) -> Self {
        let signature = Signature::default();
        Self { url, user, password, cluster, keys, epoch: 0, signature, seq: 0, connection: None, known: None }
    }

    /// Begins an epoch: what Redis holds has to be looked at again.
    pub fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.seq = 0;
        self.known = None;
    }

    /// The table that the leader before left in Redis, and the highest revision that it names; empty where there is none.
    pub async fn adopt(&mut self) -> Result<(Table, ProvedRevision), RouteError> {
        // Nobody knows how large the table is that the leader before has left.
        self.in_time(ADOPTION, async |routes| {
            let connection = routes.connection().await?;
            let head = connection.head().await?;
            let records = connection.read_all().await?;
            let table = understood(&records);
            let highest = head.as_ref().map(|head| head.signature.highest_revision.clone()).unwrap_or_default();
            if let Some(head) = head.filter(|head| head.complete && records.len() == table.len()) {
                routes.known = Some((head.version, table.clone()));
            }
            Ok((table, highest))
        })
        .await
    }

    /// Publishes a table and returns its version. [`RouteError::Fenced`]: somebody has published in a higher epoch.
    pub async fn publish(&mut self, table: &Table) -> Result<Version, RouteError> {
        self.in_time(patience(table), async |routes| routes.write(table).await).await
    }

    /// Compares Redis with what was published, and writes it anew where they differ. The new version, if so.
    pub async fn mend(&mut self) -> Result<Option<Version>, RouteError> {
        let Some((version, table)) = self.known.clone().filter(|(version, _)| version.epoch == self.epoch) else {
            return Ok(None);
        };
        let highest = self.signature.highest_revision.clone();
        self.in_time(patience(&table), async |routes| {
            let connection = routes.connection().await?;
            let head = connection.head().await?;
            let records = connection.read_all().await?;
            let head = head.filter(|head| head.complete && head.version == version);
            let is_same = records.len() == table.len() && understood(&records) == table;
            if let Some(head) = head.filter(|_| is_same) {
                if head.signature.highest_revision != highest {
                    connection.note_revision(version, &highest).await?;
                }
                return Ok(None);
            }
            routes.known = None;
            routes.write(&table).await.map(Some)
        })
        .await
    }

    async fn write(&mut self, table: &Table) -> Result<Version, RouteError> {
        // A number is used once, even if it is not known whether Redis has seen it.
        self.seq += 1;
        let id = Version::new(self.epoch, self.seq);
        let known = self.known.take();
        let signature = self.signature.clone();
        let connection = self.connection().await?;
        connection.sign(signature);
        let followed = match &known {
            Some((prev, before)) => connection.publish(*prev, id, &difference(before, table)).await,
            None => Err(RouteError::Gap),
        };
        match followed {
            Err(RouteError::Gap) => connection.rewrite(id, table).await?,
            other => other?,
        }
        self.known = Some((id, table.clone()));
        Ok(id)
    }

    /// Whether a server has published this head.
    fn is_proved(&self, head: &Head) -> bool {
        let Signature { holder, proof, .. } = &head.signature;
        self.keys.proves(proof, &self.cluster, head.version.epoch, holder)
    }

    /// Forgets the log, with ids that no server has written.
    async fn forget_log(&mut self) {
        let forgotten = self.in_time(ANSWER, async |routes| routes.connection().await?.forget_log().await).await;
        if let Err(error) = forgotten {
            warn!(error = %ErrorChain(&error), "the log of the routes could not be forgotten");
        }
    }

    async fn connection(&mut self) -> Result<&mut Publisher, RouteError> {
        if self.connection.is_none() {
            let connected = Publisher::connect(&self.url, &self.user, &self.password, &self.cluster).await?;
            self.connection = Some(connected);
        }
        Ok(self.connection.as_mut().expect("it was set above"))
    }

    async fn in_time<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, RouteError>,
    ) -> Result<T, RouteError> {
        let result = match tokio::time::timeout(limit, work(self)).await {
            Ok(result) => result,
            Err(_) => Err(RouteError::Timeout { millis: limit.as_millis() as u64 }),
        };
        if result.is_err() {
            self.connection = None;
        }
        result
    }
}

/// Longest wait for a table to be written.
fn patience(table: &Table) -> Duration {
    ANSWER + PER_APP * u32::try_from(table.len()).unwrap_or(u32::MAX)
}

fn understood(records: &HashMap<String, Option<dinp_common::routes::AppRoutes>>) -> Table {
    records.values().flatten().map(|routes| (routes.app.clone(), routes.clone())).collect()
}
