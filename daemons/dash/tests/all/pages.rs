//! The pages, as somebody without scripts uses them.

use crate::browser::Browser;
use crate::stage::Stage;
use crate::walk::{PEOPLE, expected, fresh_app};
use dinp_common::api::builder::BuildStatus;
use dinp_common::store::build;
use dinp_dash::DashConfig;
use dinp_dash::permissions::PAGES;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

#[tokio::test]
async fn from_the_first_visit_to_the_deleted_app() {
    let stage = Stage::set().await;
    let anna = Browser::new();

    // The first visit leads through sign-on to the page that was wanted.
    let list = anna.sign_in(&stage, "anna", "/apps?x=1").await;
    assert_eq!((list.status, list.url.path(), list.url.query()), (200, "/apps", Some("x=1")), "{}", list.body);
    assert!(list.body.contains("No apps yet") && list.body.contains("Create the first app"));
    let policy = list.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe-inline"), "{policy}");
    assert_eq!(list.headers["cache-control"], "no-store");

    // Create: an error stands at its field, and what was typed stays.
    let wrong = anna.post(&stage, "/apps", &[("name", "My App"), ("team", ""), ("instances", "2")]).await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.body.contains("id=\"name-error\">app name &#34;My App&#34; is not valid"), "{}", wrong.body);
    assert!(wrong.body.contains("value=\"My App\"") && wrong.body.contains("value=\"2\""));
    let app = anna.post(&stage, "/apps", &[("name", "web"), ("team", ""), ("instances", "2")]).await;
    assert_eq!((app.status, app.url.path()), (200, "/apps/web"));
    assert!(app.body.contains("The app has been created") && app.body.contains("Nothing to run yet"));

    // Deploy: what the registry does not have is said at the field.
    let fields = |image: &str, memory: &str| {
        vec![
            ("image", image.to_owned()),
            ("memory_mb", memory.to_owned()),
            ("instances", "2".to_owned()),
            ("health", String::new()),
            ("cpu_millis", "100".to_owned()),
            ("cpu_limit_millis", String::new()),
            ("command", String::new()),
            ("note", String::new()),
        ]
    };
    for (image, memory, rule) in [
        (format!("{}/anna/web:v9", stage.registry), "256", "has no image anna/web:v9"),
        ("nginx".to_owned(), "256", "it must be registry/path:tag"),
        (format!("{}/anna/web:v1", stage.registry), "64", "it must be from 128 to 10240 MiB"),
        (format!("{}/anna/web:v1", stage.registry), "lots", "it must be a whole number"),
    ] {
        let fields = fields(&image, memory);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = anna.post(&stage, "/apps/web/deploy", &fields).await;
        assert_eq!(answer.status, 422);
        assert!(answer.body.contains(rule) && answer.body.contains("aria-invalid"), "{rule}: {}", answer.body);
    }
    let image = format!("{}/anna/web:v1", stage.registry);
    let good = fields(&image, "256");
    let good: Vec<(&str, &str)> = good.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let page = anna.post(&stage, "/apps/web/deploy", &good).await;
    assert_eq!(page.url.path(), "/apps/web");
    assert!(
        page.body.contains("Deployment of release #1") && page.body.contains("http-equiv=\"refresh\""),
        "{}",
        page.body
    );
    stage.succeed(1).await;
    *stage.played.instances.lock().unwrap() = vec![("web".into(), "ready"), ("web".into(), "back_off")];
    let page = anna.get(&stage, "/apps/web").await;
    assert!(
        page.body.contains("1 of 2") && page.body.contains("node2") && page.body.contains("out of memory"),
        "{}",
        page.body
    );
    assert!(page.body.contains("partly serving"));

    // Scale, environment, domains.
    let wrong = anna.post(&stage, "/apps/web/scale", &[("instances", "9999")]).await;
    assert!(wrong.status == 422 && wrong.body.contains("it must be from 0 to 500"), "{}", wrong.body);
    assert!(anna.post(&stage, "/apps/web/scale", &[("instances", "3")]).await.body.contains("has been saved"));
    let env = anna.post(&stage, "/apps/web/env", &[("name", "KEY"), ("value", "s3cret")]).await;
    assert!(
        env.body.contains("Changed, not deployed") && env.body.contains("KEY") && !env.body.contains("s3cret"),
        "{}",
        env.body
    );
    let reserved = anna.post(&stage, "/apps/web/env", &[("name", "PORT"), ("value", "1"), ("deploy", "yes")]).await;
    assert!(reserved.body.contains("class=\"error\">the variable PORT is set by the platform"), "{}", reserved.body);
    let domains = anna.post(&stage, "/apps/web/domains", &[("name", "shop.example.org")]).await;
    assert!(domains.body.contains("http://shop.example.org/"), "{}", domains.body);
    let wrong = anna.post(&stage, "/apps/web/domains", &[("name", "other.apps.localhost")]).await;
    assert!(wrong.body.contains("belongs to the app of that name"));
    let logs = anna.get(&stage, "/apps/web/logs").await;
    assert!(logs.body.contains("2023-11-14 22:13:20 00a1b2c3  web line 2"), "{}", logs.body);
    for path in ["/apps/web/history", "/apps/web/events", "/apps", "/builds", "/apps/web/upload", "/apps/web/deploy"] {
        assert_eq!(anna.get(&stage, path).await.status, 200, "{path}");
    }
    assert!(anna.get(&stage, "/nodes").await.body.contains("this is for operators"));
    let back = anna.post(&stage, "/apps/web/rollback", &[]).await;
    assert!(back.status == 409 && back.body.contains("no release before the present one"), "{}", back.body);

    // Delete asks for the name.
    let wrong = anna.post(&stage, "/apps/web/delete", &[("name", "wep")]).await;
    assert!(wrong.status == 422 && wrong.body.contains("type web to delete this app"), "{}", wrong.body);
    assert!(anna.post(&stage, "/apps/web/delete", &[("name", "web")]).await.body.contains("The app has been deleted"));

    // The banner says when the cluster is not as it should be.
    *stage.played.frozen.lock().unwrap() = Some("9 of 10 nodes fell silent within a minute".to_owned());
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert!(anna.get(&stage, "/apps").await.body.contains("Frozen: 9 of 10 nodes fell silent"));

    // Signing out ends the sign-on at uic too, so that nobody gets back in without the password.
    let out = anna.post(&stage, "/logout", &[]).await;
    assert_eq!(out.url.path(), "/signed-out");
    let again = anna.get(&stage, "/apps").await;
    assert!(again.body.contains("name=\"password\""), "{}", again.body);
}

#[tokio::test]
async fn a_package_becomes_a_deployment_with_one_click() {
    let stage = Stage::set().await;
    let dora = Browser::with_token(&stage, &stage.token("dora").await);
    let app = dora.post(&stage, "/apps", &[("name", "web"), ("team", "shop"), ("instances", "1")]).await;
    assert_eq!(app.url.path(), "/apps/web", "{}", app.body);
    assert!(dora.get(&stage, "/apps/web/upload").await.body.contains("served by gunicorn"));

    let csrf = dora.csrf(&stage).await;
    let upload = |runtime: &'static str, name: &'static str, bytes: Vec<u8>, csrf: String| {
        let form = Form::new()
            .text("csrf", csrf)
            .text("runtime", runtime)
            .text("version", "v1")
            .part("package", Part::bytes(bytes).file_name(name));
        dora.send(dora.request(&stage, Method::POST, "/apps/web/upload").multipart(form))
    };
    for (runtime, name, bytes, status, rule) in [
        ("python", "x.txt", b"not an archive".to_vec(), 422, "id=\"package-error\">the package is no tar.gz"),
        ("cobol", "x.tar.gz", vec![7; 1000], 422, "there is no runtime cobol"),
        ("python", "", Vec::new(), 422, "choose the package to upload"),
        ("python", "x.tar.gz", vec![7; 5_000_000], 413, "larger than 4 MiB"),
    ] {
        let answer = upload(runtime, name, bytes, csrf.clone()).await;
        assert_eq!(answer.status, status, "{rule}: {}", answer.body);
        assert!(answer.body.contains(rule), "{rule}: {}", answer.body);
    }
    assert_eq!(upload("python", "x.tar.gz", vec![7; 10], "x".into()).await.status, 403);
    let many = (0..20).fold(Form::new().text("csrf", csrf.clone()), |form, n| form.text(format!("f{n}"), "x"));
    assert_eq!(dora.send(dora.request(&stage, Method::POST, "/apps/web/upload").multipart(many)).await.status, 400);
    let page = upload("python", "x.tar.gz", vec![7; 3_000_000], csrf.clone()).await;
    assert!(page.url.path().starts_with("/builds/"), "{}", page.body);
    assert!(page.body.contains("unpacking the package") && page.body.contains("data-log-reload"), "{}", page.body);
    assert_eq!(stage.played.packages.lock().unwrap().len(), 1);
    let path = page.url.path().to_owned();
    let id: u64 = path.rsplit('/').next().unwrap().parse().unwrap();

    let mut conn = stage.root.get_conn().await.unwrap();
    let image = format!("{}/anna/web:v1@{}", stage.registry, crate::played::DIGEST);
    build::append_log(&mut conn, id, 1, "pushed <b>\n").await.unwrap();
    build::finish(&mut conn, "builder1", id, BuildStatus::Succeeded, "", Some(&image)).await.unwrap();
    let page = dora.get(&stage, &path).await;
    assert!(page.body.contains("Deploy this build") && page.body.contains("pushed &#60;b&#62;"), "{}", page.body);
    let app =
        dora.post(&stage, &format!("{path}/deploy"), &[("instances", "2"), ("memory_mb", "256"), ("note", "")]).await;
    assert_eq!(app.url.path(), "/apps/web");
    assert!(app.body.contains("Deployment of release #1"), "{}", app.body);

    // Who only sees gets no buttons.
    let vera = Browser::with_token(&stage, &stage.token("vera").await);
    let page = vera.get(&stage, &path).await;
    assert!(page.status == 200 && !page.body.contains("Deploy this build"));
    let page = vera.get(&stage, "/apps/web").await;
    assert!(!page.body.contains("Set the number of instances") && !page.body.contains("/apps/web/delete"));
}

#[tokio::test]
async fn a_broken_deploy_is_shown_as_it_is() {
    let stage = Stage::set().await;
    let anna = Browser::with_token(&stage, &stage.token("anna").await);
    anna.post(&stage, "/apps", &[("name", "web"), ("team", ""), ("instances", "1")]).await;
    let image = format!("{}/anna/web:v1", stage.registry);

    // While a first release comes, nothing serves, and nothing is said to be well.
    let page = anna.post(&stage, "/apps/web/deploy", &[("image", &image), ("health", "/health")]).await;
    assert!(page.body.contains("Nothing is in force yet") && !page.body.contains("notice good"), "{}", page.body);
    assert!(!page.body.contains("serves on") && !page.body.contains("Waiting for the leader"), "{}", page.body);
    stage
        .sql(
            "UPDATE deployment SET state = 'rolled_back', reason = 'GET /health answered 500: no such table', \
             output = '[\"Traceback\", \"<KeyError>: DATABASE_URL\"]' WHERE id = 1",
        )
        .await;
    let page = anna.get(&stage, "/apps/web").await;
    for text in [
        "Release #1 failed and was taken back.",
        "GET /health answered 500: no such table",
        "&#60;KeyError&#62;: DATABASE_URL",
        "Nothing was in force before, so nothing runs.",
        "/apps/web/logs?previous=true",
        "state bad\">failed",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    let page = anna.get(&stage, "/apps/web/history").await;
    assert!(page.body.contains("never came up") && page.body.contains("Traceback"), "{}", page.body);
    assert!(!page.body.contains("Bring back") && !page.body.contains("Roll back to the one before"), "{}", page.body);

    // The next one starts with the settings that were made, and comes up; the one after it is cancelled.
    let form = anna.get(&stage, "/apps/web/deploy").await;
    assert!(form.body.contains("value=\"/health\"") && form.body.contains("placeholder=\"web.apps.localhost\""));
    anna.post(&stage, "/apps/web/deploy", &[("image", &image), ("health", "/health")]).await;
    stage.succeed(2).await;
    *stage.played.instances.lock().unwrap() = vec![("web".into(), "ready")];
    let page = anna.post(&stage, "/apps/web/deploy", &[("image", &image), ("health", "/health")]).await;
    assert!(page.body.contains("Release #2 serves on"), "{}", page.body);
    *stage.played.instances.lock().unwrap() = vec![("web".into(), "back_off")];
    let page = anna.get(&stage, "/apps/web").await;
    assert!(
        page.body.contains("none of its instances serves now") && !page.body.contains("serves on"),
        "{}",
        page.body
    );
    anna.post(&stage, "/apps/web/cancel", &[("deployment", "3")]).await;
    stage.sql("UPDATE deployment SET state = 'cancelled' WHERE id = 3").await;
    let page = anna.get(&stage, "/apps/web").await;
    assert!(page.body.contains("The deployment of release #3 was cancelled."), "{}", page.body);
    let page = anna.get(&stage, "/apps/web/history").await;
    assert!(!page.body.contains("Bring back"), "only the one in force has ever come up: {}", page.body);

    // What ended can be read, of all and of one, and stopping asks first.
    let logs = anna.get(&stage, "/apps/web/logs?previous=true").await;
    assert!(logs.body.contains("web last line 2") && !logs.body.contains("data-log="), "{}", logs.body);
    let logs = anna.get(&stage, "/apps/web/logs?instance=00000000000000ff").await;
    assert!(logs.body.contains("logs/stream?instance=00000000000000ff"), "{}", logs.body);
    assert_eq!(anna.get(&stage, "/apps/web/logs?instance=x").await.status, 422);
    assert!(
        page_part(&anna.get(&stage, "/apps/web").await.body, "<summary>Stop the app</summary>", "</details>")
            .contains("Stop web now")
    );
}

/// The text between two others.
fn page_part<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    page.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap().0
}

#[tokio::test]
async fn all_settings_stand_on_the_forms() {
    let stage = Stage::set().await;
    let anna = Browser::with_token(&stage, &stage.token("anna").await);
    anna.post(&stage, "/apps", &[("name", "web"), ("team", ""), ("instances", "1")]).await;
    let image = format!("{}/anna/web:v1", stage.registry);
    let all = [
        ("image", image.as_str()),
        ("health_kind", "http"),
        ("health", "/up"),
        ("health_host", "shop.example.org"),
        ("start_timeout_secs", "90"),
        ("min_healthy_secs", "7"),
        ("verify_secs", "0"),
        ("drain_timeout_secs", "12"),
        ("stop_grace_secs", "4"),
    ];
    anna.post(&stage, "/apps/web/deploy", &all).await;
    let timing = stage.text("SELECT CAST(timing AS CHAR) FROM `release` WHERE number = 1").await;
    let timing: Value = serde_json::from_str(&timing).unwrap();
    assert_eq!(
        timing,
        json!({"start_timeout_secs": 90, "min_healthy_secs": 7, "verify_secs": 0, "drain_timeout_secs": 12, "stop_grace_secs": 4})
    );
    let form = anna.get(&stage, "/apps/web/deploy").await;
    for (name, value) in &all[2..] {
        let field = page_part(&form.body, &format!("name=\"{name}\""), ">");
        assert!(field.contains(&format!("value=\"{value}\"")), "{name}: {field}");
    }
    let wrong = anna.post(&stage, "/apps/web/deploy", &[("image", &image), ("stop_grace_secs", "0")]).await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.body.contains("stop grace &#34;0&#34; is not valid: it must be from 1 to 600 seconds"));
    // What is emptied goes back to the default.
    anna.post(&stage, "/apps/web/deploy", &[("image", &image), ("start_timeout_secs", "80")]).await;
    assert_eq!(
        stage.text("SELECT CAST(timing AS CHAR) FROM `release` WHERE number = 2").await,
        "{\"start_timeout_secs\":80}"
    );
    anna.post(&stage, "/apps/web/deploy", &[("image", &image), ("health_kind", "tcp")]).await;
    assert!(stage.text("SELECT CAST(health AS CHAR) FROM `release` WHERE number = 3").await.contains("tcp"));
}

#[tokio::test]
async fn the_environment_page_says_what_is_not_in_force() {
    let stage = Stage::set().await;
    let anna = Browser::with_token(&stage, &stage.token("anna").await);
    anna.post(&stage, "/apps", &[("name", "web"), ("team", ""), ("instances", "1")]).await;
    let set = |name: &'static str| [("name", name), ("value", "1"), ("deploy", "yes")];
    let page = anna.post(&stage, "/apps/web/env", &set("GOOD")).await;
    assert!(page.body.contains("Nothing is deployed yet: the first release takes it along."), "{}", page.body);
    let image = format!("{}/anna/web:v1", stage.registry);
    anna.post(&stage, "/apps/web/deploy", &[("image", &image)]).await;
    stage.succeed(1).await;
    anna.post(&stage, "/apps/web/env", &set("BAD")).await;
    stage.sql("UPDATE deployment SET state = 'rolled_back' WHERE id = 2").await;
    let page = anna.get(&stage, "/apps/web/env").await;
    assert!(page.body.contains("Version 2 of the failed release #2 is not in force (BAD set)."), "{}", page.body);
    assert!(anna.get(&stage, "/apps/web/deploy").await.body.contains("Take along the environment that is left out"));
    let page = anna.post(&stage, "/apps/web/env", &[("keep", "yes"), ("deploy", "yes")]).await;
    assert!(page.body.contains("Deployment of release #3"), "{}", page.body);
    assert_eq!(stage.text("SELECT CAST(env_version AS CHAR) FROM `release` WHERE number = 3").await, "2");
}

#[tokio::test]
async fn every_page_with_every_role_and_no_form_without_its_token() {
    let stage = Stage::set().await;
    let mut number = 0;
    for (person, role, rank) in PEOPLE {
        let browser =
            if person.is_empty() { Browser::new() } else { Browser::with_token(&stage, &stage.token(person).await) };
        let csrf = if person.is_empty() { "x".to_owned() } else { browser.csrf(&stage).await };
        for (method, pattern, need) in PAGES {
            if ["/logout", "/auth/callback"].contains(pattern) {
                continue;
            }
            number += 1;
            let app = format!("app{number}");
            let (_, build) = fresh_app(&stage, &app).await;
            let path = pattern.replace("{app}", &app).replace("{id}", &build.to_string()).replace("{name}", "nobody");
            if pattern.ends_with("/log") {
                stage.sql(&format!("UPDATE build SET status = 'failed' WHERE id = {build}")).await;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let posts = method == Method::POST;
            let form = |token: &str| {
                let request = browser.request(&stage, method.clone(), &path);
                match (posts, pattern.ends_with("/upload")) {
                    (false, _) => request,
                    (true, true) => request.multipart(Form::new().text("csrf", token.to_owned())),
                    (true, false) => request.form(&[("csrf", token), ("state", "stopped")]),
                }
            };
            let wanted = expected(*need, role, rank);
            if posts && wanted == 200 {
                let forged = browser.send(form("forged")).await;
                assert_eq!(forged.status, 403, "{method} {pattern} as {person:?} without its token: {}", forged.body);
                let foreign = browser.send(form(&csrf).header("origin", "http://evil.example")).await;
                assert_eq!(foreign.status, 403, "{method} {pattern} as {person:?} from another site");
            }
            let answer = browser.send(form(&csrf)).await;
            let seen = match answer.status {
                _ if answer.url.as_str().starts_with(&stage.uic_url) && *pattern != "/login" => 401,
                404 if answer.body.contains("there is no app") || answer.body.contains("there is no build") => 404,
                403 => 403,
                _ => 200,
            };
            assert_eq!(seen, wanted, "{method} {pattern} as {person:?}: {} {}", answer.status, answer.body);
            assert!(answer.status < 500, "{method} {pattern} as {person:?}: {} {}", answer.status, answer.body);
        }
    }
}

#[tokio::test]
async fn who_was_signed_out_at_uic_meanwhile_has_to_sign_in_again() {
    // dash believes a token for a while; uic, which changes people, does not.
    let stage = Stage::set_with(DashConfig::default()).await;
    let token = stage.token("admin").await;
    let browser = Browser::with_token(&stage, &stage.token("admin").await);
    let csrf = browser.csrf(&stage).await;
    assert_eq!(stage.call(&token, Method::GET, "/v1/me", Value::Null).await.0, 200);
    stage.sql("DELETE FROM session").await;
    assert_eq!(stage.call(&token, Method::GET, "/v1/me", Value::Null).await.0, 200, "dash does not know it yet");

    let (status, problem) = stage.call(&token, Method::PATCH, "/v1/users/anna", json!({"suspended": true})).await;
    assert_eq!((status, &problem["type"]), (401, &"urn:dinp:unauthorized".into()), "{problem}");
    let form = [("csrf", csrf.as_str()), ("act", "suspend")];
    let page = browser.send(browser.request(&stage, Method::POST, "/people/users/anna").form(&form)).await;
    assert!(page.url.as_str().starts_with(&stage.uic_url), "{} {}", page.url, page.body);
    assert!(page.body.contains("name=\"password\""), "{}", page.body);
}

#[tokio::test]
async fn without_the_database_pages_say_so() {
    let mut stage = Stage::set().await;
    let anna = Browser::with_token(&stage, &stage.token("anna").await);
    assert_eq!(anna.get(&stage, "/apps").await.status, 200);
    stage.mysql.stop();
    let page = anna.get(&stage, "/apps").await;
    assert_eq!(page.status, 503);
    assert!(page.body.contains("the database cannot be reached now"), "{}", page.body);
    stage.mysql.start_again().await;
    assert_eq!(anna.get(&stage, "/apps").await.status, 200);
}
