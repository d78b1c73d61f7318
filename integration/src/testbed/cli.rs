//! The `dinp` command line of the cluster's own packages, run on this machine and logged in.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::docker::{docker, run_command};
use super::error::{Error, Result};
use super::eventually::eventually;
use super::host::Host;
use super::layout::ADMIN;
use super::state::State;

/// Name of the program in the cluster's state directory.
const PROGRAM: &str = "bin/dinp";

/// The command line of one cluster.
#[derive(Clone, Debug)]
pub struct Cli {
    state: State,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    condition: String,
}

#[derive(Deserialize)]
struct Router {
    name: String,
    live: bool,
}

/// Lists come bare or as pages.
#[derive(Deserialize)]
#[serde(untagged)]
enum List<T> {
    Bare(Vec<T>),
    Page { items: Vec<T> },
}

impl Cli {
    /// Of the cluster of this name.
    #[must_use]
    pub fn of(cluster: &str) -> Self {
        Self { state: State::of(cluster) }
    }

    /// Takes the program out of the packages installed on a host.
    pub async fn fetch(&self, control: &Host) -> Result<()> {
        let program = self.state.path(PROGRAM);
        let dir = program.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(dir).map_err(super::state::at("make", dir))?;
        let from = format!("{}:/usr/bin/dinp", control.container);
        docker(&["cp".as_ref(), from.as_ref(), program.as_os_str()]).await.map(drop)
    }

    /// Signs in as the first administrator.
    pub async fn login(&self, dash_port: u16) -> Result<()> {
        let server = format!("http://127.0.0.1:{dash_port}");
        let password = self.state.admin_password()?;
        let args = ["login", "--server", &server, "--username", ADMIN, "--password-stdin"];
        run_command(self.command(&args), "this machine", Some(&password)).await.map(drop)
    }

    /// Runs `dinp` with these arguments and returns what it printed.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        run_command(self.command(args), "this machine", None).await
    }

    /// The same with `--output json`, read.
    pub async fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let text = self.run(&all).await?;
        serde_json::from_str(&text).map_err(|source| Error::Json {
            what: format!("`dinp {}`", args.join(" ")),
            text,
            source,
        })
    }

    /// A list of documents.
    pub async fn list<T: DeserializeOwned>(&self, args: &[&str]) -> Result<Vec<T>> {
        Ok(match self.json(args).await? {
            List::Bare(items) | List::Page { items } => items,
        })
    }

    /// Waits until the server has heard these nodes and gives them work.
    pub async fn nodes_ready(&self, names: &[&str], within: Duration) -> Result<()> {
        eventually(&format!("{} are ready", names.join(" and ")), within, async || {
            let nodes: Vec<Node> = self.list(&["node", "ls"]).await.map_err(|error| error.chain())?;
            let waiting: Vec<String> = names
                .iter()
                .filter_map(|name| match nodes.iter().find(|node| node.name == *name) {
                    Some(node) if node.condition == "ready" => None,
                    Some(node) => Some(format!("{name} is {}", node.condition)),
                    None => Some(format!("{name} is not listed")),
                })
                .collect();
            if waiting.is_empty() { Ok(()) } else { Err(waiting.join(", ")) }
        })
        .await
    }

    /// Waits until the server hears these routers.
    pub async fn routers_live(&self, names: &[&str], within: Duration) -> Result<()> {
        eventually(&format!("{} are heard", names.join(" and ")), within, async || {
            let routers: Vec<Router> = self.list(&["router", "ls"]).await.map_err(|error| error.chain())?;
            let is_live = |name: &&str| routers.iter().any(|router| router.name == **name && router.live);
            let silent: Vec<&str> = names.iter().copied().filter(|name| !is_live(name)).collect();
            if silent.is_empty() { Ok(()) } else { Err(format!("{} is not heard", silent.join(", "))) }
        })
        .await
    }

    /// The program, with its settings in the cluster's own directory.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let home = self.state.path("home");
        let mut command = Command::new(self.state.path(PROGRAM));
        command.args(args).env("HOME", &home).env("XDG_CONFIG_HOME", home.join(".config"));
        for setting in ["DINP_SERVER", "DINP_TOKEN", "DINP_CONTEXT"] {
            command.env_remove(setting);
        }
        command
    }
}
