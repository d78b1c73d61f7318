//! Table `release`: written once by dash and never changed. What is older than its app belongs to an app of the same
//! name that was deleted, and is not shown.
//!
//! The id is what containers are labelled with: drawn at random, so that none comes again, not after a restore either.
//! People see the number within the app, and only that one says which release is newer.

use super::app::marks;
use super::columns::{Columns, millis};
use super::deployment::final_states;
use super::{Change, StoreError};
use crate::api::people::ReleaseView;
use crate::model::{AppName, HealthCheck, ImageRef, ReleaseSpec, Resources, Timing};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row, Transaction, Value, params};

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

/// The columns that say what an instance is.
macro_rules! spec_columns {
    () => {
        "r.id, CAST(r.id AS CHAR) AS id_text, r.number, r.image, CAST(r.command AS CHAR) AS command, r.memory_mb, \
         r.cpu_millis, r.cpu_limit_millis, CAST(r.health AS CHAR) AS health, CAST(r.timing AS CHAR) AS timing, \
         r.env_version"
    };
}

const SELECT: &str = concat!(
    "SELECT ",
    spec_columns!(),
    ", r.instances, r.created_by, ",
    millis!("r.created_at"),
    " AS created_at, r.note, EXISTS (SELECT 1 FROM deployment s WHERE s.app = r.app AND s.release_id = r.id \
     AND s.state = 'succeeded') AS came_up FROM `release` r"
);

/// Bits of a release's id: as many as a JSON number holds in every program.
const ID_BITS: u32 = 53;
/// Ids that are drawn before it is given up: one that is taken is next to impossible.
const DRAWS: usize = 3;

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
        came_up: columns.get("came_up")?,
    })
}

/// A release's id, drawn at random; never 0.
pub fn draw_id() -> u64 {
    rand::random_range(1..1 << ID_BITS)
}

/// Writes a release under the app's next number and returns its id. The lock on the revision, which the change holds,
/// keeps two from taking the same number.
pub async fn insert(change: &mut Change, new: &NewRelease<'_>) -> Result<u64, StoreError> {
    insert_as(change, new, std::iter::repeat_with(draw_id).take(DRAWS)).await
}

/// Writes a release under the first of these ids that is free.
async fn insert_as(
    change: &mut Change,
    new: &NewRelease<'_>,
    ids: impl Iterator<Item = u64>,
) -> Result<u64, StoreError> {
    let mut taken = StoreError::Corrupt { object: "table release".into(), problem: "no id that is free".into() };
    for id in ids {
        match write(change, new, id).await {
            Ok(()) => return Ok(id),
            Err(error) if error.is_duplicate() => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

async fn write(change: &mut Change, new: &NewRelease<'_>, id: u64) -> Result<(), StoreError> {
    let json = |value: serde_json::Value| Value::from(value.to_string());
    let rev = change.rev;
    let values = vec![
        Value::from(id),
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
            "INSERT INTO `release` (id, app, number, image, command, memory_mb, cpu_millis, cpu_limit_millis, health, \
             timing, env_version, instances, domains, created_by, note, rev) \
             SELECT ?, ?, COALESCE(MAX(number), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM `release` WHERE app = ?",
            Params::Positional(values),
        )
        .await
        .map_err(StoreError::doing("write a release"))
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
            format!(
                "SELECT r.id FROM `release` r JOIN app a ON a.name = r.app WHERE r.app = :app \
                 AND r.number + :kept <= (SELECT MAX(number) FROM `release` WHERE app = :app) \
                 AND (a.release_id IS NULL OR a.release_id <> r.id) AND NOT {} \
                 AND r.number NOT IN (SELECT number FROM (SELECT DISTINCT g.number FROM `release` g \
                 JOIN deployment s ON s.release_id = g.id WHERE g.app = :app AND s.app = :app AND s.state = 'succeeded' \
                 ORDER BY g.number DESC LIMIT :good) came_up) ORDER BY r.number LIMIT 100",
                in_deployment()
            ),
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

/// The condition on table `release r` that a deployment under way goes to the release or comes from it.
fn in_deployment() -> String {
    format!(
        "EXISTS (SELECT 1 FROM deployment d WHERE d.app = r.app AND r.id IN (d.release_id, d.previous_release_id) \
         AND d.state NOT IN ({}))",
        final_states()
    )
}

/// The releases of all apps that may run: those in force, those that deployments under way go to or come from, and the
/// `newest` of each app.
pub async fn may_run(snapshot: &mut Transaction<'_>, newest: u32) -> Result<Vec<(AppName, ReleaseSpec)>, StoreError> {
    let columns = concat!("SELECT ", spec_columns!(), ", r.app FROM `release` r JOIN app a ON a.name = r.app");
    let sql = format!(
        "{columns} WHERE r.id = a.release_id \
         OR r.number + ? > (SELECT MAX(n.number) FROM `release` n WHERE n.app = r.app) OR {}",
        in_deployment()
    );
    let rows: Vec<Row> = snapshot.exec(sql, (newest,)).await.map_err(StoreError::doing("read releases"))?;
    rows.iter().map(read_spec).collect()
}

fn read_spec(row: &Row) -> Result<(AppName, ReleaseSpec), StoreError> {
    let columns = Columns::new(row, "release", "id_text");
    let spec = ReleaseSpec {
        id: columns.get("id")?,
        number: columns.get("number")?,
        image: columns.parse("image")?,
        command: columns.json("command")?,
        resources: Resources {
            memory_mb: columns.get("memory_mb")?,
            cpu_millis: columns.get("cpu_millis")?,
            cpu_limit_millis: columns.get("cpu_limit_millis")?,
        },
        health: columns.json("health")?,
        timing: columns.json("timing")?.unwrap_or_default(),
        env_version: columns.get("env_version")?,
    };
    Ok((columns.parse("app")?, spec))
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

/// The newest release of an app that has this version of its environment.
pub async fn newest_of_env<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    env_version: u32,
) -> Result<Option<ReleaseView>, StoreError> {
    let sql = format!(
        "{SELECT} JOIN app a ON a.name = r.app AND r.created_at >= a.created_at \
         WHERE r.app = ? AND r.env_version = ? ORDER BY r.number DESC LIMIT 1"
    );
    let row: Option<Row> =
        conn.exec_first(sql, (app.as_str(), env_version)).await.map_err(StoreError::doing("read a release"))?;
    row.as_ref().map(read).transpose()
}

/// The releases of an app, newest first, before a number.
pub async fn list<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    before: Option<u32>,
    limit: u32,
) -> Result<Vec<ReleaseView>, StoreError> {
    let sql = format!(
        "{SELECT} JOIN app a ON a.name = r.app AND r.created_at >= a.created_at \
         WHERE r.app = ? AND r.number < ? ORDER BY r.number DESC LIMIT ?"
    );
    let rows: Vec<Row> = conn
        .exec(sql, (app.as_str(), before.unwrap_or(u32::MAX), limit))
        .await
        .map_err(StoreError::doing("read releases"))?;
    rows.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::app::{self, NewApp};
    use crate::store::deployment;
    use crate::testing::Mysql;

    fn plain<'a>(app: &'a AppName, image: &'a ImageRef) -> NewRelease<'a> {
        NewRelease {
            app,
            image,
            command: None,
            memory_mb: 256,
            cpu_millis: 100,
            cpu_limit_millis: None,
            health: None,
            timing: Timing::default(),
            env_version: 0,
            instances: 1,
            domains: &[],
            created_by: "anna",
            note: "",
        }
    }

    #[test]
    fn ids_are_drawn_and_fit_a_json_number() {
        let ids: std::collections::BTreeSet<u64> = (0..1000).map(|_| draw_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| (1..1 << 53).contains(id)));
    }

    #[tokio::test]
    async fn ids_do_not_come_again_after_a_restore_and_order_nothing() {
        let mysql = Mysql::start().await;
        let pool = mysql.database().await;
        let (web, image): (AppName, ImageRef) = ("web".parse().unwrap(), "r:5000/anna/web:v1".parse().unwrap());
        let mut change = Change::begin(&pool).await.unwrap();
        app::create(&mut change, &NewApp { name: &web, owner: "anna", team: None, instances: 1 }).await.unwrap();
        let new = plain(&web, &image);
        // An id that is taken is drawn again, and a higher id is not a newer release.
        assert_eq!(insert_as(&mut change, &new, [9].into_iter()).await.unwrap(), 9);
        assert_eq!(insert_as(&mut change, &new, [9, 9, 5].into_iter()).await.unwrap(), 5);
        assert!(insert_as(&mut change, &new, [9, 5].into_iter()).await.unwrap_err().is_duplicate());
        change.commit().await.unwrap();
        let mut conn = pool.get_conn().await.unwrap();
        let numbers = async |conn: &mut mysql_async::Conn, before| {
            let releases = list(conn, &web, before, 10).await.unwrap();
            releases.into_iter().map(|release| (release.number, release.id)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&mut conn, None).await, [(2, 5), (1, 9)]);
        assert_eq!(numbers(&mut conn, Some(2)).await, [(1, 9)]);

        // A dump from before the second one is restored, and somebody deploys: number 2 again, and another id.
        let mut change = Change::begin(&pool).await.unwrap();
        change.tx.query_drop("DELETE FROM `release` WHERE id = 5").await.unwrap();
        let again = insert(&mut change, &new).await.unwrap();
        change.commit().await.unwrap();
        assert_ne!(again, 5);
        assert_eq!(numbers(&mut conn, None).await, [(2, again), (1, 9)]);
    }

    #[tokio::test]
    async fn a_release_has_come_up_when_a_deployment_of_it_has_succeeded() {
        let mysql = Mysql::start().await;
        let pool = mysql.database().await;
        let (web, image): (AppName, ImageRef) = ("web".parse().unwrap(), "r:5000/anna/web:v1".parse().unwrap());
        let mut change = Change::begin(&pool).await.unwrap();
        app::create(&mut change, &NewApp { name: &web, owner: "anna", team: None, instances: 1 }).await.unwrap();
        let id = insert(&mut change, &plain(&web, &image)).await.unwrap();
        let deployment = deployment::insert(&mut change, &web, id, "anna").await.unwrap();
        change.commit().await.unwrap();
        let mut conn = pool.get_conn().await.unwrap();
        assert!(!by_ids(&mut conn, &[id]).await.unwrap()[0].came_up);
        conn.exec_drop("UPDATE deployment SET state = 'succeeded' WHERE id = ?", (deployment,)).await.unwrap();
        assert!(by_number(&mut conn, &web, 1).await.unwrap().unwrap().came_up);
    }
}
