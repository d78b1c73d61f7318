//! Packages that are fetched from their addresses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use axum::serve::ListenerExt;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{World, tar_gz};

/// A server with a package, and how often somebody has connected to it.
async fn server(package: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let parts = package.clone();
    let app = Router::new()
        .route("/shop.tar.gz", get(async move || package))
        // Of a size that nobody knows beforehand.
        .route(
            "/parts.tar.gz",
            get(async move || {
                let parts = parts.chunks(10).map(|part| Ok::<_, std::io::Error>(Bytes::copy_from_slice(part)));
                Body::from_stream(futures_util::stream::iter(parts.collect::<Vec<_>>()))
            }),
        )
        .route("/moved", get(async || Redirect::temporary("/shop.tar.gz?token=secret")))
        .route("/away", get(async || Redirect::temporary("http://169.254.169.254/latest/meta-data/")))
        .route("/round", get(async || Redirect::temporary("/round")))
        .route("/file", get(async || Redirect::temporary("file:///etc/passwd")))
        .route("/none", get(async || StatusCode::NOT_FOUND));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let listener = listener.tap_io(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_fetched_where_the_operator_has_opened_the_network_and_nothing_is_asked_elsewhere() {
    let mut world = World::without_engine().await;
    let (url, connections) = server(tar_gz(&[("app.py", "def app(environ, start): pass\n")])).await;
    let ask = async |world: &World, url: &str| {
        let query = [("app", "shop"), ("user", "ann"), ("owner", "team1"), ("url", url)];
        let (status, body) = world.upload(&query, Vec::new()).await;
        (status, body["type"].as_str().unwrap_or_default().to_owned(), body)
    };

    let (status, kind, body) = ask(&world, &format!("{url}/shop.tar.gz?token=secret")).await;
    assert_eq!((status, kind.as_str()), (422, "urn:dinp:fetch-failed"), "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("127.0.0.1 has no address that is public") && !detail.contains("secret"), "{detail}");
    assert_eq!(connections.load(Ordering::Relaxed), 0, "it is refused before anybody is asked");

    world.stop_builder().await;
    world.fetch.networks = vec!["127.0.0.0/8".parse().unwrap()];
    world.start_builder().await;
    let (status, _, body) = ask(&world, &format!("{url}/moved")).await;
    assert_eq!((status, body["package_name"].as_str()), (202, Some("moved")), "{body}");
    assert_eq!(body["runtime"], "python", "{body}");
    let id = body["id"].as_u64().unwrap();
    world.ended(id).await;
    let log = world.log(id).await;
    assert!(log.contains(&format!("fetched from {url}/moved\n")), "{log}");

    for (path, problem) in [
        ("/away", "169.254.169.254 has no address that is public"),
        ("/file", "only http and https are fetched"),
        ("/round", "it comes after more than 5 redirects"),
        ("/none", "the server answers 404"),
    ] {
        let (status, kind, body) = ask(&world, &format!("{url}{path}")).await;
        assert_eq!((status, kind.as_str()), (422, "urn:dinp:fetch-failed"), "{body}");
        assert!(body["detail"].as_str().unwrap().contains(problem), "{body}");
    }
    let (_, _, body) = ask(&world, "http://nowhere.invalid/x.tar.gz").await;
    assert!(body["detail"].as_str().unwrap().contains("has no address that is public"), "{body}");
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_no_larger_than_its_caller_allows_whether_it_is_sent_or_fetched() {
    let mut world = World::without_engine().await;
    world.stop_builder().await;
    world.fetch.networks = vec!["127.0.0.0/8".parse().unwrap()];
    world.start_builder().await;
    let package = tar_gz(&[("app.py", "def app(environ, start): pass\n")]);
    let (url, _) = server(package.clone()).await;
    let (whole, parts) = (format!("{url}/shop.tar.gz"), format!("{url}/parts.tar.gz"));
    let ask = async |world: &World, url: Option<&str>, most: usize| {
        let most = most.to_string();
        let query = [("app", "shop"), ("user", "ann"), ("owner", "team1"), ("max_bytes", most.as_str())];
        let query: Vec<_> = query.into_iter().chain(url.map(|url| ("url", url))).collect();
        world.upload(&query, if url.is_some() { Vec::new() } else { package.clone() }).await
    };
    for url in [None, Some(whole.as_str()), Some(parts.as_str())] {
        let most = package.len() - 1;
        let (status, body) = ask(&world, url, most).await;
        assert_eq!((status, body["type"].as_str()), (413, Some("urn:dinp:too-large")), "{body}");
        let detail = format!("the package is larger than {most} bytes, which is the limit of this upload");
        assert_eq!((body["detail"].as_str(), body["limit"].as_str()), (Some(&*detail), Some("max_bytes")));
    }
    let (status, body) = ask(&world, Some(&parts), package.len()).await;
    assert_eq!((status, body["package_bytes"].as_u64()), (202, Some(package.len() as u64)), "{body}");
    world.stop_builder().await;
}
