//! Compute nodes: registered by the server, never by themselves.

use super::columns::Columns;
use super::snapshot::whole;
use super::{Change, StoreError};
use crate::auth::SecretHash;
use crate::model::NodeName;
use mysql_async::prelude::Queryable;
use mysql_async::{Row, Transaction};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: NodeName,
    /// The address that stands in routes.
    pub address: String,
    /// Its zone, or empty.
    pub zone: String,
    /// Hash of its secret.
    pub secret_hash: SecretHash,
    /// Whether it takes no new work.
    pub cordoned: bool,
    /// Whether it was removed.
    pub deleted: bool,
}

const SELECT: &str = "SELECT name, address, zone, secret_hash, state = 'cordoned' AS cordoned, \
                      deleted_at IS NOT NULL AS deleted FROM node";

fn read(row: &Row) -> Result<NodeRow, StoreError> {
    let columns = Columns::new(row, "node", "name");
    Ok(NodeRow {
        name: columns.parse("name")?,
        address: columns.get("address")?,
        zone: columns.get("zone")?,
        secret_hash: columns.bytes("secret_hash")?,
        cordoned: columns.get("cordoned")?,
        deleted: columns.get("deleted")?,
    })
}

/// Adds a node, or takes a removed one back, with the hash of its secret. An existing node keeps its state and gets the
/// new address and secret.
pub async fn put(
    change: &mut Change,
    name: &NodeName,
    address: &str,
    zone: &str,
    secret_hash: &SecretHash,
) -> Result<(), StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "INSERT INTO node (name, address, zone, secret_hash, rev) VALUES (?, ?, ?, ?, ?) \
             ON DUPLICATE KEY UPDATE address = VALUES(address), zone = VALUES(zone), \
             secret_hash = VALUES(secret_hash), deleted_at = NULL, rev = VALUES(rev)",
            (name.as_str(), address, zone, &secret_hash[..], rev),
        )
        .await
        .map_err(StoreError::doing("write a node"))
}

/// The node of this name, unless it was removed.
pub async fn find<Q: Queryable>(conn: &mut Q, name: &NodeName) -> Result<Option<NodeRow>, StoreError> {
    let row: Option<Row> = conn
        .exec_first(format!("{SELECT} WHERE name = ? AND deleted_at IS NULL"), (name.as_str(),))
        .await
        .map_err(StoreError::doing("read a node"))?;
    row.as_ref().map(read).transpose()
}

/// All nodes, the removed ones too.
pub async fn all(snapshot: &mut Transaction<'_>) -> Result<Vec<NodeRow>, StoreError> {
    whole(snapshot, "node", SELECT, "TRUE").await?.iter().map(read).collect()
}

/// Removes a node; false if there is none.
pub async fn remove(change: &mut Change, name: &NodeName) -> Result<bool, StoreError> {
    let rev = change.rev;
    change
        .tx
        .exec_drop(
            "UPDATE node SET deleted_at = UTC_TIMESTAMP(3), rev = ? WHERE name = ? AND deleted_at IS NULL",
            (rev, name.as_str()),
        )
        .await
        .map_err(StoreError::doing("remove a node"))?;
    Ok(change.tx.affected_rows() > 0)
}
