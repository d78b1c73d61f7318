//! An app's image on its patched base, as a person asks for it.

use crate::stage::Stage;
use crate::walk::fresh_app;
use reqwest::Method;
use serde_json::json;

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
