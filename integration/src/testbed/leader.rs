//! Which of the servers leads, and how that changes.

use std::time::Duration;

use serde::Deserialize;

use super::cluster::Cluster;
use super::error::{Error, Result};
use super::eventually::eventually;
use super::host::Host;

/// What `dinp status` says.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// URL of the leader.
    pub leader: String,
    /// Its epoch.
    pub epoch: u64,
    /// Whether it cannot renew its lease.
    pub holdover: bool,
    /// Why nothing destructive is done, if so.
    #[serde(default)]
    pub frozen: Option<String>,
    /// How many nodes are ready.
    pub nodes_ready: u32,
    /// What is wrong, a sentence each.
    #[serde(default)]
    pub problems: Vec<String>,
}

impl Cluster {
    /// What the leader says of the cluster.
    pub async fn status(&self) -> Result<Status> {
        self.cli().json(&["status"]).await
    }

    /// The host whose server leads.
    pub async fn leader(&self) -> Result<&Host> {
        let leader = self.status().await?.leader;
        let found = self.servers().into_iter().find(|host| url(host) == leader);
        found.ok_or_else(|| Error::other(format!("{leader} is none of the servers")))
    }

    /// Waits until everybody follows this host, with both nodes.
    pub async fn follows(&self, host: &Host, within: Duration) -> Result<()> {
        eventually(&format!("{} leads", host.name), within, async || {
            let status = self.status().await.map_err(|error| error.chain())?;
            if status.leader == url(host) && !status.holdover && status.nodes_ready == 2 {
                return Ok(());
            }
            Err(format!("{} with {} nodes, holdover: {}", status.leader, status.nodes_ready, status.holdover))
        })
        .await
    }

    /// A clean stop gives the lease to the other server.
    pub async fn make_leader(&self, host: &Host) -> Result<()> {
        for other in self.servers().into_iter().filter(|other| other.name != host.name) {
            other.exec("systemctl stop dinp-server").await?;
            self.follows(host, Duration::from_secs(30)).await?;
            other.exec("systemctl start dinp-server").await?;
        }
        Ok(())
    }

    /// Restarts the server that leads, and waits until there is a new leadership; the host that has it.
    pub async fn restart_leader(&self) -> Result<&Host> {
        let before = self.status().await?.epoch;
        self.leader().await?.exec("systemctl restart dinp-server").await?;
        eventually("there is a new leader", Duration::from_secs(30), async || {
            let status = self.status().await.map_err(|error| error.chain())?;
            let is_new = status.epoch > before && !status.holdover;
            if is_new { Ok(()) } else { Err(format!("{} in epoch {}", status.leader, status.epoch)) }
        })
        .await?;
        self.leader().await
    }
}

fn url(host: &Host) -> String {
    format!("http://{}:1980/", host.address)
}
