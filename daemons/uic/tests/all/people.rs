//! Users and teams over the JSON API, with every role.

use crate::common::{Browser, Server};
use mysql_async::prelude::Queryable;
use reqwest::Method;
use serde_json::{Value, json};

const CLI: &str = "http://127.0.0.1:40123/callback";

async fn call(server: &Server, token: Option<&str>, method: Method, path: &str, body: Value) -> (u16, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", server.url));
    request = request.bearer_auth(server.dash.to_string());
    if let Some(token) = token {
        request = request.header("x-dinp-access-token", token);
    }
    if !body.is_null() {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn administrators_change_users_and_teams() {
    let server = Server::start().await;
    let admin = server.sign_in(&Browser::new(), "admin", "cli", CLI).await;
    let anna = server.sign_in(&Browser::new(), "anna", "cli", CLI).await;
    let (admin, anna) = (Some(admin.as_str()), Some(anna.as_str()));

    // Who is no administrator changes nothing.
    let bert = json!({"name": "bert", "password": "0123456789"});
    assert_eq!(call(&server, anna, Method::POST, "/v1/users", bert.clone()).await.0, 403);
    assert_eq!(call(&server, None, Method::POST, "/v1/users", bert.clone()).await.0, 403);
    assert_eq!(call(&server, Some("session:x:y"), Method::POST, "/v1/users", bert.clone()).await.0, 401);

    // Bad input names field and rule.
    for (body, field) in [
        (json!({"name": "Bert", "password": "0123456789"}), "name"),
        (json!({"name": "bert", "password": "short"}), "password"),
        (json!({"name": "bert"}), "password"),
        (json!({"name": "bert", "password": "0123456789", "admin": true}), "admin"),
        (json!({"name": "bert", "password": "0123456789", "role": "god"}), "role"),
    ] {
        let (status, problem) = call(&server, admin, Method::POST, "/v1/users", body).await;
        assert_eq!((status, &problem["field"]), (422, &field.into()), "{problem}");
    }

    let (status, made) = call(&server, admin, Method::POST, "/v1/users", bert.clone()).await;
    assert_eq!((status, &made["role"]), (201, &"user".into()));
    assert_eq!(call(&server, admin, Method::POST, "/v1/users", bert).await.0, 409);
    assert_eq!(call(&server, admin, Method::POST, "/v1/teams", json!({"name": "anna"})).await.0, 409);
    assert_eq!(call(&server, admin, Method::POST, "/v1/teams", json!({"name": "web"})).await.0, 201);
    assert_eq!(
        call(&server, admin, Method::POST, "/v1/users", json!({"name": "web", "password": "0123456789"})).await.0,
        409
    );

    // Membership shows in the next introspection.
    let put = |role: &'static str| json!({"role": role});
    let (status, team) = call(&server, admin, Method::PUT, "/v1/teams/web/members/anna", put("deployer")).await;
    assert_eq!((status, &team["members"][0]["role"]), (200, &"deployer".into()));
    assert_eq!(call(&server, admin, Method::PUT, "/v1/teams/web/members/anna", put("owner")).await.0, 200);
    assert_eq!(call(&server, admin, Method::PUT, "/v1/teams/web/members/none", put("owner")).await.0, 404);
    assert_eq!(call(&server, admin, Method::PUT, "/v1/teams/none/members/anna", put("owner")).await.0, 404);
    let seen = server.introspect(anna.unwrap()).await;
    assert_eq!(seen["user"]["teams"], json!([{"team": "web", "role": "owner"}]));

    // Lists are paged.
    let (_, first) = call(&server, None, Method::GET, "/v1/users?limit=2", Value::Null).await;
    assert_eq!((first["items"].as_array().unwrap().len(), &first["next"]), (2, &"anna".into()));
    assert_eq!(first["items"][1]["teams"][0]["team"], "web");
    let (_, rest) = call(&server, None, Method::GET, "/v1/users?limit=2&after=anna", Value::Null).await;
    assert_eq!((&rest["items"][0]["name"], rest.get("next")), (&"bert".into(), None));
    let (_, teams) = call(&server, None, Method::GET, "/v1/teams", Value::Null).await;
    assert_eq!(teams["items"][0]["members"][0]["user"], "anna");

    // The last administrator stays.
    let (status, problem) = call(&server, admin, Method::PATCH, "/v1/users/admin", json!({"role": "user"})).await;
    assert_eq!((status, &problem["type"]), (409, &"urn:dinp:last-admin".into()));
    assert_eq!(call(&server, admin, Method::PATCH, "/v1/users/admin", json!({"suspended": true})).await.0, 409);
    assert_eq!(call(&server, admin, Method::DELETE, "/v1/users/admin", Value::Null).await.0, 409);

    // Suspension ends sessions; so does a new password.
    assert_eq!(call(&server, admin, Method::PATCH, "/v1/users/anna", json!({"suspended": true})).await.0, 200);
    assert_eq!(server.introspect(anna.unwrap()).await["active"], false);
    let suspended = Browser::new().log_in(&server, "/login", "anna", crate::common::PASSWORD).await;
    assert!(suspended.body.contains("suspended"), "{}", suspended.body);
    assert_eq!(call(&server, admin, Method::PATCH, "/v1/users/anna", json!({"suspended": false})).await.0, 200);

    assert_eq!(call(&server, admin, Method::DELETE, "/v1/teams/web/members/anna", Value::Null).await.0, 204);
    assert_eq!(call(&server, admin, Method::DELETE, "/v1/teams/web", Value::Null).await.0, 204);
    assert_eq!(call(&server, admin, Method::DELETE, "/v1/users/bert", Value::Null).await.0, 204);
    assert_eq!(call(&server, admin, Method::DELETE, "/v1/users/bert", Value::Null).await.0, 404);

    // Who gets a name gets what is kept under it: it is given once, to a user or to a team.
    for name in ["bert", "web"] {
        let user = json!({"name": name, "password": "0123456789"});
        for (path, body) in [("/v1/users", user), ("/v1/teams", json!({"name": name}))] {
            let (status, problem) = call(&server, admin, Method::POST, path, body).await;
            assert_eq!(status, 409);
            assert!(problem["detail"].as_str().unwrap().contains("that was removed"), "{problem}");
        }
    }

    // Everything is on record.
    let mut conn = server.root.get_conn().await.unwrap();
    let actions: Vec<String> =
        conn.query("SELECT CONCAT(actor, ' ', action, ' ', object) FROM audit_event ORDER BY id").await.unwrap();
    for expected in [
        "admin user.create user/bert",
        "admin team.member team/web",
        "admin user.remove user/bert",
        "anna session.begin user/anna",
    ] {
        assert!(actions.iter().any(|action| action == expected), "{expected} in {actions:?}");
    }
}

#[tokio::test]
async fn a_user_and_a_team_of_one_name_are_never_made_at_the_same_time() {
    let server = Server::start().await;
    let admin = server.sign_in(&Browser::new(), "admin", "cli", CLI).await;
    let admin = Some(admin.as_str());
    for n in 0..40 {
        let name = format!("name{n}");
        let user = || call(&server, admin, Method::POST, "/v1/users", json!({"name": name, "password": "0123456789"}));
        let team = || call(&server, admin, Method::POST, "/v1/teams", json!({"name": name}));
        let answers: [(u16, Value); 6] = tokio::join!(user(), team(), user(), team(), user(), team()).into();
        let mut statuses = answers.each_ref().map(|(status, _)| *status);
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409], "{answers:?}");
    }
    let mut conn = server.root.get_conn().await.unwrap();
    let count = "SELECT (SELECT COUNT(*) FROM user WHERE name LIKE 'name%') + (SELECT COUNT(*) FROM team)";
    assert_eq!(conn.query_first::<u64, _>(count).await.unwrap(), Some(40));
}
