//! Table `image`: what builders have pushed and nobody has deleted.

use super::StoreError;
use super::columns::{Columns, millis};
use crate::api::UnixMillis;
use crate::api::builder::ImageView;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, params};

/// Whether a release of any app names an image of this digest. Only what no release names may go: each can be gone back to.
macro_rules! is_named {
    () => {
        "EXISTS (SELECT 1 FROM `release` r WHERE r.image LIKE CONCAT('%@', i.digest))"
    };
}

const SELECT: &str = concat!(
    "SELECT i.id, CAST(i.id AS CHAR) AS id_text, i.app, i.version, i.repository, i.digest, i.build_id, ",
    millis!("i.pushed_at"),
    " AS pushed_at, ",
    is_named!(),
    " AS is_named FROM image i"
);

/// Writes down what a build has pushed: repository, and digest in it. Within the transaction that ends the build.
pub(super) async fn pushed<Q: Queryable>(conn: &mut Q, build: u64, image: &str) -> Result<(), StoreError> {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let repository = name.split_once('/').map_or(name, |(_, path)| path);
    let repository = repository.rsplit_once(':').map_or(repository, |(repository, _)| repository);
    conn.exec_drop(
        "INSERT INTO image (app, version, repository, digest, build_id) SELECT app, version, ?, ?, id FROM build WHERE id = ?",
        (repository, digest, build),
    )
    .await
    .map_err(StoreError::doing("write down an image"))
}

/// The images of an app, newest first.
pub async fn list(conn: &mut Conn, app: &str, since: UnixMillis) -> Result<Vec<ImageView>, StoreError> {
    let sql = concat!(" WHERE i.app = :app AND ", millis!("i.pushed_at"), " >= :since ORDER BY i.id DESC LIMIT 1000");
    let rows: Vec<Row> = conn
        .exec(format!("{SELECT}{sql}"), params! { "app" => app, "since" => since })
        .await
        .map_err(StoreError::doing("read images"))?;
    rows.iter().map(view).collect()
}

/// Images older than so many days that no release names and no build is about to make again, oldest first.
pub async fn unnamed(conn: &mut Conn, days: u32, limit: u32) -> Result<Vec<ImageView>, StoreError> {
    let sql = concat!(
        " WHERE i.pushed_at < CURRENT_TIMESTAMP(3) - INTERVAL ? DAY AND NOT ",
        is_named!(),
        " AND NOT EXISTS (SELECT 1 FROM build b WHERE b.app = i.app AND b.version = i.version AND b.status = 'running') \
         ORDER BY i.id LIMIT ?"
    );
    let rows: Vec<Row> =
        conn.exec(format!("{SELECT}{sql}"), (days, limit)).await.map_err(StoreError::doing("read images"))?;
    rows.iter().map(view).collect()
}

/// Which of these releases there is no row of.
pub async fn unknown_releases(conn: &mut Conn, releases: &[u64]) -> Result<Vec<u64>, StoreError> {
    let mut unknown = Vec::new();
    for id in releases {
        let found: Option<u8> = conn
            .exec_first("SELECT 1 FROM `release` WHERE id = ?", (id,))
            .await
            .map_err(StoreError::doing("read a release"))?;
        if found.is_none() {
            unknown.push(*id);
        }
    }
    Ok(unknown)
}

/// Forgets an image that is deleted, and says so in the records of its builds.
pub async fn deleted(conn: &mut Conn, image: &ImageView, why: &str) -> Result<(), StoreError> {
    let doing = StoreError::doing("forget an image");
    let sql = "UPDATE build SET image = NULL, reason = ? WHERE app = ? AND version = ? AND image LIKE CONCAT('%@', ?)";
    conn.exec_drop(sql, (why, &image.app, &image.version, &image.digest)).await.map_err(&doing)?;
    conn.exec_drop("DELETE FROM image WHERE id = ?", (image.id,)).await.map_err(&doing)
}

fn view(row: &Row) -> Result<ImageView, StoreError> {
    let columns = Columns::new(row, "image", "id_text");
    Ok(ImageView {
        id: columns.get("id")?,
        app: columns.get("app")?,
        version: columns.get("version")?,
        repository: columns.get("repository")?,
        digest: columns.get("digest")?,
        build: columns.get("build_id")?,
        pushed_at: columns.get("pushed_at")?,
        is_named: columns.get("is_named")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::builder::BuildStatus;
    use crate::store::build;

    #[tokio::test]
    async fn an_image_is_unnamed_when_it_is_old_and_no_release_names_it() {
        let mysql = crate::testing::Mysql::start().await;
        let root = mysql.database().await;
        let builder = mysql.account(&root, "dinp_builder").await;
        let conn = &mut builder.get_conn().await.unwrap();
        let by_root = &mut root.get_conn().await.unwrap();
        let digest = |n: u32| format!("sha256:{n:064x}");
        for n in 1..=4 {
            let version = format!("v{n}");
            let new =
                build::NewBuild { app: "web", version: &version, builder: "control", ..build::NewBuild::default() };
            let id = build::begin(conn, &new).await.unwrap().unwrap().id;
            let image = format!("control:5000/team/web:{version}@{}", digest(n));
            build::finish(conn, "control", id, BuildStatus::Succeeded, "", Some(&image)).await.unwrap();
        }
        let unnamed_now = async |conn: &mut Conn| {
            let found = unnamed(conn, 14, 10).await.unwrap();
            found.into_iter().map(|image| image.version).collect::<Vec<_>>()
        };
        assert!(unnamed_now(conn).await.is_empty(), "they are new");
        by_root
            .query_drop("UPDATE image SET pushed_at = pushed_at - INTERVAL 15 DAY WHERE version <> 'v4'")
            .await
            .unwrap();
        let release = format!(
            "INSERT INTO `release` (id, app, number, image, memory_mb, cpu_millis, env_version, instances, domains, created_by, rev) \
             VALUES (7, 'other', 1, 'elsewhere/web:x@{}', 256, 100, 0, 1, '[]', 'dora', 1)",
            digest(2)
        );
        by_root.query_drop(release).await.unwrap();
        by_root
            .query_drop(
                "INSERT INTO build (app, version, runtime, created_by, builder) VALUES ('web', 'v3', 'x', 'ann', 'b')",
            )
            .await
            .unwrap();
        assert_eq!(unnamed_now(conn).await, ["v1"], "v2 is named, v3 is being built, v4 is new");
        assert_eq!(unknown_releases(conn, &[7, 8]).await.unwrap(), [8]);

        let listed = list(conn, "web", 0).await.unwrap();
        assert_eq!((listed.len(), listed[0].version.as_str(), listed[0].is_named), (4, "v4", false));
        assert!(listed[2].is_named && listed[2].repository == "team/web" && listed[2].digest == digest(2));
        deleted(conn, &listed[3], "deleted").await.unwrap();
        assert_eq!(list(conn, "web", 0).await.unwrap().len(), 3);
        let build = build::get(conn, 1).await.unwrap().unwrap();
        assert_eq!((build.image, build.reason.as_str()), (None, "deleted"));
    }
}
