//! `dinp app env`: environment variables. Values are never shown: nobody but the app can read them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dinp_common::api::people::{AppView, EnvLeftOut, EnvPatch, EnvView};
use dinp_common::model::{AppName, EnvName};

use super::{Waiting, app, deploy};
use crate::api::Api;
use crate::error::CliError;
use crate::output::Output;
use crate::variables::{self, Assignment};

pub(super) const EXAMPLES: &str = "\
Examples:
  dinp app env hello                                names; says if a change waits
  dinp app env hello set DATABASE_URL=mysql://db/hello DEBUG=0
  dinp app env hello set PASSWORD=- < password      value from standard input
  dinp app env hello set CERT=@cert.pem             value from a file
  dinp app env hello set AT=@@handle                a value that begins with @
  dinp app env hello set --env-file .env            all of a file
  dinp app env hello unset DEBUG --no-deploy        with the next deployment

A change is deployed at once unless --no-deploy is given. It starts from what is in force: what a
failed release has brought is left out, unless --keep is given. The end of the last line of a file
or of standard input is not part of the value. Whoever lists the processes of this machine can read
a value in an argument: secrets come from a file or from standard input.

A file of --env-file has one NAME=VALUE a line, with or without export before it; a line that begins
with # is a comment, and so is what follows a blank and a # after a value without quotes. A value in
single quotes is taken to the letter; in double quotes \\n, \\r, \\t, \\\", \\\\ and \\$ are known, and
any other backslash stays; both may span lines. Nothing is expanded.";

/// `dinp app env APP ...`
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Names of the variables
    Ls,
    /// Set variables: NAME=VALUE, NAME=- (standard input), NAME=@FILE
    Set {
        /// What to set
        #[arg(required_unless_present_any = ["env_file", "keep"], value_name = "NAME=VALUE")]
        variables: Vec<Assignment>,
        /// Set the variables of a file, one NAME=VALUE a line
        #[arg(long, value_name = "FILE")]
        env_file: Vec<PathBuf>,
        /// When it takes effect
        #[command(flatten)]
        applying: Applying,
    },
    /// Take variables away
    Unset {
        /// Names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<EnvName>,
        /// When it takes effect
        #[command(flatten)]
        applying: Applying,
    },
}

/// When a change takes effect.
#[derive(Args, Clone, Copy, Debug)]
pub struct Applying {
    /// Keep the change for the next deployment
    #[arg(long)]
    no_deploy: bool,
    /// Take along what a release has brought that is not in force
    #[arg(long)]
    keep: bool,
    /// Whether to wait
    #[command(flatten)]
    waiting: Waiting,
}

impl Applying {
    /// A change of nothing yet.
    fn patch(self) -> EnvPatch {
        EnvPatch { keep: self.keep, deploy: !self.no_deploy, ..EnvPatch::default() }
    }
}

/// Runs `dinp app env`.
pub async fn run(app: &AppName, command: &EnvCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        EnvCommand::Ls => {
            let env: EnvView = api.get(&format!("{}/env", app::path(app))).await?;
            out.show(&env, || list(app, &env, out))
        }
        EnvCommand::Set { variables, env_file, applying } => {
            let set = variables::values(env_file, variables)?;
            change(app, EnvPatch { set, ..applying.patch() }, *applying, api, out).await
        }
        EnvCommand::Unset { names, applying } => {
            change(app, EnvPatch { unset: names.clone(), ..applying.patch() }, *applying, api, out).await
        }
    }
}

fn list(app: &AppName, env: &EnvView, out: &Output) -> Result<(), CliError> {
    for name in &env.names {
        out.line(name.as_str())?;
    }
    if let Some(left_out) = &env.left_out {
        let changes = left_out.set.iter().map(|name| format!("{name} set"));
        let changes = changes.chain(left_out.unset.iter().map(|name| format!("{name} taken away")));
        out.note(format!("not in force: {} ({})", bearer(left_out), changes.collect::<Vec<_>>().join(", ")));
    }
    if env.deployed_version.is_some_and(|deployed| deployed != env.version) {
        out.note(format!("changed and not deployed; `dinp app deploy {app}` deploys it"));
    }
    Ok(())
}

fn bearer(left_out: &EnvLeftOut) -> String {
    let failed = if left_out.failed { "the failed " } else { "" };
    format!("version {} of {failed}release {}", left_out.version, left_out.release)
}

/// What a change does not start from, and what takes it along.
pub fn left_out(left_out: &EnvLeftOut, in_force: Option<u32>, flag: &str) -> String {
    let in_force = in_force.map_or("what runs".to_owned(), |version| format!("version {version}, in force"));
    format!("the environment starts from {in_force}; {} is left out: {flag} takes it along", bearer(left_out))
}

async fn change(app: &AppName, patch: EnvPatch, applying: Applying, api: &Api, out: &Output) -> Result<(), CliError> {
    let view: AppView = api.get(&app::path(app)).await?;
    let env: EnvView = api.patch(&format!("{}/env", app::path(app)), &patch).await?;
    if let Some(not_taken) = &env.left_out {
        out.note(left_out(not_taken, env.deployed_version, "--keep"));
    }
    let Some(deployment) = env.deployment.clone() else {
        let later = match view.release {
            Some(_) => "it takes effect with the next deployment",
            None => "nothing is deployed yet, the first deployment takes it along",
        };
        return out.done(&env, &format!("environment of {app} is now version {}; {later}", env.version));
    };
    out.note(format!("environment of {app} is now version {}", env.version));
    deploy::finish(&view, deployment, applying.waiting, api, out).await
}
