//! Images that nobody needs any more.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use axum::routing::get;
use axum::{Json, Router};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::{World, tar_gz};

async fn sql(world: &World, text: &str) {
    world.pool.get_conn().await.unwrap().query_drop(text).await.unwrap();
}

/// A leader that says this of what runs.
async fn leader(view: Arc<Mutex<Value>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new()
        .route("/v1/upkeep", get(async move || Json(view.lock().unwrap().clone())))
        .route("/v1/leader", get(async || Json(json!({"leads": true, "epoch": 1}))));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn release(id: u32, image: &str) -> String {
    format!(
        "INSERT INTO `release` (id, app, number, image, memory_mb, cpu_millis, env_version, instances, domains, created_by, rev) \
         VALUES ({id}, 'web', {id}, '{image}', 256, 100, 0, 1, '[]', 'dora', 1)"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn only_old_images_of_builders_that_no_release_and_no_other_tag_names_go() {
    let mut world = World::with_layer().await;
    sql(&world, "INSERT INTO app (name, owner, instances, rev) VALUES ('web', 'ann', 1, 1)").await;
    let mut images = Vec::new();
    for version in ["old", "released", "tagged", "new"] {
        let id = world.begin("web", version, "x", tar_gz(&[("run", version)])).await;
        images.push((id, world.succeeded(id).await));
    }
    sql(&world, "UPDATE image SET pushed_at = pushed_at - INTERVAL 15 DAY WHERE version <> 'new'").await;
    sql(&world, &release(7, &images[1].1)).await;
    // A company's own pipeline: an image of its own, and a name for one of ours.
    world.registry.put_image("team1/web", "theirs", &[Vec::new()], json!({})).await;
    let tagged = world.registry.get("team1/web", "manifests/tagged").await;
    world.registry.put_manifest("team1/web", "prod", tagged).await;

    let view = Arc::new(Mutex::new(json!({"releases": [7], "waits_for": "the database is older than what runs"})));
    let url = leader(view.clone()).await;
    let upkeep = async |more: &[&str]| world.run_program(&url, &[&["upkeep"], more].concat()).await;
    let tags = async || {
        let mut tags = world.tags("team1/web").await;
        tags.sort();
        tags.join(" ")
    };
    let all = "new old prod released tagged theirs";
    assert_eq!(upkeep(&[]).await, "nothing is deleted: the database is older than what runs\n");
    *view.lock().unwrap() = json!({"releases": [7, 8]});
    assert_eq!(upkeep(&[]).await, "nothing is deleted: instances run of release 8, which no row knows\n");
    *view.lock().unwrap() = json!({"releases": [7]});
    let digest = |image: &str| image.split_once('@').unwrap().1.to_owned();
    let (old, tagged) = (digest(&images[0].1), digest(&images[2].1));
    let said = upkeep(&["--check"]).await;
    assert_eq!(said, format!("team1/web:old@{old} would be deleted\nteam1/web:tagged@{tagged} would be deleted\n"));
    assert_eq!(tags().await, all);
    let said = upkeep(&[]).await;
    assert_eq!(
        said,
        format!(
            "team1/web:old@{old} is deleted\nteam1/web:tagged@{tagged} stays: the tag prod points to it, too\n\
             1 images are deleted, 1 stay\n"
        )
    );
    assert_eq!(tags().await, "new prod released tagged theirs");
    let build = world.build(images[0].0).await;
    assert_eq!(
        (build.image, build.reason.as_str()),
        (None, "its image was deleted: no release has named it for 14 days")
    );

    // A person deletes one by its version, and none that is needed.
    let since: Option<i64> = {
        let mut conn = world.pool.get_conn().await.unwrap();
        conn.query_first("SELECT CAST(UNIX_TIMESTAMP(created_at) * 1000 AS SIGNED) FROM app").await.unwrap()
    };
    sql(&world, "UPDATE app SET created_at = created_at - INTERVAL 30 DAY").await;
    let since = since.unwrap() - 30 * 86_400_000;
    let delete = async |version: &str| {
        let body = json!({"app": "web", "app_created_at": since, "version": version, "user": "ann"});
        let answer = world.request(reqwest::Method::POST, "/v1/images/delete").json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default()["type"].clone())
    };
    assert_eq!(delete("released").await, (409, json!("urn:dinp:image-in-use")));
    assert_eq!(delete("tagged").await, (409, json!("urn:dinp:image-stays")));
    assert_eq!(delete("theirs").await.0, 404, "no builder has pushed it");
    assert_eq!(delete("new").await.0, 204);
    assert_eq!(tags().await, "prod released tagged theirs");
    world.stop_builder().await;
}
