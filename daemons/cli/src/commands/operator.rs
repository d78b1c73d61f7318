//! `dinp router` and `dinp orphan`: what operators look after.

use std::collections::HashMap;

use clap::Subcommand;
use dinp_common::api::control::{InstanceView, RouterView};
use dinp_common::model::InstanceId;

use super::{Consent, ps};
use crate::api::Api;
use crate::error::CliError;
use crate::output::{Output, age, dash};

/// `dinp router ...`
#[derive(Debug, Subcommand)]
pub enum RouterCommand {
    /// The routers, and which table each applies
    Ls,
    /// Wait for a router no longer, because it is gone for good
    Forget {
        /// The router
        #[arg(value_parser = super::router_name)]
        name: String,
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `dinp router`.
pub async fn routers(command: &RouterCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        RouterCommand::Ls => {
            let routers = api.list::<RouterView>("/v1/routers").await?;
            out.show(&routers, || {
                let row = |router: &RouterView| {
                    vec![
                        router.name.clone(),
                        if router.live { "live" } else { "silent" }.to_owned(),
                        router.applied.to_string(),
                        dash(router.last_seen.map(age).unwrap_or_default()),
                        dash(&router.version),
                        dash(&router.status_url),
                    ]
                };
                let headers = ["NAME", "STATE", "TABLE", "HEARD", "VERSION", "STATUS URL"];
                out.table(&headers, routers.items.iter().map(row).collect(), "no router has reported yet")
            })
        }
        RouterCommand::Forget { name, consent } => {
            out.confirm(
                consent.yes,
                &format!("Forget router {name}? If it still runs, it may send requests to instances that are gone."),
            )?;
            api.delete(&format!("/v1/routers/{name}")).await?;
            out.note(format!("forgot router {name}"));
            Ok(())
        }
    }
}

/// `dinp orphan ...`
#[derive(Debug, Subcommand)]
pub enum OrphanCommand {
    /// Instances whose app has no row: they run on until somebody decides
    Ls,
    /// Stop an orphan
    Rm {
        /// The instance, by its id or the eight digits that `dinp orphan ls` shows
        instance: String,
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `dinp orphan`.
pub async fn orphans(command: &OrphanCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        OrphanCommand::Ls => {
            let orphans = api.list::<InstanceView>("/v1/orphans").await?;
            out.show(&orphans, || ps::table(&orphans.items, &HashMap::new(), "no orphans", out))
        }
        OrphanCommand::Rm { instance, consent } => {
            let orphan = find(instance, api).await?;
            let (id, app, node) = (orphan.instance.short(), &orphan.app, &orphan.node);
            out.confirm(consent.yes, &format!("Stop orphan {id} of {app} on {node}?"))?;
            api.delete(&format!("/v1/orphans/{}", orphan.instance)).await?;
            out.note(format!("orphan {id} of {app} on {node} is being stopped"));
            Ok(())
        }
    }
}

async fn find(text: &str, api: &Api) -> Result<InstanceView, CliError> {
    let orphans = api.list::<InstanceView>("/v1/orphans").await?.items;
    let fits = |id: &InstanceId| text.len() >= 8 && id.as_str().starts_with(text);
    let mut found = orphans.into_iter().filter(|orphan| fits(&orphan.instance));
    match (found.next(), found.next()) {
        (Some(orphan), None) => Ok(orphan),
        (None, _) => Err(CliError::refused(
            format!("there is no orphan {text}"),
            "`dinp orphan ls` shows them; give eight digits or more",
        )),
        _ => Err(CliError::refused(format!("several orphans begin with {text}"), "give more digits")),
    }
}
