//! The hosts of one cluster, found by their labels.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;

use super::apps::{App, Router};
use super::bringup::DASH;
use super::cli::Cli;
use super::docker::{LABEL, docker, labelled};
use super::error::{Error, Failure, Result};
use super::host::{Blueprint, Host};
use super::layout::{HOSTS, Planned, Role, Subnet};
use super::load::Steady;
use super::package::Package;
use super::setup::{BASE_IMAGES, REPOSITORY};
use super::state::State;

/// What a host runs when nothing was done to it: whatever boots, and is not stopped by a signal.
const START_ALL: &str = "
    units=$(systemctl list-unit-files --state=enabled --no-legend 'dinp-*.service' 'dinp-*.socket' \\
        docker.service mariadb.service redis-server.service docker-registry.service | cut -d' ' -f1 || true)
    [ -z \"$units\" ] || systemctl start $units
    systemctl kill --signal=CONT 'dinp-*.service' 2>/dev/null || true";

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    /// `quickstart`, `test` ...
    pub name: String,
    hosts: Vec<Host>,
    ports: BTreeMap<u16, u16>,
    client: reqwest::Client,
    began: Option<String>,
    /// The host beside them that a scenario made.
    spare: OnceLock<Host>,
}

impl Cluster {
    /// The hosts of this name, whatever state they are in; `None` when there are none.
    pub async fn find(name: &str) -> Result<Option<Self>> {
        let label = format!("{LABEL}={name}");
        let ids = labelled(&["ps", "--all"], &label).await?;
        if ids.is_empty() {
            return Ok(None);
        }
        let mut args = vec!["inspect"];
        args.extend(ids.iter().map(String::as_str));
        let text = docker(&args).await?;
        let inspected: Vec<Inspected> = serde_json::from_str(&text).map_err(|source| Error::Json {
            what: "docker inspect".to_owned(),
            text,
            source,
        })?;
        let network = format!("dinp-{name}");
        let mut ports = BTreeMap::new();
        let mut hosts: Vec<Host> = Vec::new();
        for container in &inspected {
            ports.extend(container.published());
            hosts.extend(container.host(&network));
        }
        // A spare host that a scenario left behind is none of the cluster's own.
        hosts.retain(|host| HOSTS.iter().any(|planned| planned.name == host.name));
        hosts.sort_by_key(|host| HOSTS.iter().position(|planned| planned.name == host.name));
        Ok(Some(Self {
            name: name.to_owned(),
            hosts,
            ports,
            client: http_client()?,
            began: None,
            spare: OnceLock::new(),
        }))
    }

    /// The cluster that all scenarios share, whole again after whatever the last one did to it.
    pub async fn shared() -> Result<Self> {
        let name = std::env::var("DINP_TESTBED").unwrap_or_else(|_| "test".to_owned());
        let missing = || {
            Error::other(format!(
                "the cluster `{name}` of the testbed is not up: run `sudo scripts/test`, or \
                 `sudo scripts/test up` to keep one up for single scenarios"
            ))
        };
        let mut cluster = match Self::find(&name).await {
            Ok(found) => found.ok_or_else(missing)?,
            Err(Error::Spawn { .. }) => return Err(missing()),
            Err(Error::Command { output, .. }) if output.contains("daemon") => {
                return Err(missing());
            }
            Err(error) => return Err(error),
        };
        if cluster.hosts.len() != HOSTS.len() {
            return Err(missing());
        }
        for host in &cluster.hosts {
            host.restore().await?;
        }
        cluster.began = Some(cluster.host("control").exec("date '+%F %T'").await?.trim().to_owned());
        let whole = async {
            cluster.whole().await?;
            App::remove_left_over(&cluster).await
        };
        match whole.await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                // The cluster goes here, and what its hosts say about this is wanted.
                Failure::mark();
                Err(error)
            }
        }
    }

    /// Waits until every daemon is active, every node ready for work, and every router heard.
    async fn whole(&self) -> Result<()> {
        for host in &self.hosts {
            host.exec(START_ALL).await?;
        }
        self.cli().nodes_ready(&["node1", "node2"], Duration::from_secs(60)).await?;
        let routers: Vec<&str> = self.routers().map(|router| router.name.as_str()).collect();
        self.cli().routers_live(&routers, Duration::from_secs(60)).await
    }

    /// A host by its name.
    ///
    /// # Panics
    /// If the cluster has no such host: that is a mistake in the scenario.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .unwrap_or_else(|| panic!("cluster {} has no host {name}", self.name))
    }

    /// The hosts of the two servers.
    #[must_use]
    pub fn servers(&self) -> [&Host; 2] {
        ["control", "control2"].map(|name| self.host(name))
    }

    /// The cluster without any server.
    pub async fn stop_servers(&self) -> Result<()> {
        for host in self.servers() {
            host.exec("systemctl stop dinp-server").await?;
        }
        Ok(())
    }

    /// And with all of them again.
    pub async fn start_servers(&self) -> Result<()> {
        for host in self.servers() {
            host.exec("systemctl start dinp-server").await?;
        }
        Ok(())
    }

    /// All hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The port of this machine under which a port of a host is reached.
    pub fn published(&self, inside: u16) -> Result<u16> {
        self.ports.get(&inside).copied().ok_or_else(|| {
            Error::other(format!("no port of this machine leads to port {inside} of cluster {}", self.name))
        })
    }

    /// Where a browser of this machine finds the dashboard, as people are told when the cluster is up.
    pub fn dashboard(&self) -> Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.published(DASH)?))
    }

    /// Password of the first administrator.
    pub fn admin_password(&self) -> Result<String> {
        State::of(&self.name).admin_password()
    }

    /// The command line, logged in as the first administrator.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli::of(&self.name)
    }

    /// Runs `dinp` with these arguments and returns what it printed.
    pub async fn dinp(&self, args: &[&str]) -> Result<String> {
        self.cli().run(args).await
    }

    /// The hosts of all routers.
    pub fn routers(&self) -> impl Iterator<Item = &Host> {
        let planned = HOSTS.iter().filter(|planned| planned.role == Role::Router);
        planned.map(|planned| self.host(planned.name))
    }

    /// The first router, as users of applications reach it.
    #[must_use]
    pub fn router(&self) -> Router {
        Router::new(self.client.clone(), self.host("router1").address)
    }

    /// An application of this scenario; nothing is made before `deploy`.
    #[must_use]
    pub fn app(&self, name: &str) -> App<'_> {
        App::new(self, name)
    }

    /// The steady client through all routers in turn, to the name that an application is served under.
    #[must_use]
    pub fn steady(&self, host: &str) -> Steady {
        Steady::new(self.client.clone(), self.routers().map(|router| router.address).collect(), host)
    }

    /// A package made from that of a sample.
    pub async fn package(&self, sample: &str) -> Result<Package> {
        Package::of(&State::of(&self.name).path("samples"), sample).await
    }

    /// A fresh host beside the cluster, of the image that hosts of this role have: nothing of DINP is
    /// installed, but its packages can be.
    pub async fn spare(&self, role: Role) -> Result<Host> {
        let model =
            HOSTS.iter().find(|planned| planned.role == role).ok_or_else(|| Error::other("no host has that role"))?;
        let model = self.host(model.name);
        let image = docker(&["inspect", "--format", "{{.Config.Image}}", &model.container]).await?;
        let [a, b, c, _] = model.address.octets();
        let repository = State::of(&self.name).path("apt").to_string_lossy().into_owned();
        let control = self.host("control");
        let shown = format!(
            "{{{{range .Mounts}}}}{{{{if eq .Destination \"{BASE_IMAGES}\"}}}}{{{{.Source}}}}{{{{end}}}}{{{{end}}}}"
        );
        let base_images = docker(&["inspect", "--format", &shown, &control.container]).await?;
        let suite = model.exec(". /etc/os-release; echo $VERSION_CODENAME").await?;
        let blueprint = Blueprint {
            cluster: &self.name,
            planned: Planned { name: "spare", role, last_byte: 99 },
            image: image.trim(),
            subnet: Subnet([a, b, c]),
            peers: &[],
            published: Vec::new(),
            mounts: &[(&repository, REPOSITORY), (base_images.trim(), BASE_IMAGES)],
            codename: suite.trim(),
        };
        Host::discard(&self.name, "spare").await?;
        let host = Host::create(&blueprint).await?;
        self.spare.get_or_init(|| host.clone());
        host.booted().await?;
        Ok(host)
    }

    /// Runs a statement of SQL as MariaDB's root, and returns the rows, tab separated.
    pub async fn sql(&self, statement: &str) -> Result<String> {
        self.host("control").exec_with("mysql --batch --skip-column-names dinp", Some(statement)).await
    }

    /// What the daemons and the engine of a host have logged since the scenario began.
    async fn journal(&self, host: &Host) -> String {
        let since = self.began.as_ref().map(|time| format!("--since '{time}'")).unwrap_or_default();
        let command =
            format!("journalctl --no-pager --output=short-precise -u 'dinp-*' -u docker -n 200 {since} || true");
        host.exec(&command).await.unwrap_or_else(|error| error.chain())
    }
}

/// A scenario that failed, by `?` or by a panic, shows what its hosts have to say.
impl Drop for Cluster {
    fn drop(&mut self) {
        if self.began.is_none() || !(std::thread::panicking() || Failure::happened()) {
            return;
        }
        // The scenario's own runtime may be going down: a thread of its own looks at the hosts.
        std::thread::scope(|scope| {
            let printer = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let Ok(runtime) = runtime else { return };
                for host in self.hosts.iter().chain(self.spare.get()) {
                    eprintln!("----- journal of {} -----", host.name);
                    let deadline = Duration::from_secs(10);
                    let journal = runtime.block_on(async { tokio::time::timeout(deadline, self.journal(host)).await });
                    eprintln!("{}", journal.unwrap_or_else(|_| "(no answer)".to_owned()));
                }
            });
            if printer.join().is_err() {
                eprintln!("the journals could not be printed");
            }
        });
    }
}

/// A client that waits long enough to see the router's own deadlines, and never uses a proxy.
pub(super) fn http_client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(20))
        .build()
        .map_err(|source| Error::Http { url: "(no request yet)".to_owned(), source })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    name: String,
    config: Config,
    host_config: HostConfig,
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    port_bindings: Option<BTreeMap<String, Vec<Binding>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    host_port: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: BTreeMap<String, Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    ipam: Option<Ipam>,
}

#[derive(Deserialize)]
struct Ipam {
    #[serde(rename = "IPv4Address")]
    address: Ipv4Addr,
}

impl Inspected {
    /// The host that this container is; helper containers are none.
    fn host(&self, network: &str) -> Option<Host> {
        let name = self.config.labels.get("dinp.host")?;
        // The address that was asked for is known even while the host is down.
        let address = self.network_settings.networks.get(network)?.ipam.as_ref()?.address;
        Some(Host { name: name.clone(), container: self.name.trim_start_matches('/').to_owned(), address })
    }

    /// Published ports: inside -> outside.
    fn published(&self) -> Vec<(u16, u16)> {
        let Some(bindings) = &self.host_config.port_bindings else {
            return Vec::new();
        };
        bindings
            .iter()
            .filter_map(|(inside, outside)| {
                let inside = inside.split('/').next()?.parse().ok()?;
                Some((inside, outside.first()?.host_port.parse().ok()?))
            })
            .collect()
    }
}
