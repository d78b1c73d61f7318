//! What the leader writes to MySQL: how deployments go on, and events.
//!
//! A single task writes, so that decisions never wait for the database. Deployments are written in a transaction that
//! checks lease and epoch, so that a leader of the past writes nothing; what could not be written is repeated
//! by the core. Events wait in a bounded queue, and what does not fit is counted and lost.

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

impl Journal {
    /// Starts the task. `written` is told when desired state has changed by what it wrote.
    pub fn start(pool: Pool, owner: String, retention_days: u32, written: std::sync::Arc<Notify>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(Writer { pool, owner, retention_days, written }.run(receiver));
        Self(sender)
    }

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

struct Writer {
    pool: Pool,
    owner: String,
    retention_days: u32,
    written: std::sync::Arc<Notify>,
}

impl Writer {
    async fn run(self, mut receiver: mpsc::Receiver<Entry>) {
        let mut clean_up = tokio::time::interval(CLEAN_UP);
        let mut entries = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = receiver.recv_many(&mut entries, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.write(std::mem::take(&mut entries)).await;
                }
                _ = clean_up.tick() => self.clean_up().await,
            }
        }
    }

    async fn write(&self, entries: Vec<Entry>) {
        let mut events = Vec::new();
        for entry in entries {
            let outcome = match entry {
                Entry::Event(event) => {
                    events.push(event);
                    continue;
                }
                Entry::Deployments { epoch, progress } => self.in_time(self.deployments(epoch, &progress)).await,
                Entry::Retire { epoch, app } => self.in_time(self.retire(epoch, &app)).await,
            };
            match outcome {
                Ok(()) => self.written.notify_one(),
                Err(error) => warn!(error = %ErrorChain(&error), "a decision could not be written down yet"),
            }
        }
        if !events.is_empty()
            && let Err(error) = self.in_time(self.events(&events)).await
        {
            metrics::counter!("dinp_server_journal_lost_total").increment(events.len() as u64);
            warn!(count = events.len(), error = %ErrorChain(&error), "events could not be written down and are lost");
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
        if !lease::holds(&mut change.tx, &self.owner, epoch).await? {
            return Ok(());
        }
        for progress in all {
            deployment::advance(&mut change, progress).await?;
        }
        change.commit().await?;
        for progress in all {
            let reason = Some(&*progress.reason).filter(|reason| !reason.is_empty());
            info!(app = %progress.app, deployment = progress.id, reason, "deployment is {}", progress.state.as_str());
        }
        Ok(())
    }

    async fn retire(&self, epoch: u64, app: &AppName) -> Result<(), StoreError> {
        let mut change = Change::begin(&self.pool).await?;
        if !lease::holds(&mut change.tx, &self.owner, epoch).await? {
            return Ok(());
        }
        deployment::retire_app(&mut change, app).await?;
        change.commit().await.map(drop)
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
