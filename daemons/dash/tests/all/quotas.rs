//! What one owner may have in all, and how often one person may ask.

use crate::stage::Stage;
use dinp_dash::{DashConfig, Quotas};
use reqwest::Method;
use serde_json::{Value, json};

async fn stage(quota: Quotas) -> Stage {
    Stage::set_with(DashConfig { token_cache_secs: 0, quota, ..DashConfig::default() }).await
}

/// What a refusal names.
fn refused((status, problem): (u16, Value)) -> (u16, String, String, u64, u64) {
    assert_eq!(problem["type"], "urn:dinp:quota-exceeded", "{problem}");
    let text = |name: &str| problem[name].as_str().unwrap().to_owned();
    let number = |name: &str| problem[name].as_u64().unwrap();
    (status, text("quota"), text("owner"), number("used"), number("allowed"))
}

#[tokio::test]
async fn one_user_cannot_take_the_cluster_from_the_others() {
    let stage = stage(Quotas { apps: 2, instances: 6, memory_mb: 1024, domains: 1, ..Quotas::default() }).await;
    let (anna, bert, olga) = (stage.token("anna").await, stage.token("bert").await, stage.token("olga").await);
    let create = |token, name: &'static str, instances: u32| {
        let (stage, body) = (&stage, json!({"name": name, "instances": instances}));
        async move { stage.call(token, Method::POST, "/v1/apps", body).await }
    };
    let put = |path: &'static str, instances: u32| {
        let (stage, anna) = (&stage, &anna);
        async move { stage.call(anna, Method::PUT, path, json!({ "instances": instances })).await }
    };
    assert_eq!(create(&anna, "one", 2).await.0, 201);
    assert_eq!(refused(create(&anna, "two", 5).await), (403, "instances".into(), "anna".into(), 2, 6));
    assert_eq!(create(&anna, "two", 2).await.0, 201);
    let (_, problem) = create(&anna, "three", 0).await;
    assert_eq!(problem["detail"], "anna has 2 apps in all and may have 2; this would make it 3");
    assert_eq!(create(&bert, "three", 6).await.0, 201, "others have what is theirs");

    assert_eq!(put("/v1/apps/one/scale", 4).await.0, 200);
    assert_eq!(refused(put("/v1/apps/one/scale", 5).await), (403, "instances".into(), "anna".into(), 6, 6));

    // Memory is that of all instances, of a release that is on its way too.
    let image = format!("{}/anna/web:v1", stage.registry);
    let deploy = |app: &'static str, memory: u32| {
        let (stage, anna, wish) = (&stage, &anna, json!({"image": image, "memory_mb": memory}));
        async move { stage.call(anna, Method::POST, &format!("/v1/apps/{app}/deployments"), wish).await }
    };
    assert_eq!(deploy("one", 192).await.0, 201);
    let memory = (403, "MiB of memory".into(), "anna".into(), 768, 1024);
    assert_eq!(refused(deploy("two", 192).await), memory);
    assert_eq!(stage.text("SELECT CAST(COUNT(*) AS CHAR) FROM `release` WHERE app = 'two'").await, "0");
    assert_eq!(deploy("two", 128).await.0, 201);

    let domain = |name: &'static str| {
        let (stage, anna) = (&stage, &anna);
        async move { stage.call(anna, Method::POST, "/v1/apps/one/domains", json!({ "name": name })).await }
    };
    assert_eq!(domain("one.example.org").await.0, 201);
    assert_eq!(refused(domain("two.example.org").await), (403, "domains".into(), "anna".into(), 1, 1));

    // An operator may go beyond; it counts for the owner, who can take less and no more.
    assert_eq!(stage.call(&olga, Method::PUT, "/v1/apps/one/scale", json!({"instances": 9})).await.0, 200);
    assert_eq!(put("/v1/apps/one/scale", 10).await.0, 403);
    assert_eq!(put("/v1/apps/one/scale", 8).await.0, 200);
    let (_, quotas) = stage.call(&anna, Method::GET, "/v1/quotas", Value::Null).await;
    assert_eq!(quotas["items"].as_array().unwrap().len(), 1);
    assert_eq!(quotas["items"][0]["instances"], json!({"used": 10, "allowed": 6}));
    assert_eq!(quotas["items"][0]["memory_mb"], json!({"used": 8 * 192 + 2 * 128, "allowed": 1024}));

    // To delete and create without end fills nothing either.
    assert_eq!(stage.call(&anna, Method::DELETE, "/v1/apps/two", Value::Null).await.0, 204);
    assert_eq!(create(&anna, "four", 0).await.0, 403);
    stage.sql("UPDATE app SET deleted_at = deleted_at - INTERVAL 2 HOUR WHERE name = 'two'").await;
    assert_eq!(refused(create(&anna, "four", 1).await).1, "instances", "which are more than she may have");
    assert_eq!(put("/v1/apps/one/scale", 1).await.0, 200);
    assert_eq!(create(&anna, "four", 1).await.0, 201);
}

#[tokio::test]
async fn memory_that_was_set_and_failed_comes_back_within_the_quota_only() {
    let stage = stage(Quotas { memory_mb: 1024, ..Quotas::default() }).await;
    let anna = stage.token("anna").await;
    let call = |method, path: &'static str, body| stage.call(&anna, method, path, body);
    assert_eq!(call(Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);
    let image = format!("{}/anna/web:v1", stage.registry);
    let deploy =
        |memory: u32| call(Method::POST, "/v1/apps/web/deployments", json!({"image": image, "memory_mb": memory}));
    let (_, small) = deploy(128).await;
    stage.succeed(small["id"].as_u64().unwrap()).await;
    let (status, large) = deploy(512).await;
    assert_eq!(status, 201, "{large}");
    stage.sql(&format!("UPDATE deployment SET state = 'rolled_back' WHERE id = {}", large["id"])).await;

    // What runs is small, and so there may be more of it; the large one would be too much now.
    assert_eq!(call(Method::PUT, "/v1/apps/web/scale", json!({"instances": 4})).await.0, 200);
    let set = call(Method::PATCH, "/v1/apps/web/env", json!({"set": {"A": "1"}})).await;
    assert_eq!(refused(set), (403, "MiB of memory".into(), "anna".into(), 512, 1024));
    assert_eq!(call(Method::PUT, "/v1/apps/web/scale", json!({"instances": 2})).await.0, 200);
    assert_eq!(call(Method::PATCH, "/v1/apps/web/env", json!({"set": {"A": "1"}})).await.0, 200);
}

#[tokio::test]
async fn a_team_has_a_quota_of_its_own_and_two_at_once_do_not_pass_together() {
    let stage = stage(Quotas { instances: 5, ..Quotas::default() }).await;
    let (dora, otto) = (stage.token("dora").await, stage.token("otto").await);
    for name in ["a", "b", "own"] {
        let team = if name == "own" { "" } else { "shop" };
        let body = json!({"name": name, "team": team, "instances": 1});
        assert_eq!(stage.call(&dora, Method::POST, "/v1/apps", body).await.0, 201);
    }
    let scale = |token, path| stage.call(token, Method::PUT, path, json!({"instances": 4}));
    let (one, other) = tokio::join!(scale(&dora, "/v1/apps/a/scale"), scale(&otto, "/v1/apps/b/scale"));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
    assert_eq!(scale(&dora, "/v1/apps/own/scale").await.0, 200, "her own apps do not count for the team");
    let (_, quotas) = stage.call(&dora, Method::GET, "/v1/quotas", Value::Null).await;
    let used: Vec<(&str, u64)> = quotas["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|view| (view["owner"].as_str().unwrap(), view["instances"]["used"].as_u64().unwrap()))
        .collect();
    assert_eq!(used, [("dora", 4), ("shop", 5)]);
}

#[tokio::test]
async fn uploads_of_a_day_are_counted_for_their_owner() {
    let stage = stage(Quotas { build_mb_per_day: 3, ..Quotas::default() }).await;
    let anna = stage.token("anna").await;
    assert_eq!(stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);
    let upload = |bytes: usize| {
        let url = format!("{}/v1/builds?app=web&runtime=python&package=x.tar.gz", stage.url);
        let request = stage.http.post(url).bearer_auth(&anna).body(vec![7; bytes]);
        async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.json::<Value>().await.unwrap())
        }
    };
    assert_eq!(upload(2_000_000).await.0, 202);
    let (status, problem) = upload(2_000_000).await;
    assert_eq!((status, &problem["type"]), (429, &"urn:dinp:quota-exceeded".into()), "{problem}");
    assert_eq!(problem["detail"], "anna may upload 3 MiB within 24 hours, and this package would be more");
    stage.sql("UPDATE build SET started_at = started_at - INTERVAL 25 HOUR").await;
    assert_eq!(upload(2_000_001).await.0, 202);
}

#[tokio::test]
async fn builds_of_an_owner_are_counted_while_they_run_and_for_an_hour() {
    let stage = stage(Quotas { concurrent_builds: 1, builds_per_hour: 2, ..Quotas::default() }).await;
    let anna = stage.token("anna").await;
    assert_eq!(stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);
    let begin = async |version: &str| {
        let url = format!("{}/v1/builds?app=web&runtime=python&package=x.tar.gz&version={version}", stage.url);
        let response = stage.http.post(url).bearer_auth(&anna).body("x").send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap()["detail"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(begin("v1").await.0, 202);
    let running = "anna may have 1 builds that run at a time and has: wait until one has ended";
    assert_eq!(begin("v2").await, (429, running.to_owned()));
    let (status, problem) = stage.call(&anna, Method::POST, "/v1/uploads", json!({"app": "web", "bytes": 1})).await;
    assert_eq!((status, problem["quota"].as_str()), (429, Some("concurrent_builds")), "before a byte is sent");
    stage.sql("UPDATE build SET status = 'failed'").await;
    assert_eq!(begin("v2").await.0, 202);
    stage.sql("UPDATE build SET status = 'failed'").await;
    let hour = "anna may begin 2 builds within an hour and has: wait for a while";
    assert_eq!(begin("v3").await, (429, hour.to_owned()));
    let (_, quotas) = stage.call(&anna, Method::GET, "/v1/quotas", Value::Null).await;
    assert_eq!(quotas["items"][0]["builds_per_hour"], json!({"used": 2, "allowed": 2}));
    stage.sql("UPDATE build SET started_at = started_at - INTERVAL 61 MINUTE").await;
    assert_eq!(begin("v3").await.0, 202);
}

#[tokio::test]
async fn a_package_that_is_fetched_is_bound_as_one_that_is_uploaded() {
    let stage = stage(Quotas { build_mb_per_day: 6, ..Quotas::default() }).await;
    let anna = stage.token("anna").await;
    assert_eq!(stage.call(&anna, Method::POST, "/v1/apps", json!({"name": "web"})).await.0, 201);
    let fetch = async |further: &str, bytes: usize| {
        let path = format!("/v1/builds?app=web{further}&url=http://repo.example/{bytes}");
        stage.call(&anna, Method::POST, &path, Value::Null).await
    };
    let (status, problem) = fetch("", 4 * 1024 * 1024 + 1).await;
    assert_eq!((status, &problem["type"]), (413, &"urn:dinp:too-large".into()), "{problem}");
    assert_eq!(problem["detail"], "the package is larger than 4 MiB, which is the most that is taken here");
    assert_eq!(fetch("", 4 * 1024 * 1024).await.0, 202);
    let (status, problem) = fetch("&version=v2", 2 * 1024 * 1024 + 1).await;
    assert_eq!((status, &problem["type"]), (429, &"urn:dinp:quota-exceeded".into()), "{problem}");
    assert_eq!(problem["detail"], "anna may upload 6 MiB within 24 hours, and this package would be more");
    // Nobody says another limit for themselves.
    assert_eq!(fetch("&max_bytes=9999999", 2 * 1024 * 1024 + 1).await.0, 400);
    assert_eq!(fetch("&version=v2%26max_bytes=9999999", 1).await.0, 422);
    assert_eq!(fetch("&version=v2", 2 * 1024 * 1024).await.0, 202, "the last that is left");
    let (seen, _) = stage.played.packages.lock().unwrap().pop().unwrap();
    assert_eq!(seen["max_bytes"], (2 * 1024 * 1024).to_string());
}

#[tokio::test]
async fn who_asks_too_often_waits_and_nobody_else_does() {
    let stage = stage(Quotas { requests_per_minute: 1, requests_burst: 5, ..Quotas::default() }).await;
    let (anna, bert, olga) = (stage.token("anna").await, stage.token("bert").await, stage.token("olga").await);
    for _ in 0..5 {
        assert_eq!(stage.call(&anna, Method::GET, "/v1/me", Value::Null).await.0, 200);
    }
    let (status, problem) = stage.call(&anna, Method::GET, "/v1/me", Value::Null).await;
    assert_eq!((status, &problem["type"]), (429, &"urn:dinp:too-many-requests".into()), "{problem}");
    assert_eq!(problem["allowed"], 1);
    assert_eq!(stage.call(&bert, Method::GET, "/v1/me", Value::Null).await.0, 200);
    for _ in 0..10 {
        assert_eq!(stage.call(&olga, Method::GET, "/v1/me", Value::Null).await.0, 200);
    }
}
