//! DINP health monitor: probes every instance of apps with a health check, and tells the server which are unfit.
//!
//! The server alone acts. A monitor that finds something unfit is one witness of two; the other is the node's agent.
//!
//! ```text
//! server --targets--> server::subscribe --> Monitor (one task per target: probe -> Verdict)
//! server <--unfit---- server::report <-----/
//! ```

mod api;
mod config;
mod monitor;
mod probe;
mod server;
mod verdict;

pub use config::HmConfig;
pub use monitor::{Monitor, TargetView};
pub use probe::{ProbeError, probe};
pub use verdict::Verdict;

use dinp_common::auth::Credential;
use dinp_common::client::ApiClient;
use dinp_common::config::Loaded;
use dinp_common::credentials::CredentialError;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::{self, ListenError, StatusReaders};
use std::time::Duration;
use tokio::net::TcpListener;
use url::Url;

/// Silence of a loop that counts as stuck: longer than the longest wait for the server.
const MAX_SILENCE: Duration = Duration::from_secs(120);

/// Why the monitor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A secret is missing.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// An address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Runs the monitor until it is told to stop.
pub async fn run(loaded: Loaded<HmConfig>, lifecycle: Lifecycle) -> Result<(), RunError> {
    let credential = Credential::read("service-hm")?;
    let listeners = listen::listeners("status", &loaded.daemon.listen).await?;
    let readers = StatusReaders::new(loaded.cluster.status_networks);
    serve(loaded.daemon, loaded.cluster.servers, credential, listeners, readers, lifecycle).await;
    Ok(())
}

/// Runs the monitor on listeners that are open already.
pub async fn serve(
    config: HmConfig,
    servers: Vec<Url>,
    credential: Credential,
    listeners: Vec<TcpListener>,
    readers: StatusReaders,
    lifecycle: Lifecycle,
) {
    let name = credential.name.clone();
    lifecycle.task("status readers", readers.clone().follow(servers.clone()));
    let client = ApiClient::of_servers(servers, Some(credential), concat!("dinp-hm/", env!("CARGO_PKG_VERSION")));
    let monitor = Monitor::new(config.max_probes);
    lifecycle.task_with_heartbeat("targets", MAX_SILENCE, |beat| {
        server::subscribe(client.clone(), monitor.clone(), lifecycle.condition("server"), beat)
    });
    lifecycle.task_with_heartbeat("report", MAX_SILENCE, |beat| server::report(client, monitor.clone(), name, beat));
    lifecycle.ready();
    let app = api::router(monitor, &lifecycle);
    listen::serve_within(readers.limits(), listeners, app, lifecycle.shutdown(), Duration::from_secs(1)).await;
    lifecycle.end_tasks().await;
}
