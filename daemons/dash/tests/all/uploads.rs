//! Packages in parts, as a person's program sends them, and the builder's side of it, played.

use crate::played::{Played, record};
use crate::stage::Stage;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use dinp_common::problem::Problem;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type Shared = State<Arc<Played>>;
type Words = Query<BTreeMap<String, String>>;

/// The builder's endpoints.
pub fn played() -> Router<Arc<Played>> {
    Router::new()
        .route("/v1/uploads", post(begin))
        .route("/v1/uploads/{id}", get(show).patch(append).delete(forget))
        .route("/v1/uploads/{id}/build", post(build))
}

fn view(id: &str, (begun, offset): &(Value, usize)) -> Json<Value> {
    let app = &begun["build"]["app"];
    Json(json!({"id": id, "app": app, "offset": offset, "bytes": begun["bytes"], "kept_secs": 3600}))
}

/// The upload, if it is this person's.
fn find(played: &Played, id: &str, words: &Words) -> Result<(Value, usize), Problem> {
    let uploads = played.uploads.lock().unwrap();
    let found = uploads.get(id).filter(|(begun, _)| begun["build"]["user"] == words["user"].as_str());
    found.cloned().ok_or_else(|| Problem::not_found("there is no upload"))
}

async fn begin(State(played): Shared, Json(begun): Json<Value>) -> (StatusCode, Json<Value>) {
    let mut uploads = played.uploads.lock().unwrap();
    let id = format!("{:032x}", uploads.len());
    let upload = (begun, 0);
    let view = view(&id, &upload);
    uploads.insert(id, upload);
    (StatusCode::CREATED, view)
}

async fn show(State(played): Shared, Path(id): Path<String>, words: Words) -> Result<Json<Value>, Problem> {
    Ok(view(&id, &find(&played, &id, &words)?))
}

async fn append(
    State(played): Shared,
    Path(id): Path<String>,
    words: Words,
    part: Bytes,
) -> Result<Json<Value>, Problem> {
    let (begun, offset) = find(&played, &id, &words)?;
    if words["offset"] != offset.to_string() {
        return Err(Problem::conflict("wrong-offset", "go on elsewhere").with("offset", offset));
    }
    let upload = (begun, offset + part.len());
    let view = view(&id, &upload);
    played.uploads.lock().unwrap().insert(id, upload);
    Ok(view)
}

async fn forget(State(played): Shared, Path(id): Path<String>, words: Words) -> Result<StatusCode, Problem> {
    find(&played, &id, &words)?;
    played.uploads.lock().unwrap().remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

async fn build(
    State(played): Shared,
    Path(id): Path<String>,
    words: Words,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (begun, offset) = find(&played, &id, &words)?;
    let order = begun["build"].as_object().unwrap().iter();
    let order = order.map(|(name, value)| (name.clone(), value.as_str().map_or(value.to_string(), str::to_owned)));
    record(&played, order.collect(), offset).await
}

#[tokio::test]
async fn a_package_in_parts_is_its_senders_and_built_for_who_may_deploy_by_then() {
    let stage = Stage::set().await;
    let dora = stage.token("dora").await;
    assert_eq!(stage.call(&dora, Method::POST, "/v1/apps", json!({"name": "web", "team": "shop"})).await.0, 201);
    let asked = json!({"app": "web", "version": "v1", "package": "web.tar.gz", "note": "the new login", "suite": "trixie",
        "bytes": 10});
    let (status, upload) = stage.call(&dora, Method::POST, "/v1/uploads", asked.clone()).await;
    assert_eq!((status, upload["offset"].as_u64()), (201, Some(0)), "{upload}");
    let path = format!("/v1/uploads/{}", upload["id"].as_str().unwrap());
    let patch = async |token: &str, offset: usize, part: &'static str| {
        let url = format!("{}{path}?offset={offset}", stage.url);
        let answer = stage.http.patch(url).bearer_auth(token).body(part).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(patch(&dora, 0, "01234").await.1["offset"], 5);
    let (status, problem) = patch(&dora, 0, "0123456789").await;
    assert_eq!((status, problem["offset"].as_u64()), (409, Some(5)), "{problem}");
    let admin = stage.token("admin").await;
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(stage.call(&admin, method, &path, Value::Null).await.0, 404, "not even an admin's");
    }
    assert_eq!(patch(&admin, 5, "56789").await.0, 404);
    assert_eq!(patch(&dora, 5, "56789").await.1["offset"], 10);
    let (status, build) = stage.call(&dora, Method::POST, &format!("{path}/build"), Value::Null).await;
    assert_eq!((status, build["version"].as_str(), build["note"].as_str()), (202, Some("v1"), Some("the new login")));
    let (seen, size) = stage.played.packages.lock().unwrap().pop().unwrap();
    assert_eq!((size, seen["owner"].as_str(), seen["user"].as_str()), (10, "shop", "dora"));
    assert_eq!(seen["suite"], "trixie");
    assert_eq!(stage.call(&dora, Method::DELETE, &path, Value::Null).await.0, 204);
    assert_eq!(stage.call(&dora, Method::GET, "/v1/uploads/..%2Fbuilds", Value::Null).await.0, 404);

    // What is refused is refused before the first byte.
    let with = |name: &str, value: Value| {
        let mut asked = asked.clone();
        asked[name] = value;
        asked
    };
    for (asked, status, field) in [
        (with("bytes", json!(5_000_000)), 413, "package"),
        (with("version", json!("a/b")), 422, "version"),
        (with("runtime", json!("No")), 422, "runtime"),
        (with("note", json!("two\nlines")), 422, "note"),
        (with("note", json!("x".repeat(256))), 422, "note"),
    ] {
        let (seen, problem) = stage.call(&dora, Method::POST, "/v1/uploads", asked.clone()).await;
        assert_eq!((seen, problem["field"].as_str()), (status, Some(field)), "{asked}: {problem}");
    }

    // Who was let in when it began may be out when it is whole.
    let (_, upload) = stage.call(&dora, Method::POST, "/v1/uploads", asked).await;
    let build = format!("/v1/uploads/{}/build", upload["id"].as_str().unwrap());
    assert_eq!(stage.call(&admin, Method::DELETE, "/v1/teams/shop/members/dora", Value::Null).await.0, 204);
    let (status, _) = stage.call(&dora, Method::POST, &build, Value::Null).await;
    assert!([403, 404].contains(&status), "{status}");
}
