//! `dinp context`: which of several clusters is meant.

use clap::Subcommand;
use serde::Serialize;

use super::Consent;
use crate::contexts::ContextFile;
use crate::error::CliError;
use crate::output::{Output, dash};

/// `dinp context ...`
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Clusters that were signed in to
    Ls,
    /// Make one the default
    Use {
        /// Name of the context
        name: String,
    },
    /// Forget one
    Rm {
        /// Name of the context
        name: String,
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
}

/// A context without its token.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    server: &'a str,
    user: &'a str,
    current: bool,
    signed_in: bool,
}

/// Runs `dinp context`.
pub fn run(command: &ContextCommand, out: &Output) -> Result<(), CliError> {
    let file = ContextFile::of_user()?;
    let mut contexts = file.read()?;
    let unknown = |name: &str| {
        CliError::refused(format!("there is no context {name}"), "`dinp context ls` shows those that exist")
    };
    match command {
        ContextCommand::Ls => {
            let shown: Vec<Shown<'_>> = contexts
                .contexts
                .iter()
                .map(|(name, context)| Shown {
                    name,
                    server: &context.server,
                    user: &context.user,
                    current: contexts.current.as_ref() == Some(name),
                    signed_in: context.token.is_some(),
                })
                .collect();
            out.show(&shown, || {
                let row = |context: &Shown<'_>| {
                    vec![
                        if context.current { format!("{} *", context.name) } else { context.name.to_owned() },
                        context.server.to_owned(),
                        dash(if context.signed_in { context.user } else { "" }),
                    ]
                };
                out.table(
                    &["CONTEXT", "SERVER", "USER"],
                    shown.iter().map(row).collect(),
                    "no contexts yet: `dinp login --server URL` makes one",
                )
            })
        }
        ContextCommand::Use { name } => {
            if !contexts.contexts.contains_key(name) {
                return Err(unknown(name));
            }
            contexts.current = Some(name.clone());
            file.write(&contexts)?;
            out.note(format!("commands now go to {name}"));
            Ok(())
        }
        ContextCommand::Rm { name, consent } => {
            if !contexts.contexts.contains_key(name) {
                return Err(unknown(name));
            }
            out.confirm(consent.yes, &format!("Forget context {name} and its token?"))?;
            contexts.contexts.remove(name);
            contexts.current = contexts.current.filter(|current| current != name);
            file.write(&contexts)?;
            out.note(format!("forgot context {name}"));
            Ok(())
        }
    }
}
