//! The agent of a compute node: carries out the leader's orders against the local Docker Engine, and reports.
//!
//! * [`node`]: which instances have a task, and what the orders in force say to each,
//! * [`instance`]: one instance: its life as a pure state machine, and the task that lives it,
//! * [`orders`], [`ledger`], [`ended`], [`disk`], [`faults`]: what is accepted, what is kept, and what hinders it,
//! * [`poll`], [`report`], [`streams`]: the three ways to the leader,
//! * [`docker`], [`watcher`], [`network`], [`container`], [`probe`], [`output`], [`oom`]: the engine, what is made in it
//!   and what it shows,
//! * [`forward`]: what instances write, into the journal,
//! * [`space`]: what happens when disks fill up,
//! * [`firewall`], [`filter`]: what containers cannot reach and who can reach them, and whether that is in force.

mod api;
mod backoff;
mod board;
mod capacity;
mod cgroup;
pub mod config;
mod container;
pub mod disk;
mod docker;
mod ended;
mod faults;
mod filter;
pub mod firewall;
mod forward;
mod instance;
mod ledger;
mod limits;
mod network;
mod node;
mod oom;
pub mod orders;
mod output;
mod poll;
mod probe;
mod report;
mod shared;
mod space;
mod streams;
mod watcher;

use config::AgentConfig;
use dinp_common::api::agent::Goodbye;
use dinp_common::auth::{Credential, MalformedCredential};
use dinp_common::client::ApiClient;
use dinp_common::config::{ConfigError, Loaded};
use dinp_common::credentials::CredentialError;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::{self, ListenError};
use disk::{DiskError, Stored};
use docker::Engine;
use orders::OrderBook;
use shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Name of the orders in the state directory; the packet filter reads them too.
const ORDERS: &str = "orders";

/// Space that is kept for each of the two copies of the orders (some thousand instances), of the ports (all of the
/// usual range) and of what is ready.
const ORDERS_BYTES: u64 = 2 << 20;
const PORTS_BYTES: u64 = 1 << 20;
const READY_BYTES: u64 = 512 << 10;

/// How often what could not be written is tried again.
const MEND: Duration = Duration::from_secs(5);

/// How long requests to the own listener may take at the end.
const DRAIN: Duration = Duration::from_secs(1);

/// Silence of a loop that counts as stuck: longer than the longest wait for the server or the engine.
const MAX_SILENCE: Duration = Duration::from_secs(120);

/// The same for the node's task, which reads many containers in one go when it starts.
const LONG_SILENCE: Duration = Duration::from_secs(300);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(1500);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration does not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] CredentialError),
    /// The secret in it is no credential.
    #[error("use the secret in the node's bundle")]
    Secret(#[source] MalformedCredential),
    /// Nothing can be kept.
    #[error("open the state of this node")]
    State(#[source] DiskError),
    /// The own listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Runs until told to stop. Instances run on.
pub async fn run(loaded: Loaded<AgentConfig>, lifecycle: Lifecycle) -> Result<(), AgentError> {
    let config = loaded.daemon.clone();
    let bundle = config::bundle(&config)?;
    let credential: Credential = bundle.secret.parse().map_err(AgentError::Secret)?;
    let servers = config::servers(&loaded, &bundle)?;
    let state = |name: &str| config.state_dir.join(name);
    let faults = Arc::new(faults::Faults::default());
    let orders = Stored::open(state(ORDERS), ORDERS_BYTES, faults.clone()).map_err(AgentError::State)?;
    let book = OrderBook::open(orders.clone(), &bundle.cluster);
    let shared = Arc::new(Shared {
        range: config.port_range()?,
        engine: Engine::new(config.docker.socket.clone(), Duration::from_secs(config.docker.timeout_secs)),
        board: board::Board::default(),
        ledger: Stored::open(state("ports"), PORTS_BYTES, faults.clone()).map_err(AgentError::State)?,
        memory: Stored::open(state("ready"), READY_BYTES, faults.clone()).map_err(AgentError::State)?,
        ended: ended::Archive::open(state("ended"), config.logs.ended_mb << 20),
        orders,
        filter: filter::Filter::new(config.firewall.socket.clone(), faults.clone()),
        faults,
        pulls: Semaphore::new(config.pull_limit),
        probes: probe::client(),
        engine_since: 0.into(),
        kills: oom::Kills::default(),
        traits: Default::default(),
        bundle,
        config,
    });
    shared.board.set_ended(shared.ended.list());
    let client = ApiClient::of_servers(servers, Some(credential), concat!("dinp-agent/", env!("CARGO_PKG_VERSION")));
    let listeners = listen::listeners("http", &[shared.config.listen]).await?;

    let streams = streams::Streams::new(shared.clone(), client.clone());
    let (node, messages) = node::Node::new(shared.clone(), book, streams);
    let to_node = messages.clone();
    let moved = Arc::new(Notify::new());
    let capacity = capacity::capacity(&shared.config);
    let (docker, server) = (lifecycle.condition("docker"), lifecycle.condition("server"));
    lifecycle.task_with_heartbeat("node", LONG_SILENCE, |beat| node.run(beat));
    lifecycle.task_with_heartbeat("watch docker", MAX_SILENCE, |beat| {
        watcher::watch(shared.clone(), messages.clone(), docker, beat)
    });
    lifecycle.task("watch memory", oom::watch(shared.clone(), messages.clone()));
    lifecycle.task("watch limits", limits::watch(shared.clone()));
    lifecycle.task_with_heartbeat("report", Duration::from_secs(60), |beat| {
        report::report(shared.clone(), client.clone(), capacity, moved.clone(), server, beat)
    });
    lifecycle
        .task_with_heartbeat("ask for orders", MAX_SILENCE, |beat| poll::poll(client.clone(), messages, moved, beat));
    lifecycle.task("mend", mend(shared.clone()));
    lifecycle.task("disk space", space::watch(shared.clone(), to_node));
    lifecycle.task("packet filter", {
        let shared = shared.clone();
        async move { shared.filter.watch().await }
    });
    if let Some(journal) = shared.config.logs.journal() {
        lifecycle.task("journal", forward::forward(shared.clone(), journal));
    }
    lifecycle.ready();
    tracing::info!(node = %shared.bundle.node, memory_mb = capacity.memory_mb, cpu_millis = capacity.cpu_millis, "node {} is open", shared.bundle.node);

    listen::serve(listeners, api::router(shared, &lifecycle), lifecycle.shutdown(), DRAIN).await;
    lifecycle.end_tasks().await;
    say_goodbye(&client).await;
    Ok(())
}

/// Tries for ever to write what could not be written.
async fn mend(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(MEND).await;
        shared.orders.mend().await;
        shared.ledger.mend().await;
        shared.memory.mend().await;
    }
}

async fn say_goodbye(client: &ApiClient) {
    let goodbye = if system_is_stopping().await { Goodbye::Shutdown } else { Goodbye::Restart };
    match client.post::<_, ()>("/v1/agent/goodbye", &goodbye, GOODBYE).await {
        Ok(()) => tracing::info!(?goodbye, "said goodbye; instances run on"),
        Err(error) => tracing::warn!(%error, "no server takes the goodbye; instances run on"),
    }
}

/// Whether systemd takes the whole machine down; false where there is no systemd.
async fn system_is_stopping() -> bool {
    let asked = dinp_common::daemon::command("systemctl").arg("is-system-running").output();
    match tokio::time::timeout(GOODBYE, asked).await {
        Ok(Ok(output)) => output.stdout.starts_with(b"stopping"),
        _ => false,
    }
}
