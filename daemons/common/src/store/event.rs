//! What happened to instances, for people to read.

use super::columns::{Columns, millis};
use super::{BATCH, StoreError, drop_all};
use crate::api::people::EventView;
use crate::model::AppName;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use std::collections::BTreeSet;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// To which app.
    pub app: String,
    /// To which instance.
    pub instance: Option<String>,
    /// On which node.
    pub node: Option<String>,
    /// What, in one word.
    pub kind: String,
    /// More.
    pub detail: String,
}

/// Writes events down.
pub async fn append(conn: &mut Conn, events: &[NewEvent]) -> Result<(), StoreError> {
    let rows = events.iter().map(|event| {
        let detail: String = event.detail.chars().take(1000).collect();
        (event.at, &event.app, &event.instance, &event.node, &event.kind, detail)
    });
    conn.exec_batch(
        "INSERT INTO instance_event (at, app, instance, node, kind, detail) \
         VALUES (FROM_UNIXTIME(? / 1000), ?, ?, ?, ?, ?)",
        rows,
    )
    .await
    .map_err(StoreError::doing("write events"))?;
    let apps: BTreeSet<&str> = events.iter().map(|event| event.app.as_str()).collect();
    for app in apps {
        prune(conn, app).await?;
    }
    Ok(())
}

/// Events of one app that are kept, newest first.
pub const KEPT: u32 = 5_000;

/// Drops what is more than [`KEPT`], so that an app whose instances crash without end fills nothing.
async fn prune(conn: &mut Conn, app: &str) -> Result<(), StoreError> {
    let act = "drop surplus events";
    let oldest = "SELECT id FROM instance_event WHERE app = ? ORDER BY id DESC LIMIT 1 OFFSET ?";
    let oldest: Option<u64> = conn.exec_first(oldest, (app, KEPT)).await.map_err(StoreError::doing(act))?;
    let Some(oldest) = oldest else { return Ok(()) };
    let surplus = format!("DELETE FROM instance_event WHERE app = ? AND id <= ? LIMIT {BATCH}");
    drop_all(conn, act, &surplus, (app, oldest)).await.map(drop)
}

/// Drops events that are older than so many days; returns how many went.
pub async fn expire(conn: &mut Conn, days: u32) -> Result<u64, StoreError> {
    let old = format!("DELETE FROM instance_event WHERE at < UTC_TIMESTAMP(3) - INTERVAL ? DAY LIMIT {BATCH}");
    drop_all(conn, "drop old events", &old, (days,)).await
}

/// Events of an app with their ids, newest first, before an id; what is older than the app belonged to a deleted one.
pub async fn list<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<(u64, EventView)>, StoreError> {
    let sql = concat!(
        "SELECT e.id, CAST(e.id AS CHAR) AS id_text, ",
        millis!("e.at"),
        " AS at, e.instance, e.node, e.kind, e.detail FROM instance_event e \
         JOIN app a ON a.name = e.app AND e.at >= a.created_at WHERE e.app = ? AND e.id < ? ORDER BY e.id DESC LIMIT ?"
    );
    let rows: Vec<Row> = conn
        .exec(sql, (app.as_str(), before.unwrap_or(u64::MAX), limit))
        .await
        .map_err(StoreError::doing("read events"))?;
    rows.iter()
        .map(|row| {
            let columns = Columns::new(row, "instance_event", "id_text");
            let event = EventView {
                at: columns.get("at")?,
                instance: columns.get("instance")?,
                node: columns.get("node")?,
                kind: columns.get("kind")?,
                detail: columns.get("detail")?,
            };
            Ok((columns.get("id")?, event))
        })
        .collect()
}
