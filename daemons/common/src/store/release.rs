//! Table `release`: written once by dash and never changed. What is older than its app belongs to an app of the same
//! name that was deleted, and is not shown.

use super::app::marks;
use super::columns::{Columns, millis};
use super::{Change, StoreError};
use crate::api::people::ReleaseView;
use crate::model::{AppName, HealthCheck, ImageRef, Timing};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row, Value, params};

/// A release to write.
#[derive(Debug, Clone)]
pub struct NewRelease<'a> {
    /// Its app.
    pub app: &'a AppName,
    /// The image, by digest.
    pub image: &'a ImageRef,
    /// Command instead of the image's own.
    pub command: Option<&'a [String]>,
    /// Memory of each instance in MiB.
    pub memory_mb: u32,
    /// CPU share in thousandths of a core.
    pub cpu_millis: u32,
    /// CPU limit in thousandths of a core.
    pub cpu_limit_millis: Option<u32>,
    /// Health check.
    pub health: Option<&'a HealthCheck>,
    /// Times that people have set.
    pub timing: Timing,
    /// Version of the environment.
    pub env_version: u32,
    /// Instances wanted now.
    pub instances: u32,
    /// Domains of the app now.
    pub domains: &'a [String],
    /// Who makes it.
    pub created_by: &'a str,
    /// Why.
    pub note: &'a str,
}

const SELECT: &str = concat!(
    "SELECT r.id, CAST(r.id AS CHAR) AS id_text, r.number, r.image, CAST(r.command AS CHAR) AS command, r.memory_mb, \
     r.cpu_millis, r.cpu_limit_millis, CAST(r.health AS CHAR) AS health, CAST(r.timing AS CHAR) AS timing, r.env_version, r.instances, r.created_by, ",
    millis!("r.created_at"),
    " AS created_at, r.note FROM `release` r"
);

fn read(row: &Row) -> Result<ReleaseView, StoreError> {
    let columns = Columns::new(row, "release", "id_text");
    Ok(ReleaseView {
        id: columns.get("id")?,
        number: columns.get("number")?,
        image: columns.parse("image")?,
        command: columns.json("command")?,
        memory_mb: columns.get("memory_mb")?,
        cpu_millis: columns.get("cpu_millis")?,
        cpu_limit_millis: columns.get("cpu_limit_millis")?,
        health: columns.json("health")?,
        timing: columns.json("timing")?.unwrap_or_default(),
        env_version: columns.get("env_version")?,
        instances: columns.get("instances")?,
        created_by: columns.get("created_by")?,
        created_at: columns.get("created_at")?,
        note: columns.get("note")?,
    })
}

/// Writes a release under the app's next number and returns its id. The lock on the revision, which the change holds,
/// keeps two from taking the same number.
pub async fn insert(change: &mut Change, new: &NewRelease<'_>) -> Result<u64, StoreError> {
    let json = |value: serde_json::Value| Value::from(value.to_string());
    let rev = change.rev;
    let values = vec![
        Value::from(new.app.as_str()),
        Value::from(new.image.to_string()),
        new.command.map_or(Value::NULL, |command| json(serde_json::json!(command))),
        Value::from(new.memory_mb),
        Value::from(new.cpu_millis),
        Value::from(new.cpu_limit_millis),
        new.health.map_or(Value::NULL, |health| json(serde_json::json!(health))),
        json(serde_json::json!(new.timing)),
        Value::from(new.env_version),
        Value::from(new.instances),
        json(serde_json::json!(new.domains)),
        Value::from(new.created_by),
        Value::from(new.note),
        Value::from(rev),
        Value::from(new.app.as_str()),
    ];
    change
        .tx
        .exec_drop(
            "INSERT INTO `release` (app, number, image, command, memory_mb, cpu_millis, cpu_limit_millis, health, \
             timing, env_version, instances, domains, created_by, note, rev) \
             SELECT ?, COALESCE(MAX(number), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM `release` WHERE app = ?",
            Params::Positional(values),
        )
        .await
        .map_err(StoreError::doing("write a release"))?;
    change.tx.last_insert_id().ok_or_else(|| StoreError::Corrupt {
        object: "table release".into(),
        problem: "no id for a row that was just written".into(),
    })
}

/// Releases of an app that are kept, newest first.
pub const KEPT: u32 = 50;
/// Releases that came up are kept besides, newest first: to go back to, however many failed after them.
const KEPT_GOOD: u32 = 10;

/// Drops the releases of an app that nobody will bring back, with their deployments. What is in force and what a
/// deployment under way goes to or comes from stays.
pub(super) async fn prune(change: &mut Change, app: &AppName) -> Result<(), StoreError> {
    let values = params! { "app" => app.as_str(), "kept" => KEPT, "good" => KEPT_GOOD };
    let old: Vec<u64> = change
        .tx
        .exec(
            "SELECT r.id FROM `release` r JOIN app a ON a.name = r.app WHERE r.app = :app \
             AND r.number + :kept <= (SELECT MAX(number) FROM `release` WHERE app = :app) \
             AND (a.release_id IS NULL OR a.release_id <> r.id) \
             AND NOT EXISTS (SELECT 1 FROM deployment d WHERE d.app = :app AND r.id IN (d.release_id, d.previous_release_id) \
             AND d.state NOT IN ('succeeded', 'rolled_back', 'cancelled', 'superseded')) \
             AND r.number NOT IN (SELECT number FROM (SELECT DISTINCT g.number FROM `release` g \
             JOIN deployment s ON s.release_id = g.id WHERE g.app = :app AND s.app = :app AND s.state = 'succeeded' \
             ORDER BY g.number DESC LIMIT :good) came_up) ORDER BY r.number LIMIT 100",
            values,
        )
        .await
        .map_err(StoreError::doing("read old releases"))?;
    for id in old {
        let doing = StoreError::doing("drop an old release");
        let of_app = "DELETE FROM deployment WHERE app = ? AND release_id = ?";
        change.tx.exec_drop(of_app, (app.as_str(), id)).await.map_err(&doing)?;
        change.tx.exec_drop("DELETE FROM `release` WHERE id = ?", (id,)).await.map_err(&doing)?;
    }
    Ok(())
}

/// Releases by their ids.
pub async fn by_ids<Q: Queryable>(conn: &mut Q, ids: &[u64]) -> Result<Vec<ReleaseView>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let values = Params::Positional(ids.iter().map(|id| Value::from(*id)).collect());
    let rows: Vec<Row> = conn
        .exec(format!("{SELECT} WHERE r.id IN ({})", marks(ids.len())), values)
        .await
        .map_err(StoreError::doing("read releases"))?;
    rows.iter().map(read).collect()
}

/// The release of an app with this number.
pub async fn by_number<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    number: u32,
) -> Result<Option<ReleaseView>, StoreError> {
    let sql = format!(
        "{SELECT} JOIN app a ON a.name = r.app AND r.created_at >= a.created_at WHERE r.app = ? AND r.number = ?"
    );
    let row: Option<Row> =
        conn.exec_first(sql, (app.as_str(), number)).await.map_err(StoreError::doing("read a release"))?;
    row.as_ref().map(read).transpose()
}

/// The releases of an app, newest first, before an id.
pub async fn list<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<ReleaseView>, StoreError> {
    let sql = format!(
        "{SELECT} JOIN app a ON a.name = r.app AND r.created_at >= a.created_at \
         WHERE r.app = ? AND r.id < ? ORDER BY r.id DESC LIMIT ?"
    );
    let rows: Vec<Row> = conn
        .exec(sql, (app.as_str(), before.unwrap_or(u64::MAX), limit))
        .await
        .map_err(StoreError::doing("read releases"))?;
    rows.iter().map(read).collect()
}
