//! DINP router: an HTTP/1.1 reverse proxy that sends each request to an instance of the app that its Host names.
//!
//! ```text
//! Redis --> feed --> table::Ledger --> applier --> workers (one thread, runtime, pool and map of hosts each)
//!                        |               client -> a place (clients) -> conn (codec) -> an instance (proxy)
//!                        +--> keeper (disk)           
//!                        +--> report (leader), api (status listener)
//! ```

mod access;
mod api;
mod applier;
mod clients;
mod codec;
mod config;
mod conn;
mod feed;
mod keeper;
mod proxy;
mod release_metrics;
mod report;
mod settings;
mod table;
mod timer;
pub mod top;
mod totals;
mod worker;

pub use access::AccessLog;
pub use api::Routes;
pub use config::RouterConfig;
pub use settings::{RedisAccess, Settings};

use applier::Applier;
use config::Limits;
use dinp_common::config::Loaded;
use dinp_common::credentials::CredentialError;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::{self, ListenError, StatusReaders};
use dinp_common::model::Version;
use keeper::Keeper;
use report::Reporter;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use totals::Totals;
use worker::{Handle, Start};

/// Silence of the report loop that counts as stuck.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Connections come and go by the thousand, and what one has needed stands between what others still need: this allocator
/// gives it back, where the C library's keeps it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time for the last lines of the access log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Why the router cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A secret is missing.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// An address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A worker cannot be started.
    #[error("start a worker")]
    Worker(#[source] io::Error),
    /// The access log cannot be written.
    #[error("open the access log (`access_log` in router.toml: {})", String::from(to.clone()))]
    AccessLog {
        /// Where it was to go.
        to: AccessLog,
        /// What is wrong there.
        #[source]
        source: io::Error,
    },
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
    let Settings { config, config_dir, redis, servers, status_networks, credential } = settings;
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
    let readers = StatusReaders::new(status_networks);
    lifecycle.task("status readers", readers.clone().follow(servers.clone()));
    let client = report::client(servers, credential);
    let stop = CancellationToken::new();
    let wait = Duration::from_secs(config.drain_wait_secs);
    lifecycle.task("drain wait", wait_before_stop(lifecycle.clone(), wait, stop.clone()));
    let (log, log_writer) = access::Log::start(&config.access_log, totals.clone())
        .map_err(|source| RunError::AccessLog { to: config.access_log.clone(), source })?
        .unzip();
    let (new_limits, limits) = watch::channel(config.limits());
    let reload = reload(lifecycle.reload(), lifecycle.clone(), config_dir, config.clone(), new_limits);
    lifecycle.task("reload", reload);
    let workers = start_workers(&config, http, &totals, &lifecycle, &stop, log, &limits).map_err(RunError::Worker)?;
    let (workers, ends): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    let applier = Applier::new(ledger.clone(), workers.into());
    let keeper = Keeper { ledger, dir: config.state_dir.clone(), cluster: redis.cluster.clone() };
    let kept = load_from_disk(&keeper, &applier);

    let routes = lifecycle.condition("routes");
    lifecycle
        .task_with_heartbeat("route feed", feed::MAX_SILENCE, |beat| feed::run(redis, applier.clone(), routes, beat));
    lifecycle.task_with_heartbeat("report", MAX_SILENCE, |beat| {
        reporter.clone().run(client.clone(), applier.applied(), beat)
    });
    lifecycle.task("keep table", keeper.clone().run(applier.applied(), kept));
    let app = api::router(reporter.clone(), &lifecycle);
    lifecycle.ready();

    let work = async {
        for worker in ends {
            // How it ended has been told where it ended.
            worker.await.ok();
        }
        if let Some(writer) = log_writer {
            let written = tokio::task::spawn_blocking(|| writer.join());
            if tokio::time::timeout(LAST_LINES, written).await.is_err() {
                tracing::warn!("the last lines of the access log could not be written in time");
            }
        }
        // No report may come after the goodbye: it would call the router back to life.
        lifecycle.end_tasks().await;
        reporter.goodbye(&client).await;
        keeper.write();
        ended.cancel();
    };
    let status = listen::serve_within(readers.limits(), status, app, ended.clone(), Duration::from_secs(1));
    tokio::join!(work, status);
    Ok(())
}

/// Goes on as ever for a while after the word to stop: a balancer in front sees by `/ready` that this router goes, and sends
/// its next connections elsewhere.
async fn wait_before_stop(lifecycle: Lifecycle, wait: Duration, stop: CancellationToken) {
    lifecycle.shutdown().cancelled().await;
    // Where a task has failed, there is little time for all that is left to do.
    if lifecycle.failure().is_none() {
        tokio::time::sleep(wait).await;
    }
    stop.cancel();
}

/// Reads the configuration again whenever that is asked for, and hands what can change to the workers.
async fn reload(
    mut asked: watch::Receiver<u64>,
    lifecycle: Lifecycle,
    dir: PathBuf,
    started_with: RouterConfig,
    limits: watch::Sender<Limits>,
) {
    while asked.changed().await.is_ok() {
        asked.borrow_and_update();
        let outcome = match dinp_common::config::load::<RouterConfig>(&dir, "router") {
            Ok(loaded) => {
                limits.send_replace(loaded.daemon.limits());
                let fixed = loaded.daemon.differs_in(&started_with);
                if !fixed.is_empty() {
                    let keys = fixed.join(", ");
                    tracing::warn!(keys, "not changed by a reload, restart dinp-router.service for: {keys}");
                }
                Ok(())
            }
            Err(error) => Err(ErrorChain(&error).to_string()),
        };
        lifecycle.reload_done(outcome);
    }
}

/// Starts the workers, each with its own descriptors of the same sockets; with each the task that stands for it.
fn start_workers(
    config: &RouterConfig,
    http: Vec<TcpListener>,
    totals: &Arc<Totals>,
    lifecycle: &Lifecycle,
    stop: &CancellationToken,
    log: Option<access::Log>,
    limits: &watch::Receiver<Limits>,
) -> io::Result<Vec<(Handle, JoinHandle<()>)>> {
    let listeners: Vec<_> = http.into_iter().map(TcpListener::into_std).collect::<io::Result<_>>()?;
    let places = config.places();
    let start = |number| {
        let listeners = listeners.iter().map(std::net::TcpListener::try_clone).collect::<io::Result<_>>()?;
        let (limits, places) = (limits.clone(), places.clone());
        let start = Start { listeners, limits, places, totals: totals.clone(), stop: stop.clone(), log: log.clone() };
        Handle::start(number, start, lifecycle)
    };
    (0..config.worker_count()).map(start).collect()
}

/// Gives the version that the disk has.
fn load_from_disk(keeper: &Keeper, applier: &Applier) -> Option<Version> {
    match table::load(&keeper.dir, &keeper.cluster) {
        Ok(Some(saved)) => {
            let table::Saved { version, apps } = saved;
            tracing::info!(%version, apps = apps.len(), "route table read from disk");
            applier.replace(version, apps);
            Some(version)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::error!(error = %ErrorChain(&error), "the route table on disk is not used");
            None
        }
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
