//! The grammar of the command line. Each command's own part stands beside what it does.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    app, build, completions, context, deploy, image, logs, man, node, operator, ps, sign, team, user,
};
use crate::output::Format;
use crate::setup::SetupCommand;

const EXAMPLES: &str = "\
Examples:
  dinp login --server https://dash.example          sign in, once per machine
  dinp deploy ./app.tar.gz --app hello              package -> image -> served, in one line
  dinp app ls                                       the apps that you can see
  dinp app scale hello 4                            four instances, spread over the nodes
  dinp logs hello -f                                output of all instances, as it comes
  dinp app rollback hello                           the release before this one
  dinp ps hello --output json                       documents of the API, for programs

Environment:
  DINP_SERVER     address of the dashboard, as --server
  DINP_TOKEN      access token, instead of the one that `dinp login` keeps
  DINP_CONTEXT    name of the context, as --context
  DINP_CA_FILE    certificate of an authority of your own, as --ca-file
  NO_COLOR        no colours

Files:
  ~/.config/dinp/contexts.toml    clusters that were signed in to, each with its token

Exit codes:
  0    done                              65   a value was refused, here or by the server
  1    failed                            69   DINP cannot be reached, or cannot answer now
  2    setup --check: something is due   77   not signed in, or not allowed
  4    build or deployment failed        130  interrupted
  64   wrong command line";

/// Runs web applications on your own machines: package in, served requests out.
#[derive(Debug, Parser)]
#[command(name = "dinp", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    /// What all commands take.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Address of the dashboard [default: that of the context]
    #[arg(long, short = 's', global = true, value_name = "URL", env = "DINP_SERVER", hide_env = true)]
    pub server: Option<String>,
    /// Which of the signed-in clusters to use [default: the one of the last login]
    #[arg(long, global = true, value_name = "NAME", env = "DINP_CONTEXT", hide_env = true)]
    pub context: Option<String>,
    /// Trust servers whose certificate this authority has signed, too [default: that of the context]
    #[arg(long, global = true, value_name = "FILE", env = "DINP_CA_FILE", hide_env = true)]
    pub ca_file: Option<PathBuf>,
    /// table for people, json for programs
    #[arg(
        long,
        short = 'o',
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true
    )]
    pub output: Format,
    /// No progress and no notes
    #[arg(long, short = 'q', global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a cluster
    Login(sign::Login),
    /// Sign out, here and at the server
    Logout,
    /// Who is signed in, and what that person may do
    Whoami,
    /// Clusters that were signed in to
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Build a package and deploy it, or deploy an image; creates the app if it is missing
    Deploy(deploy::Deploy),
    /// Create, change and remove apps
    #[command(subcommand)]
    App(app::AppCommand),
    /// Make an image of a package without deploying it
    Build(build::Build),
    /// What was built of an app and lies in the registry
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Instances of an app, or of all apps
    Ps(ps::Ps),
    /// Output of an app's instances
    Logs(logs::Logs),
    /// What happened to an app
    Events(ps::Events),
    /// How the cluster is
    Status,
    /// Nodes (operators)
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Routers (operators)
    #[command(subcommand)]
    Router(operator::RouterCommand),
    /// Instances whose app DINP does not know (operators)
    #[command(subcommand)]
    Orphan(operator::OrphanCommand),
    /// Instances without a ticket of the servers (operators)
    #[command(subcommand)]
    Ticket(operator::TicketCommand),
    /// Carry out a database that was restored from a backup (operators)
    Resume(operator::Resume),
    /// People (administrators)
    #[command(subcommand)]
    User(user::UserCommand),
    /// Teams (administrators)
    #[command(subcommand)]
    Team(team::TeamCommand),
    /// Make this machine a part of a cluster (root)
    #[command(subcommand)]
    Setup(SetupCommand),
    /// Completion for a shell
    Completions(completions::Completions),
    /// Write the manual pages of all commands
    #[command(hide = true)]
    Man(man::Man),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }
}
