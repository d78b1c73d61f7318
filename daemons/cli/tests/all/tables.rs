//! What people and programs see of the cluster.

use crate::support::{Ended, World, golden};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use dinp_common::api::unix_millis;
use http::StatusCode;
use serde_json::{Value, json};

const ID: &str = "deadbeef00000001";
/// 2026-09-21 14:13:20 UTC.
const BEGIN: i64 = 1_790_000_000_000;
const OTHER: &str = "deadbeef00000002";

fn ago(secs: i64) -> i64 {
    unix_millis() - secs * 1000
}

fn release(id: u64, number: u32) -> Value {
    let image = format!("control:5000/web/hello:v{number}@sha256:{}", "a".repeat(64));
    json!({"id": id, "number": number, "image": image, "memory_mb": 256, "cpu_millis": 100, "health": {"path": "/health"},
        "env_version": 1, "instances": 2, "created_by": "anna", "created_at": ago(7300), "note": "first try",
        "came_up": number < 3})
}

fn deployment() -> Value {
    json!({"id": 7, "app": "hello", "release_id": 12, "release_number": 2, "state": "succeeded", "reason": "",
        "created_by": "anna", "created_at": ago(7300), "finished_at": ago(7200)})
}

/// A release that did not come up over the one in force.
fn failed() -> Value {
    json!({"id": 8, "app": "hello", "release_id": 13, "release_number": 3, "previous_number": 2, "state": "rolled_back",
        "reason": "exit code 1 within 3 s", "output": ["Traceback (most recent call last):", "", "KeyError: 'DATABASE_URL'"],
        "created_by": "anna", "created_at": ago(7300), "finished_at": ago(7200)})
}

/// An app whose newest deployment has failed.
fn broken() -> Value {
    let mut app = hello();
    app["name"] = json!("broken");
    app["deployment"] = failed();
    app["release"]["health"] = json!({"path": "/health", "host": "shop.example.org"});
    app["release"]["timing"] = json!({"start_timeout_secs": 90, "stop_grace_secs": 4});
    app
}

fn hello() -> Value {
    json!({"name": "hello", "owner": "anna", "team": "web", "state": "started", "instances": 2, "ready": 2,
        "release": release(12, 2), "deployment": deployment(), "created_at": BEGIN,
        "urls": ["http://hello.apps.example", "http://shop.example.org"]})
}

/// With a time in tables that is always the same time ago.
fn recent(mut document: Value, field: &str) -> Value {
    document[field] = json!(ago(7300));
    document
}

fn bare() -> Value {
    json!({"name": "new", "owner": "anna", "state": "started", "instances": 1, "urls": [], "created_at": ago(90_000)})
}

fn instance(id: &str, node: &str, state: &str) -> Value {
    json!({"instance": id, "app": "hello", "release": 5_839_012_345_678_901_u64, "release_number": 2, "node": node, "address": "10.0.0.11", "port": 20000, "state": state,
        "routed": state == "ready", "since": ago(300), "restarts": 0, "node_condition": "ready"})
}

fn failing() -> Value {
    let mut instance = instance(OTHER, "node2", "back_off");
    instance["restarts"] = json!(3);
    instance["exit_code"] = json!(1);
    instance["reason"] = json!("next start in 20 s");
    instance["node_condition"] = json!("suspect");
    instance["address"] = json!(null);
    instance
}

fn node(name: &str, condition: &str) -> Value {
    json!({"name": name, "address": "10.0.0.11", "zone": "", "condition": condition, "cordoned": false, "last_report": ago(90),
        "capacity": {"memory_mb": 4096, "cpu_millis": 2000}, "booked": {"memory_mb": 512, "cpu_millis": 200},
        "instances": 2, "agent_version": "0.1.0"})
}

fn build() -> Value {
    json!({"id": 3, "app": "hello", "version": "v2", "runtime": "python", "created_by": "anna", "builder": "control",
        "status": "failed", "stage": "image", "reason": "pip: no matching distribution", "package_name": "app.tar.gz",
        "package_bytes": 5_242_880, "package_sha256": "c0ffee", "note": "the new login", "source": "https://ci.example/app.tar.gz",
        "attempt": 2, "base": "control:5000/dinp/base-python:bookworm@sha256:0123",
        "stages": [{"stage": "building", "at": BEGIN + 200}, {"stage": "pushing", "at": BEGIN + 29_000}], "started_at": BEGIN, "finished_at": BEGIN + 30_000})
}

fn status() -> Value {
    json!({"cluster": "dinp", "leader": "http://control:1980", "epoch": 3, "version": "0.1.0", "holdover": false, "frozen": null,
        "revision": 41, "synced_at": ago(90), "routes": "3-17", "nodes_ready": 1, "nodes_missing": 1, "instances_ready": 2,
        "instances_wanted": 3, "problems": ["hello: no node has 4096 MiB free"]})
}

fn list(items: Vec<Value>) -> axum::routing::MethodRouter {
    let page = json!({"items": items});
    get(async move || Json(page))
}

/// What a node claims without a valid ticket.
fn stranger(instance: &str, adoptable: bool) -> serde_json::Value {
    json!({"node": "node2", "instance": instance, "app": "hello", "release": 7, "adoptable": adoptable})
}

fn one(document: Value) -> axum::routing::MethodRouter {
    get(async move || Json(document))
}

async fn world() -> World {
    let events =
        vec![json!({"at": BEGIN, "instance": ID, "node": "node1", "kind": "ready", "detail": "answers on /health"})];
    let users =
        vec![json!({"name": "anna", "role": "admin", "teams": [{"team": "web", "role": "owner"}], "suspended": false})];
    let teams =
        vec![json!({"name": "web", "members": [{"user": "anna", "role": "owner"}, {"user": "bo", "role": "viewer"}]})];
    let routers =
        vec![json!({"name": "router1", "status_url": "http://router1:1982", "version": "0.1.0", "applied": "3-17",
        "last_seen": ago(90), "live": true})];
    let env = json!({"version": 2, "names": ["DATABASE_URL", "DEBUG"], "deployed_version": 1});
    let left_out = json!({"version": 3, "names": ["DEBUG"], "deployed_version": 3,
        "left_out": {"version": 4, "release": 7, "failed": true, "set": ["BAD"], "unset": ["OLD"]}});
    let gone = axum::routing::delete(async || StatusCode::NO_CONTENT);
    let bundle = json!({"cluster": "dinp", "node": "node3", "address": "10.0.0.13", "servers": ["http://control:1980"],
        "secret": "node:node3:00", "insecure_registry": "control:5000"});
    let endpoints = Router::new()
        .route(
            "/v1/apps",
            list(vec![recent(hello(), "created_at"), bare()]).post(async || (StatusCode::CREATED, Json(bare()))),
        )
        .route("/v1/apps/hello", one(hello()).merge(gone.clone()))
        .route("/v1/apps/hello/scale", put(async || Json(hello())))
        .route("/v1/apps/hello/stop", post(async || Json(hello())))
        .route("/v1/apps/hello/releases", list(vec![release(7, 3), release(12, 2), release(11, 1)]))
        .route("/v1/apps/broken", one(broken()))
        .route("/v1/apps/broken/deployments", list(vec![failed(), deployment()]))
        .route("/v1/apps/broken/env", one(left_out))
        .route("/v1/apps/hello/deployments", list(vec![deployment()]))
        .route("/v1/apps/hello/env", one(env))
        .route("/v1/apps/hello/domains", list(vec![]))
        .route("/v1/apps/hello/events", list(events))
        .route("/v1/apps/hello/instances", list(vec![instance(ID, "node1", "ready"), failing()]))
        .route("/v1/apps/new/instances", list(vec![]))
        .route("/v1/builds", list(vec![recent(build(), "started_at")]))
        .route("/v1/builds/3", one(build()))
        .route(
            "/v1/apps/hello/images",
            list(vec![
                json!({"id": 2, "app": "hello", "version": "v2", "repository": "anna/hello", "build": 4, "is_named": true,
                    "digest": format!("sha256:{}", "c0ffee12".repeat(8)), "pushed_at": ago(90)}),
                json!({"id": 1, "app": "hello", "version": "v1", "repository": "anna/hello", "build": 3, "is_named": false,
                    "digest": format!("sha256:{}", "deadbeef".repeat(8)), "pushed_at": ago(9000)}),
            ]),
        )
        .route("/v1/apps/hello/images/v1", axum::routing::delete(async || http::StatusCode::NO_CONTENT))
        .route("/v1/runtimes", list(vec![json!({"name": "python", "description": "a WSGI application", "base": "r:5000/dinp/base-python:bookworm", "holds": "python3 3.11.2-1+b1, puma 1:5.6.5-3"})]))
        .route(
            "/v1/nodes",
            list(vec![node("node1", "ready"), node("node2", "docker_down")])
                .post(async || (StatusCode::CREATED, Json(bundle))),
        )
        .route("/v1/orphans", list(vec![instance(ID, "node1", "ready")]))
        .route("/v1/orphans/deadbeef00000001", gone.clone())
        .route("/v1/strangers", list(vec![stranger("deadbeef00000002", true), stranger("deadbeef00000003", false)]))
        .route("/v1/resume", post(async || Json(json!({"revision": 42}))))
        .route("/v1/tickets/adopt", post(async || Json(json!({"instances": 1}))))
        .route("/v1/routers", list(routers))
        .route("/v1/status", one(status()))
        .route("/v1/users", list(users))
        .route("/v1/teams", list(teams));
    World::new(endpoints).await
}

fn shown(name: &str, ended: &Ended) {
    assert_eq!(ended.code, 0, "{name}: {}", ended.stderr);
    golden(&format!("{name}.txt"), &format!("{}{}", ended.stdout, ended.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_tables() {
    let world = world().await;
    for (name, args) in [
        ("app-ls", &["app", "ls"][..]),
        ("app-show", &["app", "show", "hello"]),
        ("app-env", &["app", "env", "hello"]),
        ("app-env-left-out", &["app", "env", "broken"]),
        ("app-show-failed", &["app", "show", "broken"]),
        ("app-deployments-failed", &["app", "deployments", "broken"]),
        ("app-domain", &["app", "domain", "hello"]),
        ("app-releases", &["app", "releases", "hello"]),
        ("app-deployments", &["app", "deployments", "hello"]),
        ("events", &["events", "hello"]),
        ("ps", &["ps"]),
        ("build-ls", &["build", "ls"]),
        ("image-ls", &["image", "ls", "hello"]),
        ("image-rm", &["image", "rm", "hello", "v1"]),
        ("build-show", &["build", "show", "3"]),
        ("build-runtimes", &["build", "runtimes"]),
        ("node-ls", &["node", "ls"]),
        ("router-ls", &["router", "ls"]),
        ("orphan-ls", &["orphan", "ls"]),
        ("ticket-ls", &["ticket", "ls"]),
        ("status", &["status"]),
        ("user-ls", &["user", "ls"]),
        ("team-ls", &["team", "ls"]),
    ] {
        shown(name, &world.dinp(args).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_the_documents_of_the_api() {
    let world = world().await;
    for (args, pointer, value) in [
        (&["app", "ls"][..], "/items/0/name", json!("hello")),
        (&["app", "show", "hello"], "/release/number", json!(2)),
        (&["app", "env", "hello", "ls"], "/names/1", json!("DEBUG")),
        (&["app", "scale", "hello", "2"], "/instances", json!(2)),
        (&["app", "stop", "hello"], "/name", json!("hello")),
        (&["ps", "hello"], "/items/0/instance", json!(ID)),
        (&["ps"], "/items/1/state", json!("back_off")),
        (&["ps"], "/items/0/release_number", json!(2)),
        (&["node", "ls"], "/items/1/condition", json!("docker_down")),
        (&["node", "add", "node3", "--address", "10.0.0.13"], "/secret", json!("node:node3:00")),
        (&["status"], "/routes", json!("3-17")),
        (&["build", "show", "3"], "/status", json!("failed")),
        (&["orphan", "ls"], "/items/0/node", json!("node1")),
    ] {
        let ended = world.dinp(&[args, &["--output", "json"]].concat()).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{args:?}");
        let document: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(document.pointer(pointer), Some(&value), "{args:?}: {}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_back_needs_consent() {
    let world = world().await;
    let refused = world.dinp(&["app", "rm", "hello"]).await;
    assert_eq!(refused.code, 64);
    assert_eq!(
        refused.stderr,
        "error: Delete app hello and stop all its instances? This cannot be taken back.\n next: say --yes to do it without a question\n"
    );
    assert!(world.requests().is_empty());
    let done = world.dinp(&["app", "rm", "hello", "--yes"]).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, "deleted app hello\n"));
    assert_eq!(world.requests(), ["DELETE /v1/apps/hello"]);
    let orphan = world.dinp(&["orphan", "rm", "deadbeef", "-y", "-q"]).await;
    assert_eq!((orphan.code, orphan.stderr.as_str()), (0, ""));
    assert_eq!(world.requests().last().unwrap(), "DELETE /v1/orphans/deadbeef00000001");
    assert_eq!(world.dinp(&["orphan", "rm", "abcdef01", "-y"]).await.code, 65);
    let adopted = world.dinp(&["ticket", "adopt", "-y"]).await;
    assert_eq!((adopted.code, adopted.stderr.as_str()), (0, "adopted 1 instances\n"));
    assert_eq!(world.requests().last().unwrap(), "POST /v1/tickets/adopt");
    let resumed = world.dinp(&["resume", "-y"]).await;
    assert_eq!((resumed.code, resumed.stderr.as_str()), (0, "the database is in force from revision 42 on\n"));
    assert_eq!(world.requests().last().unwrap(), "POST /v1/resume");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_goes_into_a_private_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = world().await;
    let file = world.home.path().join("node3.json");
    let path = file.to_str().unwrap();
    let add = ["node", "add", "node3", "--address", "10.0.0.13", "--bundle", path];
    let ended = world.dinp(&add).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let bundle: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(bundle["node"], "node3");
    // A bundle is shown once: a file is never written over, and that is found out before the request.
    let again = world.dinp(&add).await;
    assert_eq!((again.code, world.requests().len()), (65, 1));
}
