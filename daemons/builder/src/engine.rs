//! The local Docker Engine: build, push, and leave nothing behind.

use crate::config::BuildConfig;
use bollard::errors::Error as DockerError;
use bollard::models::ProgressDetail;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder, PruneImagesOptionsBuilder,
    PushImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker, auth::DockerCredentials, body_try_stream};
use bytes::Bytes;
use dinp_common::auth::hex;
use dinp_common::config::RegistryAccount;
use dinp_common::model::ImageRef;
use futures_util::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long the Engine may take for what takes no time.
const QUICK: Duration = Duration::from_secs(20);
/// From one try to clean up to the next.
const CLEAN_AGAIN: Duration = Duration::from_millis(200);
const CPU_PERIOD: u64 = 100_000;

/// What went wrong at the Engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It cannot be reached.
    #[error("the Docker Engine cannot be reached")]
    Away(#[source] DockerError),
    /// The build failed: a base that is not there, an instruction that ended badly.
    #[error("the build failed: {0}")]
    Build(String),
    /// The image was built and could not be pushed.
    #[error("the image was built, but could not be pushed to the registry: {0}")]
    Push(String),
    /// Something else.
    #[error("{act} at the Docker Engine")]
    Call {
        /// What was tried.
        act: &'static str,
        /// The Engine's answer.
        #[source]
        source: DockerError,
    },
}

/// What tells this builder's images from those of others at the same Engine: a local repository whose tags are ids
/// of builds, and a label.
#[derive(Debug, Clone)]
pub struct Scope(String);

impl Scope {
    /// The scope of a builder.
    pub fn new(registry: &str, builder: &str) -> Self {
        let hash = Sha256::digest(format!("{registry} {builder}").as_bytes());
        Self(format!("dinp-build-{}", hex(&hash[..6])))
    }

    /// Labels of everything that belongs to a build.
    pub fn labels(&self, build: u64) -> [(&'static str, String); 2] {
        [(LABEL_BUILDER, self.0.clone()), (LABEL_BUILD, build.to_string())]
    }

    fn image(&self, build: u64) -> String {
        format!("{}:{build}", self.0)
    }
}

const LABEL_BUILDER: &str = "dinp.image.builder";
const LABEL_BUILD: &str = "dinp.image.build";

/// A connection to the Engine.
#[derive(Debug, Clone)]
pub struct Engine {
    scope: Scope,
    docker: Docker,
    /// For calls that last: no limit but that of the build.
    patient: Docker,
}

/// What one build needs.
pub struct BuildRequest<'a> {
    /// The build's id.
    pub id: u64,
    /// Limits of its containers.
    pub limits: &'a BuildConfig,
    /// Whether instructions may use the network.
    pub network: bool,
    /// The registry that bases come from, and the account there.
    pub registry: (&'a str, Option<&'a RegistryAccount>),
    /// What the image is labelled with, whatever its Dockerfile says.
    pub labels: Vec<(&'static str, String)>,
    /// Values of arguments that its Dockerfile may ask for.
    pub arguments: Vec<(&'static str, String)>,
}

/// Takes the lines of a log.
pub trait Log {
    /// A piece of text, with its own line ends.
    fn write(&self, text: &str);
}

impl Engine {
    /// Connects and agrees on a version of the API.
    pub async fn connect(socket: &Path, scope: Scope, longest: Duration) -> Result<Self, EngineError> {
        let path = socket.to_string_lossy();
        let docker =
            Docker::connect_with_unix(&path, QUICK.as_secs(), API_DEFAULT_VERSION).map_err(EngineError::Away)?;
        let docker = docker.negotiate_version().await.map_err(EngineError::Away)?;
        let patient = docker.clone().with_timeout(longest);
        Ok(Self { scope, docker, patient })
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), EngineError> {
        self.docker.ping().await.map(drop).map_err(EngineError::Away)
    }

    /// Builds an image from a context; the error is that of the build, wherever it showed.
    pub async fn build(
        &self,
        request: &BuildRequest<'_>,
        context: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        log: &impl Log,
    ) -> Result<(), EngineError> {
        let parent = self.cgroup_parent(&request.limits.slice).await?;
        let map = |pairs: &[(&'static str, String)]| -> HashMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let options = BuildImageOptionsBuilder::new()
            .labels(&map(&request.labels))
            .buildargs(&map(&request.arguments))
            .dockerfile("Dockerfile")
            .t(&self.scope.image(request.id))
            .pull("1")
            .rm(true)
            .forcerm(true)
            .networkmode(if request.network { "default" } else { "none" })
            .build();
        let (registry, account) = request.registry;
        let accounts = account.map(|account| HashMap::from([(registry.to_owned(), credentials(registry, account))]));
        let docker = limited(&self.patient, request.limits, &parent);
        let mut stream = Box::pin(docker.build_image(options, accounts, Some(body_try_stream(context))));
        let mut built = false;
        while let Some(info) = stream.next().await {
            let info = info.map_err(build_failed)?;
            if let Some(detail) = info.error_detail {
                return Err(EngineError::Build(detail.message.unwrap_or_else(|| "no reason given".into())));
            }
            built |= info.aux.is_some_and(|aux| aux.id.is_some());
            if let Some(text) = info.stream {
                log.write(&text);
            }
            if let Some(line) = status_line(info.id, info.status, info.progress_detail.as_ref()) {
                log.write(&line);
            }
        }
        if !built {
            return Err(EngineError::Build("the Engine ended it without an image".into()));
        }
        self.check_size(request).await
    }

    /// Refuses an image that is too large: what a Dockerfile makes is no part of the package, which is bounded by itself.
    async fn check_size(&self, request: &BuildRequest<'_>) -> Result<(), EngineError> {
        let act = "look at the image";
        let image = self.docker.inspect_image(&self.scope.image(request.id)).await;
        let image = image.map_err(|source| EngineError::Call { act, source })?;
        let refused = |detail: String| Err(EngineError::Build(detail));
        let Some(bytes) = image.size.and_then(|size| u64::try_from(size).ok()) else {
            return refused("the Engine does not say how large the image is".into());
        };
        let (has, most) = (bytes.div_ceil(1 << 20), u64::from(request.limits.image_max_mb));
        if has > most {
            return refused(format!(
                "the image has {has} MiB, more than the {most} that it may have (build.image_max_mb)"
            ));
        }
        Ok(())
    }

    /// Pushes what a build made to a registry, by repository and tag of its name; returns the digest that it has there.
    pub async fn push(
        &self,
        id: u64,
        image: &ImageRef,
        (registry, account): (&str, Option<&RegistryAccount>),
        log: &impl Log,
    ) -> Result<String, EngineError> {
        let repository = format!("{registry}/{}", image.repository());
        let tag = image.reference();
        let name = TagImageOptionsBuilder::new().repo(&repository).tag(tag).build();
        let act = "name the image";
        let tagged = self.docker.tag_image(&self.scope.image(id), Some(name)).await;
        tagged.map_err(|source| EngineError::Call { act, source })?;
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        // The Engine demands the header, also where there is no account.
        let account = account.map_or_else(DockerCredentials::default, |account| credentials(registry, account));
        let mut stream = Box::pin(self.patient.push_image(&repository, Some(options), Some(account)));
        let mut digest = None;
        while let Some(info) = stream.next().await {
            let info = info.map_err(|error| EngineError::Push(said(error)))?;
            if let Some(detail) = info.error_detail {
                return Err(EngineError::Push(detail.message.unwrap_or_else(|| "no reason given".into())));
            }
            if let Some(line) = status_line(None, info.status, info.progress_detail.as_ref()) {
                digest = pushed_digest(&line).or(digest);
                log.write(&line);
            }
        }
        digest.ok_or_else(|| EngineError::Push("the Engine ended the push without a digest".into()))
    }

    /// Removes the names of a build's image, and what is left of it and of intermediate images. A build that was
    /// cut off ends a little later than its request.
    pub async fn clean(&self, id: u64) {
        self.untag(&self.scope.image(id)).await;
        loop {
            self.prune(&self.scope.labels(id)).await;
            if !self.is_left(&self.scope.labels(id)).await {
                return;
            }
            tokio::time::sleep(CLEAN_AGAIN).await;
        }
    }

    /// Removes what builds left that were cut off: no other build may run.
    pub async fn clean_all(&self) {
        let filters = HashMap::from([("reference".to_owned(), vec![self.scope.0.clone()])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        match self.docker.list_images(Some(options)).await {
            Ok(images) => {
                for image in images {
                    for tag in image.repo_tags.iter().filter(|tag| tag.starts_with(&self.scope.0)) {
                        self.untag(tag).await;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "images of earlier builds cannot be listed"),
        }
        self.prune(&self.scope.labels(0)[..1]).await;
    }

    /// Removes all names of the image that has this one.
    async fn untag(&self, name: &str) {
        let Ok(image) = self.docker.inspect_image(name).await else { return };
        for tag in image.repo_tags.unwrap_or_default() {
            let options = RemoveImageOptionsBuilder::new().build();
            if let Err(error) = self.docker.remove_image(&tag, Some(options), None).await {
                tracing::warn!(%error, image = tag, "image of a build cannot be removed");
            }
        }
    }

    /// Removes images that have neither name nor digest, of this builder alone.
    async fn prune(&self, labels: &[(&'static str, String)]) {
        let filters = dangling(labels);
        let options = PruneImagesOptionsBuilder::new().filters(&filters).build();
        if let Err(error) = self.docker.prune_images(Some(options)).await {
            tracing::warn!(%error, "intermediate images of a build cannot be removed");
        }
    }

    /// Whether a container or a nameless image of a build is still there.
    async fn is_left(&self, labels: &[(&'static str, String)]) -> bool {
        let containers = HashMap::from([("label".to_owned(), words(labels))]);
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&containers).build();
        let images = ListImagesOptionsBuilder::new().filters(&dangling(labels)).build();
        let containers = self.docker.list_containers(Some(containers)).await;
        let images = self.docker.list_images(Some(images)).await;
        matches!((containers, images), (Ok(containers), Ok(images)) if !containers.is_empty() || !images.is_empty())
    }

    /// The cgroup of builds in the words of the Engine's driver.
    async fn cgroup_parent(&self, slice: &str) -> Result<String, EngineError> {
        if slice.is_empty() {
            return Ok(String::new());
        }
        let act = "ask for the cgroup driver";
        let info = self.docker.info().await.map_err(|source| EngineError::Call { act, source })?;
        let is_systemd = info.cgroup_driver.is_some_and(|driver| driver.to_string() == "systemd");
        Ok(if is_systemd { slice.to_owned() } else { slice_path(slice) })
    }
}

fn words(labels: &[(&'static str, String)]) -> Vec<String> {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn dangling(labels: &[(&'static str, String)]) -> HashMap<String, Vec<String>> {
    HashMap::from([("dangling".to_owned(), vec!["true".to_owned()]), ("label".to_owned(), words(labels))])
}

/// Where systemd puts a slice: `a-b.slice` is `/a.slice/a-b.slice`.
fn slice_path(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.map(|end| format!("/{}.slice", &name[..end])).collect()
}

/// The limits as query parameters of the build: bollard knows some of them in too small a type, and others not.
fn limited(docker: &Docker, limits: &BuildConfig, cgroup_parent: &str) -> Docker {
    let memory = u64::from(limits.memory_mb) << 20;
    let quota = u64::from(limits.cpu_millis) * CPU_PERIOD / 1000;
    let mut query = format!("&memory={memory}&memswap={memory}&cpuperiod={CPU_PERIOD}&cpuquota={quota}");
    if !cgroup_parent.is_empty() {
        query += &format!("&cgroupparent={}", cgroup_parent.replace('/', "%2F"));
    }
    docker.clone().with_request_modifier(move |request| with_query(request, &query))
}

fn with_query(mut request: BollardRequest, query: &str) -> BollardRequest {
    if let Ok(uri) = format!("{}{query}", request.uri()).parse() {
        *request.uri_mut() = uri;
    }
    request
}

fn credentials(registry: &str, account: &RegistryAccount) -> DockerCredentials {
    DockerCredentials {
        username: Some(account.user.clone()),
        password: Some(account.password.expose().to_owned()),
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    }
}

/// What the Engine says, without the client's own words around it.
fn said(error: DockerError) -> String {
    match error {
        DockerError::DockerStreamError { error } => error,
        DockerError::DockerResponseServerError { message, .. } => message,
        other => dinp_common::error::ErrorChain(&other).to_string(),
    }
}

fn build_failed(error: DockerError) -> EngineError {
    match error {
        DockerError::DockerStreamError { .. } | DockerError::DockerResponseServerError { .. } => {
            EngineError::Build(said(error))
        }
        other => EngineError::Call { act: "build", source: other },
    }
}

/// A status as a line of the log; progress bars are left out.
fn status_line(id: Option<String>, status: Option<String>, progress: Option<&ProgressDetail>) -> Option<String> {
    let is_progress = progress.is_some_and(|detail| detail.total.is_some() || detail.current.is_some());
    let status = status.filter(|_| !is_progress)?;
    Some(id.map_or_else(|| format!("{status}\n"), |id| format!("{id}: {status}\n")))
}

/// The digest in the last line of a push: `v1: digest: sha256:... size: 1234`.
fn pushed_digest(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("digest: ")?;
    rest.split_whitespace().next().filter(|digest| digest.starts_with("sha256:")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_have_their_parents() {
        assert_eq!(slice_path("dinp-build.slice"), "/dinp.slice/dinp-build.slice");
        let containers = "/dinp.slice/dinp-build.slice/dinp-build-containers.slice";
        assert_eq!(slice_path("dinp-build-containers.slice"), containers);
        assert_eq!(slice_path("x.slice"), "/x.slice");
    }

    #[tokio::test]
    async fn an_image_has_no_more_than_is_allowed() {
        let dir = dinp_common::testing::TestDir::new("engine");
        let socket = dir.path().join("docker.sock");
        // An Engine whose images have two MiB, and one byte more or none that it speaks of.
        let played = axum::Router::new().fallback(async |uri: axum::http::Uri| {
            let size = match uri.path().rsplit(':').next() {
                Some("1/json") => Some(2 << 20),
                Some("2/json") => Some((2 << 20) + 1),
                _ => None,
            };
            axum::Json(serde_json::json!({"ApiVersion": "1.41", "Id": "sha256:x", "Size": size}))
        });
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, played).await });
        let engine = Engine::connect(&socket, Scope::new("registry", "builder1"), QUICK).await.unwrap();
        let limits = BuildConfig { image_max_mb: 2, ..BuildConfig::default() };
        let checked = async |id| {
            let (labels, arguments) = (Vec::new(), Vec::new());
            let request =
                BuildRequest { id, limits: &limits, network: false, registry: ("registry", None), labels, arguments };
            engine.check_size(&request).await.map_err(|error| error.to_string())
        };
        assert_eq!(checked(1).await, Ok(()));
        let detail = "the image has 3 MiB, more than the 2 that it may have (build.image_max_mb)";
        assert_eq!(checked(2).await, Err(format!("the build failed: {detail}")));
        assert!(checked(3).await.unwrap_err().contains("does not say how large"));
    }

    #[test]
    fn the_digest_of_a_push_is_found() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(pushed_digest(&format!("v1: digest: {digest} size: 12\n")), Some(digest));
        assert_eq!(pushed_digest("Pushed\n"), None);
    }
}
