//! curl: a command for each case.

use crate::{KEPT, Program, Said, Scene, finished};

/// Bytes of a body that an app does not want.
const LARGE: usize = 32 << 20;
/// What is said behind each answer: its status, and how many connections were made for it.
const TOLD: &str = "\n%{http_code} %{num_connects}\n";

/// Runs curl, and compares what it prints.
async fn expect<const N: usize>(arguments: [&str; N], wanted: &str) {
    let said = said(arguments).await;
    assert!(said.status.is_some_and(|status| status.success()), "{arguments:?}: {}{}", said.out, said.errors);
    assert_eq!(said.out, wanted, "{arguments:?}: {}", said.errors);
}

async fn said<const N: usize>(arguments: [&str; N]) -> Said {
    // Not with what the person who runs the tests has set.
    let usual = ["--disable", "--silent", "--show-error", "--max-time", "30", "--write-out", TOLD];
    let arguments = usual.into_iter().chain(arguments).map(str::to_owned).collect();
    let program = Program { name: "curl", package: "curl", arguments, environment: Vec::new() };
    finished(&program, &mut program.command()).await
}

/// A file with this body.
fn file(scene: &Scene, body: &[u8]) -> String {
    let path = scene.dir.path().join("body");
    std::fs::write(&path, body).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn bodies() {
    let scene = Scene::new().await;
    let megabyte: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
    let body = format!("@{}", file(&scene, &megabyte));
    let back = scene.dir.path().join("back");
    for (path, header, goes_on) in [
        ("/echo", "Expect:", false),
        ("/echo", "Transfer-Encoding: chunked", false),
        ("/echo", "Expect: 100-continue", true),
        ("/silent", "Expect: 100-continue", true),
    ] {
        let url = format!("{}{path}", scene.url());
        let to = back.to_str().unwrap();
        // It would wait for 100 for longer than the case may take.
        let said = said([
            "--expect100-timeout",
            "60",
            "--dump-header",
            "-",
            "--data-binary",
            &body,
            "--header",
            header,
            "--output",
            to,
            &url,
        ])
        .await;
        let begin = if goes_on { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" } else { "HTTP/1.1 200 OK\r\n" };
        assert!(
            said.out.starts_with(begin) && said.out.ends_with("\n200 1\n"),
            "{header}: {}{}",
            said.out,
            said.errors
        );
        assert!(std::fs::read(&back).unwrap() == megabyte, "{path} {header}");
        std::fs::remove_file(&back).unwrap();
    }
    scene.router.stop().await;
}

#[tokio::test]
async fn answers() {
    let scene = Scene::new().await;
    let (url, keep) = (|path: &str| format!("{}{path}", scene.url()), format!("{}/keep", scene.url()));
    let kept = format!("kept\n200 1\n{}", "kept\n200 0\n".repeat(KEPT - 1));
    expect([&url(&format!("/keep?[1-{KEPT}]"))], &kept).await;
    // Behind each of these the connection is good for another request.
    let then = "kept\n200 0\n";
    expect([&url("/trailers"), &keep], &format!("with trailers\n200 1\n{then}")).await;
    expect([&url("/empty"), &keep], &format!("\n204 1\n{then}")).await;
    expect([&url("/hints"), &keep], &format!("hinted\n200 1\n{then}")).await;
    let condition = ["--header", "If-None-Match: \"1\""];
    expect([condition[0], condition[1], &url("/same"), &keep], &format!("\n304 1\n{then}")).await;
    let said_of_head = said(["--head", &url("/head"), &url("/head")]).await.out;
    assert!(said_of_head.ends_with("\r\n\r\n\n200 0\n"), "{said_of_head}");
    assert_eq!(said_of_head.matches("content-length: 1000\r\n").count(), 2, "{said_of_head}");
    for (path, line) in [("/hints", "HTTP/1.1 103 Early Hints\r\n"), ("/trailers", "X-Sum: 13\r\n")] {
        let said = said(["--include", &url(path)]).await;
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
    scene.router.stop().await;
}

#[tokio::test]
async fn both_ways_at_once() {
    let scene = Scene::new().await;
    let sixteen: Vec<u8> = (0..4_u32 << 20).flat_map(u32::to_be_bytes).collect();
    let (body, back) = (format!("@{}", file(&scene, &sixteen)), scene.dir.path().join("back"));
    let url = format!("{}/duplex", scene.url());
    let chunked = ["--header", "Expect:", "--header", "Transfer-Encoding: chunked"];
    let to = ["--data-binary", &body, "--output", back.to_str().unwrap(), &url];
    let arguments: [&str; 9] = [&chunked[..], &to].concat().try_into().unwrap();
    expect(arguments, "\n200 1\n").await;
    assert!(std::fs::read(&back).unwrap() == sixteen);
    scene.router.stop().await;
}

#[tokio::test]
async fn other_versions() {
    let scene = Scene::new().await;
    let (keep, echo) = (format!("{}/keep", scene.url()), format!("{}/echo", scene.url()));
    // An offer of HTTP/2 is not taken, whether a body comes with it or not.
    expect(["--http2", &keep, &keep], "kept\n200 1\nkept\n200 0\n").await;
    expect(["--http2", "--data", "hello", &echo, &keep], "hello\n200 1\nkept\n200 0\n").await;
    let trailers = format!("{}/trailers", scene.url());
    expect(["--http1.0", "--header", "Connection: keep-alive", &keep, &keep], "kept\n200 1\nkept\n200 0\n").await;
    // What has no length ends with the connection.
    expect(["--http1.0", &trailers, &keep], "with trailers\n200 1\nkept\n200 1\n").await;
    scene.router.stop().await;
}

#[tokio::test]
async fn early_answers() {
    let scene = Scene::new().await;
    let body = format!("@{}", file(&scene, &vec![0; LARGE]));
    for path in ["/large", "/large/gone"] {
        let url = format!("{}{path}", scene.url());
        expect(["--header", "Expect:", "--data-binary", &body, &url], "too large\n413 1\n").await;
        // What it sends has no end.
        expect(["--request", "POST", "--header", "Expect:", "--upload-file", "/dev/zero", &url], "too large\n413 1\n")
            .await;
        // It does not send what is not wanted.
        let told = "\\n%{http_code} %{size_upload}\\n";
        let refused = ["--header", "Expect: 100-continue", "--data-binary", &body, "--write-out", told, &url];
        expect(refused, "too large\n413 0\n").await;
    }
    scene.router.stop().await;
}

#[tokio::test]
async fn unknown_host() {
    let scene = Scene::new().await;
    let told = "%{http_code} %{content_type}";
    for (accept, kind) in [("*/*", "text/plain; charset=utf-8"), ("application/json", "application/problem+json")] {
        let accept = format!("Accept: {accept}");
        let arguments = ["--header", &accept, "--output", "/dev/null", "--write-out", told, &scene.unknown()];
        expect(arguments, &format!("404 {kind}")).await;
    }
    scene.router.stop().await;
}
