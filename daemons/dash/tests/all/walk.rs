//! Every endpoint of the API with every role, compared with the table of permissions.

use crate::stage::Stage;
use dinp_common::api::uic::TeamRole;
use dinp_dash::permissions::{API, Need};
use mysql_async::prelude::Queryable;
use reqwest::Method;
use serde_json::{Value, json};

/// What somebody may be to an app of the team `shop`.
pub const PEOPLE: [(&str, Option<TeamRole>, u8); 7] = [
    ("", None, 0),
    ("bert", None, 1),
    ("vera", Some(TeamRole::Viewer), 1),
    ("dora", Some(TeamRole::Deployer), 1),
    ("otto", Some(TeamRole::Owner), 1),
    ("olga", Some(TeamRole::Owner), 2),
    ("admin", Some(TeamRole::Owner), 3),
];

/// What the table means for a person: 401, 403, 404 or through (200).
pub fn expected(need: Need, role: Option<TeamRole>, rank: u8) -> u16 {
    let on_app = |needs: TeamRole| match role {
        None => 404,
        Some(has) if has < needs => 403,
        Some(_) => 200,
    };
    match need {
        Need::Public => 200,
        _ if rank == 0 => 401,
        Need::SignedIn => 200,
        Need::App(needs) | Need::Deployment(needs) | Need::Build(needs) => on_app(needs),
        Need::Operator => {
            if rank >= 2 {
                200
            } else {
                403
            }
        }
        Need::Admin => {
            if rank >= 3 {
                200
            } else {
                403
            }
        }
    }
}

/// A fresh app of the team, with a release, a deployment, a domain and a build; returns ids of the last and the third.
pub async fn fresh_app(stage: &Stage, name: &str) -> (u64, u64) {
    let mut conn = stage.root.get_conn().await.unwrap();
    let release = dinp_common::store::release::draw_id();
    conn.query_drop(format!(
        "INSERT INTO app (name, owner, team, instances, rev) VALUES ('{name}', 'dora', 'shop', 1, 1)"
    ))
    .await
    .unwrap();
    conn.query_drop(format!(
        "INSERT INTO `release` (id, app, number, image, memory_mb, cpu_millis, env_version, instances, domains, created_by, rev) \
         VALUES ({release}, '{name}', 1, '{}/anna/web:v1', 256, 100, 0, 1, '[]', 'dora', 1)",
        stage.registry
    )).await.unwrap();
    conn.query_drop(format!(
        "INSERT INTO deployment (app, release_id, created_by, rev) VALUES ('{name}', {release}, 'dora', 1)"
    ))
    .await
    .unwrap();
    let deployment = conn.last_insert_id().unwrap();
    conn.query_drop(format!(
        "INSERT INTO domain (name, app, created_by, rev) VALUES ('{name}.example.org', '{name}', 'dora', 1)"
    ))
    .await
    .unwrap();
    conn.query_drop(format!(
        "INSERT INTO build (app, version, runtime, created_by, builder) VALUES ('{name}', 'v1', 'python', 'dora', 'b')"
    ))
    .await
    .unwrap();
    (deployment, conn.last_insert_id().unwrap())
}

fn body(method: &str, path: &str) -> Value {
    match (method, path) {
        ("POST", "/v1/apps") => json!({"name": "-"}),
        ("POST", "/v1/users") => json!({"name": "-", "password": "0123456789"}),
        ("POST", "/v1/teams") => json!({"name": "-"}),
        ("PATCH", "/v1/users/{name}") => json!({}),
        ("PUT", "/v1/teams/{name}/members/{user}") => json!({"role": "viewer"}),
        ("POST", "/v1/nodes") => json!({"name": "node9", "address": "10.0.0.9"}),
        ("PUT", "/v1/apps/{app}/scale") => json!({"instances": 2}),
        ("PATCH", "/v1/apps/{app}/env") => json!({"set": {"A": "1"}}),
        ("POST", "/v1/apps/{app}/domains") => json!({"name": "-"}),
        ("POST", _) => json!({}),
        _ => Value::Null,
    }
}

#[tokio::test]
async fn every_endpoint_with_every_role() {
    let stage = Stage::set().await;
    let mut tokens = Vec::new();
    for (name, ..) in PEOPLE {
        tokens.push(if name.is_empty() { String::new() } else { stage.token(name).await });
    }
    let mut number = 0;
    for (method, pattern, need) in API {
        for ((person, role, rank), token) in PEOPLE.iter().zip(&tokens) {
            number += 1;
            let app = format!("app{number}");
            let (deployment, build) = fresh_app(&stage, &app).await;
            let id = if pattern.starts_with("/v1/builds") { build } else { deployment };
            let path = pattern
                .replace("{app}", &app)
                .replace("{id}", &id.to_string())
                .replace("{domain}", &format!("{app}.example.org"))
                .replace("{instance}", "0000000000000001")
                .replace("{user}", "nobody")
                .replace("{name}", "nobody");
            let path = if *pattern == "/v1/builds" && *method == "POST" {
                format!("{path}?app={app}&runtime=python")
            } else {
                path
            };
            let body = match *pattern {
                "/v1/uploads" => json!({"app": app, "bytes": 1}),
                _ => body(method, pattern),
            };
            let (status, answer) = stage.call(token, Method::from_bytes(method.as_bytes()).unwrap(), &path, body).await;
            let detail = answer["detail"].as_str().unwrap_or_default();
            let seen = match status {
                401 | 403 => status,
                404 if detail.starts_with("there is no app")
                    || detail.starts_with("there is no deployment")
                    || detail.starts_with("there is no build") =>
                {
                    404
                }
                _ => 200,
            };
            let mut wanted = expected(*need, *role, *rank);
            if ["/v1/builds", "/v1/uploads"].contains(pattern) && *method == "POST" && *rank > 0 {
                wanted = expected(Need::App(TeamRole::Deployer), *role, *rank);
            }
            assert_eq!(seen, wanted, "{method} {pattern} as {person:?}: {status} {answer}");
            assert!(status < 500, "{method} {pattern} as {person:?}: {status} {answer}");
        }
    }
    // What the table does not list does not run.
    assert_eq!(stage.call(&tokens[6], Method::PUT, "/v1/apps", json!({})).await.0, 405);
}
