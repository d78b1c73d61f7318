//! Tables `build` and `build_log`: written by the builders, read by every dash.

use super::StoreError;
use super::app::Visible;
use super::audit::{self, AuditEvent};
use super::columns::{Columns, millis};
use crate::api::UnixMillis;
use crate::api::builder::{BuildStatus, BuildView};
use crate::error::ErrorChain;
use crate::model::AppName;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, IsolationLevel, Params, Row, TxOpts, Value, params};

/// A build that is about to begin.
#[derive(Debug, Clone, Copy)]
pub struct NewBuild<'a> {
    /// The app that it is for.
    pub app: &'a str,
    /// When that app was created, where it is known: another app of the name gets no build of it.
    pub app_created_at: Option<UnixMillis>,
    /// What this version is called.
    pub version: &'a str,
    /// How the image is made.
    pub runtime: &'a str,
    /// Who asked.
    pub created_by: &'a str,
    /// Which builder does it.
    pub builder: &'a str,
    /// File name of the package.
    pub package_name: &'a str,
    /// Size of the package.
    pub package_bytes: u64,
    /// SHA-256 of the package in hexadecimal.
    pub package_sha256: &'a str,
    /// The base image.
    pub base: &'a str,
}

/// Why a build does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// This version of the app is being built or was built.
    VersionTaken,
    /// The app was deleted; what has its name now is another one.
    AppGone,
}

/// Finds the app of a build if it is still the one that it was.
macro_rules! same_app {
    () => {
        concat!("SELECT 1 FROM app WHERE name = :app AND deleted_at IS NULL AND ", millis!("created_at"), " = :since")
    };
}

const BEGIN: &str = concat!(
    "INSERT INTO build (app, version, runtime, created_by, builder, stage, package_name, package_bytes, \
     package_sha256, base) \
     SELECT :app, :version, :runtime, :created_by, :builder, 'queued', :package_name, :package_bytes, \
     :package_sha256, :base FROM DUAL WHERE \
     (:since IS NULL OR EXISTS (",
    same_app!(),
    ")) AND NOT EXISTS (SELECT 1 FROM build WHERE app = :app AND version = :version \
     AND status IN ('running', 'succeeded') AND (:since IS NULL OR ",
    millis!("started_at"),
    " >= :since))"
);

/// Seconds that a build waits until those that begin before it have begun.
const TURN_SECS: u64 = 10;

/// Writes the record of a build that begins and, in the same transaction, who asked for it. A version is taken for as long
/// as its app lives.
pub async fn begin(conn: &mut Conn, new: &NewBuild<'_>) -> Result<Result<BuildView, Refused>, StoreError> {
    // Builds begin one after another: of two that look for a version at once, one would be ended as a deadlock.
    let doing = StoreError::doing("wait for the turn of a build");
    let turn: Option<Option<u8>> =
        conn.exec_first("SELECT GET_LOCK('dinp_build', ?)", (TURN_SECS,)).await.map_err(&doing)?;
    if turn.flatten() != Some(1) {
        return Err(StoreError::Timeout { act: "begin a build", secs: TURN_SECS });
    }
    let begun = write(conn, new).await;
    if let Err(error) = conn.query_drop("DO RELEASE_LOCK('dinp_build')").await {
        // What was written stands, and the lock goes with the session.
        tracing::warn!(error = %ErrorChain(&error), "turn of a build not given on");
    }
    if matches!(begun, Ok(Ok(_)))
        && let Err(error) = prune(conn, new.app).await
    {
        // The next build will see to it.
        tracing::warn!(app = new.app, error = %ErrorChain(&error), "old builds not dropped");
    }
    begun
}

async fn write(conn: &mut Conn, new: &NewBuild<'_>) -> Result<Result<BuildView, Refused>, StoreError> {
    let doing = StoreError::doing("begin a build");
    let mut options = TxOpts::default();
    // What is looked at is not locked.
    options.with_isolation_level(IsolationLevel::ReadCommitted);
    let mut tx = conn.start_transaction(options).await.map_err(&doing)?;
    let values = params! {
        "app" => new.app, "since" => new.app_created_at, "version" => new.version, "runtime" => new.runtime,
        "created_by" => cut(new.created_by, 63), "builder" => cut(new.builder, 63),
        "package_name" => cut(new.package_name, 255), "package_bytes" => new.package_bytes,
        "package_sha256" => new.package_sha256, "base" => cut(new.base, 512),
    };
    tx.exec_drop(BEGIN, values).await.map_err(&doing)?;
    let Some(id) = tx.last_insert_id().filter(|_| tx.affected_rows() == 1) else {
        return why_not(&mut tx, new).await.map(Err);
    };
    let object = format!("app/{}", new.app);
    let detail = format!("build {id}, version {}, runtime {}", new.version, new.runtime);
    let event =
        AuditEvent { actor: new.created_by, address: "", action: "build.begin", object: &object, detail: &detail };
    audit::write(&mut tx, &event).await?;
    let view = get(&mut tx, id).await?.ok_or_else(|| StoreError::Corrupt {
        object: "table build".into(),
        problem: "no row that was just written".into(),
    })?;
    tx.commit().await.map_err(&doing)?;
    Ok(Ok(view))
}

/// Builds of one app that are kept, newest first, besides those of the last day, which count for their owner's quota.
pub const KEPT: u32 = 100;
/// Bytes of logs of one app that are kept, newest first.
pub const KEPT_LOG_BYTES: u64 = 32 * 1024 * 1024;
/// Days that a build is kept at most.
const KEPT_DAYS: u32 = 90;
/// Builds that one new build drops at most: many more than it adds.
const PRUNED: u32 = 200;

/// Drops old builds: of this app what there is too much of, of all apps what is too old, and of deleted apps the logs.
async fn prune(conn: &mut Conn, app: &str) -> Result<(), StoreError> {
    let surplus = "SELECT id FROM (SELECT id, status, started_at FROM build WHERE app = ? ORDER BY id DESC LIMIT ? OFFSET ?) b \
                   WHERE status <> 'running' AND started_at < UTC_TIMESTAMP(3) - INTERVAL 1 DAY";
    let old = "SELECT id FROM build WHERE started_at < UTC_TIMESTAMP(3) - INTERVAL ? DAY LIMIT ?";
    let long = "SELECT build_id FROM (SELECT l.build_id, SUM(SUM(LENGTH(l.text))) OVER (ORDER BY l.build_id DESC) AS bytes \
                FROM build_log l JOIN build b ON b.id = l.build_id WHERE b.app = ? GROUP BY l.build_id) s \
                WHERE bytes > ? LIMIT ?";
    let orphaned = "SELECT b.id FROM build b JOIN app a ON a.name = b.app AND (a.deleted_at IS NOT NULL \
                    OR b.started_at < a.created_at) WHERE b.status <> 'running' \
                    AND EXISTS (SELECT 1 FROM build_log l WHERE l.build_id = b.id) LIMIT ?";
    let doing = StoreError::doing("read old builds");
    let mut builds: Vec<u64> = conn.exec(surplus, (app, PRUNED, KEPT)).await.map_err(&doing)?;
    builds.extend(conn.exec::<u64, _, _>(old, (KEPT_DAYS, PRUNED)).await.map_err(&doing)?);
    let mut logs: Vec<u64> = conn.exec(long, (app, KEPT_LOG_BYTES, PRUNED)).await.map_err(&doing)?;
    logs.extend(conn.exec::<u64, _, _>(orphaned, (PRUNED,)).await.map_err(&doing)?);
    let doing = StoreError::doing("drop an old build");
    for id in logs.iter().chain(&builds) {
        conn.exec_drop("DELETE FROM build_log WHERE build_id = ?", (id,)).await.map_err(&doing)?;
    }
    for id in &builds {
        conn.exec_drop("DELETE FROM build WHERE id = ?", (id,)).await.map_err(&doing)?;
    }
    Ok(())
}

async fn why_not<Q: Queryable>(conn: &mut Q, new: &NewBuild<'_>) -> Result<Refused, StoreError> {
    let Some(created_at) = new.app_created_at else { return Ok(Refused::VersionTaken) };
    let values = params! { "app" => new.app, "since" => created_at };
    let same: Option<u8> = conn.exec_first(same_app!(), values).await.map_err(StoreError::doing("read an app"))?;
    Ok(if same.is_some() { Refused::VersionTaken } else { Refused::AppGone })
}

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

/// Says what a running build does now.
pub async fn set_stage(conn: &mut Conn, id: u64, stage: &str) -> Result<(), StoreError> {
    conn.exec_drop("UPDATE build SET stage = ? WHERE id = ? AND status = 'running'", (cut(stage, 32), id))
        .await
        .map_err(StoreError::doing("write the stage of a build"))
}

/// The runtime of an app's last build that succeeded.
pub async fn last_runtime(conn: &mut Conn, app: &str) -> Result<Option<String>, StoreError> {
    conn.exec_first("SELECT runtime FROM build WHERE app = ? AND status = 'succeeded' ORDER BY id DESC LIMIT 1", (app,))
        .await
        .map_err(StoreError::doing("read the last build of an app"))
}

/// Says which base image a running build stands on.
pub async fn set_base(conn: &mut Conn, id: u64, base: &str) -> Result<(), StoreError> {
    conn.exec_drop("UPDATE build SET base = ? WHERE id = ? AND status = 'running'", (cut(base, 512), id))
        .await
        .map_err(StoreError::doing("write the base of a build"))
}

/// Ends a running build; false where it has ended before.
pub async fn finish(
    conn: &mut Conn,
    id: u64,
    status: BuildStatus,
    reason: &str,
    image: Option<&str>,
) -> Result<bool, StoreError> {
    conn.exec_drop(
        "UPDATE build SET status = ?, reason = ?, image = ?, finished_at = CURRENT_TIMESTAMP(3) \
         WHERE id = ? AND status = 'running'",
        (status.as_str(), cut(reason, 1000), image, id),
    )
    .await
    .map_err(StoreError::doing("end a build"))?;
    Ok(conn.affected_rows() == 1)
}

/// Fails all builds that this builder left running; returns their ids.
pub async fn fail_running_of(conn: &mut Conn, builder: &str, reason: &str) -> Result<Vec<u64>, StoreError> {
    let ids: Vec<u64> = conn
        .exec("SELECT id FROM build WHERE builder = ? AND status = 'running' ORDER BY id", (cut(builder, 63),))
        .await
        .map_err(StoreError::doing("read running builds"))?;
    for id in &ids {
        finish(conn, *id, BuildStatus::Failed, reason, None).await?;
    }
    Ok(ids)
}

/// A build by its id.
pub async fn get<Q: Queryable>(conn: &mut Q, id: u64) -> Result<Option<BuildView>, StoreError> {
    let row: Option<Row> =
        conn.exec_first(format!("{SELECT} WHERE id = ?"), (id,)).await.map_err(StoreError::doing("read a build"))?;
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

/// Appends a piece to the log of a build; pieces are numbered from 0 by their only writer.
pub async fn append_log(conn: &mut Conn, id: u64, seq: u32, text: &str) -> Result<(), StoreError> {
    // Twice the same piece, after an answer that was lost, is no error.
    conn.exec_drop("INSERT IGNORE INTO build_log (build_id, seq, text) VALUES (?, ?, ?)", (id, seq, text))
        .await
        .map_err(StoreError::doing("write the log of a build"))
}

/// The pieces of a build's log from number `from` on.
pub async fn log_from(conn: &mut Conn, id: u64, from: u32) -> Result<Vec<(u32, String)>, StoreError> {
    conn.exec("SELECT seq, text FROM build_log WHERE build_id = ? AND seq >= ? ORDER BY seq LIMIT 1000", (id, from))
        .await
        .map_err(StoreError::doing("read the log of a build"))
}

const SELECT: &str = concat!(
    "SELECT id, CAST(id AS CHAR) AS id_text, app, version, runtime, created_by, builder, status, stage, reason, \
     package_name, package_bytes, image, ",
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
        builder: columns.get("builder")?,
        status: columns.word("status")?,
        stage: columns.get("stage")?,
        reason: columns.get("reason")?,
        package_name: columns.get("package_name")?,
        package_bytes: columns.get("package_bytes")?,
        image: columns.get("image")?,
        started_at: columns.get("started_at")?,
        finished_at: columns.get("finished_at")?,
    })
}

/// At most so many characters: a reason that is too long is better cut than lost.
fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, app};

    const NEW: NewBuild<'static> = NewBuild {
        app: "web",
        app_created_at: None,
        version: "v1",
        runtime: "python",
        created_by: "ann",
        builder: "control",
        package_name: "web.tar.gz",
        package_bytes: 5,
        package_sha256: "00",
        base: "control:5000/dinp/base-python:bookworm",
    };

    #[tokio::test]
    async fn builds_that_begin_at_once_do_not_refuse_one_another() {
        let mysql = crate::testing::Mysql::start().await;
        let builder = mysql.account(&mysql.database().await, "dinp_builder").await;
        for round in 0..20 {
            let begun = (0..16).map(|n| {
                let pool = builder.clone();
                async move {
                    let app = format!("app{round}-{n}");
                    begin(&mut pool.get_conn().await.unwrap(), &NewBuild { app: &app, ..NEW }).await
                }
            });
            for result in futures_util::future::join_all(begun).await {
                result.unwrap().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_build_that_is_cut_off_while_it_begins_keeps_no_other_from_it() {
        let mysql = crate::testing::Mysql::start().await;
        let builder = mysql.account(&mysql.database().await, "dinp_builder").await;
        for micros in (0..4_000).step_by(200) {
            let mut conn = builder.get_conn().await.unwrap();
            let cut_off = std::time::Duration::from_micros(micros);
            tokio::time::timeout(cut_off, begin(&mut conn, &NEW)).await.ok();
            drop(conn);
            let app = format!("app{micros}");
            let mut conn = builder.get_conn().await.unwrap();
            begin(&mut conn, &NewBuild { app: &app, ..NEW }).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_version_that_is_asked_for_many_times_at_once_is_built_once() {
        let mysql = crate::testing::Mysql::start().await;
        let builder = mysql.account(&mysql.database().await, "dinp_builder").await;
        for round in 0..20 {
            let version = format!("v{round}");
            let begun = (0..16).map(|_| {
                let (pool, version) = (builder.clone(), &version);
                async move { begin(&mut pool.get_conn().await.unwrap(), &NewBuild { version, ..NEW }).await.unwrap() }
            });
            let begun = futures_util::future::join_all(begun).await;
            assert_eq!(begun.iter().filter(|begun| begun.is_ok()).count(), 1);
        }
    }

    #[tokio::test]
    async fn a_build_from_begin_to_end() {
        let mysql = crate::testing::Mysql::start().await;
        let root = mysql.database().await;
        let builder = mysql.account(&root, "dinp_builder").await;
        let dash = mysql.account(&root, "dinp_dash").await;
        let conn = &mut builder.get_conn().await.unwrap();

        let id = begin(conn, &NEW).await.unwrap().unwrap().id;
        assert_eq!(begin(conn, &NEW).await.unwrap().err(), Some(Refused::VersionTaken), "a version is built once");
        set_stage(conn, id, "building").await.unwrap();
        append_log(conn, id, 0, "one\n").await.unwrap();
        append_log(conn, id, 0, "one\n").await.unwrap();
        append_log(conn, id, 1, "two\n").await.unwrap();
        assert!(finish(conn, id, BuildStatus::Failed, &"x".repeat(2000), None).await.unwrap());
        assert!(!finish(conn, id, BuildStatus::Succeeded, "", None).await.unwrap(), "an end is final");

        let again = begin(conn, &NEW).await.unwrap().unwrap().id;
        assert!(
            finish(conn, again, BuildStatus::Succeeded, "", Some("control:5000/a/web:v1@sha256:00")).await.unwrap()
        );
        assert_eq!(begin(conn, &NEW).await.unwrap().err(), Some(Refused::VersionTaken), "what was built stays");

        let reader = &mut dash.get_conn().await.unwrap();
        let failed = get(reader, id).await.unwrap().unwrap();
        assert_eq!(
            (failed.status, failed.reason.len(), failed.stage.as_str()),
            (BuildStatus::Failed, 1000, "building")
        );
        assert!(failed.finished_at.unwrap() >= failed.started_at && failed.started_at > 1_700_000_000_000);
        assert_eq!(log_from(reader, id, 1).await.unwrap(), [(1, "two\n".to_owned())]);
        let listed: Vec<u64> = list(reader, "web", None, 10).await.unwrap().iter().map(|build| build.id).collect();
        assert_eq!(listed, [again, id]);
        assert_eq!(list(reader, "web", Some(again), 10).await.unwrap().len(), 1);
        assert!(get(reader, 999).await.unwrap().is_none());
    }

    /// Creates the app `web`, in place of the one that there is.
    async fn new_app(root: &mysql_async::Pool) -> UnixMillis {
        // Times are in milliseconds: what comes after must have another one.
        let a_moment = std::time::Duration::from_millis(5);
        tokio::time::sleep(a_moment).await;
        let name: AppName = NEW.app.parse().unwrap();
        let mut change = Change::begin(root).await.unwrap();
        app::delete(&mut change, &name).await.unwrap();
        let new = app::NewApp { name: &name, owner: "ann", team: None, instances: 1 };
        app::create(&mut change, &new).await.unwrap();
        change.commit().await.unwrap();
        tokio::time::sleep(a_moment).await;
        app::find(&mut root.get_conn().await.unwrap(), &name).await.unwrap().unwrap().created_at
    }

    #[tokio::test]
    async fn a_version_is_taken_while_its_app_lives_and_a_later_app_gets_no_build_of_it() {
        let mysql = crate::testing::Mysql::start().await;
        let root = mysql.database().await;
        let builder = mysql.account(&root, "dinp_builder").await;
        let conn = &mut builder.get_conn().await.unwrap();

        let first = new_app(&root).await;
        let of_first = NewBuild { app_created_at: Some(first), ..NEW };
        let id = begin(conn, &of_first).await.unwrap().unwrap().id;
        assert_eq!(begin(conn, &of_first).await.unwrap().err(), Some(Refused::VersionTaken));
        let image = "control:5000/a/web:v1@sha256:00";
        finish(conn, id, BuildStatus::Succeeded, "", Some(image)).await.unwrap();
        assert!(!is_of_deleted_app(conn, "web", image, first).await.unwrap());

        let second = new_app(&root).await;
        let of_second = NewBuild { app_created_at: Some(second), ..NEW };
        assert_eq!(begin(conn, &of_first).await.unwrap().err(), Some(Refused::AppGone));
        assert!(begin(conn, &of_second).await.unwrap().is_ok(), "the version was another app's");
        assert_eq!(begin(conn, &of_second).await.unwrap().err(), Some(Refused::VersionTaken));
        assert_eq!(begin(conn, &NEW).await.unwrap().err(), Some(Refused::VersionTaken), "of an unknown app");
        assert!(is_of_deleted_app(conn, "web", image, second).await.unwrap());
        assert!(!is_of_deleted_app(conn, "web", "control:5000/a/web:v1@sha256:01", second).await.unwrap());
    }

    #[tokio::test]
    async fn a_build_that_is_not_on_record_with_who_asked_does_not_begin() {
        let mysql = crate::testing::Mysql::start().await;
        let root = mysql.database().await;
        let builder = mysql.account(&root, "dinp_builder").await;
        let conn = &mut builder.get_conn().await.unwrap();
        let by_root = &mut root.get_conn().await.unwrap();

        by_root.query_drop("REVOKE INSERT ON audit_event FROM 'dinp_builder'@'%'").await.unwrap();
        begin(conn, &NEW).await.unwrap_err();
        assert!(list(conn, "web", None, 10).await.unwrap().is_empty());
        by_root.query_drop("GRANT INSERT ON audit_event TO 'dinp_builder'@'%'").await.unwrap();
        let id = begin(conn, &NEW).await.unwrap().unwrap().id;
        let sql = "SELECT actor, action, object, detail FROM audit_event";
        let told: Vec<(String, String, String, String)> = by_root.query(sql).await.unwrap();
        let detail = format!("build {id}, version v1, runtime python");
        assert_eq!(told, [("ann".into(), "build.begin".into(), "app/web".into(), detail)]);
    }

    #[tokio::test]
    async fn what_a_builder_left_is_failed_and_nothing_else() {
        let mysql = crate::testing::Mysql::start().await;
        let root = mysql.database().await;
        let builder = mysql.account(&root, "dinp_builder").await;
        let conn = &mut builder.get_conn().await.unwrap();
        let mine = begin(conn, &NEW).await.unwrap().unwrap().id;
        let other = begin(conn, &NewBuild { version: "v2", builder: "other", ..NEW }).await.unwrap().unwrap().id;
        assert_eq!(fail_running_of(conn, "control", "the builder was restarted").await.unwrap(), [mine]);
        assert_eq!(get(conn, other).await.unwrap().unwrap().status, BuildStatus::Running);
        assert_eq!(get(conn, mine).await.unwrap().unwrap().reason, "the builder was restarted");
    }
}
