//! DINP router: an HTTP/1.1 reverse proxy that sends each request to an instance of the app that its Host names.
//!
//! ```text
//! Redis --> feed --> table::Ledger --> applier --> workers (one thread, runtime, pool and map of hosts each)
//!                        |                            client -> gate -> hyper -> proxy -> instance
//!                        +--> keeper (disk)           
//!                        +--> report (leader), api (status listener)
//! ```

mod api;
mod applier;
mod config;
mod feed;
mod forwarded;
mod gate;
mod keeper;
mod proxy;
mod report;
mod settings;
mod table;
mod timer;
mod totals;
mod worker;

pub use api::Routes;
pub use config::RouterConfig;
pub use forwarded::{InvalidNetwork, Network};
pub use settings::{RedisAccess, Settings};

use applier::Applier;
use dinp_common::config::Loaded;
use dinp_common::credentials::CredentialError;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::{self, ListenError};
use keeper::Keeper;
use report::Reporter;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use totals::Totals;
use worker::{Handle, Start};

/// How often it is looked whether the workers still run.
const WATCH: Duration = Duration::from_millis(50);
/// Silence of the report loop that counts as stuck.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Why the router cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A secret is missing.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// An address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A worker cannot be started, or has ended.
    #[error("run a worker")]
    Worker(#[source] io::Error),
}

/// Runs the router until it is told to stop.
pub async fn run(loaded: Loaded<RouterConfig>, lifecycle: Lifecycle) -> Result<(), RunError> {
    let settings = Settings::new(loaded)?;
    let http = listen::listeners("http", &settings.config.listen).await?;
    let status = listen::listeners("status", &settings.config.status_listen).await?;
    serve(settings, http, status, lifecycle).await
}

/// Runs the router on listeners that are open already.
pub async fn serve(
    settings: Settings,
    http: Vec<TcpListener>,
    status: Vec<TcpListener>,
    lifecycle: Lifecycle,
) -> Result<(), RunError> {
    let Settings { config, redis, servers, credential } = settings;
    let ledger = table::Shared::default();
    let totals = Arc::new(Totals::default());
    // The status listener outlives the workers, so that the leader can read how the last requests end.
    let ended = CancellationToken::new();
    let reporter = Reporter {
        ledger: ledger.clone(),
        totals: totals.clone(),
        router: credential.name.clone(),
        status_url: status_url(&config, &status),
    };
    let client = report::client(servers, credential);
    let workers = start_workers(&config, http, &totals, &lifecycle).map_err(RunError::Worker)?;
    let workers = Arc::new(workers);
    let applier = Applier::new(ledger.clone(), workers.clone());
    let keeper = Keeper { ledger, dir: config.state_dir.clone(), cluster: redis.cluster.clone() };
    load_from_disk(&keeper, &applier);

    let mut tasks = JoinSet::new();
    tasks.spawn(feed::run(redis, applier.clone(), lifecycle.clone()));
    tasks.spawn(reporter.clone().run(client.clone(), applier.applied(), lifecycle.heartbeat("report", MAX_SILENCE)));
    tasks.spawn(keeper.clone().run(applier.applied()));
    let app = api::router(reporter.clone(), &lifecycle);
    let status = tokio::spawn(listen::serve(status, app, ended.clone(), Duration::from_secs(1)));
    lifecycle.ready();

    let stopped = watch(&workers, &lifecycle).await;
    // No report may come after the goodbye: it would call the router back to life.
    tasks.shutdown().await;
    reporter.goodbye(&client).await;
    keeper.write();
    ended.cancel();
    if let Err(error) = status.await {
        tracing::warn!(%error, "the status listener failed");
    }
    drop(applier);
    stopped?;
    let workers = Arc::into_inner(workers).unwrap_or_default();
    workers.into_iter().try_for_each(Handle::join).map_err(RunError::Worker)
}

/// Waits until all workers have ended. One that ends before it was told to ends the daemon.
async fn watch(workers: &[Handle], lifecycle: &Lifecycle) -> Result<(), RunError> {
    let mut ticks = tokio::time::interval(WATCH);
    loop {
        ticks.tick().await;
        if lifecycle.shutdown().is_cancelled() {
            if workers.iter().all(Handle::is_finished) {
                return Ok(());
            }
        } else if workers.iter().any(Handle::is_finished) {
            lifecycle.shutdown().cancel();
            return Err(RunError::Worker(io::Error::other("a worker has ended by itself")));
        }
    }
}

/// Starts the workers, each with its own descriptors of the same sockets.
fn start_workers(
    config: &RouterConfig,
    http: Vec<TcpListener>,
    totals: &Arc<Totals>,
    lifecycle: &Lifecycle,
) -> io::Result<Vec<Handle>> {
    let listeners: Vec<_> = http.into_iter().map(TcpListener::into_std).collect::<io::Result<_>>()?;
    let start = |number| {
        let listeners = listeners.iter().map(std::net::TcpListener::try_clone).collect::<io::Result<_>>()?;
        let start = Start { listeners, limits: config.limits(), totals: totals.clone(), stop: lifecycle.shutdown() };
        Handle::start(number, start, lifecycle)
    };
    (0..config.worker_count()).map(start).collect()
}

fn load_from_disk(keeper: &Keeper, applier: &Applier) {
    match table::load(&keeper.dir, &keeper.cluster) {
        Ok(Some(saved)) => {
            let version = saved.version;
            let table = saved.table();
            tracing::info!(%version, apps = table.len(), "route table read from disk");
            applier.replace(version, &table);
        }
        Ok(None) => {}
        Err(error) => tracing::error!(error = %ErrorChain(&error), "the route table on disk is not used"),
    }
}

fn status_url(config: &RouterConfig, status: &[TcpListener]) -> String {
    if let Some(url) = &config.status_url {
        return url.as_str().trim_end_matches('/').to_owned();
    }
    let port = status.first().and_then(|listener| listener.local_addr().ok()).map_or(1982, |address| address.port());
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("http://{}:{port}", host.as_deref().unwrap_or("localhost"))
}
