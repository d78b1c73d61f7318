//! Keeps the table on disk, some time after each change.

use crate::table::{Saving, Shared, save};
use dinp_common::error::ErrorChain;
use dinp_common::model::Version;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Changes within this time are written together.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// The writing of a large table takes at most one part in so many of the time.
const SHARE: u32 = 50;

/// Where and what to write.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) ledger: Shared,
    pub(crate) dir: PathBuf,
    pub(crate) cluster: String,
}

impl Keeper {
    /// Writes after each change but what the disk has already, for ever.
    pub(crate) async fn run(self, mut applied: watch::Receiver<Version>, kept: Option<Version>) {
        let mut failed = false;
        let mut pause = DEBOUNCE;
        while applied.changed().await.is_ok() {
            if kept.is_some_and(|kept| *applied.borrow_and_update() <= kept) {
                continue;
            }
            tokio::time::sleep(pause).await;
            applied.borrow_and_update();
            let keeper = self.clone();
            let begun = Instant::now();
            let written = tokio::task::spawn_blocking(move || keeper.write()).await.unwrap_or(false);
            pause = DEBOUNCE.max(begun.elapsed() * SHARE);
            if !written && !std::mem::replace(&mut failed, true) {
                tracing::error!(dir = %self.dir.display(), "a start without Redis would not find the present table");
            }
            failed = !written;
        }
    }

    /// Writes the table; false if it could not be.
    pub(crate) fn write(&self) -> bool {
        let (version, apps) = {
            let ledger = self.ledger.lock();
            let Some(version) = ledger.version() else { return true };
            (version, ledger.apps(None))
        };
        match save(&self.dir, &Saving { cluster: &self.cluster, version, apps: &apps }) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "the route table could not be kept on disk");
                false
            }
        }
    }
}
