//! `dinp user`: people.

use clap::{Subcommand, ValueEnum};
use dinp_common::api::uic::{PlatformRole, UserCreate, UserInfo, UserPatch};

use super::Consent;
use super::sign::{platform_role, prompt, secret_from_stdin, team_role};
use crate::api::Api;
use crate::error::CliError;
use crate::output::{Output, dash};

/// `dinp user ...`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a person
    Create {
        /// Name: a DNS label
        #[arg(value_parser = super::user_name)]
        name: String,
        /// Role on the whole platform
        #[arg(long, value_enum, default_value = "user")]
        role: Role,
        /// Read the first password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// The people
    Ls,
    /// Set a new password; ends all sessions of that person
    Passwd {
        /// Name
        #[arg(value_parser = super::user_name)]
        name: String,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Change the role on the whole platform
    Role {
        /// Name
        #[arg(value_parser = super::user_name)]
        name: String,
        /// The role
        #[arg(value_enum)]
        role: Role,
    },
    /// Let a person sign in no longer; ends all sessions
    Suspend {
        /// Name
        #[arg(value_parser = super::user_name)]
        name: String,
    },
    /// Let a suspended person sign in again
    Resume {
        /// Name
        #[arg(value_parser = super::user_name)]
        name: String,
    },
    /// Remove a person
    Rm {
        /// Name
        #[arg(value_parser = super::user_name)]
        name: String,
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
}

/// A role on the whole platform, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// Sees and changes what the own teams have
    User,
    /// Sees and changes all apps, and nodes
    Operator,
    /// Users and teams too
    Admin,
}

impl From<Role> for PlatformRole {
    fn from(role: Role) -> Self {
        match role {
            Role::User => Self::User,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

/// Runs `dinp user`.
pub async fn run(command: &UserCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        UserCommand::Create { name, role, password_stdin } => {
            let password = new_password(name, *password_stdin)?;
            let body = UserCreate { name: name.clone(), password, role: (*role).into() };
            let user: UserInfo = api.post("/v1/users", &body).await?;
            out.done(&user, &format!("added {} {name}", platform_role(user.role)))
        }
        UserCommand::Ls => {
            let users = api.list::<UserInfo>("/v1/users").await?;
            out.show(&users, || table(&users.items, out))
        }
        UserCommand::Passwd { name, password_stdin } => {
            let password = new_password(name, *password_stdin)?;
            let patch = UserPatch { password: Some(password), ..UserPatch::default() };
            change(name, &patch, "has a new password; all sessions ended", api, out).await
        }
        UserCommand::Role { name, role } => {
            let role = PlatformRole::from(*role);
            let patch = UserPatch { role: Some(role), ..UserPatch::default() };
            change(name, &patch, &format!("is {} now", platform_role(role)), api, out).await
        }
        UserCommand::Suspend { name } => {
            let patch = UserPatch { suspended: Some(true), ..UserPatch::default() };
            change(name, &patch, "cannot sign in any more; all sessions ended", api, out).await
        }
        UserCommand::Resume { name } => {
            let patch = UserPatch { suspended: Some(false), ..UserPatch::default() };
            change(name, &patch, "can sign in again", api, out).await
        }
        UserCommand::Rm { name, consent } => {
            out.confirm(consent.yes, &format!("Remove user {name}?"))?;
            api.delete(&format!("/v1/users/{name}")).await?;
            out.note(format!("removed user {name}"));
            Ok(())
        }
    }
}

async fn change(name: &str, patch: &UserPatch, done: &str, api: &Api, out: &Output) -> Result<(), CliError> {
    let user: UserInfo = api.patch(&format!("/v1/users/{name}"), patch).await?;
    out.done(&user, &format!("{name} {done}"))
}

fn new_password(name: &str, from_stdin: bool) -> Result<String, CliError> {
    if from_stdin {
        return secret_from_stdin("password");
    }
    let first = prompt(&format!("new password of {name}: "))?;
    if first != prompt("the same again: ")? {
        return Err(CliError::refused("the two passwords differ", "nothing was changed; try again"));
    }
    Ok(first)
}

fn table(users: &[UserInfo], out: &Output) -> Result<(), CliError> {
    let row = |user: &UserInfo| {
        let teams = user.teams.iter().map(|team| format!("{} ({})", team.team, team_role(team.role)));
        vec![
            user.name.clone(),
            platform_role(user.role).to_owned(),
            if user.suspended { "suspended" } else { "active" }.to_owned(),
            dash(teams.collect::<Vec<_>>().join(", ")),
        ]
    };
    out.table(&["NAME", "ROLE", "STATE", "TEAMS"], users.iter().map(row).collect(), "no users")
}
