//! Puts tables into force in every worker, and knows when they are.

use crate::table::{Shared, Slice, Update};
use crate::worker::Handle;
use dinp_common::model::Version;
use dinp_common::routes::{AppRoutes, Change};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// The way from a new table to the workers.
#[derive(Clone)]
pub(crate) struct Applier {
    ledger: Shared,
    workers: Arc<Vec<Handle>>,
    applied: watch::Sender<Version>,
}

impl Applier {
    pub(crate) fn new(ledger: Shared, workers: Arc<Vec<Handle>>) -> Self {
        Self { ledger, workers, applied: watch::channel(Version::ZERO).0 }
    }

    /// The version in force in every worker, as it changes.
    pub(crate) fn applied(&self) -> watch::Receiver<Version> {
        self.applied.subscribe()
    }

    /// Version of the table that was handed out last.
    pub(crate) fn version(&self) -> Option<Version> {
        self.ledger.lock().version()
    }

    pub(crate) fn replace(&self, version: Version, apps: Vec<AppRoutes>) {
        let update = self.ledger.lock().replace(version, apps, Instant::now());
        self.hand_out(update);
    }

    pub(crate) fn change(&self, version: Version, changes: Vec<Change>) {
        let update = self.ledger.lock().change(version, changes, Instant::now());
        self.hand_out(update);
    }

    /// Each worker takes its orders one after the other, so that a later confirmation includes the earlier ones.
    fn hand_out(&self, update: Update) {
        let version = update.version;
        let slices: Vec<Arc<Slice>> = update.slices().into_iter().map(Arc::new).collect();
        let waits: Vec<_> = self.workers.iter().map(|worker| worker.order(slices.clone())).collect();
        let applier = self.clone();
        tokio::spawn(async move {
            for wait in waits {
                // A worker that has ended while others still serve sends nothing more, by whatever table.
                wait.await.ok();
            }
            applier.ledger.lock().confirm(version);
            applier.applied.send_if_modified(|applied| {
                let newer = version > *applied;
                *applied = version.max(*applied);
                newer
            });
            tracing::debug!(%version, "table in force");
        });
    }
}
