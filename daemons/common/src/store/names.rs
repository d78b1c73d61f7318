//! The one set of names that users and teams share. Either can be the first part of an image's path in the registry, where
//! images stay when their owner goes: a name is given once, and table `former_name` keeps those that were.

use super::StoreError;
use mysql_async::prelude::Queryable;

/// Whose a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A user's.
    User,
    /// A team's.
    Team,
    /// A user's or team's that was removed.
    Former,
}

impl Holder {
    /// For sentences.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "a user",
            Self::Team => "a team",
            Self::Former => "a user or team that was removed, and whose images remain",
        }
    }
}

/// Whose a name is; none: it is free.
pub async fn holder<Q: Queryable>(conn: &mut Q, name: &str) -> Result<Option<Holder>, StoreError> {
    for (sql, holder) in [
        ("SELECT 1 FROM user WHERE name = ?", Holder::User),
        ("SELECT 1 FROM team WHERE name = ?", Holder::Team),
        ("SELECT 1 FROM former_name WHERE name = ?", Holder::Former),
    ] {
        let found: Option<u8> = conn.exec_first(sql, (name,)).await.map_err(StoreError::doing("look a name up"))?;
        if found.is_some() {
            return Ok(Some(holder));
        }
    }
    Ok(None)
}

/// Keeps the name of a user or team that is being removed from being given again.
pub async fn retire<Q: Queryable>(conn: &mut Q, name: &str) -> Result<(), StoreError> {
    conn.exec_drop("INSERT IGNORE INTO former_name (name) VALUES (?)", (name,))
        .await
        .map_err(StoreError::doing("retire a name"))
}
