//! Builds that begin again: after a restart of this builder, or in place of another one that is silent.

use crate::arrival;
use crate::job::{Job, Material};
use crate::kept::{Order, Source};
use crate::package::Package;
use crate::runtime::RuntimeError;
use crate::service::Service;
use dinp_common::api::builder::{BuildStatus, BuildView};
use dinp_common::error::ErrorChain;
use dinp_common::model::ImageRef;
use dinp_common::problem::Problem;
use dinp_common::store;
use dinp_common::store::build::{Held, Silent};
use std::io;
use std::sync::Arc;
use url::Url;

/// How often a build begins: one that ends its builder each time is none that anybody waits for.
const MOST_ATTEMPTS: u8 = 5;

/// Why a build does not begin again.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("lost: upload the package again (it was not kept whole when the builder ended)")]
    Package(#[source] io::Error),
    #[error("lost: upload the package again (builder {0}, which had it, has not been heard of for minutes)")]
    Builder(String),
    #[error("the builder ended during each of its {0} attempts")]
    TooOften(u8),
    #[error("what is at {0} now is another package")]
    Changed(Url),
    #[error("the package cannot be fetched again: {}", .0.detail)]
    Refused(Problem),
    #[error("its runtime can be used no more")]
    Runtime(#[from] RuntimeError),
    #[error("the package cannot be kept")]
    Keep(#[source] io::Error),
    #[error("cancelled")]
    Cancelled,
}

/// Goes on with a build that an earlier process of this builder left.
pub fn go_on(service: &Arc<Service>, build: Held) {
    let begun = service.clone();
    service.start(build.id, |stop| async move {
        match again(&begun, build).await {
            Ok(job) => {
                // A builder that holds less now than before holds what it has.
                let place = match &job.material {
                    Material::Package(package) => begun.intake.take(&job.order.user, package.spooled.len()).ok(),
                    Material::Image(_) => None,
                };
                job.run(begun, stop).await;
                drop(place);
            }
            Err(lost) => give_up(&begun, build.id, &lost).await,
        }
    });
}

/// Begins a build that was another builder's, and is this one's now.
pub fn take_over(service: &Arc<Service>, build: Silent) {
    let begun = service.clone();
    service.start(build.id, |stop| async move {
        match fetched_again(&begun, &build).await {
            Ok(job) => job.run(begun, stop).await,
            Err(lost) => give_up(&begun, build.id, &lost).await,
        }
    });
}

async fn give_up(service: &Service, id: u64, lost: &Lost) {
    let reason = ErrorChain(lost).to_string();
    tracing::warn!(build = id, reason, "build does not go on");
    let status = if matches!(lost, Lost::Cancelled) { BuildStatus::Cancelled } else { BuildStatus::Failed };
    service.finish(id, status, if status == BuildStatus::Failed { &reason } else { "" }, None).await;
    service.kept.forget(id);
}

fn may_begin(cancel_asked: bool, attempt: u8) -> Result<u8, Lost> {
    match attempt {
        _ if cancel_asked => Err(Lost::Cancelled),
        MOST_ATTEMPTS.. => Err(Lost::TooOften(attempt)),
        _ => Ok(attempt + 1),
    }
}

async fn again(service: &Service, build: Held) -> Result<Job, Lost> {
    let attempt = may_begin(build.cancel_asked, build.attempt)?;
    let kept = service.kept.clone();
    let taken = tokio::task::spawn_blocking(move || kept.take(build.id)).await.unwrap_or_else(|e| Err(e.into()));
    let (order, spooled) = taken.map_err(Lost::Package)?;
    let runtime = service.runtimes.get(&order.runtime)?;
    let material = match (&order.source, spooled) {
        (Source::Package(format), Some(spooled)) => {
            Material::Package(Package::known(spooled, *format, service.config.limits()))
        }
        (Source::Image(old), _) => Material::Image(old.clone()),
        (Source::Package(_), None) => return Err(Lost::Package(io::ErrorKind::NotFound.into())),
    };
    let begin = move |mut conn| async move { store::build::begin_again(&mut conn, &service.name, build.id).await };
    service.insist(build.id, begin).await;
    tracing::info!(build = build.id, attempt, "build goes on");
    Ok(Job { id: build.id, attempt, order, runtime, material })
}

async fn fetched_again(service: &Service, build: &Silent) -> Result<Job, Lost> {
    let attempt = may_begin(build.cancel_asked, build.attempt)?;
    let id = build.id;
    let record = service.insist(id, move |mut conn| async move { store::build::get(&mut conn, id).await }).await;
    let target = service.insist(id, move |mut conn| async move { store::build::target(&mut conn, id).await }).await;
    let url = build.url.as_ref().and_then(|url| Url::parse(url).ok());
    let (Some(record), Some((image, app_created_at)), Some(url)) = (record, target, url) else {
        return Err(Lost::Builder(build.builder.clone()));
    };
    let BuildView { app, version, runtime, created_by: user, package_sha256, base, .. } = record;
    let runtime = runtime.parse().map_err(|_| Lost::Builder(build.builder.clone()))?;
    let runtime = service.runtimes.get(&runtime)?;
    let most = arrival::most(service, None);
    // Its place lasts while it arrives: the builder whose it was has no use for one.
    let (spooled, _place) = arrival::fetch(service, &user, &url, most).await.map_err(Lost::Refused)?;
    if package_sha256.as_deref() != Some(spooled.sha256()) {
        return Err(Lost::Changed(url));
    }
    let (package, inventory, _) = arrival::take(service, runtime.clone(), spooled).await.map_err(Lost::Refused)?;
    let notes = [format!("fetched again from {url}, because builder {} is silent", build.builder)];
    let order = Order {
        app,
        app_created_at,
        version,
        runtime: runtime.name.clone(),
        user,
        base: base.parse().ok().and_then(|base: ImageRef| service.runtimes.bases().now(&base).ok()),
        source: Source::Package(package.format),
        sha256: package.spooled.sha256().to_owned(),
        notes: notes.into_iter().chain(runtime.notes(&inventory)).collect(),
        image,
    };
    service.kept.keep(build.id, &order, Some(&package.spooled)).map_err(Lost::Keep)?;
    Ok(Job { id: build.id, attempt, order, runtime, material: Material::Package(package) })
}
