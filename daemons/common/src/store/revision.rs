//! The revision row: raised first in each change of desired state, so that changes become visible in order.

use super::StoreError;
use mysql_async::prelude::Queryable;
use mysql_async::{IsolationLevel, Pool, Transaction, TxOpts};

/// The revision that is visible now.
pub async fn current_revision(conn: &mut mysql_async::Conn) -> Result<u64, StoreError> {
    let rev = conn
        .query_first("SELECT rev FROM revision WHERE id = 1")
        .await
        .map_err(StoreError::doing("read the revision"))?;
    rev.ok_or_else(|| StoreError::Corrupt { object: "table revision".into(), problem: "no row".into() })
}

/// A transaction that changes desired state. The row lock on the revision makes such transactions take
/// turns, and so the revisions that a reader sees have no gaps.
pub struct Change {
    /// The transaction, for the queries of the tables.
    pub tx: Transaction<'static>,
    /// What the changed rows are stamped with.
    pub rev: u64,
}

impl Change {
    /// Begins a change: raises the revision and holds its row until [`Change::commit`].
    pub async fn begin(pool: &Pool) -> Result<Self, StoreError> {
        let doing = StoreError::doing("begin a change");
        let mut options = TxOpts::default();
        options.with_isolation_level(IsolationLevel::ReadCommitted);
        let mut tx = pool.start_transaction(options).await.map_err(&doing)?;
        tx.query_drop("UPDATE revision SET rev = rev + 1 WHERE id = 1").await.map_err(&doing)?;
        let rev: Option<u64> = tx.query_first("SELECT rev FROM revision WHERE id = 1").await.map_err(&doing)?;
        let rev =
            rev.ok_or_else(|| StoreError::Corrupt { object: "table revision".into(), problem: "no row".into() })?;
        Ok(Self { tx, rev })
    }

    /// Makes the change visible and durable.
    pub async fn commit(self) -> Result<u64, StoreError> {
        self.tx.commit().await.map_err(StoreError::doing("commit a change"))?;
        Ok(self.rev)
    }
}
