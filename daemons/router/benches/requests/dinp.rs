//! The router itself, in a process of its own.

use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::credentials::Secret;
use dinp_common::lifecycle::Lifecycle;
use dinp_router::{AccessLog, RedisAccess, RouterConfig, Settings};
use std::path::Path;
use tokio::net::TcpListener;

/// Runs it with one worker, as the other proxies have one thread, until the process is killed.
pub(crate) async fn run(redis: &str, cluster: &str, state: &Path, http: &str, log: &str) {
    let settings = Settings {
        config: RouterConfig {
            workers: 1,
            state_dir: state.into(),
            // All connections come from one client here.
            max_connections_per_client: 100_000,
            access_log: AccessLog::from(log.to_owned()),
            ..RouterConfig::default()
        },
        config_dir: state.into(),
        redis: RedisAccess {
            url: redis.to_owned(),
            user: "test".into(),
            password: Secret::new("test"),
            cluster: cluster.into(),
        },
        servers: vec!["http://127.0.0.1:1".parse().unwrap()],
        status_networks: Vec::new(),
        credential: Credential::generate(CredentialKind::Service, "router1"),
    };
    let http = TcpListener::bind(http).await.unwrap();
    let status = TcpListener::bind("127.0.0.1:0").await.unwrap();
    dinp_router::serve(settings, vec![http], vec![status], Lifecycle::for_tests()).await.unwrap();
}
