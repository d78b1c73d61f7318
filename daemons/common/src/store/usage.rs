//! What an owner, a user or a team, has in all: read over the tables that hold it, for quotas. Users and teams share one
//! set of names, so that a name is enough.

use super::StoreError;
use super::app::DELETED_HOURS;
use super::columns::Columns;
use super::deployment::forward_states;
use mysql_async::prelude::Queryable;
use mysql_async::{Row, params};

/// Selects the apps of an owner by table `app a`.
const OWNED: &str = "(a.team = :owner OR (a.team IS NULL AND a.owner = :owner))";

/// One app, as far as it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppUsage {
    /// Its name.
    pub name: String,
    /// Instances wanted, none where it was deleted, whether the app is stopped or not: it may be started at any time.
    pub instances: u32,
    /// Memory of each in MiB, in the release in force or the one on its way, whichever takes more; 0 without either.
    pub memory_mb: u32,
}

/// The apps of an owner, and those that were deleted within [`DELETED_HOURS`]: they count as apps, with nothing that
/// runs.
pub async fn apps<Q: Queryable>(conn: &mut Q, owner: &str) -> Result<Vec<AppUsage>, StoreError> {
    let sql = format!(
        "SELECT a.name, IF(a.deleted_at IS NULL, a.instances, 0) AS instances, \
         COALESCE((SELECT MAX(r.memory_mb) FROM `release` r WHERE r.app = a.name AND (r.id = a.release_id OR r.id IN \
         (SELECT d.release_id FROM deployment d WHERE d.app = a.name AND d.state IN ({})))), 0) AS memory_mb FROM app a \
         WHERE {OWNED} AND (a.deleted_at IS NULL OR a.deleted_at > UTC_TIMESTAMP(3) - INTERVAL :hours HOUR)",
        forward_states()
    );
    let values = params! { "owner" => owner, "hours" => DELETED_HOURS };
    let rows: Vec<Row> = conn.exec(sql, values).await.map_err(StoreError::doing("read what an owner has"))?;
    rows.iter()
        .map(|row| {
            let columns = Columns::new(row, "app", "name");
            Ok(AppUsage {
                name: columns.get("name")?,
                instances: columns.get("instances")?,
                memory_mb: columns.get("memory_mb")?,
            })
        })
        .collect()
}

/// Domains of an owner's apps.
pub async fn domains<Q: Queryable>(conn: &mut Q, owner: &str) -> Result<u64, StoreError> {
    let sql =
        format!("SELECT COUNT(*) FROM domain d JOIN app a ON a.name = d.app WHERE d.deleted_at IS NULL AND {OWNED}");
    let count = conn.exec_first(sql, params! { "owner" => owner }).await;
    Ok(count.map_err(StoreError::doing("count an owner's domains"))?.unwrap_or(0))
}

/// Builds for an owner's apps that run, and those that have begun within an hour.
pub async fn builds<Q: Queryable>(conn: &mut Q, owner: &str) -> Result<(u64, u64), StoreError> {
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(b.status = 'running'), 0) AS UNSIGNED), \
         CAST(COALESCE(SUM(b.started_at > UTC_TIMESTAMP(3) - INTERVAL 1 HOUR), 0) AS UNSIGNED) \
         FROM build b JOIN app a ON a.name = b.app \
         WHERE (b.status = 'running' OR b.started_at > UTC_TIMESTAMP(3) - INTERVAL 1 HOUR) AND {OWNED}"
    );
    let counts = conn.exec_first(sql, params! { "owner" => owner }).await;
    Ok(counts.map_err(StoreError::doing("count an owner's builds"))?.unwrap_or_default())
}

/// Bytes of the packages that were built for an owner's apps within a day.
pub async fn build_bytes<Q: Queryable>(conn: &mut Q, owner: &str) -> Result<u64, StoreError> {
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(b.package_bytes), 0) AS UNSIGNED) FROM build b JOIN app a ON a.name = b.app \
         WHERE b.started_at > UTC_TIMESTAMP(3) - INTERVAL 1 DAY AND {OWNED}"
    );
    let bytes = conn.exec_first(sql, params! { "owner" => owner }).await;
    Ok(bytes.map_err(StoreError::doing("count an owner's builds"))?.unwrap_or(0))
}
