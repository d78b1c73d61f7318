//! The leader's lease: one row, on the database's clock.
//!
//! No `GET_LOCK`: it is freed when its session ends, which the holder may not notice. The epoch rises at each change
//! of holder, and everything that a leader puts out carries it.

use super::StoreError;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Holder: drawn anew by each server process.
    pub owner: String,
    /// Where the holder's API is.
    pub url: String,
    /// Rises at each change of holder.
    pub epoch: u64,
}

/// Takes or renews the lease for `secs`, unless somebody else holds it, and returns who holds it then.
pub async fn hold(conn: &mut Conn, owner: &str, url: &str, secs: u32) -> Result<Lease, StoreError> {
    // MySQL assigns from left to right: the epoch first, while `owner` is still the old one.
    conn.exec_drop(
        "UPDATE lease SET epoch = epoch + IF(owner = ?, 0, 1), owner = ?, url = ?, \
         expires = UTC_TIMESTAMP(6) + INTERVAL ? SECOND \
         WHERE name = 'leader' AND (owner = ? OR expires < UTC_TIMESTAMP(6))",
        (owner, owner, url, secs, owner),
    )
    .await
    .map_err(StoreError::doing("hold the lease"))?;
    current(conn).await
}

/// Who holds, or held last.
pub async fn current(conn: &mut Conn) -> Result<Lease, StoreError> {
    let row: Option<(String, String, u64)> = conn
        .query_first("SELECT owner, url, epoch FROM lease WHERE name = 'leader'")
        .await
        .map_err(StoreError::doing("read the lease"))?;
    let (owner, url, epoch) =
        row.ok_or_else(|| StoreError::Corrupt { object: "table lease".into(), problem: "no row".into() })?;
    Ok(Lease { owner, url, epoch })
}

/// Raises the epoch of a lease that `owner` holds above `seen`: somebody has seen a higher one, as after a restored
/// backup. Returns who holds it then.
pub async fn raise(conn: &mut Conn, owner: &str, seen: u64) -> Result<Lease, StoreError> {
    conn.exec_drop(
        "UPDATE lease SET epoch = GREATEST(epoch, ?) + 1 WHERE name = 'leader' AND owner = ?",
        (seen, owner),
    )
    .await
    .map_err(StoreError::doing("raise the epoch"))?;
    current(conn).await
}

/// Gives the lease back, so that a standby leads at once.
pub async fn release(conn: &mut Conn, owner: &str) -> Result<(), StoreError> {
    conn.exec_drop(
        "UPDATE lease SET expires = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND WHERE name = 'leader' AND owner = ?",
        (owner,),
    )
    .await
    .map_err(StoreError::doing("give the lease back"))
}

/// Whether `owner` holds the lease in `epoch`; locks the row, so that it stays true until the transaction ends.
pub async fn holds(tx: &mut mysql_async::Transaction<'_>, owner: &str, epoch: u64) -> Result<bool, StoreError> {
    let row: Option<(String, u64)> = tx
        .query_first("SELECT owner, epoch FROM lease WHERE name = 'leader' LOCK IN SHARE MODE")
        .await
        .map_err(StoreError::doing("check the lease"))?;
    Ok(row.is_some_and(|(holder, of)| holder == owner && of == epoch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Mysql;

    #[tokio::test]
    async fn one_holds_and_the_epoch_rises_with_the_holder() {
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        let pool = mysql.account(&root, "dinp_server").await;
        let mut conn = pool.get_conn().await.unwrap();
        let first = hold(&mut conn, "a", "http://a", 3).await.unwrap();
        assert_eq!((first.owner.as_str(), first.epoch), ("a", 1));
        assert_eq!(hold(&mut conn, "a", "http://a", 3).await.unwrap().epoch, 1, "a renewal keeps the epoch");
        assert_eq!(hold(&mut conn, "b", "http://b", 3).await.unwrap().owner, "a", "a held lease is not taken");
        release(&mut conn, "a").await.unwrap();
        let second = hold(&mut conn, "b", "http://b", 3).await.unwrap();
        assert_eq!((second.owner.as_str(), second.url.as_str(), second.epoch), ("b", "http://b", 2));
        assert_eq!(raise(&mut conn, "a", 90).await.unwrap().epoch, 2, "who does not hold cannot raise");
        assert_eq!(raise(&mut conn, "b", 90).await.unwrap().epoch, 91);
        let mut tx = pool.start_transaction(mysql_async::TxOpts::default()).await.unwrap();
        assert!(holds(&mut tx, "b", 91).await.unwrap());
        assert!(!holds(&mut tx, "b", 2).await.unwrap());
        assert!(!holds(&mut tx, "a", 91).await.unwrap());
    }
}
