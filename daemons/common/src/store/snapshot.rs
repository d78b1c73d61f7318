//! One moment of the database, in which tables are read whole or not at all.

use super::StoreError;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, IsolationLevel, Row, Transaction, TxOpts};

/// Begins a transaction that only reads, and sees one moment in all its queries.
pub async fn begin_snapshot(conn: &mut Conn) -> Result<Transaction<'_>, StoreError> {
    let mut options = TxOpts::default();
    options.with_consistent_snapshot(true).with_readonly(true);
    options.with_isolation_level(IsolationLevel::RepeatableRead);
    conn.start_transaction(options).await.map_err(StoreError::doing("begin a snapshot"))
}

/// Reads the rows of a table that meet a condition, and counts them against what the same snapshot says there are.
/// [`StoreError::Incomplete`] if some did not arrive: absence is never an order.
pub(super) async fn whole(
    snapshot: &mut Transaction<'_>,
    table: &'static str,
    select: &str,
    condition: &str,
) -> Result<Vec<Row>, StoreError> {
    let doing = StoreError::doing("read desired state");
    let rows: Vec<Row> = snapshot.query(format!("{select} WHERE {condition}")).await.map_err(&doing)?;
    let expected: Option<u64> =
        snapshot.query_first(format!("SELECT COUNT(*) FROM `{table}` WHERE {condition}")).await.map_err(&doing)?;
    let (got, expected) = (rows.len() as u64, expected.unwrap_or_default());
    if got == expected { Ok(rows) } else { Err(StoreError::Incomplete { table, got, expected }) }
}
