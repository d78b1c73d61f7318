//! What each command does. One module per noun; each holds its part of the grammar, too.

pub mod app;
pub mod build;
pub mod completions;
pub mod context;
pub mod deploy;
pub mod domain;
pub mod env;
pub mod image;
pub mod logs;
pub mod man;
pub mod node;
pub mod operator;
pub mod ps;
mod rebase;
pub mod settings;
pub mod sign;
pub mod status;
pub mod team;
pub mod user;

use clap::Args;
use dinp_common::model::{InvalidValue, NodeName};

use crate::args::{Cli, Command};
use crate::error::CliError;
use crate::output::Output;
use crate::session;

/// Whether to wait until what was asked for is so.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// Wait for the verdict and end with it (the default)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as it is asked for
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

impl Waiting {
    /// Whether to.
    pub fn wanted(self) -> bool {
        !self.no_wait
    }
}

/// Consent to what cannot be taken back.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Consent {
    /// Do it without a question
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// Runs a command.
pub async fn run(cli: Cli, out: &Output) -> Result<(), CliError> {
    let global = &cli.global;
    let api = || session::api(global);
    match &cli.command {
        Command::Login(login) => sign::login(login, global, out).await,
        Command::Logout => sign::logout(global, out).await,
        Command::Whoami => sign::whoami(global, out).await,
        Command::Context(command) => context::run(command, out),
        Command::Deploy(deploy) => deploy::run(deploy, &api()?, out).await,
        Command::App(command) => app::run(command, &api()?, out).await,
        Command::Build(build) => build::run(build, &api()?, out).await,
        Command::Image(command) => image::run(command, &api()?, out).await,
        Command::Ps(ps) => ps::run(ps, &api()?, out).await,
        Command::Logs(logs) => logs::run(logs, &api()?, out).await,
        Command::Events(events) => ps::events(events, &api()?, out).await,
        Command::Status => status::run(&api()?, out).await,
        Command::Node(command) => node::run(command, &api()?, out).await,
        Command::Router(command) => operator::routers(command, &api()?, out).await,
        Command::Ticket(command) => operator::tickets(command, &api()?, out).await,
        Command::Resume(resume) => operator::resume(resume, &api()?, out).await,
        Command::Orphan(command) => operator::orphans(command, &api()?, out).await,
        Command::User(command) => user::run(command, &api()?, out).await,
        Command::Team(command) => team::run(command, &api()?, out).await,
        Command::Setup(command) => Ok(crate::setup::run(command).await?),
        Command::Completions(completions) => completions::run(completions, out),
        Command::Man(man) => man::run(man),
    }
}

/// Names of people, teams and routers obey the rule of nodes' names: a DNS label.
fn label(what: &'static str, text: &str) -> Result<String, InvalidValue> {
    match text.parse::<NodeName>() {
        Ok(name) => Ok(name.into()),
        Err(error) => Err(InvalidValue::new(what, text, error.rule)),
    }
}

/// Name of a person, for clap.
pub fn user_name(text: &str) -> Result<String, InvalidValue> {
    label("user name", text)
}

/// Name of a team, for clap.
pub fn team_name(text: &str) -> Result<String, InvalidValue> {
    label("team name", text)
}

/// Name of a router, for clap.
pub fn router_name(text: &str) -> Result<String, InvalidValue> {
    label("router name", text)
}
