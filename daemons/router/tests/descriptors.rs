//! A router that may open nothing more. A file of its own: the limit is that of the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Leader, Options, Router, endpoint, ok, read_request};
use dinp_common::model::InstanceId;
use dinp_common::testing::{Redis, TestDir};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// Each app leaves a kept connection behind; together they need more than there is.
const APPS: u16 = 150;
const DESCRIPTORS: u64 = 120;

#[tokio::test]
async fn kept_connections_give_way_to_new_ones() {
    let redis = Redis::start().await;
    let dir = TestDir::new("router");
    let mut leader = Leader::new(&redis).await;
    let mut options = Options::new(&redis, &dir);
    options.config.workers = 1;
    let router = Router::start(options).await;
    let port = serve_everywhere();
    let mut version = leader.version;
    for number in 1..=APPS {
        let address = format!("127.0.1.{number}:{port}").parse().unwrap();
        let endpoint = endpoint(address, &InstanceId::from_bits(number.into()));
        version = leader.publish(&format!("app{number}"), &[endpoint]).await;
    }
    router.applied(version).await;

    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, most).unwrap();
    for number in 1..=APPS {
        let (status, body) = router.get(&format!("app{number}.apps.localhost")).await;
        assert_eq!((status, &*body), (200, "ok"), "app{number}");
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    router.stop().await;
}

/// One server at many addresses, as an address is one instance's; with descriptors of its own, as it is to run out of none.
fn serve_everywhere() -> u16 {
    let (tell, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FILES).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
            tell.send(listener.local_addr().unwrap().port()).unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    while read_request(&mut stream).await.is_some() {
                        stream.write_all(ok("ok").as_bytes()).await.ok();
                    }
                });
            }
        });
    });
    port.recv().unwrap()
}
