//! Base images: which image the base of a runtime stands for.

use dinp_common::model::{ImageRef, InvalidValue};
use std::collections::BTreeMap;

/// What the bases of runtimes stand for.
#[derive(Debug, Clone)]
pub struct Bases {
    registry: String,
    tag: String,
    digests: BTreeMap<String, String>,
}

impl Bases {
    /// Bases of this registry, with this tag (by default the suite of this host's distribution), and the digests of some of
    /// them by `repository:tag`.
    pub fn new(registry: String, tag: Option<String>, digests: BTreeMap<String, String>) -> Self {
        let tag = tag.or_else(own_suite).unwrap_or_else(|| "latest".into());
        Self { registry, tag, digests }
    }

    /// A text with `{registry}` and `{base_tag}` replaced.
    pub fn fill(&self, text: &str) -> String {
        text.replace("{registry}", &self.registry).replace("{base_tag}", &self.tag)
    }

    /// The registry of the cluster.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The image that a runtime names: `{registry}` and `{base_tag}` are replaced, and it gets its digest where that is known.
    pub fn resolve(&self, base: &str) -> Result<ImageRef, InvalidValue> {
        self.pinned(self.fill(base).parse()?)
    }

    /// What an image that stands on this base would stand on now: of the same suite, whatever new apps are built on.
    pub fn now(&self, base: &ImageRef) -> Result<ImageRef, InvalidValue> {
        self.pinned(base.without_digest())
    }

    /// The image with its digest, where that is known.
    pub fn pinned(&self, base: ImageRef) -> Result<ImageRef, InvalidValue> {
        if base.registry() != self.registry || base.digest().is_some() {
            return Ok(base);
        }
        let digest = self.digests.get(&format!("{}:{}", base.repository(), base.reference()));
        digest.map_or(Ok(base.clone()), |digest| base.with_digest(digest))
    }
}

/// The suite of this host's distribution: base images are made of its packages and tagged with its name.
fn own_suite() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let suite = value.trim_matches('"');
    (!suite.is_empty()).then(|| suite.to_owned())
}
