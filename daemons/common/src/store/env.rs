//! Tables `env` and `sealing_key`: values are sealed before they come here, and nobody but the server can open them.

use super::columns::Columns;
use super::{Change, StoreError};
use crate::model::{AppName, EnvName};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row, Value};

/// The public key that new values are sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealingKey {
    /// Its id, stored with each value.
    pub id: u32,
    /// The key.
    pub public_key: [u8; 32],
}

/// The newest sealing key.
pub async fn sealing_key<Q: Queryable>(conn: &mut Q) -> Result<Option<SealingKey>, StoreError> {
    let row: Option<Row> = conn
        .query_first("SELECT id, CAST(id AS CHAR) AS id_text, public_key FROM sealing_key ORDER BY id DESC LIMIT 1")
        .await
        .map_err(StoreError::doing("read the sealing key"))?;
    let Some(row) = row else { return Ok(None) };
    let columns = Columns::new(&row, "sealing_key", "id_text");
    Ok(Some(SealingKey { id: columns.get("id")?, public_key: columns.bytes("public_key")? }))
}

/// Writes the sealing key of a new cluster.
pub async fn insert_sealing_key<Q: Queryable>(conn: &mut Q, key: &SealingKey) -> Result<(), StoreError> {
    conn.exec_drop("INSERT INTO sealing_key (id, public_key) VALUES (?, ?)", (key.id, &key.public_key[..]))
        .await
        .map_err(StoreError::doing("write the sealing key"))
}

/// Names and sealed values of one version of an app's environment.
pub async fn sealed<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    version: u32,
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    conn.exec("SELECT name, sealed FROM env WHERE app = ? AND version = ?", (app.as_str(), version))
        .await
        .map_err(StoreError::doing("read an environment"))
}

/// Names of the variables in one version of an app's environment.
pub async fn names<Q: Queryable>(conn: &mut Q, app: &AppName, version: u32) -> Result<Vec<EnvName>, StoreError> {
    let rows: Vec<Row> = conn
        .exec("SELECT name FROM env WHERE app = ? AND version = ? ORDER BY name", (app.as_str(), version))
        .await
        .map_err(StoreError::doing("read an environment"))?;
    rows.iter().map(|row| Columns::new(row, "env", "name").parse("name")).collect()
}

/// What one version of an app's environment has otherwise than another one: variables that it sets, and those that it
/// does not have.
pub async fn difference<Q: Queryable>(
    conn: &mut Q,
    app: &AppName,
    from: u32,
    to: u32,
) -> Result<(Vec<EnvName>, Vec<EnvName>), StoreError> {
    // A value that is copied from version to version keeps its bytes; one that is set again is sealed anew.
    let set = "SELECT n.name FROM env n LEFT JOIN env o ON o.app = n.app AND o.version = ? AND o.name = n.name \
               WHERE n.app = ? AND n.version = ? AND (o.name IS NULL OR o.sealed <> n.sealed) ORDER BY n.name";
    let unset = "SELECT o.name FROM env o LEFT JOIN env n ON n.app = o.app AND n.version = ? AND n.name = o.name \
                 WHERE o.app = ? AND o.version = ? AND n.name IS NULL ORDER BY o.name";
    let mut read = async |sql, other: u32, this: u32| {
        let rows: Vec<Row> =
            conn.exec(sql, (other, app.as_str(), this)).await.map_err(StoreError::doing("read an environment"))?;
        rows.iter().map(|row| Columns::new(row, "env", "name").parse("name")).collect::<Result<Vec<_>, _>>()
    };
    Ok((read(set, from, to).await?, read(unset, to, from).await?))
}

/// Bytes that one version of an app's environment takes, sealed.
pub async fn sealed_bytes<Q: Queryable>(conn: &mut Q, app: &AppName, version: u32) -> Result<u64, StoreError> {
    let bytes: Option<u64> = conn
        .exec_first(
            "SELECT CAST(COALESCE(SUM(LENGTH(sealed)), 0) AS UNSIGNED) FROM env WHERE app = ? AND version = ?",
            (app.as_str(), version),
        )
        .await
        .map_err(StoreError::doing("read an environment"))?;
    Ok(bytes.unwrap_or(0))
}

/// Copies a version but for some variables to another version; who set a variable when is copied too.
pub async fn copy(change: &mut Change, app: &AppName, from: u32, to: u32, but: &[&EnvName]) -> Result<(), StoreError> {
    let rev = change.rev;
    let except =
        if but.is_empty() { String::new() } else { format!(" AND name NOT IN ({})", super::app::marks(but.len())) };
    let mut values = vec![Value::from(to), Value::from(rev), Value::from(app.as_str()), Value::from(from)];
    values.extend(but.iter().map(|name| Value::from(name.as_str())));
    change
        .tx
        .exec_drop(
            format!(
                "INSERT INTO env (app, version, name, sealed, key_id, created_by, created_at, rev) \
                 SELECT app, ?, name, sealed, key_id, created_by, created_at, ? FROM env \
                 WHERE app = ? AND version = ?{except}"
            ),
            Params::Positional(values),
        )
        .await
        .map_err(StoreError::doing("copy an environment"))
}

/// Versions of an environment that are kept though no release names them: 5 MiB at most, at 256 KiB each.
pub const SPARE_VERSIONS: u32 = 20;

/// Drops the versions of an app's environment that no release names, but for the newest ones.
pub(super) async fn prune(change: &mut Change, app: &AppName) -> Result<(), StoreError> {
    change
        .tx
        .exec_drop(
            "DELETE FROM env WHERE app = ? AND version + ? <= (SELECT env_version FROM app WHERE name = ?) \
             AND version NOT IN (SELECT env_version FROM `release` WHERE app = ?)",
            (app.as_str(), SPARE_VERSIONS, app.as_str(), app.as_str()),
        )
        .await
        .map_err(StoreError::doing("drop old environments"))
}

/// Writes one sealed variable.
pub async fn insert(
    change: &mut Change,
    app: &AppName,
    version: u32,
    name: &EnvName,
    sealed: &[u8],
    key_id: u32,
    created_by: &str,
) -> Result<(), StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "INSERT INTO env (app, version, name, sealed, key_id, created_by, rev) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (app.as_str(), version, name.as_str(), sealed, key_id, created_by, rev),
        )
        .await
        .map_err(StoreError::doing("write an environment variable"))
}
