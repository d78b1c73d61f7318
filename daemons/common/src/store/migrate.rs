//! Brings the schema up to this version: numbered files, each applied once, under a lock.

use super::StoreError;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};

/// Number, name and text of each migration, in order. Text that was released is never changed.
const MIGRATIONS: &[(u32, &str, &str)] = &[
    (1, "initial", include_str!("migrations/0001_initial.sql")),
    (2, "releases", include_str!("migrations/0002_releases.sql")),
    (3, "bounds", include_str!("migrations/0003_bounds.sql")),
    (4, "release_ids", include_str!("migrations/0004_release_ids.sql")),
    (5, "node_capacity", include_str!("migrations/0005_node_capacity.sql")),
    (6, "builds", include_str!("migrations/0006_builds.sql")),
];

/// Applies the migrations that the database lacks and returns their names.
///
/// MySQL commits after each statement that defines something, so a migration that fails half-way is
/// finished by hand or by a restore; the file says what it does, and the version is written last. A
/// database that is newer than this program is left alone: migrations only ever add (expand, migrate,
/// contract), so the program before this one still works.
pub async fn migrate(pool: &Pool) -> Result<Vec<&'static str>, StoreError> {
    let mut conn = super::connect(pool, std::time::Duration::from_secs(10)).await?;
    let doing = StoreError::doing("lock the schema");
    let locked: Option<Option<u8>> = conn.query_first("SELECT GET_LOCK('dinp_migrate', 60)").await.map_err(&doing)?;
    if locked.flatten() != Some(1) {
        return Err(StoreError::Timeout { act: "lock the schema", secs: 60 });
    }
    let applied = apply(&mut conn).await;
    conn.query_drop("DO RELEASE_LOCK('dinp_migrate')").await.map_err(&doing)?;
    applied
}

/// Names of the migrations that the database lacks.
pub async fn pending_migrations(conn: &mut Conn) -> Result<Vec<&'static str>, StoreError> {
    let doing = StoreError::doing("read which migrations were made");
    let known: Option<u8> = conn
        .query_first(
            "SELECT 1 FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_name = 'schema_migration'",
        )
        .await
        .map_err(&doing)?;
    let done: Vec<u32> = match known {
        Some(_) => conn.query("SELECT number FROM schema_migration").await.map_err(&doing)?,
        None => Vec::new(),
    };
    let pending = MIGRATIONS.iter().filter(|(number, ..)| !done.contains(number));
    Ok(pending.map(|(_, name, _)| *name).collect())
}

async fn apply(conn: &mut Conn) -> Result<Vec<&'static str>, StoreError> {
    let doing = StoreError::doing("migrate the schema");
    conn.query_drop(
        "CREATE TABLE IF NOT EXISTS schema_migration (number INT UNSIGNED NOT NULL PRIMARY KEY, \
         name VARCHAR(64) NOT NULL, applied_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3))",
    )
    .await
    .map_err(&doing)?;
    let done: Vec<u32> = conn.query("SELECT number FROM schema_migration").await.map_err(&doing)?;
    let mut applied = Vec::new();
    for (number, name, text) in MIGRATIONS.iter().filter(|(number, ..)| !done.contains(number)) {
        for statement in statements(text) {
            conn.query_drop(statement).await.map_err(&doing)?;
        }
        conn.exec_drop("INSERT INTO schema_migration (number, name) VALUES (?, ?)", (number, name))
            .await
            .map_err(&doing)?;
        applied.push(*name);
    }
    Ok(applied)
}

/// Cuts a file into statements: each ends with a semicolon at the end of a line; comment lines go.
fn statements(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let code = code.join("\n") + "\n";
    code.split(";\n").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_into_statements() {
        assert_eq!(statements("-- a\nA;\n\n  -- b\nB\n  (c;d);\n"), ["A", "B\n  (c;d)"]);
    }

    #[test]
    fn numbers_rise() {
        assert!(MIGRATIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[tokio::test]
    async fn migrating_twice_changes_nothing_the_second_time() {
        let mysql = crate::testing::Mysql::start().await;
        let pool = mysql.empty_database().await;
        let mut conn = pool.get_conn().await.unwrap();
        let all: Vec<&str> = MIGRATIONS.iter().map(|(_, name, _)| *name).collect();
        assert_eq!(pending_migrations(&mut conn).await.unwrap(), all);
        assert_eq!(migrate(&pool).await.unwrap(), all);
        assert!(pending_migrations(&mut conn).await.unwrap().is_empty());
        assert!(migrate(&pool).await.unwrap().is_empty());
    }
}
