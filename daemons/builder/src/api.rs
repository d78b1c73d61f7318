//! Endpoints:
//!
//! * `POST /v1/builds?app=&app_created_at=&version=&runtime=&user=&owner=&package=` with the package as body -> 202
//!   `BuildView`; 429 `too-many-packages`, 507 `spool-full`, 413 `too-large`: what is taken in is bounded
//! * `DELETE /v1/builds/{id}` cancels -> 204
//! * `GET /v1/runtimes` -> `Page<RuntimeView>`
//! * `GET /health`, `/ready`, `/metrics`: for operators, without a credential
//!
//! All but the last need a service credential of role dash.

use crate::detect::{Detected, Undetected, detect};
use crate::fetch::{self, FetchError};
use crate::holds;
use crate::intake::{NoPlace, Place};
use crate::job::Job;
use crate::package::{Inventory, Package, PackageError, Spooled};
use crate::runtime::{Runtime, RuntimeError};
use crate::service::Service;
use crate::spool::{self, SpoolError};
use crate::version;
use axum::body::{Body, HttpBody};
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use dinp_common::api::Page;
use dinp_common::api::builder::{BuildQuery, BuildView, RuntimeView};
use dinp_common::auth::Role;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::metrics::ops_router;
use dinp_common::model::ImageRef;
use dinp_common::problem::{ApiQuery, Problem};
use dinp_common::store::build::{NewBuild, Refused};
use dinp_common::store::{self, StoreError};
use futures_util::Stream;
use futures_util::future::join_all;
use http::StatusCode;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The part of the registry that base images are in.
const RESERVED_OWNER: &str = "dinp";

/// All endpoints.
pub fn router(service: Arc<Service>, lifecycle: &Lifecycle) -> Router {
    Router::new()
        .route("/v1/builds", post(upload))
        .route("/v1/builds/{id}", delete(cancel))
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
    let (sound, broken) = service.runtimes.list().map_err(runtime_problem)?;
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
    let mut conn = service.connect().await.map_err(store_problem)?;
    let build = store::build::get(&mut conn, id).await.map_err(store_problem)?;
    let Some(build) = build else { return Err(Problem::not_found(format!("build {id} does not exist"))) };
    if build.status.is_final() {
        let detail = format!("build {id} has ended already: {}", build.status.as_str());
        return Err(Problem::conflict("build-ended", detail));
    }
    let detail = format!("build {id} runs on builder {}", build.builder);
    Err(Problem::conflict("build-elsewhere", detail).with("builder", build.builder))
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
        let order = prepare(&service, query).await?;
        let user = &order.query.user;
        let (spooled, place) = match &order.query.url {
            None => {
                let place = place(&service, user, announced)?;
                receive(&service, place, &mut stream).await?
            }
            Some(url) => fetch(&service, user, url).await?,
        };
        accept(&service, order, spooled, place).await
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
struct Order {
    query: BuildQuery,
    /// None where the package is to tell.
    runtime: Option<Runtime>,
}

/// Checks what can be checked before the package is here.
async fn prepare(service: &Service, query: BuildQuery) -> Result<Order, Problem> {
    let runtime = query.runtime.as_ref().map(|name| service.runtimes.get(name).map_err(runtime_problem)).transpose()?;
    if query.owner == RESERVED_OWNER {
        let detail = format!("owner \"{RESERVED_OWNER}\" is not valid: base images are kept under that name");
        return Err(Problem::unprocessable("invalid-query", detail).with("field", "owner"));
    }
    if let Some(version) = &query.version {
        version::check(version).map_err(|error| invalid("version", error))?;
        refuse_taken(service, &query, &image(service, &query, version)?, version).await?;
    } else {
        image(service, &query, "v")?;
    }
    // Rather told now than after the upload.
    service.connect().await.map_err(store_problem)?;
    Ok(Order { query, runtime })
}

/// Fetches the package from where it is.
async fn fetch(service: &Service, user: &str, url: &Url) -> Result<(Spooled, Place), Problem> {
    let limit = service.config.fetch.time_limit_secs;
    let place = place(service, user, 0)?;
    let work = async {
        let fetched = fetch::open(url, &service.config.fetch).await.map_err(|error| fetch_problem(&error))?;
        if fetched.bytes.is_some_and(|bytes| bytes > max_bytes(service)) {
            return Err(too_large(service));
        }
        receive(service, place, &mut fetched.stream()).await
    };
    tokio::time::timeout(Duration::from_secs(limit.into()), work).await.unwrap_or_else(|_| {
        let detail = format!("{} did not arrive within {limit} s", fetch::shown(url));
        Err(Problem::unprocessable("fetch-failed", detail).with("field", "url"))
    })
}

fn fetch_problem(error: &FetchError) -> Problem {
    Problem::unprocessable("fetch-failed", ErrorChain(error).to_string()).with("field", "url")
}

/// Most bytes of a package.
fn max_bytes(service: &Service) -> u64 {
    u64::from(service.config.package.max_mb) << 20
}

fn too_large(service: &Service) -> Problem {
    spool_problem(SpoolError::TooLarge(service.config.package.max_mb.into()))
}

/// A place for a package of so many bytes, 0 where that is not known. It is held before the first byte, so that nobody uploads
/// in vain.
fn place(service: &Service, user: &str, announced: u64) -> Result<Place, Problem> {
    let most = max_bytes(service);
    if announced > most {
        return Err(too_large(service));
    }
    service.intake.take(user, if announced == 0 { most } else { announced }).map_err(no_place)
}

/// Takes the package in.
async fn receive<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    service: &Service,
    mut place: Place,
    stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
) -> Result<(Spooled, Place), Problem> {
    let limits = &service.config.package;
    let stall = Duration::from_secs(limits.upload_stall_secs.into());
    let spooled = spool::receive(stream, &service.spool(), max_bytes(service), stall).await.map_err(spool_problem)?;
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
        let package = Package::open(spooled, limits)?;
        let inventory = package.inspect(&wanted)?;
        Ok::<_, PackageError>((package, inventory))
    });
    let inspected = reading.await.map_err(|error| Problem::internal(&error))?;
    let (package, inventory) = inspected.map_err(|error| package_problem(&error))?;
    service.cache.put("package", &key, &(package.format, &inventory));
    Ok((package, inventory))
}

/// Checks the package, and starts the build.
async fn accept(service: &Arc<Service>, order: Order, spooled: Spooled, place: Place) -> Result<BuildView, Problem> {
    let Order { query, runtime } = order;
    let version = match &query.version {
        Some(version) => version.clone(),
        None => version::default(jiff::Timestamp::now(), spooled.sha256()),
    };
    let image = image(service, &query, &version)?;
    let fetched_from = query.url.as_ref().map(fetch::shown);
    let name = match &fetched_from {
        Some(url) if query.package.is_empty() => url.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => query.package.clone(),
    };
    let (sha256, bytes) = (spooled.sha256().to_owned(), spooled.len());
    let (package, inventory, Detected { runtime, reason }) = match runtime {
        Some(runtime) => take(service, runtime, spooled).await?,
        None => find_out(service, &query, spooled).await?,
    };

    let base = runtime.base().map(ToString::to_string).unwrap_or_default();
    let new = NewBuild {
        app: query.app.as_str(),
        app_created_at: query.app_created_at,
        version: &version,
        runtime: runtime.name.as_str(),
        created_by: &query.user,
        builder: &service.name,
        package_name: &name,
        package_bytes: bytes,
        package_sha256: &sha256,
        base: &base,
    };
    let mut conn = service.connect().await.map_err(store_problem)?;
    let begun = store::build::begin(&mut conn, &new).await.map_err(store_problem)?;
    let build = begun.map_err(|refused| refusal(refused, &query, &version))?;
    let id = build.id;
    tracing::info!(app = %query.app, build = id, version, user = query.user, "build begins");
    // There is a record now that only a running build ends. Nothing may fail any more: the audit event, without which no
    // build begins, was written with the record.
    let BuildQuery { app, app_created_at, .. } = query;
    let why = reason.map(|reason| format!("runtime {}, because {reason}", runtime.name));
    let from = fetched_from.map(|url| format!("fetched from {url}"));
    let notes = from.into_iter().chain(why).chain(runtime.notes(&inventory)).collect();
    let job = Job { id, app, app_created_at, version, runtime, package, notes, image };
    let built = service.clone();
    service.start(id, |stop| async move {
        job.run(built, stop).await;
        drop(place);
    });
    Ok(build)
}

/// The package for the runtime that was named.
async fn take(
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
async fn find_out(
    service: &Service,
    query: &BuildQuery,
    spooled: Spooled,
) -> Result<(Package, Inventory, Detected), Problem> {
    let (runtimes, _) = service.runtimes.list().map_err(runtime_problem)?;
    let wanted: BTreeSet<String> = runtimes.iter().flat_map(Runtime::wanted).cloned().collect();
    let (package, inventory) = inspect(service, wanted.into_iter().collect(), spooled).await?;
    let mut conn = service.connect().await.map_err(store_problem)?;
    let last = store::build::last_runtime(&mut conn, query.app.as_str()).await.map_err(store_problem)?;
    let last = last.and_then(|name| name.parse().ok());
    let detected = detect(runtimes, package.format, &inventory, last.as_ref()).map_err(undetected)?;
    Ok((package, inventory, detected))
}

fn undetected(undetected: Undetected) -> Problem {
    match undetected {
        Undetected::None(detail) => Problem::unprocessable("package-refused", detail),
        Undetected::Several(detail) => Problem::unprocessable("runtime-unclear", detail)
            .with("field", "runtime")
            .with("hint", "name the runtime, on the command line by --runtime"),
    }
}

/// The name that the image will have.
fn image(service: &Service, query: &BuildQuery, version: &str) -> Result<ImageRef, Problem> {
    let owner = if query.owner.is_empty() { "apps" } else { &query.owner };
    if owner.contains(['/', ':', '@']) {
        let detail = format!("owner \"{owner}\" is not valid: it must be the name of a user or team");
        return Err(Problem::unprocessable("invalid-query", detail).with("field", "owner"));
    }
    let text = format!("{}/{owner}/{}:{version}", service.registry.address(), query.app);
    text.parse().map_err(|error| invalid("owner", error))
}

fn invalid(field: &'static str, error: dinp_common::model::InvalidValue) -> Problem {
    Problem::unprocessable("invalid-query", error.to_string()).with("field", field)
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
    if service.is_left_over(&query.app, query.app_created_at, image, &found).await.map_err(store_problem)? {
        return Ok(());
    }
    let detail =
        format!("version \"{version}\" exists already: {image} is in the registry, and versions are never changed");
    Err(Problem::conflict("version-exists", detail).with("image", image.to_string()))
}

fn refusal(refused: Refused, query: &BuildQuery, version: &str) -> Problem {
    let app = &query.app;
    match refused {
        Refused::VersionTaken => {
            let detail = format!(
                "version \"{version}\" of app {app} exists already or is being built, and versions are never changed"
            );
            Problem::conflict("version-exists", detail)
        }
        Refused::AppGone => Problem::not_found(format!("app {app} was deleted while the package arrived")),
    }
}

fn store_problem(error: StoreError) -> Problem {
    if error.is_unavailable() {
        tracing::warn!(error = %ErrorChain(&error), "request refused, database is away");
        return Problem::unavailable("database-unavailable", "the builder cannot reach its database: try again later");
    }
    Problem::internal(&error)
}

fn runtime_problem(error: RuntimeError) -> Problem {
    match &error {
        RuntimeError::Unknown { .. } | RuntimeError::NotAllowed(_) => {
            Problem::unprocessable("unknown-runtime", error.to_string()).with("field", "runtime")
        }
        _ => {
            tracing::error!(error = %ErrorChain(&error), "runtime cannot be used");
            let detail = format!("the runtime cannot be used, its operator has to repair it: {}", ErrorChain(&error));
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "broken-runtime", detail)
        }
    }
}

fn package_problem(error: &PackageError) -> Problem {
    if error.is_of_the_package() {
        metrics::counter!("dinp_builder_packages_refused_total").increment(1);
        return Problem::unprocessable("package-refused", error.to_string());
    }
    Problem::internal(error)
}

fn no_place(error: NoPlace) -> Problem {
    let detail = error.to_string();
    match error {
        NoPlace::OfPerson(limit) | NoPlace::OfAll(limit) => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-packages", detail).with("limit", limit)
        }
        NoPlace::Spool(limit) => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "spool-full", detail).with("limit_mb", limit)
        }
    }
}

fn spool_problem(error: SpoolError) -> Problem {
    let detail = ErrorChain(&error).to_string();
    match &error {
        SpoolError::TooLarge(_) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail),
        SpoolError::Empty => Problem::unprocessable("package-refused", detail),
        SpoolError::Stalled(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "upload-stalled", detail),
        SpoolError::Receive(_) => Problem::bad_request("upload-broken", detail),
        SpoolError::Write { source, .. } => {
            tracing::error!(error = %ErrorChain(&error), "package cannot be spooled");
            let full = source.kind() == std::io::ErrorKind::StorageFull;
            let detail = if full { "the builder's disk is full" } else { "the builder cannot write to its disk" };
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "spool-unavailable", detail)
        }
    }
}
