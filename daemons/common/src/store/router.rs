//! Routers that have reported once and were not forgotten: a new leader must know whose confirmation it waits for.

use super::StoreError;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// Name and status URL of all known routers.
pub async fn all(conn: &mut Conn) -> Result<Vec<(String, String)>, StoreError> {
    conn.query("SELECT name, status_url FROM router ORDER BY name").await.map_err(StoreError::doing("read the routers"))
}

/// Remembers a router.
pub async fn put(conn: &mut Conn, name: &str, status_url: &str) -> Result<(), StoreError> {
    conn.exec_drop(
        "INSERT INTO router (name, status_url) VALUES (?, ?) ON DUPLICATE KEY UPDATE status_url = VALUES(status_url)",
        (name, status_url),
    )
    .await
    .map_err(StoreError::doing("write a router"))
}

/// Forgets a router.
pub async fn remove(conn: &mut Conn, name: &str) -> Result<(), StoreError> {
    conn.exec_drop("DELETE FROM router WHERE name = ?", (name,)).await.map_err(StoreError::doing("remove a router"))
}
