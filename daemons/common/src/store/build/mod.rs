//! Tables `build` and `build_log`: written by the builders, read by every dash.

mod begin;
mod log;
mod running;
#[cfg(test)]
mod tests;

pub use begin::{KEPT, KEPT_LOG_BYTES, NewBuild, Refused, begin};
pub use log::{append_log, log_from, next_piece};
pub use running::{
    Held, Silent, ask_to_cancel, beat, begin_again, finish, held_by, set_base, set_stage, silent, take_over, target,
};

use super::StoreError;
use super::app::Visible;
use super::columns::{Columns, millis};
use crate::api::UnixMillis;
use crate::api::builder::BuildView;
use crate::model::AppName;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};

/// Whether an image was built for an app that was deleted before the present one of its name was created.
pub async fn is_of_deleted_app(
    conn: &mut Conn,
    app: &str,
    image: &str,
    created_at: UnixMillis,
) -> Result<bool, StoreError> {
    let sql = concat!("SELECT id FROM build WHERE app = ? AND image = ? AND ", millis!("started_at"), " < ? LIMIT 1");
    let id: Option<u64> =
        conn.exec_first(sql, (app, image, created_at)).await.map_err(StoreError::doing("read builds"))?;
    Ok(id.is_some())
}

/// The runtime of an app's last build that succeeded.
pub async fn last_runtime(conn: &mut Conn, app: &str) -> Result<Option<String>, StoreError> {
    conn.exec_first("SELECT runtime FROM build WHERE app = ? AND status = 'succeeded' ORDER BY id DESC LIMIT 1", (app,))
        .await
        .map_err(StoreError::doing("read the last build of an app"))
}

/// A build by its id.
pub async fn get<Q: Queryable>(conn: &mut Q, id: u64) -> Result<Option<BuildView>, StoreError> {
    let row: Option<Row> =
        conn.exec_first(format!("{SELECT} WHERE id = ?"), (id,)).await.map_err(StoreError::doing("read a build"))?;
    row.as_ref().map(view).transpose()
}

/// What an app's last build by a runtime that succeeded stands on, since a time.
pub async fn last_base(
    conn: &mut Conn,
    app: &str,
    runtime: &str,
    since: Option<UnixMillis>,
) -> Result<Option<String>, StoreError> {
    let sql = concat!(
        "SELECT base FROM build WHERE app = ? AND runtime = ? AND status = 'succeeded' AND ",
        millis!("started_at"),
        " >= ? ORDER BY id DESC LIMIT 1"
    );
    conn.exec_first(sql, (app, runtime, since.unwrap_or_default()))
        .await
        .map_err(StoreError::doing("read the last build of an app"))
}

/// The build that made an image, which is named by digest.
pub async fn of_image(conn: &mut Conn, app: &str, image: &str) -> Result<Option<BuildView>, StoreError> {
    let sql = format!("{SELECT} WHERE app = ? AND image = ? AND status = 'succeeded' ORDER BY id DESC LIMIT 1");
    let row: Option<Row> = conn.exec_first(sql, (app, image)).await.map_err(StoreError::doing("read a build"))?;
    row.as_ref().map(view).transpose()
}

/// The build of a version that runs or has succeeded, since a time.
pub async fn of_version(
    conn: &mut Conn,
    app: &str,
    version: &str,
    since: UnixMillis,
) -> Result<Option<BuildView>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE app = ? AND version = ? AND status IN ('running', 'succeeded') AND {} >= ? ORDER BY id DESC LIMIT 1",
        millis!("started_at")
    );
    let row: Option<Row> =
        conn.exec_first(sql, (app, version, since)).await.map_err(StoreError::doing("read a build"))?;
    row.as_ref().map(view).transpose()
}

/// The builds of an app, newest first; `before` is an id, for the next page.
pub async fn list(conn: &mut Conn, app: &str, before: Option<u64>, limit: u32) -> Result<Vec<BuildView>, StoreError> {
    let rows: Vec<Row> = conn
        .exec(
            format!("{SELECT} WHERE app = ? AND id < ? ORDER BY id DESC LIMIT ?"),
            (app, before.unwrap_or(u64::MAX), limit),
        )
        .await
        .map_err(StoreError::doing("read builds"))?;
    rows.iter().map(view).collect()
}

/// The builds that somebody may see, of one app or of all, newest first; `before` is an id, for the next page. What is
/// older than its app belonged to a deleted one of the same name.
pub async fn list_visible(
    conn: &mut Conn,
    visible: Visible<'_>,
    app: Option<&AppName>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<BuildView>, StoreError> {
    let (condition, mut values) = visible.condition();
    let of_app = if app.is_some() { " AND build.app = ?" } else { "" };
    values.extend(app.map(|app| Value::from(app.as_str())));
    values.extend([Value::from(before.unwrap_or(u64::MAX)), Value::from(limit)]);
    let sql = format!(
        "{SELECT} WHERE EXISTS (SELECT 1 FROM app a WHERE a.name = build.app AND a.deleted_at IS NULL \
         AND build.started_at >= a.created_at AND {condition}){of_app} AND build.id < ? ORDER BY build.id DESC LIMIT ?"
    );
    let rows: Vec<Row> = conn.exec(sql, Params::Positional(values)).await.map_err(StoreError::doing("read builds"))?;
    rows.iter().map(view).collect()
}

const SELECT: &str = concat!(
    "SELECT id, CAST(id AS CHAR) AS id_text, app, version, runtime, created_by, note, source, builder, attempt, \
     status, stage, stages, reason, package_name, package_bytes, package_sha256, base, image, ",
    millis!("started_at"),
    " AS started_at, ",
    millis!("finished_at"),
    " AS finished_at FROM build"
);

fn view(row: &Row) -> Result<BuildView, StoreError> {
    let columns = Columns::new(row, "build", "id_text");
    Ok(BuildView {
        id: columns.get("id")?,
        app: columns.parse("app")?,
        version: columns.get("version")?,
        runtime: columns.get("runtime")?,
        created_by: columns.get("created_by")?,
        note: columns.get("note")?,
        source: columns.get("source")?,
        builder: columns.get("builder")?,
        attempt: columns.get("attempt")?,
        status: columns.word("status")?,
        stage: columns.get("stage")?,
        stages: columns.json("stages")?.unwrap_or_default(),
        reason: columns.get("reason")?,
        package_name: columns.get("package_name")?,
        package_bytes: columns.get("package_bytes")?,
        package_sha256: columns.get("package_sha256")?,
        base: columns.get("base")?,
        image: columns.get("image")?,
        started_at: columns.get("started_at")?,
        finished_at: columns.get("finished_at")?,
    })
}

/// At most so many characters: a reason that is too long is better cut than lost.
fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}
