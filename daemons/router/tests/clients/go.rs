//! Go's net/http.

use crate::{KEPT, Program, Scene, source};
use std::path::Path;

#[tokio::test]
async fn go() {
    let scene = Scene::new().await;
    // Nothing of the person who runs the tests is used or changed. What is compiled is kept for the next time.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    let program = Program {
        name: "go",
        package: "golang-go",
        arguments: vec!["run".to_owned(), source("client.go")],
        environment: vec![
            ("GOCACHE", cache.join("cache")),
            ("GOPATH", cache),
            ("GOENV", "off".into()),
            ("GOFLAGS", "-mod=mod".into()),
            ("GOPROXY", "off".into()),
        ],
    };
    assert_eq!(scene.connections(&program, "keep-alive").await, 1, "one connection for {KEPT} requests");
    let own = ["endless-gone", "duplex", "events", "expect", "expect-silent", "expect-refused"];
    scene.cases(&program, &own).await;
    scene.router.stop().await;
}
