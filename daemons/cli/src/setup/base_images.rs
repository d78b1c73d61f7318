//! Root file systems of base images, made here from packages of the machine's own distribution.

use super::error::SetupError;
use super::step::{State, Step, Steps, Task};
use super::system::run;
use std::path::Path;

/// What the images of the runtimes that come with the builder are made of; `build` in it makes them.
const DEFINITIONS: &str = "/usr/share/dinp/base-images";
/// What an operator's own are made of.
const OWN: &str = "/etc/dinp/base-images";
/// Where they are once they are made.
pub const MADE: &str = "/var/lib/dinp/base-images";

/// One step for each image that is defined, or for those that are named.
pub async fn steps(only: &[String]) -> Result<Steps, SetupError> {
    let missing = |what: &str, package: &str| {
        Err(SetupError::Refused(format!("{what} is missing, which makes base images: apt-get install {package}")))
    };
    let build = format!("{DEFINITIONS}/build");
    if !Path::new(&build).exists() {
        return missing(&build, "dinp-builder");
    }
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        return missing("mmdebstrap", "mmdebstrap");
    }
    let names = run(&build, &["--definitions", OWN, "--list"], None).await?;
    if let Some(unknown) = only.iter().find(|only| !names.lines().any(|name| name == *only)) {
        let known = names.lines().collect::<Vec<_>>().join(", ");
        return Err(SetupError::Refused(format!("no base image is called {unknown}; there are: {known}")));
    }
    let wanted = names.lines().filter(|name| only.is_empty() || only.iter().any(|only| only == name));
    Ok(wanted.map(|name| Box::new(RootFileSystem(name.to_owned())) as Box<dyn Step>).collect())
}

struct RootFileSystem(String);

impl RootFileSystem {
    async fn build(&self, option: Option<&str>) -> Result<String, SetupError> {
        let mut arguments = vec!["--definitions", OWN];
        arguments.extend(option);
        arguments.extend([MADE, &self.0]);
        run(&format!("{DEFINITIONS}/build"), &arguments, None).await
    }
}

impl Step for RootFileSystem {
    fn name(&self) -> String {
        format!("{MADE}/{}.tar", self.0)
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let stale = self.build(Some("--stale")).await?;
            Ok(if stale.trim().is_empty() { State::Ok } else { State::due("made of the distribution's packages") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            eprintln!("making {} of the distribution's packages, which takes a while", self.0);
            self.build(None).await.map(drop)
        })
    }
}
