//! Pictures of every page, to look at: `DINP_SHOTS=<directory> cargo test -p dinp-dash --test all -- --ignored pictures`.
//! Needs chromium.

use crate::stage::Stage;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use reqwest::Method;
use serde_json::json;
use std::path::Path;

/// Dash as somebody sees who is signed in, without a cookie of the browser's own.
async fn signed_in(stage: &Stage, token: String) -> String {
    let (http, base) = (stage.http.clone(), stage.url.clone());
    crate::played::serve(Router::new().fallback(move |request: Request| {
        let (http, base, token) = (http.clone(), base.clone(), token.clone());
        async move {
            let path = request.uri().path_and_query().unwrap().to_string();
            let response =
                http.get(format!("{base}{path}")).header("cookie", format!("dinp_dash={token}")).send().await.unwrap();
            let mut answer = http::Response::new(Body::empty());
            *answer.status_mut() = response.status();
            *answer.headers_mut() = response.headers().clone();
            answer.headers_mut().remove("content-length");
            answer.headers_mut().remove("transfer-encoding");
            *answer.body_mut() = Body::from(response.bytes().await.unwrap());
            answer
        }
    }))
    .await
}

async fn shoot(directory: &Path, name: &str, url: &str, size: &str, dark: bool) {
    let data = directory.join("profile");
    let mut command = tokio::process::Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"])
        .args(["--virtual-time-budget=3000", &format!("--window-size={size}")])
        .arg(format!("--user-data-dir={}", data.display()))
        .arg(format!("--screenshot={}", directory.join(format!("{name}.png")).display()));
    if dark {
        command.arg("--blink-settings=preferredColorScheme=0");
    }
    let status = command
        .arg(url)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(status.success(), "{name}");
}

#[tokio::test]
#[ignore = "takes pictures of the pages, for people to look at; needs chromium"]
async fn pictures() {
    let directory = std::env::var("DINP_SHOTS").expect("DINP_SHOTS names a directory");
    let directory = Path::new(&directory);
    std::fs::create_dir_all(directory).unwrap();
    let stage = Stage::set().await;
    let admin = stage.token("admin").await;
    let fresh = stage.token("bert").await;
    let call = |method, path: &str, body| {
        let (stage, admin, path) = (&stage, &admin, path.to_owned());
        async move { stage.call(admin, method, &path, body).await }
    };
    let image = |tag: &str| format!("{}/anna/web:{tag}", stage.registry);
    for (name, team) in [("web", "shop"), ("api-gateway", "shop"), ("reports", "shop"), ("empty", "shop")] {
        call(Method::POST, "/v1/apps", json!({"name": name, "team": team})).await;
    }
    let mut first = 0;
    for (app, tag, note) in [
        ("web", "v1", "first release"),
        ("web", "v2", "new checkout page"),
        ("api-gateway", "v1", ""),
        ("reports", "v1", ""),
    ] {
        let wish = json!({"image": image(tag), "instances": 3, "note": note, "health": {"path": "/health"}});
        let (_, made) = call(Method::POST, &format!("/v1/apps/{app}/deployments"), wish).await;
        first = made["id"].as_u64().unwrap();
        stage.succeed(first).await;
    }
    stage.sql("UPDATE deployment SET state = 'rolled_back', reason = 'instance 5a21b0c4 on node2 was not ready within 60 s: GET /health answered 500' WHERE id = 3").await;
    call(Method::PATCH, "/v1/apps/web/env", json!({"set": {"DATABASE_URL": "x", "SECRET_KEY": "y"}, "deploy": false}))
        .await;
    call(Method::POST, "/v1/apps/web/domains", json!({"name": "shop.example.org"})).await;
    call(Method::POST, "/v1/apps/reports/stop", json!(null)).await;
    let (_, made) =
        call(Method::POST, "/v1/apps/web/deployments", json!({"image": image("v2"), "memory_mb": 512})).await;
    stage.sql(&format!(
        "UPDATE deployment SET state = 'rolling', reason = '2 of 3 new instances serve; waiting for router1 to confirm table 3-118' WHERE id = {}",
        made["id"]
    )).await;
    assert!(first > 0);
    *stage.played.instances.lock().unwrap() = vec![
        ("web".into(), "ready"),
        ("web".into(), "ready"),
        ("web".into(), "back_off"),
        ("web".into(), "starting"),
        ("api-gateway".into(), "ready"),
    ];
    stage.sql("INSERT INTO instance_event (app, instance, node, kind, detail) VALUES \
        ('web', '5a21b0c4d5e6f708', 'node1', 'start', 'release 2'), ('web', '5a21b0c4d5e6f708', 'node1', 'ready', ''), \
        ('web', '7b32c1d5e6f70819', 'node2', 'exit', 'exit code 137: out of memory'), ('web', NULL, NULL, 'placement_refused', 'no node has 512 MiB left')").await;
    let upload =
        stage.http.post(format!("{}/v1/builds?app=web&runtime=python&version=v3&package=shop-3.tar.gz", stage.url));
    let build: serde_json::Value =
        upload.bearer_auth(&admin).body(vec![7; 2_400_000]).send().await.unwrap().json().await.unwrap();
    let running = build["id"].clone();
    let upload =
        stage.http.post(format!("{}/v1/builds?app=web&runtime=python&version=v4&package=shop-4.tar.gz", stage.url));
    let build: serde_json::Value =
        upload.bearer_auth(&admin).body(vec![7; 900_000]).send().await.unwrap().json().await.unwrap();
    let finished = build["id"].clone();
    stage.sql(&format!(
        "INSERT INTO build_log (build_id, seq, text) VALUES ({finished}, 1, 'Step 1/6 : FROM base/python:3.11\\nStep 2/6 : COPY . /app\\nStep 3/6 : RUN true\\npushing {}\\n')",
        image("v4")
    )).await;
    stage.sql(&format!("UPDATE build SET status = 'succeeded', stage = 'done', finished_at = NOW(3) + INTERVAL 41 SECOND, image = '{}@{}' WHERE id = {finished}", image("v1"), crate::played::DIGEST)).await;
    stage.sql(&format!("UPDATE build SET stage = 'building the image' WHERE id = {running}")).await;

    let dash = signed_in(&stage, admin.clone()).await;
    let bert = signed_in(&stage, fresh).await;
    let pages: Vec<(&str, String)> = vec![
        ("apps", "/apps".into()),
        ("app-new", "/apps/new".into()),
        ("app", "/apps/web".into()),
        ("app-empty", "/apps/empty".into()),
        ("deploy", "/apps/web/deploy".into()),
        ("upload", "/apps/web/upload".into()),
        ("history", "/apps/web/history".into()),
        ("env", "/apps/web/env".into()),
        ("domains", "/apps/web/domains".into()),
        ("logs", "/apps/web/logs".into()),
        ("events", "/apps/web/events".into()),
        ("delete", "/apps/web/delete".into()),
        ("builds", "/builds".into()),
        ("build-done", format!("/builds/{finished}")),
        ("nodes", "/nodes".into()),
        ("people", "/people".into()),
    ];
    for (name, path) in &pages {
        shoot(directory, name, &format!("http://{dash}{path}"), "1200,900", false).await;
    }
    for (name, path) in [&pages[0], &pages[2], &pages[4], &pages[13]] {
        shoot(directory, &format!("{name}-phone"), &format!("http://{dash}{path}"), "500,1200", false).await;
        shoot(directory, &format!("{name}-dark"), &format!("http://{dash}{path}"), "1200,900", true).await;
    }
    shoot(directory, "apps-first", &format!("http://{bert}/apps"), "1200,700", false).await;
    shoot(directory, "signed-out", &format!("{}/signed-out", stage.url), "1200,500", false).await;
    shoot(directory, "uic-login", &format!("{}/login", stage.uic_url), "1200,700", false).await;
    shoot(directory, "uic-login-dark", &format!("{}/login", stage.uic_url), "500,700", true).await;
}
