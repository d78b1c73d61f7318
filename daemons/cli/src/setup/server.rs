//! A further server on a machine of its own: a standby, which leads when the leader fails.

use super::error::SetupError;
use super::files::{CredentialFile, File, HEAD, Kind, Programs, credential_path};
use super::step::Steps;
use super::system::{self, Access};
use super::units::{Ready, Unit};
use super::{mysql, redis, tickets};
use dinp_common::config::ClusterConfig;
use dinp_common::credentials::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use url::Url;

/// What every server reads besides its own service credential.
pub const CREDENTIALS: [&str; 5] = ["mysql-server", "redis-server", "registry-pull", "env-key", tickets::ID];
/// Its own.
const OWN: &str = "service-server";
/// Where the server's own settings go, on each machine that has one.
pub const SETTINGS: &str = "/etc/dinp/server.toml.d/10-setup.toml";

/// What `dinp setup server-bundle` prints and a server's host is set up with.
#[derive(Serialize, Deserialize)]
pub struct ServerBundle {
    /// Name of the machine.
    pub server: String,
    /// Address at which the others reach it.
    pub address: IpAddr,
    /// The cluster-wide settings of the control machine, with this server among the servers.
    pub cluster: ClusterConfig,
    /// Credentials by their names.
    pub credentials: BTreeMap<String, String>,
}

impl ServerBundle {
    fn credential(&self, id: &str) -> Result<Secret, SetupError> {
        let text = self.credentials.get(id).filter(|text| !text.is_empty());
        text.map(|text| Secret::new(&**text))
            .ok_or_else(|| SetupError::Refused(format!("the bundle holds no credential {id}: issue it again")))
    }
}

/// Where a server answers.
pub fn url(address: IpAddr) -> Result<Url, SetupError> {
    let text = format!("http://{}", SocketAddr::new(address, 1980));
    Url::parse(&text).map_err(|error| SetupError::Refused(format!("{text} is not a URL: {error}")))
}

/// The server's own settings.
pub fn settings(url: &Url) -> String {
    format!("{HEAD}url = {}\n", toml::Value::from(url.as_str()))
}

/// What makes this machine a server.
pub fn steps(bundle: &ServerBundle) -> Result<Steps, SetupError> {
    const CLUSTER: &str = "/etc/dinp/dinp.toml.d/10-setup-server.toml";
    system::warn_if_foreign(bundle.address);
    let cluster = &bundle.cluster;
    let mut reads: Vec<PathBuf> = vec![CLUSTER.into(), SETTINGS.into()];
    let mut steps: Steps = vec![
        Box::new(Programs { wanted: vec![("dinp-server", &["dinp-server"], "dinp-server")] }),
        Box::new(mysql::LetsIn {
            settings: cluster.mysql.clone(),
            password: bundle.credential("mysql-server")?,
            env_key: bundle.credential("env-key")?,
        }),
        Box::new(redis::LetsIn {
            url: cluster.redis.url.clone(),
            user: cluster.redis.user_for("server"),
            password: bundle.credential("redis-server")?,
        }),
    ];
    for id in CREDENTIALS.into_iter().chain([OWN]) {
        steps.push(CredentialFile::step(id, Kind::Given(bundle.credential(id)?)));
        reads.push(credential_path(id));
    }
    steps.push(File::step(CLUSTER, cluster_settings(cluster)?, Access::CONFIG));
    steps.push(File::step(SETTINGS, settings(&url(bundle.address)?), Access::CONFIG));
    steps.push(Unit::step("dinp.target", [] as [PathBuf; 0]));
    steps.push(Unit::step("dinp-server.service", reads));
    steps.push(Ready::step("dinp-server.service", 1980));
    Ok(steps)
}

fn cluster_settings(cluster: &ClusterConfig) -> Result<String, SetupError> {
    let text = toml::to_string(cluster)
        .map_err(|error| SetupError::Refused(format!("write the bundle's settings as TOML: {error}")))?;
    Ok(format!("{HEAD}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> ServerBundle {
        let credentials = CREDENTIALS.into_iter().chain([OWN]).map(|id| (id.to_owned(), format!("secret of {id}")));
        ServerBundle {
            server: "control2".into(),
            address: "127.0.0.1".parse().unwrap(),
            cluster: ClusterConfig {
                servers: vec!["http://10.0.0.1:1980".parse().unwrap(), "http://127.0.0.1:1980".parse().unwrap()],
                ..ClusterConfig::default()
            },
            credentials: credentials.collect(),
        }
    }

    #[test]
    fn a_server_has_the_settings_of_the_control_machine_and_a_url_of_its_own() {
        let bundle = bundle();
        let text = cluster_settings(&bundle.cluster).unwrap();
        assert_eq!(toml::from_str::<ClusterConfig>(&text).unwrap(), bundle.cluster);
        assert!(!text.contains("secret of"));
        assert!(settings(&url(bundle.address).unwrap()).ends_with("url = \"http://127.0.0.1:1980/\"\n"));
        let text = serde_json::to_string(&bundle).unwrap();
        let read: ServerBundle = serde_json::from_str(&text).unwrap();
        assert_eq!((read.cluster, read.credentials), (bundle.cluster, bundle.credentials));
    }

    #[test]
    fn a_bundle_that_lacks_a_credential_is_refused_by_its_name() {
        assert!(steps(&bundle()).is_ok());
        for id in CREDENTIALS.into_iter().chain([OWN]) {
            let mut bundle = bundle();
            bundle.credentials.remove(id);
            let error = steps(&bundle).err().unwrap().to_string();
            assert!(error.contains(&format!("no credential {id}")), "{error}");
        }
    }
}
