//! Users, teams and membership: what may be changed, and by which rules.
//!
//! Users and teams share one set of names, because either can be the first part of an image's path in the registry; a name
//! is given once, because images stay when their owner goes.
//! The last administrator who can sign in cannot be taken away.

use crate::passwords::{self, Passwords};
use dinp_common::api::uic::{PlatformRole, TeamInfo, TeamRole, UserCreate, UserInfo, UserPatch};
use dinp_common::credentials::Secret;
use dinp_common::model::{AppName, InvalidValue, PLATFORM_OWNER};
use dinp_common::problem::Problem;
use dinp_common::store::audit::{self, AuditEvent};
use dinp_common::store::user::UserRow;
use dinp_common::store::{StoreError, names, session, team, user};
use mysql_async::{Conn, Pool, Transaction, TxOpts};

/// Who changes something, and from where.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Name.
    pub name: String,
    /// Address, as far as it is known.
    pub address: String,
}

/// Checks the name of a user or a team.
pub fn check_name(what: &'static str, name: &str) -> Result<(), InvalidValue> {
    name.parse::<AppName>().map_err(|error| InvalidValue { what, ..error })?;
    if name == PLATFORM_OWNER {
        return Err(InvalidValue::new(what, name, "it is the platform's own, whose base images are kept under it"));
    }
    Ok(())
}

fn invalid(error: &InvalidValue, field: &str) -> Problem {
    Problem::unprocessable("invalid-value", error.to_string()).with("field", field)
}

fn no_user(name: &str) -> Problem {
    Problem::not_found(format!("there is no user {name}"))
}

fn no_team(name: &str) -> Problem {
    Problem::not_found(format!("there is no team {name}"))
}

async fn begin(pool: &Pool) -> Result<Transaction<'static>, Problem> {
    Ok(pool.start_transaction(TxOpts::default()).await.map_err(StoreError::doing("begin a change"))?)
}

async fn commit(tx: Transaction<'_>) -> Result<(), Problem> {
    Ok(tx.commit().await.map_err(StoreError::doing("commit a change"))?)
}

async fn note(
    tx: &mut Transaction<'_>,
    actor: &Actor,
    action: &str,
    object: &str,
    detail: &str,
) -> Result<(), Problem> {
    let event = AuditEvent { actor: &actor.name, address: &actor.address, action, object, detail };
    Ok(audit::write(tx, &event).await?)
}

fn role_word(role: PlatformRole) -> &'static str {
    match role {
        PlatformRole::User => "user",
        PlatformRole::Operator => "operator",
        PlatformRole::Admin => "admin",
    }
}

/// One person with teams.
pub async fn find_user(conn: &mut Conn, name: &str) -> Result<UserInfo, Problem> {
    let row = user::by_name(conn, name).await?.ok_or_else(|| no_user(name))?;
    let teams = user::teams_of(conn, row.id).await?;
    Ok(row.into_info(teams))
}

/// Refuses a new name that is taken, and keeps it free until the change is committed.
async fn reserve_name(tx: &mut Transaction<'_>, name: &str) -> Result<(), Problem> {
    user::lock_names(tx).await?;
    let Some(holder) = names::holder(tx, name).await? else { return Ok(()) };
    let holder = holder.as_str();
    let detail = format!("the name {name} is taken by {holder}; users and teams share one set of names");
    Err(Problem::conflict("name-taken", detail).with("field", "name"))
}

/// Adds a person.
pub async fn create_user(pool: &Pool, passwords: &Passwords, actor: &Actor, new: UserCreate) -> Result<(), Problem> {
    check_name("user name", &new.name).map_err(|error| invalid(&error, "name"))?;
    passwords::check_new(&new.password).map_err(|error| invalid(&error, "password"))?;
    let hash = passwords.hash(Secret::new(new.password)).await?;
    let mut tx = begin(pool).await?;
    reserve_name(&mut tx, &new.name).await?;
    user::insert(&mut tx, &new.name, &hash, new.role).await?;
    note(&mut tx, actor, "user.create", &format!("user/{}", new.name), role_word(new.role)).await?;
    commit(tx).await
}

/// Refuses a change after which nobody could administer the cluster.
async fn spare_last_admin(tx: &mut Transaction<'_>, row: &UserRow) -> Result<(), Problem> {
    let admins = user::lock_admins(tx).await?;
    if admins == [row.id] {
        let detail = format!("{} is the last administrator who can sign in; make another one first", row.name);
        return Err(Problem::conflict("last-admin", detail));
    }
    Ok(())
}

/// Changes a person.
pub async fn patch_user(
    pool: &Pool,
    passwords: &Passwords,
    actor: &Actor,
    name: &str,
    patch: UserPatch,
) -> Result<(), Problem> {
    let hash = match patch.password {
        Some(password) => {
            passwords::check_new(&password).map_err(|error| invalid(&error, "password"))?;
            Some(passwords.hash(Secret::new(password)).await?)
        }
        None => None,
    };
    let mut tx = begin(pool).await?;
    let row = user::by_name(&mut tx, name).await?.ok_or_else(|| no_user(name))?;
    let demoted = patch.role.is_some_and(|role| role < PlatformRole::Admin);
    if demoted || patch.suspended == Some(true) {
        spare_last_admin(&mut tx, &row).await?;
    }
    let mut changes = Vec::new();
    if let Some(hash) = hash {
        user::set_password(&mut tx, row.id, &hash).await?;
        changes.push("password".to_owned());
    }
    if let Some(role) = patch.role {
        user::set_role(&mut tx, row.id, role).await?;
        changes.push(format!("role {}", role_word(role)));
    }
    if let Some(suspended) = patch.suspended {
        user::set_suspended(&mut tx, row.id, suspended).await?;
        changes.push(if suspended { "suspended".to_owned() } else { "resumed".to_owned() });
    }
    if changes.iter().any(|change| change == "password" || change == "suspended") {
        session::remove_of_user(&mut tx, row.id, "").await?;
    }
    if !changes.is_empty() {
        note(&mut tx, actor, "user.change", &format!("user/{name}"), &changes.join(", ")).await?;
    }
    commit(tx).await
}

/// Sets the own password and ends all other sessions.
pub async fn change_own_password(
    pool: &Pool,
    passwords: &Passwords,
    actor: &Actor,
    row: &UserRow,
    session_id: &str,
    password: String,
) -> Result<(), Problem> {
    passwords::check_new(&password).map_err(|error| invalid(&error, "password"))?;
    let hash = passwords.hash(Secret::new(password)).await?;
    let mut tx = begin(pool).await?;
    user::set_password(&mut tx, row.id, &hash).await?;
    session::remove_of_user(&mut tx, row.id, session_id).await?;
    note(&mut tx, actor, "user.change", &format!("user/{}", row.name), "password").await?;
    commit(tx).await
}

/// Removes a person.
pub async fn remove_user(pool: &Pool, actor: &Actor, name: &str) -> Result<(), Problem> {
    let mut tx = begin(pool).await?;
    let row = user::by_name(&mut tx, name).await?.ok_or_else(|| no_user(name))?;
    spare_last_admin(&mut tx, &row).await?;
    user::remove(&mut tx, row.id).await?;
    names::retire(&mut tx, &row.name).await?;
    note(&mut tx, actor, "user.remove", &format!("user/{name}"), "").await?;
    commit(tx).await
}

/// Adds a team.
pub async fn create_team(pool: &Pool, actor: &Actor, name: &str) -> Result<(), Problem> {
    check_name("team name", name).map_err(|error| invalid(&error, "name"))?;
    let mut tx = begin(pool).await?;
    reserve_name(&mut tx, name).await?;
    team::insert(&mut tx, name).await?;
    note(&mut tx, actor, "team.create", &format!("team/{name}"), "").await?;
    commit(tx).await
}

/// Removes a team.
pub async fn remove_team(pool: &Pool, actor: &Actor, name: &str) -> Result<(), Problem> {
    let mut tx = begin(pool).await?;
    let id = team::id_of(&mut tx, name).await?.ok_or_else(|| no_team(name))?;
    team::remove(&mut tx, id).await?;
    names::retire(&mut tx, name).await?;
    note(&mut tx, actor, "team.remove", &format!("team/{name}"), "").await?;
    commit(tx).await
}

/// Makes a person a member with this role, or ends the membership.
pub async fn set_member(
    pool: &Pool,
    actor: &Actor,
    team_name: &str,
    user_name: &str,
    role: Option<TeamRole>,
) -> Result<TeamInfo, Problem> {
    let mut tx = begin(pool).await?;
    let team_id = team::id_of(&mut tx, team_name).await?.ok_or_else(|| no_team(team_name))?;
    let row = user::by_name(&mut tx, user_name).await?.ok_or_else(|| no_user(user_name))?;
    let object = format!("team/{team_name}");
    match role {
        Some(role) => {
            team::put_member(&mut tx, team_id, row.id, role).await?;
            let detail = format!("{user_name} is {role:?}").to_lowercase();
            note(&mut tx, actor, "team.member", &object, &detail).await?;
        }
        None => {
            team::remove_member(&mut tx, team_id, row.id).await?;
            note(&mut tx, actor, "team.member", &object, &format!("{user_name} left")).await?;
        }
    }
    let info = team::find(&mut tx, team_name).await?.ok_or_else(|| no_team(team_name))?;
    commit(tx).await?;
    Ok(info)
}
