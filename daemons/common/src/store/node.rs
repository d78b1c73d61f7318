//! Compute nodes: registered by the server, never by themselves.

use super::{Change, StoreError};
use crate::auth::SecretHash;
use crate::model::NodeName;
use mysql_async::prelude::Queryable;

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

/// Whether a node of this name is registered.
pub async fn exists(change: &mut Change, name: &NodeName) -> Result<bool, StoreError> {
    let row: Option<u8> = change
        .tx
        .exec_first("SELECT 1 FROM node WHERE name = ? AND deleted_at IS NULL", (name.as_str(),))
        .await
        .map_err(StoreError::doing("read a node"))?;
    Ok(row.is_some())
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
