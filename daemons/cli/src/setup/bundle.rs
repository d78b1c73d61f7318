//! Bundles: what the control machine hands to a node, a router or a further server, once, and all that these need.

use super::args::BundleArgs;
use super::error::SetupError;
use super::files::{self, needed_credential};
use super::server::{self, ServerBundle};
use super::{known_servers, mysql, services};
use dinp_common::api::agent::{NodeBundle, Registered};
use dinp_common::api::router::RouterBundle;
use dinp_common::auth::{Credential, CredentialKind, Role};
use dinp_common::config::{ClusterConfig, DEFAULT_DIR, NoConfig, load};
use dinp_common::model::NodeName;
use dinp_common::store::node::NewNode;
use dinp_common::store::{self, Change};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

/// `dinp setup node-bundle`
pub async fn print_node(args: &BundleArgs) -> Result<(), SetupError> {
    let config = config()?;
    let (bundle, renewed) = issue_node(&config, &args.name, args.address).await?;
    if renewed {
        eprintln!("node {} has a new secret: its former bundle is no longer valid", args.name);
    }
    print(&bundle)
}

/// `dinp setup router-bundle`
pub async fn print_router(args: &BundleArgs) -> Result<(), SetupError> {
    let bundle = issue_router(&config()?, &args.name, args.address).await?;
    print(&bundle)
}

/// `dinp setup server-bundle`
pub async fn print_server(args: &BundleArgs) -> Result<(), SetupError> {
    let bundle = issue_server(&config()?, &args.name, args.address).await?;
    print(&bundle)?;
    eprintln!("hand it to {} and run there: dinp setup server --bundle FILE", args.name);
    eprintln!(
        "then, on every machine of the cluster, this one too: {}",
        known_servers::command(&bundle.cluster.servers)
    );
    Ok(())
}

/// Reads a bundle from a file, or from standard input.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, SetupError> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(SetupError::file("read the bundle from", Path::new("standard input")))?;
    } else {
        text = std::fs::read_to_string(path).map_err(SetupError::file("read", path))?;
    }
    // The error of serde would quote the secret.
    serde_json::from_str(&text).map_err(|error| {
        SetupError::Refused(format!(
            "{} holds no bundle of the right kind (line {}, column {}): `dinp setup node-bundle`, \
             `dinp setup router-bundle` and `dinp setup server-bundle` on the control machine print them",
            path.display(),
            error.line(),
            error.column()
        ))
    })
}

/// Where the router of a machine that is all in one reaches the node beside it; nobody else is to.
const ALL_IN_ONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The bundle of this machine's own node: the one that it has while that is valid, else a new one.
pub async fn own_node(name: &str, check: bool) -> Result<NodeBundle, SetupError> {
    let config = config()?;
    if let Some(text) = files::credential("node-bundle")?
        && let Ok(bundle) = serde_json::from_str::<NodeBundle>(text.expose())
        && bundle.node.as_str() == name
        && node_is_known(&config, &bundle).await?
    {
        return Ok(bundle);
    }
    if check {
        return Err(SetupError::Refused("a bundle is made when it is applied".into()));
    }
    Ok(issue_node(&config, name, ALL_IN_ONE).await?.0)
}

/// The same for this machine's own router.
pub async fn own_router(name: &str, address: IpAddr, check: bool) -> Result<RouterBundle, SetupError> {
    let config = config()?;
    let kept = files::service_credential("service-router", name)?;
    if check && kept.is_none() {
        return Err(SetupError::Refused("a bundle is made when it is applied".into()));
    }
    let credential = kept.unwrap_or_else(|| Credential::generate(CredentialKind::Service, name));
    if !check {
        let pool = mysql::migrate_pool(&config.mysql.host, config.mysql.port)?;
        let mut conn = store::connect(&pool, Duration::from_secs(5)).await?;
        services::put_service(&mut conn, &credential, Role::Router).await?;
    }
    router_bundle(&config, name, address, &credential)
}

fn config() -> Result<ClusterConfig, SetupError> {
    Ok(load::<NoConfig>(Path::new(DEFAULT_DIR), "cli")?.cluster)
}

fn print(bundle: &impl Serialize) -> Result<(), SetupError> {
    let text = serde_json::to_string_pretty(bundle).unwrap_or_default() + "\n";
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(SetupError::file("write the bundle to", Path::new("standard output")))
}

fn checked_name(name: &str) -> Result<NodeName, SetupError> {
    name.parse().map_err(|error: dinp_common::model::InvalidValue| SetupError::Refused(error.to_string()))
}

fn servers(config: &ClusterConfig) -> Vec<String> {
    config.servers.iter().map(|url| url.as_str().trim_end_matches('/').to_owned()).collect()
}

/// Registers a node and makes its bundle; also says whether there was one before.
async fn issue_node(config: &ClusterConfig, name: &str, address: IpAddr) -> Result<(NodeBundle, bool), SetupError> {
    let node = checked_name(name)?;
    let pool = mysql::migrate_pool(&config.mysql.host, config.mysql.port)?;
    let mut conn = store::connect(&pool, Duration::from_secs(5)).await?;
    let cluster = mysql::needed(store::cluster::id(&mut conn).await?, "table cluster")?;
    drop(conn);
    let credential = Credential::generate(CredentialKind::Node, name);
    let mut change = Change::begin(&pool).await?;
    let known = store::node::find(&mut change.tx, &node).await?.is_some();
    let (address, secret_hash) = (address.to_string(), &credential.secret_hash());
    let new = NewNode { name: &node, address: &address, zone: "", secret_hash, registered: Registered::default() };
    store::node::put(&mut change, &new).await?;
    change.commit().await?;
    let insecure = if config.registry.insecure { config.registry.address.clone() } else { String::new() };
    let bundle = NodeBundle {
        cluster,
        node,
        address,
        servers: servers(config),
        ca: String::new(),
        secret: credential.to_string(),
        insecure_registry: insecure,
    };
    Ok((bundle, known))
}

async fn node_is_known(config: &ClusterConfig, bundle: &NodeBundle) -> Result<bool, SetupError> {
    let Ok(credential) = bundle.secret.parse::<Credential>() else { return Ok(false) };
    let pool = mysql::migrate_pool(&config.mysql.host, config.mysql.port)?;
    let mut conn = store::connect(&pool, Duration::from_secs(5)).await?;
    let row = store::node::find(&mut conn, &bundle.node).await?;
    Ok(row.is_some_and(|row| row.secret_hash == credential.secret_hash() && row.address == bundle.address))
}

async fn issue_router(config: &ClusterConfig, name: &str, address: IpAddr) -> Result<RouterBundle, SetupError> {
    checked_name(name)?;
    let credential = issue_service(config, name, Role::Router).await?;
    router_bundle(config, name, address, &credential)
}

/// A new credential of a service, which is made known, or renewed.
async fn issue_service(config: &ClusterConfig, name: &str, role: Role) -> Result<Credential, SetupError> {
    let pool = mysql::migrate_pool(&config.mysql.host, config.mysql.port)?;
    let mut conn = store::connect(&pool, Duration::from_secs(5)).await?;
    let known = store::service::find(&mut conn, name).await?;
    let credential = Credential::generate(CredentialKind::Service, name);
    services::put_service(&mut conn, &credential, role).await?;
    if known.is_some() {
        eprintln!("{role} {name} has a new secret: its former bundle is no longer valid");
    }
    Ok(credential)
}

async fn issue_server(config: &ClusterConfig, name: &str, address: IpAddr) -> Result<ServerBundle, SetupError> {
    checked_name(name)?;
    reachable("MySQL", &config.mysql.host)?;
    reachable("Redis", config.redis.url.host_str().unwrap_or_default())?;
    let mut cluster = config.clone();
    let url = server::url(address)?;
    if !cluster.servers.contains(&url) {
        cluster.servers.push(url);
    }
    let mut credentials = BTreeMap::new();
    for id in server::CREDENTIALS {
        credentials.insert(id.to_owned(), needed_credential(id)?.expose().to_owned());
    }
    let own = issue_service(config, &format!("server-{name}"), Role::Server).await?;
    credentials.insert("service-server".to_owned(), own.to_string());
    Ok(ServerBundle { server: name.to_owned(), address, cluster, credentials })
}

/// A server on another machine can only use what listens on an address that it reaches.
fn reachable(what: &str, host: &str) -> Result<(), SetupError> {
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_loopback {
        return Ok(());
    }
    Err(SetupError::Refused(format!(
        "{what} is at {host}, which no other machine reaches: run `dinp setup control` again with --address"
    )))
}

fn router_bundle(
    config: &ClusterConfig,
    name: &str,
    address: IpAddr,
    credential: &Credential,
) -> Result<RouterBundle, SetupError> {
    Ok(RouterBundle {
        cluster: config.cluster.clone(),
        router: name.to_owned(),
        address: address.to_string(),
        domain: config.domain.clone(),
        servers: servers(config),
        redis_url: config.redis.url.to_string(),
        redis_password: needed_credential("redis-router")?.expose().to_owned(),
        secret: credential.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_is_refused_while_the_databases_are_this_machines_alone() {
        assert!(reachable("MySQL", "10.0.0.1").is_ok() && reachable("MySQL", "db.example").is_ok());
        for host in ["127.0.0.1", "::1", "localhost"] {
            let error = reachable("MySQL", host).unwrap_err().to_string();
            assert!(error.starts_with(&format!("MySQL is at {host}")), "{error}");
        }
    }

    #[test]
    fn a_wrong_bundle_is_not_quoted() {
        let file = std::env::temp_dir().join(format!("dinp-bundle-{}", std::process::id()));
        std::fs::write(&file, r#"{"cluster": 7, "secret": "node:a:geheim"}"#).unwrap();
        let error = read::<NodeBundle>(&file).err().unwrap().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(error.contains("holds no bundle") && !error.contains("geheim"), "{error}");
    }
}
