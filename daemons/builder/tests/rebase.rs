//! Images whose base was patched, and apps whose host has another suite than before.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dinp_common::api::builder::BuildStatus;
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use support::{World, tar_gz};

/// A base image of one layer with these names; a directory's ends with a slash.
async fn base(world: &World, suite: &str, names: &[&str], patched: bool) {
    let mut tar = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if name.ends_with('/') { 0o700 } else { 0o755 });
        header.set_entry_type(if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_size(0);
        tar.append_data(&mut header, name, std::io::empty()).unwrap();
    }
    let config = json!({"Cmd": ["sh"], "Env": [format!("PATCHED={patched}")]});
    world.registry.put_image("dinp/base-x", suite, &[tar.into_inner().unwrap()], config).await;
}

async fn rebase(world: &World, image: &str, check: bool) -> Value {
    let mut conn = world.pool.get_conn().await.unwrap();
    let since: Option<i64> = conn
        .query_first("SELECT CAST(UNIX_TIMESTAMP(created_at) * 1000 AS SIGNED) FROM app WHERE name = 'web'")
        .await
        .unwrap();
    let body =
        json!({"app": "web", "app_created_at": since, "image": image, "user": "op", "owner": "team1", "check": check});
    let answer = world.request(reqwest::Method::POST, "/v1/rebases").json(&body).send().await.unwrap();
    let (status, view) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{view}");
    view
}

async fn manifest(world: &World, reference: &str) -> (Vec<String>, Value) {
    let manifest = world.registry.get("team1/web", &format!("manifests/{reference}")).await;
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].to_string()).collect();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = world.registry.get("team1/web", &format!("blobs/{config}")).await;
    (layers, serde_json::from_slice(&config).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_moved_to_its_patched_base_without_its_package() {
    let mut world = World::with_layer().await;
    let sql = "INSERT INTO app (name, owner, instances, rev) VALUES ('web', 'ann', 1, 1)";
    world.pool.get_conn().await.unwrap().query_drop(sql).await.unwrap();
    let id = world.begin("web", "v1", "x", tar_gz(&[("run", "x")])).await;
    let image = world.succeeded(id).await;
    assert_eq!(rebase(&world, &image, false).await["standing"], "current");

    base(&world, "test", &["bin/sh", "bin/patched"], true).await;
    let due = rebase(&world, &image, true).await;
    assert_eq!((due["standing"].as_str(), due["build"].is_null()), (Some("due"), true), "{due}");
    assert_ne!(due["was"], due["now"]);
    let moved = rebase(&world, &image, false).await;
    let build = moved["build"]["id"].as_u64().unwrap();
    let moved_to = world.succeeded(build).await;
    let record = world.build(build).await;
    assert_eq!((record.created_by.as_str(), record.package_bytes), ("op", None), "nobody has uploaded anything");
    assert_eq!((record.source.as_str(), Some(record.base.as_str())), (&*format!("build {id}"), due["now"].as_str()));
    assert_eq!(
        rebase(&world, &image, false).await["build"]["id"].as_u64(),
        Some(build),
        "asked twice, it is one build"
    );
    assert_eq!(rebase(&world, &moved_to, false).await["standing"], "current");

    let ((old, was), (new, now)) = (manifest(&world, "v1").await, manifest(&world, &record.version).await);
    assert_eq!((old.len(), new.len(), old.last()), (2, 2, new.last()), "the package's layer is the same");
    assert_ne!(old[0], new[0]);
    assert!(now["config"]["Env"].to_string().contains("PATCHED=true"), "{now}");
    assert_eq!(now["rootfs"]["diff_ids"][1], was["rootfs"]["diff_ids"][1]);
    let labels = |config: &Value| config["config"]["Labels"].clone();
    assert_eq!(labels(&now)["dinp.image.package"], labels(&was)["dinp.image.package"]);
    assert_eq!(labels(&now)["org.opencontainers.image.version"].as_str(), Some(record.version.as_str()));

    // A layer that would be another one on the new base is not put there.
    base(&world, "test", &["bin/sh", "app/"], true).await;
    let stuck = rebase(&world, &moved_to, false).await["build"]["id"].as_u64().unwrap();
    let stuck = world.ended(stuck).await;
    assert_eq!(stuck.status, BuildStatus::Failed);
    let reason = "its package is needed, deploy it again: the new base has other directories on the way to the package";
    assert_eq!(stuck.reason, reason);

    let other = format!("{}/team1/web:v9@sha256:{}", world.registry.address(), "0".repeat(64));
    let unknown = rebase(&world, &other, false).await;
    assert_eq!(
        (unknown["standing"].as_str(), unknown["reason"].as_str()),
        (Some("needs_package"), Some("its image was not built here"))
    );
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_stays_on_its_suite_until_it_is_moved() {
    let mut world = World::with_layer().await;
    let sql = "INSERT INTO app (name, owner, instances, rev) VALUES ('web', 'ann', 1, 1)";
    world.pool.get_conn().await.unwrap().query_drop(sql).await.unwrap();
    let build = async |world: &World, app: &str, version: &str, suite: Option<&str>| {
        let mut query = vec![("app", app), ("version", version), ("runtime", "x"), ("user", "ann"), ("owner", "team1")];
        query.extend(suite.map(|suite| ("suite", suite)));
        let (status, body) = world.upload(&query, tar_gz(&[("run", "x")])).await;
        if status != 202 {
            return body["detail"].as_str().unwrap().to_owned();
        }
        let id = body["id"].as_u64().unwrap();
        world.succeeded(id).await;
        let base = world.build(id).await.base;
        let tag = base.split_once('@').unwrap().0.rsplit(':').next().unwrap().to_owned();
        format!("{tag}; {}", world.log(id).await.lines().find(|line| line.contains("suite")).unwrap_or_default())
    };
    assert_eq!(build(&world, "web", "v1", None).await, "test; ");
    world.stop_builder().await;
    world.suite = "next".into();
    world.start_builder().await;
    base(&world, "next", &["bin/sh"], false).await;
    let stays = "test; stays on test, as the last build of the app: `--suite next` moves it";
    assert_eq!(build(&world, "web", "v2", None).await, stays);
    assert_eq!(build(&world, "new", "v1", None).await, "next; ", "a new app is on the new one");
    let unknown = build(&world, "web", "v3", Some("other")).await;
    assert!(unknown.starts_with("there is no base image ") && unknown.contains("base-x:other"), "{unknown}");
    assert!(build(&world, "web", "v3", Some("a b")).await.contains("is not valid"));
    assert_eq!(build(&world, "web", "v3", Some("next")).await, "next; ");
    assert_eq!(build(&world, "web", "v4", None).await, "next; ");
    world.stop_builder().await;
}
