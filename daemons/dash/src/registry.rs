//! Which image a name stands for, and whose it is: what is deployed is always named by digest, and is known to exist.

use crate::{Caller, Dash, permissions};
use dinp_common::config::{RegistryAccount, RegistryConfig};
use dinp_common::error::ErrorChain;
use dinp_common::model::{ImageRef, PLATFORM_OWNER};
use dinp_common::problem::Problem;
use dinp_common::store::names;
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Longest wait for the registry.
const LIMIT: Duration = Duration::from_secs(8);
/// Largest manifest that is read to compute its digest.
const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// The kinds of manifest that nodes can pull.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// The registries that images may come from.
pub(crate) struct Registry {
    http: reqwest::Client,
    own: String,
    others: Vec<String>,
    account: Option<RegistryAccount>,
    scheme: &'static str,
}

impl Registry {
    /// The cluster's own registry with the account to read, and others without one.
    pub(crate) fn new(config: &RegistryConfig, account: Option<RegistryAccount>, others: &[String]) -> Self {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(LIMIT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without TLS can always be built");
        let scheme = if config.insecure { "http" } else { "https" };
        Self { http, own: config.address.clone(), others: others.to_vec(), account, scheme }
    }

    /// The same image by digest. The name is checked against the list of registries and the registry is asked.
    pub(crate) async fn resolve(&self, image: &ImageRef) -> Result<ImageRef, Problem> {
        let registry = image.registry();
        if registry != self.own && !self.others.iter().any(|other| other == registry) {
            let detail =
                format!("images of the registry {registry} are not allowed; this cluster takes them from {}", self.own);
            return Err(refuse("registry-not-allowed", detail));
        }
        let response = self.manifest(Method::HEAD, image).await?;
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(no_such_image(image)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                tracing::error!(registry, status = status.as_u16(), "registry refuses the account of dash");
                let detail =
                    format!("the registry {registry} refuses the account of dash ({status}); an operator can help");
                return Err(Problem::new(StatusCode::BAD_GATEWAY, "registry-refused", detail));
            }
            other => {
                let detail =
                    format!("the registry {registry} cannot say whether it has the image ({other}); try again shortly");
                return Err(Problem::unavailable("registry-unavailable", detail));
            }
        }
        if image.digest().is_some() {
            return Ok(image.clone());
        }
        let named = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let digest = match named {
            Some(digest) => digest.to_owned(),
            None => self.computed_digest(image).await?,
        };
        image.with_digest(&digest).map_err(|error| Problem::internal(&error))
    }

    async fn manifest(&self, method: Method, image: &ImageRef) -> Result<reqwest::Response, Problem> {
        let (registry, repository) = (image.registry(), image.repository());
        let url = format!("{}://{registry}/v2/{repository}/manifests/{}", self.scheme, image.reference());
        let mut request = self.http.request(method, url).header(http::header::ACCEPT, ACCEPT);
        if registry == self.own
            && let Some(account) = &self.account
        {
            request = request.basic_auth(&account.user, Some(account.password.expose()));
        }
        request.send().await.map_err(|error| {
            tracing::warn!(registry, error = %ErrorChain(&error), "registry cannot be asked");
            let detail = format!(
                "the registry {registry} cannot be reached now, and so nobody can say whether it has the \
                                  image; try again shortly"
            );
            Problem::unavailable("registry-unavailable", detail)
        })
    }

    /// A registry need not name the digest; then it is that of the manifest's bytes.
    async fn computed_digest(&self, image: &ImageRef) -> Result<String, Problem> {
        let response = self.manifest(Method::GET, image).await?;
        let failed = |error: reqwest::Error| Problem::internal(&error);
        let mut response = response.error_for_status().map_err(failed)?;
        let (mut hash, mut left) = (Sha256::new(), MAX_MANIFEST);
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            let too_large = || refuse("no-such-image", "the manifest of the image is too large");
            left = left.checked_sub(chunk.len()).ok_or_else(too_large)?;
            hash.update(&chunk);
        }
        Ok(format!("sha256:{}", dinp_common::auth::hex(&hash.finalize())))
    }
}

impl Dash {
    /// Refuses an image of the cluster's registry under a name that is somebody else's: a user's, a team's, one of those
    /// who are gone, or the platform's. Who put it there, a builder or some pipeline, makes no difference; who runs an
    /// image can read it.
    pub(crate) async fn require_own_image(&self, caller: &Caller, image: &ImageRef) -> Result<(), Problem> {
        let of_cluster = image.registry() == self.cluster.registry.address;
        let Some(owner) = image.owner().filter(|_| of_cluster) else { return Ok(()) };
        if permissions::may_run_images_of(&caller.user, owner) {
            return Ok(());
        }
        if owner == PLATFORM_OWNER || names::holder(&mut self.conn().await?, owner).await?.is_some() {
            return Err(no_such_image(image));
        }
        Ok(())
    }
}

/// What is said of an image that is not there.
fn no_such_image(image: &ImageRef) -> Problem {
    let tag = if image.digest().is_some() { "@" } else { ":" };
    let (registry, repository, reference) = (image.registry(), image.repository(), image.reference());
    refuse("no-such-image", format!("the registry {registry} has no image {repository}{tag}{reference}"))
}

fn refuse(kind: &str, detail: impl Into<String>) -> Problem {
    crate::refuse("image", kind, detail)
}
