//! Table `cluster`: one row, the identity that `dinp setup control` draws once.

use super::StoreError;
use mysql_async::prelude::Queryable;

/// The cluster's id; none: it is not set up yet.
pub async fn id<Q: Queryable>(conn: &mut Q) -> Result<Option<String>, StoreError> {
    conn.query_first("SELECT cluster_id FROM cluster WHERE id = 1")
        .await
        .map_err(StoreError::doing("read the cluster id"))
}

/// Writes the id of a new cluster.
pub async fn insert<Q: Queryable>(conn: &mut Q, id: &str) -> Result<(), StoreError> {
    conn.exec_drop("INSERT INTO cluster (id, cluster_id) VALUES (1, ?)", (id,))
        .await
        .map_err(StoreError::doing("write the cluster id"))
}
