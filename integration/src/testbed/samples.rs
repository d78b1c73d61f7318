//! The sample applications: packages that the builder of the cluster makes into images.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::cluster::Cluster;
use super::error::Result;
use super::eventually::eventually;
use super::layout::DOMAIN;
use super::progress::Progress;
use super::state::at;

/// How long a deployed sample may take to answer.
const ANSWER: Duration = Duration::from_secs(60);

/// One package: `<app>.tar.gz` beside `<app>.deploy`, the arguments of `dinp deploy` for it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Name of the application.
    pub app: String,
    package: PathBuf,
    arguments: Vec<String>,
}

#[derive(Deserialize)]
struct Shown {
    name: String,
    #[serde(default)]
    release: Option<serde::de::IgnoredAny>,
}

/// The samples in a directory.
pub fn find(dir: &Path) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at("read", dir))? {
        let path = entry.map_err(at("read", dir))?.path();
        if path.extension().is_none_or(|extension| extension != "deploy") {
            continue;
        }
        let arguments = std::fs::read_to_string(&path).map_err(at("read", &path))?;
        let app = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        samples.extend(app.map(|app| Sample {
            package: dir.join(format!("{app}.tar.gz")),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            app,
        }));
    }
    samples.sort_by(|one, other| one.app.cmp(&other.app));
    Ok(samples)
}

/// Builds and deploys those that have no release yet, one after the other: builds share two cores.
pub async fn deploy(cluster: &Cluster, samples: &[Sample], progress: &Progress) -> Result<()> {
    let shown: Vec<Shown> = cluster.cli().list(&["app", "ls"]).await?;
    for sample in samples {
        if shown.iter().any(|app| app.name == sample.app && app.release.is_some()) {
            continue;
        }
        let title = format!("building and deploying {}", sample.app);
        progress.step(&title, sample.deploy(cluster)).await?;
    }
    Ok(())
}

/// Waits until all of them answer through the router.
pub async fn answer(cluster: &Cluster, samples: &[Sample]) -> Result<()> {
    let router = cluster.router();
    for sample in samples {
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

    async fn deploy(&self, cluster: &Cluster) -> Result<()> {
        let package = self.package.to_string_lossy();
        let mut args = vec!["deploy", &package, "--app", &self.app, "--wait"];
        args.extend(self.arguments.iter().map(String::as_str));
        cluster.dinp(&args).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_package_with_its_arguments() {
        let dir = std::env::temp_dir().join(format!("dinp-samples-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join("hello.deploy"), "--runtime python\n--instances 2\n").expect("a file");
        std::fs::write(dir.join("hello.tar.gz"), "").expect("a file");
        let samples = find(&dir);
        std::fs::remove_dir_all(&dir).expect("the directory goes");
        let samples = samples.expect("the samples");
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].app, "hello");
        assert_eq!(samples[0].arguments, ["--runtime", "python", "--instances", "2"]);
    }
}
