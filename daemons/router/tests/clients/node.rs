//! Node's http module, and fetch as Node has it.

use crate::{KEPT, Program, Scene, source};

#[tokio::test]
async fn node() {
    let scene = Scene::new().await;
    let program =
        Program { name: "node", package: "nodejs", arguments: vec![source("client.js")], environment: Vec::new() };
    assert_eq!(scene.connections(&program, "keep-alive").await, 1, "one connection for {KEPT} requests");
    // fetch takes a second one when it is asked before it has put the first one back, before any server.
    let fetched = scene.connections(&program, "fetch-keep-alive").await;
    assert!(fetched <= 2, "{fetched} connections for {KEPT} requests");
    let own = [
        "endless-gone",
        "duplex",
        "expect",
        "expect-silent",
        "expect-refused",
        "fetch-length",
        "fetch-chunked",
        "fetch-events",
        "fetch-trailers",
        "fetch-no-content",
        "fetch-hints",
        "fetch-early-answer",
        "fetch-unknown-host",
    ];
    scene.cases(&program, &own).await;
    scene.router.stop().await;
}
