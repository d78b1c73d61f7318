//! The registry, as far as the builder asks it itself: is a tag taken, and what does it point to. It asks where nodes pull.

use dinp_common::config::{RegistryAccount, RegistryConfig};
use dinp_common::model::ImageRef;
use http::StatusCode;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Manifests that the Engine pushes.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";

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
    #[error("the registry {registry} answered {status}")]
    Refused {
        /// Its address.
        registry: String,
        /// Its answer.
        status: StatusCode,
    },
}

/// The registry.
#[derive(Debug, Clone)]
pub struct Registry {
    address: String,
    push_address: String,
    account: Option<RegistryAccount>,
    client: reqwest::Client,
}

impl Registry {
    /// The registry of the cluster, with the builder's account.
    pub fn new(config: &RegistryConfig, account: Option<RegistryAccount>) -> Self {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().unwrap_or_default();
        Self { address: config.address.clone(), push_address: config.push_address().to_owned(), account, client }
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
        let registry = || self.address.clone();
        let url = format!("http://{}/v2/{}/manifests/{}", image.registry(), image.repository(), image.reference());
        let mut request = self.client.head(url).header(http::header::ACCEPT, ACCEPT);
        if let Some(account) = &self.account {
            request = request.basic_auth(&account.user, Some(account.password.expose()));
        }
        let answer = request.send().await.map_err(|source| RegistryError::Away { registry: registry(), source })?;
        match answer.status() {
            StatusCode::OK => {
                let digest = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
                Ok(Some(digest.unwrap_or_default().to_owned()))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(RegistryError::Refused { registry: registry(), status }),
        }
    }
}
