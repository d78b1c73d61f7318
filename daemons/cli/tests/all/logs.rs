//! Output of instances, as people and programs get it.

use crate::support::World;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream;

const LINES: &str = "{\"at\":0,\"instance\":\"deadbeef00000001\",\"stream\":\"stdout\",\"text\":\"one\"}\n\
{\"at\":1,\"instance\":\"deadbeef00000001\",\"stream\":\"stdout\",\"text\":\"\"}\n\
{\"at\":1000,\"instance\":\"cafecafe00000001\",\"stream\":\"stderr\",\"text\":\"two \u{e4}\"}\n";

async fn world() -> World {
    // Cut at any byte, as networks do.
    let logs = async || {
        let bytes = LINES.as_bytes().chunks(7).map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk)));
        Body::from_stream(stream::iter(bytes.collect::<Vec<_>>()))
    };
    World::new(Router::new().route("/v1/apps/hello/logs", get(logs))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_bear_their_instance_and_blank_ones_stay() {
    let world = world().await;
    let ended = world.dinp(&["logs", "hello", "-f", "--tail", "5"]).await;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "deadbeef one\ndeadbeef \ncafecafe two \u{e4}\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(world.requests(), ["GET /v1/apps/hello/logs?tail=5&follow=true"]);
    let ended = world.dinp(&["logs", "hello", "-t"]).await;
    assert!(ended.stdout.starts_with("1970-01-01 00:00:00 UTC deadbeef one\n"), "{}", ended.stdout);
    let ended = world.dinp(&["logs", "hello", "-o", "json"]).await;
    assert_eq!(ended.stdout, LINES);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_named_by_its_first_digits() {
    let world = world().await;
    let ended = world.dinp(&["logs", "hello", "-i", "cafecafe"]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(world.requests().last().unwrap(), "GET /v1/apps/hello/logs?instance=cafecafe&tail=100&follow=false");
    let ended = world.dinp(&["logs", "hello", "--previous"]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(world.requests().last().unwrap(), "GET /v1/apps/hello/logs?tail=100&follow=false&previous=true");
    assert_eq!(world.dinp(&["logs", "hello", "--previous", "-f"]).await.code, 64);
    let ended = world.dinp(&["logs", "hello", "-i", "beef stew"]).await;
    assert_eq!(ended.code, 65, "{}", ended.stderr);
}
