//! The User Information Center: users, teams, membership and sign-on.
//!
//! * [`api`]: the endpoints, and the list of them,
//! * [`oauth`]: authorization code and PKCE for dash and command line,
//! * [`pages`]: what a browser sees,
//! * [`people`]: users, teams, and their rules,
//! * [`sessions`]: who is signed in,
//! * [`passwords`], [`backoff`]: what makes guessing hopeless.

pub mod api;
mod backoff;
mod config;
mod create_admin;
mod oauth;
mod pages;
pub mod passwords;
mod people;
mod sessions;

pub use config::UicConfig;
pub use create_admin::{CreateAdminError, create_admin};

use backoff::Backoff;
use dinp_common::auth::ServiceAuth;
use dinp_common::config::Loaded;
use dinp_common::credentials::CredentialError;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::{self, ListenError};
use dinp_common::problem::Problem;
use dinp_common::store::{self, StoreError};
use dinp_common::web::Cookies;
use mysql_async::{Conn, Pool};
use passwords::{PasswordError, Passwords};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

/// Longest wait for a connection to the database while somebody waits for an answer.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest time for an answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// Time between two removals of sessions that have ended.
const SWEEP: Duration = Duration::from_secs(60);

/// What ends the daemon.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database's password cannot be had.
    #[error("read the database's password")]
    Credential(#[from] CredentialError),
    /// No socket.
    #[error("open the listener")]
    Listen(#[from] ListenError),
    /// Passwords cannot be hashed as the configuration says.
    #[error("set up sign-on")]
    Passwords(#[from] PasswordError),
}

/// What all requests share.
pub struct Uic {
    pool: Pool,
    services: ServiceAuth,
    passwords: Passwords,
    backoff: Mutex<Backoff>,
    config: UicConfig,
    /// Longest time for an answer; tests are less patient.
    pub deadline: Duration,
    cookies: Cookies,
    /// Where browsers reach us.
    public_url: Url,
    /// Where browsers reach the dashboard.
    dash_url: Url,
}

impl Uic {
    /// All of it, on a database that need not answer yet.
    pub fn new(loaded: &Loaded<UicConfig>, pool: Pool, services: ServiceAuth) -> Result<Self, PasswordError> {
        let config = loaded.daemon.clone();
        let passwords = Passwords::new(config.password_memory_kib, config.password_passes, config.password_parallel)?;
        Ok(Self {
            pool,
            services,
            passwords,
            backoff: Mutex::default(),
            config,
            deadline: DEADLINE,
            cookies: Cookies::at(&loaded.cluster.uic.public_url),
            public_url: loaded.cluster.uic.public_url.clone(),
            dash_url: loaded.cluster.dash.public_url.clone(),
        })
    }

    async fn conn(&self) -> Result<Conn, Problem> {
        Ok(store::connect(&self.pool, CONNECT).await?)
    }
}

/// A pool for uic's account.
fn pool(loaded: &Loaded<UicConfig>) -> Result<Pool, CredentialError> {
    let mysql = &loaded.cluster.mysql;
    let password = mysql.password_for("uic")?;
    Ok(store::pool(&mysql.host, mysql.port, &mysql.database, &mysql.user_for("uic"), &password))
}

/// Runs until the lifecycle ends.
pub async fn run(loaded: Loaded<UicConfig>, lifecycle: Lifecycle) -> Result<(), RunError> {
    let pool = pool(&loaded)?;
    let listeners = listen::listeners("http", &loaded.daemon.listen).await?;
    let uic = Arc::new(Uic::new(&loaded, pool.clone(), ServiceAuth::new(pool.clone()))?);
    let shutdown = lifecycle.shutdown();
    lifecycle.task("database", store::watch(pool.clone(), lifecycle.condition("database"), shutdown.clone()));
    lifecycle.task("sweep", sweep(pool, shutdown.clone()));
    lifecycle.ready();
    let app = api::router(uic).merge(dinp_common::metrics::ops_router(&lifecycle));
    listen::serve(listeners, app, shutdown, Duration::from_secs(loaded.daemon.drain_timeout_secs)).await;
    lifecycle.end_tasks().await;
    Ok(())
}

/// Removes ended sessions now and then; a failure is for the next time.
async fn sweep(pool: Pool, shutdown: tokio_util::sync::CancellationToken) {
    let once = async || -> Result<u64, StoreError> {
        let mut conn = store::connect(&pool, CONNECT).await?;
        store::session::remove_expired(&mut conn).await
    };
    loop {
        if let Err(error) = once().await {
            tracing::debug!(error = %dinp_common::error::ErrorChain(&error), "ended sessions not removed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}
