//! What the leader writes to MySQL: how deployments go on, and events.
//!
//! A single task writes, so that decisions never wait for the database. Deployments are written in a transaction that
//! checks lease and epoch, so that a leader of the past writes nothing; what could not be written is repeated
//! by the core. Events wait, as many as fit, until the database takes them; what does not fit is counted and lost.

use dinp_common::api::{UnixMillis, unix_millis};
use dinp_common::error::ErrorChain;
use dinp_common::model::AppName;
use dinp_common::store::deployment::{self, Progress};
use dinp_common::store::event::{self, NewEvent};
use dinp_common::store::{self, Change, StoreError, lease};
use mysql_async::Pool;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

const QUEUE: usize = 10_000;
const BATCH: usize = 500;
const ANSWER: Duration = Duration::from_secs(3);
/// Time until events that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(5);
const CLEAN_UP: Duration = Duration::from_secs(3600);

/// Something to write.
enum Entry {
    Deployments { epoch: u64, progress: Vec<Progress> },
    Retire { epoch: u64, app: AppName },
    Event(NewEvent),
}

/// Hands entries to the task that writes them.
#[derive(Clone)]
pub struct Journal(mpsc::Sender<Entry>);

/// A journal, and its task that is to be run. `written` is told when desired state has changed by what it wrote.
pub fn channel(pool: Pool, owner: String, retention_days: u32, written: std::sync::Arc<Notify>) -> (Journal, Writer) {
    let (sender, entries) = mpsc::channel(QUEUE);
    (Journal(sender), Writer { pool, owner, retention_days, written, entries, backlog: Vec::new(), is_failing: false })
}

impl Journal {
    /// Writes how deployments go on.
    pub fn deployments(&self, epoch: u64, progress: Vec<Progress>) {
        self.put(Entry::Deployments { epoch, progress });
    }

    /// A deleted app has nothing left that runs.
    pub fn retire(&self, epoch: u64, app: AppName) {
        self.put(Entry::Retire { epoch, app });
    }

    /// Writes an event.
    pub fn event(&self, app: &AppName, instance: Option<String>, node: Option<String>, kind: &str, detail: &str) {
        let at: UnixMillis = unix_millis();
        let (app, kind, detail) = (app.to_string(), kind.to_owned(), detail.to_owned());
        self.put(Entry::Event(NewEvent { at, app, instance, node, kind, detail }));
    }

    fn put(&self, entry: Entry) {
        if self.0.try_send(entry).is_err() {
            metrics::counter!("dinp_server_journal_lost_total").increment(1);
        }
    }
}

/// The task.
pub struct Writer {
    pool: Pool,
    owner: String,
    retention_days: u32,
    written: std::sync::Arc<Notify>,
    entries: mpsc::Receiver<Entry>,
    /// Events that could not be written yet.
    backlog: Vec<NewEvent>,
    /// Whether the last attempt failed: that is said once.
    is_failing: bool,
}

impl Writer {
    /// Writes what is handed over until `shutdown`, and then once what is left.
    pub async fn run(mut self, shutdown: tokio_util::sync::CancellationToken) {
        let mut clean_up = tokio::time::interval(CLEAN_UP);
        let mut entries = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                _ = self.entries.recv_many(&mut entries, BATCH) => self.write(std::mem::take(&mut entries)).await,
                () = tokio::time::sleep(RETRY), if !self.backlog.is_empty() => self.write(Vec::new()).await,
                _ = clean_up.tick() => self.clean_up().await,
                () = shutdown.cancelled() => break,
            }
        }
        while let Ok(entry) = self.entries.try_recv() {
            entries.push(entry);
        }
        self.write(entries).await;
    }

    async fn write(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let outcome = match entry {
                Entry::Event(event) => {
                    self.backlog.push(event);
                    continue;
                }
                Entry::Deployments { epoch, progress } => self.in_time(self.deployments(epoch, &progress)).await,
                Entry::Retire { epoch, app } => self.in_time(self.retire(epoch, &app)).await,
            };
            if outcome.is_ok() {
                self.written.notify_one();
            }
            self.note(&outcome);
        }
        self.write_backlog().await;
    }

    /// Writes the events that wait, the oldest first; what does not fit any more is counted and lost.
    async fn write_backlog(&mut self) {
        while !self.backlog.is_empty() {
            let batch = &self.backlog[..self.backlog.len().min(BATCH)];
            let (count, outcome) = (batch.len(), self.in_time(self.events(batch)).await);
            self.note(&outcome);
            if outcome.is_err() {
                break;
            }
            self.backlog.drain(..count);
        }
        let lost = self.backlog.len().saturating_sub(QUEUE);
        if lost > 0 {
            self.backlog.drain(..lost);
            metrics::counter!("dinp_server_journal_lost_total").increment(lost as u64);
        }
    }

    fn note(&mut self, outcome: &Result<(), StoreError>) {
        let was_failing = std::mem::replace(&mut self.is_failing, outcome.is_err());
        match outcome {
            Err(error) if !was_failing => {
                warn!(error = %ErrorChain(error), "decisions and events cannot be written down; trying again");
            }
            Ok(()) if was_failing => info!("decisions and events are written down again"),
            _ => {}
        }
    }

    async fn in_time(&self, work: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        match tokio::time::timeout(ANSWER, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::Timeout { act: "write", secs: ANSWER.as_secs() }),
        }
    }

    async fn deployments(&self, epoch: u64, all: &[Progress]) -> Result<(), StoreError> {
        let mut change = Change::begin(&self.pool).await?;
        for progress in all {
            deployment::advance(&mut change, progress).await?;
        }
        if !self.commit(change, epoch).await? {
            return Ok(());
        }
        for progress in all {
            let reason = Some(&*progress.reason).filter(|reason| !reason.is_empty());
            info!(app = %progress.app, deployment = progress.id, reason, "deployment is {}", progress.state.as_str());
        }
        Ok(())
    }

    async fn retire(&self, epoch: u64, app: &AppName) -> Result<(), StoreError> {
        let mut change = Change::begin(&self.pool).await?;
        deployment::retire_app(&mut change, app).await?;
        self.commit(change, epoch).await.map(drop)
    }

    /// Commits for the holder of the lease alone; false if that is somebody else. Asked last, because the lease cannot be
    /// renewed from then until the commit.
    async fn commit(&self, mut change: Change, epoch: u64) -> Result<bool, StoreError> {
        let holds = lease::holds(&mut change.tx, &self.owner, epoch).await?;
        if holds {
            change.commit().await?;
        }
        Ok(holds)
    }

    async fn events(&self, events: &[NewEvent]) -> Result<(), StoreError> {
        let mut conn = store::connect(&self.pool, ANSWER).await?;
        event::append(&mut conn, events).await
    }

    async fn clean_up(&self) {
        let work = async {
            let mut conn = store::connect(&self.pool, ANSWER).await?;
            event::expire(&mut conn, self.retention_days).await.map(drop)
        };
        if let Err(error) = self.in_time(work).await {
            warn!(error = %ErrorChain(&error), "old events could not be dropped");
        }
    }
}
