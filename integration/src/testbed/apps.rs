//! Applications of a scenario, and the router that they are reached through.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Deserialize;

use super::cluster::Cluster;
use super::error::{Error, Result};
use super::eventually::eventually;
use super::layout::DOMAIN;
use super::load::Steady;
use super::samples::VERSION;
use super::tunnels::Tunnels;

/// Applications of scenarios begin with this, so that what one left behind is found by the next.
const PREFIX: &str = "t-";

/// The sample that scenarios run: its answers can be switched. Its package has another name.
const SAMPLE: &str = "web";
const SAMPLE_PACKAGE: &str = "web-binary";

/// An application of a scenario.
#[derive(Clone, Debug)]
pub struct App<'a> {
    cluster: &'a Cluster,
    /// Its name in DINP.
    pub name: String,
    options: Vec<String>,
}

/// One instance, as `dinp ps` tells it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Instance {
    /// Its identity.
    #[serde(rename = "instance")]
    pub id: String,
    /// Id of its release.
    pub release: u64,
    /// Its node.
    pub node: String,
    /// `ready`, `starting` ...
    pub state: String,
    /// Whether routers send to it.
    pub routed: bool,
    /// Its address on the node.
    #[serde(default)]
    pub address: Option<String>,
    /// Its port on the node.
    #[serde(default)]
    pub port: Option<u16>,
    /// How often its agent has started it again.
    pub restarts: u32,
}

#[derive(Deserialize)]
struct Shown {
    name: String,
    #[serde(default)]
    release: Option<Release>,
}

#[derive(Deserialize)]
struct Release {
    id: u64,
    number: u32,
    image: String,
}

/// Where users of applications come in.
#[derive(Clone, Debug)]
pub struct Router {
    client: reqwest::Client,
    address: Ipv4Addr,
}

/// An answer through the router.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: String,
}

impl Router {
    pub(super) fn new(client: reqwest::Client, address: Ipv4Addr) -> Self {
        Self { client, address }
    }

    /// GET of a path under a host name.
    pub async fn get(&self, path: &str, host: &str) -> Result<Answer> {
        self.send(self.client.get(self.url(path)), host).await
    }

    /// GET with one more header.
    pub async fn get_with(&self, path: &str, host: &str, name: &str, value: &str) -> Result<Answer> {
        self.send(self.client.get(self.url(path)).header(name, value), host).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn send(&self, request: reqwest::RequestBuilder, host: &str) -> Result<Answer> {
        let failed = |source: reqwest::Error| Error::Http { url: format!("{host} at {}", self.address), source };
        let response = request.header(reqwest::header::HOST, host).send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.text().await.map_err(failed)?;
        Ok(Answer { status, body })
    }
}

impl<'a> App<'a> {
    pub(super) fn new(cluster: &'a Cluster, name: &str) -> Self {
        Self { cluster, name: format!("{PREFIX}{name}"), options: Vec::new() }
    }

    /// How many instances are asked for at the first deployment.
    #[must_use]
    pub fn instances(self, count: u32) -> Self {
        self.option("--instances", &count.to_string())
    }

    /// Memory of each instance in MiB.
    #[must_use]
    pub fn memory(self, megabytes: u32) -> Self {
        self.option("--memory", &megabytes.to_string())
    }

    /// Longest wait for what an instance still does when it is to stop, in seconds.
    #[must_use]
    pub fn drain_timeout(self, seconds: u32) -> Self {
        self.option("--drain-timeout", &seconds.to_string())
    }

    /// New instances take over as soon as they are ready.
    #[must_use]
    pub fn unwatched(self) -> Self {
        self.option("--min-healthy", "0").option("--verify", "0")
    }

    /// Path of the health check.
    #[must_use]
    pub fn health(self, path: &str) -> Self {
        self.option("--health", path)
    }

    fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Deploys the sample of scenarios and waits until it serves.
    pub async fn deploy(self) -> Result<Self> {
        let image = self.sample_image().await?;
        let mut args = vec!["deploy", "--app", &self.name, "--image", &image];
        args.extend(self.options.iter().map(String::as_str));
        self.cluster.dinp(&args).await?;
        self.answers(VERSION).await?;
        Ok(self)
    }

    /// Builds the sample as another version, rolls that out, and waits for the verdict.
    pub async fn roll_to(&self, version: &str) -> Result<()> {
        let package = self.cluster.package(SAMPLE_PACKAGE).await?;
        let package = package.with_file("VERSION", format!("{version}\n"))?;
        let archive = package.packed().await?;
        let args = ["app", "deploy", &self.name, &archive, "--runtime", "binary"];
        self.cluster.dinp(&args).await.map(drop)
    }

    /// Rolls an image out that is there already, and waits for the verdict.
    pub async fn roll_to_image(&self, image: &str) -> Result<()> {
        self.cluster.dinp(&["app", "deploy", &self.name, "--image", image]).await.map(drop)
    }

    /// Goes back to the release before this one.
    pub async fn roll_back(&self) -> Result<()> {
        self.cluster.dinp(&["app", "rollback", &self.name]).await.map(drop)
    }

    /// Asks for another number of instances; returns when that is asked.
    pub async fn scale(&self, count: u32) -> Result<()> {
        self.cluster.dinp(&["app", "scale", &self.name, &count.to_string()]).await.map(drop)
    }

    /// The image that the sample of scenarios was built into when the cluster was brought up.
    pub async fn sample_image(&self) -> Result<String> {
        let shown: Shown = self.cluster.cli().json(&["app", "show", SAMPLE]).await?;
        shown
            .release
            .map(|release| release.image)
            .ok_or_else(|| Error::other(format!("the sample {SAMPLE} has no release: bring the cluster up again")))
    }

    /// The image of the release in force.
    pub async fn image(&self) -> Result<String> {
        let shown: Shown = self.cluster.cli().json(&["app", "show", &self.name]).await?;
        let release = shown.release.ok_or_else(|| Error::other(format!("{} has no release", self.name)))?;
        Ok(release.image)
    }

    /// Number and id of the release in force.
    pub async fn release(&self) -> Result<(u32, u64)> {
        let shown: Shown = self.cluster.cli().json(&["app", "show", &self.name]).await?;
        shown
            .release
            .map(|release| (release.number, release.id))
            .ok_or_else(|| Error::other(format!("{} has no release", self.name)))
    }

    /// Its instances.
    pub async fn list(&self) -> Result<Vec<Instance>> {
        self.cluster.cli().list(&["ps", &self.name]).await
    }

    /// Waits until exactly these instances serve, counted by node, and no other is left.
    pub async fn settles(&self, wanted: &[(&str, usize)], within: Duration) -> Result<Vec<Instance>> {
        let wanted: BTreeMap<&str, usize> = wanted.iter().copied().filter(|(_, count)| *count > 0).collect();
        eventually(&format!("{} settles at {wanted:?}", self.name), within, async || {
            let instances = self.list().await.map_err(|error| error.chain())?;
            let mut serving: BTreeMap<&str, usize> = BTreeMap::new();
            for instance in &instances {
                *serving.entry(instance.node.as_str()).or_default() += 1;
            }
            let all_serve = instances.iter().all(Instance::serves);
            if all_serve && serving == wanted { Ok(instances) } else { Err(told(&instances)) }
        })
        .await
    }

    /// Waits until exactly this many instances serve, wherever they are, and no other is left.
    pub async fn settles_at(&self, count: usize, within: Duration) -> Result<Vec<Instance>> {
        eventually(&format!("{} settles at {count}", self.name), within, async || {
            let instances = self.list().await.map_err(|error| error.chain())?;
            let all_serve = instances.iter().all(Instance::serves);
            if all_serve && instances.len() == count { Ok(instances) } else { Err(told(&instances)) }
        })
        .await
    }

    /// Waits until this many instances serve on a node, whatever is said of other nodes.
    pub async fn serves_on(&self, node: &str, count: usize, within: Duration) -> Result<()> {
        eventually(&format!("{count} of {} serve on {node}", self.name), within, async || {
            let instances = self.list().await.map_err(|error| error.chain())?;
            let serving = instances.iter().filter(|instance| instance.node == node && instance.serves()).count();
            if serving == count { Ok(()) } else { Err(told(&instances)) }
        })
        .await
    }

    /// Waits for an answer through the router whose first line this is.
    pub async fn answers(&self, line: &str) -> Result<()> {
        eventually(&format!("{} answers {line:?}", self.name), Duration::from_secs(30), async || {
            let answer = self.get("/version").await.map_err(|error| error.chain())?;
            if answer.status == 200 && answer.body.lines().next() == Some(line) {
                return Ok(());
            }
            Err(format!("{}: {}", answer.status, answer.body))
        })
        .await
    }

    /// GET through the router.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.cluster.router().get(path, &self.domain()).await
    }

    /// Asks one instance, past the routing of the router but from its machine.
    pub async fn ask(&self, instance: &Instance, method: &str, path: &str) -> Result<String> {
        let (Some(address), Some(port)) = (&instance.address, instance.port) else {
            return Err(Error::other(format!("{} has no address yet", instance.id)));
        };
        // An address may be told with its port.
        let address = address.split_once(':').map_or(address.as_str(), |(address, _)| address);
        let command = format!("curl -fsS -m 10 -X {method} 'http://{address}:{port}{path}'");
        let body = self.cluster.host("router1").exec(&command).await?;
        Ok(body.trim().to_owned())
    }

    /// The name that it is served under.
    #[must_use]
    pub fn domain(&self) -> String {
        format!("{}.{DOMAIN}", self.name)
    }

    /// A steady client that asks for its version.
    #[must_use]
    pub fn steady(&self) -> Steady {
        self.cluster.steady(&self.domain()).path("/version")
    }

    /// Clients that hold a tunnel each.
    #[must_use]
    pub fn tunnels(&self, count: usize) -> Tunnels {
        let routers: Vec<_> = self.cluster.routers().map(|router| router.address).collect();
        Tunnels::open(&routers, &self.domain(), count)
    }

    /// The id of the container of an instance, from the engine of its node.
    pub async fn container(&self, instance: &Instance) -> Result<String> {
        let id = self
            .cluster
            .host(&instance.node)
            .exec(&format!("docker ps --quiet --no-trunc --filter label=dinp.instance={}", instance.id))
            .await?;
        let id = id.trim();
        if id.is_empty() {
            return Err(Error::other(format!("{} has no container for {}", instance.node, instance.id)));
        }
        Ok(id.to_owned())
    }

    /// When each container of it was started, by node: whoever restarts one changes this.
    pub async fn started(&self) -> Result<BTreeMap<String, String>> {
        let mut started = BTreeMap::new();
        for node in ["node1", "node2"] {
            let text = self
                .cluster
                .host(node)
                .exec(&format!(
                    "docker ps --quiet --no-trunc --filter label=dinp.app={} | \
                     xargs -r docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}'",
                    self.name
                ))
                .await?;
            started.extend(
                text.lines().filter_map(|line| line.split_once(' ')).map(|(id, time)| (id.to_owned(), time.to_owned())),
            );
        }
        Ok(started)
    }

    /// Deletes it.
    pub async fn remove(&self) -> Result<()> {
        self.cluster.dinp(&["app", "rm", &self.name, "--yes"]).await.map(drop)
    }

    /// Deletes what earlier scenarios left behind, and waits until their containers are gone.
    pub(super) async fn remove_left_over(cluster: &Cluster) -> Result<()> {
        let shown: Vec<Shown> = cluster.cli().list(&["app", "ls"]).await?;
        for app in shown.iter().filter(|app| app.name.starts_with(PREFIX)) {
            cluster.dinp(&["app", "rm", &app.name, "--yes"]).await?;
        }
        let within = Duration::from_secs(60);
        eventually("no container of an earlier scenario is left", within, async || {
            for node in ["node1", "node2"] {
                let text = cluster
                    .host(node)
                    .exec("docker ps --all --filter label=dinp.app --format '{{.Names}}'")
                    .await
                    .map_err(|error| error.chain())?;
                let prefix = format!("dinp-{PREFIX}");
                if let Some(name) = text.lines().find(|name| name.starts_with(&prefix)) {
                    return Err(format!("{name} on {node}"));
                }
            }
            Ok(())
        })
        .await
    }
}

impl Instance {
    /// Whether it is ready and routers send to it.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.state == "ready" && self.routed
    }
}

fn told(instances: &[Instance]) -> String {
    let lines: Vec<String> = instances
        .iter()
        .map(|instance| {
            let routed = if instance.routed { "" } else { ", not routed" };
            format!("{} on {} {}{routed}", instance.id, instance.node, instance.state)
        })
        .collect();
    if lines.is_empty() { "no instance".to_owned() } else { lines.join("; ") }
}
