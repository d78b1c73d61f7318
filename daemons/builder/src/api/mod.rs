//! Endpoints:
//!
//! * `POST /v1/builds?app=&app_created_at=&version=&runtime=&user=&owner=&package=` with the package as body -> 202
//!   `BuildView`; 429 `too-many-packages`, 507 `spool-full`, 413 `too-large`: what is taken in is bounded
//! * `POST /v1/uploads`, `GET`, `PATCH` and `DELETE /v1/uploads/{id}`, `POST /v1/uploads/{id}/build`: the same in parts
//! * `POST /v1/rebases` -> `RebaseView`: an app's package on its base as it is now
//! * `POST /v1/images/delete` -> 204: the image of a version that no release names
//! * `DELETE /v1/builds/{id}` cancels -> 204, or 202 where another builder is told to
//! * `GET /v1/runtimes` -> `Page<RuntimeView>`
//! * `GET /health`, `/ready`, `/metrics`: for operators, without a credential
//!
//! All but the last need a service credential of role dash.

mod uploads;

use crate::arrival;
use crate::detect::Detected;
use crate::fetch;
use crate::holds;
use crate::intake::Place;
use crate::job::{self, Material};
use crate::kept::{Order, Source};
use crate::package::Spooled;
use crate::problems;
use crate::rebase;
use crate::runtime::Runtime;
use crate::service::Service;
use crate::spool;
use crate::suite;
use crate::upkeep;
use crate::version;
use axum::body::{Body, HttpBody};
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use dinp_common::api::Page;
use dinp_common::api::builder::{BuildQuery, BuildView, ImageDelete, RebaseAsk, RebaseView, RuntimeView};
use dinp_common::auth::Role;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::metrics::ops_router;
use dinp_common::model::ImageRef;
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use dinp_common::store;
use dinp_common::store::build::NewBuild;
use futures_util::future::join_all;
use http::StatusCode;
use std::sync::Arc;

/// The part of the registry that base images are in.
const RESERVED_OWNER: &str = "dinp";

/// All endpoints.
pub fn router(service: Arc<Service>, lifecycle: &Lifecycle) -> Router {
    Router::new()
        .route("/v1/builds", post(upload))
        .route("/v1/builds/{id}", delete(cancel))
        .route("/v1/uploads", post(uploads::begin))
        .route("/v1/uploads/{id}", get(uploads::show).patch(uploads::append).delete(uploads::forget))
        .route("/v1/uploads/{id}/build", post(uploads::build))
        .route("/v1/rebases", post(rebase))
        .route("/v1/images/delete", post(delete_image))
        .route("/v1/runtimes", get(runtimes))
        .layer(middleware::from_fn_with_state(service.clone(), guard))
        .with_state(service)
        .merge(ops_router(lifecycle))
}

/// Only dash comes in, and the builder is not idle meanwhile.
async fn guard(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let _busy = service.activity.begin();
    match service.auth.require(request.headers(), &[Role::Dash]).await {
        Ok(_) => next.run(request).await,
        Err(problem) => {
            spool::discard(request.into_body().into_data_stream()).await;
            problem.into_response()
        }
    }
}

async fn runtimes(State(service): State<Arc<Service>>) -> Result<Json<Page<RuntimeView>>, Problem> {
    let (sound, broken) = service.runtimes.list().map_err(problems::runtime)?;
    for error in broken {
        tracing::error!(error = %ErrorChain(&error), "runtime cannot be used");
    }
    let views = sound.iter().map(async |runtime| {
        let holds = match runtime.base() {
            Some(base) => holds::of(base, &service.registry, &service.cache).await,
            None => None,
        };
        runtime.view(holds)
    });
    Ok(Json(Page { items: join_all(views).await, next: None }))
}

async fn cancel(State(service): State<Arc<Service>>, Path(id): Path<u64>) -> Result<StatusCode, Problem> {
    if service.cancel(id).await {
        return Ok(StatusCode::NO_CONTENT);
    }
    let mut conn = service.connect().await.map_err(problems::store)?;
    // One of another builder: that one sees it within seconds, and where it is silent, whoever takes the build over.
    if store::build::ask_to_cancel(&mut conn, id).await.map_err(problems::store)? {
        return Ok(StatusCode::ACCEPTED);
    }
    let build = store::build::get(&mut conn, id).await.map_err(problems::store)?;
    let Some(build) = build else { return Err(Problem::not_found(format!("build {id} does not exist"))) };
    let detail = format!("build {id} has ended already: {}", build.status.as_str());
    Err(Problem::conflict("build-ended", detail))
}

async fn rebase(
    State(service): State<Arc<Service>>,
    ApiJson(asked): ApiJson<RebaseAsk>,
) -> Result<Json<RebaseView>, Problem> {
    rebase::rebase(&service, asked).await.map(Json)
}

async fn delete_image(
    State(service): State<Arc<Service>>,
    ApiJson(asked): ApiJson<ImageDelete>,
) -> Result<StatusCode, Problem> {
    upkeep::delete_version(&service, &asked).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn upload(
    State(service): State<Arc<Service>>,
    query: Result<ApiQuery<BuildQuery>, Problem>,
    body: Body,
) -> Result<(StatusCode, Json<BuildView>), Problem> {
    let announced = body.size_hint().lower();
    let mut stream = body.into_data_stream();
    let taken = async {
        let ApiQuery(query) = query?;
        let asked = prepare(&service, query).await?;
        let user = &asked.query.user;
        let most = arrival::most(&service, asked.query.max_bytes);
        let (spooled, place) = match &asked.query.url {
            None => {
                let place = arrival::place(&service, user, announced, most)?;
                arrival::receive(&service, place, most, &mut stream).await?
            }
            Some(url) => arrival::fetch(&service, user, url, most).await?,
        };
        accept(&service, asked, spooled, Some(Arc::new(place))).await
    };
    match taken.await {
        Ok(build) => Ok((StatusCode::ACCEPTED, Json(build))),
        Err(problem) => {
            spool::discard(stream).await;
            Err(problem)
        }
    }
}

/// A request whose words are all valid.
struct Asked {
    query: BuildQuery,
    /// None where the package is to tell.
    runtime: Option<Runtime>,
}

/// Checks what can be checked before the package is here.
async fn prepare(service: &Service, query: BuildQuery) -> Result<Asked, Problem> {
    let runtime =
        query.runtime.as_ref().map(|name| service.runtimes.get(name).map_err(problems::runtime)).transpose()?;
    if query.owner == RESERVED_OWNER {
        let detail = format!("owner \"{RESERVED_OWNER}\" is not valid: base images are kept under that name");
        return Err(Problem::unprocessable("invalid-query", detail).with("field", "owner"));
    }
    if let Some(version) = &query.version {
        version::check(version).map_err(|error| problems::invalid("version", error))?;
        refuse_taken(
            service,
            &query,
            &version::image(service.registry.address(), &query.app, &query.owner, version)?,
            version,
        )
        .await?;
    } else {
        version::image(service.registry.address(), &query.app, &query.owner, "v")?;
    }
    // Rather told now than after the upload.
    service.connect().await.map_err(problems::store)?;
    Ok(Asked { query, runtime })
}

/// Checks the package, and starts the build.
async fn accept(
    service: &Arc<Service>,
    asked: Asked,
    spooled: Spooled,
    place: Option<Arc<Place>>,
) -> Result<BuildView, Problem> {
    let Asked { query, runtime } = asked;
    let version = match &query.version {
        Some(version) => version.clone(),
        None => version::default(jiff::Timestamp::now(), spooled.sha256()),
    };
    let image = version::image(service.registry.address(), &query.app, &query.owner, &version)?;
    let fetched_from = query.url.as_ref().map(fetch::shown);
    let name = match &fetched_from {
        Some(url) if query.package.is_empty() => url.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => query.package.clone(),
    };
    let (sha256, bytes) = (spooled.sha256().to_owned(), spooled.len());
    let (package, inventory, Detected { runtime, reason }) = match runtime {
        Some(runtime) => arrival::take(service, runtime, spooled).await?,
        None => arrival::find_out(service, &query, spooled).await?,
    };

    let mut conn = service.connect().await.map_err(problems::store)?;
    let (base, on) = suite::base(service, &mut conn, &query, &runtime).await?.unzip();
    let base_name = base.as_ref().or(runtime.base()).map(ToString::to_string).unwrap_or_default();
    let source = fetched_from.clone().unwrap_or_default();
    let image_name = image.to_string();
    let new = NewBuild {
        app: query.app.as_str(),
        app_created_at: query.app_created_at,
        version: &version,
        runtime: runtime.name.as_str(),
        created_by: &query.user,
        builder: &service.name,
        package_name: &name,
        package_bytes: Some(bytes),
        package_sha256: &sha256,
        base: &base_name,
        note: &query.note,
        source: &source,
        can_fetch_again: query.url.as_ref().is_some_and(|url| url.as_str() == source),
        image_name: &image_name,
    };
    let begun = store::build::begin(&mut conn, &new).await.map_err(problems::store)?;
    let build = begun.map_err(|refused| problems::refused(refused, &query.app, &version))?;
    let id = build.id;
    tracing::info!(app = %query.app, build = id, version, user = query.user, "build begins");
    // There is a record now that only a running build ends. Nothing may fail any more: the audit event, without which no
    // build begins, was written with the record.
    let BuildQuery { app, app_created_at, .. } = query;
    let why = reason.map(|reason| format!("runtime {}, because {reason}", runtime.name));
    let from = fetched_from.map(|url| format!("fetched from {url}"));
    let notes = from.into_iter().chain(why).chain(on).chain(runtime.notes(&inventory)).collect();
    let order = Order {
        app,
        app_created_at,
        version,
        runtime: runtime.name.clone(),
        user: query.user,
        base,
        source: Source::Package(package.format),
        sha256,
        notes,
        image,
    };
    job::begin(service, id, order, runtime, Material::Package(package), place);
    Ok(build)
}

async fn refuse_taken(service: &Service, query: &BuildQuery, image: &ImageRef, version: &str) -> Result<(), Problem> {
    let found = match service.registry.digest(image).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(()),
        // The build will ask again, and its record will say what is wrong.
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "registry cannot be asked for a version");
            return Ok(());
        }
    };
    if service.is_left_over(&query.app, query.app_created_at, image, &found).await.map_err(problems::store)? {
        return Ok(());
    }
    let detail =
        format!("version \"{version}\" exists already: {image} is in the registry, and versions are never changed");
    Err(Problem::conflict("version-exists", detail).with("image", image.to_string()))
}
