//! Table `audit_event`: who changed what, written in the transaction of the change where there is one.

use super::{BATCH, StoreError, drop_all};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// One change, for those who ask later.
#[derive(Debug, Clone, Copy)]
pub struct AuditEvent<'a> {
    /// Who: a person's name, or a daemon.
    pub actor: &'a str,
    /// Where the request came from.
    pub address: &'a str,
    /// What was done, such as `app.scale`.
    pub action: &'a str,
    /// What it was done to, such as `app/web`.
    pub object: &'a str,
    /// More, for people; never a secret.
    pub detail: &'a str,
}

/// Appends an event.
pub async fn write<Q: Queryable>(conn: &mut Q, event: &AuditEvent<'_>) -> Result<(), StoreError> {
    let cut = |text: &str, limit: usize| text.chars().take(limit).collect::<String>();
    conn.exec_drop(
        "INSERT INTO audit_event (actor, address, action, object, detail) VALUES (?, ?, ?, ?, ?)",
        (
            cut(event.actor, 63),
            cut(event.address, 64),
            cut(event.action, 64),
            cut(event.object, 255),
            cut(event.detail, 1000),
        ),
    )
    .await
    .map_err(StoreError::doing("write an audit event"))
}

/// Events of one actor that are kept, newest first: who acts without end pushes out the own past and nobody else's.
pub const KEPT: u32 = 100_000;

/// Drops events that are older than so many days, and of each actor what is more than [`KEPT`]; returns how many went.
pub async fn expire(conn: &mut Conn, days: u32) -> Result<u64, StoreError> {
    let act = "drop old audit events";
    let old = format!("DELETE FROM audit_event WHERE at < UTC_TIMESTAMP(3) - INTERVAL ? DAY LIMIT {BATCH}");
    let mut dropped = drop_all(conn, act, &old, (days,)).await?;
    let busy = "SELECT actor FROM audit_event GROUP BY actor HAVING COUNT(*) > ?";
    let busy: Vec<String> = conn.exec(busy, (KEPT,)).await.map_err(StoreError::doing(act))?;
    for actor in busy {
        let oldest = "SELECT id FROM audit_event WHERE actor = ? ORDER BY id DESC LIMIT 1 OFFSET ?";
        let oldest: Option<u64> = conn.exec_first(oldest, (&actor, KEPT)).await.map_err(StoreError::doing(act))?;
        let surplus = format!("DELETE FROM audit_event WHERE actor = ? AND id <= ? LIMIT {BATCH}");
        dropped += drop_all(conn, act, &surplus, (&actor, oldest)).await?;
    }
    Ok(dropped)
}
