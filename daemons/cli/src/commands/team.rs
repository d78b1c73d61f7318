//! `dinp team`: who works on which apps.

use clap::{Subcommand, ValueEnum};
use dinp_common::api::uic::{MemberPut, TeamCreate, TeamInfo, TeamRole};
use serde::de::IgnoredAny;

use super::Consent;
use super::sign::team_role;
use crate::api::Api;
use crate::error::CliError;
use crate::output::{Output, dash};

/// `dinp team ...`
#[derive(Debug, Subcommand)]
pub enum TeamCommand {
    /// Add a team
    Create {
        /// Name: a DNS label
        #[arg(value_parser = super::team_name)]
        name: String,
    },
    /// The teams with their members
    Ls,
    /// Add a person to a team, or change the role there
    AddMember {
        /// The team
        #[arg(value_parser = super::team_name)]
        team: String,
        /// The person
        #[arg(value_parser = super::user_name)]
        user: String,
        /// Role in the team
        #[arg(long, value_enum, default_value = "deployer")]
        role: Role,
    },
    /// Take a person out of a team
    RmMember {
        /// The team
        #[arg(value_parser = super::team_name)]
        team: String,
        /// The person
        #[arg(value_parser = super::user_name)]
        user: String,
    },
    /// Remove a team
    Rm {
        /// The team
        #[arg(value_parser = super::team_name)]
        name: String,
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
}

/// A role in a team, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// Sees
    Viewer,
    /// Deploys, scales, sets environment
    Deployer,
    /// Members, domains, deletes
    Owner,
}

impl From<Role> for TeamRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Deployer => Self::Deployer,
            Role::Owner => Self::Owner,
        }
    }
}

/// Runs `dinp team`.
pub async fn run(command: &TeamCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        TeamCommand::Create { name } => {
            let team: TeamInfo = api.post("/v1/teams", &TeamCreate { name: name.clone() }).await?;
            out.done(&team, &format!("added team {name}; `dinp team add-member {name} USER` fills it"))
        }
        TeamCommand::Ls => {
            let teams = api.list::<TeamInfo>("/v1/teams").await?;
            out.show(&teams, || {
                let row = |team: &TeamInfo| {
                    let members =
                        team.members.iter().map(|member| format!("{} ({})", member.user, team_role(member.role)));
                    vec![team.name.clone(), dash(members.collect::<Vec<_>>().join(", "))]
                };
                out.table(
                    &["NAME", "MEMBERS"],
                    teams.items.iter().map(row).collect(),
                    "no teams yet: `dinp team create NAME` adds one",
                )
            })
        }
        TeamCommand::AddMember { team, user, role } => {
            let role = TeamRole::from(*role);
            let _answer: IgnoredAny = api.put(&format!("/v1/teams/{team}/members/{user}"), &MemberPut { role }).await?;
            out.note(format!("{user} is {} in {team}", team_role(role)));
            Ok(())
        }
        TeamCommand::RmMember { team, user } => {
            api.delete(&format!("/v1/teams/{team}/members/{user}")).await?;
            out.note(format!("{user} is in {team} no longer"));
            Ok(())
        }
        TeamCommand::Rm { name, consent } => {
            out.confirm(consent.yes, &format!("Remove team {name}?"))?;
            api.delete(&format!("/v1/teams/{name}")).await?;
            out.note(format!("removed team {name}"));
            Ok(())
        }
    }
}
