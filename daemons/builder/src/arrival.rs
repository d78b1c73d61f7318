//! From the bytes of a request, or of an address, to a package that was read whole and the runtime that it is for.

use crate::detect::{Detected, detect};
use crate::fetch;
use crate::intake::Place;
use crate::most::Most;
use crate::package::{Inventory, Package, Spooled};
use crate::problems;
use crate::runtime::Runtime;
use crate::service::Service;
use crate::spool;
use bytes::Bytes;
use dinp_common::api::builder::BuildQuery;
use dinp_common::problem::Problem;
use dinp_common::store;
use futures_util::Stream;
use std::collections::BTreeSet;
use std::time::Duration;
use url::Url;

/// Most bytes of a package: of this builder, and of whoever asks, who may have less left.
pub fn most(service: &Service, asked: Option<u64>) -> Most {
    Most::new(service.config.package.max_mb, asked)
}

/// A place for a package of so many bytes, 0 where that is not known, and at most `most`. It is held before the first byte, so
/// that nobody uploads in vain.
pub fn place(service: &Service, user: &str, announced: u64, most: Most) -> Result<Place, Problem> {
    if announced > most.bytes() {
        return Err(problems::too_large(most));
    }
    service.intake.take(user, if announced == 0 { most.bytes() } else { announced }).map_err(problems::no_place)
}

/// Takes the package in.
pub async fn receive<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    service: &Service,
    mut place: Place,
    most: Most,
    stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
) -> Result<(Spooled, Place), Problem> {
    let limits = &service.config.package;
    let stall = Duration::from_secs(limits.upload_stall_secs.into());
    let spooled = spool::receive(stream, &service.spool(), most, stall).await.map_err(problems::spool)?;
    place.shrink(spooled.len());
    metrics::counter!("dinp_builder_uploaded_bytes_total").increment(spooled.len());
    Ok((spooled, place))
}

/// Reads the package whole, unless the same one was found sound before. It takes memory, so only few are read at a time,
/// also when their callers have gone.
async fn inspect(service: &Service, wanted: Vec<String>, spooled: Spooled) -> Result<(Package, Inventory), Problem> {
    let limits = service.config.limits();
    let key = Package::key(&spooled, limits, &wanted);
    if let Some((format, inventory)) = service.cache.get("package", &key) {
        return Ok((Package::known(spooled, format, limits), inventory));
    }
    let permit = service.inspections.clone().acquire_owned().await.map_err(|error| Problem::internal(&error))?;
    let reading = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        Package::examine(spooled, limits, &wanted)
    });
    let inspected = reading.await.map_err(|error| Problem::internal(&error))?;
    let (package, inventory) = inspected.map_err(|error| problems::package(&error))?;
    service.cache.put("package", &key, &(package.format, &inventory));
    Ok((package, inventory))
}

/// Fetches the package from where it is.
pub async fn fetch(service: &Service, user: &str, url: &Url, most: Most) -> Result<(Spooled, Place), Problem> {
    let limit = service.config.fetch.time_limit_secs;
    let place = place(service, user, 0, most)?;
    let work = async {
        let fetched = fetch::open(url, &service.config.fetch).await.map_err(|error| problems::fetch(&error))?;
        if fetched.bytes.is_some_and(|bytes| bytes > most.bytes()) {
            return Err(problems::too_large(most));
        }
        receive(service, place, most, &mut fetched.stream()).await
    };
    tokio::time::timeout(Duration::from_secs(limit.into()), work).await.unwrap_or_else(|_| {
        let detail = format!("{} did not arrive within {limit} s", crate::fetch::shown(url));
        Err(Problem::unprocessable("fetch-failed", detail).with("field", "url"))
    })
}

/// The package for the runtime that was named.
pub async fn take(
    service: &Service,
    runtime: Runtime,
    spooled: Spooled,
) -> Result<(Package, Inventory, Detected), Problem> {
    let (package, inventory) = inspect(service, runtime.wanted().cloned().collect(), spooled).await?;
    let refused = |detail| Problem::unprocessable("package-refused", detail);
    runtime.check(package.format, &inventory).map_err(|misfit| refused(misfit.sentence(&inventory)))?;
    Ok((package, inventory, Detected { runtime, reason: None }))
}

/// The package, and the runtime that it is for.
pub async fn find_out(
    service: &Service,
    query: &BuildQuery,
    spooled: Spooled,
) -> Result<(Package, Inventory, Detected), Problem> {
    let (runtimes, _) = service.runtimes.list().map_err(problems::runtime)?;
    let wanted: BTreeSet<String> = runtimes.iter().flat_map(Runtime::wanted).cloned().collect();
    let (package, inventory) = inspect(service, wanted.into_iter().collect(), spooled).await?;
    let mut conn = service.connect().await.map_err(problems::store)?;
    let last = store::build::last_runtime(&mut conn, query.app.as_str()).await.map_err(problems::store)?;
    let last = last.and_then(|name| name.parse().ok());
    let detected = detect(runtimes, package.format, &inventory, last.as_ref()).map_err(problems::undetected)?;
    Ok((package, inventory, detected))
}
