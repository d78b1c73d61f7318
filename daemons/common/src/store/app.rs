//! Table `app`: written by dash, but for `release_id`, which is the server's.

use super::columns::{Columns, millis};
use super::deployment::final_states;
use super::snapshot::whole;
use super::{Change, StoreError, env};
use crate::api::UnixMillis;
use crate::api::people::AppState;
use crate::model::AppName;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Pool, Row, Transaction, Value};

/// An app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRow {
    /// Its name.
    pub name: AppName,
    /// Who created it.
    pub owner: String,
    /// The team that it belongs to; none: it is its creator's own.
    pub team: Option<String>,
    /// Whether it is meant to run.
    pub state: AppState,
    /// Instances wanted.
    pub instances: u32,
    /// The release in force.
    pub release_id: Option<u64>,
    /// Newest version of its environment.
    pub env_version: u32,
    /// When it was created.
    pub created_at: UnixMillis,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// Which apps somebody may see.
#[derive(Debug, Clone, Copy)]
pub enum Visible<'a> {
    /// All.
    All,
    /// The own ones and those of these teams.
    Of {
        /// Name of the person.
        user: &'a str,
        /// The teams.
        teams: &'a [String],
    },
}

impl Visible<'_> {
    /// A condition on table `app a`, and its values.
    pub(super) fn condition(&self) -> (String, Vec<Value>) {
        match self {
            Self::All => ("TRUE".to_owned(), Vec::new()),
            Self::Of { user, teams } => {
                let mut values = vec![Value::from(*user)];
                let mut sql = "(a.team IS NULL AND a.owner = ?)".to_owned();
                if !teams.is_empty() {
                    sql = format!("({sql} OR a.team IN ({}))", marks(teams.len()));
                    values.extend(teams.iter().map(Value::from));
                }
                (sql, values)
            }
        }
    }
}

/// So many question marks.
pub(super) fn marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}

const SELECT: &str = concat!(
    "SELECT a.name, a.owner, a.team, a.state, a.instances, a.release_id, a.env_version, ",
    millis!("a.created_at"),
    " AS created_at, a.deleted_at IS NOT NULL AS deleted FROM app a"
);

fn read(row: &Row) -> Result<AppRow, StoreError> {
    let columns = Columns::new(row, "app", "name");
    Ok(AppRow {
        name: columns.parse("name")?,
        owner: columns.get("owner")?,
        team: columns.get("team")?,
        state: columns.word("state")?,
        instances: columns.get("instances")?,
        release_id: columns.get("release_id")?,
        env_version: columns.get("env_version")?,
        created_at: columns.get("created_at")?,
        deleted: columns.get("deleted")?,
    })
}

/// The app of this name, a deleted one too.
pub async fn find<Q: Queryable>(conn: &mut Q, name: &AppName) -> Result<Option<AppRow>, StoreError> {
    let row: Option<Row> = conn
        .exec_first(format!("{SELECT} WHERE a.name = ?"), (name.as_str(),))
        .await
        .map_err(StoreError::doing("read an app"))?;
    row.as_ref().map(read).transpose()
}

/// All apps, the deleted ones too.
pub async fn all(snapshot: &mut Transaction<'_>) -> Result<Vec<AppRow>, StoreError> {
    whole(snapshot, "app", SELECT, "TRUE").await?.iter().map(read).collect()
}

/// Apps that are not deleted, in order of name, after a name.
pub async fn list<Q: Queryable>(
    conn: &mut Q,
    visible: Visible<'_>,
    after: &str,
    limit: u32,
) -> Result<Vec<AppRow>, StoreError> {
    let (condition, mut values) = visible.condition();
    values.extend([Value::from(after), Value::from(limit)]);
    let rows: Vec<Row> = conn
        .exec(
            format!("{SELECT} WHERE a.deleted_at IS NULL AND {condition} AND a.name > ? ORDER BY a.name LIMIT ?"),
            Params::Positional(values),
        )
        .await
        .map_err(StoreError::doing("read apps"))?;
    rows.iter().map(read).collect()
}

/// An app that a person owns, if there is one; teams' apps do not count.
pub async fn owned_by<Q: Queryable>(conn: &mut Q, user: &str) -> Result<Option<AppName>, StoreError> {
    first_name(conn, "SELECT name FROM app WHERE deleted_at IS NULL AND team IS NULL AND owner = ? LIMIT 1", user).await
}

/// An app that belongs to a team, if there is one.
pub async fn of_team<Q: Queryable>(conn: &mut Q, team: &str) -> Result<Option<AppName>, StoreError> {
    first_name(conn, "SELECT name FROM app WHERE deleted_at IS NULL AND team = ? LIMIT 1", team).await
}

async fn first_name<Q: Queryable>(conn: &mut Q, sql: &str, value: &str) -> Result<Option<AppName>, StoreError> {
    let row: Option<Row> = conn.exec_first(sql, (value,)).await.map_err(StoreError::doing("read apps"))?;
    row.as_ref().map(|row| Columns::new(row, "app", "name").parse("name")).transpose()
}

/// What a new app begins with.
#[derive(Debug, Clone, Copy)]
pub struct NewApp<'a> {
    /// Its name.
    pub name: &'a AppName,
    /// Who creates it.
    pub owner: &'a str,
    /// The team that it belongs to.
    pub team: Option<&'a str>,
    /// Instances wanted.
    pub instances: u32,
}

/// Adds an app, or takes the row of a deleted one for it: then its environment begins anew, after the old versions.
pub async fn create(change: &mut Change, new: &NewApp<'_>) -> Result<(), StoreError> {
    let rev = change.rev;
    let doing = StoreError::doing("write an app");
    // Not ON DUPLICATE KEY UPDATE: MariaDB would ask for the right to change the name.
    change
        .tx
        .exec_drop(
            "UPDATE app SET owner = ?, team = ?, state = 'started', instances = ?, env_version = env_version + 1, \
             created_at = UTC_TIMESTAMP(3), updated_at = UTC_TIMESTAMP(3), deleted_at = NULL, rev = ? \
             WHERE name = ? AND deleted_at IS NOT NULL",
            (new.owner, new.team, new.instances, rev, new.name.as_str()),
        )
        .await
        .map_err(&doing)?;
    if change.tx.affected_rows() > 0 {
        return Ok(());
    }
    change
        .tx
        .exec_drop(
            "INSERT INTO app (name, owner, team, instances, rev) VALUES (?, ?, ?, ?, ?)",
            (new.name.as_str(), new.owner, new.team, new.instances, rev),
        )
        .await
        .map_err(&doing)
}

async fn update(change: &mut Change, name: &AppName, set: &str, value: Value) -> Result<(), StoreError> {
    let rev = change.rev;
    let sql =
        format!("UPDATE app SET {set}, updated_at = UTC_TIMESTAMP(3), rev = ? WHERE name = ? AND deleted_at IS NULL");
    let values = Params::Positional(vec![value, Value::from(rev), Value::from(name.as_str())]);
    change.tx.exec_drop(sql, values).await.map_err(StoreError::doing("write an app"))
}

/// Sets how many instances are wanted.
pub async fn set_instances(change: &mut Change, name: &AppName, instances: u32) -> Result<(), StoreError> {
    update(change, name, "instances = ?", Value::from(instances)).await
}

/// Sets whether the app is meant to run.
pub async fn set_state(change: &mut Change, name: &AppName, state: AppState) -> Result<(), StoreError> {
    update(change, name, "state = ?", Value::from(state.as_str())).await
}

/// Sets the newest version of its environment, and lets go of those that nothing needs any more.
pub async fn set_env_version(change: &mut Change, name: &AppName, version: u32) -> Result<(), StoreError> {
    update(change, name, "env_version = ?", Value::from(version)).await?;
    env::prune(change, name).await
}

/// Marks an app as deleted; its row stays.
pub async fn delete(change: &mut Change, name: &AppName) -> Result<(), StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "UPDATE app SET deleted_at = UTC_TIMESTAMP(3), updated_at = UTC_TIMESTAMP(3), rev = ? \
             WHERE name = ? AND deleted_at IS NULL",
            (rev, name.as_str()),
        )
        .await
        .map_err(StoreError::doing("delete an app"))
}

/// Hours after which a deleted app's environment, releases and deployments go; meanwhile it counts as one of its owner's.
pub const DELETED_HOURS: u32 = 1;
/// Days after which the row of a deleted app goes: a node that was away for so long is told no more to stop it, and what it
/// still runs of the app is an orphan.
const DELETED_DAYS: u32 = 30;

/// Drops what is left of apps that were deleted and have nothing that runs: what they had after [`DELETED_HOURS`], their
/// rows at last. Returns how many apps that were.
pub async fn forget_deleted(pool: &Pool, conn: &mut Conn) -> Result<usize, StoreError> {
    let mut forgotten = 0;
    while !left_of_deleted(conn).await?.is_empty() {
        let mut change = Change::begin(pool).await?;
        // Again within the change: meanwhile somebody may have taken the name for a new app.
        let names = left_of_deleted(&mut change.tx).await?;
        for name in &names {
            forget(&mut change, name).await?;
        }
        change.commit().await?;
        forgotten += names.len();
    }
    Ok(forgotten)
}

async fn left_of_deleted<Q: Queryable>(conn: &mut Q) -> Result<Vec<String>, StoreError> {
    let sql = format!(
        "SELECT a.name FROM app a WHERE a.deleted_at < UTC_TIMESTAMP(3) - INTERVAL ? HOUR AND a.release_id IS NULL \
         AND NOT EXISTS (SELECT 1 FROM deployment d WHERE d.app = a.name AND d.state NOT IN ({})) \
         AND (a.deleted_at < UTC_TIMESTAMP(3) - INTERVAL ? DAY OR EXISTS (SELECT 1 FROM env e WHERE e.app = a.name) \
         OR EXISTS (SELECT 1 FROM `release` r WHERE r.app = a.name)) LIMIT 100",
        final_states()
    );
    conn.exec(sql, (DELETED_HOURS, DELETED_DAYS)).await.map_err(StoreError::doing("read deleted apps"))
}

async fn forget(change: &mut Change, name: &str) -> Result<(), StoreError> {
    let doing = StoreError::doing("drop what is left of a deleted app");
    for table in ["env", "deployment", "`release`"] {
        change.tx.exec_drop(format!("DELETE FROM {table} WHERE app = ?"), (name,)).await.map_err(&doing)?;
    }
    let row = "DELETE FROM app WHERE name = ? AND deleted_at < UTC_TIMESTAMP(3) - INTERVAL ? DAY";
    change.tx.exec_drop(row, (name, DELETED_DAYS)).await.map_err(&doing)
}
