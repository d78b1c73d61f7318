//! dinp-server: the master. It reads desired state from MySQL, gathers real state from agents, decides, and writes orders
//! for agents and routes for routers.
//!
//! * [`core`]: the decisions, without clock and without I/O
//! * [`input`], [`driver`]: what happens, and the task that feeds the core with it and carries out what it decides
//! * [`leader`], [`candidate`], [`peers`]: who leads; [`snapshot`], [`sync`]: desired state; [`publish`]: routes to Redis;
//!   [`journal`]: what is written to MySQL
//! * [`claims`]: what peers report, within bounds
//! * [`orders`], [`streams`], [`logs`], [`ended`]: what agents are told, and what they send
//! * [`api`]: the endpoints

mod api;
mod candidate;
mod claims;
pub mod config;
mod core;
mod driver;
mod ended;
mod gauges;
mod input;
mod journal;
mod leader;
mod logs;
mod orders;
mod peers;
mod publish;
mod routers;
pub mod snapshot;
mod streams;
mod sync;
mod tickets;

use candidate::Candidate;
use config::ServerConfig;
use core::Settings;
use dinp_common::api::agent::{Peers, RegistryAccess};
use dinp_common::auth::{Credential, CredentialKind, ServiceAuth};
use dinp_common::config::{ClusterConfig, Loaded};
use dinp_common::credentials::{self, CredentialError};
use dinp_common::lifecycle::Lifecycle;
use dinp_common::listen::{self, ListenError};
use dinp_common::metrics::ops_router_with;
use dinp_common::network::host_of;
use dinp_common::seal::{OpeningKey, SealError};
use dinp_common::store::{self, StoreError};
use driver::{Driver, Parts};
use gauges::NodeFaults;
use leader::Leadership;
use mysql_async::Pool;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// Time that requests under way have when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A credential cannot be used.
    #[error("read the server's credentials")]
    Credential(#[source] CredentialError),
    /// The key of environment values cannot be used.
    #[error("read the credential env-key")]
    Key(#[source] SealError),
    /// The keys of tickets cannot be used.
    #[error("read the credential ticket-keys")]
    TicketKeys(#[source] dinp_common::ticket_keys::KeysError),
    /// An address cannot be listened on.
    #[error("open the server's listeners")]
    Listen(#[source] ListenError),
}

/// Runs the server until it is told to stop.
pub async fn run(loaded: Loaded<ServerConfig>, lifecycle: Lifecycle) -> Result<(), ServerError> {
    let Loaded { cluster, daemon: config, .. } = &loaded;
    let password = cluster.mysql.password_for("server").map_err(ServerError::Credential)?;
    let mysql = &cluster.mysql;
    let pool = store::pool(&mysql.host, mysql.port, &mysql.database, &mysql.user_for("server"), &password);
    let key = credentials::read_credential("env-key").map_err(ServerError::Credential)?;
    let key = OpeningKey::from_hex(key.expose()).map_err(ServerError::Key)?;
    let ticket_keys = credentials::read_credential("ticket-keys").map_err(ServerError::Credential)?;
    let tickets = Arc::new(tickets::Keys::parse(&ticket_keys).map_err(ServerError::TicketKeys)?);
    let redis_password = cluster.redis.password_for("server").map_err(ServerError::Credential)?;
    let redis_user = cluster.redis.user_for("server");
    let routes = publish::Routes::new(
        cluster.redis.url.to_string(),
        redis_user,
        redis_password,
        cluster.cluster.clone(),
        tickets.clone(),
    );
    let account = cluster.registry.account("registry-pull").map_err(ServerError::Credential)?;
    let registry = account.map(|account| RegistryAccess {
        address: cluster.registry.address.clone(),
        username: account.user,
        password: account.password.expose().to_owned(),
    });
    let listeners = listen::listeners("http", &config.listen).await.map_err(ServerError::Listen)?;

    // It ends when the schema is as it should be.
    tokio::spawn(migrate(loaded.cluster.clone(), lifecycle.clone()));
    let owner = Credential::generate(CredentialKind::Service, "server").secret.expose()[..32].to_owned();
    let (leadership, leading) = watch::channel(Leadership::Standby { leader: None });
    let (seen_sender, seen) = mpsc::channel(1);
    let hint = Arc::new(Notify::new());
    let (hub, streams) = (orders::OrdersHub::default(), streams::Streams::default());
    let (stood_at, desired_stood_at) = watch::channel(None);
    let ended = ended::Ended::new(tickets.clone());
    let (wanted_routes, wanted) = watch::channel(publish::Wanted::default());
    let (handle, inputs) = input::channel();
    let (journal, writer) = journal::channel(pool.clone(), owner.clone(), config.event_retention_days, hint.clone());
    lifecycle.task("journal", writer.run(lifecycle.shutdown()));
    let parts = Parts {
        settings: Settings::of(config, &cluster.domain),
        tickets,
        owner: owner.clone(),
        routes: wanted_routes,
        hub: hub.clone(),
        streams: streams.clone(),
        journal,
        registry,
        platform: platform(cluster),
        leadership: leading.clone(),
        desired_stood_at,
        seen: seen_sender.clone(),
    };
    lifecycle.task("decisions", Driver::new(parts, inputs, &lifecycle).run(lifecycle.shutdown()));
    let publication = publish::Publication {
        routes,
        wanted,
        handle: handle.clone(),
        leadership: leading.clone(),
        redis: lifecycle.condition("redis"),
        heartbeat: lifecycle.heartbeat("routes", publish::Publication::SILENCE),
    };
    lifecycle.task("routes", publication.run(lifecycle.shutdown()));
    let secrets = sync::NodeSecrets::default();
    let follow = sync::Sync {
        pool: pool.clone(),
        key,
        hint: hint.clone(),
        handle: handle.clone(),
        secrets: secrets.clone(),
        stood_at,
        ended: ended.clone(),
    };
    lifecycle.task("desired state", follow.run(lifecycle.clone()));
    let faults = NodeFaults::default();
    lifecycle.task("gauges", faults.clone().watch(handle.clone(), lifecycle.shutdown()));
    lifecycle.task("routers", routers::follow(handle.clone(), pool.clone(), lifecycle.shutdown()));
    let url = config.public_url(cluster);
    let others = cluster.servers.iter().filter(|server| **server != url).cloned().collect();
    lifecycle.task("peers", peers::watch(others, leading.clone(), seen_sender, lifecycle.shutdown()));
    let database = store::options(&mysql.host, mysql.port, &mysql.database, &mysql.user_for("server"), &password);
    let candidate = Candidate::new(database.into(), owner, url.to_string(), leadership, seen, &lifecycle);
    let candidate = lifecycle.task("lease", candidate.run(lifecycle.shutdown()));

    let insecure_registry = if cluster.registry.insecure { cluster.registry.address.clone() } else { String::new() };
    let api = api::Api {
        driver: handle,
        leadership: leading,
        hub,
        streams,
        ended,
        secrets,
        services: ServiceAuth::new(pool.clone()),
        pool,
        hint,
        url,
        servers: cluster.servers.clone(),
        insecure_registry,
        shutdown: lifecycle.shutdown(),
    };
    let app = api::router(api).merge(ops_router_with(&lifecycle, move || [faults.text()]));
    lifecycle.ready();
    listen::serve(listeners, app, lifecycle.shutdown(), DRAIN).await;
    if candidate.await.is_err() {
        tracing::error!("the lease was not given back and will run out");
    }
    Ok(())
}

/// The machines that the configuration names. Health monitors run on those of the servers.
fn platform(cluster: &ClusterConfig) -> Peers {
    let servers: Vec<String> = cluster.servers.iter().filter_map(host_of).collect();
    let registry =
        cluster.registry.address.rsplit_once(':').map_or(cluster.registry.address.as_str(), |(host, _)| host);
    let others = [cluster.mysql.host.clone(), registry.to_owned()].into_iter().chain(host_of(&cluster.redis.url));
    Peers { monitors: servers, others: others.collect(), ..Peers::default() }
}

/// Brings the schema up to this version, under the account that may; tried again until it works. A server without that
/// credential leaves it to the others.
async fn migrate(cluster: ClusterConfig, lifecycle: Lifecycle) {
    let Ok(password) = credentials::read_credential("mysql-migrate") else { return };
    let condition = lifecycle.condition("schema");
    let shutdown = lifecycle.shutdown();
    let mysql = &cluster.mysql;
    let pool: Pool = store::pool(&mysql.host, mysql.port, &mysql.database, "dinp_migrate", &password);
    loop {
        match store::migrate(&pool).await {
            Ok(applied) => {
                if !applied.is_empty() {
                    tracing::info!("migrated the schema: {}", applied.join(", "));
                }
                condition.ok();
                break;
            }
            Err(error) => condition.missing(&dinp_common::error::ErrorChain(&error as &StoreError).to_string()),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    if let Err(error) = pool.disconnect().await {
        tracing::debug!(%error, "a connection for migrations was not closed cleanly");
    }
}
