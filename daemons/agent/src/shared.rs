//! What the parts of the agent share.

use crate::board::Board;
use crate::config::AgentConfig;
use crate::container::Surroundings;
use crate::disk::Stored;
use crate::docker::{Engine, Traits};
use crate::ended::Archive;
use crate::faults::Faults;
use crate::filter::Filter;
use crate::ledger::Ledger;
use crate::oom::Kills;
use crate::orders::Kept;
use dinp_common::api::agent::NodeBundle;
use dinp_common::model::InstanceId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// What is remembered of an instance, so that a new agent need not doubt it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The start (in the engine's words) since which it has been ready; empty if it is not.
    pub started_at: String,
    /// Times it had been started again by then.
    pub restarts: u32,
    /// Since when it is ready, in milliseconds since 1970; 0 where an agent before this one did not say.
    #[serde(default)]
    pub since: i64,
    /// Whether it has proved itself since that start. What was ready for an agent that did not say has.
    #[serde(default = "yes")]
    pub proved: bool,
    /// Times that it failed by its own fault.
    #[serde(default)]
    pub failures: u32,
}

fn yes() -> bool {
    true
}

/// What is remembered of all.
pub type Memory = BTreeMap<InstanceId, Remembered>;

/// See the module.
pub struct Shared {
    /// Configuration.
    pub config: AgentConfig,
    /// Who this node is.
    pub bundle: NodeBundle,
    /// Ports of instances.
    pub range: RangeInclusive<u16>,
    /// The Docker Engine.
    pub engine: Engine,
    /// What there is to report.
    pub board: Board,
    /// What is wrong with this node.
    pub faults: Arc<Faults>,
    /// Whether the packet filter is in force.
    pub filter: Filter,
    /// The orders that were accepted last.
    pub orders: Stored<Option<Kept>>,
    /// Who has which port.
    pub ledger: Stored<Ledger>,
    /// What is remembered of instances.
    pub memory: Stored<Memory>,
    /// Output of instances that are gone.
    pub ended: Archive,
    /// Limits the pulls at the same time.
    pub pulls: Semaphore,
    /// Client for probes.
    pub probes: reqwest::Client,
    /// From when on the engine has been watched without a break, in nanoseconds since 1970.
    pub engine_since: AtomicI64,
    /// What the kernel has killed for memory.
    pub kills: Kills,
    /// What the engine is like; unknown until it has answered.
    pub traits: Mutex<Traits>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.bundle.node).finish_non_exhaustive()
    }
}

impl Shared {
    /// What the engine is like.
    pub fn traits(&self) -> Traits {
        self.traits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The engine has told what it is like.
    pub fn set_traits(&self, traits: Traits) {
        *self.traits.lock().unwrap_or_else(PoisonError::into_inner) = traits;
    }

    /// What all containers of this node have in common, now.
    pub fn surroundings(&self) -> Surroundings {
        let config = &self.config;
        let host_ip = config.host_ip.as_ref().unwrap_or(&self.bundle.address);
        Surroundings {
            cluster: self.bundle.cluster.clone(),
            host_ip: host_ip.clone(),
            scribe_ip: config.scribe_ip.as_ref().unwrap_or(host_ip).clone(),
            scribe_port: config.scribe_port,
            network: config.docker.network.clone(),
            publish_address: config.publish_address,
            traits: self.traits(),
            config: config.container.clone(),
        }
    }
}
