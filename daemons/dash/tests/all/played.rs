//! Server, builder and registry as dash sees them, played by the test.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use axum::{Json, Router};
use dinp_common::auth::{Role, ServiceAuth};
use dinp_common::problem::Problem;
use dinp_common::store::build::{self, NewBuild, Refused};
use futures_util::StreamExt;
use mysql_async::Pool;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

pub const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// What the played daemons remember and are told.
pub struct Played {
    pub services: ServiceAuth,
    pub pool: Pool,
    pub hints: AtomicU32,
    /// Instances that the leader knows: app and state.
    pub instances: Mutex<Vec<(String, &'static str)>>,
    /// Query and size of each package that the builder got.
    pub packages: Mutex<Vec<(BTreeMap<String, String>, usize)>>,
    /// Packages that have begun to arrive at the builder, and questions that wait at the registry's gate.
    pub arriving: AtomicU32,
    /// Lets one question about the image `anna/web:slow` through.
    pub gate: Notify,
    pub frozen: Mutex<Option<String>>,
    /// Uploads in parts at the builder by id: what was said of each, and what has come.
    pub uploads: Mutex<BTreeMap<String, (Value, usize)>>,
}

type Shared = State<Arc<Played>>;

pub async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

pub fn server(played: Arc<Played>) -> Router {
    let app = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/instances", get(instances))
        .route("/v1/nodes", get(nodes).post(add_node))
        .route("/v1/nodes/{name}", delete(|| async { StatusCode::NO_CONTENT }))
        .route("/v1/orphans", get(|| async { Json(json!({"items": []})) }))
        .route("/v1/strangers", get(|| async { Json(json!({"items": []})) }))
        .route("/v1/tickets/adopt", post(|| async { Json(json!({"instances": 0})) }))
        .route("/v1/resume", post(|| async { Json(json!({"revision": 1})) }))
        .route("/v1/orphans/{id}", delete(|| async { StatusCode::NO_CONTENT }))
        .route("/v1/routers", get(|| async { Json(json!({"items": []})) }))
        .route("/v1/routers/{name}", delete(|| async { StatusCode::NO_CONTENT }))
        .route("/v1/apps/{app}/logs", get(logs))
        .route("/v1/hint", post(hint));
    guarded(app, played)
}

fn guarded(app: Router<Arc<Played>>, played: Arc<Played>) -> Router {
    let services = played.services.clone();
    app.layer(axum::middleware::from_fn(move |request: axum::extract::Request, next: axum::middleware::Next| {
        let services = services.clone();
        async move {
            services.require(request.headers(), &[Role::Dash]).await?;
            Ok::<Response, Problem>(next.run(request).await)
        }
    }))
    .with_state(played)
}

async fn hint(State(played): Shared) -> StatusCode {
    played.hints.fetch_add(1, Ordering::SeqCst);
    StatusCode::NO_CONTENT
}

async fn status(State(played): Shared) -> Json<Value> {
    let frozen = played.frozen.lock().unwrap().clone();
    Json(json!({
        "cluster": "c1", "leader": "http://control:1980", "epoch": 3, "version": "0.1.0", "holdover": false,
        "frozen": frozen, "revision": 1, "synced_at": 0, "routes": "3-9", "nodes_ready": 2, "nodes_missing": 0,
        "instances_ready": 2, "instances_wanted": 2, "problems": ["app web: no room"]
    }))
}

async fn instances(State(played): Shared, Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    let instances = played.instances.lock().unwrap();
    let items: Vec<Value> = instances
        .iter()
        .enumerate()
        .filter(|(_, (app, _))| query.get("app").is_none_or(|wanted| wanted == app))
        .map(|(n, (app, state))| {
            let (exit_code, reason) = match *state {
                "back_off" => (json!(137), "out of memory; the next try is in 20 s"),
                _ => (Value::Null, ""),
            };
            json!({
                "instance": format!("{:016x}", 0x00a1_b2c3_d4e5_f607_u64.wrapping_mul(n as u64 + 1)), "app": app, "release": 1,
                "node": format!("node{}", n % 2 + 1), "address": format!("10.0.0.{}", n % 2 + 1), "port": 20_000 + n,
                "state": state, "routed": *state == "ready", "since": dinp_common::api::unix_millis() - 3_725_000,
                "restarts": n, "exit_code": exit_code, "reason": reason, "node_condition": "ready"
            })
        })
        .collect();
    Json(json!({"items": items}))
}

async fn nodes() -> Json<Value> {
    let node = |name: &str, condition: &str, booked: u32| {
        json!({
            "name": name, "address": "10.0.0.1", "zone": "", "condition": condition, "cordoned": false,
            "last_report": dinp_common::api::unix_millis(), "capacity": {"memory_mb": 8000, "cpu_millis": 4000},
            "booked": {"memory_mb": booked, "cpu_millis": 400}, "instances": 4, "agent_version": "0.1.0"
        })
    };
    Json(json!({"items": [node("node1", "ready", 2048), node("node2", "suspect", 512)]}))
}

async fn add_node(Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let bundle =
        json!({"cluster": "c1", "node": body["name"], "address": body["address"], "servers": [], "secret": "node:x:0"});
    (StatusCode::CREATED, Json(bundle))
}

async fn logs(Path(app): Path<String>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    assert!(query.contains_key("since"), "dash says when the app was created");
    let instance = query.get("instance").cloned().unwrap_or("00a1b2c3d4e5f607".into());
    let what = if query.contains_key("previous") { "last line" } else { "line" };
    // One app says something and then nothing more, and runs on.
    let silent = app == "silent";
    let line = move |n: u32| {
        json!({"at": 1_700_000_000_000_i64 + i64::from(n), "instance": instance, "stream": "stdout",
               "text": format!("{app} {what} {n} tail {}", query.get("tail").map_or("-", String::as_str))})
        .to_string()
            + "\n"
    };
    let lines = futures_util::stream::iter((0..3).map(move |n| Ok::<_, std::io::Error>(line(n))));
    let lines = match silent {
        true => lines.chain(futures_util::stream::pending()).boxed(),
        false => lines.boxed(),
    };
    ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

pub fn builder(played: Arc<Played>) -> Router {
    let app = Router::new()
        .route("/v1/builds", post(begin_build))
        .route("/v1/builds/{id}", delete(cancel_build))
        .route("/v1/rebases", post(rebase))
        .route("/v1/images/delete", post(delete_image))
        .route("/v1/runtimes", get(runtimes))
        .merge(crate::uploads::played());
    guarded(app, played)
}

async fn delete_image(Json(asked): Json<Value>) -> Result<StatusCode, Problem> {
    match asked["version"].as_str() {
        Some("used") => Err(Problem::conflict("image-in-use", "a release names it")),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Tells what was asked for in place of what it stands on.
async fn rebase(Json(asked): Json<Value>) -> Json<Value> {
    let text = |name: &str| asked[name].as_str().unwrap().to_owned();
    let was = format!("{} for {} by {}, check {}", text("image"), text("owner"), text("user"), asked["check"]);
    Json(json!({"app": asked["app"], "standing": "current", "was": was}))
}

async fn runtimes() -> Json<Value> {
    Json(json!({"items": [
        {"name": "binary", "description": "One static executable, or a tree with a script named control."},
        {"name": "python", "description": "A Python application with app:app, served by gunicorn."}
    ]}))
}

async fn begin_build(
    State(played): Shared,
    Query(query): Query<BTreeMap<String, String>>,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let runtime = query.get("runtime").map_or("python", String::as_str);
    if !["binary", "python"].contains(&runtime) {
        let detail = format!("there is no runtime {runtime}");
        return Err(Problem::unprocessable("no-such-runtime", detail).with("field", "runtime"));
    }
    // What is fetched has as many bytes as its address says.
    let fetched = query.get("url").and_then(|url| url.rsplit('/').next()?.parse::<usize>().ok());
    if fetched.is_some_and(|bytes| bytes > query["max_bytes"].parse().unwrap()) {
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the package is larger than it may be");
        return Err(problem.with("limit", "max_bytes"));
    }
    played.arriving.fetch_add(1, Ordering::SeqCst);
    let mut size = fetched.unwrap_or(0);
    let mut first = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("upload-incomplete", "the package did not arrive whole"))?;
        if first.is_empty() {
            first = chunk.to_vec();
        }
        size += chunk.len();
    }
    if first.starts_with(b"not an archive") {
        return Err(Problem::unprocessable("not-an-archive", "the package is no tar.gz, zip or executable")
            .with("field", "package"));
    }
    record(&played, query, size).await
}

/// Begins the record of a package that has arrived.
pub async fn record(
    played: &Played,
    query: BTreeMap<String, String>,
    size: usize,
) -> Result<(StatusCode, Json<Value>), Problem> {
    played.packages.lock().unwrap().push((query.clone(), size));
    let mut conn = played.pool.get_conn().await.unwrap();
    let sha = "0".repeat(64);
    let new = NewBuild {
        app: &query["app"],
        app_created_at: Some(query["app_created_at"].parse().unwrap()),
        version: query.get("version").map_or("t1", String::as_str),
        runtime: query.get("runtime").map_or("python", String::as_str),
        created_by: &query["user"],
        builder: "builder1",
        package_name: &query["package"],
        package_bytes: Some(size as u64),
        package_sha256: &sha,
        base: "base",
        note: query.get("note").map_or("", String::as_str),
        ..NewBuild::default()
    };
    let view = build::begin(&mut conn, &new).await.unwrap().map_err(|refused| match refused {
        Refused::AppGone => Problem::not_found("the app is gone"),
        Refused::VersionTaken => Problem::conflict("version-exists", "the version exists"),
    })?;
    build::append_log(&mut conn, view.id, 0, "unpacking the package\n").await.unwrap();
    Ok((StatusCode::ACCEPTED, Json(serde_json::to_value(view).unwrap())))
}

async fn cancel_build(State(played): Shared, Path(id): Path<u64>) -> StatusCode {
    let mut conn = played.pool.get_conn().await.unwrap();
    build::finish(&mut conn, "builder1", id, dinp_common::api::builder::BuildStatus::Cancelled, "cancelled", None)
        .await
        .unwrap();
    StatusCode::NO_CONTENT
}

/// A registry with account `reader:geheim` and the image `anna/web`: `v1` to `v3`, `slow` that waits at the gate, and
/// without a named digest `plain` and `endless`.
pub fn registry(played: Arc<Played>) -> Router {
    let deep = |path: Path<(String, String, String, String)>| async move { kept(&path.0.0, &path.0.1) };
    Router::new()
        .route("/v2/{owner}/{app}/manifests/{reference}", any(manifest))
        .route("/v2/{owner}/{group}/{app}/manifests/{reference}", any(deep))
        .with_state(played)
}

/// What somebody has put there without a builder.
fn kept(owner: &str, app: &str) -> Response {
    match (owner, app) {
        ("anna" | "shop" | "gone" | "dinp" | "common", "pushed") => [("docker-content-digest", DIGEST)].into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn manifest(
    State(played): Shared,
    Path((owner, app, reference)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    // "reader:geheim" in base64.
    if headers.get("authorization").is_none_or(|value| value != "Basic cmVhZGVyOmdlaGVpbQ==") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    assert!(headers["accept"].to_str().unwrap().contains("application/vnd.oci.image.index.v1+json"));
    if (owner.as_str(), app.as_str()) != ("anna", "web") {
        return kept(&owner, &app);
    }
    if reference == "slow" {
        played.arriving.fetch_add(1, Ordering::SeqCst);
        played.gate.notified().await;
    }
    match (reference.as_str(), method) {
        ("v1" | "v2" | "v3" | "slow" | DIGEST, Method::HEAD) => [("docker-content-digest", DIGEST)].into_response(),
        ("plain" | "endless", Method::HEAD) => StatusCode::OK.into_response(),
        ("endless", _) => {
            let spaces = Bytes::from(vec![b' '; 1 << 16]);
            let chunks = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(spaces.clone()));
            Body::from_stream(chunks).into_response()
        }
        ("v1" | "v2" | "v3" | "plain" | DIGEST, _) => "{}".into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
