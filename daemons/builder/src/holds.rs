//! What base images hold, as they say themselves.

use crate::direct::{Base, Cache};
use crate::registry::Registry;
use dinp_common::model::ImageRef;
use std::time::Duration;

/// The label that `packaging/base-images/build` gives: packages with their versions.
const LABEL: &str = "dinp.image.holds";
/// How long a list of runtimes waits for a registry.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a base image holds, if it says so: one with a digest, which is asked for once.
pub(crate) async fn of(base: &ImageRef, registry: &Registry, cache: &Cache) -> Option<String> {
    if base.registry() != registry.address() || base.digest().is_none() {
        return None;
    }
    let key = base.to_string();
    if let Some(known) = cache.get("holds", &key) {
        return known;
    }
    let fetched = tokio::time::timeout(PATIENCE, Base::fetch(registry, base)).await.ok()?.ok()?;
    let label = fetched.config.get("config")?.get("Labels")?.get(LABEL);
    let holds = label.and_then(|label| label.as_str()).map(str::to_owned);
    cache.put("holds", &key, &holds);
    holds
}
