//! An app's image on its base as that is now, by another layer below the package's: for when a base was patched.

use crate::direct::Old;
use crate::job::{self, Material};
use crate::kept::{Order, Source};
use crate::problems;
use crate::runtime::{Recipe, Runtime};
use crate::service::Service;
use crate::version;
use dinp_common::api::builder::{BuildView, RebaseAsk, RebaseView, Standing};
use dinp_common::error::ErrorChain;
use dinp_common::model::ImageRef;
use dinp_common::problem::Problem;
use dinp_common::store;
use dinp_common::store::build::NewBuild;
use std::sync::Arc;

/// What can be moved, and to where.
struct Due {
    record: BuildView,
    runtime: Runtime,
    old: Old,
    now: ImageRef,
}

/// Tells how an app's image stands to its base, and moves it where that is asked for and possible.
pub async fn rebase(service: &Arc<Service>, asked: RebaseAsk) -> Result<RebaseView, Problem> {
    let mut view = RebaseView {
        app: asked.app.clone(),
        standing: Standing::Current,
        reason: String::new(),
        was: String::new(),
        now: String::new(),
        build: None,
    };
    let due = match due(service, &asked, &mut view).await? {
        Ok(Some(due)) => due,
        Ok(None) => return Ok(view),
        Err(reason) => return Ok(RebaseView { standing: Standing::NeedsPackage, reason, ..view }),
    };
    let digest = due.now.digest().unwrap_or_default().to_owned();
    let version = version::rebased(&due.record.version, &digest);
    let mut conn = service.connect().await.map_err(problems::store)?;
    // Asked twice, it is one build: of one version there is never another.
    let before = store::build::of_version(&mut conn, asked.app.as_str(), &version, asked.app_created_at).await;
    if let Some(build) = before.map_err(problems::store)? {
        return Ok(RebaseView { standing: Standing::Rebased, build: Some(build), ..view });
    }
    drop(conn);
    if asked.check {
        return Ok(RebaseView { standing: Standing::Due, ..view });
    }
    let build = begin(service, &asked, due, version).await?;
    Ok(RebaseView { standing: Standing::Rebased, build: Some(build), ..view })
}

/// What is to be moved; nothing where it stands on its base as that is now, and a reason where it cannot be.
async fn due(
    service: &Service,
    asked: &RebaseAsk,
    view: &mut RebaseView,
) -> Result<Result<Option<Due>, String>, Problem> {
    let mut conn = service.connect().await.map_err(problems::store)?;
    let image = asked.image.to_string();
    let record = store::build::of_image(&mut conn, asked.app.as_str(), &image).await.map_err(problems::store)?;
    let Some(record) = record else { return Ok(Err("its image was not built here".into())) };
    view.was.clone_from(&record.base);
    let runtime = record.runtime.parse().ok().and_then(|name| service.runtimes.get(&name).ok());
    let Some(runtime) = runtime else { return Ok(Err(format!("there is no runtime {} any more", record.runtime))) };
    if let Recipe::Own(_) = runtime.recipe {
        return Ok(Err("it was built by a Dockerfile of its own".into()));
    }
    let base = record.base.parse::<ImageRef>().ok().filter(|base| base.digest().is_some());
    let Some(base) = base.filter(|base| base.registry() == service.registry.address()) else {
        return Ok(Err("it is not known what it stands on".into()));
    };
    let Ok(now) = service.runtimes.bases().now(&base) else {
        return Ok(Err("it is not known what it stands on".into()));
    };
    let digest = service
        .registry
        .digest(&now)
        .await
        .map_err(|error| Problem::unavailable("registry-unavailable", ErrorChain(&error).to_string()))?;
    let Some(now) = digest.and_then(|digest| now.with_digest(&digest).ok()) else {
        return Ok(Err(format!("its base {now} is not in the registry any more")));
    };
    view.now = now.to_string();
    if now.digest() == base.digest() {
        return Ok(Ok(None));
    }
    let old = Old { image: asked.image.clone(), base };
    Ok(Ok(Some(Due { record, runtime, old, now })))
}

async fn begin(service: &Arc<Service>, asked: &RebaseAsk, due: Due, version: String) -> Result<BuildView, Problem> {
    let Due { record, runtime, old, now } = due;
    let name = version::image(service.registry.address(), &asked.app, &asked.owner, &version)?;
    let sha256 = record.package_sha256.unwrap_or_default();
    let (base, image_name) = (now.to_string(), name.to_string());
    let new = NewBuild {
        app: asked.app.as_str(),
        app_created_at: Some(asked.app_created_at),
        version: &version,
        runtime: runtime.name.as_str(),
        created_by: &asked.user,
        builder: &service.name,
        package_name: &record.package_name,
        package_bytes: None,
        package_sha256: &sha256,
        base: &base,
        note: &format!("version {} on its base as it is now", record.version),
        source: &format!("build {}", record.id),
        can_fetch_again: false,
        image_name: &image_name,
    };
    let mut conn = service.connect().await.map_err(problems::store)?;
    let begun = store::build::begin(&mut conn, &new).await.map_err(problems::store)?;
    let build = begun.map_err(|refused| problems::refused(refused, &asked.app, &version))?;
    let order = Order {
        app: asked.app.clone(),
        app_created_at: Some(asked.app_created_at),
        version: version.clone(),
        runtime: runtime.name.clone(),
        user: asked.user.clone(),
        base: None,
        source: Source::Image(old.clone()),
        sha256: sha256.clone(),
        notes: Vec::new(),
        image: name,
    };
    job::begin(service, build.id, order, runtime, Material::Image(old), ());
    Ok(build)
}
