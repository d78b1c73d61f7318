//! A router that stops: who is connected gets an answer.

use crate::common::{Backend, Leader, Options, PATIENCE, Router, read_request};
use dinp_common::testing::{Redis, TestDir};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: tunnel.apps.localhost\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n";

async fn scene() -> (Redis, TestDir, Backend, Router) {
    let (redis, dir, backend, _, router) = whole_scene().await;
    (redis, dir, backend, router)
}

async fn whole_scene() -> (Redis, TestDir, Backend, Leader, Router) {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let mut leader = Leader::new(&redis).await;
    let mut options = Options::new(&redis, &dir);
    // One, so that all connections stop as one of them does.
    options.config.workers = 1;
    let router = Router::start(options).await;
    let backend = Backend::answering("hello").await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    (redis, dir, backend, leader, router)
}

async fn read_answer(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let read = tokio::time::timeout(PATIENCE, client.read_buf(&mut answer)).await.unwrap();
        assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

async fn read_to_end(mut client: TcpStream) -> String {
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn who_is_connected_is_answered_once_more() {
    let (_redis, _dir, _backend, router) = scene().await;
    let (mut used, mut in_a_head) = (connect(&router).await, connect(&router).await);
    let (mut silent, asks_later) = (connect(&router).await, connect(&router).await);
    used.write_all(GET).await.unwrap();
    let answer = read_answer(&mut used).await;
    assert!(!answer.contains("connection: close"), "{answer}");
    in_a_head.write_all(&GET[..10]).await.unwrap();
    let lifecycle = router.lifecycle.clone();
    let begun = Instant::now();
    let stopped = tokio::spawn(router.stop());
    lifecycle.shutdown().cancelled().await;

    loop {
        used.write_all(GET).await.unwrap();
        if read_answer(&mut used).await.contains("connection: close") {
            break;
        }
    }
    for (mut client, rest) in [(in_a_head, &GET[10..]), (asks_later, GET)] {
        client.write_all(rest).await.unwrap();
        let answer = read_to_end(client).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close\r\n"), "{answer}");
    }
    // Nobody who says nothing holds the stop up for long.
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    stopped.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_tunnel_that_stays_keeps_nobody_else_waiting() {
    let (_redis, _dir, _backend, mut leader, router) = whole_scene().await;
    let tunnels = Backend::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello")
            .await
            .unwrap();
        while read_request(&mut stream).await.is_some() {}
    })
    .await;
    router.applied(leader.publish("tunnel", &[tunnels.endpoint()]).await).await;
    let mut tunnel = connect(&router).await;
    tunnel.write_all(UPGRADE).await.unwrap();
    read_answer(&mut tunnel).await;
    let (http, lifecycle) = (router.http, router.lifecycle.clone());
    let stopped = tokio::spawn(router.stop());
    lifecycle.shutdown().cancelled().await;

    // Longer than anybody may stay silent.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let mut client = TcpStream::connect(http).await.unwrap();
        client.write_all(GET).await.unwrap();
        let answer = read_to_end(client).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!stopped.is_finished());
    // Another one that comes as late as this has no claim to the time after that.
    let mut late = TcpStream::connect(http).await.unwrap();
    late.write_all(UPGRADE).await.unwrap();
    read_answer(&mut late).await;
    drop(tunnel);
    let begun = Instant::now();
    stopped.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

async fn connect(router: &Router) -> TcpStream {
    TcpStream::connect(router.http).await.unwrap()
}
