//! Python's http.client and urllib.

use crate::{KEPT, Program, Scene, source};

#[tokio::test]
async fn python() {
    let scene = Scene::new().await;
    let program =
        Program { name: "python3", package: "python3", arguments: vec![source("client.py")], environment: Vec::new() };
    assert_eq!(scene.connections(&program, "keep-alive").await, 1, "one connection for {KEPT} requests");
    assert_eq!(scene.connections(&program, "urllib-closes").await, KEPT, "urllib asks once over each");
    let own = ["events", "urllib-post", "urllib-unknown-host", "urllib-early-answer"];
    scene.cases(&program, &own).await;
    scene.router.stop().await;
}
