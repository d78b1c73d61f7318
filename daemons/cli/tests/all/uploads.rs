//! Packages in parts, over connections that break.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::support::World;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dinp_common::problem::Problem;
use futures_util::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};

/// The one upload of a dashboard.
#[derive(Debug, Default)]
pub struct Upload {
    /// What was said of it.
    pub asked: Mutex<Value>,
    /// What has come.
    pub came: Mutex<Vec<u8>>,
    /// After how many bytes each part breaks off, and how.
    breaks: Mutex<VecDeque<(usize, Break)>>,
}

#[derive(Clone, Copy, Debug)]
enum Break {
    Connection,
    Builder,
}

/// Its endpoints.
pub fn played(upload: Arc<Upload>) -> Router {
    Router::new().route("/v1/uploads", post(begin)).route("/v1/uploads/5", get(show).patch(append)).with_state(upload)
}

fn view(upload: &Upload) -> Value {
    let (asked, came) = (upload.asked.lock().unwrap(), upload.came.lock().unwrap());
    json!({"id": "5", "app": asked["app"], "offset": came.len(), "bytes": asked["bytes"], "kept_secs": 3600})
}

async fn begin(State(upload): State<Arc<Upload>>, Json(asked): Json<Value>) -> (StatusCode, Json<Value>) {
    // As the builder does: the same bytes go on, others begin.
    if upload.asked.lock().unwrap()["sha256"] != asked["sha256"] {
        upload.came.lock().unwrap().clear();
    }
    *upload.asked.lock().unwrap() = asked;
    (StatusCode::CREATED, Json(view(&upload)))
}

async fn show(State(upload): State<Arc<Upload>>) -> Json<Value> {
    Json(view(&upload))
}

async fn append(State(upload): State<Arc<Upload>>, Query(query): Query<Value>, body: Body) -> Response {
    assert_eq!(query["offset"], upload.came.lock().unwrap().len().to_string(), "it goes on where it stopped");
    let broken = upload.breaks.lock().unwrap().pop_front();
    let end = broken.map_or(usize::MAX, |(bytes, _)| bytes);
    let mut chunks = body.into_data_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        let mut came = upload.came.lock().unwrap();
        let most = end.saturating_sub(came.len()).min(chunk.len());
        came.extend_from_slice(&chunk[..most]);
        if came.len() == end {
            break;
        }
    }
    match broken {
        None => Json(view(&upload)).into_response(),
        Some((_, Break::Builder)) => Problem::unavailable("builder-unavailable", "the builder is away").into_response(),
        // Whoever is connected sees the connection end.
        Some((_, Break::Connection)) => std::panic::resume_unwind(Box::new(())),
    }
}

async fn world(breaks: &[(usize, Break)]) -> (World, Arc<Upload>) {
    let upload = Arc::new(Upload { breaks: Mutex::new(breaks.iter().copied().collect()), ..Upload::default() });
    let build = json!({"id": 3, "app": "hello", "version": "v1", "runtime": "python", "created_by": "anna",
        "builder": "control", "status": "running", "stage": "queued", "started_at": 0});
    let endpoints =
        played(upload.clone()).route("/v1/uploads/5/build", post(async move || (StatusCode::ACCEPTED, Json(build))));
    (World::new(endpoints).await, upload)
}

fn noise(length: u32) -> Vec<u8> {
    (0..length).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_gets_through_connections_that_break_and_a_builder_that_restarts() {
    let (world, upload) = world(&[(1_000_000, Break::Connection), (3_000_000, Break::Builder)]).await;
    let bytes = noise(1_000_000);
    let package = world.file("app.tar.gz", &bytes);
    let args = ["build", package.to_str().unwrap(), "--app", "hello", "--note", "the new login", "--no-wait"];
    let ended = world.dinp(&args).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "build 3 of hello is running\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("trying again"), "{}", ended.stderr);
    assert!(*upload.came.lock().unwrap() == bytes, "each byte came once");
    let asked = upload.asked.lock().unwrap().clone();
    assert_eq!((&asked["note"], &asked["package"]), (&json!("the new login"), &json!("app.tar.gz")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_goes_on_where_the_one_before_was_ended() {
    let (world, upload) = world(&[]).await;
    let bytes = noise(100_000);
    let package = world.file("app.tar.gz", &bytes);
    let args = ["build", package.to_str().unwrap(), "--app", "hello", "--no-wait"];
    assert_eq!(world.dinp(&args).await.code, 0);
    upload.came.lock().unwrap().truncate(300_000);
    let ended = world.dinp(&args).await;
    let told = "going on where it broke off: 292.97 KiB of 390.62 KiB are there";
    assert!(ended.code == 0 && ended.stderr.contains(told), "{}", ended.stderr);
    assert!(*upload.came.lock().unwrap() == bytes);
}
