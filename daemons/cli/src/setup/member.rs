//! A compute node or a router, from the bundle that the control machine issued.

use super::docker;
use super::error::SetupError;
use super::files::{CredentialFile, File, HEAD, Kind, Program, Programs, credential_path};
use super::step::Steps;
use super::system::{self, Access};
use super::units::{Ready, Unit};
use dinp_common::api::agent::NodeBundle;
use dinp_common::api::router::RouterBundle;
use dinp_common::credentials::Secret;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use url::Url;

/// What makes this machine a node.
pub fn node_steps(bundle: &NodeBundle) -> Result<Steps, SetupError> {
    const CLUSTER: &str = "/etc/dinp/dinp.toml.d/10-setup-node.toml";
    const AGENT: &str = "/etc/dinp/agent.toml.d/10-setup.toml";
    if let Ok(address) = bundle.address.parse() {
        system::warn_if_foreign(address);
    }
    let text = serde_json::to_string(bundle)
        .map_err(|error| SetupError::Refused(format!("write the bundle as JSON: {error}")))?;
    let mut wanted: Vec<Program> =
        vec![("iptables", &["iptables"], "iptables"), ("dinp-agent", &["dinp-agent"], "dinp-agent")];
    wanted.extend(docker::programs());
    let mut steps: Steps = vec![
        Box::new(Programs { wanted }),
        CredentialFile::step("node-bundle", Kind::Given(Secret::new(text))),
        File::step(CLUSTER, node_cluster_settings(bundle), Access::CONFIG),
        File::step(AGENT, agent_settings(bundle), Access::CONFIG),
    ];
    let insecure = [bundle.insecure_registry.clone()].into_iter().filter(|registry| !registry.is_empty());
    steps.extend(docker::steps(insecure.collect()));
    let reads = || [CLUSTER.into(), AGENT.into(), credential_path("node-bundle")];
    steps.push(Unit::step("dinp.target", [] as [PathBuf; 0]));
    steps.push(Unit::step("dinp-agent-firewall.socket", [] as [PathBuf; 0]));
    steps.push(Unit::on_demand("dinp-agent-firewall.service", reads()));
    steps.push(Unit::step("dinp-agent.service", reads()));
    steps.push(Ready::step("dinp-agent.service", 1981));
    Ok(steps)
}

/// What makes this machine a router.
pub fn router_steps(bundle: &RouterBundle) -> Result<Steps, SetupError> {
    const CLUSTER: &str = "/etc/dinp/dinp.toml.d/10-setup-router.toml";
    const ROUTER: &str = "/etc/dinp/router.toml.d/10-setup.toml";
    let address: IpAddr = bundle.address.parse().map_err(|_| {
        SetupError::Refused(format!("the bundle's address {} is not an IP address: issue it again", bundle.address))
    })?;
    system::warn_if_foreign(address);
    let status = format!("http://{}", SocketAddr::new(address, 1982));
    let steps: Steps = vec![
        Box::new(Programs { wanted: vec![("dinp-router", &["dinp-router"], "dinp-router")] }),
        CredentialFile::step("redis-router", Kind::Given(Secret::new(&*bundle.redis_password))),
        CredentialFile::step("service-router", Kind::Given(Secret::new(&*bundle.secret))),
        File::step(CLUSTER, router_cluster_settings(bundle), Access::CONFIG),
        File::step(ROUTER, format!("{HEAD}status_url = {}\n", quoted(&status)), Access::CONFIG),
        Unit::step("dinp.target", [] as [PathBuf; 0]),
        Unit::step("dinp-router.socket", [] as [PathBuf; 0]),
        Unit::step(
            "dinp-router.service",
            [CLUSTER.into(), ROUTER.into(), credential_path("redis-router"), credential_path("service-router")],
        ),
        Ready::step("dinp-router.service", 1982),
    ];
    Ok(steps)
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: &[String]) -> String {
    toml::Value::from(items.to_vec()).to_string()
}

fn node_cluster_settings(bundle: &NodeBundle) -> String {
    let mut text = format!("{HEAD}servers = {}\n", list(&bundle.servers));
    if !bundle.insecure_registry.is_empty() {
        text += &format!("\n[registry]\naddress = {}\ninsecure = true\n", quoted(&bundle.insecure_registry));
    }
    text
}

fn router_cluster_settings(bundle: &RouterBundle) -> String {
    format!(
        "{HEAD}cluster = {}\ndomain = {}\nservers = {}\n\n[redis]\nurl = {}\n",
        quoted(&bundle.cluster),
        quoted(&bundle.domain),
        list(&bundle.servers),
        quoted(&bundle.redis_url),
    )
}

/// Apps have no business with the machines that control them.
///
/// A node with a loopback address is a machine that is all in one, and publishes apps to its own router alone: people
/// reach the dashboard by this machine's name, and browsers would send its cookies to the ports of apps too.
fn agent_settings(bundle: &NodeBundle) -> String {
    let mut denied: Vec<String> =
        bundle.servers.iter().filter_map(|url| Url::parse(url).ok()?.host_str().map(str::to_owned)).collect();
    if let Some((host, _)) = bundle.insecure_registry.rsplit_once(':') {
        denied.push(host.to_owned());
    }
    denied.sort();
    denied.dedup();
    let mut text = format!("{HEAD}denied_addresses = {}\n", list(&denied));
    if bundle.address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        text += &format!("publish_address = {}\n", quoted(&bundle.address));
        // By default the node's, which inside of a container is the container itself.
        if let Some(host) = denied.first() {
            text += &format!("host_ip = {}\n", quoted(host));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::config::ClusterConfig;

    fn bundle() -> NodeBundle {
        NodeBundle {
            cluster: "c1".into(),
            node: "node1".parse().unwrap(),
            address: "10.0.0.7".into(),
            servers: vec!["http://10.0.0.1:1980".into(), "http://10.0.0.2:1980".into()],
            ca: String::new(),
            secret: "node:node1:00".into(),
            insecure_registry: "10.0.0.1:5000".into(),
        }
    }

    #[test]
    fn a_node_knows_servers_and_registry_and_denies_both_to_apps() {
        let config: ClusterConfig = toml::from_str(&node_cluster_settings(&bundle())).unwrap();
        assert_eq!(config.servers.len(), 2);
        assert_eq!(config.registry.address, "10.0.0.1:5000");
        let settings = agent_settings(&bundle());
        assert!(settings.contains(r#"denied_addresses = ["10.0.0.1", "10.0.0.2"]"#));
        assert!(!settings.contains("publish_address"));
    }

    #[test]
    fn a_machine_that_is_all_in_one_publishes_apps_to_its_own_router_alone() {
        let settings = agent_settings(&NodeBundle { address: "127.0.0.1".into(), ..bundle() });
        assert!(settings.ends_with("publish_address = \"127.0.0.1\"\nhost_ip = \"10.0.0.1\"\n"), "{settings}");
    }

    #[test]
    fn a_router_knows_redis() {
        let bundle = RouterBundle {
            cluster: "dinp".into(),
            router: "router1".into(),
            address: "127.0.0.1".into(),
            domain: "apps.localhost".into(),
            servers: vec!["http://10.0.0.1:1980".into()],
            redis_url: "redis://10.0.0.1:6379".into(),
            redis_password: "geheim".into(),
            secret: "service:router1:00".into(),
        };
        let text = router_cluster_settings(&bundle);
        let config: ClusterConfig = toml::from_str(&text).unwrap();
        assert_eq!(config.redis.url.as_str(), "redis://10.0.0.1:6379");
        assert!(!text.contains("geheim"));
        assert!(router_steps(&bundle).is_ok());
    }
}
