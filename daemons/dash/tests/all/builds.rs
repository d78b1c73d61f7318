//! Packages on their way to the builder, and what comes back of them.

use crate::stage::Stage;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

const NONE: Value = Value::Null;

#[tokio::test]
async fn packages_pass_through_and_logs_come_back() {
    let stage = Stage::set().await;
    let dora = stage.token("dora").await;
    assert_eq!(stage.call(&dora, Method::POST, "/v1/apps", json!({"name": "web", "team": "shop"})).await.0, 201);
    let upload = |query: &str, body: Vec<u8>| {
        let request = stage.http.post(format!("{}/v1/builds?{query}", stage.url)).bearer_auth(&dora).body(body);
        async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.json::<Value>().await.unwrap())
        }
    };
    let query = "app=web&runtime=python&version=v1&package=web.tar.gz";
    let (status, build) = upload(query, vec![7; 3_000_000]).await;
    assert_eq!((status, &build["status"], &build["created_by"]), (202, &"running".into(), &"dora".into()), "{build}");
    let (seen, size) = stage.played.packages.lock().unwrap().pop().unwrap();
    assert_eq!((size, seen["owner"].as_str(), seen["user"].as_str()), (3_000_000, "shop", "dora"));
    // Who names no runtime leaves it to the builder.
    let (status, _) = upload("app=web&version=v0", vec![7; 100]).await;
    assert_eq!(status, 202);
    assert!(!stage.played.packages.lock().unwrap().pop().unwrap().0.contains_key("runtime"));
    let (status, problem) = upload("app=web&runtime=python", vec![7; 5_000_000]).await;
    assert_eq!((status, &problem["type"]), (413, &"urn:dinp:too-large".into()));
    let (status, problem) = upload("app=web&runtime=python", b"not an archive".to_vec()).await;
    assert_eq!((status, &problem["field"]), (422, &"package".into()));

    // The log is followed until the build ends.
    let id = build["id"].as_u64().unwrap();
    let response = stage
        .http
        .get(format!("{}/v1/builds/{id}/log?follow=true", stage.url))
        .bearer_auth(&dora)
        .send()
        .await
        .unwrap();
    let mut log = response.bytes_stream();
    assert_eq!(log.next().await.unwrap().unwrap(), "unpacking the package\n");
    let mut conn = stage.root.get_conn().await.unwrap();
    let deploy = "/v1/apps/web/deployments";
    let (_, early) = stage.call(&dora, Method::POST, deploy, json!({"build": id})).await;
    assert_eq!(early["type"], "urn:dinp:build-not-ready");
    use dinp_common::api::builder::BuildStatus;
    use dinp_common::store::build as builds;
    builds::append_log(&mut conn, id, 1, "pushed\n").await.unwrap();
    let image = format!("{}/anna/web:v1@{}", stage.registry, crate::played::DIGEST);
    builds::finish(&mut conn, "builder1", id, BuildStatus::Succeeded, "", Some(&image)).await.unwrap();
    let mut rest = Vec::new();
    while let Some(piece) = log.next().await {
        rest.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(String::from_utf8(rest).unwrap(), "pushed\n");
    let (_, whole) = stage.call(&dora, Method::GET, &format!("/v1/builds/{id}/log"), NONE).await;
    assert_eq!(whole, "unpacking the package\npushed\n");

    // As events, after the one that a reader has seen last.
    let events = stage.http.get(format!("{}/v1/builds/{id}/log?follow=true", stage.url)).bearer_auth(&dora);
    let events = events.header("accept", "text/event-stream").header("last-event-id", "0").send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let events = events.text().await.unwrap();
    let (piece, end) = events.split_once("\n\n").unwrap();
    assert_eq!(piece, "id: 1\ndata: {\"text\":\"pushed\\n\"}");
    assert!(end.starts_with("event: end\ndata: {") && end.contains("\"status\":\"succeeded\""), "{end}");

    // The result is deployed by its number.
    let (status, made) = stage.call(&dora, Method::POST, deploy, json!({"build": id})).await;
    assert_eq!((status, &made["release_number"]), (201, &1.into()), "{made}");
    let (_, second) = upload("app=web&runtime=python&version=v2", vec![7; 10]).await;
    let path = format!("/v1/builds/{}/cancel", second["id"]);
    assert_eq!(stage.call(&dora, Method::POST, &path, NONE).await.1["status"], "cancelled");
    assert_eq!(stage.call(&dora, Method::POST, &path, NONE).await.0, 409);
    let (_, list) = stage.call(&dora, Method::GET, "/v1/builds?limit=1", NONE).await;
    assert_eq!((list["items"].as_array().unwrap().len(), list["next"].is_string()), (1, true));
    let bert = stage.token("bert").await;
    assert_eq!(stage.call(&bert, Method::GET, "/v1/builds", NONE).await.1["items"], json!([]));
}

/// A package whose end comes when what is returned beside it is dropped.
pub fn slow_package() -> (tokio::sync::oneshot::Sender<()>, reqwest::Body) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let rest = async move {
        receiver.await.ok();
        Ok::<_, std::io::Error>("the end")
    };
    (sender, reqwest::Body::wrap_stream(stream::iter([Ok("the beginning")]).chain(stream::once(rest))))
}
