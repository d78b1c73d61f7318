//! Compute nodes: registered by the server, never by themselves.

use super::columns::Columns;
use super::snapshot::whole;
use super::{Change, StoreError};
use crate::api::agent::Registered;
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
    /// What it counts for at most.
    pub registered: Registered,
    /// Whether it takes no new work.
    pub cordoned: bool,
    /// Whether it was removed.
    pub deleted: bool,
}

const SELECT: &str = "SELECT name, address, zone, secret_hash, memory_mb, cpu_millis, state = 'cordoned' AS cordoned, \
                      deleted_at IS NOT NULL AS deleted FROM node";

fn read(row: &Row) -> Result<NodeRow, StoreError> {
    let columns = Columns::new(row, "node", "name");
    Ok(NodeRow {
        name: columns.parse("name")?,
        address: columns.get("address")?,
        zone: columns.get("zone")?,
        secret_hash: columns.bytes("secret_hash")?,
        registered: Registered { memory_mb: columns.get("memory_mb")?, cpu_millis: columns.get("cpu_millis")? },
        cordoned: columns.get("cordoned")?,
        deleted: columns.get("deleted")?,
    })
}

/// What a node is registered with.
#[derive(Debug, Clone, Copy)]
pub struct NewNode<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// The address that stands in routes.
    pub address: &'a str,
    /// Its zone, or empty.
    pub zone: &'a str,
    /// Hash of its secret.
    pub secret_hash: &'a SecretHash,
    /// What it counts for at most.
    pub registered: Registered,
}

/// Adds a node, or takes a removed one back. An existing node keeps its state, gets the new address and secret, and keeps
/// of what it counts for at most what is not said anew.
pub async fn put(change: &mut Change, new: &NewNode<'_>) -> Result<(), StoreError> {
    let NewNode { name, address, zone, secret_hash, registered } = new;
    let rev = change.rev;
    // MySQL assigns from left to right: `deleted_at` last, while the others still ask for it.
    change
        .tx
        .exec_drop(
            "INSERT INTO node (name, address, zone, secret_hash, memory_mb, cpu_millis, rev) \
             VALUES (?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE address = VALUES(address), zone = VALUES(zone), \
             secret_hash = VALUES(secret_hash), \
             memory_mb = COALESCE(VALUES(memory_mb), IF(deleted_at IS NULL, memory_mb, NULL)), \
             cpu_millis = COALESCE(VALUES(cpu_millis), IF(deleted_at IS NULL, cpu_millis, NULL)), \
             deleted_at = NULL, rev = VALUES(rev)",
            (name.as_str(), address, zone, &secret_hash[..], registered.memory_mb, registered.cpu_millis, rev),
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
