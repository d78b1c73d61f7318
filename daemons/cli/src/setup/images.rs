//! Base images of the builder's runtimes: root file systems that its `build` made, imported into this
//! machine's Docker Engine and pushed to the registry.

use super::error::SetupError;
use super::files::HEAD;
use super::registry;
use super::step::{State, Step, Steps, Task};
use super::system::{self, Access, run};
use super::units::Unit;
use base64::Engine as _;
use dinp_common::config::{DEFAULT_DIR, NoConfig, load};
use serde_json::json;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What an image was made of, so that an unchanged one is known again.
const STAMP: &str = "dinp.base.stamp";

/// For each root file system of a directory, or those that are named: its image in the registry, and its digest where the
/// builder reads it.
pub fn steps(directory: &Path, only: &[String]) -> Result<Steps, SetupError> {
    let registry = load::<NoConfig>(Path::new(DEFAULT_DIR), "cli")?.cluster.registry.push_address().to_owned();
    let refused = |what: &str| {
        SetupError::Refused(format!("{} {what}: fill it with /usr/share/dinp/base-images/build", directory.display()))
    };
    let suite = system::read(&directory.join("suite"))?.ok_or_else(|| refused("holds no file `suite`"))?;
    let mut images: Vec<Image> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(SetupError::file("read", directory))? {
        let path = entry.map_err(SetupError::file("read", directory))?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        let is_wanted = only.is_empty() || only.iter().any(|only| only == name);
        if is_wanted && path.extension().is_some_and(|extension| extension == "tar") {
            let repository = format!("dinp/{name}");
            let reference = format!("{registry}/{repository}:{}", suite.trim());
            let drop_in = PathBuf::from(format!("{DEFAULT_DIR}/builder.toml.d/20-setup-{name}.toml"));
            images.push(Image { registry: registry.clone(), reference, repository, path, drop_in });
        }
    }
    if images.is_empty() {
        return Err(refused("holds no root file system (*.tar)"));
    }
    images.sort_by(|a, b| a.reference.cmp(&b.reference));
    let drop_ins: Vec<PathBuf> = images.iter().map(|image| image.drop_in.clone()).collect();
    let mut steps: Steps = Vec::new();
    for image in images {
        steps.push(Box::new(image.clone()));
        steps.push(Box::new(Pinned { image }));
    }
    steps.push(Unit::on_demand("dinp-builder.service", drop_ins));
    Ok(steps)
}

#[derive(Clone)]
struct Image {
    registry: String,
    reference: String,
    repository: String,
    path: PathBuf,
    drop_in: PathBuf,
}

impl Image {
    /// What the file was made of; without such a note its size and time.
    fn stamp(&self) -> Result<String, SetupError> {
        if let Some(stamp) = system::read(&self.path.with_extension("stamp"))? {
            return Ok(stamp.trim().to_owned());
        }
        let meta = std::fs::metadata(&self.path).map_err(SetupError::file("look at", &self.path))?;
        let changed = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(format!("{}-{}", meta.len(), changed.unwrap_or_default().as_millis()))
    }

    /// Stamp and digest of the image that this machine's engine has under the name.
    async fn local(&self) -> Option<(String, Option<String>)> {
        let format = format!("{{{{index .Config.Labels \"{STAMP}\"}}}} {{{{json .RepoDigests}}}}");
        let text = run("docker", &["image", "inspect", "--format", &format, &self.reference], None).await.ok()?;
        let (stamp, digests) = text.trim().split_once(' ')?;
        let digests: Vec<String> = serde_json::from_str(digests).unwrap_or_default();
        let repository = self.reference.rsplit_once(':').map_or(self.reference.as_str(), |(repository, _)| repository);
        let digest =
            digests.iter().find_map(|digest| digest.strip_prefix(repository)?.strip_prefix('@').map(str::to_owned));
        Some((stamp.to_owned(), digest))
    }

    /// Digest that the registry has under the tag.
    async fn remote(&self) -> Result<Option<String>, SetupError> {
        let refused = |what: String| SetupError::Refused(format!("the registry {} {what}", self.registry));
        let (user, password) = registry::account(registry::PUSH.1)?;
        let tag = self.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build();
        let client = client.map_err(|error| refused(error.to_string()))?;
        let answer = client
            .head(format!("http://{}/v2/{}/manifests/{tag}", self.registry, self.repository))
            .header("accept", "application/vnd.docker.distribution.manifest.v2+json")
            .basic_auth(user, Some(password.expose()))
            .send()
            .await
            .map_err(|_| refused("does not answer: systemctl status docker-registry".into()))?;
        match answer.status().as_u16() {
            200 => Ok(answer.headers().get("docker-content-digest").and_then(|d| d.to_str().ok()).map(str::to_owned)),
            404 => Ok(None),
            status => Err(refused(format!("answers {status}"))),
        }
    }

    async fn import(&self) -> Result<(), SetupError> {
        let changes = system::read(&self.path.with_extension("import"))?.unwrap_or_default();
        let mut arguments = vec!["import".to_owned()];
        for change in changes.lines().filter(|line| !line.trim().is_empty()) {
            arguments.extend(["--change".to_owned(), change.to_owned()]);
        }
        arguments.extend(["--change".to_owned(), format!("LABEL {STAMP}={}", self.stamp()?)]);
        arguments.extend([self.path.display().to_string(), self.reference.clone()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run("docker", &arguments, None).await.map(drop)
    }

    /// Pushes with an account that only this call knows, so that nothing is left in root's own Docker settings.
    async fn push(&self) -> Result<(), SetupError> {
        let (user, password) = registry::account(registry::PUSH.1)?;
        let account = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose()));
        let settings = json!({ "auths": { &self.registry: { "auth": account } } }).to_string();
        let directory = PathBuf::from(format!("/run/dinp-setup-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&directory)
            .map_err(SetupError::file("create directory", &directory))?;
        let file = directory.join("config.json");
        let writing = || -> std::io::Result<()> {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file)?;
            std::io::Write::write_all(&mut file, settings.as_bytes())
        };
        let outcome = match writing().map_err(SetupError::file("write", &file)) {
            Ok(()) => {
                let place = directory.display().to_string();
                run("docker", &["--config", &place, "push", "--quiet", &self.reference], None).await.map(drop)
            }
            Err(error) => Err(error),
        };
        std::fs::remove_dir_all(&directory).map_err(SetupError::file("remove", &directory))?;
        outcome
    }
}

impl Step for Image {
    fn name(&self) -> String {
        self.reference.clone()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            match self.local().await {
                Some((stamp, digest)) if stamp == self.stamp()? => {
                    let there = digest.is_some() && digest == self.remote().await?;
                    Ok(if there { State::Ok } else { State::due("push") })
                }
                _ => Ok(State::due("import and push")),
            }
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let stamp = self.stamp()?;
            if self.local().await.is_none_or(|(found, _)| found != stamp) {
                self.import().await?;
            }
            self.push().await
        })
    }
}

/// Later builds stand on the image that was pushed here, whatever its tag is made to point to.
struct Pinned {
    image: Image,
}

impl Pinned {
    async fn text(&self) -> Result<String, SetupError> {
        let Image { reference, registry, .. } = &self.image;
        let local = self.image.local().await.and_then(|(_, digest)| digest);
        let digest =
            local.ok_or_else(|| SetupError::Refused(format!("{reference} has no digest: it was not pushed")))?;
        Ok(pin(reference, registry, &digest))
    }
}

fn pin(reference: &str, registry: &str, digest: &str) -> String {
    let name = reference.strip_prefix(registry).map_or(reference, |name| name.trim_start_matches('/'));
    format!("{HEAD}[bases]\n\"{name}\" = \"{digest}\"\n")
}

impl Step for Pinned {
    fn name(&self) -> String {
        self.image.drop_in.display().to_string()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let text = self.text().await?;
            let same = system::read(&self.image.drop_in)?.is_some_and(|found| found == text);
            Ok(if same { State::Ok } else { State::due("digest of the base image") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { system::write(&self.image.drop_in, &self.text().await?, Access::CONFIG) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_reads_the_digest_by_repository_and_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let text = pin("10.0.0.1:5001/dinp/base-python:bookworm", "10.0.0.1:5001", &digest);
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["bases"]["dinp/base-python:bookworm"].as_str(), Some(digest.as_str()));
    }
}
