//! The route table in a real Redis, as a leader writes it and a router reads it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dinp_common::credentials::Secret;
use dinp_common::model::{InstanceId, Version};
use dinp_common::routes::{
    AppRoutes, Change, Endpoint, EndpointState, Publisher, Reader, RouteError, RouteOptions, RouteState, Table, apply,
    difference,
};
use dinp_common::testing::Redis;

fn app(name: &str, port: u16) -> AppRoutes {
    AppRoutes {
        app: name.parse().unwrap(),
        state: RouteState::Started,
        domains: vec![format!("{name}.apps.localhost")],
        options: RouteOptions::default(),
        endpoints: vec![Endpoint {
            instance: InstanceId::from_bits(u64::from(port)),
            release: 1,
            addr: format!("10.0.0.1:{port}"),
            zone: String::new(),
            weight: 100,
            state: EndpointState::Ready,
        }],
    }
}

fn change(name: &str, port: u16) -> Change {
    Change { app: name.parse().unwrap(), routes: Some(app(name, port)) }
}

fn table(entries: &[(&str, u16)]) -> Table {
    entries.iter().map(|(name, port)| (name.parse().unwrap(), app(name, *port))).collect()
}

fn password() -> Secret {
    Secret::new("test")
}

async fn publisher(redis: &Redis) -> Publisher {
    Publisher::connect(&redis.url(), "test", &password(), "c1").await.unwrap()
}

async fn reader(redis: &Redis) -> Reader {
    Reader::connect(&redis.url(), "test", &password(), "c1").await.unwrap()
}

#[tokio::test]
async fn a_router_follows_what_the_leader_publishes() {
    let redis = Redis::start().await;
    let (mut leader, mut router) = (publisher(&redis).await, reader(&redis).await);
    assert!(router.load().await.unwrap().is_none(), "no table yet means: keep what you have");
    leader.rewrite(Version::new(1, 1), &table(&[("a", 1), ("b", 2)])).await.unwrap();
    let mut snapshot = router.load().await.unwrap().unwrap();
    assert_eq!((snapshot.version, snapshot.table.len()), (Version::new(1, 1), 2));

    let removal = Change { app: "b".parse().unwrap(), routes: None };
    leader.publish(Version::new(1, 1), Version::new(1, 2), &[change("a", 9), removal]).await.unwrap();
    let entries = router.next(snapshot.version).await.unwrap();
    assert_eq!((entries.len(), entries[0].prev, entries[0].id), (1, Version::new(1, 1), Version::new(1, 2)));
    apply(&mut snapshot.table, entries[0].changes.clone());
    assert_eq!(snapshot.table, table(&[("a", 9)]));
    assert_eq!(router.load().await.unwrap().unwrap().table, snapshot.table);
}

#[tokio::test]
async fn a_leader_of_the_past_is_refused_and_told_the_highest_version() {
    let redis = Redis::start().await;
    let (mut old, mut new) = (publisher(&redis).await, publisher(&redis).await);
    old.rewrite(Version::new(1, 1), &table(&[("a", 1)])).await.unwrap();
    new.publish(Version::new(1, 1), Version::new(2, 1), &[change("a", 2)]).await.unwrap();
    let refused = old.rewrite(Version::new(1, 2), &table(&[])).await.unwrap_err();
    assert!(matches!(refused, RouteError::Fenced { highest, .. } if highest == Version::new(2, 1)), "{refused}");
    let gap = old.publish(Version::new(1, 1), Version::new(1, 2), &[change("a", 3)]).await.unwrap_err();
    assert!(matches!(gap, RouteError::Gap), "{gap}");
    assert_eq!(reader(&redis).await.load().await.unwrap().unwrap().table, table(&[("a", 2)]));
}

#[tokio::test]
async fn changes_to_a_flushed_redis_do_not_make_half_a_table() {
    let mut redis = Redis::start().await;
    let mut leader = publisher(&redis).await;
    leader.rewrite(Version::new(1, 1), &table(&[("a", 1), ("b", 2)])).await.unwrap();
    redis.stop();
    redis.start_again().await;
    let mut leader = publisher(&redis).await;
    let gap = leader.publish(Version::new(1, 1), Version::new(1, 2), &[change("a", 3)]).await.unwrap_err();
    assert!(matches!(gap, RouteError::Gap), "{gap}");
    assert!(reader(&redis).await.load().await.unwrap().is_none());
    leader.rewrite(Version::new(1, 3), &table(&[("a", 3), ("b", 2)])).await.unwrap();
    assert_eq!(reader(&redis).await.load().await.unwrap().unwrap().table.len(), 2);
}

#[test]
fn the_difference_of_two_tables_turns_one_into_the_other() {
    let (from, to) = (table(&[("a", 1), ("b", 2)]), table(&[("b", 3), ("c", 4)]));
    let changes = difference(&from, &to);
    assert_eq!(changes.len(), 3);
    let mut turned = from.clone();
    apply(&mut turned, changes);
    assert_eq!(turned, to);
    assert!(difference(&to, &to).is_empty());
}
