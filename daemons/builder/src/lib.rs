//! The builder: package + runtime -> Dockerfile -> image -> registry.
//!
//! ```text
//! POST /v1/builds -> intake: is there room? -> spool (a file without a name) -> package: one strict walk, refused or sound
//!   -> record in MySQL, kept until it ends, 202 -> direct: re-emitted canonically as a layer on the base, straight into the registry
//!      or, where the Dockerfile asks for more: context -> Docker Engine: build, push
//!   -> record says how it ended
//! ```

mod activity;
mod api;
mod arrival;
mod bases;
pub mod config;
mod context;
mod detect;
mod direct;
mod engine;
mod fetch;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod holds;
mod intake;
mod job;
mod kept;
mod log;
mod most;
mod neighbours;
mod own_dockerfile;
mod package;
mod problems;
mod procfile;
mod rebase;
mod registry;
mod resume;
mod runtime;
mod service;
mod spool;
mod suite;
mod template;
pub mod upkeep;
mod uploads;
mod version;

use bases::Bases;
use config::BuilderConfig;
use dinp_common::config::Loaded;
use dinp_common::credentials::CredentialError;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::{self, ListenError};
use dinp_common::store;
use registry::Registry;
use runtime::Runtimes;
use service::Service;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Name of the socket in the socket unit.
const SOCKET: &str = "http";
/// Longest silence of the loop that looks at database and Engine; each of its calls has a deadline of its own.
const WATCH_SILENCE: Duration = Duration::from_secs(60);

/// Why a builder cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A credential is missing or malformed.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// There is nothing to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The state directory cannot be used.
    #[error("use the state directory {}", path.display())]
    State {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The host has no usable name.
    #[error("read the host's name; set `name` in builder.toml")]
    Name(#[source] io::Error),
}

/// Runs a builder until it is told to stop, or is idle and socket-activated.
pub async fn run(loaded: Loaded<BuilderConfig>, lifecycle: Lifecycle) -> Result<(), RunError> {
    let activated = std::env::var_os("LISTEN_FDS").is_some();
    let cluster = &loaded.cluster;
    let mut config = loaded.daemon.clone();
    config.fetch.cluster_hosts = fetch::hosts_of(cluster);
    let mysql = &cluster.mysql;
    let password = mysql.password_for("builder")?;
    let pool = store::pool(&mysql.host, mysql.port, &mysql.database, &mysql.user_for("builder"), &password);
    let registry = Registry::new(&cluster.registry, cluster.registry.account("registry-push")?);
    let bases = Bases::new(cluster.registry.address.clone(), config.base_tag.clone(), config.bases.clone());
    let runtimes = Runtimes::new(BuilderConfig::runtimes_dir(&loaded), bases, loaded.daemon.build.own_dockerfiles);
    let name = match &config.name {
        Some(name) => name.clone(),
        None => {
            nix::unistd::gethostname().map_err(|error| RunError::Name(error.into()))?.to_string_lossy().into_owned()
        }
    };
    let state = config.state_dir.clone();
    let service = Service::new(config, name, pool, registry, runtimes);
    let service = service.map_err(|source| RunError::State { path: state, source })?;

    let listeners = listen::listeners(SOCKET, &service.config.listen).await?;
    tell_broken_runtimes(&service);
    let (database, engine) = (lifecycle.condition("database"), lifecycle.condition("engine"));
    let watching = service.clone();
    lifecycle.task_with_heartbeat("watch", WATCH_SILENCE, |beat| async move {
        watching.watch(&database, &engine, &beat).await;
    });
    lifecycle.ready();

    if activated && service.config.idle_exit_secs > 0 {
        let limit = Duration::from_secs(service.config.idle_exit_secs.into());
        let (service, life) = (service.clone(), lifecycle.clone());
        lifecycle.task("idle exit", async move { service.activity.exit_when_idle(limit, &life).await });
    }
    let drain = Duration::from_secs(service.config.drain_secs.into());
    let shutdown = lifecycle.shutdown();
    let deadline = async {
        shutdown.cancelled().await;
        Instant::now() + drain
    };
    let app = api::router(service.clone(), &lifecycle);
    let ((), deadline) = tokio::join!(listen::serve(listeners, app, shutdown.clone(), drain), deadline);
    service.drain(deadline).await;
    lifecycle.end_tasks().await;
    Ok(())
}

fn tell_broken_runtimes(service: &Service) {
    match service.runtimes.list() {
        Ok((sound, broken)) => {
            let names: Vec<&str> = sound.iter().map(|runtime| runtime.name.as_str()).collect();
            tracing::info!(runtimes = ?names, "runtimes read");
            for error in broken {
                tracing::error!(error = %ErrorChain(&error), "runtime cannot be used");
            }
        }
        Err(error) => tracing::error!(error = %ErrorChain(&error), "no runtime can be used"),
    }
}
