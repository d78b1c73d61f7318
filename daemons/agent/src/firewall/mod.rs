//! `dinp-agent firewall`: what containers cannot reach, and who can reach them.
//!
//! | from | to | fate |
//! |---|---|---|
//! | apps | name servers of this machine, port 53; routers, their ports for users | allowed |
//! | apps | anything, beyond `container.connections_limit` connections of one instance | refused |
//! | apps | this machine itself, each other | refused |
//! | apps | link-local addresses, `servers`, `denied_addresses`, all machines that the orders name | refused |
//! | apps | ports of instances, on any machine | refused |
//! | routers, monitors, `allowed_sources`, this machine itself | instances | allowed |
//! | anybody else | instances | refused, once the orders name a router |
//!
//! `DINP-APPS-IN` is the first rule of `INPUT`, `DINP-APPS` that of `DOCKER-USER`, and this that of `FORWARD`. Both
//! chains are replaced in one piece, so that this can be run at any time and any number of times. The bridge need not
//! exist yet, nor Docker's chain.
//!
//! Looking at the rules needs the same privilege as changing them, which the agent has not. It asks at a socket
//! ([`crate::filter`]): systemd starts this for it, all is put in force, and the answer says whether it is.

mod names;
mod rules;
mod tables;

use crate::config::{AgentConfig, bundle, servers};
use crate::disk::{self, DiskError};
use crate::orders::Kept;
use dinp_common::api::agent::Peers;
use dinp_common::config::{ConfigError, Loaded};
use dinp_common::credentials::CredentialError;
use dinp_common::error::ErrorChain;
use dinp_common::listen::{ListenError, take_inherited};
use dinp_common::network::host_of;
use names::Names;
use rules::{Family, Rules};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long who asks may take to read the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Why the rules are not all in force.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The configuration does not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] CredentialError),
    /// The orders of the disk cannot be read.
    #[error(transparent)]
    Orders(#[from] DiskError),
    /// The socket for questions cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A program cannot be run.
    #[error("run {program}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program refused.
    #[error("{program} failed: {message}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// Another program keeps putting rules before ours.
    #[error("the jump from {chain} to {target} does not stay its first rule")]
    NotFirst {
        /// Where it should stand.
        chain: &'static str,
        /// Where it goes.
        target: &'static str,
    },
}

/// The answer to who asks, as one line of JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Why the rules are not in force; none if they are.
    pub fault: Option<String>,
    /// Names that never had an address: what they stand for is not denied.
    #[serde(default)]
    pub unknown: BTreeSet<String>,
}

impl Verdict {
    /// Not in force, for that reason.
    pub fn failed(fault: String) -> Self {
        Self { fault: Some(fault), unknown: BTreeSet::new() }
    }
}

/// The subcommand.
pub fn command() -> clap::Command {
    clap::Command::new("firewall").about("Put the packet filter for instances in force")
}

/// Puts the rules in force, and answers those who ask meanwhile.
pub async fn run(loaded: &Loaded<AgentConfig>) -> Result<(), FirewallError> {
    let listeners: Vec<UnixListener> = take_inherited("firewall")?.into_iter().map(UnixListener::from).collect();
    let mut asking = waiting(&listeners);
    loop {
        let outcome = enforce(loaded).await;
        let verdict = match &outcome {
            Ok(unknown) => Verdict { fault: None, unknown: unknown.clone() },
            Err(error) => Verdict::failed(ErrorChain(error).to_string()),
        };
        asking.drain(..).for_each(|stream| answer(stream, &verdict));
        // Who came meanwhile asks about a later moment than the one that was looked at.
        asking = waiting(&listeners);
        if asking.is_empty() {
            return outcome.map(drop);
        }
    }
}

fn waiting(listeners: &[UnixListener]) -> Vec<UnixStream> {
    let accept = |listener: &UnixListener| {
        listener.set_nonblocking(true)?;
        listener.accept().map(|(stream, _)| stream)
    };
    listeners.iter().flat_map(|listener| std::iter::from_fn(|| accept(listener).ok())).collect()
}

/// Who hangs up asks again.
fn answer(mut stream: UnixStream, verdict: &Verdict) {
    let line = serde_json::to_string(verdict).expect("a verdict is texts, which JSON can hold") + "\n";
    let written = stream.set_write_timeout(Some(ANSWER_LIMIT)).and_then(|()| stream.write_all(line.as_bytes()));
    if let Err(error) = written {
        tracing::debug!(%error, "an answer was not taken");
    }
}

/// Puts the rules in force; the names that have no address.
async fn enforce(loaded: &Loaded<AgentConfig>) -> Result<BTreeSet<String>, FirewallError> {
    let mut names = Names::load();
    let mut rules = gather(loaded, &mut names).await?;
    names.save();
    let mut families = vec![Family::V4];
    families.extend(Path::new("/proc/net/if_inet6").exists().then_some(Family::V6));
    for family in families {
        if enforce_in(family, &mut rules).await? {
            tracing::warn!(?family, "the packet filter was not in force as it should be, and is now");
        }
    }
    Ok(names.unknown)
}

/// Puts them in force, without a limit of connections where the kernel has no match for it; true if they were not.
async fn enforce_in(family: Family, rules: &mut Rules) -> Result<bool, FirewallError> {
    let refused = match tables::enforce(family, rules).await {
        Err(error @ FirewallError::Failed { .. }) if rules.connections.is_some() => error,
        outcome => return outcome,
    };
    rules.connections = None;
    let outcome = tables::enforce(family, rules).await;
    // Once, and not each time that all is found as it was left.
    if matches!(outcome, Ok(true)) {
        tracing::warn!(error = %ErrorChain(&refused), "connections of instances are not limited: this kernel cannot count them");
    }
    outcome
}

/// What configuration, bundle and the orders of the disk say.
async fn gather(loaded: &Loaded<AgentConfig>, names: &mut Names) -> Result<Rules, FirewallError> {
    let config = &loaded.daemon;
    let (urls, peers) = match bundle(config) {
        Ok(bundle) => (servers(loaded, &bundle)?, peers(config, &bundle.cluster)?),
        // A machine that is no node yet is protected already.
        Err(error) if error.is_missing() => (loaded.cluster.servers.clone(), Peers::default()),
        Err(error) => return Err(error.into()),
    };
    let servers: Vec<String> = urls.iter().filter_map(host_of).collect();
    let Peers { routers, monitors, others } = &peers;
    let denied = servers.iter().chain(&config.denied_addresses).chain(routers).chain(monitors).chain(others);
    let knows_clients = !routers.is_empty();
    let clients = routers.iter().chain(monitors).chain(&config.firewall.allowed_sources).filter(|_| knows_clients);
    names.look_up(denied.clone().chain(clients.clone())).await;
    Ok(Rules {
        bridge: config.docker.bridge.clone(),
        range: config.port_range()?,
        clients: names.networks(clients),
        routers: names.networks(routers),
        user_ports: config.firewall.router_ports.clone(),
        resolvers: names::resolvers(),
        denied: names.networks(denied),
        connections: Some(config.container.connections_limit),
    })
}

fn peers(config: &AgentConfig, cluster: &str) -> Result<Peers, DiskError> {
    let kept = disk::load::<Option<Kept>>(&config.state_dir.join(crate::ORDERS))?.flatten();
    Ok(kept.filter(|kept| kept.orders.cluster == cluster).map(|kept| kept.orders.peers).unwrap_or_default())
}
