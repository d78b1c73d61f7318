//! Desired state in MySQL: connection, schema, and the queries of each table.
//!
//! Each table has one module with all queries that touch it; who may write what is set by grants
//! ([`grants`]), not by these functions. A change of desired state runs in a [`Change`], which raises the
//! revision first.
//!
//! No table grows without end but that of former names, which must not be given again; and none of this needs
//! anybody's care: who writes rows drops in the same breath what
//! there is too much of (environments, releases, deployments, domains, builds, events, sessions). What only gets old is
//! dropped now and then: [`app::forget_deleted`] and [`audit::expire`] by dash, [`session::remove_expired`] by uic,
//! [`event::expire`] by the server.

pub mod app;
pub mod audit;
pub mod build;
pub mod cluster;
mod columns;
pub mod deployment;
pub mod domain;
pub mod env;
pub mod event;
pub mod grants;
pub mod image;
pub mod lease;
mod migrate;
pub mod names;
pub mod node;
pub mod release;
mod revision;
pub mod router;
pub mod service;
pub mod session;
mod snapshot;
pub mod team;
pub mod usage;
pub mod user;
mod watch;

pub use migrate::{migrate, pending_migrations};
pub use revision::{Change, current_revision, raise_past};
pub use snapshot::begin_snapshot;
pub use watch::watch;

use crate::credentials::Secret;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Params, Pool, PoolConstraints, PoolOpts};
use std::time::Duration;

/// Failure of the store. The database's own text is the source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached.
    #[error("{act} in MySQL")]
    Database {
        /// What was tried, such as "read apps".
        act: &'static str,
        /// The driver's error.
        #[source]
        source: mysql_async::Error,
    },
    /// A row holds what this version cannot read: the object is named, and nothing is guessed.
    #[error("{object} in MySQL holds {problem}")]
    Corrupt {
        /// Table and key.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// A snapshot was not read whole.
    #[error("read {table} in MySQL incompletely: {got} of {expected} rows")]
    Incomplete {
        /// The table.
        table: &'static str,
        /// Rows that arrived.
        got: u64,
        /// Rows that the same snapshot counts.
        expected: u64,
    },
    /// The answer did not come in time.
    #[error("{act} in MySQL: no answer within {secs} s")]
    Timeout {
        /// What was tried.
        act: &'static str,
        /// How long it was waited for.
        secs: u64,
    },
}

impl StoreError {
    /// Turns a driver error into one that names the act; for `map_err`.
    pub fn doing(act: &'static str) -> impl Fn(mysql_async::Error) -> StoreError {
        move |source| StoreError::Database { act, source }
    }

    /// Whether the database cannot be used now, as opposed to what was asked of it being wrong.
    pub fn is_unavailable(&self) -> bool {
        match self {
            // Too many connections, shutting down, lock wait timeout, deadlock, read-only, connection killed.
            StoreError::Database { source: mysql_async::Error::Server(e), .. } => {
                matches!(e.code, 1040 | 1053 | 1205 | 1213 | 1290 | 1927)
            }
            StoreError::Database { source, .. } => {
                matches!(source, mysql_async::Error::Io(_) | mysql_async::Error::Driver(_))
            }
            StoreError::Timeout { .. } => true,
            StoreError::Corrupt { .. } | StoreError::Incomplete { .. } => false,
        }
    }

    /// Whether the database refused the row because its key is taken.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, StoreError::Database { source: mysql_async::Error::Server(e), .. } if e.code == 1062)
    }
}

impl From<StoreError> for crate::problem::Problem {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            tracing::warn!(error = %crate::error::ErrorChain(&error), "database cannot be used");
            let detail = "the database cannot be reached now; what runs keeps running, try again shortly";
            return Self::unavailable("database-unavailable", detail);
        }
        Self::internal(&error)
    }
}

/// A pool of connections for one account. Connects when first used; idle connections are closed after a minute.
pub fn pool(host: &str, port: u16, database: &str, user: &str, password: &Secret) -> Pool {
    let pool = PoolOpts::default()
        .with_constraints(PoolConstraints::new(0, 16).expect("0 is at most 16"))
        .with_inactive_connection_ttl(Duration::from_secs(60));
    Pool::new(options(host, port, database, user, password).pool_opts(pool))
}

/// How one account connects: for who needs a connection of its own. Sessions are in UTC and strict mode.
pub fn options(host: &str, port: u16, database: &str, user: &str, password: &Secret) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname(host)
        .tcp_port(port)
        .db_name(Some(database))
        .user(Some(user))
        .pass(Some(password.expose()))
        .tcp_nodelay(true)
        .prefer_socket(false)
        .stmt_cache_size(64)
        .setup(vec![
            "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE', \
             innodb_lock_wait_timeout = 5",
        ])
}

/// Rows that one statement drops, so that none of them holds its locks for long.
const BATCH: u64 = 10_000;

/// Repeats a statement that drops [`BATCH`] rows at most until there are no more; returns how many went.
async fn drop_all(conn: &mut Conn, act: &'static str, sql: &str, values: impl Into<Params>) -> Result<u64, StoreError> {
    let values = values.into();
    let mut dropped = 0;
    loop {
        conn.exec_drop(sql, values.clone()).await.map_err(StoreError::doing(act))?;
        dropped += conn.affected_rows();
        if conn.affected_rows() < BATCH {
            return Ok(dropped);
        }
    }
}

/// Takes a connection, waiting at most `deadline` for the database to answer.
pub async fn connect(pool: &Pool, deadline: Duration) -> Result<Conn, StoreError> {
    match tokio::time::timeout(deadline, pool.get_conn()).await {
        Ok(conn) => conn.map_err(StoreError::doing("connect")),
        Err(_) => Err(StoreError::Timeout { act: "connect", secs: deadline.as_secs() }),
    }
}

/// Opens a connection that belongs to no pool.
pub async fn connect_alone(options: Opts) -> Result<Conn, StoreError> {
    Conn::new(options).await.map_err(StoreError::doing("connect"))
}
