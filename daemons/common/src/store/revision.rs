//! The revision row: raised first in each change of desired state, so that changes become visible in order.

use super::StoreError;
use mysql_async::prelude::Queryable;
use mysql_async::{IsolationLevel, Pool, Transaction, TxOpts};

/// Seconds between two statements of a change after which the database ends it. Whoever holds the rows of revision and
/// lease and is cut off from the database would otherwise keep everybody else from them, the next leader too.
const IDLE_SECS: u32 = 3;

/// The revision that is visible now.
pub async fn current_revision<Q: Queryable>(conn: &mut Q) -> Result<u64, StoreError> {
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
    /// Begins a change: raises the revision and holds its row until [`Change::commit`], or until nothing has come for 3 s:
    /// nobody waits for anything but the database in between.
    pub async fn begin(pool: &Pool) -> Result<Self, StoreError> {
        let doing = StoreError::doing("begin a change");
        let mut options = TxOpts::default();
        options.with_isolation_level(IsolationLevel::ReadCommitted);
        let mut tx = pool.start_transaction(options).await.map_err(&doing)?;
        // For this session, which the pool sets back when the transaction has ended.
        tx.query_drop(format!("SET wait_timeout = {IDLE_SECS}")).await.map_err(&doing)?;
        tx.query_drop("UPDATE revision SET rev = rev + 1 WHERE id = 1").await.map_err(&doing)?;
        let rev = current_revision(&mut tx).await?;
        Ok(Self { tx, rev })
    }

    /// Makes the change visible and durable.
    pub async fn commit(self) -> Result<u64, StoreError> {
        self.tx.commit().await.map_err(StoreError::doing("commit a change"))?;
        Ok(self.rev)
    }
}

/// Raises the revision past one that was carried out before the database was restored.
pub async fn raise_past(pool: &Pool, carried_out: u64) -> Result<u64, StoreError> {
    let mut change = Change::begin(pool).await?;
    let doing = StoreError::doing("raise the revision");
    let raise = "UPDATE revision SET rev = GREATEST(rev, ? + 1) WHERE id = 1";
    change.tx.exec_drop(raise, (carried_out,)).await.map_err(&doing)?;
    change.rev = current_revision(&mut change.tx).await?;
    change.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Mysql;

    #[tokio::test]
    async fn a_change_whose_owner_was_cut_off_keeps_nobody_else_from_changes() {
        let mysql = Mysql::start().await;
        let pool = mysql.database().await;
        let cut_off = Change::begin(&pool).await.unwrap();
        let next = Change::begin(&pool).await.unwrap();
        assert_eq!(next.rev, cut_off.rev, "the first one was undone");
        next.commit().await.unwrap();
        assert!(cut_off.commit().await.is_err());
    }

    #[tokio::test]
    async fn other_work_may_leave_a_connection_idle() {
        let mysql = Mysql::start().await;
        let pool = mysql.database().await;
        Change::begin(&pool).await.unwrap().commit().await.unwrap();
        let mut conn = pool.get_conn().await.unwrap();
        let secs: Option<u32> = conn.query_first("SELECT @@wait_timeout").await.unwrap();
        assert!(secs.is_some_and(|secs| secs > IDLE_SECS), "{secs:?}");
    }
}
