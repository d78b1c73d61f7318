//! The dashboard: what people use. Pages in [`pages`], the public JSON API in [`api`], and below both the same
//! actions, so that a rule holds and a sentence reads the same wherever it is met:
//!
//! * [`permissions`]: who may do what, as one table,
//! * [`guard`]: applies that table to every request,
//! * [`caller`]: who calls,
//! * [`apps`], [`deploys`], [`environment`], [`domains`], [`builds`], [`people`], [`cluster`]: the actions,
//! * [`quotas`]: how much an owner may have, and how often a person may ask,
//! * [`registry`]: which image a name stands for,
//! * [`backend`]: calls to the other daemons,
//! * [`retention`]: what has become old goes.
//!
//! dash holds nothing: several may run side by side.

mod api;
mod apps;
mod backend;
mod build_log;
mod builds;
mod caller;
mod cluster;
mod config;
mod deploys;
mod domains;
mod environment;
mod guard;
mod inherit;
mod pages;
mod people;
pub mod permissions;
mod quotas;
mod registry;
mod retention;
mod uploads;

pub use config::DashConfig;
pub use quotas::Quotas;

use axum::middleware;
use caller::{Caller, Tokens};
use dinp_common::auth::Credential;
use dinp_common::client::ApiClient;
use dinp_common::config::{ClusterConfig, ConfigError, Loaded};
use dinp_common::credentials::CredentialError;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::{self, ListenError};
use dinp_common::model::InvalidValue;
use dinp_common::problem::Problem;
use dinp_common::quota::{Full, Quota, Share};
use dinp_common::rate::Rate;
use dinp_common::store::audit::{self, AuditEvent};
use dinp_common::store::{self, Change, StoreError};
use dinp_common::web::{self, Cookies};
use http::StatusCode;
use mysql_async::{Conn, Pool};
use registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Longest wait for a connection to the database while somebody waits for an answer.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for the beginning of a change: others may be changing something.
const BEGIN: Duration = Duration::from_secs(8);
const USER_AGENT: &str = concat!("dinp-dash/", env!("CARGO_PKG_VERSION"));

/// What ends the daemon.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A credential cannot be had.
    #[error("read a credential")]
    Credential(#[from] CredentialError),
    /// The configuration cannot be used.
    #[error("use the configuration")]
    Config(#[from] ConfigError),
    /// No socket.
    #[error("open the listener")]
    Listen(#[from] ListenError),
}

/// What all requests share.
pub struct Dash {
    pool: Pool,
    cluster: ClusterConfig,
    config: DashConfig,
    apps_url: Url,
    server: ApiClient,
    builder: ApiClient,
    uic: ApiClient,
    registry: Registry,
    tokens: Tokens,
    log_readers: Quota<String>,
    rate: Rate<String>,
    cookies: Cookies,
    banner_cache: pages::BannerCache,
}

impl Dash {
    /// All of it; nothing that it calls need answer yet.
    pub fn new(loaded: &Loaded<DashConfig>, pool: Pool, credential: &Credential) -> Result<Self, RunError> {
        let cluster = loaded.cluster.clone();
        let client = |urls| ApiClient::new(urls, Some(credential.clone()), USER_AGENT);
        let account = cluster.registry.account("registry-pull")?;
        Ok(Self {
            pool,
            apps_url: loaded.daemon.apps_url(&cluster)?,
            server: ApiClient::of_servers(cluster.servers.clone(), Some(credential.clone()), USER_AGENT),
            builder: client(vec![cluster.builder.url.clone()]),
            uic: client(vec![cluster.uic.url.clone()]),
            registry: Registry::new(&cluster.registry, account, &loaded.daemon.allowed_registries),
            tokens: Tokens::default(),
            log_readers: loaded.daemon.log_readers(),
            rate: Rate::new(loaded.daemon.quota.requests_per_minute, loaded.daemon.quota.requests_burst),
            cookies: Cookies::at(&cluster.dash.public_url),
            banner_cache: pages::BannerCache::default(),
            config: loaded.daemon.clone(),
            cluster,
        })
    }

    async fn conn(&self) -> Result<Conn, Problem> {
        Ok(store::connect(&self.pool, CONNECT).await?)
    }

    async fn begin(&self) -> Result<Change, Problem> {
        match tokio::time::timeout(BEGIN, Change::begin(&self.pool)).await {
            Ok(change) => Ok(change?),
            Err(_) => Err(StoreError::Timeout { act: "begin a change", secs: BEGIN.as_secs() }.into()),
        }
    }

    /// Ends a change and wakes the leader.
    async fn commit(&self, change: Change) -> Result<(), Problem> {
        change.commit().await?;
        self.hint();
        Ok(())
    }

    /// A place among the readers of logs. Each of them costs something elsewhere for as long as it reads.
    fn log_reader(&self, caller: &Caller) -> Result<Share<String>, Problem> {
        self.log_readers.take(&caller.user.name, 1).map_err(|full| {
            let (limit, detail) = match full {
                Full::Each(most) => (most, format!("you read {most} logs, the most at a time: end one and try again")),
                Full::All(most) => {
                    (most, format!("{most} logs are being read, the most at a time: try again when others have ended"))
                }
            };
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-readers", detail).with("limit", limit)
        })
    }
}

/// Writes down who did what, within the change.
async fn record(change: &mut Change, caller: &Caller, action: &str, object: &str, detail: &str) -> Result<(), Problem> {
    let event = AuditEvent { actor: caller.name(), address: &caller.address, action, object, detail };
    Ok(audit::write(&mut change.tx, &event).await?)
}

/// A value that breaks its rule, as the problem of one field.
fn invalid(field: &str, error: &InvalidValue) -> Problem {
    Problem::unprocessable("invalid-value", error.to_string()).with("field", field)
}

/// Any other reason why a field's value cannot be.
fn refuse(field: &str, kind: &str, detail: impl Into<String>) -> Problem {
    Problem::unprocessable(kind, detail).with("field", field)
}

/// Runs until the lifecycle ends.
pub async fn run(loaded: Loaded<DashConfig>, lifecycle: Lifecycle) -> Result<(), RunError> {
    let mysql = &loaded.cluster.mysql;
    let password = mysql.password_for("dash")?;
    let pool = store::pool(&mysql.host, mysql.port, &mysql.database, &mysql.user_for("dash"), &password);
    let credential = Credential::read("service-dash")?;
    let dash = Arc::new(Dash::new(&loaded, pool.clone(), &credential)?);
    let listeners = listen::listeners("http", &loaded.daemon.listen).await?;
    let shutdown = lifecycle.shutdown();
    lifecycle.task("database", store::watch(pool.clone(), lifecycle.condition("database"), shutdown.clone()));
    lifecycle.task("retention", retention::run(pool, loaded.daemon.audit_days, shutdown.clone()));
    lifecycle.ready();
    let app = router(dash).merge(dinp_common::metrics::ops_router(&lifecycle));
    listen::serve(listeners, app, shutdown, Duration::from_secs(loaded.daemon.drain_timeout_secs)).await;
    lifecycle.end_tasks().await;
    Ok(())
}

/// API and pages.
pub fn router(dash: Arc<Dash>) -> axum::Router {
    let trusted = dash.config.trusted_proxies.clone();
    api::router(dash.clone()).merge(pages::router(dash)).layer(middleware::from_fn(move |request, next| {
        let trusted = trusted.clone();
        async move { web::know_client(&trusted, request, next).await }
    }))
}
