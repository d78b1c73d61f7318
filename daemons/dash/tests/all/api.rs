//! The public API, from the first app to the last.

use crate::browser::Browser;
use crate::builds::slow_package;
use crate::played::DIGEST;
use crate::stage::Stage;
use dinp_dash::DashConfig;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NONE: Value = Value::Null;

/// Waits for what is done in passing.
async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come about");
}

#[tokio::test]
async fn the_life_of_an_app() {
    let stage = Stage::set().await;
    let anna = stage.token("anna").await;
    let call = |method, path: &'static str, body| stage.call(&anna, method, path, body);
    let image = |tag: &str| format!("{}/anna/web:{tag}", stage.registry);

    let (status, meta) = stage.call("", Method::GET, "/v1/meta", NONE).await;
    assert_eq!((status, &meta["apps_url"]), (200, &"http://apps.localhost".into()));
    assert_eq!(call(Method::GET, "/v1/me", NONE).await.1["name"], "anna");

    // Create.
    let (status, app) = call(Method::POST, "/v1/apps", json!({"name": "web"})).await;
    assert_eq!((status, &app["instances"], &app["state"]), (201, &1.into(), &"started".into()), "{app}");
    assert_eq!(app["urls"], json!(["http://web.apps.localhost/"]));
    assert_eq!(call(Method::POST, "/v1/apps", json!({"name": "web"})).await.1["type"], "urn:dinp:name-taken");
    eventually("a hint", async || stage.played.hints.load(Ordering::SeqCst) > 0).await;

    // Deploy by tag is stored by digest.
    let (status, problem) = call(Method::POST, "/v1/apps/web/deployments", json!({})).await;
    assert_eq!((status, &problem["type"]), (422, &"urn:dinp:image-missing".into()));
    let wish =
        json!({"image": image("v1"), "memory_mb": 256, "instances": 2, "health": {"path": "/health"}, "note": "first"});
    let (status, first) = call(Method::POST, "/v1/apps/web/deployments", wish).await;
    assert_eq!((status, &first["state"], &first["release_number"]), (201, &"pending".into(), &1.into()), "{first}");
    let (_, releases) = call(Method::GET, "/v1/apps/web/releases", NONE).await;
    let release = &releases["items"][0];
    assert_eq!(release["image"], format!("{}@{DIGEST}", image("v1")));
    assert_eq!((&release["instances"], &release["health"]["interval_secs"]), (&2.into(), &5.into()));
    stage.succeed(first["id"].as_u64().unwrap()).await;

    // The next one starts from it; numbers rise.
    let (_, second) = call(Method::POST, "/v1/apps/web/deployments", json!({"image": image("v2")})).await;
    assert_eq!(second["release_number"], 2);
    stage.succeed(second["id"].as_u64().unwrap()).await;
    let (_, app) = call(Method::GET, "/v1/apps/web", NONE).await;
    assert_eq!((&app["release"]["number"], &app["release"]["memory_mb"]), (&2.into(), &256.into()));
    assert_eq!(app["release"]["health"]["path"], "/health");
    assert_eq!(app["ready"], 0);

    // Environment: sealed, copied, deployed.
    let (status, env) = call(Method::PATCH, "/v1/apps/web/env", json!({"set": {"KEY": "s3cret", "B": "2"}})).await;
    assert_eq!((status, &env["version"], &env["names"]), (200, &1.into(), &json!(["B", "KEY"])), "{env}");
    assert_eq!(env["deployment"]["release_number"], 3);
    let (_, env) =
        call(Method::PATCH, "/v1/apps/web/env", json!({"set": {"C": "3"}, "unset": ["B"], "deploy": false})).await;
    assert_eq!((&env["version"], &env["names"], &env["deployment"]), (&2.into(), &json!(["C", "KEY"]), &NONE));
    let sealed: Vec<u8> = {
        use mysql_async::prelude::Queryable;
        let mut conn = stage.root.get_conn().await.unwrap();
        conn.query_first("SELECT sealed FROM env WHERE app = 'web' AND version = 2 AND name = 'KEY'")
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(stage.key.open(&sealed).unwrap(), "s3cret");

    // Rollback: to the one before, to a number, to what is in force.
    let third = env_deployment(&stage).await;
    stage.succeed(third).await;
    let (status, back) = call(Method::POST, "/v1/apps/web/rollback", json!({})).await;
    assert_eq!((status, &back["release_number"]), (201, &2.into()), "{back}");
    stage.succeed(back["id"].as_u64().unwrap()).await;
    let (_, problem) = call(Method::POST, "/v1/apps/web/rollback", json!({"release": 2})).await;
    assert_eq!(problem["type"], "urn:dinp:already-in-force");
    let (status, _) = call(Method::POST, "/v1/apps/web/rollback", json!({"release": 1})).await;
    assert_eq!(status, 201);
    assert_eq!(call(Method::POST, "/v1/apps/web/rollback", json!({"release": 99})).await.1["field"], "release");

    // Cancel the one that is under way; what has ended cannot be cancelled.
    let (_, list) = call(Method::GET, "/v1/apps/web/deployments?limit=2", NONE).await;
    let under_way = list["items"][0]["id"].as_u64().unwrap();
    let path: &'static str = format!("/v1/deployments/{under_way}/cancel").leak();
    assert_eq!(call(Method::POST, path, NONE).await.0, 200);
    assert_eq!(stage.text(&format!("SELECT request FROM deployment WHERE id = {under_way}")).await, "cancel");
    let path: &'static str = format!("/v1/deployments/{third}/cancel").leak();
    assert_eq!(call(Method::POST, path, NONE).await.0, 409);
    let next = list["next"].as_str().unwrap();
    let path: &'static str = format!("/v1/apps/web/deployments?after={next}").leak();
    assert_eq!(call(Method::GET, path, NONE).await.1["items"].as_array().unwrap().len(), 3);

    // Scale, stop, start, and what the leader says.
    assert_eq!(call(Method::PUT, "/v1/apps/web/scale", json!({"instances": 4})).await.1["instances"], 4);
    assert_eq!(call(Method::POST, "/v1/apps/web/stop", NONE).await.1["state"], "stopped");
    assert_eq!(call(Method::POST, "/v1/apps/web/start", NONE).await.1["state"], "started");
    *stage.played.instances.lock().unwrap() =
        vec![("web".into(), "ready"), ("web".into(), "starting"), ("other".into(), "ready")];
    assert_eq!(call(Method::GET, "/v1/apps/web", NONE).await.1["ready"], 1);
    assert_eq!(call(Method::GET, "/v1/apps/web/instances", NONE).await.1["items"].as_array().unwrap().len(), 2);
    let (_, log) = call(Method::GET, "/v1/apps/web/logs?tail=7", NONE).await;
    assert!(log.as_str().unwrap().contains("web line 2 tail 7"), "{log}");
    let (_, log) = call(Method::GET, "/v1/apps/web/logs?previous=true&instance=00000000000000ff", NONE).await;
    let log = log.as_str().unwrap();
    assert!(log.contains("web last line 2") && log.contains("00000000000000ff"), "{log}");

    // Domains.
    let (status, domain) = call(Method::POST, "/v1/apps/web/domains", json!({"name": "shop.example.org"})).await;
    assert_eq!((status, &domain["created_by"]), (201, &"anna".into()));
    assert_eq!(call(Method::GET, "/v1/apps/web", NONE).await.1["urls"][1], "http://shop.example.org/");
    let bert = stage.token("bert").await;
    stage.call(&bert, Method::POST, "/v1/apps", json!({"name": "berts"})).await;
    let (status, problem) =
        stage.call(&bert, Method::POST, "/v1/apps/berts/domains", json!({"name": "shop.example.org"})).await;
    assert_eq!((status, &problem["type"]), (409, &"urn:dinp:domain-taken".into()));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("another app") && !detail.contains("web"), "{detail}");
    assert_eq!(call(Method::DELETE, "/v1/apps/web/domains/shop.example.org", NONE).await.0, 204);
    assert_eq!(call(Method::DELETE, "/v1/apps/web/domains/shop.example.org", NONE).await.0, 404);
    assert_eq!(
        stage.call(&bert, Method::POST, "/v1/apps/berts/domains", json!({"name": "shop.example.org"})).await.0,
        201
    );

    // Events.
    stage
        .sql("INSERT INTO instance_event (app, kind, detail) VALUES ('web', 'exit', 'code 1'), ('web', 'start', '')")
        .await;
    let (_, events) = call(Method::GET, "/v1/apps/web/events?limit=1", NONE).await;
    assert_eq!((&events["items"][0]["kind"], events["next"].is_string()), (&"start".into(), true));

    // Delete, and the name again: once the server is done, and without the old app's past.
    assert_eq!(call(Method::DELETE, "/v1/apps/web", NONE).await.0, 204);
    assert_eq!(call(Method::GET, "/v1/apps/web", NONE).await.0, 404);
    let (status, problem) = stage.call(&bert, Method::POST, "/v1/apps", json!({"name": "web"})).await;
    assert_eq!((status, &problem["type"]), (409, &"urn:dinp:still-stopping".into()));
    stage.sql("UPDATE app SET release_id = NULL WHERE name = 'web'").await;
    stage.sql("UPDATE deployment SET state = 'cancelled' WHERE app = 'web' AND state <> 'succeeded'").await;
    assert_eq!(stage.call(&bert, Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);
    let (_, releases) = stage.call(&bert, Method::GET, "/v1/apps/web/releases", NONE).await;
    assert_eq!(releases["items"], json!([]));
    assert_eq!(stage.call(&bert, Method::GET, "/v1/apps/web/env", NONE).await.1["names"], json!([]));
    assert_eq!(stage.call(&bert, Method::GET, "/v1/apps/web/events", NONE).await.1["items"], json!([]));
    assert_eq!(call(Method::GET, "/v1/apps/web", NONE).await.0, 404, "it is bert's now");

    // Every change is on record and has raised the revision.
    let actions =
        stage.text("SELECT GROUP_CONCAT(DISTINCT action ORDER BY action) FROM audit_event WHERE actor = 'anna'").await;
    assert_eq!(
        actions,
        "app.create,app.delete,app.deploy,app.env,app.rollback,app.scale,app.start,app.stop,deployment.cancel,domain.add,domain.remove"
    );
    assert_eq!(stage.text("SELECT COUNT(*) FROM app WHERE rev = 0").await, "0");
}

/// The deployment that came with the first change of the environment.
async fn env_deployment(stage: &Stage) -> u64 {
    let id = "SELECT CAST(d.id AS CHAR) FROM deployment d JOIN `release` r ON r.id = d.release_id WHERE r.app = 'web' AND r.number = 3";
    stage.text(id).await.parse().unwrap()
}

#[tokio::test]
async fn what_is_wrong_is_named_with_field_and_rule() {
    let stage = Stage::set().await;
    let anna = stage.token("anna").await;
    stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await;
    let elsewhere = "docker.example:5000/anna/web:v1";
    let missing = format!("{}/anna/web:v9", stage.registry);
    let image = format!("{}/anna/web:v1", stage.registry);
    let deploy = "/v1/apps/web/deployments";
    let large = "x".repeat(32 * 1024);
    let too_large: BTreeMap<String, &str> = (0..9).map(|n| (format!("V{n}"), large.as_str())).collect();
    let too_large = json!({ "set": too_large });
    let table: Vec<(Method, &str, Value, u16, &str, &str)> = vec![
        (Method::POST, "/v1/apps", json!({"name": "Web"}), 422, "name", "DNS label"),
        (Method::POST, "/v1/apps", json!({"name": "a.b"}), 422, "name", "DNS label"),
        (Method::POST, "/v1/apps", json!({"name": "x", "size": 3}), 422, "size", "unknown field"),
        (Method::POST, "/v1/apps", json!({}), 422, "name", "missing field"),
        (Method::POST, "/v1/apps", json!({"name": "x", "instances": 501}), 422, "instances", "from 0 to 500"),
        (Method::POST, "/v1/apps", json!({"name": "x", "instances": -1}), 422, "instances", "expected u32"),
        (Method::POST, "/v1/apps", json!({"name": "dash"}), 422, "name", "reserved"),
        (Method::POST, "/v1/apps", json!({"name": "x", "team": "shop"}), 422, "team", "you are in no team shop"),
        (Method::POST, deploy, json!({"image": "web"}), 422, "image", "registry/path"),
        (Method::POST, deploy, json!({"image": elsewhere}), 422, "image", "are not allowed"),
        (Method::POST, deploy, json!({"image": missing}), 422, "image", "has no image anna/web:v9"),
        (Method::POST, deploy, json!({"image": image, "memory_mb": 64}), 422, "memory_mb", "from 128 to 10240 MiB"),
        (Method::POST, deploy, json!({"image": image, "cpu_millis": 0}), 422, "cpu_millis", "thousandths"),
        (Method::POST, deploy, json!({"image": image, "instances": 1000}), 422, "instances", "from 0 to 500"),
        (Method::POST, deploy, json!({"image": image, "health": {"path": "x"}}), 422, "health", "start with /"),
        (Method::POST, deploy, json!({"image": image, "command": ["a\0b"]}), 422, "command", "NUL"),
        (Method::POST, deploy, json!({"image": image, "note": "x".repeat(1001)}), 422, "note", "1000 characters"),
        (Method::POST, deploy, json!({"image": image, "build": 1}), 422, "image", "not both"),
        (Method::POST, deploy, json!({"build": 77}), 422, "build", "no build 77"),
        (Method::PUT, "/v1/apps/web/scale", json!({"instances": 501}), 422, "instances", "from 0 to 500"),
        (Method::PATCH, "/v1/apps/web/env", json!({"set": {"1A": "x"}}), 422, "set", "digit"),
        (Method::PATCH, "/v1/apps/web/env", json!({"set": {"PORT": "1"}}), 422, "set.PORT", "set by the platform"),
        (Method::PATCH, "/v1/apps/web/env", too_large, 422, "set", "bytes are possible in all"),
        (Method::POST, "/v1/apps/web/domains", json!({"name": "10.0.0.1"}), 422, "name", "host name"),
        (Method::POST, "/v1/apps/web/domains", json!({"name": "x.apps.localhost"}), 422, "name", "belongs to the app"),
        (Method::POST, "/v1/builds?app=web&runtime=No", NONE, 422, "runtime", "DNS label"),
        (Method::POST, "/v1/builds?app=web&runtime=cobol", NONE, 422, "runtime", "no runtime cobol"),
        (Method::POST, "/v1/builds?app=web&runtime=python&version=a/b", NONE, 422, "version", "letters"),
    ];
    for (method, path, body, status, field, rule) in table {
        let (got, problem) = stage.call(&anna, method, path, body.clone()).await;
        let named = problem["field"].as_str().unwrap_or_default();
        assert_eq!((got, named.split('.').next()), (status, field.split('.').next()), "{path} {body}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(rule), "{path} {body}: {detail}");
    }
    assert_eq!(stage.text("SELECT COUNT(*) FROM `release`").await, "0", "nothing is half done");
    assert_eq!(stage.call(&anna, Method::POST, "/v1/apps", json!("x")).await.0, 422);
    assert_eq!(stage.call(&anna, Method::GET, "/v1/apps?limit=x", NONE).await.0, 400);
    assert_eq!(stage.call(&anna, Method::GET, "/v1/apps/web/events?after=x", NONE).await.0, 400);
    assert_eq!(stage.call(&anna, Method::GET, "/v1/apps/%FF", NONE).await.0, 404);
}

#[tokio::test]
async fn another_app_of_the_name_gets_nothing_that_was_meant_for_the_deleted_one() {
    let stage = Stage::set().await;
    let (anna, bert) = (stage.token("anna").await, stage.token("bert").await);
    let arriving = |count| {
        let stage = &stage;
        async move { eventually("it arrives", async || stage.played.arriving.load(Ordering::SeqCst) == count).await }
    };
    let made_anew = async || {
        assert_eq!(stage.call(&anna, Method::DELETE, "/v1/apps/web", NONE).await.0, 204);
        assert_eq!(stage.call(&bert, Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);
    };
    let taken_back = async || {
        assert_eq!(stage.call(&bert, Method::DELETE, "/v1/apps/web", NONE).await.0, 204);
        assert_eq!(stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);
    };
    assert_eq!(stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);

    // A package that takes long to arrive.
    let (sender, package) = slow_package();
    let upload = stage.http.post(format!("{}/v1/builds?app=web&runtime=python&version=v1", stage.url));
    let upload = tokio::spawn(upload.bearer_auth(&anna).body(package).send());
    arriving(1).await;
    made_anew().await;
    drop(sender);
    assert_eq!(upload.await.unwrap().unwrap().status(), 404);
    assert_eq!(stage.call(&bert, Method::GET, "/v1/builds?app=web", NONE).await.1["items"], json!([]));
    assert_eq!(stage.text("SELECT CAST(COUNT(*) AS CHAR) FROM build").await, "0");

    // A registry that takes long to answer.
    taken_back().await;
    let wish = json!({"image": format!("{}/anna/web:slow", stage.registry)});
    let deploy = stage.call(&anna, Method::POST, "/v1/apps/web/deployments", wish);
    let meanwhile = async {
        arriving(2).await;
        made_anew().await;
        stage.played.gate.notify_one();
    };
    let ((status, problem), ()) = tokio::join!(deploy, meanwhile);
    assert_eq!((status, &problem["detail"]), (404, &"there is no app web".into()), "{problem}");
    assert_eq!(stage.text("SELECT CAST(COUNT(*) AS CHAR) FROM `release`").await, "0");

    // Nor does the page of who may no longer see it show the other app.
    taken_back().await;
    let browser = Browser::with_token(&stage, &anna);
    let csrf = browser.csrf(&stage).await;
    let (sender, package) = slow_package();
    let form = Form::new().text("csrf", csrf).text("runtime", "python");
    let form = form.part("package", Part::stream(package).file_name("web.tar.gz"));
    let upload = browser.send(browser.request(&stage, Method::POST, "/apps/web/upload").multipart(form));
    let meanwhile = async {
        arriving(3).await;
        made_anew().await;
        drop(sender);
    };
    let (page, ()) = tokio::join!(upload, meanwhile);
    assert!(page.status == 404 && page.body.contains("there is no app web"), "{}", page.body);
}

#[tokio::test]
async fn a_registry_that_names_no_digest_is_read_no_further_than_a_manifest_is_long() {
    let stage = Stage::set().await;
    let anna = stage.token("anna").await;
    assert_eq!(stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);
    let deploy = |tag| {
        let (stage, anna, wish) = (&stage, &anna, json!({"image": format!("{}/anna/web:{tag}", stage.registry)}));
        async move { stage.call(anna, Method::POST, "/v1/apps/web/deployments", wish).await }
    };
    let (status, problem) = deploy("endless").await;
    assert_eq!((status, &problem["detail"]), (422, &"the manifest of the image is too large".into()), "{problem}");
    assert_eq!(deploy("plain").await.0, 201);
    let (_, releases) = stage.call(&anna, Method::GET, "/v1/apps/web/releases", NONE).await;
    let image = releases["items"][0]["image"].as_str().unwrap();
    assert!(image.ends_with("@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"), "{image}");
}

#[tokio::test]
async fn readers_of_logs_have_a_limit_and_are_gone_at_once() {
    let config = DashConfig { log_readers_per_person: 2, log_readers_max: 3, ..DashConfig::default() };
    let stage = Stage::set_with(config).await;
    let (dora, otto, vera) = (stage.token("dora").await, stage.token("otto").await, stage.token("vera").await);
    let (_, build) = crate::walk::fresh_app(&stage, "web").await;
    let read = |token: &str, path: &str| {
        let request = stage.http.get(format!("{}{path}", stage.url)).bearer_auth(token);
        async move { request.send().await.unwrap() }
    };
    let build_log = format!("/v1/builds/{build}/log?follow=true");
    let app_log = "/v1/apps/web/logs?follow=true";

    let (first, second) = (read(&dora, &build_log).await, read(&dora, &build_log).await);
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    for path in [build_log.as_str(), app_log] {
        let refused = read(&dora, path).await;
        assert_eq!(refused.status(), 429);
        let problem: Value = refused.json().await.unwrap();
        assert_eq!((&problem["type"], &problem["limit"]), (&"urn:dinp:too-many-readers".into(), &2.into()));
        assert_eq!(problem["detail"], "you read 2 logs, the most at a time: end one and try again");
    }
    let third = read(&otto, &build_log).await;
    assert_eq!(third.status(), 200);
    let problem: Value = read(&vera, &build_log).await.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["limit"]), (&429.into(), &3.into()), "{problem}");

    // Who hangs up makes room, though the log had nothing to say; so does a log that has ended.
    drop(first);
    eventually("the place of who has gone is free", async || {
        let log = read(&dora, app_log).await;
        let free = log.status() == 200;
        // Read to its end, where its own place is free again.
        log.text().await.unwrap();
        free
    })
    .await;
    for _ in 0..5 {
        let log = read(&dora, app_log).await;
        assert_eq!(log.status(), 200);
        assert!(log.text().await.unwrap().contains("web line 2"));
    }
    drop((second, third));
}

#[tokio::test]
async fn people_see_what_is_theirs() {
    let stage = Stage::set().await;
    let (anna, dora, vera, olga, admin) = (
        stage.token("anna").await,
        stage.token("dora").await,
        stage.token("vera").await,
        stage.token("olga").await,
        stage.token("admin").await,
    );
    stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "annas"})).await;
    stage.call(&dora, Method::POST, "/v1/apps", json!({"name": "shops", "team": "shop"})).await;
    assert_eq!(stage.call(&vera, Method::POST, "/v1/apps", json!({"name": "no", "team": "shop"})).await.0, 403);
    assert_eq!(stage.call(&olga, Method::POST, "/v1/apps", json!({"name": "no", "team": "none"})).await.0, 422);
    for (token, names) in [(&anna, vec!["annas"]), (&vera, vec!["shops"]), (&olga, vec!["annas", "shops"])] {
        let (_, list) = stage.call(token, Method::GET, "/v1/apps", NONE).await;
        let seen: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|app| app["name"].as_str().unwrap()).collect();
        assert_eq!(seen, names);
    }
    let (_, first) = stage.call(&olga, Method::GET, "/v1/apps?limit=1", NONE).await;
    assert_eq!(first["next"], "annas");

    // What is wrong in the cluster names apps: it is for operators.
    assert_eq!(stage.call(&anna, Method::GET, "/v1/status", NONE).await.1["problems"], json!([]));
    assert_eq!(stage.call(&olga, Method::GET, "/v1/status", NONE).await.1["problems"], json!(["app web: no room"]));

    // An image is its owner's: who runs it can read it.
    let image = format!("{}/anna/web:v1", stage.registry);
    let deploy = |token, app: &'static str| {
        let (stage, wish) = (&stage, json!({ "image": image }));
        async move { stage.call(token, Method::POST, &format!("/v1/apps/{app}/deployments"), wish).await }
    };
    let (status, problem) = deploy(&dora, "shops").await;
    assert_eq!((status, &problem["type"]), (422, &"urn:dinp:no-such-image".into()), "{problem}");
    assert_eq!(deploy(&anna, "annas").await.0, 201);
    assert_eq!(deploy(&olga, "shops").await.0, 201);

    // Users and teams through dash; whose apps would be inherited stays.
    let (status, made) =
        stage.call(&admin, Method::POST, "/v1/users", json!({"name": "nora", "password": "0123456789"})).await;
    assert_eq!((status, &made["name"]), (201, &"nora".into()), "{made}");
    assert_eq!(stage.call(&admin, Method::PUT, "/v1/teams/shop/members/nora", json!({"role": "owner"})).await.0, 200);
    assert_eq!(stage.call(&admin, Method::DELETE, "/v1/users/anna", NONE).await.1["type"], "urn:dinp:owns-apps");
    assert_eq!(stage.call(&admin, Method::DELETE, "/v1/teams/shop", NONE).await.1["type"], "urn:dinp:has-apps");
    assert_eq!(stage.call(&admin, Method::DELETE, "/v1/users/nora", NONE).await.0, 204);
    let address = stage.text("SELECT address FROM audit_event WHERE action = 'user.create' AND actor = 'admin'").await;
    assert_eq!(address, "127.0.0.1");
    assert_eq!(stage.call(&admin, Method::PATCH, "/v1/users/anna", json!({"suspended": true})).await.0, 200);
    assert_eq!(stage.call(&anna, Method::GET, "/v1/me", NONE).await.0, 401);
}

#[tokio::test]
async fn without_the_database_everything_says_so_and_comes_back() {
    let mut stage = Stage::set().await;
    let anna = stage.token("anna").await;
    stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await;
    stage.mysql.stop();
    let (status, problem) = stage.call(&anna, Method::GET, "/v1/apps", NONE).await;
    assert_eq!((status, &problem["type"]), (503, &"urn:dinp:database-unavailable".into()), "{problem}");
    assert_eq!(stage.call("", Method::GET, "/v1/meta", NONE).await.0, 200);
    stage.mysql.start_again().await;
    assert_eq!(stage.call(&anna, Method::GET, "/v1/apps", NONE).await.0, 200);
}

#[tokio::test]
async fn behind_a_tls_proxy_the_sign_on_goes_by_tls_and_who_calls_is_known() {
    let config = DashConfig { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..DashConfig::default() };
    let stage = Stage::set_at(config, Some(["https://dash.example", "https://uic.example"])).await;
    let begun = stage.http.get(format!("{}/login", stage.url)).send().await.unwrap();
    let (cookie, location) = (&begun.headers()["set-cookie"], begun.headers()["location"].to_str().unwrap());
    let cookie = cookie.to_str().unwrap();
    assert!(cookie.starts_with("__Host-dinp_dash_login=") && cookie.ends_with("; Secure"), "{cookie}");
    assert!(cookie.contains("; Path=/;") && !cookie.contains("Domain"), "{cookie}");
    let back = "redirect_uri=https%3A%2F%2Fdash.example%2Fauth%2Fcallback";
    assert!(location.starts_with("https://uic.example/oauth/authorize?") && location.contains(back), "{location}");

    // A cookie that some other host of the domain has planted is no sign-on.
    let anna = stage.token("anna").await;
    for (name, status) in [("__Host-dinp_dash", 200), ("dinp_dash", 303)] {
        let request = stage.http.get(format!("{}/apps", stage.url)).header("cookie", format!("{name}={anna}"));
        assert_eq!(request.send().await.unwrap().status(), status, "{name}");
    }

    let created = stage.http.post(format!("{}/v1/apps", stage.url)).bearer_auth(&anna).json(&json!({"name": "web"}));
    let created = created.header("x-forwarded-for", "6.6.6.6, 198.51.100.7").send().await.unwrap();
    assert_eq!(created.status(), 201);
    assert_eq!(stage.text("SELECT address FROM audit_event WHERE action = 'app.create'").await, "198.51.100.7");
}

#[tokio::test]
async fn what_an_untrusted_peer_says_about_addresses_is_not_written_down() {
    let stage = Stage::set().await;
    let anna = stage.token("anna").await;
    let created = stage.http.post(format!("{}/v1/apps", stage.url)).bearer_auth(&anna).json(&json!({"name": "web"}));
    assert_eq!(created.header("x-forwarded-for", "198.51.100.7").send().await.unwrap().status(), 201);
    assert_eq!(stage.text("SELECT address FROM audit_event WHERE action = 'app.create'").await, "127.0.0.1");
}

#[tokio::test]
async fn changing_a_large_environment_again_and_again_fills_five_mebibytes_at_most() {
    let stage = Stage::set().await;
    let anna = stage.token("anna").await;
    stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await;
    let large: BTreeMap<String, String> = (0..7).map(|n| (format!("LARGE_{n}"), "x".repeat(32 * 1024))).collect();
    let patch = |set: Value| stage.call(&anna, Method::PATCH, "/v1/apps/web/env", json!({"set": set, "deploy": false}));
    assert_eq!(patch(json!(large)).await.0, 200);
    for n in 0..40 {
        let (status, answer) = patch(json!({ "SMALL": n.to_string() })).await;
        assert_eq!((status, &answer["version"]), (200, &(n + 2).into()), "{answer}");
    }
    let bytes: u64 = stage.text("SELECT CAST(SUM(LENGTH(sealed)) AS CHAR) FROM env").await.parse().unwrap();
    assert!((4 * 1024 * 1024..=5 * 1024 * 1024).contains(&bytes), "{bytes}");
    let (_, view) = stage.call(&anna, Method::GET, "/v1/apps/web/env", NONE).await;
    assert_eq!(view["names"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn images_under_somebodys_name_are_theirs_whoever_put_them_there() {
    let stage = Stage::set().await;
    let (anna, bert, dora, vera, olga) = (
        stage.token("anna").await,
        stage.token("bert").await,
        stage.token("dora").await,
        stage.token("vera").await,
        stage.token("olga").await,
    );
    let admin = stage.token("admin").await;
    assert_eq!(stage.call(&admin, Method::POST, "/v1/teams", json!({"name": "gone"})).await.0, 201);
    assert_eq!(stage.call(&admin, Method::DELETE, "/v1/teams/gone", NONE).await.0, 204);
    // Nor does anybody get the name, and with it what is kept under it.
    let again = stage.call(&admin, Method::POST, "/v1/users", json!({"name": "gone", "password": "0123456789"})).await;
    assert_eq!((again.0, &again.1["type"]), (409, &"urn:dinp:name-taken".into()), "{}", again.1);
    let platform = stage.call(&admin, Method::POST, "/v1/teams", json!({"name": "dinp"})).await;
    assert_eq!((platform.0, &platform.1["field"]), (422, &"name".into()), "{}", platform.1);

    let mut number = 0;
    for (image, allowed) in [
        ("anna/pushed", [true, false, false, false, true]),
        ("anna/pushed/deeper", [true, false, false, false, true]),
        ("shop/pushed", [false, false, true, false, true]),
        ("gone/pushed", [false, false, false, false, true]),
        ("dinp/pushed", [false, false, false, false, true]),
        ("common/pushed", [true, true, true, true, true]),
    ] {
        for (token, allowed) in [&anna, &bert, &dora, &vera, &olga].into_iter().zip(allowed) {
            number += 1;
            let app = format!("app{number}");
            assert_eq!(stage.call(token, Method::POST, "/v1/apps", json!({ "name": app })).await.0, 201);
            let wish = json!({"image": format!("{}/{image}:v1", stage.registry)});
            let (status, answer) = stage.call(token, Method::POST, &format!("/v1/apps/{app}/deployments"), wish).await;
            let expected = if allowed { (201, &NONE) } else { (422, &"urn:dinp:no-such-image".into()) };
            assert_eq!((status, &answer["type"]), expected, "{image}, app {number}: {answer}");
        }
    }
}

#[tokio::test]
async fn while_mysql_is_away_the_status_of_the_cluster_can_still_be_seen() {
    let mut stage = Stage::set().await;
    let (olga, anna) = (stage.token("olga").await, stage.token("anna").await);
    let status = async |stage: &Stage, token: &str| stage.call(token, Method::GET, "/v1/status", NONE).await;
    assert_eq!(status(&stage, &olga).await.0, 200);
    stage.mysql.stop();
    // No token is believed for a moment without asking here, and nobody can be asked.
    let (answer, body) = status(&stage, &olga).await;
    assert_eq!(answer, 200, "{body}");
    let (answer, body) = status(&stage, &anna).await;
    assert_eq!(answer, 503, "a token that was never seen: {body}");
    stage.mysql.start_again().await;
    stage.sql("DELETE FROM session").await;
    eventually("uic is asked again", async || status(&stage, &olga).await.0 == 401).await;
}

#[tokio::test]
async fn who_has_left_the_team_follows_no_log_of_it_any_more() {
    let stage = Stage::set_with(DashConfig::default()).await;
    let (otto, vera) = (stage.token("otto").await, stage.token("vera").await);
    let (_, build) = crate::walk::fresh_app(&stage, "silent").await;
    let follow = |token: &str, path: &str| {
        let request = stage.http.get(format!("{}{path}?follow=true", stage.url)).bearer_auth(token);
        async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200);
            response
        }
    };
    let build_log = format!("/v1/builds/{build}/log");
    let logs = [follow(&vera, &build_log).await, follow(&vera, "/v1/apps/silent/logs").await];
    let mut kept = follow(&otto, &build_log).await;

    // Not through this dash, which has believed her token a moment ago.
    stage.sql("DELETE m FROM team_member m JOIN user u ON u.id = m.user_id WHERE u.name = 'vera'").await;
    for log in logs {
        let ended = tokio::time::timeout(Duration::from_secs(15), log.text()).await;
        ended.expect("the log ends").unwrap();
    }
    let mut conn = stage.root.get_conn().await.unwrap();
    dinp_common::store::build::append_log(&mut conn, build, 0, "goes on\n").await.unwrap();
    assert_eq!(kept.chunk().await.unwrap().unwrap(), "goes on\n");

    // The same where a person is suspended.
    stage.sql("UPDATE user SET suspended_at = UTC_TIMESTAMP(3) WHERE name = 'otto'").await;
    let ended = tokio::time::timeout(Duration::from_secs(15), kept.text()).await;
    ended.expect("the log ends").unwrap();
}

#[tokio::test]
async fn a_name_that_would_lead_to_another_endpoint_is_nobodys() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let stage = Stage::set().await;
    let admin = stage.token("admin").await;
    let address = stage.url.trim_start_matches("http://");
    // By hand, because clients take such parts out of what they ask for.
    for path in ["/v1/users/%2e%2e", "/v1/teams/%2e%2e", "/v1/teams/shop/members/..", "/v1/routers/%2E."] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!(
            "DELETE {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {admin}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.contains("there is nothing of this name"),
            "{path}: {answer}"
        );
    }
}
