//! The leader's lease: one row, on the database's clock.
//!
//! No `GET_LOCK`: it is freed when its session ends, which the holder may not notice. The epoch rises at each change
//! of holder, and everything that a leader puts out carries it.

use super::StoreError;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// No epoch is higher: so far away that no cluster gets there, and far enough below what a column holds that arithmetic
/// on it never fails.
pub const EPOCH_MAX: u64 = 1 << 62;

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Holder: drawn anew by each server process.
    pub owner: String,
    /// Where the holder's API is.
    pub url: String,
    /// Rises at each change of holder.
    pub epoch: u64,
    /// When it ends, on the database's clock. Each renewal changes it.
    pub expires: String,
}

/// Takes or renews the lease for `secs`, unless somebody else holds it, and returns who holds it then.
///
/// A lease that ends at `silent` is free whatever the database's clock says: the caller has not seen it renewed for longer
/// than a lease lasts.
pub async fn hold(
    conn: &mut Conn,
    owner: &str,
    url: &str,
    secs: u32,
    silent: Option<&str>,
) -> Result<Lease, StoreError> {
    // MySQL assigns from left to right: the epoch first, while `owner` is still the old one.
    conn.exec_drop(
        "UPDATE lease SET epoch = IF(owner = ? OR epoch >= ?, epoch, epoch + 1), owner = ?, url = ?, \
         expires = UTC_TIMESTAMP(6) + INTERVAL ? SECOND \
         WHERE name = 'leader' AND (owner = ? OR expires < UTC_TIMESTAMP(6) OR expires = ?)",
        (owner, EPOCH_MAX, owner, url, secs, owner, silent),
    )
    .await
    .map_err(StoreError::doing("hold the lease"))?;
    current(conn).await
}

/// Who holds, or held last.
pub async fn current(conn: &mut Conn) -> Result<Lease, StoreError> {
    let row: Option<(String, String, u64, String)> = conn
        .query_first("SELECT owner, url, epoch, CAST(expires AS CHAR) FROM lease WHERE name = 'leader'")
        .await
        .map_err(StoreError::doing("read the lease"))?;
    let (owner, url, epoch, expires) =
        row.ok_or_else(|| StoreError::Corrupt { object: "table lease".into(), problem: "no row".into() })?;
    Ok(Lease { owner, url, epoch, expires })
}

/// Raises the epoch of a lease that `owner` holds above `seen`: somebody has seen a higher one, as after a restored
/// backup. Returns who holds it then. A number from [`EPOCH_MAX`] on is nobody's, and changes nothing.
pub async fn raise(conn: &mut Conn, owner: &str, seen: u64) -> Result<Lease, StoreError> {
    if seen < EPOCH_MAX {
        conn.exec_drop(
            "UPDATE lease SET epoch = IF(epoch >= ?, epoch, GREATEST(epoch, ?) + 1) WHERE name = 'leader' AND owner = ?",
            (EPOCH_MAX, seen, owner),
        )
        .await
        .map_err(StoreError::doing("raise the epoch"))?;
    }
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

    const SECS: u32 = 3;

    /// The lease as one server after the other tries it.
    struct Row(Conn);

    impl Row {
        async fn hold(&mut self, owner: &str) -> Lease {
            hold(&mut self.0, owner, &format!("http://{owner}"), SECS, None).await.unwrap()
        }

        async fn set(&mut self, assignment: &str) {
            self.0.query_drop(format!("UPDATE lease SET {assignment}")).await.unwrap();
        }
    }

    async fn row() -> (Mysql, mysql_async::Pool, Row) {
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        let pool = mysql.account(&root, "dinp_server").await;
        let row = Row(pool.get_conn().await.unwrap());
        (mysql, pool, row)
    }

    #[tokio::test]
    async fn one_holds_and_the_epoch_rises_with_the_holder() {
        let (_mysql, pool, mut row) = row().await;
        let first = row.hold("a").await;
        assert_eq!((first.owner.as_str(), first.epoch), ("a", 1));
        assert_eq!(row.hold("a").await.epoch, 1, "a renewal keeps the epoch");
        assert_eq!(row.hold("b").await.owner, "a", "a held lease is not taken");
        release(&mut row.0, "a").await.unwrap();
        let second = row.hold("b").await;
        assert_eq!((second.owner.as_str(), second.url.as_str(), second.epoch), ("b", "http://b", 2));
        assert_eq!(raise(&mut row.0, "a", 90).await.unwrap().epoch, 2, "who does not hold cannot raise");
        assert_eq!(raise(&mut row.0, "b", 90).await.unwrap().epoch, 91);
        let mut tx = pool.start_transaction(mysql_async::TxOpts::default()).await.unwrap();
        assert!(holds(&mut tx, "b", 91).await.unwrap());
        assert!(!holds(&mut tx, "b", 2).await.unwrap());
        assert!(!holds(&mut tx, "a", 91).await.unwrap());
    }

    #[tokio::test]
    async fn a_clock_that_goes_back_by_an_hour_does_not_keep_a_dead_leaders_lease() {
        let (_mysql, _pool, mut row) = row().await;
        row.hold("a").await;
        // What the row says after the clock went back by an hour.
        row.set("expires = UTC_TIMESTAMP(6) + INTERVAL 3603 SECOND").await;
        let seen = row.hold("b").await;
        assert_eq!(seen.owner, "a", "it may be renewed yet");
        let taken = hold(&mut row.0, "b", "http://b", SECS, Some(&seen.expires)).await.unwrap();
        assert_eq!((taken.owner.as_str(), taken.epoch), ("b", 2));
        let late = hold(&mut row.0, "c", "http://c", SECS, Some(&seen.expires)).await.unwrap();
        assert_eq!(late.owner, "b", "a lease that was renewed meanwhile is held");
    }

    #[tokio::test]
    async fn an_absurd_epoch_is_not_taken_and_the_highest_one_still_changes_hands() {
        let (_mysql, _pool, mut row) = row().await;
        row.hold("a").await;
        for absurd in [u64::MAX, u64::MAX - 1, EPOCH_MAX] {
            assert_eq!(raise(&mut row.0, "a", absurd).await.unwrap().epoch, 1, "{absurd}");
        }
        assert_eq!(raise(&mut row.0, "a", EPOCH_MAX - 1).await.unwrap().epoch, EPOCH_MAX);
        for highest in [EPOCH_MAX, u64::MAX] {
            row.set(&format!("epoch = {highest}, owner = 'a', expires = '2000-01-01'")).await;
            let next = row.hold("b").await;
            assert_eq!((next.owner.as_str(), next.epoch), ("b", highest));
            assert_eq!(raise(&mut row.0, "b", 5).await.unwrap().epoch, highest);
        }
    }
}
