//! What people and failures can fill has an end: on a real MariaDB, each daemon under its own account.

#![allow(clippy::unwrap_used, reason = "what is missing in a test fails it")]

use dinp_common::model::{AppName, EnvName, ImageRef, Timing};
use dinp_common::store::app::{self, NewApp};
use dinp_common::store::build::{self, NewBuild};
use dinp_common::store::event::{self, NewEvent};
use dinp_common::store::release::{self, NewRelease};
use dinp_common::store::session::{self, AuthCode, NewSession, SessionKind};
use dinp_common::store::{Change, audit, deployment, env, user};
use dinp_common::testing::Mysql;
use mysql_async::Pool;
use mysql_async::prelude::{FromRow, Queryable};

struct Store {
    mysql: Mysql,
    root: Pool,
}

impl Store {
    async fn start() -> Self {
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        Self { mysql, root }
    }

    async fn account(&self, name: &str) -> Pool {
        self.mysql.account(&self.root, name).await
    }

    async fn sql(&self, statement: &str) {
        self.root.get_conn().await.unwrap().query_drop(statement).await.unwrap();
    }

    async fn read<T: FromRow + Send + 'static>(&self, query: &str) -> Vec<T> {
        self.root.get_conn().await.unwrap().query(query).await.unwrap()
    }

    async fn count(&self, from: &str) -> u64 {
        self.read(&format!("SELECT COUNT(*) FROM {from}")).await[0]
    }
}

fn web() -> AppName {
    "web".parse().unwrap()
}

async fn create(dash: &Pool) {
    let mut change = Change::begin(dash).await.unwrap();
    app::create(&mut change, &NewApp { name: &web(), owner: "anna", team: None, instances: 1 }).await.unwrap();
    change.commit().await.unwrap();
}

/// A release and its deployment; returns the ids of both.
async fn deploy(dash: &Pool, env_version: u32) -> (u64, u64) {
    let image: ImageRef = "control:5000/anna/web:v1".parse().unwrap();
    let mut change = Change::begin(dash).await.unwrap();
    let new = NewRelease {
        app: &web(),
        image: &image,
        command: None,
        memory_mb: 256,
        cpu_millis: 100,
        cpu_limit_millis: None,
        health: None,
        timing: Timing::default(),
        env_version,
        instances: 1,
        domains: &[],
        created_by: "anna",
        note: "",
    };
    let release = release::insert(&mut change, &new).await.unwrap();
    let deployment = deployment::insert(&mut change, &web(), release, "anna").await.unwrap();
    change.commit().await.unwrap();
    (release, deployment)
}

#[tokio::test]
async fn a_thousand_changes_of_an_environment_leave_the_newest_and_the_one_in_force() {
    let store = Store::start().await;
    let dash = store.account("dinp_dash").await;
    create(&dash).await;
    let name: EnvName = "KEY".parse().unwrap();
    for version in 1..=1000 {
        let mut change = Change::begin(&dash).await.unwrap();
        env::copy(&mut change, &web(), version - 1, version, &[&name]).await.unwrap();
        env::insert(&mut change, &web(), version, &name, b"sealed", 1, "anna").await.unwrap();
        app::set_env_version(&mut change, &web(), version).await.unwrap();
        change.commit().await.unwrap();
        if version == 3 {
            deploy(&dash, version).await;
        }
    }
    let versions: Vec<u32> = store.read("SELECT version FROM env ORDER BY version").await;
    let newest = 1000 - env::SPARE_VERSIONS + 1..=1000;
    assert_eq!(versions, std::iter::once(3).chain(newest).collect::<Vec<_>>());
}

#[tokio::test]
async fn old_releases_and_deployments_go_but_for_those_that_somebody_may_want_back() {
    let store = Store::start().await;
    let dash = store.account("dinp_dash").await;
    create(&dash).await;
    let (good, deployment) = deploy(&dash, 0).await;
    store.sql(&format!("UPDATE deployment SET state = 'succeeded' WHERE id = {deployment}")).await;
    store.sql(&format!("UPDATE app SET release_id = {good}")).await;
    // The second is the way back from the first one day; the third waits for ever.
    let (second, deployment) = deploy(&dash, 0).await;
    store.sql(&format!("UPDATE deployment SET state = 'succeeded' WHERE id = {deployment}")).await;
    let (waiting, _) = deploy(&dash, 0).await;
    for _ in 0..150 {
        let (_, deployment) = deploy(&dash, 0).await;
        store.sql(&format!("UPDATE deployment SET state = 'rolled_back' WHERE id = {deployment}")).await;
    }
    let kept: Vec<u64> = store.read("SELECT id FROM `release` ORDER BY number").await;
    assert_eq!(kept.len(), release::KEPT as usize + 3);
    assert_eq!(kept[..3], [good, second, waiting]);
    assert_eq!(store.read::<u32>("SELECT MAX(number) FROM `release`").await, [153]);
    assert_eq!(store.count("deployment d LEFT JOIN `release` r ON r.id = d.release_id WHERE r.id IS NULL").await, 0);

    // Going back and forth makes deployments and no release.
    for _ in 0..deployment::KEPT + 100 {
        let mut change = Change::begin(&dash).await.unwrap();
        let id = deployment::insert(&mut change, &web(), kept[40], "anna").await.unwrap();
        change.commit().await.unwrap();
        store.sql(&format!("UPDATE deployment SET state = 'cancelled' WHERE id = {id}")).await;
    }
    assert!(store.count("deployment").await <= u64::from(deployment::KEPT) + 3);
    for release in [good, second, waiting] {
        assert_eq!(store.count(&format!("deployment WHERE release_id = {release}")).await, 1);
    }
    let before = deployment::release_before(&mut store.root.get_conn().await.unwrap(), &web(), second).await.unwrap();
    assert_eq!(before, Some(good));
}

#[tokio::test]
async fn an_app_that_crashes_without_end_pushes_out_its_own_events_only() {
    let store = Store::start().await;
    let server = store.account("dinp_server").await;
    let conn = &mut server.get_conn().await.unwrap();
    let event = |app: &str, n: u32| NewEvent {
        at: 1_795_000_000_000 + i64::from(n),
        app: app.into(),
        instance: None,
        node: None,
        kind: "exited".into(),
        detail: "exit code 1".into(),
    };
    event::append(conn, &[event("quiet", 1), event("quiet", 2)]).await.unwrap();
    for batch in 0..24 {
        let events: Vec<NewEvent> = (0..500).map(|n| event("loop", batch * 500 + n)).collect();
        event::append(conn, &events).await.unwrap();
    }
    assert_eq!(store.count("instance_event WHERE app = 'loop'").await, u64::from(event::KEPT));
    assert_eq!(store.count("instance_event WHERE app = 'quiet'").await, 2);
    let newest = "SELECT CAST(UNIX_TIMESTAMP(MAX(at)) * 1000 AS SIGNED) FROM instance_event WHERE app = 'loop'";
    assert_eq!(store.read::<i64>(newest).await, [event("loop", 11_999).at]);
    // What is old goes however much it is.
    store.sql("UPDATE instance_event SET at = '2020-01-01' WHERE app = 'loop'").await;
    store
        .sql(
            "INSERT INTO instance_event (at, app, kind) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n \
             WHERE i < 900) SELECT '2020-01-01', CONCAT('app', a.i), 'x' FROM n a JOIN n b WHERE b.i <= 20",
        )
        .await;
    assert_eq!(event::expire(conn, 30).await.unwrap(), 18_000 + u64::from(event::KEPT));
}

#[tokio::test]
async fn who_acts_without_end_pushes_out_the_own_past_of_the_audit_log_only() {
    let store = Store::start().await;
    let dash = store.account("dinp_dash").await;
    let count = audit::KEPT + 500;
    store
        .sql(&format!(
            "INSERT INTO audit_event (actor, action, object) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL \
             SELECT i + 1 FROM n WHERE i < 1000) SELECT 'busy', 'app.env', CONCAT('app/', (a.i - 1) * 1000 + b.i) \
             FROM n a JOIN n b WHERE (a.i - 1) * 1000 + b.i <= {count}"
        ))
        .await;
    store.sql("INSERT INTO audit_event (actor, action, object) VALUES ('anna', 'app.create', 'app/web')").await;
    store.sql("INSERT INTO audit_event (actor, at, action, object) VALUES ('anna', '2020-01-01', 'x', 'old')").await;
    assert_eq!(audit::expire(&mut dash.get_conn().await.unwrap(), 400).await.unwrap(), 501);
    assert_eq!(store.count("audit_event WHERE actor = 'busy'").await, u64::from(audit::KEPT));
    assert_eq!(store.read::<String>("SELECT object FROM audit_event WHERE actor = 'anna'").await, ["app/web"]);
}

#[tokio::test]
async fn signing_in_without_end_keeps_the_newest_sessions_and_codes() {
    let store = Store::start().await;
    let uic = store.account("dinp_uic").await;
    let conn = &mut uic.get_conn().await.unwrap();
    for name in ["anna", "bert"] {
        user::insert(conn, name, "hash", dinp_common::api::uic::PlatformRole::User).await.unwrap();
    }
    let id_of = async |name: &str| store.read::<u64>(&format!("SELECT id FROM user WHERE name = '{name}'")).await[0];
    let (anna, bert) = (id_of("anna").await, id_of("bert").await);
    let begin = async |conn: &mut mysql_async::Conn, id: String, user_id: u64| {
        let kind = SessionKind::Browser;
        let new = NewSession { id: &id, secret_hash: &[0; 32], user_id, kind, client: "", parent: None, ttl_secs: 60 };
        assert!(session::insert_while(conn, new, "hash").await.unwrap());
    };
    begin(conn, "b".repeat(16), bert).await;
    for n in 0..session::KEPT + 20 {
        begin(conn, format!("{n:016}"), anna).await;
    }
    assert_eq!(store.count(&format!("session WHERE user_id = {anna}")).await, u64::from(session::KEPT));
    assert_eq!(store.count(&format!("session WHERE user_id = {bert}")).await, 1);
    let last = format!("{:016}", session::KEPT + 19);
    assert!(session::find(conn, &last, SessionKind::Browser).await.unwrap().is_some());

    let code = AuthCode { session_id: last, client: "cli".into(), redirect_uri: "x".into(), challenge: "y".into() };
    for n in 0..session::KEPT_CODES as u8 + 5 {
        session::insert_code(conn, &[n; 32], &code, 60).await.unwrap();
    }
    assert_eq!(store.count("auth_code").await, u64::from(session::KEPT_CODES));
    let newest = [session::KEPT_CODES as u8 + 4; 32];
    assert_eq!(session::take_code(conn, &newest).await.unwrap(), Some(code));
    store.sql("UPDATE auth_code SET expires_at = '2020-01-01'").await;
    assert_eq!(session::remove_expired(conn).await.unwrap(), u64::from(session::KEPT_CODES) - 1);
}

#[tokio::test]
async fn builds_and_their_logs_are_kept_as_far_as_they_are_new_and_small() {
    let store = Store::start().await;
    let builder = store.account("dinp_builder").await;
    let conn = &mut builder.get_conn().await.unwrap();
    create(&store.account("dinp_dash").await).await;
    // 150 of last week, one of last year for another app, and one whose app is gone.
    store
        .sql(
            "INSERT INTO build (app, version, runtime, created_by, builder, status, started_at) WITH RECURSIVE n AS \
             (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 150) SELECT 'web', CONCAT('old', i), 'python', \
             'anna', 'b', 'failed', UTC_TIMESTAMP(3) - INTERVAL 7 DAY FROM n",
        )
        .await;
    store
        .sql(
            "INSERT INTO build (app, version, runtime, created_by, builder, status, started_at) VALUES \
             ('other', 'v1', 'python', 'anna', 'b', 'failed', UTC_TIMESTAMP(3) - INTERVAL 1 YEAR), \
             ('gone', 'v1', 'python', 'anna', 'b', 'failed', UTC_TIMESTAMP(3))",
        )
        .await;
    store.sql("INSERT INTO build_log SELECT id, 0, 'text' FROM build WHERE app IN ('other', 'gone')").await;
    store
        .sql(
            "INSERT INTO app (name, owner, instances, deleted_at, rev) VALUES ('gone', 'anna', 1, UTC_TIMESTAMP(3), 1)",
        )
        .await;
    let mut newest = 0;
    for n in 0..6 {
        let version = format!("v{n}");
        let new = NewBuild { app: "web", version: &version, created_by: "anna", builder: "b", ..NewBuild::default() };
        newest = build::begin(conn, &new).await.unwrap().unwrap().id;
        for piece in 0..8 {
            build::append_log(conn, newest, piece, &"x".repeat(1024 * 1024)).await.unwrap();
        }
    }
    assert_eq!(store.count("build WHERE app = 'web'").await, u64::from(build::KEPT));
    assert_eq!(store.count("build WHERE app = 'other'").await, 0);
    assert_eq!(store.count("build WHERE app = 'gone'").await, 1);
    assert_eq!(store.count("build_log l LEFT JOIN build b ON b.id = l.build_id WHERE b.app IS NULL").await, 0);
    assert_eq!(store.count("build_log l JOIN build b ON b.id = l.build_id WHERE b.app = 'gone'").await, 0);
    // The last one has come after the last look.
    let bytes = store.read::<u64>("SELECT CAST(SUM(LENGTH(text)) AS UNSIGNED) FROM build_log").await[0];
    assert!(bytes <= build::KEPT_LOG_BYTES + 8 * 1024 * 1024, "{bytes}");
    assert_eq!(build::log_from(conn, newest, 0).await.unwrap().len(), 8);
}

#[tokio::test]
async fn what_deleted_apps_had_goes_once_nothing_of_them_runs() {
    let store = Store::start().await;
    let dash = store.account("dinp_dash").await;
    create(&dash).await;
    let (release, deployment) = deploy(&dash, 0).await;
    store.sql("INSERT INTO env (app, version, name, sealed, key_id, created_by, rev) VALUES ('web', 0, 'K', 'x', 1, '', 1)").await;
    store.sql(&format!("UPDATE app SET release_id = {release}")).await;
    store.sql(&format!("UPDATE deployment SET state = 'succeeded' WHERE id = {deployment}")).await;
    let mut change = Change::begin(&dash).await.unwrap();
    app::delete(&mut change, &web()).await.unwrap();
    change.commit().await.unwrap();

    let conn = &mut dash.get_conn().await.unwrap();
    assert_eq!(app::forget_deleted(&dash, conn).await.unwrap(), 0, "just deleted");
    store.sql("UPDATE app SET deleted_at = deleted_at - INTERVAL 2 HOUR").await;
    assert_eq!(app::forget_deleted(&dash, conn).await.unwrap(), 0, "the leader has not said that nothing runs");
    store.sql("UPDATE app SET release_id = NULL").await;
    assert_eq!(app::forget_deleted(&dash, conn).await.unwrap(), 1);
    for table in ["env", "`release`", "deployment"] {
        assert_eq!(store.count(table).await, 0, "{table}");
    }
    assert_eq!(store.count("app").await, 1, "that it was deleted is still known");
    store.sql("UPDATE app SET deleted_at = deleted_at - INTERVAL 31 DAY").await;
    assert_eq!(app::forget_deleted(&dash, conn).await.unwrap(), 1);
    assert_eq!(store.count("app").await, 0);
}

#[tokio::test]
async fn removed_domains_go_when_every_server_has_read_that_they_were() {
    let store = Store::start().await;
    let dash = store.account("dinp_dash").await;
    create(&dash).await;
    for n in 0..30 {
        let name = format!("d{n}.example.org").parse().unwrap();
        let mut change = Change::begin(&dash).await.unwrap();
        dinp_common::store::domain::put(&mut change, &name, &web(), "anna").await.unwrap();
        assert!(dinp_common::store::domain::remove(&mut change, &name, &web()).await.unwrap());
        change.commit().await.unwrap();
        store.sql("UPDATE domain SET deleted_at = deleted_at - INTERVAL 10 MINUTE").await;
    }
    assert!((6..=7).contains(&store.count("domain").await));
}
