//! Instances that misbehave, and clients that do.

use crate::common;
use crate::common::{Backend, Leader, Options, PATIENCE, Router, eventually, ok, read_request, refusing, split};
use dinp_common::routes::Endpoint;
use dinp_common::testing::{Redis, TestDir};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Scene {
    leader: Leader,
    router: Router,
    _redis: Redis,
    _dir: TestDir,
}

impl Scene {
    async fn new(endpoints: &[Endpoint]) -> Self {
        let redis = Redis::start().await;
        let dir = TestDir::new("router");
        let mut leader = Leader::new(&redis).await;
        let router = Router::start(Options::new(&redis, &dir)).await;
        let version = leader.publish("web", endpoints).await;
        router.applied(version).await;
        Self { leader, router, _redis: redis, _dir: dir }
    }

    async fn call(&self, method: &str, body: &str) -> (u16, String) {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request =
            format!("{method} / HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\n{length}\r\n{body}");
        split(&self.router.raw(request.as_bytes()).await)
    }
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere_for_any_request() {
    let good = Backend::answering("good").await;
    let other = Backend::answering("good").await;
    let scene = Scene::new(&[refusing(), good.endpoint(), other.endpoint()]).await;
    for _ in 0..20 {
        assert_eq!(scene.call("POST", "body").await, (200, "good".into()));
        assert_eq!(scene.call("GET", "").await, (200, "good".into()));
    }
    let failed = scene.router.report().await.counters[0].failed;
    assert!((1..10).contains(&failed), "set aside after a few attempts, not tried each time: {failed}");
    scene.router.stop().await;
}

#[tokio::test]
async fn none_reachable_is_502_and_quick() {
    let scene = Scene::new(&[refusing(), refusing()]).await;
    let begin = Instant::now();
    let (status, body) = scene.call("GET", "").await;
    assert_eq!(status, 502);
    assert!(body.contains("no instance of this app can be reached"), "{body}");
    assert!(begin.elapsed() < Duration::from_secs(1));
    scene.router.stop().await;
}

#[tokio::test]
async fn an_address_that_swallows_packets_costs_one_connect_timeout() {
    let good = Backend::answering("good").await;
    // A listener whose queue is full does not answer to further connections.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        filling.push(stream);
    }
    let silent = common::endpoint(address, &dinp_common::model::InstanceId::from_bits(7));
    let scene = Scene::new(&[silent, good.endpoint()]).await;
    let begin = Instant::now();
    for _ in 0..10 {
        assert_eq!(scene.call("GET", "").await, (200, "good".into()));
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    scene.router.stop().await;
}

/// What each kind of request gets from an instance that misbehaves beside a good one.
#[tokio::test]
async fn endings_before_an_answer() {
    type Bad = fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let close_at_once: Bad = |stream| Box::pin(async move { drop(stream) });
    let close_after_request: Bad = |mut stream| {
        Box::pin(async move {
            read_request(&mut stream).await;
        })
    };
    let reset_after_request: Bad = |mut stream| {
        Box::pin(async move {
            read_request(&mut stream).await;
            stream.set_zero_linger().unwrap();
        })
    };
    for (name, bad) in [
        ("closes at once", close_at_once),
        ("closes after the request", close_after_request),
        ("resets", reset_after_request),
    ] {
        let good = Backend::answering("good").await;
        let hits = Arc::new(AtomicUsize::new(0));
        let bad = Backend::start({
            let hits = hits.clone();
            move |_, stream| {
                hits.fetch_add(1, Ordering::SeqCst);
                bad(stream)
            }
        })
        .await;
        let scene = Scene::new(&[bad.endpoint(), good.endpoint()]).await;
        for method in ["GET", "OPTIONS"].into_iter().cycle().take(20) {
            assert_eq!(scene.call(method, "").await, (200, "good".into()), "{name}: {method}");
        }
        assert!(hits.load(Ordering::SeqCst) > 0, "{name}: never tried");
        // One that may not be sent twice is not, and says so.
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let before = hits.load(Ordering::SeqCst);
            let (status, body) = scene.call("POST", "body").await;
            let tried = hits.load(Ordering::SeqCst) - before;
            // A connection that ends before anything went out is none: then the other may have the request.
            let unsent = name == "closes at once" && (status, tried) == (200, 1);
            assert!(
                unsent || matches!((status, tried), (200, 0) | (502, 1)),
                "{name}: {status} after {tried} attempts: {body}"
            );
            seen.insert(status);
        }
        assert!(name == "closes at once" || seen.len() == 2, "{name}: {seen:?}");
        scene.router.stop().await;
    }
}

#[tokio::test]
async fn garbage_is_502_and_silence_504() {
    let garbage = Backend::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"SMTP ready\r\n\r\n").await.ok();
    })
    .await;
    let scene = Scene::new(&[garbage.endpoint()]).await;
    let (status, body) = scene.call("GET", "").await;
    assert_eq!((status, body.contains("not HTTP")), (502, true), "{body}");
    scene.router.stop().await;

    let silent = Backend::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let scene = Scene::new(&[silent.endpoint()]).await;
    assert_eq!(scene.call("GET", "").await.0, 504);
    let endless = Backend::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.ok();
        while stream.write_all(b"X-Header: 0123456789012345678901234567890123456789\r\n").await.is_ok() {}
    })
    .await;
    let mut scene = scene;
    let version = scene.leader.publish("web", &[endless.endpoint()]).await;
    scene.router.applied(version).await;
    assert_eq!(scene.call("GET", "").await.0, 502);
    scene.router.stop().await;
}

/// The instance closes the idle connection just as the next request comes: nobody may notice.
#[tokio::test]
async fn keep_alive_races() {
    let requests = Arc::new(AtomicUsize::new(0));
    let backend = Backend::start({
        let requests = requests.clone();
        move |_, mut stream| {
            let requests = requests.clone();
            async move {
                // Two answers, and the end right after the second without a word in it.
                for _ in 0..2 {
                    if read_request(&mut stream).await.is_none() {
                        return;
                    }
                    requests.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(ok("x").as_bytes()).await.unwrap();
                }
            }
        }
    })
    .await;
    let scene = Scene::new(&[backend.endpoint()]).await;
    let client = reqwest::Client::new();
    for n in 0..300 {
        let request = client.get(format!("http://{}/{n}", scene.router.http)).header("host", "web.apps.localhost");
        assert_eq!(request.send().await.unwrap().status(), 200, "request {n}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 300);

    // The same with bodies, a pause letting the end of the connection arrive: none is sent into a closed one.
    for n in 0..50 {
        let request =
            client.post(format!("http://{}/{n}", scene.router.http)).header("host", "web.apps.localhost").body("x");
        assert_eq!(request.send().await.unwrap().status(), 200, "request {n}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    scene.router.stop().await;
}

/// An instance swallows the request on a kept connection and closes: only what may be sent twice is sent again.
#[tokio::test]
async fn a_kept_connection_that_ends_without_an_answer() {
    let backend = Backend::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(ok("first").as_bytes()).await.unwrap();
        read_request(&mut stream).await;
    })
    .await;
    let scene = Scene::new(&[backend.endpoint()]).await;
    // All requests over one connection, so that one worker handles them.
    let client = reqwest::Client::new();
    let call = async |method: reqwest::Method| {
        let request =
            client.request(method, format!("http://{}/", scene.router.http)).header("host", "web.apps.localhost");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(call(reqwest::Method::GET).await, 200);
    assert_eq!(call(reqwest::Method::GET).await, 200);
    assert_eq!(backend.connections(), 2);
    assert_eq!(call(reqwest::Method::DELETE).await, 502);
    assert_eq!(backend.connections(), 2, "the DELETE went out once");
    scene.router.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_the_instance() {
    let (entered, mut entries) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::start(move |_, mut stream| {
        let entered = entered.clone();
        async move {
            read_request(&mut stream).await;
            entered.send(()).unwrap();
            // The end of the router's connection.
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
            entered.send(()).unwrap();
        }
    })
    .await;
    let mut scene = Scene::new(&[backend.endpoint()]).await;
    let mut client = TcpStream::connect(scene.router.http).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n").await.unwrap();
    entries.recv().await.unwrap();
    let version = scene.leader.publish("web", &[]).await;
    scene.router.applied(version).await;
    assert_eq!(scene.router.report().await.in_flight.get(&backend.id), Some(&1));
    drop(client);
    tokio::time::timeout(PATIENCE, entries.recv()).await.unwrap().unwrap();
    eventually("nothing in flight", || async { scene.router.report().await.in_flight.is_empty() }).await;
    scene.router.stop().await;
}

#[tokio::test]
async fn slow_and_large_heads_and_broken_bodies() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let backend = Backend::start({
        let seen = seen.clone();
        move |_, mut stream| {
            let seen = seen.clone();
            async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.ok();
                seen.lock().unwrap().push(String::from_utf8_lossy(&all).into_owned());
            }
        }
    })
    .await;
    let scene = Scene::new(&[backend.endpoint()]).await;
    let router = &scene.router;

    let answer = router.raw(b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(router.raw(b"").await, "", "a connection without a request ends without an answer");

    let large = format!("GET / HTTP/1.1\r\nHost: web.apps.localhost\r\nX-Large: {}\r\n\r\n", "x".repeat(262_144));
    for _ in 0..5 {
        let answer = router.raw(large.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer}");
        assert!(answer.contains("x-dinp-error: header_too_large\r\n"));
    }
    // Nothing of a refused head has reached the app.
    assert!(seen.lock().unwrap().is_empty());

    let post =
        |body: &str| format!("POST / HTTP/1.1\r\nHost: web.apps.localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    for body in ["5\r\nhello\r\nZZ\r\n", "5\r\nhelloXX", "5\nhello\r\n0\r\n\r\n", "-1\r\n"] {
        let answer = router.raw(post(body).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{body:?}: {answer}");
    }
    let begin = Instant::now();
    let answer = router.raw(post("5\r\nhel").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(begin.elapsed() > Duration::from_secs(1));
    eventually("the app's connections to end", || async { seen.lock().unwrap().len() >= 2 }).await;
    // What the app got of a broken body is never a whole one.
    assert!(seen.lock().unwrap().iter().all(|bytes| !bytes.ends_with("0\r\n\r\n")), "{seen:?}");
    scene.router.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    let backend = Backend::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await.ok();
    })
    .await;
    let scene = Scene::new(&[backend.endpoint()]).await;
    let mut stream = TcpStream::connect(scene.router.http).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().ok();
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    scene.router.stop().await;
}

/// Sends a body and reads the answer up to this end at the same time, as a browser does; the answer, and whether both came
/// to an end.
async fn upload(router: &Router, connection: &str, size: usize, end: &str) -> (String, bool) {
    let mut stream = TcpStream::connect(router.http).await.unwrap();
    let (mut read, mut write) = stream.split();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: {connection}\r\nContent-Length: {size}\r\n\r\n"
    );
    let send = async {
        write.write_all(head.as_bytes()).await.ok();
        write.write_all(&vec![b'x'; size]).await.ok();
    };
    let mut answer = Vec::new();
    let receive = async {
        while !answer.ends_with(end.as_bytes()) && read.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {}
    };
    let both = async { tokio::join!(send, receive) };
    let has_ended = tokio::time::timeout(PATIENCE, both).await.is_ok();
    (String::from_utf8_lossy(&answer).into_owned(), has_ended)
}

/// Answers each request when it has read its head; then reads the body, or hangs up on it.
async fn answer_early(stream: &mut TcpStream, closes: bool) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        stream.write_all(ok("early").as_bytes()).await.ok()?;
        if closes {
            return None;
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = (&mut *stream).take(length.parse().unwrap());
        tokio::io::copy(&mut body, &mut tokio::io::sink()).await.ok()?;
    }
}

/// An app may answer before it has read what is sent, go on reading or not, and close or not. `DINP_EARLY_ANSWERS` says
/// how many answers come of it (120).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_reaches_the_client_and_leaves_nothing_behind() {
    let open = Arc::new(AtomicUsize::new(0));
    for closes in [false, true] {
        let counted = open.clone();
        let backend = Backend::start(move |_, mut stream| {
            let open = counted.clone();
            async move {
                open.fetch_add(1, Ordering::SeqCst);
                answer_early(&mut stream, closes).await;
                drop(stream);
                open.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .await;
        let scene = Scene::new(&[backend.endpoint()]).await;
        let count = std::env::var("DINP_EARLY_ANSWERS").map_or(120, |count| count.parse().expect("a number"));
        for round in 0..count / 4 {
            let size = 100_000 + 100_000 * (round % 30);
            for connection in ["keep-alive", "close"] {
                let (answer, has_ended) = upload(&scene.router, connection, size, "early").await;
                assert!(has_ended, "closes {closes}, {connection}, {size}: no end after {answer:?}");
                assert_eq!(split(&answer), (200, "early".into()), "closes {closes}, {connection}, {size}");
                if closes {
                    // It has not said that it would: what is sent to it at that moment is lost, whoever sends it.
                    eventually("the app to hang up", || async { open.load(Ordering::SeqCst) == 0 }).await;
                }
            }
        }
        eventually("no request to be in flight", || async { scene.router.report().await.in_flight.is_empty() }).await;
        scene.router.stop().await;
    }
    eventually("no connection to the app to be left", || async { open.load(Ordering::SeqCst) == 0 }).await;
}

#[tokio::test]
async fn an_answer_to_an_unread_body_arrives() {
    let scene = Scene::new(&[]).await;
    let mut stream = TcpStream::connect(scene.router.http).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: web.apps.localhost\r\nContent-Length: 3000000\r\n\r\n").await.unwrap();
    stream.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap();
    assert!(read.is_ok() && answer.starts_with("HTTP/1.1 503 "), "{read:?} {answer}");
    scene.router.stop().await;
}

/// What is no answer is none, whatever else the app says.
#[tokio::test]
async fn answers_that_cannot_be_passed_on() {
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nhi", "Set-Cookie: a=b\r\n".repeat(500));
    for (method, answer, status) in [
        ("GET", many.as_str(), 200),
        ("GET", endless.as_str(), 502),
        ("GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 502),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\n", 502),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi", 502),
        ("GET", "HTTP/1.1 200 OK\r\nA b\r\n\r\nhi", 502),
        ("GET", "hi", 502),
    ] {
        let text: Arc<str> = answer.into();
        let backend = Backend::start(move |_, mut stream| {
            let text = text.clone();
            async move {
                read_request(&mut stream).await;
                stream.write_all(text.as_bytes()).await.ok();
            }
        })
        .await;
        let scene = Scene::new(&[backend.endpoint()]).await;
        let (seen, body) = scene.call(method, "").await;
        assert_eq!(seen, status, "{method} {:?}", &answer[..answer.len().min(80)]);
        assert_eq!(method == "HEAD", body.is_empty());
        scene.router.stop().await;
    }
}
