//! `dinp setup servers`: tells the daemons of this machine which servers the cluster has.

use super::error::SetupError;
use super::files::{File, HEAD};
use super::step::Steps;
use super::system::{self, Access};
use super::units::Unit;
use dinp_common::config::ClusterConfig;
use url::Url;

/// It comes after what the machine was set up with.
const SETTINGS: &str = "/etc/dinp/dinp.toml.d/20-servers.toml";

/// The daemons that call servers or are one, and the packet filter that keeps apps from them.
const READERS: [&str; 6] = [
    "dinp-server.service",
    "dinp-dash.service",
    "dinp-hm.service",
    "dinp-router.service",
    "dinp-agent-firewall.service",
    "dinp-agent.service",
];

/// The list, and those daemons of this machine that run.
pub async fn steps(servers: &[Url]) -> Result<Steps, SetupError> {
    ClusterConfig { servers: servers.to_vec(), ..ClusterConfig::default() }.validate()?;
    let mut steps: Steps = vec![File::step(SETTINGS, settings(servers), Access::CONFIG)];
    for unit in READERS {
        if system::succeeds("systemctl", &["is-active", "--quiet", unit], None).await {
            steps.push(Unit::step(unit, [SETTINGS]));
        }
    }
    Ok(steps)
}

fn settings(servers: &[Url]) -> String {
    let urls: Vec<&str> = servers.iter().map(Url::as_str).collect();
    format!("{HEAD}servers = {}\n", toml::Value::from(urls))
}

/// What is to be run on every machine so that it knows these.
pub fn command(servers: &[Url]) -> String {
    let urls: Vec<&str> = servers.iter().map(|url| url.as_str().trim_end_matches('/')).collect();
    format!("dinp setup servers {}", urls.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Vec<Url> {
        ["http://10.0.0.1:1980", "http://10.0.0.2:1980"].map(|url| url.parse().unwrap()).to_vec()
    }

    #[test]
    fn daemons_read_the_list() {
        let config: ClusterConfig = toml::from_str(&settings(&servers())).unwrap();
        assert_eq!(config.servers, servers());
    }

    #[test]
    fn the_command_that_is_told_names_all() {
        assert_eq!(command(&servers()), "dinp setup servers http://10.0.0.1:1980 http://10.0.0.2:1980");
    }

    #[tokio::test]
    async fn an_address_that_daemons_would_refuse_is_refused_first() {
        let error = steps(&["https://10.0.0.1:1980".parse().unwrap()]).await.err().unwrap().to_string();
        assert!(error.contains("servers"), "{error}");
    }
}
