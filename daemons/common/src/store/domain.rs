//! Table `domain`: names that apps answer to besides `<app>.<domain>`; each belongs to one app at a time.

use super::columns::{Columns, millis};
use super::snapshot::whole;
use super::{Change, StoreError};
use crate::api::people::DomainView;
use crate::model::{AppName, DomainName};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row, Transaction, Value};

/// The domains of an app, in order of name.
pub async fn list<Q: Queryable>(conn: &mut Q, app: &AppName) -> Result<Vec<DomainView>, StoreError> {
    let sql = concat!(
        "SELECT name, created_by, ",
        millis!("created_at"),
        " AS created_at FROM domain WHERE app = ? AND deleted_at IS NULL ORDER BY name"
    );
    let rows: Vec<Row> = conn.exec(sql, (app.as_str(),)).await.map_err(StoreError::doing("read domains"))?;
    rows.iter()
        .map(|row| {
            let columns = Columns::new(row, "domain", "name");
            Ok(DomainView {
                name: columns.parse("name")?,
                created_by: columns.get("created_by")?,
                created_at: columns.get("created_at")?,
            })
        })
        .collect()
}

/// The domains of these apps, in order of app and name.
pub async fn of_apps<Q: Queryable>(conn: &mut Q, apps: &[&AppName]) -> Result<Vec<(AppName, DomainName)>, StoreError> {
    if apps.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT app, name FROM domain WHERE app IN ({}) AND deleted_at IS NULL ORDER BY app, name",
        super::app::marks(apps.len())
    );
    let values = Params::Positional(apps.iter().map(|app| Value::from(app.as_str())).collect());
    let rows: Vec<Row> = conn.exec(sql, values).await.map_err(StoreError::doing("read domains"))?;
    rows.iter().map(with_app).collect()
}

/// All domains with their apps, in order of app and name.
pub async fn all(snapshot: &mut Transaction<'_>) -> Result<Vec<(AppName, DomainName)>, StoreError> {
    let rows = whole(snapshot, "domain", "SELECT app, name FROM domain", "deleted_at IS NULL").await?;
    let mut domains = rows.iter().map(with_app).collect::<Result<Vec<_>, _>>()?;
    domains.sort();
    Ok(domains)
}

fn with_app(row: &Row) -> Result<(AppName, DomainName), StoreError> {
    let columns = Columns::new(row, "domain", "name");
    Ok((columns.parse("app")?, columns.parse("name")?))
}

/// The app that holds a domain.
pub async fn holder<Q: Queryable>(conn: &mut Q, name: &DomainName) -> Result<Option<AppName>, StoreError> {
    let row: Option<Row> = conn
        .exec_first("SELECT name, app FROM domain WHERE name = ? AND deleted_at IS NULL", (name.as_str(),))
        .await
        .map_err(StoreError::doing("read a domain"))?;
    row.as_ref().map(|row| Columns::new(row, "domain", "name").parse("app")).transpose()
}

/// Gives a domain that nobody holds to an app.
pub async fn put(change: &mut Change, name: &DomainName, app: &AppName, created_by: &str) -> Result<(), StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "INSERT INTO domain (name, app, created_by, rev) VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE \
             app = VALUES(app), created_by = VALUES(created_by), created_at = UTC_TIMESTAMP(3), deleted_at = NULL, \
             rev = VALUES(rev)",
            (name.as_str(), app.as_str(), created_by, rev),
        )
        .await
        .map_err(StoreError::doing("write a domain"))
}

/// Takes a domain from its app; false if the app does not hold it.
pub async fn remove(change: &mut Change, name: &DomainName, app: &AppName) -> Result<bool, StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "UPDATE domain SET deleted_at = UTC_TIMESTAMP(3), rev = ? WHERE name = ? AND app = ? AND deleted_at IS NULL",
            (rev, name.as_str(), app.as_str()),
        )
        .await
        .map_err(StoreError::doing("remove a domain"))?;
    let removed = change.tx.affected_rows() > 0;
    prune(change).await?;
    Ok(removed)
}

/// Drops the rows of domains that were removed so long ago that every server has read that they were.
async fn prune(change: &mut Change) -> Result<(), StoreError> {
    change
        .tx
        .query_drop("DELETE FROM domain WHERE deleted_at < UTC_TIMESTAMP(3) - INTERVAL 1 HOUR LIMIT 1000")
        .await
        .map_err(StoreError::doing("drop removed domains"))
}

/// Takes all its domains from an app.
pub async fn remove_all(change: &mut Change, app: &AppName) -> Result<(), StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "UPDATE domain SET deleted_at = UTC_TIMESTAMP(3), rev = ? WHERE app = ? AND deleted_at IS NULL",
            (rev, app.as_str()),
        )
        .await
        .map_err(StoreError::doing("remove domains"))?;
    prune(change).await
}
