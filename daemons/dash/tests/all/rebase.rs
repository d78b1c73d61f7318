//! Images of an app as a person sees them, puts them on a patched base, and deletes them.

use crate::stage::Stage;
use crate::walk::fresh_app;
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn the_image_in_force_is_what_the_builder_is_asked_to_move() {
    let stage = Stage::set().await;
    let dora = stage.token("dora").await;
    let (deployment, _) = fresh_app(&stage, "web").await;
    let ask = async |token: &str| stage.call(token, Method::POST, "/v1/apps/web/rebase", json!({"check": true})).await;
    let (status, problem) = ask(&dora).await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:dinp:no-release")), "{problem}");
    stage.succeed(deployment).await;
    let (status, view) = ask(&dora).await;
    assert_eq!((status, view["standing"].as_str()), (200, Some("current")), "{view}");
    let asked = view["was"].as_str().unwrap();
    assert!(asked.ends_with("/anna/web:v1 for shop by dora, check true"), "{asked}");
    assert_eq!(ask(&stage.token("vera").await).await.0, 403, "a viewer may not");
}

#[tokio::test]
async fn images_are_listed_and_deleted_by_their_versions() {
    let stage = Stage::set().await;
    let dora = stage.token("dora").await;
    let (_, build) = fresh_app(&stage, "web").await;
    let digest = "0".repeat(64);
    stage
        .sql(&format!(
            "INSERT INTO image (app, version, repository, digest, build_id) \
             VALUES ('web', 'v1', 'anna/web', 'sha256:{digest}', {build})"
        ))
        .await;
    let (_, images) = stage.call(&dora, Method::GET, "/v1/apps/web/images", Value::Null).await;
    let image = &images["items"][0];
    assert_eq!((image["version"].as_str(), image["is_named"].as_bool()), (Some("v1"), Some(false)), "{images}");
    let delete = async |version: &str| {
        let path = format!("/v1/apps/web/images/{version}");
        stage.call(&dora, Method::DELETE, &path, Value::Null).await.0
    };
    assert_eq!((delete("v1").await, delete("used").await, delete("a%20b").await), (204, 409, 422));
    let told = stage.text("SELECT object FROM audit_event WHERE action = 'image.delete'").await;
    assert_eq!(told, "app/web version v1");
}
