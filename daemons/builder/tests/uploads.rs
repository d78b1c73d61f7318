//! Packages that arrive in parts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dinp_common::api::builder::BuildStatus;
use reqwest::Method;
use serde_json::{Value, json};
use support::{World, digest, eventually, tar_gz};

fn begin(package: &[u8], version: &str, user: &str) -> Value {
    json!({
        "bytes": package.len(),
        "sha256": digest(package).trim_start_matches("sha256:"),
        "build": {"app": "web", "version": version, "runtime": "x", "user": user, "owner": "team1", "package": "web.tar.gz"},
    })
}

async fn ask(world: &World, method: Method, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = world.request(method, path).header("content-type", "application/json").body(body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

async fn post(world: &World, body: &Value) -> (u16, Value) {
    ask(world, Method::POST, "/v1/uploads", body.to_string()).await
}

async fn patch(world: &World, id: &str, offset: usize, part: Vec<u8>) -> (u16, Value) {
    ask(world, Method::PATCH, &format!("/v1/uploads/{id}?user=ann&offset={offset}"), part).await
}

fn id(upload: &Value) -> String {
    upload["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_goes_on_where_it_stopped_also_after_a_restart() {
    let mut world = World::with_layer().await;
    let package = tar_gz(&[("app.py", "x"), ("run", "y")]);
    let half = package.len() / 2;
    let (status, upload) = post(&world, &begin(&package, "v1", "ann")).await;
    assert_eq!((status, upload["offset"].as_u64(), upload["app"].as_str()), (201, Some(0), Some("web")), "{upload}");
    let (id, path) = (id(&upload), format!("/v1/uploads/{}?user=ann", id(&upload)));

    // A connection that breaks: half of what it announces comes.
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let url = format!("/v1/uploads/{id}?user=ann&offset=0");
    let sending = tokio::spawn(world.request(Method::PATCH, &url).body(body).send());
    sender.send(Ok(package[..half].to_vec())).await.unwrap();
    let part = world.dir.path().join(format!("state/uploads/{id}.part"));
    let arrived = async || (part.metadata().unwrap().len() == half as u64).then_some(());
    eventually("half of it is here", arrived).await;
    sender.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.unwrap();
    drop(sending.await.unwrap());

    let (_, seen) = ask(&world, Method::GET, &path, "").await;
    assert_eq!(seen["offset"].as_u64(), Some(half as u64), "{seen}");
    let (status, problem) = patch(&world, &id, 0, package.clone()).await;
    assert_eq!((status, problem["offset"].as_u64()), (409, Some(half as u64)), "{problem}");
    let (status, problem) = ask(&world, Method::POST, &format!("/v1/uploads/{id}/build?user=ann"), "").await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:dinp:upload-incomplete")), "{problem}");

    world.stop_builder().await;
    world.start_builder().await;
    let (status, again) = post(&world, &begin(&package, "v2", "ann")).await;
    assert_eq!((status, again["offset"].as_u64()), (201, Some(half as u64)), "{again}");
    assert_eq!(again["id"], upload["id"], "the same bytes of the same person need not be sent twice");
    let (_, other) = post(&world, &begin(&package, "v1", "eve")).await;
    assert_eq!(other["offset"], 0, "nobody learns what others have");
    let (status, _) = ask(&world, Method::GET, &format!("/v1/uploads/{id}?user=eve"), "").await;
    assert_eq!(status, 404);

    let (status, upload) = patch(&world, &id, half, package[half..].to_vec()).await;
    assert_eq!((status, upload["offset"].as_u64()), (200, Some(package.len() as u64)), "{upload}");
    let (status, problem) = patch(&world, &id, package.len(), b"more".to_vec()).await;
    assert_eq!((status, problem["type"].as_str()), (422, Some("urn:dinp:too-long")), "{problem}");
    let build = async || ask(&world, Method::POST, &format!("/v1/uploads/{id}/build?user=ann"), "").await;
    let (status, first) = build().await;
    assert_eq!((status, first["version"].as_str()), (202, Some("v2")), "{first}");
    assert_eq!(build().await.1["id"], first["id"], "an answer that was lost is given again");
    world.succeeded(first["id"].as_u64().unwrap()).await;
    world.stop_builder().await;
    world.start_builder().await;
    let (status, again) = ask(&world, Method::POST, &format!("/v1/uploads/{id}/build?user=ann"), "").await;
    assert_eq!((status, &again["id"]), (202, &first["id"]), "also after a restart");
    let (status, _) = ask(&world, Method::DELETE, &path, "").await;
    assert_eq!((status, ask(&world, Method::GET, &path, "").await.0), (204, 404));
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_were_announced_are_not_built_and_a_refused_package_need_not_be_sent_again() {
    let mut world = World::with_layer().await;
    let package = tar_gz(&[("run", "x")]);
    let (_, upload) = post(&world, &begin(&package, "v1", "ann")).await;
    let mut changed = package.clone();
    *changed.last_mut().unwrap() ^= 1;
    patch(&world, &id(&upload), 0, changed).await;
    let build = async |upload: &Value| {
        ask(&world, Method::POST, &format!("/v1/uploads/{}/build?user=ann", id(upload)), "").await
    };
    let (status, problem) = build(&upload).await;
    assert_eq!((status, problem["type"].as_str()), (422, Some("urn:dinp:upload-damaged")), "{problem}");

    let mut unclear = begin(&package, "v1", "ann");
    unclear["build"]["runtime"] = Value::Null;
    let (_, upload) = post(&world, &unclear).await;
    assert_eq!(upload["offset"], 0, "what was damaged is forgotten");
    patch(&world, &id(&upload), 0, package.clone()).await;
    let (status, problem) = build(&upload).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("runtime")), "{problem}");
    let (_, upload) = post(&world, &begin(&package, "v1", "ann")).await;
    assert_eq!(upload["offset"].as_u64(), Some(package.len() as u64));
    let (status, built) = build(&upload).await;
    assert_eq!(status, 202, "{built}");
    assert_eq!(world.ended(built["id"].as_u64().unwrap()).await.status, BuildStatus::Succeeded);

    for (wrong, field) in [(json!({"bytes": 0}), "package"), (json!({"sha256": "AB"}), "sha256")] {
        let mut body = begin(&package, "v2", "ann");
        body.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let (status, problem) = post(&world, &body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
    }
    let (status, problem) = post(&world, &begin(&package, "v1", "ann")).await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:dinp:version-exists")), "before a byte is sent");
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_gets_old_also_while_its_builder_sleeps() {
    let mut world = World::with_layer().await;
    let package = tar_gz(&[("run", "x")]);
    let (_, upload) = post(&world, &begin(&package, "v1", "ann")).await;
    world.stop_builder().await;
    let (directory, id) = (world.dir.path().join("state/uploads"), id(&upload));
    let path = |end: &str| directory.join(format!("{id}.{end}"));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    std::fs::File::options().append(true).open(path("part")).unwrap().set_modified(long_ago).unwrap();
    world.start_builder().await;
    let (status, _) = ask(&world, Method::GET, &format!("/v1/uploads/{id}?user=ann"), "").await;
    assert_eq!((status, path("part").exists(), path("json").exists()), (404, false, false));
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_dies_without_a_word_holds_nothing_up() {
    let mut world = World::with_layer().await;
    let noise: String = (0..200_000_u32).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
    let package = tar_gz(&[("run", &noise)]);
    let (_, upload) = post(&world, &begin(&package, "v1", "ann")).await;
    let (id, path) = (id(&upload), format!("/v1/uploads/{}?user=ann", id(&upload)));
    let mut came = 0;
    let mut hanging = Vec::new();
    for part in 1..=3 {
        // Each sends a piece, and then neither more nor an end.
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(1);
        let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let url = format!("/v1/uploads/{id}?user=ann&offset={came}");
        let end = package.len() * part / 4;
        hanging.push((tokio::spawn(world.request(Method::PATCH, &url).body(body).send()), sender.clone()));
        sender.send(Ok(package[came..end].to_vec())).await.unwrap();
        came = end;
        let arrived = async || {
            let (_, upload) = ask(&world, Method::GET, &path, "").await;
            (upload["offset"].as_u64() == Some(came as u64)).then_some(())
        };
        eventually("the piece is counted", arrived).await;
    }
    // One whose program has gone.
    hanging.pop().unwrap().0.abort();
    let (status, upload) = patch(&world, &id, came, package[came..].to_vec()).await;
    assert_eq!((status, upload["offset"].as_u64()), (200, Some(package.len() as u64)), "{upload}");
    let (status, built) = ask(&world, Method::POST, &format!("/v1/uploads/{id}/build?user=ann"), "").await;
    assert_eq!(status, 202, "{built}");
    world.succeeded(built["id"].as_u64().unwrap()).await;
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_left_lying_about_keeps_nobody_from_uploading() {
    let mut world = World::with_layer().await;
    let packages: Vec<Vec<u8>> = (0..7).map(|n| tar_gz(&[("app.py", &format!("{n}"))])).collect();
    let mut uploads = Vec::new();
    for (n, package) in packages.iter().enumerate() {
        let (status, upload) = post(&world, &begin(package, &format!("v{n}"), "ann")).await;
        assert_eq!(status, 201, "{upload}");
        uploads.push(id(&upload));
    }
    let mut found = Vec::new();
    for id in &uploads {
        found.push(ask(&world, Method::GET, &format!("/v1/uploads/{id}?user=ann"), "").await.0);
    }
    assert_eq!(found, [404, 404, 200, 200, 200, 200, 200], "the ones that have waited longest give way");
    world.stop_builder().await;
}
