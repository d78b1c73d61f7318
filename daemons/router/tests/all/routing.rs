//! Requests through a real table: hosts, headers, keep-alive, the router's own pages.

use crate::common;
use crate::common::{Backend, Leader, Options, PATIENCE, Router, eventually, ok, read_request, split};
use dinp_common::testing::{Redis, TestDir};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn setup() -> (Redis, TestDir, Leader, Router) {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let leader = Leader::new(&redis).await;
    let router = Router::start(Options::new(&redis, &dir)).await;
    (redis, dir, leader, router)
}

#[tokio::test]
async fn hosts_lead_to_apps() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let web = Backend::answering("web").await;
    let mut shop = common::routes("shop", &[Backend::answering("gone").await.endpoint()]);
    shop.endpoints.clear();
    leader.publish_routes(shop).await;
    let mut routes = common::routes("web", &[web.endpoint()]);
    routes.domains.push("www.example.org".into());
    let version = leader.publish_routes(routes).await;
    router.applied(version).await;

    assert_eq!(router.get("web.apps.localhost").await, (200, "web".into()));
    assert_eq!(router.get("WEB.apps.localhost.:8080").await, (200, "web".into()));
    assert_eq!(router.get("www.example.org").await, (200, "web".into()));
    let unknown = router.raw(b"GET / HTTP/1.1\r\nHost: none.example\r\nConnection: close\r\n\r\n").await;
    assert!(
        unknown.starts_with("HTTP/1.1 404 Not Found\r\n") && unknown.contains("x-dinp-error: unknown_host\r\n"),
        "{unknown}"
    );
    let empty = router.raw(b"GET / HTTP/1.1\r\nHost: shop.apps.localhost\r\nConnection: close\r\n\r\n").await;
    assert!(empty.starts_with("HTTP/1.1 503 ") && empty.contains("x-dinp-error: no_instances\r\n"), "{empty}");
    let head = router.raw(b"HEAD / HTTP/1.1\r\nHost: none.example\r\nConnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 404 ") && head.ends_with("\r\n\r\n"), "{head}");
    // One after the other, each of them on its own connection, all over the one that is kept to each worker's instance.
    assert!(web.connections() <= 2, "{}", web.connections());

    let report = router.report().await;
    assert_eq!((report.router.as_str(), report.counters[0].answers), ("router1", [0, 3, 0, 0, 0]));
    let routes: dinp_router::Routes =
        reqwest::get(format!("http://{}/v1/routes?app=web", router.status)).await.unwrap().json().await.unwrap();
    assert_eq!((routes.version, routes.apps.len()), (version, 1));
    router.stop().await;
}

#[tokio::test]
async fn what_the_app_sees() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let backend = Backend::start({
        let seen = seen.clone();
        move |_, mut stream| {
            let seen = seen.clone();
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    seen.lock().unwrap().push(request);
                    stream.write_all(b"HTTP/1.1 201 Created\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await.unwrap();
                }
            }
        }
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;

    let answer = router
        .raw(b"GET http://web.apps.localhost:81/a%20b?c=d HTTP/1.1\r\nHost: web.apps.localhost:81\r\nConnection: close, X-Secret\r\nX-Secret: s\r\nX-Forwarded-For: 10.9.9.9\r\nX-Request-Id: abc\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(
        answer.contains("\r\nX-End: 2\r\n") && !answer.contains("X-Hop") && answer.contains("x-request-id: abc\r\n"),
        "{answer}"
    );
    let request = seen.lock().unwrap().remove(0);
    assert!(request.starts_with("GET /a%20b?c=d HTTP/1.1\r\n"), "{request}");
    for line in [
        "Host: web.apps.localhost:81",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-port: 81",
        "x-forwarded-host: web.apps.localhost:81",
        "x-request-id: abc",
    ] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line} in {request}");
    }
    assert!(!request.contains("X-Secret") && !request.contains("onnection"), "{request}");

    // A body in chunks comes as chunks, even with a GET; one with a length keeps it; HTTP/1.0 is served.
    router.raw(b"GET /g HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let request = seen.lock().unwrap().remove(0);
    assert!(
        request.contains("transfer-encoding: chunked\r\n") && request.contains("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        "{request}"
    );
    router
        .raw(b"POST /p HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let request = seen.lock().unwrap().remove(0);
    assert!(request.contains("content-length: 3\r\n") && request.ends_with("\r\n\r\nabc"), "{request}");
    let old = router.raw(b"GET /o HTTP/1.0\r\nHost: web.apps.localhost\r\n\r\n").await;
    assert!(old.ends_with("\r\n\r\nhi") && !old.contains("chunked"), "{old}");
    assert!(seen.lock().unwrap().remove(0).starts_with("GET /o HTTP/1.1\r\n"));
    router.stop().await;
}

#[tokio::test]
async fn a_client_s_connection_serves_many_requests_and_pipelined_ones_in_order() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let backend = Backend::start(|_, mut stream| async move {
        while let Some(request) = read_request(&mut stream).await {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            stream.write_all(ok(&path).as_bytes()).await.unwrap();
        }
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let one = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: web.apps.localhost\r\n{more}\r\n");
    let pipelined = [
        one("/1", ""),
        one("/2", ""),
        one("/3", "Content-Length: 3\r\n"),
        "abc".into(),
        one("/4", "Connection: close\r\n"),
    ]
    .concat();
    let answer = router.raw(pipelined.as_bytes()).await;
    let bodies: Vec<&str> =
        answer.split("HTTP/1.1 200 OK").skip(1).map(|part| part.rsplit("\r\n\r\n").next().unwrap()).collect();
    assert_eq!(bodies, ["/1", "/2", "/3", "/4"]);
    // A refused request behind good ones gets its answer in order, and the connection ends with it.
    let mixed = [
        one("/1", ""),
        one("/2", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        "GET /evil HTTP/1.1\r\n".into(),
    ]
    .concat();
    let answer = router.raw(mixed.as_bytes()).await;
    let second = answer.find("HTTP/1.1 400 Bad Request").expect("a refusal");
    assert!(answer.find("HTTP/1.1 200 OK").is_some_and(|first| first < second), "{answer}");
    assert!(answer[second..].contains("connection: close\r\n") && !answer.contains("evil"), "{answer}");
    // At most one for each worker.
    assert!(backend.connections() <= 2);
    router.stop().await;
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let backend = Backend::start(|_, mut stream| async move {
        // Echo of the body, byte by byte as it comes.
        let (mut read, mut write) = stream.split();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read.read_u8().await.unwrap());
        }
        write.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n").await.unwrap();
        tokio::io::copy(&mut read, &mut write).await.ok();
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let body: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let client = reqwest::Client::new();
    let request =
        client.post(format!("http://{}/", router.http)).header("host", "web.apps.localhost").body(body.clone());
    let answer =
        tokio::time::timeout(PATIENCE, async { request.send().await.unwrap().bytes().await.unwrap() }).await.unwrap();
    assert!(answer == body, "the body came back changed");
    router.stop().await;
}

#[tokio::test]
async fn upgraded_connections_are_tunnels_that_count_as_in_flight() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let backend = Backend::start(|_, mut stream| async move {
        let request = read_request(&mut stream).await.unwrap();
        assert!(request.contains("Upgrade: echo\r\n") && request.contains("connection: upgrade\r\n"), "{request}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello ")
            .await
            .unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.ok();
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let mut client = TcpStream::connect(router.http).await.unwrap();
    let upgrade = b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    client.write_all(upgrade).await.unwrap();
    let mut seen = String::new();
    while !seen.ends_with("\r\n\r\nhello ") {
        let mut buffer = [0; 1000];
        let count = tokio::time::timeout(PATIENCE, client.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert!(seen.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{seen}");

    let version = leader.publish("web", &[]).await;
    router.applied(version).await;
    assert_eq!(router.report().await.in_flight.get(&backend.id), Some(&1));
    client.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
    drop(client);
    eventually("the tunnel's end", || async { router.report().await.in_flight.is_empty() }).await;
    router.stop().await;
}

#[tokio::test]
async fn an_app_that_does_not_upgrade_answers_and_the_connection_goes_on() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let backend = Backend::answering("plain").await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let upgrade = b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let after = b"GET / HTTP/1.1\r\nHost: none.x\r\nConnection: close\r\n\r\n";
    let mut client = TcpStream::connect(router.http).await.unwrap();
    client.write_all(upgrade).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("plain") {
        let mut buffer = [0; 1000];
        let count = tokio::time::timeout(PATIENCE, client.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "{answer}");
        answer.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    client.write_all(after).await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!((split(&answer).0, split(&rest).0), (200, 404), "{answer} {rest}");

    // Nobody can know whose bytes those would be that come before the app has agreed.
    let early = router.raw(&[&upgrade[..], after].concat()).await;
    assert!(early.starts_with("HTTP/1.1 400 ") && early.contains("connection: close\r\n"), "{early}");
    assert_eq!(early.matches("HTTP/1.1 ").count(), 1, "{early}");
    router.stop().await;
}

/// A request for an upgrade that comes right behind another request: it is the second that is upgraded.
#[tokio::test]
async fn an_upgrade_behind_another_request() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let backend = Backend::start(|_, mut stream| async move {
        while let Some(request) = read_request(&mut stream).await {
            if request.contains("Upgrade: echo\r\n") {
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nbye")
                    .await
                    .unwrap();
                return;
            }
            assert!(!request.contains("Upgrade"), "{request}");
            stream.write_all(ok("plain").as_bytes()).await.unwrap();
        }
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let host = "Host: web.apps.localhost\r\n";
    let both =
        format!("GET /1 HTTP/1.1\r\n{host}\r\nGET /2 HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    let answer = router.raw(both.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("plainHTTP/1.1 101 Switching Protocols\r\n") && answer.ends_with("\r\n\r\nbye"),
        "{answer}"
    );
    router.stop().await;
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_a_body_is_told_to_go_on() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let backend = Backend::start(|_, mut stream| async move {
        let request = read_request(&mut stream).await.unwrap();
        assert!(request.ends_with("body") && request.contains("Expect: 100-continue\r\n"), "{request}");
        stream.write_all(ok("got it").as_bytes()).await.unwrap();
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let mut client = TcpStream::connect(router.http).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut first = [0; 25];
    tokio::time::timeout(PATIENCE, client.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(split(&answer), (200, "got it".into()));
    router.stop().await;
}

/// Answers whose framing an app got wrong come out sound, or not at all.
#[tokio::test]
async fn answers_are_framed_anew() {
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            (200, "5\r\nhello\r\n0\r\n\r\n"),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", (200, "a\r\nto the end\r\n0\r\n\r\n")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", (200, "hi")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", (502, "")),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi!", (502, "")),
        ("HTTP/1.1 204 No Content\r\n\r\n", (204, "")),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", (304, "")),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, "hi")),
    ] {
        let (_redis, _dir, mut leader, router) = setup().await;
        let backend = Backend::start(move |_, mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let version = leader.publish("web", &[backend.endpoint()]).await;
        router.applied(version).await;
        let (status, body) = router.get("web.apps.localhost").await;
        let body = if status == 502 { String::new() } else { body };
        assert_eq!((status, body.as_str()), expected, "{answer:?}");
        router.stop().await;
    }
}

/// What an app says before its answer is passed on: hints to all but clients of HTTP/1.0, 100 to those who asked.
#[tokio::test]
async fn what_an_app_says_before_its_answer_is_passed_on() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let backend = Backend::start(|_, mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        // Once for each connection.
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 X\r\n\r\n").await.unwrap();
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        let answer = ok("got it").replace("Content-Length", "Connection: close\r\nContent-Length");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 X\r\n\r\n";
    for (version, expect, before) in [
        ("1.1", "Expect: 100-continue\r\n", format!("{hints}HTTP/1.1 100 Continue\r\n\r\n")),
        ("1.1", "", hints.to_owned()),
        ("1.0", "", String::new()),
    ] {
        let mut client = TcpStream::connect(router.http).await.unwrap();
        let head = format!(
            "POST / HTTP/{version}\r\nHost: web.apps.localhost\r\nConnection: close\r\n{expect}Content-Length: 4\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let mut seen = vec![0; before.len()];
        tokio::time::timeout(PATIENCE, client.read_exact(&mut seen)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&seen), before);
        client.write_all(b"body").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(split(&answer), (200, "got it".into()), "{answer}");
    }
    router.stop().await;
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way() {
    let (_redis, _dir, mut leader, router) = setup().await;
    let (entered, mut entries) = tokio::sync::mpsc::unbounded_channel();
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let backend = Backend::start({
        let go = go.clone();
        move |_, mut stream| {
            let (entered, go) = (entered.clone(), go.clone());
            async move {
                read_request(&mut stream).await.unwrap();
                entered.send(()).unwrap();
                let _turn = go.acquire().await.unwrap();
                stream.write_all(ok("done").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let version = leader.publish("web", &[backend.endpoint()]).await;
    router.applied(version).await;
    let http = router.http;
    let status = router.status;
    let call = tokio::spawn(async move {
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    entries.recv().await.unwrap();
    let stopping = tokio::spawn(router.stop());
    eventually("readiness to go", || async {
        reqwest::get(format!("http://{status}/ready")).await.unwrap().status() == 503
    })
    .await;
    go.add_permits(1);
    let answer = call.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("done"), "{answer}");
    stopping.await.unwrap();
    assert!(TcpStream::connect(http).await.is_err(), "nobody listens any more");
}
