//! Deployments: dash writes the request, the server the rest.

use super::app::marks;
use super::columns::{Columns, millis};
use super::snapshot::whole;
use super::{Change, StoreError, release};
use crate::api::people::{DeploymentState, DeploymentView};
use crate::model::AppName;
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row, Transaction, Value};

/// The states that a deployment does not leave, for `IN` and `NOT IN`.
pub(super) fn final_states() -> String {
    states(|state| state.is_final())
}

/// The states in which a deployment goes towards its release, for `IN`.
pub(super) fn forward_states() -> String {
    states(|state| !state.is_final() && state != DeploymentState::RollingBack)
}

fn states(which: impl Fn(DeploymentState) -> bool) -> String {
    let states = DeploymentState::ALL.into_iter().filter(|state| which(*state));
    states.map(|state| format!("'{}'", state.as_str())).collect::<Vec<_>>().join(", ")
}

/// What the server writes about a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The deployment.
    pub id: u64,
    /// Its app.
    pub app: AppName,
    /// Its state.
    pub state: DeploymentState,
    /// Why, for people.
    pub reason: String,
    /// The last lines of the instance that failed.
    pub output: Vec<String>,
    /// The release that was in force when it began, where it is to be set.
    pub previous: Option<u64>,
    /// The release that is in force from now on, where it changes.
    pub release_in_force: Option<u64>,
}

/// Writes how a deployment goes on, and the app's release in force where that changes. A final state is never left.
pub async fn advance(change: &mut Change, progress: &Progress) -> Result<(), StoreError> {
    let rev = change.rev;
    let reason: String = progress.reason.chars().take(1000).collect();
    let output = (!progress.output.is_empty()).then(|| serde_json::json!(progress.output).to_string());
    let is_final = progress.state.is_final();
    change
        .tx
        .exec_drop(
            format!(
                "UPDATE deployment SET state = ?, reason = ?, output = ?, \
                 previous_release_id = COALESCE(?, previous_release_id), \
                 started_at = COALESCE(started_at, UTC_TIMESTAMP(3)), \
                 finished_at = IF(?, UTC_TIMESTAMP(3), finished_at), rev = ? \
                 WHERE id = ? AND state NOT IN ({})",
                final_states()
            ),
            (progress.state.as_str(), reason, output, progress.previous, is_final, rev, progress.id),
        )
        .await
        .map_err(StoreError::doing("write a deployment"))?;
    let Some(release) = progress.release_in_force else { return Ok(()) };
    change
        .tx
        .exec_drop("UPDATE app SET release_id = ?, rev = ? WHERE name = ?", (release, rev, progress.app.as_str()))
        .await
        .map_err(StoreError::doing("write the release in force"))
}

/// A deleted app has nothing left that runs: no release is in force any more, and its name can be used again.
pub async fn retire_app(change: &mut Change, app: &AppName) -> Result<(), StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "UPDATE app SET release_id = NULL, rev = ? WHERE name = ? AND deleted_at IS NOT NULL",
            (rev, app.as_str()),
        )
        .await
        .map_err(StoreError::doing("retire an app"))
}

/// Asks for a release to be brought into force; returns the deployment's id.
pub async fn insert(change: &mut Change, app: &AppName, release_id: u64, created_by: &str) -> Result<u64, StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "INSERT INTO deployment (app, release_id, created_by, rev) VALUES (?, ?, ?, ?)",
            (app.as_str(), release_id, created_by, rev),
        )
        .await
        .map_err(StoreError::doing("write a deployment"))?;
    let id = change.tx.last_insert_id().ok_or_else(|| StoreError::Corrupt {
        object: "table deployment".into(),
        problem: "no id for a row that was just written".into(),
    })?;
    release::prune(change, app).await?;
    prune(change, app).await?;
    Ok(id)
}

/// Deployments of an app that are kept, newest first.
pub const KEPT: u32 = 200;

/// Drops old deployments of an app that have ended, but for the last one by which each release came up: the way back
/// leads along these.
async fn prune(change: &mut Change, app: &AppName) -> Result<(), StoreError> {
    let doing = StoreError::doing("drop old deployments");
    let oldest = "SELECT id FROM deployment WHERE app = ? ORDER BY id DESC LIMIT 1 OFFSET ?";
    let oldest: Option<u64> = change.tx.exec_first(oldest, (app.as_str(), KEPT)).await.map_err(&doing)?;
    let Some(oldest) = oldest else { return Ok(()) };
    change
        .tx
        .exec_drop(
            format!(
                "DELETE FROM deployment WHERE app = ? AND id <= ? AND state IN ({}) AND id NOT IN (SELECT id FROM \
                 (SELECT MAX(id) AS id FROM deployment WHERE app = ? AND state = 'succeeded' GROUP BY release_id) came_up)",
                final_states()
            ),
            (app.as_str(), oldest, app.as_str()),
        )
        .await
        .map_err(&doing)
}

/// Asks the server to end a deployment; false if it has ended.
pub async fn request_cancel(change: &mut Change, id: u64) -> Result<bool, StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            format!(
                "UPDATE deployment SET request = 'cancel', rev = ? WHERE id = ? AND state NOT IN ({})",
                final_states()
            ),
            (rev, id),
        )
        .await
        .map_err(StoreError::doing("cancel a deployment"))?;
    Ok(change.tx.affected_rows() > 0)
}

const SELECT: &str = concat!(
    "SELECT d.id, CAST(d.id AS CHAR) AS id_text, d.app, d.release_id, r.number AS release_number, \
     p.number AS previous_number, d.state, d.reason, CAST(d.output AS CHAR) AS output, d.created_by, ",
    millis!("d.created_at"),
    " AS created_at, ",
    millis!("d.finished_at"),
    " AS finished_at FROM deployment d JOIN `release` r ON r.id = d.release_id \
     LEFT JOIN `release` p ON p.id = d.previous_release_id JOIN app a ON a.name = d.app AND d.created_at >= a.created_at"
);

fn read(row: &Row) -> Result<DeploymentView, StoreError> {
    let columns = Columns::new(row, "deployment", "id_text");
    Ok(DeploymentView {
        id: columns.get("id")?,
        app: columns.parse("app")?,
        release_id: columns.get("release_id")?,
        release_number: columns.get("release_number")?,
        previous_number: columns.get("previous_number")?,
        state: columns.word("state")?,
        reason: columns.get("reason")?,
        output: columns.json("output")?.unwrap_or_default(),
        created_by: columns.get("created_by")?,
        created_at: columns.get("created_at")?,
        finished_at: columns.get("finished_at")?,
    })
}

/// A deployment by its id.
pub async fn find<Q: Queryable>(conn: &mut Q, id: u64) -> Result<Option<DeploymentView>, StoreError> {
    let row: Option<Row> = conn
        .exec_first(format!("{SELECT} WHERE d.id = ?"), (id,))
        .await
        .map_err(StoreError::doing("read a deployment"))?;
    row.as_ref().map(read).transpose()
}

/// The deployments of an app, newest first, before an id.
pub async fn list<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<DeploymentView>, StoreError> {
    let rows: Vec<Row> = conn
        .exec(
            format!("{SELECT} WHERE d.app = ? AND d.id < ? ORDER BY d.id DESC LIMIT ?"),
            (app.as_str(), before.unwrap_or(u64::MAX), limit),
        )
        .await
        .map_err(StoreError::doing("read deployments"))?;
    rows.iter().map(read).collect()
}

/// The newest deployment of each of these apps.
pub async fn newest<Q: Queryable>(conn: &mut Q, apps: &[&AppName]) -> Result<Vec<DeploymentView>, StoreError> {
    if apps.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "{SELECT} JOIN (SELECT MAX(id) AS id FROM deployment WHERE app IN ({}) GROUP BY app) n ON n.id = d.id",
        marks(apps.len())
    );
    let values = Params::Positional(apps.iter().map(|app| Value::from(app.as_str())).collect());
    let rows: Vec<Row> = conn.exec(sql, values).await.map_err(StoreError::doing("read deployments"))?;
    rows.iter().map(read).collect()
}

/// A deployment that has not ended, as far as the server decides by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderWay {
    /// Its id.
    pub id: u64,
    /// Its app.
    pub app: AppName,
    /// The release that it brings.
    pub release_id: u64,
    /// Whether a person wants it undone.
    pub cancel: bool,
    /// Its state.
    pub state: DeploymentState,
    /// The release that was in force when it began.
    pub previous_release_id: Option<u64>,
}

/// All deployments that have not ended, in the order in which they were asked for.
pub async fn under_way(snapshot: &mut Transaction<'_>) -> Result<Vec<UnderWay>, StoreError> {
    let select = "SELECT id, CAST(id AS CHAR) AS id_text, app, release_id, request = 'cancel' AS cancel, state, \
                  previous_release_id FROM deployment";
    let rows = whole(snapshot, "deployment", select, &format!("state NOT IN ({})", final_states())).await?;
    let mut deployments = rows.iter().map(read_under_way).collect::<Result<Vec<_>, _>>()?;
    deployments.sort_by_key(|deployment| deployment.id);
    Ok(deployments)
}

fn read_under_way(row: &Row) -> Result<UnderWay, StoreError> {
    let columns = Columns::new(row, "deployment", "id_text");
    Ok(UnderWay {
        id: columns.get("id")?,
        app: columns.parse("app")?,
        release_id: columns.get("release_id")?,
        cancel: columns.get("cancel")?,
        state: columns.word("state")?,
        previous_release_id: columns.get("previous_release_id")?,
    })
}

/// Whether the server still has a deployment of this app to end, of a deleted app of the name too.
pub async fn any_unfinished<Q: Queryable>(conn: &mut Q, app: &AppName) -> Result<bool, StoreError> {
    let row: Option<Row> = conn
        .exec_first(
            format!("SELECT id FROM deployment WHERE app = ? AND state NOT IN ({}) LIMIT 1", final_states()),
            (app.as_str(),),
        )
        .await
        .map_err(StoreError::doing("read deployments"))?;
    Ok(row.is_some())
}

/// The release that a person has asked for last, whatever became of it. An attempt to bring back an older one counts only
/// while it has not failed.
pub async fn asked_for_last<Q: Queryable>(conn: &mut Q, app: &AppName) -> Result<Option<u64>, StoreError> {
    let row: Option<Row> = conn
        .exec_first(
            format!(
                "SELECT d.release_id, CAST(d.id AS CHAR) AS id_text FROM deployment d \
                 JOIN app a ON a.name = d.app AND d.created_at >= a.created_at WHERE d.app = ? \
                 AND (d.state IN ({}, 'succeeded') OR NOT EXISTS \
                 (SELECT 1 FROM deployment f WHERE f.app = d.app AND f.release_id = d.release_id AND f.id < d.id)) \
                 ORDER BY d.id DESC LIMIT 1",
                forward_states()
            ),
            (app.as_str(),),
        )
        .await
        .map_err(StoreError::doing("read deployments"))?;
    row.as_ref().map(|row| Columns::new(row, "deployment", "id_text").get("release_id")).transpose()
}

/// The release that was in force before this one: that of the last deployment that succeeded before it did.
pub async fn release_before<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    release_id: u64,
) -> Result<Option<u64>, StoreError> {
    let row: Option<Row> = conn
        .exec_first(
            "SELECT d.release_id, CAST(d.id AS CHAR) AS id_text FROM deployment d \
             JOIN app a ON a.name = d.app AND d.created_at >= a.created_at \
             WHERE d.app = ? AND d.state = 'succeeded' AND d.release_id <> ? AND d.id < \
             (SELECT COALESCE(MAX(id), 0) FROM deployment WHERE app = ? AND state = 'succeeded' AND release_id = ?) \
             ORDER BY d.id DESC LIMIT 1",
            (app.as_str(), release_id, app.as_str(), release_id),
        )
        .await
        .map_err(StoreError::doing("read deployments"))?;
    row.as_ref().map(|row| Columns::new(row, "deployment", "id_text").get("release_id")).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_and_go_forward_with_the_states_that_do() {
        assert_eq!(final_states(), "'succeeded', 'rolled_back', 'cancelled', 'superseded'");
        assert_eq!(forward_states(), "'pending', 'rolling', 'verifying'");
    }
}
