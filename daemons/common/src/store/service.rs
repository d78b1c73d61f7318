//! Table `service_credential`: daemons that call other daemons, written by `dinp setup`.

use super::StoreError;
use super::columns::Columns;
use crate::auth::{Role, SecretHash};
use mysql_async::Row;
use mysql_async::prelude::Queryable;

/// What a service is, and the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRow {
    /// What it may do.
    pub role: Role,
    /// Hash of its secret.
    pub secret_hash: SecretHash,
}

/// The service of this name.
pub async fn find<Q: Queryable>(conn: &mut Q, name: &str) -> Result<Option<ServiceRow>, StoreError> {
    let row: Option<Row> = conn
        .exec_first("SELECT name, role, secret_hash FROM service_credential WHERE name = ?", (name,))
        .await
        .map_err(StoreError::doing("read a service credential"))?;
    let Some(row) = row else { return Ok(None) };
    let columns = Columns::new(&row, "service_credential", "name");
    Ok(Some(ServiceRow { role: columns.parse("role")?, secret_hash: columns.bytes("secret_hash")? }))
}

/// Adds a service, or gives it another secret. One that is there keeps its role.
pub async fn put<Q: Queryable>(
    conn: &mut Q,
    name: &str,
    role: Role,
    secret_hash: &SecretHash,
) -> Result<(), StoreError> {
    conn.exec_drop(
        "INSERT INTO service_credential (name, role, secret_hash) VALUES (?, ?, ?) \
         ON DUPLICATE KEY UPDATE secret_hash = VALUES(secret_hash)",
        (name, role.as_str(), &secret_hash[..]),
    )
    .await
    .map_err(StoreError::doing("write a service credential"))
}
