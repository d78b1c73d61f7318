//! Java's java.net.http and HttpURLConnection.

use crate::{KEPT, Program, Scene, source};

#[tokio::test]
async fn java() {
    let scene = Scene::new().await;
    let program = Program {
        name: "java",
        package: "default-jdk-headless",
        arguments: vec![source("Client.java")],
        environment: Vec::new(),
    };
    for case in ["keep-alive", "url-keep-alive"] {
        assert_eq!(scene.connections(&program, case).await, 1, "{case}: one connection for {KEPT} requests");
    }
    let own = [
        "duplex",
        "expect",
        "expect-silent",
        "expect-refused",
        "url-length",
        "url-chunked",
        "url-head",
        "url-early-answer",
        "url-early-answer-gone",
        "url-endless",
        "url-hints",
        "url-unknown-host",
    ];
    scene.cases(&program, &own).await;
    scene.router.stop().await;
}
