//! The sample applications: packages that the builder of the cluster makes into images.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::Deserialize;

use super::cluster::Cluster;
use super::error::{Error, Result};
use super::eventually::eventually;
use super::layout::DOMAIN;
use super::progress::Progress;

/// How long a deployed sample may take to answer.
const ANSWER: Duration = Duration::from_secs(60);

/// The version that `integration/samples/pack` is asked for.
pub const VERSION: &str = "v1";

/// One application of a fresh cluster.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Name of the application.
    pub app: &'static str,
    /// Name of its package, without version.
    pub package: &'static str,
    /// Arguments of `dinp deploy`.
    arguments: &'static [&'static str],
}

/// All of them, in the order in which they are deployed.
pub const ALL: [Sample; 3] = [
    Sample {
        app: "hello",
        package: "hello-python",
        arguments: &["--runtime", "python", "--instances", "2", "--health", "/health"],
    },
    Sample {
        app: "web",
        package: "web-binary",
        arguments: &["--runtime", "binary", "--instances", "2", "--health", "/health"],
    },
    Sample { app: "tree", package: "tree-binary", arguments: &["--runtime", "binary", "--memory", "128"] },
];

#[derive(Deserialize)]
struct Shown {
    name: String,
    #[serde(default)]
    release: Option<serde::de::IgnoredAny>,
}

/// The file of a package among those that were packed.
#[must_use]
pub fn file(dir: &Path, package: &str) -> PathBuf {
    dir.join(format!("{package}-{VERSION}.tar.gz"))
}

/// Whether all packages are there, before anything is made that would wait for them.
pub fn check(dir: &Path) -> Result<()> {
    let missing = ALL.iter().map(|sample| file(dir, sample.package)).find(|path| !path.is_file());
    match missing {
        Some(path) => Err(Error::other(format!("{} is missing: integration/samples/pack makes it", path.display()))),
        None => Ok(()),
    }
}

/// Builds and deploys those that have no release yet, all at once: a deployment mostly waits.
pub async fn deploy(cluster: &Cluster, packages: &Path, progress: &Progress) -> Result<()> {
    let shown: Vec<Shown> = cluster.cli().list(&["app", "ls"]).await?;
    let has_release = |sample: &Sample| shown.iter().any(|app| app.name == sample.app && app.release.is_some());
    let missing: Vec<Sample> = ALL.into_iter().filter(|sample| !has_release(sample)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|sample| sample.app).collect();
    let work = try_join_all(missing.iter().map(|sample| sample.deploy(cluster, packages)));
    progress.step(&format!("building and deploying {}", names.join(", ")), work).await.map(drop)
}

/// Waits until all of them answer through the router.
pub async fn answer(cluster: &Cluster) -> Result<()> {
    let router = cluster.router();
    for sample in ALL {
        let what = format!("{} answers through the router", sample.app);
        eventually(&what, ANSWER, async || {
            let answer = router.get("/", &sample.domain()).await.map_err(|error| error.chain())?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.body)) }
        })
        .await?;
    }
    Ok(())
}

impl Sample {
    /// The name that it is served under.
    #[must_use]
    pub fn domain(&self) -> String {
        format!("{}.{DOMAIN}", self.app)
    }

    async fn deploy(&self, cluster: &Cluster, packages: &Path) -> Result<()> {
        let package = file(packages, self.package);
        let package = package.to_string_lossy();
        let mut args = vec!["deploy", &package, "--app", self.app, "--wait"];
        args.extend(self.arguments);
        cluster.dinp(&args).await.map(drop)
    }
}
