//! Logs of builds, in pieces.

use crate::store::StoreError;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// Appends a piece to the log of a build; pieces are numbered from 0 by their only writer.
pub async fn append_log(conn: &mut Conn, id: u64, seq: u32, text: &str) -> Result<(), StoreError> {
    // Twice the same piece, after an answer that was lost, is no error.
    conn.exec_drop("INSERT IGNORE INTO build_log (build_id, seq, text) VALUES (?, ?, ?)", (id, seq, text))
        .await
        .map_err(StoreError::doing("write the log of a build"))
}

/// The pieces of a build's log from number `from` on.
pub async fn log_from(conn: &mut Conn, id: u64, from: u32) -> Result<Vec<(u32, String)>, StoreError> {
    conn.exec("SELECT seq, text FROM build_log WHERE build_id = ? AND seq >= ? ORDER BY seq LIMIT 1000", (id, from))
        .await
        .map_err(StoreError::doing("read the log of a build"))
}

/// The number of the next piece of a build's log.
pub async fn next_piece(conn: &mut Conn, id: u64) -> Result<u32, StoreError> {
    let sql = "SELECT COALESCE(MAX(seq) + 1, 0) FROM build_log WHERE build_id = ?";
    let next: Option<u32> = conn.exec_first(sql, (id,)).await.map_err(StoreError::doing("read the log of a build"))?;
    Ok(next.unwrap_or_default())
}
