//! Apps that are put on their patched bases.

use std::sync::{Arc, Mutex};

use crate::support::{World, golden};
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use dinp_common::problem::Problem;
use serde_json::{Value, json};

type Asked = Arc<Mutex<Vec<String>>>;

const OLD: &str = "control:5000/dinp/base-python:bookworm@sha256:0000000011111111";
const NEW: &str = "control:5000/dinp/base-python:bookworm@sha256:2222222233333333";
/// In the order in which they are listed.
const APPS: [&str; 6] = ["fresh", "old", "bare", "stuck", "bad", "later"];

fn view(name: &str) -> Value {
    let release = json!({"id": 1, "number": 1, "image": "control:5000/a/x:v1", "memory_mb": 1, "cpu_millis": 1,
        "env_version": 0, "instances": 1, "created_by": "anna", "created_at": 0});
    let release = if name == "bare" { Value::Null } else { release };
    json!({"name": name, "owner": "anna", "state": "started", "instances": 1, "urls": [], "created_at": 0, "release": release})
}

fn build(name: &str) -> Value {
    json!({"id": 3, "app": name, "version": "v1-base.22222222", "runtime": "python", "created_by": "anna",
        "builder": "control", "status": "succeeded", "stage": "pushing", "started_at": 0, "finished_at": 1})
}

async fn rebase(Path(name): Path<String>, Json(wish): Json<Value>) -> Json<Value> {
    let standing = match name.as_str() {
        "fresh" => "current",
        "stuck" => "needs_package",
        _ if wish["check"] == true => "due",
        _ => "rebased",
    };
    let (reason, was) = match standing {
        "current" => ("", NEW),
        "needs_package" => ("it was built by a Dockerfile of its own", OLD),
        _ => ("", OLD),
    };
    let made = if standing == "rebased" { build(&name) } else { Value::Null };
    Json(json!({"app": name, "standing": standing, "reason": reason, "was": was, "now": NEW, "build": made}))
}

fn deployment(name: &str) -> Value {
    let state = if name == "bad" { "rolled_back" } else { "succeeded" };
    json!({"id": 7, "app": name, "release_id": 2, "release_number": 2, "state": state, "reason": "it ended with exit code 1",
        "previous_number": 1, "created_by": "anna", "created_at": 0})
}

async fn world() -> (World, Asked) {
    let asked = Asked::default();
    let endpoints = Router::new()
        .route("/v1/apps", get(async || Json(json!({"items": APPS.map(view)}))))
        .route("/v1/apps/{name}", get(async |Path(name): Path<String>| Json(view(&name))))
        .route("/v1/apps/{name}/rebase", post(rebase))
        .route("/v1/apps/{name}/instances", get(async || Json(json!({"items": []}))))
        .route("/v1/apps/{name}/deployments", post(deploy))
        .route("/v1/builds/3", get(async || Json(build("x"))))
        .route("/v1/builds/3/log", get(async || "moving\n"))
        .fallback(async || Problem::not_found("there is nothing here"))
        .with_state(asked.clone());
    (World::new(endpoints).await, asked)
}

async fn deploy(State(asked): State<Asked>, Path(name): Path<String>, Json(wish): Json<Value>) -> Json<Value> {
    asked.lock().unwrap().push(format!("{name} {}", wish["build"]));
    Json(deployment(&name))
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_are_moved_one_after_another_until_one_fails() {
    let (world, asked) = world().await;
    let ended = world.dinp(&["build", "rebase", "--all", "--check"]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    golden("build-rebase-check.txt", &ended.stdout);
    assert!(asked.lock().unwrap().is_empty(), "nothing is deployed by a check");

    let ended = world.dinp(&["build", "rebase", "--all"]).await;
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    golden("build-rebase.txt", &ended.stdout);
    assert_eq!(*asked.lock().unwrap(), ["old 3", "bad 3"], "what comes after the one that failed is not tried");
    assert!(ended.stderr.contains("1 of 6 apps could not be moved"), "{}", ended.stderr);

    asked.lock().unwrap().clear();
    assert_eq!(world.dinp(&["build", "rebase", "--all", "--stop-after", "2"]).await.code, 4);
    assert_eq!(*asked.lock().unwrap(), ["old 3", "bad 3", "later 3"]);
    let ended = world.dinp(&["build", "rebase", "old", "--no-deploy"]).await;
    assert!(ended.code == 0 && ended.stdout.contains("is moved by build 3, not deployed"), "{}", ended.stdout);
}
