use super::*;
use crate::api::builder::{BuildStatus, Stage};
use crate::store::{Change, app};

const NEW: NewBuild<'static> = NewBuild {
    app: "web",
    app_created_at: None,
    version: "v1",
    runtime: "python",
    created_by: "ann",
    builder: "control",
    package_name: "web.tar.gz",
    package_bytes: Some(5),
    package_sha256: "00",
    base: "control:5000/dinp/base-python:bookworm",
    note: "the new login",
    source: "",
    can_fetch_again: false,
    image_name: "control:5000/a/web:v1",
};

/// Its builder.
const ME: &str = NEW.builder;

#[tokio::test]
async fn builds_that_begin_at_once_do_not_refuse_one_another() {
    let mysql = crate::testing::Mysql::start().await;
    let builder = mysql.account(&mysql.database().await, "dinp_builder").await;
    for round in 0..20 {
        let begun = (0..16).map(|n| {
            let pool = builder.clone();
            async move {
                let app = format!("app{round}-{n}");
                begin(&mut pool.get_conn().await.unwrap(), &NewBuild { app: &app, ..NEW }).await
            }
        });
        for result in futures_util::future::join_all(begun).await {
            result.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_build_that_is_cut_off_while_it_begins_keeps_no_other_from_it() {
    let mysql = crate::testing::Mysql::start().await;
    let builder = mysql.account(&mysql.database().await, "dinp_builder").await;
    for micros in (0..4_000).step_by(200) {
        let mut conn = builder.get_conn().await.unwrap();
        let cut_off = std::time::Duration::from_micros(micros);
        tokio::time::timeout(cut_off, begin(&mut conn, &NEW)).await.ok();
        drop(conn);
        let app = format!("app{micros}");
        let mut conn = builder.get_conn().await.unwrap();
        begin(&mut conn, &NewBuild { app: &app, ..NEW }).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_version_that_is_asked_for_many_times_at_once_is_built_once() {
    let mysql = crate::testing::Mysql::start().await;
    let builder = mysql.account(&mysql.database().await, "dinp_builder").await;
    for round in 0..20 {
        let version = format!("v{round}");
        let begun = (0..16).map(|_| {
            let (pool, version) = (builder.clone(), &version);
            async move { begin(&mut pool.get_conn().await.unwrap(), &NewBuild { version, ..NEW }).await.unwrap() }
        });
        let begun = futures_util::future::join_all(begun).await;
        assert_eq!(begun.iter().filter(|begun| begun.is_ok()).count(), 1);
    }
}

#[tokio::test]
async fn a_build_from_begin_to_end() {
    let mysql = crate::testing::Mysql::start().await;
    let root = mysql.database().await;
    let builder = mysql.account(&root, "dinp_builder").await;
    let dash = mysql.account(&root, "dinp_dash").await;
    let conn = &mut builder.get_conn().await.unwrap();

    let id = begin(conn, &NEW).await.unwrap().unwrap().id;
    assert_eq!(begin(conn, &NEW).await.unwrap().err(), Some(Refused::VersionTaken), "a version is built once");
    set_stage(conn, ME, id, "building").await.unwrap();
    append_log(conn, id, 0, "one\n").await.unwrap();
    append_log(conn, id, 0, "one\n").await.unwrap();
    append_log(conn, id, 1, "two\n").await.unwrap();
    assert!(finish(conn, ME, id, BuildStatus::Failed, &"x".repeat(2000), None).await.unwrap());
    assert!(!finish(conn, ME, id, BuildStatus::Succeeded, "", None).await.unwrap(), "an end is final");

    let again = begin(conn, &NEW).await.unwrap().unwrap().id;
    assert!(
        finish(conn, ME, again, BuildStatus::Succeeded, "", Some("control:5000/a/web:v1@sha256:00")).await.unwrap()
    );
    assert_eq!(begin(conn, &NEW).await.unwrap().err(), Some(Refused::VersionTaken), "what was built stays");

    let reader = &mut dash.get_conn().await.unwrap();
    let failed = get(reader, id).await.unwrap().unwrap();
    assert_eq!((failed.status, failed.reason.len(), failed.stage.as_str()), (BuildStatus::Failed, 1000, "building"));
    assert!(failed.finished_at.unwrap() >= failed.started_at && failed.started_at > 1_700_000_000_000);
    assert_eq!(log_from(reader, id, 1).await.unwrap(), [(1, "two\n".to_owned())]);
    let listed: Vec<u64> = list(reader, "web", None, 10).await.unwrap().iter().map(|build| build.id).collect();
    assert_eq!(listed, [again, id]);
    assert_eq!(list(reader, "web", Some(again), 10).await.unwrap().len(), 1);
    assert!(get(reader, 999).await.unwrap().is_none());
}

/// Creates the app `web`, in place of the one that there is.
async fn new_app(root: &mysql_async::Pool) -> UnixMillis {
    // Times are in milliseconds: what comes after must have another one.
    let a_moment = std::time::Duration::from_millis(5);
    tokio::time::sleep(a_moment).await;
    let name: AppName = NEW.app.parse().unwrap();
    let mut change = Change::begin(root).await.unwrap();
    app::delete(&mut change, &name).await.unwrap();
    let new = app::NewApp { name: &name, owner: "ann", team: None, instances: 1 };
    app::create(&mut change, &new).await.unwrap();
    change.commit().await.unwrap();
    tokio::time::sleep(a_moment).await;
    app::find(&mut root.get_conn().await.unwrap(), &name).await.unwrap().unwrap().created_at
}

#[tokio::test]
async fn a_version_is_taken_while_its_app_lives_and_a_later_app_gets_no_build_of_it() {
    let mysql = crate::testing::Mysql::start().await;
    let root = mysql.database().await;
    let builder = mysql.account(&root, "dinp_builder").await;
    let conn = &mut builder.get_conn().await.unwrap();

    let first = new_app(&root).await;
    let of_first = NewBuild { app_created_at: Some(first), ..NEW };
    let id = begin(conn, &of_first).await.unwrap().unwrap().id;
    assert_eq!(begin(conn, &of_first).await.unwrap().err(), Some(Refused::VersionTaken));
    let image = "control:5000/a/web:v1@sha256:00";
    finish(conn, ME, id, BuildStatus::Succeeded, "", Some(image)).await.unwrap();
    assert!(!is_of_deleted_app(conn, "web", image, first).await.unwrap());

    let second = new_app(&root).await;
    let of_second = NewBuild { app_created_at: Some(second), ..NEW };
    assert_eq!(begin(conn, &of_first).await.unwrap().err(), Some(Refused::AppGone));
    assert!(begin(conn, &of_second).await.unwrap().is_ok(), "the version was another app's");
    assert_eq!(begin(conn, &of_second).await.unwrap().err(), Some(Refused::VersionTaken));
    assert_eq!(begin(conn, &NEW).await.unwrap().err(), Some(Refused::VersionTaken), "of an unknown app");
    assert!(is_of_deleted_app(conn, "web", image, second).await.unwrap());
    assert!(!is_of_deleted_app(conn, "web", "control:5000/a/web:v1@sha256:01", second).await.unwrap());
}

#[tokio::test]
async fn a_build_that_is_not_on_record_with_who_asked_does_not_begin() {
    let mysql = crate::testing::Mysql::start().await;
    let root = mysql.database().await;
    let builder = mysql.account(&root, "dinp_builder").await;
    let conn = &mut builder.get_conn().await.unwrap();
    let by_root = &mut root.get_conn().await.unwrap();

    by_root.query_drop("REVOKE INSERT ON audit_event FROM 'dinp_builder'@'%'").await.unwrap();
    begin(conn, &NEW).await.unwrap_err();
    assert!(list(conn, "web", None, 10).await.unwrap().is_empty());
    by_root.query_drop("GRANT INSERT ON audit_event TO 'dinp_builder'@'%'").await.unwrap();
    let id = begin(conn, &NEW).await.unwrap().unwrap().id;
    let sql = "SELECT actor, action, object, detail FROM audit_event";
    let told: Vec<(String, String, String, String)> = by_root.query(sql).await.unwrap();
    let detail = format!("build {id}, version v1, runtime python");
    assert_eq!(told, [("ann".into(), "build.begin".into(), "app/web".into(), detail)]);
}

#[tokio::test]
async fn a_build_tells_what_it_does_since_when_and_of_what_it_is_made() {
    let mysql = crate::testing::Mysql::start().await;
    let builder = mysql.account(&mysql.database().await, "dinp_builder").await;
    let conn = &mut builder.get_conn().await.unwrap();
    let id = begin(conn, &NewBuild { source: "https://a.example/web.tar.gz", ..NEW }).await.unwrap().unwrap().id;
    set_stage(conn, ME, id, "building").await.unwrap();
    set_stage(conn, ME, id, "pushing").await.unwrap();
    set_base(conn, ME, id, "control:5000/dinp/base-python@sha256:01").await.unwrap();
    let build = get(conn, id).await.unwrap().unwrap();
    let [Stage { stage: first, at: begun }, Stage { stage: second, at: pushed }] = build.stages.as_slice() else {
        panic!("{:?}", build.stages)
    };
    assert_eq!((first.as_str(), second.as_str(), build.stage.as_str()), ("building", "pushing", "pushing"));
    assert!(build.started_at <= *begun && begun <= pushed, "{build:?}");
    assert_eq!((build.note.as_str(), build.source.as_str()), ("the new login", "https://a.example/web.tar.gz"));
    assert_eq!((build.package_sha256.as_deref(), build.attempt), (Some("00"), 1));
    assert_eq!(build.base, "control:5000/dinp/base-python@sha256:01");
    append_log(conn, id, 0, "one").await.unwrap();
    append_log(conn, id, 1, "two").await.unwrap();
    assert_eq!((next_piece(conn, id).await.unwrap(), next_piece(conn, id + 1).await.unwrap()), (2, 0));
}

#[tokio::test]
async fn a_build_is_of_one_builder_at_a_time_and_goes_to_another_only_after_a_long_silence() {
    let mysql = crate::testing::Mysql::start().await;
    let root = mysql.database().await;
    let builder = mysql.account(&root, "dinp_builder").await;
    let conn = &mut builder.get_conn().await.unwrap();
    let url = "https://a.example/web.tar.gz";
    let fetched = NewBuild { version: "v2", builder: "other", source: url, can_fetch_again: true, ..NEW };
    let mine = begin(conn, &NEW).await.unwrap().unwrap().id;
    let others = begin(conn, &fetched).await.unwrap().unwrap().id;
    let held = |id, attempt, cancel_asked| Held { id, attempt, cancel_asked };
    assert_eq!(held_by(conn, ME).await.unwrap(), [held(mine, 1, false)]);
    begin_again(conn, ME, others).await.unwrap();
    begin_again(conn, ME, mine).await.unwrap();
    assert!(ask_to_cancel(conn, mine).await.unwrap() && ask_to_cancel(conn, mine).await.unwrap());
    assert_eq!(held_by(conn, ME).await.unwrap(), [held(mine, 2, true)]);
    assert_eq!(held_by(conn, "other").await.unwrap(), [held(others, 1, false)]);

    assert!(silent(conn, ME, 60).await.unwrap().is_empty(), "it has just begun");
    let by_root = &mut root.get_conn().await.unwrap();
    let ago = "UPDATE build SET beat_at = CURRENT_TIMESTAMP(3) - INTERVAL 61 SECOND";
    by_root.query_drop(ago).await.unwrap();
    let found = silent(conn, ME, 60).await.unwrap();
    assert_eq!(found.iter().map(|one| (one.id, one.url.as_deref())).collect::<Vec<_>>(), [(others, Some(url))]);
    beat(conn, "other").await.unwrap();
    assert!(!take_over(conn, &found[0], ME).await.unwrap(), "it has spoken");
    by_root.query_drop(ago).await.unwrap();
    let found = silent(conn, ME, 60).await.unwrap();
    assert!(take_over(conn, &found[0], ME).await.unwrap());
    assert!(!take_over(conn, &found[0], "third").await.unwrap(), "one takes it over");
    assert_eq!(held_by(conn, ME).await.unwrap(), [held(mine, 2, true), held(others, 2, false)]);

    set_stage(conn, "other", others, "pushing").await.unwrap();
    assert!(!finish(conn, "other", others, BuildStatus::Failed, "x", None).await.unwrap(), "it is no more its own");
    let now = get(conn, others).await.unwrap().unwrap();
    assert_eq!((now.status, now.stage.as_str(), now.builder.as_str()), (BuildStatus::Running, "queued", ME));
    assert!(finish(conn, ME, others, BuildStatus::Succeeded, "", Some("x")).await.unwrap());
    assert!(!ask_to_cancel(conn, others).await.unwrap(), "it has ended");
}
