//! Builds that are cut off, and what becomes of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use axum::Router;
use axum::routing::get;
use dinp_common::api::builder::BuildStatus;
use mysql_async::prelude::Queryable;
use support::{World, digest, eventually, tar_gz};

const APP: &str = "def app(environ, start): pass\n";

/// A builder that soon gives up others.
async fn world() -> World {
    let mut world = World::with_layer().await;
    world.give_up_secs = 1;
    world.stop_builder().await;
    world.start_builder().await;
    world
}

async fn sql(world: &World, text: &str) {
    world.pool.get_conn().await.unwrap().query_drop(text).await.unwrap();
}

/// Lets no build be recorded as ended well.
async fn hold_ends(world: &World) {
    sql(
        world,
        "CREATE TRIGGER hold BEFORE UPDATE ON build FOR EACH ROW IF NEW.status = 'succeeded' THEN \
         SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'held'; END IF",
    )
    .await;
}

/// A record of the builder's own whose package is nowhere.
async fn without_package(world: &World) {
    let image = format!("{}/team1/web:v1", world.registry.address());
    sql(
        world,
        &format!(
            "INSERT INTO build (app, version, runtime, created_by, builder, image_name) \
             VALUES ('web', 'v1', 'x', 'ann', 'builder1', '{image}')"
        ),
    )
    .await;
}

/// A record as another builder's, which is silent.
async fn of_another(world: &World, version: &str, package: &[u8], url: &str) -> u64 {
    let sha256 = digest(package).trim_start_matches("sha256:").to_owned();
    let image = format!("{}/team1/web:{version}", world.registry.address());
    let can_fetch = !url.is_empty();
    sql(
        world,
        &format!(
            "INSERT INTO build (app, version, runtime, created_by, builder, package_sha256, source, can_fetch_again, image_name, \
             beat_at) VALUES ('web', '{version}', 'x', 'ann', 'other', '{sha256}', '{url}', {can_fetch}, '{image}', \
             CURRENT_TIMESTAMP(3) - INTERVAL 10 SECOND)"
        ),
    )
    .await;
    let mut conn = world.pool.get_conn().await.unwrap();
    let id: Option<u64> = conn.query_first("SELECT MAX(id) FROM build").await.unwrap();
    id.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_image_was_pushed_and_whose_end_was_not_recorded_has_succeeded() {
    let mut world = world().await;
    world.stop_builder().await;
    hold_ends(&world).await;
    world.start_program().await;
    let id = world.begin("web", "v1", "x", tar_gz(&[("app.py", APP)])).await;
    eventually("the image is there", async || (!world.tags("team1/web").await.is_empty()).then_some(())).await;
    eventually("the log has ended", async || world.log(id).await.contains("done: ").then_some(())).await;
    world.stop_program().await;
    assert_eq!(world.build(id).await.status, BuildStatus::Running);
    sql(&world, "DROP TRIGGER hold").await;
    world.start_builder().await;
    world.succeeded(id).await;
    assert_eq!(world.build(id).await.attempt, 2);
    let log = world.log(id).await;
    assert!(log.contains("attempt 2\nthe attempt before has made the image\n"), "{log}");
    let kept = std::fs::read_dir(world.dir.path().join("state/builds")).unwrap().count();
    assert_eq!(kept, 0, "nothing is kept of a build that has ended");
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_package_is_gone_ends_and_says_what_to_do() {
    let mut world = world().await;
    world.stop_builder().await;
    without_package(&world).await;
    world.start_builder().await;
    let build = world.ended(1).await;
    assert_eq!(build.status, BuildStatus::Failed);
    assert!(build.reason.starts_with("lost: upload the package again"), "{}", build.reason);
    let id = world.begin("web", "v1", "x", tar_gz(&[("app.py", APP)])).await;
    world.succeeded(id).await;
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_build_never_began_ends_while_its_builder_runs() {
    let mut world = world().await;
    without_package(&world).await;
    let build = world.ended(1).await;
    assert!(build.reason.starts_with("lost: upload the package again"), "{}", build.reason);
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_builder_had_is_taken_over_where_its_package_can_be_fetched_and_else_ends() {
    let mut world = world().await;
    let package = tar_gz(&[("app.py", APP)]);
    let (served, listener) = (package.clone(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("http://{}/web.tar.gz", listener.local_addr().unwrap());
    let app = Router::new().route("/web.tar.gz", get(async move || served));
    tokio::spawn(async move { axum::serve(listener, app).await });
    world.stop_builder().await;
    world.fetch.networks = vec!["127.0.0.0/8".parse().unwrap()];
    // Of an app that is gone nothing is built.
    sql(&world, "INSERT INTO app (name, owner, instances, rev) VALUES ('web', 'ann', 1, 1)").await;
    let fetched = of_another(&world, "v1", &package, &url).await;
    let changed = of_another(&world, "v2", b"another", &url).await;
    let uploaded = of_another(&world, "v3", &package, "").await;
    let unwanted = of_another(&world, "v4", &package, "").await;
    let alive = of_another(&world, "v5", &package, "").await;
    sql(&world, &format!("UPDATE build SET beat_at = NOW() + INTERVAL 1 HOUR WHERE id = {alive}")).await;
    world.start_builder().await;
    let path = format!("/v1/builds/{unwanted}");
    let asked = world.request(reqwest::Method::DELETE, &path).send().await.unwrap();
    assert_eq!(asked.status(), 202, "it is not here, but heard of");
    world.succeeded(fetched).await;
    let build = world.build(fetched).await;
    assert_eq!((build.builder.as_str(), build.attempt), ("builder1", 2));
    let log = world.log(fetched).await;
    assert!(log.contains("because builder other is silent"), "{log}");
    let reason = async |id| world.ended(id).await.reason;
    assert_eq!(reason(changed).await, format!("what is at {url} now is another package"));
    assert!(reason(uploaded).await.starts_with("lost: upload the package again (builder other, which had it"));
    assert_eq!(world.ended(unwanted).await.status, BuildStatus::Cancelled);
    assert_eq!(world.build(alive).await.status, BuildStatus::Running, "its builder speaks");
    world.stop_builder().await;
}
