//! Images without the Docker Engine: the package as one layer on the base, straight into the registry.
//!
//! ```text
//! rendered template -> Plan (or: left to the Engine) -> Base: manifest, configuration, where the package goes
//!   -> Layer: tar -> members -> one upload, its digest known at its end -> configuration -> manifest -> tag
//! ```
//!
//! The base costs its manifest, its configuration and a mount of each of its layers. A tag is written last: it points to
//! what is whole, or is not there.

mod base;
mod cache;
pub(crate) mod dockerfile;
mod layer;

pub(crate) use base::Base;
pub(crate) use cache::Cache;

use crate::context::Placed;
use crate::package::{Package, PackageError};
use crate::registry::{OCI_MANIFEST, Registry, RegistryError, Upload};
use base::{BaseError, Descriptor, OCI_CONFIG, OCI_GZIP};
use bytes::Bytes;
use dinp_common::auth::hex;
use dinp_common::model::ImageRef;
use dockerfile::Plan;
use futures_util::future::try_join_all;
use layer::{Layer, LayerError, Making};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io;
use std::pin::pin;

/// Part of every key of the cache: another number where the same package would give other bytes.
const FORMAT: u32 = 1;
/// How often what did not get through is sent.
const TRIES: u32 = 3;

/// Why an image is made by the Engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LeftToEngine(String);

impl LeftToEngine {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Why an image was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectError {
    /// The Engine is to make it.
    #[error(transparent)]
    Left(#[from] LeftToEngine),
    /// The registry was in the way.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The package could not be read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Something on this machine was.
    #[error("{act}")]
    Local {
        /// What was tried.
        act: &'static str,
        #[source]
        source: io::Error,
    },
}

impl From<BaseError> for DirectError {
    fn from(error: BaseError) -> Self {
        match error {
            BaseError::Left(left) => Self::Left(left),
            BaseError::Registry(error) => Self::Registry(error),
            BaseError::Read(source) => Self::Local { act: "read the base image", source },
        }
    }
}

/// What is to be made of what.
pub(crate) struct Direct<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) cache: &'a Cache,
    /// By digest.
    pub(crate) base: &'a ImageRef,
    pub(crate) dockerfile: &'a str,
    pub(crate) image: &'a ImageRef,
}

/// An image that was made this way before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    /// The image, by digest.
    pub image: ImageRef,
    /// What it stands on, by digest.
    pub base: ImageRef,
}

/// An image whose parts are all in its repository, and which has no tag yet.
#[derive(Debug)]
pub(crate) struct Made {
    manifest: Vec<u8>,
    /// Whether the layer was there already.
    pub(crate) was_known: bool,
    pub(crate) layer_bytes: u64,
}

/// A layer that was made, and where.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    layer: Layer,
    repository: String,
}

impl Direct<'_> {
    /// Makes the image of a package. Nothing is sent before it is clear that the Engine need not make it.
    pub(crate) async fn make(&self, package: &Package) -> Result<Made, DirectError> {
        let plan = Plan::parse(self.dockerfile)?;
        let base = Base::fetch(self.registry, self.base).await?;
        let place = base.place(self.registry, &plan, self.cache).await?;
        let repository = self.image.repository();
        try_join_all(base.layers.iter().map(|layer| self.mount(&base.repository, &layer.digest))).await?;

        // Also by what the package is taken for: of the same bytes other rules could make another layer.
        let key = format!("{FORMAT} {} {} {place:?}", package.format, package.spooled.sha256());
        let known = self.known(&key).await?;
        let was_known = known.is_some();
        let layer = match known {
            Some(layer) => layer,
            None => self.send(package, &place).await?,
        };
        self.cache.put("layer", &key, &Known { layer: layer.clone(), repository: repository.to_owned() });

        self.assemble(&plan, base, layer, was_known).await
    }

    /// Makes the image of an older one's package: its layer on this base, if it would be the same.
    pub(crate) async fn swap(&self, old: &Old) -> Result<Made, DirectError> {
        let plan = Plan::parse(self.dockerfile)?;
        let (base, old_base) =
            (Base::fetch(self.registry, self.base).await?, Base::fetch(self.registry, &old.base).await?);
        let place = base.place(self.registry, &plan, self.cache).await?;
        if place != old_base.place(self.registry, &plan, self.cache).await? {
            return Err(LeftToEngine::new("the new base has other directories on the way to the package").into());
        }
        let image = Base::fetch(self.registry, &old.image).await?;
        let diff_ids =
            image.config.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")?.as_array()?.last()?.as_str());
        let (Some([layer]), Some(diff_id)) = (image.layers.strip_prefix(&old_base.layers[..]), diff_ids) else {
            return Err(LeftToEngine::new("the image is not its base and one layer").into());
        };
        try_join_all(base.layers.iter().map(|layer| self.mount(&base.repository, &layer.digest))).await?;
        self.mount(&image.repository, &layer.digest).await?;
        let layer = Layer { digest: layer.digest.clone(), size: layer.size, diff_id: diff_id.to_owned() };
        self.assemble(&plan, base, layer, true).await
    }

    async fn assemble(&self, plan: &Plan, base: Base, layer: Layer, was_known: bool) -> Result<Made, DirectError> {
        let config = plan.apply(&base.config, &layer.diff_id);
        let config = serde_json::to_vec(&config).map_err(|error| DirectError::Local {
            act: "write the configuration of the image",
            source: error.into(),
        })?;
        let config_digest = digest(&config);
        let config_size = config.len() as u64;
        self.store(config.into(), &config_digest).await?;
        let mut layers = base.layers;
        layers.push(Descriptor { media_type: OCI_GZIP.into(), digest: layer.digest, size: layer.size });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor { media_type: OCI_CONFIG.into(), digest: config_digest, size: config_size },
            "layers": layers,
        });
        Ok(Made { manifest: manifest.to_string().into_bytes(), was_known, layer_bytes: layer.size })
    }

    /// Stores a small blob, unless it is there.
    async fn store(&self, blob: Bytes, digest: &str) -> Result<(), RegistryError> {
        let repository = self.image.repository();
        let mut tries = 1;
        while !self.registry.has_blob(repository, digest).await? {
            match self.registry.upload(repository).await?.finish(blob.clone(), digest).await {
                Err(error) if error.is_passing() && tries < TRIES => tries += 1,
                stored => return stored,
            }
        }
        Ok(())
    }

    /// Gives it its tag; returns its digest.
    pub(crate) async fn publish(&self, made: Made) -> Result<String, RegistryError> {
        let digest = digest(&made.manifest);
        self.registry.put_manifest(self.image.repository(), self.image.reference(), made.manifest).await?;
        Ok(digest)
    }

    /// Lets the image's repository have a layer of the base.
    async fn mount(&self, from: &str, digest: &str) -> Result<(), DirectError> {
        let repository = self.image.repository();
        if self.registry.has_blob(repository, digest).await? || self.registry.mount(repository, digest, from).await? {
            return Ok(());
        }
        Err(LeftToEngine::new("the registry does not lend layers from one repository to another").into())
    }

    /// The layer of the same package in the same place, if the registry still has it.
    async fn known(&self, key: &str) -> Result<Option<Layer>, RegistryError> {
        let Some(Known { layer, repository }) = self.cache.get("layer", key) else { return Ok(None) };
        let own = self.image.repository();
        let is_there = self.registry.has_blob(own, &layer.digest).await?
            || (repository != own && self.registry.mount(own, &layer.digest, &repository).await?);
        Ok(is_there.then_some(layer))
    }

    async fn send(&self, package: &Package, place: &Placed) -> Result<Layer, DirectError> {
        let mut tries = 1;
        loop {
            match self.send_once(package, place).await {
                Err(DirectError::Registry(error)) if error.is_passing() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    async fn send_once(&self, package: &Package, place: &Placed) -> Result<Layer, DirectError> {
        let mut upload = self.registry.upload(self.image.repository()).await?;
        let (making, content) = Making::begin(package.clone(), place.clone());
        let outcome = {
            let (mut sending, mut making) = (pin!(upload.send(content)), pin!(making.end()));
            tokio::select! {
                made = &mut making => match made {
                    Ok(layer) => (sending.await, Ok(layer)),
                    // Nothing more comes, and a registry that has stalled need not be waited for.
                    failed => (Ok(()), failed),
                },
                sent = &mut sending => (sent, making.await),
            }
        };
        match outcome {
            (Ok(()), Ok(layer)) => {
                upload.finish(Bytes::new(), &layer.digest).await?;
                Ok(layer)
            }
            (sent, made) => Err(fail(upload, sent, made).await),
        }
    }
}

/// Forgets what was sent, and says why: what was to be sent was not whole, or was not taken.
async fn fail(upload: Upload, sent: Result<(), RegistryError>, made: Result<Layer, LayerError>) -> DirectError {
    upload.abort().await;
    match (made, sent) {
        (Err(LayerError::Package(error)), _) if error.is_of_the_package() => error.into(),
        (Err(LayerError::Compress(source)), _) => DirectError::Local { act: "compress the layer", source },
        (Err(error @ LayerError::Stalled), _) => {
            DirectError::Local { act: "send the layer", source: io::Error::other(error) }
        }
        (_, Err(error)) => error.into(),
        (Err(LayerError::Package(error)), Ok(())) => error.into(),
        (Err(LayerError::Gone) | Ok(_), Ok(())) => {
            DirectError::Local { act: "send the layer", source: io::ErrorKind::UnexpectedEof.into() }
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}
