//! `dinp app env`: environment variables. Values are never shown: nobody but the app can read them.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::{Args, Subcommand};
use dinp_common::api::people::{AppView, EnvPatch, EnvView};
use dinp_common::model::{AppName, EnvName};

use super::sign::{secret_from_stdin, without_line_end};
use super::{Waiting, app, deploy};
use crate::api::Api;
use crate::error::CliError;
use crate::output::Output;

pub(super) const EXAMPLES: &str = "\
Examples:
  dinp app env hello                                names; says if a change waits
  dinp app env hello set DATABASE_URL=mysql://db/hello DEBUG=0
  dinp app env hello set PASSWORD=- < password      value from standard input
  dinp app env hello set CERT=@cert.pem             value from a file
  dinp app env hello unset DEBUG --no-deploy        with the next deployment

A change is deployed at once unless --no-deploy is given. The end of the last line of a file or of
standard input is not part of the value.";

/// `dinp app env APP ...`
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Names of the variables
    Ls,
    /// Set variables: NAME=VALUE, NAME=- (standard input), NAME=@FILE
    Set {
        /// What to set
        #[arg(required = true, value_name = "NAME=VALUE")]
        variables: Vec<Assignment>,
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
    /// Whether to wait
    #[command(flatten)]
    waiting: Waiting,
}

/// One variable with the source of its value.
#[derive(Clone)]
pub struct Assignment {
    name: EnvName,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Text(String),
    Stdin,
    File(String),
}

// A value may be a secret: nothing prints it.
impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=...", self.name)
    }
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, value)) = text.split_once('=') else {
            return Err("it must be NAME=VALUE, NAME=- or NAME=@FILE".into());
        };
        let name = name.parse().map_err(|error: dinp_common::model::InvalidValue| error.to_string())?;
        let value = match (value, value.strip_prefix('@')) {
            ("-", _) => Value::Stdin,
            (_, Some(path)) => Value::File(path.into()),
            _ => Value::Text(value.into()),
        };
        Ok(Self { name, value })
    }
}

/// Runs `dinp app env`.
pub async fn run(app: &AppName, command: &EnvCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        EnvCommand::Ls => {
            let env: EnvView = api.get(&format!("{}/env", app::path(app))).await?;
            out.show(&env, || {
                for name in &env.names {
                    out.line(name.as_str())?;
                }
                if env.deployed_version.is_some_and(|deployed| deployed != env.version) {
                    out.note(format!("changed and not deployed; `dinp app deploy {app}` deploys it"));
                }
                Ok(())
            })
        }
        EnvCommand::Set { variables, applying } => {
            let patch =
                EnvPatch { set: values(variables)?, unset: Vec::new(), keep: false, deploy: !applying.no_deploy };
            change(app, &patch, *applying, api, out).await
        }
        EnvCommand::Unset { names, applying } => {
            let patch =
                EnvPatch { set: BTreeMap::new(), unset: names.clone(), keep: false, deploy: !applying.no_deploy };
            change(app, &patch, *applying, api, out).await
        }
    }
}

fn values(variables: &[Assignment]) -> Result<BTreeMap<EnvName, String>, CliError> {
    if variables.iter().filter(|variable| matches!(variable.value, Value::Stdin)).count() > 1 {
        return Err(CliError::usage(
            "two variables cannot both come from standard input",
            "give one of them as NAME=@FILE",
        ));
    }
    let mut set = BTreeMap::new();
    for Assignment { name, value } in variables {
        let value = match value {
            Value::Text(text) => text.clone(),
            Value::Stdin => secret_from_stdin(&format!("value of {name}"))?,
            Value::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| CliError::io(format!("read {path} for {name}"), error))?;
                without_line_end(text)
            }
        };
        set.insert(name.clone(), value);
    }
    Ok(set)
}

async fn change(app: &AppName, patch: &EnvPatch, applying: Applying, api: &Api, out: &Output) -> Result<(), CliError> {
    let view: AppView = api.get(&app::path(app)).await?;
    let env: EnvView = api.patch(&format!("{}/env", app::path(app)), patch).await?;
    let Some(deployment) = env.deployment.clone() else {
        let later = if view.release.is_some() { "; it takes effect with the next deployment" } else { "" };
        return out.done(&env, &format!("environment of {app} is now version {}{later}", env.version));
    };
    out.note(format!("environment of {app} is now version {}", env.version));
    deploy::finish(&view, deployment, applying.waiting, api, out).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_sources_and_are_never_printed() {
        let read = |text: &str| text.parse::<Assignment>();
        assert!(matches!(read("A=b=c").unwrap().value, Value::Text(text) if text == "b=c"));
        assert!(matches!(read("A=").unwrap().value, Value::Text(text) if text.is_empty()));
        assert!(matches!(read("A=-").unwrap().value, Value::Stdin));
        assert!(matches!(read("A=@x/y").unwrap().value, Value::File(path) if path == "x/y"));
        assert_eq!(format!("{:?}", read("A=secret").unwrap()), "A=...");
        assert!(read("1A=x").unwrap_err().contains("environment variable \"1A\" is not valid"));
        assert!(!read("secret").unwrap_err().contains("secret"));
        assert_eq!(values(&[read("A=-").unwrap(), read("B=-").unwrap()]).unwrap_err().code(), 64);
    }
}
