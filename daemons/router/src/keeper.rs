//! Keeps the table on disk, some time after each change.

use crate::table::{Saved, Shared, save};
use dinp_common::error::ErrorChain;
use dinp_common::model::Version;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// Changes within this time are written together.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Where and what to write.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) ledger: Shared,
    pub(crate) dir: PathBuf,
    pub(crate) cluster: String,
}

impl Keeper {
    /// Writes after each change, for ever.
    pub(crate) async fn run(self, mut applied: watch::Receiver<Version>) {
        let mut failed = false;
        while applied.changed().await.is_ok() {
            tokio::time::sleep(DEBOUNCE).await;
            applied.borrow_and_update();
            let keeper = self.clone();
            let written = tokio::task::spawn_blocking(move || keeper.write()).await.unwrap_or(false);
            if !written && !std::mem::replace(&mut failed, true) {
                tracing::error!(dir = %self.dir.display(), "a start without Redis would not find the present table");
            }
            failed = !written;
        }
    }

    /// Writes the table; false if it could not be.
    pub(crate) fn write(&self) -> bool {
        let saved = {
            let ledger = self.ledger.lock();
            let Some(version) = ledger.version() else { return true };
            Saved { cluster: self.cluster.clone(), version, apps: ledger.table().into_values().collect() }
        };
        match save(&self.dir, &saved) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "the route table could not be kept on disk");
                false
            }
        }
    }
}
