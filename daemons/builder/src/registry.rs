//! The registry as the builder uses it itself, by the protocol of the OCI distribution specification 1.1.
//!
//! Images are looked up where nodes pull, and written where images are pushed.

use bytes::Bytes;
use dinp_common::config::{RegistryAccount, RegistryConfig};
use dinp_common::model::ImageRef;
use futures_util::Stream;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use reqwest::{Body, Client, RequestBuilder, Response};
use std::io;
use std::time::Duration;
use url::Url;

/// Time for an answer that takes no time.
const QUICK: Duration = Duration::from_secs(10);
/// Longest silence while much is sent or received.
pub const SILENCE: Duration = Duration::from_secs(30);
/// How often what can be asked again is asked, and the first wait between; each is twice the last.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Manifests of one image.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Manifests that name one for each platform.
const LISTS: &str =
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// What went wrong at the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached.
    #[error("the registry {registry} cannot be reached")]
    Away {
        /// Its address.
        registry: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// It refuses.
    #[error("the registry {registry} answered {status} to {path}")]
    Refused {
        /// Its address.
        registry: String,
        /// What it was asked for.
        path: String,
        /// Its answer.
        status: StatusCode,
    },
    /// It does not do what it says, or says what cannot be.
    #[error("the registry {registry} {problem}")]
    Nonsense {
        /// Its address.
        registry: String,
        /// What is wrong.
        problem: String,
    },
}

impl RegistryError {
    /// Whether it may be otherwise in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            // One that does not answer has had its time.
            Self::Away { source, .. } => !source.is_timeout(),
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Nonsense { .. } => false,
        }
    }
}

/// The registry.
#[derive(Debug, Clone)]
pub struct Registry {
    address: String,
    push_address: String,
    account: Option<RegistryAccount>,
    quick: Client,
    reading: Client,
    /// Whoever gives what is sent watches over its progress: a limit here would be one for all of it.
    writing: Client,
}

impl Registry {
    /// The registry of the cluster, with the builder's account.
    pub fn new(config: &RegistryConfig, account: Option<RegistryAccount>) -> Self {
        let quick = Client::builder().timeout(QUICK).build().unwrap_or_default();
        let reading = Client::builder().connect_timeout(QUICK).read_timeout(SILENCE).build().unwrap_or_default();
        let writing = Client::builder().connect_timeout(QUICK).build().unwrap_or_default();
        let (address, push_address) = (config.address.clone(), config.push_address().to_owned());
        Self { address, push_address, account, quick, reading, writing }
    }

    /// Host and port as they stand in names of images.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Host and port that images are pushed to.
    pub fn push_address(&self) -> &str {
        &self.push_address
    }

    /// The account of the builder.
    pub fn account(&self) -> Option<&RegistryAccount> {
        self.account.as_ref()
    }

    /// The digest that a tag points to; none where there is no such tag.
    pub async fn digest(&self, image: &ImageRef) -> Result<Option<String>, RegistryError> {
        let url = format!("http://{}/v2/{}/manifests/{}", image.registry(), image.repository(), image.reference());
        let request = self.quick.head(url).header(ACCEPT, format!("{DOCKER_MANIFEST}, {OCI_MANIFEST}"));
        self.digest_of(request).await
    }

    async fn digest_of(&self, request: RequestBuilder) -> Result<Option<String>, RegistryError> {
        match self.ask(request, &[StatusCode::OK, StatusCode::NOT_FOUND]).await? {
            answer if answer.status() == StatusCode::OK => {
                let digest = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
                Ok(Some(digest.unwrap_or_default().to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// A manifest and its media type, as it is stored.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<(String, Bytes), RegistryError> {
        let request = self.quick.get(self.url(repository, &format!("manifests/{reference}")));
        let request = request.header(ACCEPT, format!("{OCI_MANIFEST}, {DOCKER_MANIFEST}, {LISTS}"));
        let answer = self.ask(request, &[StatusCode::OK]).await?;
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok((kind.to_owned(), answer.bytes().await.map_err(|source| self.away(source))?))
    }

    /// A blob, to be read.
    pub async fn blob(&self, repository: &str, digest: &str) -> Result<Response, RegistryError> {
        self.ask(self.reading.get(self.url(repository, &format!("blobs/{digest}"))), &[StatusCode::OK]).await
    }

    /// Whether a repository has a blob.
    pub async fn has_blob(&self, repository: &str, digest: &str) -> Result<bool, RegistryError> {
        let request = self.quick.head(self.url(repository, &format!("blobs/{digest}")));
        let answer = self.ask(request, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
        Ok(answer.status() == StatusCode::OK)
    }

    /// Gives a repository a blob that another one has; false where that is not so.
    pub async fn mount(&self, repository: &str, digest: &str, from: &str) -> Result<bool, RegistryError> {
        let url = self.url(repository, "blobs/uploads/");
        let request = self.quick.post(url).query(&[("mount", digest), ("from", from)]);
        let answer = self.ask(request, &[StatusCode::CREATED, StatusCode::ACCEPTED]).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // The registry offers to take it from here instead.
        self.upload_of(&answer)?.abort().await;
        Ok(false)
    }

    /// Begins to store a blob.
    pub async fn upload(&self, repository: &str) -> Result<Upload, RegistryError> {
        let request = self.quick.post(self.url(repository, "blobs/uploads/"));
        self.upload_of(&self.ask(request, &[StatusCode::ACCEPTED]).await?)
    }

    /// Lets a tag point to a manifest of the OCI's kind, which names nothing that the repository lacks.
    pub async fn put_manifest(&self, repository: &str, tag: &str, manifest: Vec<u8>) -> Result<(), RegistryError> {
        let request = self.quick.put(self.url(repository, &format!("manifests/{tag}")));
        self.ask(request.header(CONTENT_TYPE, OCI_MANIFEST).body(manifest), &[StatusCode::CREATED]).await.map(drop)
    }

    /// The tags of a repository.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let request = self.quick.get(self.url(repository, "tags/list"));
        let answer = self.ask(request, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let tags: Tags = answer.json().await.map_err(|source| self.away(source))?;
        Ok(tags.tags.unwrap_or_default())
    }

    /// The digest that a reference has where images are pushed; none where there is no such one.
    pub async fn pushed(&self, repository: &str, reference: &str) -> Result<Option<String>, RegistryError> {
        let request = self.quick.head(self.url(repository, &format!("manifests/{reference}")));
        let request = request.header(ACCEPT, format!("{DOCKER_MANIFEST}, {OCI_MANIFEST}, {LISTS}"));
        self.digest_of(request).await
    }

    /// Deletes a manifest, with all tags that point to it; what it alone names is garbage then.
    pub async fn delete(&self, repository: &str, digest: &str) -> Result<(), RegistryError> {
        let request = self.quick.delete(self.url(repository, &format!("manifests/{digest}")));
        self.ask(request, &[StatusCode::ACCEPTED, StatusCode::NOT_FOUND]).await.map(drop)
    }

    fn url(&self, repository: &str, path: &str) -> String {
        format!("http://{}/v2/{repository}/{path}", self.push_address)
    }

    fn upload_of(&self, answer: &Response) -> Result<Upload, RegistryError> {
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.and_then(|location| answer.url().join(location).ok());
        // The account is for this registry alone.
        match location.filter(|location| location.origin() == answer.url().origin()) {
            Some(location) => Ok(Upload { registry: self.clone(), location }),
            None => Err(self.nonsense("does not say where it takes a blob")),
        }
    }

    /// Sends a request, again where that can help and does no harm, until one of these answers.
    async fn ask(&self, request: RequestBuilder, wanted: &[StatusCode]) -> Result<Response, RegistryError> {
        let request = self.signed(request);
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            // A body that is made while it is sent is sent once.
            let Some(again) = request.try_clone() else { break };
            match self.ask_once(again, wanted).await {
                Err(error) if error.is_passing() => tokio::time::sleep(wait).await,
                outcome => return outcome,
            }
            wait *= 2;
        }
        self.ask_once(request, wanted).await
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.account {
            Some(account) => request.basic_auth(&account.user, Some(account.password.expose())),
            None => request,
        }
    }

    async fn ask_once(&self, request: RequestBuilder, wanted: &[StatusCode]) -> Result<Response, RegistryError> {
        let answer = request.send().await.map_err(|source| self.away(source))?;
        if wanted.contains(&answer.status()) {
            return Ok(answer);
        }
        let registry = named(answer.url()).unwrap_or_else(|| self.push_address.clone());
        Err(RegistryError::Refused { registry, path: answer.url().path().to_owned(), status: answer.status() })
    }

    /// What a failed transfer means.
    pub fn away(&self, source: reqwest::Error) -> RegistryError {
        let registry = source.url().and_then(named).unwrap_or_else(|| self.push_address.clone());
        RegistryError::Away { registry, source }
    }

    /// What an answer means that cannot be.
    pub fn nonsense(&self, problem: impl Into<String>) -> RegistryError {
        RegistryError::Nonsense { registry: self.push_address.clone(), problem: problem.into() }
    }
}

/// Host and port of a URL, as registries are named.
fn named(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// A blob that is being stored: nobody sees it before it is whole.
#[derive(Debug)]
pub struct Upload {
    registry: Registry,
    location: Url,
}

impl Upload {
    /// Sends all of it, whatever it will be.
    pub async fn send(
        &mut self,
        content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), RegistryError> {
        let request = self.registry.writing.request(Method::PATCH, self.location.clone());
        let request = request.header(CONTENT_TYPE, "application/octet-stream").body(Body::wrap_stream(content));
        let answer = self.registry.ask(request, &[StatusCode::ACCEPTED]).await?;
        self.location = self.registry.upload_of(&answer)?.location;
        Ok(())
    }

    /// Says that what was sent, and this, is all of the blob.
    pub async fn finish(self, rest: Bytes, digest: &str) -> Result<(), RegistryError> {
        let mut location = self.location;
        location.query_pairs_mut().append_pair("digest", digest);
        let request = self.registry.writing.put(location).header(CONTENT_TYPE, "application/octet-stream").body(rest);
        // Once: a registry that has taken it, and whose answer was lost, knows no such upload any more.
        self.registry.ask_once(self.registry.signed(request), &[StatusCode::CREATED]).await.map(drop)
    }

    /// Forgets it; a registry that does not hear of that forgets it by and by.
    pub async fn abort(self) {
        let request = self.registry.quick.delete(self.location);
        let wanted = [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND, StatusCode::ACCEPTED];
        if let Err(error) = self.registry.ask(request, &wanted).await {
            tracing::debug!(error = %dinp_common::error::ErrorChain(&error), "an upload is left to the registry");
        }
    }
}
