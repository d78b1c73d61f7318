//! `dinp router`, `dinp ticket` and `dinp orphan`: what operators look after.

use std::collections::BTreeSet;

use clap::Subcommand;
use dinp_common::api::control::{Adopted, InstanceView, Resumed, RouterView, StrangerView};
use dinp_common::api::people::AppInstance;
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

/// `dinp ticket ...`
#[derive(Debug, Subcommand)]
pub enum TicketCommand {
    /// Instances that nodes name without a ticket of the servers: they are neither routed nor counted
    Ls,
    /// Take over the instances whose tickets are of a key that the servers do not have
    ///
    /// Each instance carries a ticket that the servers have signed. After their keys were lost (a control machine set up
    /// anew, a backup without them) nothing that runs can be told from what a node makes up: the last route table stays,
    /// and nothing is started or stopped. Look at `dinp ticket ls`; if these are your instances, adopt them.
    Adopt {
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `dinp ticket`.
pub async fn tickets(command: &TicketCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    let strangers = api.list::<StrangerView>("/v1/strangers").await?;
    match command {
        TicketCommand::Ls => out.show(&strangers, || {
            let row = |one: &StrangerView| {
                let ticket = if one.adoptable { "of an unknown key" } else { "not valid" };
                vec![one.node.to_string(), one.instance.short().to_owned(), one.app.to_string(), ticket.to_owned()]
            };
            let rows = strangers.items.iter().map(row).collect();
            out.table(&["NODE", "INSTANCE", "APP", "TICKET"], rows, "every instance has a valid ticket")
        }),
        TicketCommand::Adopt { consent } => {
            let count = strangers.items.iter().filter(|one| one.adoptable).count();
            if count == 0 {
                return Err(CliError::refused("no instance can be adopted", "`dinp ticket ls` shows what nodes claim"));
            }
            let nodes: BTreeSet<String> =
                strangers.items.iter().filter(|one| one.adoptable).map(|one| one.node.to_string()).collect();
            let nodes = nodes.into_iter().collect::<Vec<_>>().join(", ");
            out.confirm(
                consent.yes,
                &format!("Adopt {count} instances on {nodes}? They will get requests and environments."),
            )?;
            let adopted: Adopted = api.post("/v1/tickets/adopt", &serde_json::json!({})).await?;
            out.note(format!("adopted {} instances", adopted.instances));
            Ok(())
        }
    }
}

/// Arguments of `dinp resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "After a restore the database is older than what runs. The servers notice: what runs is kept, \
    replaced and routed, and nothing is deployed, stopped or taken out of the routers' tables.\n\n\
    Look at what the database wants (`dinp app ls`, `dinp ps`), mend what it lacks, and then say this: \
    from then on it is carried out.")]
pub struct Resume {
    /// Whether to ask
    #[command(flatten)]
    consent: Consent,
}

/// Runs `dinp resume`.
pub async fn resume(command: &Resume, api: &Api, out: &Output) -> Result<(), CliError> {
    out.confirm(
        command.consent.yes,
        "Carry out what the database wants though it is older than what runs? Instances of other releases than those \
         that it wants are replaced, and apps that are stopped or deleted there are stopped. Apps that it does not know \
         run on as orphans.",
    )?;
    let resumed: Resumed = api.post("/v1/resume", &serde_json::json!({})).await?;
    out.note(format!("the database is in force from revision {} on", resumed.revision));
    Ok(())
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
            let orphans = api.list::<AppInstance>("/v1/orphans").await?;
            out.show(&orphans, || ps::table(&orphans.items, "no orphans", out))
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
