//! Drops what has become old: what is left of deleted apps, and audit events. Several dashes do so side by side.

use crate::CONNECT;
use dinp_common::error::ErrorChain;
use dinp_common::store::{self, StoreError, app, audit};
use mysql_async::Pool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two rounds.
const PERIOD: Duration = Duration::from_secs(600);

/// Does a round now and then; what fails is for the next one.
pub(crate) async fn run(pool: Pool, audit_days: u32, shutdown: CancellationToken) {
    loop {
        if let Err(error) = round(&pool, audit_days).await {
            tracing::warn!(error = %ErrorChain(&error), "old rows not dropped");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn round(pool: &Pool, audit_days: u32) -> Result<(), StoreError> {
    let mut conn = store::connect(pool, CONNECT).await?;
    let apps = app::forget_deleted(pool, &mut conn).await?;
    let events = audit::expire(&mut conn, audit_days).await?;
    if apps > 0 || events > 0 {
        tracing::info!(apps, events, "old rows dropped");
    }
    Ok(())
}
