//! What a release takes over from those before it, in the words of who deploys.

use crate::stage::Stage;
use reqwest::Method;
use serde_json::{Value, json};

const NONE: Value = Value::Null;

/// Anna and her app `web`.
struct Anna {
    stage: Stage,
    token: String,
}

impl Anna {
    async fn new() -> Self {
        let stage = Stage::set().await;
        let token = stage.token("anna").await;
        let anna = Self { stage, token };
        anna.call(Method::POST, "", json!({"name": "web"})).await;
        anna
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.stage.call(&self.token, method, &format!("/v1/apps{path}"), body).await
    }

    fn image(&self, tag: &str) -> String {
        format!("{}/anna/web:{tag}", self.stage.registry)
    }

    /// `dinp app deploy web ...`; returns the deployment's id.
    async fn deploy(&self, wish: Value) -> u64 {
        let (status, view) = self.call(Method::POST, "/web/deployments", wish).await;
        assert_eq!(status, 201, "{view}");
        view["id"].as_u64().unwrap()
    }

    /// `dinp app env web set ...`
    async fn env(&self, patch: Value) -> Value {
        let (status, view) = self.call(Method::PATCH, "/web/env", patch).await;
        assert_eq!(status, 200, "{view}");
        view
    }

    /// What the server writes when a release did not come up.
    async fn fail(&self, deployment: u64) {
        self.stage.sql(&format!("UPDATE deployment SET state = 'rolled_back' WHERE id = {deployment}")).await;
    }

    async fn newest(&self) -> Value {
        self.call(Method::GET, "/web/releases?limit=1", NONE).await.1["items"][0].clone()
    }

    /// Names of the variables that the newest release brings.
    async fn brought(&self) -> String {
        self.stage
            .text(
                "SELECT COALESCE(GROUP_CONCAT(e.name ORDER BY e.name), '') FROM env e JOIN `release` r \
                 ON r.app = e.app AND r.env_version = e.version WHERE r.number = (SELECT MAX(number) FROM `release`)",
            )
            .await
    }
}

fn id(view: &Value) -> u64 {
    view["deployment"]["id"].as_u64().unwrap()
}

#[tokio::test]
async fn a_health_path_given_once_is_kept_though_the_first_release_failed() {
    let anna = Anna::new().await;
    let health = json!({"path": "/health", "host": "web.example"});
    let first = json!({"image": anna.image("v1"), "health": health, "memory_mb": 512, "cpu_millis": 300,
        "command": ["run", "--fast"],
        "timing": {"start_timeout_secs": 90, "min_healthy_secs": 7, "verify_secs": 1, "drain_timeout_secs": 9, "stop_grace_secs": 4}});
    let deployment = anna.deploy(first).await;
    anna.fail(deployment).await;
    let (status, problem) = anna.call(Method::POST, "/web/deployments", json!({"memory_mb": 256})).await;
    assert_eq!((status, &problem["type"]), (422, &"urn:dinp:image-missing".into()), "no image has ever come up");
    anna.deploy(json!({"image": anna.image("v2")})).await;
    let second = anna.newest().await;
    assert_eq!((&second["number"], &second["image"].as_str().unwrap().contains(":v2@")), (&2.into(), &true));
    assert_eq!((&second["health"]["path"], &second["health"]["host"]), (&"/health".into(), &"web.example".into()));
    assert_eq!((&second["memory_mb"], &second["cpu_millis"]), (&512.into(), &300.into()));
    assert_eq!(second["command"], json!(["run", "--fast"]));
    assert_eq!(
        second["timing"],
        json!({"start_timeout_secs": 90, "min_healthy_secs": 7, "verify_secs": 1, "drain_timeout_secs": 9, "stop_grace_secs": 4})
    );
}

#[tokio::test]
async fn what_failed_keeps_its_settings_and_not_its_image() {
    let anna = Anna::new().await;
    let good = anna.deploy(json!({"image": anna.image("v1"), "command": ["good"]})).await;
    anna.stage.succeed(good).await;
    let bad = json!({"image": anna.image("v2"), "command": ["bad"], "health": {"kind": "tcp"}, "memory_mb": 300});
    let bad = anna.deploy(bad).await;
    anna.fail(bad).await;

    // Another variable: the image that runs, and the settings that were made.
    let env = anna.env(json!({"set": {"A": "1"}})).await;
    let third = anna.newest().await;
    assert!(third["image"].as_str().unwrap().contains(":v1@"), "{third}");
    assert_eq!((&third["command"], &third["health"]["kind"]), (&json!(["good"]), &"tcp".into()));
    assert_eq!(third["memory_mb"], 300);

    // While it is on its way, a change does not undo it; a cancelled one has its settings kept, too.
    let next = anna.deploy(json!({"image": anna.image("v3"), "memory_mb": 400})).await;
    anna.env(json!({"set": {"A": "2"}})).await;
    assert!(anna.newest().await["image"].as_str().unwrap().contains(":v3@"));
    anna.stage.sql("UPDATE deployment SET state = 'cancelled' WHERE state = 'pending'").await;
    anna.deploy(json!({"cpu_millis": 50})).await;
    let last = anna.newest().await;
    assert!(last["image"].as_str().unwrap().contains(":v1@"), "{last}");
    assert_eq!((&last["memory_mb"], &last["cpu_millis"]), (&400.into(), &50.into()));
    assert!(next > id(&env));
}

#[tokio::test]
async fn who_goes_back_goes_back_whole_unless_that_fails() {
    let anna = Anna::new().await;
    for (tag, memory) in [("v1", 200), ("v2", 300)] {
        let deployment = anna.deploy(json!({"image": anna.image(tag), "memory_mb": memory})).await;
        anna.stage.succeed(deployment).await;
    }
    let memory_after = async |state: &str| {
        let (status, view) = anna.call(Method::POST, "/web/rollback", json!({"release": 1})).await;
        assert_eq!(status, 201, "{view}");
        let deployment = view["id"].as_u64().unwrap();
        match state {
            "succeeded" => anna.stage.succeed(deployment).await,
            _ => anna.fail(deployment).await,
        }
        anna.deploy(json!({"image": anna.image("v3")})).await;
        let memory = anna.newest().await["memory_mb"].clone();
        anna.stage.sql("UPDATE deployment SET state = 'cancelled' WHERE state = 'pending'").await;
        memory
    };
    assert_eq!(memory_after("rolled_back").await, 300);
    assert_eq!(memory_after("succeeded").await, 200);
}

#[tokio::test]
async fn a_setting_goes_back_to_its_default_only_when_somebody_says_so() {
    let anna = Anna::new().await;
    let wish = json!({"image": anna.image("v1"), "cpu_limit_millis": 900,
        "timing": {"start_timeout_secs": 90, "verify_secs": 1}});
    let deployment = anna.deploy(wish).await;
    anna.stage.succeed(deployment).await;
    anna.deploy(json!({"reset": ["cpu_limit_millis", "verify_secs"]})).await;
    let release = anna.newest().await;
    assert_eq!((&release["cpu_limit_millis"], &release["timing"]), (&NONE, &json!({"start_timeout_secs": 90})));
}

#[tokio::test]
async fn the_environment_of_a_failed_release_is_not_armed() {
    let anna = Anna::new().await;
    let first = anna.deploy(json!({"image": anna.image("v1"), "env": {"set": {"GOOD": "1", "OLD": "1"}}})).await;
    anna.stage.succeed(first).await;
    let bad = anna.env(json!({"set": {"BAD": "1", "GOOD": "2"}, "unset": ["OLD"]})).await;
    assert_eq!((&bad["version"], &bad["names"]), (&2.into(), &json!(["BAD", "GOOD"])), "it is on its way");
    anna.fail(id(&bad)).await;

    let (_, view) = anna.call(Method::GET, "/web/env", NONE).await;
    let left_out = json!({"version": 2, "release": 2, "failed": true, "set": ["BAD", "GOOD"], "unset": ["OLD"]});
    assert_eq!((&view["version"], &view["names"]), (&1.into(), &json!(["GOOD", "OLD"])));
    assert_eq!((&view["left_out"], &view["deployed_version"]), (&left_out, &1.into()));

    // The next change starts from what is in force, and says so; so does another image.
    let other = anna.env(json!({"set": {"OTHER": "1"}})).await;
    assert_eq!((&other["left_out"], &other["version"]), (&left_out, &3.into()));
    assert_eq!(anna.brought().await, "GOOD,OLD,OTHER");
    anna.fail(id(&other)).await;
    let image = anna.deploy(json!({"image": anna.image("v2")})).await;
    assert_eq!(anna.brought().await, "GOOD,OLD");
    anna.fail(image).await;

    // Who says so takes it along: with a change, with an image, and by itself.
    let kept = anna.env(json!({"set": {"MORE": "1"}, "keep": true})).await;
    assert_eq!((&kept["names"], kept.get("left_out")), (&json!(["GOOD", "MORE", "OLD", "OTHER"]), None));
    anna.fail(id(&kept)).await;
    let image = anna.deploy(json!({"image": anna.image("v2"), "env": {"keep": true}})).await;
    assert_eq!(anna.brought().await, "GOOD,MORE,OLD,OTHER");
    anna.fail(image).await;
    let again = anna.env(json!({"keep": true})).await;
    assert_eq!(anna.brought().await, "GOOD,MORE,OLD,OTHER");
    anna.stage.succeed(id(&again)).await;
    let (status, problem) = anna.call(Method::PATCH, "/web/env", json!({"keep": true})).await;
    assert_eq!((status, &problem["type"]), (422, &"urn:dinp:nothing-to-do".into()), "nothing is left out");

    // What was in force and was taken back by a person is not armed either.
    let (_, back) = anna.call(Method::POST, "/web/rollback", json!({"release": 1})).await;
    anna.stage.succeed(back["id"].as_u64().unwrap()).await;
    let (_, view) = anna.call(Method::GET, "/web/env", NONE).await;
    assert_eq!((&view["names"], &view["left_out"]["failed"]), (&json!(["GOOD", "OLD"]), &json!(false)));
}

#[tokio::test]
async fn what_waits_for_the_next_deployment_is_taken_along() {
    let anna = Anna::new().await;
    let env = anna.env(json!({"set": {"A": "1"}})).await;
    assert_eq!((&env["version"], &env["deployment"]), (&1.into(), &NONE), "nothing is deployed yet");
    let first = anna.deploy(json!({"image": anna.image("v1")})).await;
    assert_eq!(anna.brought().await, "A");
    // A first release that failed takes nothing away: there is nothing else in force.
    anna.fail(first).await;
    let second = anna.deploy(json!({"image": anna.image("v2")})).await;
    assert_eq!(anna.brought().await, "A");
    anna.stage.succeed(second).await;
    let env = anna.env(json!({"set": {"B": "1"}, "deploy": false})).await;
    assert_eq!((&env["version"], &env["deployed_version"]), (&2.into(), &1.into()));
    anna.deploy(json!({"image": anna.image("v3")})).await;
    assert_eq!(anna.brought().await, "A,B");
}

#[tokio::test]
async fn environment_comes_with_a_deployment_or_not_at_all() {
    let anna = Anna::new().await;
    for (wish, field) in [
        (json!({"image": anna.image("v9"), "env": {"set": {"A": "1"}}}), "image"),
        (json!({"image": anna.image("v1"), "env": {"set": {"PORT": "1"}}}), "env.set.PORT"),
        (json!({"image": anna.image("v1"), "env": {"set": {"A": "1"}, "unset": ["B"]}}), "env.unset"),
    ] {
        let (status, problem) = anna.call(Method::POST, "/web/deployments", wish).await;
        assert_eq!((status, &problem["field"]), (422, &field.into()), "{problem}");
    }
    assert_eq!(anna.stage.text("SELECT CAST(COUNT(*) AS CHAR) FROM env").await, "0");
    anna.deploy(json!({"image": anna.image("v1"), "env": {"set": {"A": "s3cret"}}})).await;
    let sealed: Vec<u8> = {
        use mysql_async::prelude::Queryable;
        let mut conn = anna.stage.root.get_conn().await.unwrap();
        conn.query_first("SELECT sealed FROM env WHERE app = 'web' AND name = 'A'").await.unwrap().unwrap()
    };
    assert_eq!((anna.stage.key.open(&sealed).unwrap(), anna.brought().await), ("s3cret".into(), "A".into()));
}

#[tokio::test]
async fn taking_away_what_is_not_there_is_refused_and_makes_no_version() {
    let anna = Anna::new().await;
    anna.env(json!({"set": {"A": "1"}})).await;
    let (status, problem) = anna.call(Method::PATCH, "/web/env", json!({"set": {"B": "1"}, "unset": ["C"]})).await;
    assert_eq!((status, &problem["field"]), (422, &"unset".into()));
    assert_eq!(problem["detail"], "app web has no variable C that could be taken away");
    let (_, view) = anna.call(Method::GET, "/web/env", NONE).await;
    assert_eq!((&view["version"], &view["names"]), (&1.into(), &json!(["A"])));
}

#[tokio::test]
async fn people_see_numbers_and_which_release_has_come_up() {
    let anna = Anna::new().await;
    let first = anna.deploy(json!({"image": anna.image("v1")})).await;
    anna.stage.succeed(first).await;
    let second = anna.deploy(json!({"image": anna.image("v2")})).await;
    anna.stage
        .sql(&format!(
            "UPDATE deployment d JOIN app a ON a.name = d.app SET d.previous_release_id = a.release_id WHERE d.id = {second}"
        ))
        .await;
    anna.fail(second).await;
    let (_, page) = anna.call(Method::GET, "/web/releases?limit=1", NONE).await;
    assert_eq!((&page["items"][0]["number"], &page["items"][0]["came_up"]), (&2.into(), &false.into()));
    let next = format!("/web/releases?after={}", page["next"].as_str().unwrap());
    let (_, page) = anna.call(Method::GET, &next, NONE).await;
    assert_eq!((&page["items"][0]["number"], &page["items"][0]["came_up"]), (&1.into(), &true.into()));
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let (_, page) = anna.call(Method::GET, "/web/deployments", NONE).await;
    assert_eq!((&page["items"][0]["previous_number"], page["items"][1].get("previous_number")), (&1.into(), None));

    // The leader knows ids; the played one names 1 for all.
    anna.stage.sql("UPDATE `release` SET id = 1 WHERE number = 2").await;
    *anna.stage.played.instances.lock().unwrap() = vec![("web".into(), "ready")];
    let (_, page) = anna.call(Method::GET, "/web/instances", NONE).await;
    assert_eq!((&page["items"][0]["release_number"], &page["items"][0]["node"]), (&2.into(), &"node1".into()));
}
