//! Table `user`, and with it who is in which team. Written by uic alone.

use super::StoreError;
use super::columns::Columns;
use crate::api::uic::{PlatformRole, TeamMembership, UserInfo};
use mysql_async::Row;
use mysql_async::prelude::Queryable;
use std::collections::HashMap;

/// A person with what must not leave uic.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// Key.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Hash of the password in PHC form.
    pub password_hash: String,
    /// Role on the platform.
    pub role: PlatformRole,
    /// Whether the person may not sign in.
    pub suspended: bool,
}

const COLUMNS: &str = "u.id, u.name, u.password_hash, u.role, u.suspended_at IS NOT NULL AS suspended";

impl UserRow {
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let columns = Columns::new(row, "user", "name");
        Ok(Self {
            id: columns.get("id")?,
            name: columns.get("name")?,
            password_hash: columns.get("password_hash")?,
            role: columns.word("role")?,
            suspended: columns.get("suspended")?,
        })
    }

    /// What others may see.
    pub fn into_info(self, teams: Vec<TeamMembership>) -> UserInfo {
        UserInfo { name: self.name, role: self.role, teams, suspended: self.suspended }
    }
}

/// The word of a platform role in MySQL.
fn role_word(role: PlatformRole) -> &'static str {
    match role {
        PlatformRole::User => "user",
        PlatformRole::Operator => "operator",
        PlatformRole::Admin => "admin",
    }
}

/// The person of this name.
pub async fn by_name<Q: Queryable>(conn: &mut Q, name: &str) -> Result<Option<UserRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM user u WHERE u.name = ?");
    let row: Option<Row> = conn.exec_first(sql, (name,)).await.map_err(StoreError::doing("read a user"))?;
    row.as_ref().map(UserRow::read).transpose()
}

/// People in order of name, after a name.
pub async fn list<Q: Queryable>(conn: &mut Q, after: &str, limit: u32) -> Result<Vec<UserInfo>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM user u WHERE u.name > ? ORDER BY u.name LIMIT ?");
    let rows: Vec<Row> = conn.exec(sql, (after, limit)).await.map_err(StoreError::doing("read users"))?;
    let users = rows.iter().map(UserRow::read).collect::<Result<Vec<_>, _>>()?;
    let (Some(first), Some(last)) = (users.first(), users.last()) else { return Ok(Vec::new()) };
    let rows: Vec<Row> = conn
        .exec(
            "SELECT u.name AS user, t.name AS team, m.role FROM team_member m JOIN team t ON t.id = m.team_id \
             JOIN user u ON u.id = m.user_id WHERE u.name BETWEEN ? AND ? ORDER BY t.name",
            (&first.name, &last.name),
        )
        .await
        .map_err(StoreError::doing("read memberships"))?;
    let mut teams: HashMap<String, Vec<TeamMembership>> = HashMap::new();
    for row in &rows {
        let columns = Columns::new(row, "team_member", "user");
        let membership = TeamMembership { team: columns.get("team")?, role: columns.word("role")? };
        teams.entry(columns.get("user")?).or_default().push(membership);
    }
    Ok(users
        .into_iter()
        .map(|user| {
            let teams = teams.remove(&user.name).unwrap_or_default();
            user.into_info(teams)
        })
        .collect())
}

/// The teams of one person.
pub async fn teams_of<Q: Queryable>(conn: &mut Q, user_id: u64) -> Result<Vec<TeamMembership>, StoreError> {
    let rows: Vec<Row> = conn
        .exec(
            "SELECT t.name AS team, m.role FROM team_member m JOIN team t ON t.id = m.team_id \
             WHERE m.user_id = ? ORDER BY t.name",
            (user_id,),
        )
        .await
        .map_err(StoreError::doing("read memberships"))?;
    rows.iter()
        .map(|row| {
            let columns = Columns::new(row, "team_member", "team");
            Ok(TeamMembership { team: columns.get("team")?, role: columns.word("role")? })
        })
        .collect()
}

/// Adds a person. [`StoreError::is_duplicate`] if the name is taken.
pub async fn insert<Q: Queryable>(
    conn: &mut Q,
    name: &str,
    password_hash: &str,
    role: PlatformRole,
) -> Result<(), StoreError> {
    conn.exec_drop(
        "INSERT INTO user (name, password_hash, role) VALUES (?, ?, ?)",
        (name, password_hash, role_word(role)),
    )
    .await
    .map_err(StoreError::doing("write a user"))
}

/// Sets a person's password.
pub async fn set_password<Q: Queryable>(conn: &mut Q, id: u64, password_hash: &str) -> Result<(), StoreError> {
    conn.exec_drop("UPDATE user SET password_hash = ? WHERE id = ?", (password_hash, id))
        .await
        .map_err(StoreError::doing("write a password"))
}

/// Sets a person's role on the platform.
pub async fn set_role<Q: Queryable>(conn: &mut Q, id: u64, role: PlatformRole) -> Result<(), StoreError> {
    conn.exec_drop("UPDATE user SET role = ? WHERE id = ?", (role_word(role), id))
        .await
        .map_err(StoreError::doing("write a role"))
}

/// Sets whether a person may not sign in.
pub async fn set_suspended<Q: Queryable>(conn: &mut Q, id: u64, suspended: bool) -> Result<(), StoreError> {
    let sql = if suspended {
        "UPDATE user SET suspended_at = COALESCE(suspended_at, UTC_TIMESTAMP(3)) WHERE id = ?"
    } else {
        "UPDATE user SET suspended_at = NULL WHERE id = ?"
    };
    conn.exec_drop(sql, (id,)).await.map_err(StoreError::doing("suspend a user"))
}

/// Removes a person, with sessions and memberships.
pub async fn remove<Q: Queryable>(conn: &mut Q, id: u64) -> Result<(), StoreError> {
    conn.exec_drop("DELETE FROM user WHERE id = ?", (id,)).await.map_err(StoreError::doing("remove a user"))
}

/// Holds other new names off until the transaction ends: users and teams share one set of names, of which no key of one
/// table can tell. Must be the first statement, so that what is read after it is what those before it have left.
pub async fn lock_names(tx: &mut mysql_async::Transaction<'_>) -> Result<(), StoreError> {
    // The first user's row stands for the set: as long as there is none, nobody can add a team.
    tx.query_drop("SELECT id FROM user ORDER BY id LIMIT 1 FOR UPDATE")
        .await
        .map_err(StoreError::doing("lock the names of users and teams"))
}

/// Whether there is an administrator, a suspended one too.
pub async fn any_admin<Q: Queryable>(conn: &mut Q) -> Result<bool, StoreError> {
    let found: Option<u8> = conn
        .query_first("SELECT 1 FROM user WHERE role = 'admin' LIMIT 1")
        .await
        .map_err(StoreError::doing("look for an administrator"))?;
    Ok(found.is_some())
}

/// The keys of all administrators who may sign in, locked until the transaction ends, so that two changes at once
/// cannot take the last two away.
pub async fn lock_admins(tx: &mut mysql_async::Transaction<'_>) -> Result<Vec<u64>, StoreError> {
    let rows: Vec<Row> = tx
        .query("SELECT id FROM user WHERE role = 'admin' AND suspended_at IS NULL FOR UPDATE")
        .await
        .map_err(StoreError::doing("lock the administrators"))?;
    rows.iter().map(|row| Columns::new(row, "user", "id").get("id")).collect()
}
