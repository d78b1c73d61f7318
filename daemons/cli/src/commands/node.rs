//! `dinp node`: machines that run apps.

use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};

use clap::{Subcommand, value_parser};
use dinp_common::api::agent::NodeBundle;
use dinp_common::api::control::{NodeAdd, NodeCondition, NodeView};
use dinp_common::model::NodeName;

use super::Consent;
use super::app::cores;
use crate::api::Api;
use crate::contexts::write_private;
use crate::error::CliError;
use crate::output::{Output, age, dash};

/// `dinp node ...`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Make a node known and print its bundle: the secret that its agent signs in with
    #[command(after_help = "Examples:\n  dinp node add node3 --address 10.0.0.13 --bundle node3.json\n  \
        dinp node add node3 --address 10.0.0.13 | ssh node3 sudo dinp setup node --bundle -\n\n\
        The bundle is shown once; whoever has it can act as this node.")]
    Add {
        /// Its name: a DNS label
        name: NodeName,
        /// Address that the routers reach its instances at
        #[arg(long, value_name = "IP")]
        address: String,
        /// Where it stands, so that instances are spread over zones
        #[arg(long, value_name = "ZONE", default_value = "", hide_default_value = true)]
        zone: String,
        /// Memory in MiB that it counts for at most, whatever it reports
        #[arg(long, value_name = "MIB", value_parser = value_parser!(u32).range(1..))]
        memory_mb: Option<u32>,
        /// CPU in thousandths of a core that it counts for at most
        #[arg(long, value_name = "MILLIS", value_parser = value_parser!(u32).range(1..))]
        cpu_millis: Option<u32>,
        /// File for the bundle; - is standard output
        #[arg(long, value_name = "FILE", default_value = "-")]
        bundle: PathBuf,
    },
    /// The nodes
    Ls,
    /// Forget a node; refused while instances run there
    Rm {
        /// The node
        name: NodeName,
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `dinp node`.
pub async fn run(command: &NodeCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        NodeCommand::Add { name, address, zone, memory_mb, cpu_millis, bundle } => {
            let (name, address, zone) = (name.clone(), address.clone(), zone.clone());
            let body = NodeAdd { name, address, zone, memory_mb: *memory_mb, cpu_millis: *cpu_millis };
            add(&body, bundle, api, out).await
        }
        NodeCommand::Ls => {
            let nodes = api.list::<NodeView>("/v1/nodes").await?;
            out.show(&nodes, || table(&nodes.items, out))
        }
        NodeCommand::Rm { name, consent } => {
            out.confirm(consent.yes, &format!("Forget node {name}? Its agent can sign in no longer."))?;
            api.delete(&format!("/v1/nodes/{name}")).await?;
            out.note(format!("forgot node {name}"));
            Ok(())
        }
    }
}

async fn add(body: &NodeAdd, file: &Path, api: &Api, out: &Output) -> Result<(), CliError> {
    let to_stdout = file == Path::new("-");
    // The bundle exists once: a place that it cannot be put is found out before.
    if !to_stdout && file.exists() {
        return Err(CliError::refused(
            format!("{} exists already", file.display()),
            "name another file, or remove this one",
        ));
    }
    let bundle: NodeBundle = api.post("/v1/nodes", body).await?;
    let name = &body.name;
    if to_stdout {
        out.json(&bundle)?;
        if stdout().is_terminal() {
            out.note(format!("put this into a file on {name}, then run there: sudo dinp setup node --bundle FILE"));
        }
        return Ok(());
    }
    let text = serde_json::to_string_pretty(&bundle)
        .map_err(|error| CliError::Other(format!("cannot write the bundle of {name}: {error}")))?;
    write_private(file, format!("{text}\n").as_bytes())?;
    out.note(format!(
        "added node {name}; bring {} there, then run: sudo dinp setup node --bundle FILE",
        file.display()
    ));
    Ok(())
}

/// The word for how a node is.
pub fn condition(condition: NodeCondition) -> &'static str {
    match condition {
        NodeCondition::Ready => "ready",
        NodeCondition::DockerDown => "docker down",
        NodeCondition::Suspect => "suspect",
        NodeCondition::Lost => "lost",
        NodeCondition::Unknown => "unknown",
    }
}

fn table(nodes: &[NodeView], out: &Output) -> Result<(), CliError> {
    let row = |node: &NodeView| {
        let state = match node.cordoned {
            true => format!("{}, cordoned", condition(node.condition)),
            false => condition(node.condition).to_owned(),
        };
        vec![
            node.name.to_string(),
            node.address.clone(),
            dash(&node.zone),
            state,
            node.instances.to_string(),
            format!("{}/{}", node.booked.memory_mb, node.capacity.memory_mb),
            format!("{}/{}", cores(node.booked.cpu_millis), cores(node.capacity.cpu_millis)),
            dash(node.last_report.map(age).unwrap_or_default()),
            dash(&node.agent_version),
            node.problems().join("; "),
        ]
    };
    let headers = ["NAME", "ADDRESS", "ZONE", "STATE", "INSTANCES", "MEMORY MiB", "CPU", "HEARD", "AGENT", "PROBLEM"];
    out.table(
        &headers,
        nodes.iter().map(row).collect(),
        "no nodes yet: `dinp node add NAME --address IP` makes one known",
    )
}
