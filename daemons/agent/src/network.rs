//! The network of instances: an own bridge on which they cannot talk to each other.

use crate::config::DockerConfig;
use crate::container::CLUSTER;
use crate::docker::{Engine, EngineError};
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use std::collections::HashMap;

const BRIDGE: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";

/// Why there is no network to run instances on.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The engine cannot be asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A network of that name exists, and is not what instances may run on.
    #[error("network {name} cannot be used: {problem}; remove it, or set docker.network")]
    Unfit {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Makes the network, unless it exists and is right.
pub async fn ensure(engine: &Engine, config: &DockerConfig, cluster: &str) -> Result<(), NetworkError> {
    let name = &config.network;
    let inspect =
        || engine.call(format!("inspect network {name}"), |d| async move { d.inspect_network(name, None).await });
    let found = match inspect().await {
        Err(error) if error.is_not_found() => {
            let create = engine.call(format!("create network {name}"), |d| async move {
                d.create_network(request(config, cluster)).await
            });
            match create.await {
                Ok(_) => tracing::info!(network = name, bridge = config.bridge, "network of instances created"),
                // Somebody was quicker.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
            inspect().await?
        }
        other => other?,
    };
    check(&found, config).map_err(|problem| NetworkError::Unfit { name: name.clone(), problem })
}

fn request(config: &DockerConfig, cluster: &str) -> NetworkCreateRequest {
    let subnet = config.subnet.clone().map(|subnet| IpamConfig { subnet: Some(subnet), ..IpamConfig::default() });
    NetworkCreateRequest {
        name: config.network.clone(),
        driver: Some("bridge".into()),
        ipam: subnet.map(|subnet| Ipam { config: Some(vec![subnet]), ..Ipam::default() }),
        options: Some(HashMap::from([(BRIDGE.into(), config.bridge.clone()), (ICC.into(), "false".into())])),
        labels: Some(HashMap::from([(CLUSTER.into(), cluster.to_owned())])),
        ..NetworkCreateRequest::default()
    }
}

fn check(found: &NetworkInspect, config: &DockerConfig) -> Result<(), String> {
    let option = |name: &str| found.options.as_ref().and_then(|options| options.get(name)).map(String::as_str);
    if found.driver.as_deref() != Some("bridge") {
        return Err("it is not a bridge".into());
    }
    if option(ICC) != Some("false") {
        return Err("instances could talk to each other on it".into());
    }
    if option(BRIDGE) != Some(&config.bridge) {
        return Err(format!("its bridge is not {}, which the firewall rules are for", config.bridge));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_network_is_refused() {
        let config = DockerConfig::default();
        let made = request(&config, "c1");
        let mut found = NetworkInspect { driver: made.driver, options: made.options, ..NetworkInspect::default() };
        assert_eq!(check(&found, &config), Ok(()));
        found.options.as_mut().unwrap().insert(ICC.into(), "true".into());
        assert!(check(&found, &config).unwrap_err().contains("talk to each other"));
        found.options = None;
        assert!(check(&found, &config).is_err());
    }
}
