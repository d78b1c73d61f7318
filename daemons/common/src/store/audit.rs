//! Table `audit_event`: who changed what, written in the transaction of the change where there is one.

use super::StoreError;
use mysql_async::prelude::Queryable;

/// One change, for those who ask later.
#[derive(Debug, Clone, Copy)]
pub struct AuditEvent<'a> {
    /// Who: a person's name, or a daemon.
    pub actor: &'a str,
    /// Where the request came from.
    pub address: &'a str,
    /// What was done, such as `app.scale`.
    pub action: &'a str,
    /// What it was done to, such as `app/web`.
    pub object: &'a str,
    /// More, for people; never a secret.
    pub detail: &'a str,
}

/// Appends an event.
pub async fn write<Q: Queryable>(conn: &mut Q, event: &AuditEvent<'_>) -> Result<(), StoreError> {
    let cut = |text: &str, limit: usize| text.chars().take(limit).collect::<String>();
    conn.exec_drop(
        "INSERT INTO audit_event (actor, address, action, object, detail) VALUES (?, ?, ?, ?, ?)",
        (
            cut(event.actor, 63),
            cut(event.address, 64),
            cut(event.action, 64),
            cut(event.object, 255),
            cut(event.detail, 1000),
        ),
    )
    .await
    .map_err(StoreError::doing("write an audit event"))
}
