//! The record of a build that begins, and what of older ones goes with it.

use super::{cut, get};
use crate::api::UnixMillis;
use crate::api::builder::BuildView;
use crate::error::ErrorChain;
use crate::store::StoreError;
use crate::store::audit::{self, AuditEvent};
use crate::store::columns::millis;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, IsolationLevel, TxOpts, params};

/// A build that is about to begin.
#[derive(Debug, Clone, Copy, Default)]
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
    /// Size of the package; none where none had to come.
    pub package_bytes: Option<u64>,
    /// SHA-256 of the package in hexadecimal.
    pub package_sha256: &'a str,
    /// The base image.
    pub base: &'a str,
    /// What whoever asked says of this version.
    pub note: &'a str,
    /// Where the package came from, as it may be shown; empty where it was uploaded.
    pub source: &'a str,
    /// Whether that is enough to fetch it again.
    pub can_fetch_again: bool,
    /// What the image will be called.
    pub image_name: &'a str,
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
    "INSERT INTO build (app, version, runtime, created_by, note, source, can_fetch_again, builder, stage, \
     package_name, package_bytes, package_sha256, base, image_name) \
     SELECT :app, :version, :runtime, :created_by, :note, :source, :can_fetch_again, :builder, 'queued', \
     :package_name, :package_bytes, :package_sha256, :base, :image_name FROM DUAL WHERE \
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
        "package_sha256" => new.package_sha256, "base" => cut(new.base, 512), "note" => cut(new.note, 255),
        // What is cut short is no address any more.
        "source" => cut(new.source, 1024), "can_fetch_again" => new.can_fetch_again && new.source.len() <= 1024,
        "image_name" => new.image_name,
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
