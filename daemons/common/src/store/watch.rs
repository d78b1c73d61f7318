//! Whether the database can be used, as a condition of the daemon's life.

use super::{StoreError, connect};
use crate::error::ErrorChain;
use crate::lifecycle::Condition;
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks while all is well.
const PERIOD: Duration = Duration::from_secs(5);
/// Time between two looks while it is not.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait for one look.
const DEADLINE: Duration = Duration::from_secs(3);

/// Looks again and again whether the database answers and has the schema, and says so in `condition`.
pub async fn watch(pool: Pool, condition: Condition, shutdown: CancellationToken) {
    loop {
        let looked = match tokio::time::timeout(DEADLINE, look(&pool)).await {
            Ok(looked) => looked,
            Err(_) => Err(StoreError::Timeout { act: "read the schema's version", secs: DEADLINE.as_secs() }),
        };
        let pause = match looked {
            Ok(()) => {
                condition.ok();
                PERIOD
            }
            Err(error) => {
                condition.missing(&ErrorChain(&error).to_string());
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(pool: &Pool) -> Result<(), StoreError> {
    let mut conn = connect(pool, DEADLINE).await?;
    let row: Option<mysql_async::Row> = conn
        .query_first("SELECT MAX(number) FROM schema_migration")
        .await
        .map_err(StoreError::doing("read the schema's version"))?;
    match row {
        Some(_) => Ok(()),
        None => Err(StoreError::Corrupt { object: "table schema_migration".into(), problem: "no row".into() }),
    }
}
