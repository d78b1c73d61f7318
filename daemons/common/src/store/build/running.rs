//! Builds that run, as their builders tell of them. A build is written to only by the builder that has it: whoever was away for
//! so long that another one took it over is told so, and changes nothing.

use super::cut;
use crate::api::UnixMillis;
use crate::api::builder::BuildStatus;
use crate::model::ImageRef;
use crate::store::columns::{Columns, millis};
use crate::store::{StoreError, image};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, TxOpts, params};

/// Says what a running build does now, and since when.
pub async fn set_stage(conn: &mut Conn, builder: &str, id: u64, stage: &str) -> Result<(), StoreError> {
    let sql = "UPDATE build SET stage = :stage, stages = JSON_ARRAY_APPEND(stages, '$', JSON_OBJECT('stage', :stage, 'at', \
               CAST(UNIX_TIMESTAMP(CURRENT_TIMESTAMP(3)) * 1000 AS SIGNED))) \
               WHERE id = :id AND builder = :builder AND status = 'running'";
    let values = params! { "stage" => cut(stage, 32), "id" => id, "builder" => cut(builder, 63) };
    conn.exec_drop(sql, values).await.map_err(StoreError::doing("write the stage of a build"))
}

/// Says which base image a running build stands on.
pub async fn set_base(conn: &mut Conn, builder: &str, id: u64, base: &str) -> Result<(), StoreError> {
    let sql = "UPDATE build SET base = ? WHERE id = ? AND builder = ? AND status = 'running'";
    conn.exec_drop(sql, (cut(base, 512), id, cut(builder, 63)))
        .await
        .map_err(StoreError::doing("write the base of a build"))
}

/// Ends a running build; false where it has ended before, or is another builder's now.
pub async fn finish(
    conn: &mut Conn,
    builder: &str,
    id: u64,
    status: BuildStatus,
    reason: &str,
    image: Option<&str>,
) -> Result<bool, StoreError> {
    let doing = StoreError::doing("end a build");
    let mut tx = conn.start_transaction(TxOpts::default()).await.map_err(&doing)?;
    tx.exec_drop(
        "UPDATE build SET status = ?, reason = ?, image = ?, finished_at = CURRENT_TIMESTAMP(3) \
         WHERE id = ? AND builder = ? AND status = 'running'",
        (status.as_str(), cut(reason, 1000), image, id, cut(builder, 63)),
    )
    .await
    .map_err(&doing)?;
    let ended = tx.affected_rows() == 1;
    if let (true, Some(image)) = (ended, image) {
        image::pushed(&mut tx, id, image).await?;
    }
    tx.commit().await.map_err(&doing)?;
    Ok(ended)
}

/// A build that is a builder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: u64,
    /// How often it has begun.
    pub attempt: u8,
    /// Whether somebody wants it to end.
    pub cancel_asked: bool,
}

/// The running builds of this builder, oldest first.
pub async fn held_by(conn: &mut Conn, builder: &str) -> Result<Vec<Held>, StoreError> {
    let sql = "SELECT id, attempt, cancel_asked FROM build WHERE builder = ? AND status = 'running' ORDER BY id";
    conn.exec_map(sql, (cut(builder, 63),), |(id, attempt, cancel_asked)| Held { id, attempt, cancel_asked })
        .await
        .map_err(StoreError::doing("read running builds"))
}

/// Says that this builder is at all of its running builds.
pub async fn beat(conn: &mut Conn, builder: &str) -> Result<(), StoreError> {
    conn.exec_drop(
        "UPDATE build SET beat_at = CURRENT_TIMESTAMP(3) WHERE builder = ? AND status = 'running'",
        (cut(builder, 63),),
    )
    .await
    .map_err(StoreError::doing("say that builds go on"))
}

/// Asks for the end of a running build, of whichever builder; false where none of the id runs.
pub async fn ask_to_cancel(conn: &mut Conn, id: u64) -> Result<bool, StoreError> {
    let doing = StoreError::doing("ask for the end of a build");
    conn.exec_drop("UPDATE build SET cancel_asked = TRUE WHERE id = ? AND status = 'running'", (id,))
        .await
        .map_err(&doing)?;
    // Asked twice changes nothing the second time.
    let asked: Option<u8> = conn
        .exec_first("SELECT 1 FROM build WHERE id = ? AND status = 'running' AND cancel_asked", (id,))
        .await
        .map_err(&doing)?;
    Ok(asked.is_some())
}

/// A running build that its builder has said nothing of for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Its id.
    pub id: u64,
    /// Whose it is.
    pub builder: String,
    /// When that one last said that it is at it.
    pub beat_at: UnixMillis,
    /// Whether somebody wants it to end.
    pub cancel_asked: bool,
    /// How often it has begun.
    pub attempt: u8,
    /// Where its package can be fetched again.
    pub url: Option<String>,
}

/// The running builds of other builders of which nothing was heard for so many seconds, oldest first.
pub async fn silent(conn: &mut Conn, builder: &str, secs: u32) -> Result<Vec<Silent>, StoreError> {
    let sql = concat!(
        "SELECT id, CAST(id AS CHAR) AS id_text, builder, cancel_asked, attempt, \
         IF(can_fetch_again, source, NULL) AS url, ",
        millis!("beat_at"),
        " AS beat_at FROM build WHERE status = 'running' AND builder <> ? \
         AND beat_at < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND ORDER BY id"
    );
    let rows: Vec<Row> =
        conn.exec(sql, (cut(builder, 63), secs)).await.map_err(StoreError::doing("read builds that are silent"))?;
    let silent = |row: &Row| {
        let columns = Columns::new(row, "build", "id_text");
        Ok(Silent {
            id: columns.get("id")?,
            builder: columns.get("builder")?,
            beat_at: columns.get("beat_at")?,
            cancel_asked: columns.get("cancel_asked")?,
            attempt: columns.get("attempt")?,
            url: columns.get("url")?,
        })
    };
    rows.iter().map(silent).collect()
}

/// Gives a build to this builder, as its next attempt; false where it has ended, or its builder has spoken meanwhile.
pub async fn take_over(conn: &mut Conn, silent: &Silent, builder: &str) -> Result<bool, StoreError> {
    let sql = concat!(
        "UPDATE build SET builder = :builder, attempt = attempt + 1, beat_at = CURRENT_TIMESTAMP(3) \
         WHERE id = :id AND status = 'running' AND builder = :from AND ",
        millis!("beat_at"),
        " = :beat_at"
    );
    let values = params! {
        "builder" => cut(builder, 63), "id" => silent.id, "from" => &silent.builder, "beat_at" => silent.beat_at,
    };
    conn.exec_drop(sql, values).await.map_err(StoreError::doing("take a build over"))?;
    Ok(conn.affected_rows() == 1)
}

/// Says that this builder begins one of its builds again.
pub async fn begin_again(conn: &mut Conn, builder: &str, id: u64) -> Result<(), StoreError> {
    conn.exec_drop(
        "UPDATE build SET attempt = attempt + 1, beat_at = CURRENT_TIMESTAMP(3) \
         WHERE id = ? AND builder = ? AND status = 'running'",
        (id, cut(builder, 63)),
    )
    .await
    .map_err(StoreError::doing("begin a build again"))
}

/// What the image of a build will be called, and when the app of that name now was created; none where the build is older
/// than that app.
pub async fn target(conn: &mut Conn, id: u64) -> Result<Option<(ImageRef, Option<UnixMillis>)>, StoreError> {
    let sql = concat!(
        "SELECT b.image_name, ",
        millis!("a.created_at"),
        " AS since FROM build b JOIN app a ON a.name = b.app AND a.deleted_at IS NULL AND b.started_at >= a.created_at \
         WHERE b.id = ?"
    );
    let row: Option<Row> = conn.exec_first(sql, (id,)).await.map_err(StoreError::doing("read a build"))?;
    let read = |row: &Row| {
        let columns = Columns::new(row, "build", "image_name");
        Ok((columns.parse("image_name")?, columns.get("since")?))
    };
    row.as_ref().map(read).transpose()
}
