//! `dinp status`: how the cluster is.

use dinp_common::api::control::ClusterStatus;

use crate::api::Api;
use crate::error::CliError;
use crate::output::{Output, age};

/// Runs `dinp status`.
pub async fn run(api: &Api, out: &Output) -> Result<(), CliError> {
    let status: ClusterStatus = api.get("/v1/status").await?;
    out.show(&status, || {
        let nodes = match status.nodes_missing {
            0 => format!("{} ready", status.nodes_ready),
            missing => format!("{} ready, {missing} missing", status.nodes_ready),
        };
        let holdover = if status.holdover {
            "the lease cannot be renewed: no deployment, no scale-in, no stop until it can"
        } else {
            ""
        };
        out.pairs(vec![
            ("cluster", status.cluster.clone()),
            ("leader", format!("{} (epoch {}, version {})", status.leader, status.epoch, status.version)),
            ("nodes", nodes),
            ("instances", format!("{}/{} ready", status.instances_ready, status.instances_wanted)),
            ("desired state", format!("revision {}, read {} ago", status.revision, age(status.synced_at))),
            ("routes", status.routes.to_string()),
            ("holdover", holdover.to_owned()),
            ("frozen", status.frozen.clone().unwrap_or_default()),
            ("problems", status.problems.join("\n")),
        ])
    })
}
