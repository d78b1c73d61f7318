//! `dinp app domain`: host names that an app answers to besides its own.

use clap::Subcommand;
use dinp_common::api::people::{DomainAdd, DomainView};
use dinp_common::model::{AppName, DomainName};

use super::{Consent, app};
use crate::api::Api;
use crate::error::CliError;
use crate::output::{Output, age};

/// `dinp app domain APP ...`
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Domains of the app
    Ls,
    /// Add a domain; its DNS must point at the routers
    Add {
        /// The domain, such as shop.example.org
        domain: DomainName,
    },
    /// Take a domain away
    Rm {
        /// The domain
        domain: DomainName,
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `dinp app domain`.
pub async fn run(app: &AppName, command: &DomainCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    let path = format!("{}/domains", app::path(app));
    match command {
        DomainCommand::Ls => {
            let domains = api.list::<DomainView>(&path).await?;
            out.show(&domains, || {
                let row = |domain: &DomainView| {
                    vec![domain.name.to_string(), domain.created_by.clone(), age(domain.created_at)]
                };
                let empty = format!("{app} has no domain of its own; `dinp app domain {app} add DOMAIN` adds one");
                out.table(&["DOMAIN", "BY", "AGE"], domains.items.iter().map(row).collect(), &empty)
            })
        }
        DomainCommand::Add { domain } => {
            let added: DomainView = api.post(&path, &DomainAdd { name: domain.clone() }).await?;
            out.done(&added, &format!("{app} answers to {domain}; its DNS must point at the routers"))
        }
        DomainCommand::Rm { domain, consent } => {
            out.confirm(consent.yes, &format!("Take domain {domain} from {app}?"))?;
            api.delete(&format!("{path}/{domain}")).await?;
            out.note(format!("{app} answers to {domain} no longer"));
            Ok(())
        }
    }
}
