//! Tables `team` and `team_member`. Written by uic alone.

use super::StoreError;
use super::columns::Columns;
use crate::api::uic::{TeamInfo, TeamMember, TeamRole};
use mysql_async::Row;
use mysql_async::prelude::Queryable;
use std::collections::HashMap;

/// The word of a role in MySQL.
fn role_word(role: TeamRole) -> &'static str {
    match role {
        TeamRole::Viewer => "viewer",
        TeamRole::Deployer => "deployer",
        TeamRole::Owner => "owner",
    }
}

/// The key of the team of this name.
pub async fn id_of<Q: Queryable>(conn: &mut Q, name: &str) -> Result<Option<u64>, StoreError> {
    let row: Option<Row> = conn
        .exec_first("SELECT id, name FROM team WHERE name = ?", (name,))
        .await
        .map_err(StoreError::doing("read a team"))?;
    row.as_ref().map(|row| Columns::new(row, "team", "name").get("id")).transpose()
}

/// Teams with their members, in order of name, after a name.
pub async fn list<Q: Queryable>(conn: &mut Q, after: &str, limit: u32) -> Result<Vec<TeamInfo>, StoreError> {
    let rows: Vec<Row> = conn
        .exec("SELECT name FROM team WHERE name > ? ORDER BY name LIMIT ?", (after, limit))
        .await
        .map_err(StoreError::doing("read teams"))?;
    let names: Vec<String> =
        rows.iter().map(|row| Columns::new(row, "team", "name").get("name")).collect::<Result<_, _>>()?;
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return Ok(Vec::new()) };
    let rows: Vec<Row> = conn
        .exec(
            "SELECT t.name AS team, u.name AS user, m.role FROM team_member m JOIN team t ON t.id = m.team_id \
             JOIN user u ON u.id = m.user_id WHERE t.name BETWEEN ? AND ? ORDER BY u.name",
            (first, last),
        )
        .await
        .map_err(StoreError::doing("read members"))?;
    let mut members: HashMap<String, Vec<TeamMember>> = HashMap::new();
    for row in &rows {
        let columns = Columns::new(row, "team_member", "team");
        let member = TeamMember { user: columns.get("user")?, role: columns.word("role")? };
        members.entry(columns.get("team")?).or_default().push(member);
    }
    Ok(names
        .into_iter()
        .map(|name| {
            let members = members.remove(&name).unwrap_or_default();
            TeamInfo { name, members }
        })
        .collect())
}

/// One team with its members.
pub async fn find<Q: Queryable>(conn: &mut Q, name: &str) -> Result<Option<TeamInfo>, StoreError> {
    let Some(id) = id_of(conn, name).await? else { return Ok(None) };
    let rows: Vec<Row> = conn
        .exec(
            "SELECT u.name AS user, m.role FROM team_member m JOIN user u ON u.id = m.user_id \
             WHERE m.team_id = ? ORDER BY u.name",
            (id,),
        )
        .await
        .map_err(StoreError::doing("read members"))?;
    let members = rows
        .iter()
        .map(|row| {
            let columns = Columns::new(row, "team_member", "user");
            Ok(TeamMember { user: columns.get("user")?, role: columns.word("role")? })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(Some(TeamInfo { name: name.to_owned(), members }))
}

/// Adds a team. [`StoreError::is_duplicate`] if the name is taken.
pub async fn insert<Q: Queryable>(conn: &mut Q, name: &str) -> Result<(), StoreError> {
    conn.exec_drop("INSERT INTO team (name) VALUES (?)", (name,)).await.map_err(StoreError::doing("write a team"))
}

/// Removes a team with its memberships.
pub async fn remove<Q: Queryable>(conn: &mut Q, id: u64) -> Result<(), StoreError> {
    conn.exec_drop("DELETE FROM team WHERE id = ?", (id,)).await.map_err(StoreError::doing("remove a team"))
}

/// Makes a person a member, or changes the role of one.
pub async fn put_member<Q: Queryable>(
    conn: &mut Q,
    team_id: u64,
    user_id: u64,
    role: TeamRole,
) -> Result<(), StoreError> {
    conn.exec_drop(
        "INSERT INTO team_member (team_id, user_id, role) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE role = VALUES(role)",
        (team_id, user_id, role_word(role)),
    )
    .await
    .map_err(StoreError::doing("write a membership"))
}

/// Ends a membership, if there is one.
pub async fn remove_member<Q: Queryable>(conn: &mut Q, team_id: u64, user_id: u64) -> Result<(), StoreError> {
    conn.exec_drop("DELETE FROM team_member WHERE team_id = ? AND user_id = ?", (team_id, user_id))
        .await
        .map_err(StoreError::doing("remove a membership"))
}
