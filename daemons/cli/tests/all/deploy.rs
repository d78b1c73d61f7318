//! From a package to a verdict.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{self, World};
use crate::uploads::{self, Upload};
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use dinp_common::api::unix_millis;
use dinp_common::problem::Problem;
use futures_util::stream;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A dashboard with one app, one build and one deployment that goes its way a step at each look.
#[derive(Clone)]
struct Dash {
    url: String,
    states: &'static [&'static str],
    build: &'static str,
    /// Number of the release in force.
    previous: Option<u32>,
    looks: Arc<AtomicUsize>,
    app: Arc<Mutex<Option<Value>>>,
    upload: Arc<Upload>,
    asked: Arc<Mutex<Value>>,
}

impl Dash {
    fn deployment(&self) -> Value {
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        let state = self.states[look.min(self.states.len() - 1)];
        let reason = if state == "rolled_back" { "instance deadbeef ended with exit code 1" } else { "" };
        let output: &[&str] = if state == "rolled_back" { &["Traceback", "", "KeyError: 'X'"] } else { &[] };
        json!({"id": 7, "app": "hello", "release_id": 12, "release_number": 2, "state": state, "reason": reason,
            "previous_number": self.previous, "output": output, "created_by": "anna", "created_at": unix_millis()})
    }

    fn build(&self, status: &str) -> Value {
        json!({"id": 3, "app": "hello", "version": "v1", "runtime": "python", "created_by": "anna", "builder": "control",
            "status": status, "stage": "image", "reason": if status == "failed" { "pip: no such package" } else { "" },
            "started_at": unix_millis()})
    }

    fn view(&self, instances: &Value) -> Value {
        json!({"name": "hello", "owner": "anna", "state": "started", "instances": instances, "urls": [self.url],
            "created_at": unix_millis()})
    }
}

async fn world(build: &'static str, states: &'static [&'static str], exists: bool) -> (World, Dash) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let dash = Dash {
        url,
        states,
        build,
        previous: exists.then_some(1),
        looks: Arc::default(),
        app: Arc::default(),
        upload: Arc::default(),
        asked: Arc::default(),
    };
    if exists {
        *dash.app.lock().unwrap() = Some(dash.view(&json!(2)));
    }
    let endpoints = Router::new()
        .route("/", any(async || "hello"))
        .route("/v1/apps", post(create))
        .route("/v1/apps/hello", get(show).delete(remove))
        .route("/v1/apps/hello/deployments", post(deploy))
        .route("/v1/apps/hello/rollback", post(deploy))
        .route("/v1/apps/hello/env", get(present_env).patch(env))
        .route("/v1/meta", get(meta))
        .route("/v1/apps/hello/instances", get(instances))
        .route("/v1/deployments/7", get(deployment))
        .route("/v1/builds", get(async || Json(json!({"items": []}))))
        .route("/v1/uploads/5/build", post(begin_build))
        .route("/v1/builds/3", get(async |State(dash): State<Dash>| Json(dash.build(dash.build))))
        .route("/v1/builds/3/log", get(log))
        .with_state(dash.clone())
        .merge(uploads::played(dash.upload.clone()));
    (World::at(listener, endpoints), dash)
}

async fn show(State(dash): State<Dash>) -> Response {
    match &*dash.app.lock().unwrap() {
        Some(app) => Json(app.clone()).into_response(),
        None => Problem::not_found("app hello does not exist").into_response(),
    }
}

async fn remove(State(dash): State<Dash>) -> StatusCode {
    *dash.app.lock().unwrap() = None;
    StatusCode::NO_CONTENT
}

async fn create(State(dash): State<Dash>, Json(body): Json<Value>) -> impl IntoResponse {
    let view = dash.view(&json!(body["instances"].as_u64().unwrap_or(1)));
    *dash.app.lock().unwrap() = Some(view.clone());
    (StatusCode::CREATED, Json(view))
}

async fn deployment(State(dash): State<Dash>) -> Response {
    match dash.deployment() {
        gone if gone["state"] == "gone" => Problem::not_found("there is no deployment 7").into_response(),
        deployment => Json(deployment).into_response(),
    }
}

/// A builder in doubt where nobody names a runtime, unless the package is one executable.
async fn begin_build(State(dash): State<Dash>) -> Response {
    let is_executable = dash.upload.came.lock().unwrap().starts_with(b"\x7fELF");
    if dash.upload.asked.lock().unwrap()["runtime"].is_null() && !is_executable {
        let detail = "several runtimes take this package, name one: nodejs, because the package has package.json; \
                      python, because the package has app.py";
        return Problem::unprocessable("runtime-unclear", detail)
            .with("field", "runtime")
            .with("hint", "name the runtime, on the command line by --runtime")
            .into_response();
    }
    (StatusCode::ACCEPTED, Json(dash.build("running"))).into_response()
}

async fn log() -> Body {
    let pieces = ["step 1 of 2\n", "step 2 ", "of 2\n"]
        .map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())));
    Body::from_stream(stream::iter(pieces))
}

async fn deploy(State(dash): State<Dash>, Json(body): Json<Value>) -> Response {
    if body["image"] == json!("control:5000/nobody/nothing:1") {
        return Problem::unprocessable("no-image", "image control:5000/nobody/nothing:1 is not in the registry")
            .into_response();
    }
    *dash.asked.lock().unwrap() = body;
    (StatusCode::CREATED, Json(dash.deployment())).into_response()
}

async fn env(State(dash): State<Dash>, Json(body): Json<Value>) -> impl IntoResponse {
    let deployment = if body["deploy"] == json!(true) { dash.deployment() } else { Value::Null };
    let left_out = if body["keep"] == json!(true) { Value::Null } else { left_out(&dash) };
    *dash.asked.lock().unwrap() = body;
    Json(json!({"version": 5, "names": ["A"], "deployed_version": 3, "deployment": deployment, "left_out": left_out}))
}

/// What a failed release has brought, where there was one before.
fn left_out(dash: &Dash) -> Value {
    match dash.previous {
        Some(_) => json!({"version": 4, "release": 7, "failed": true, "set": ["BAD"], "unset": []}),
        None => Value::Null,
    }
}

async fn present_env(State(dash): State<Dash>) -> Json<Value> {
    Json(json!({"version": 3, "names": ["A"], "deployed_version": 3, "left_out": left_out(&dash)}))
}

async fn meta() -> Json<Value> {
    Json(json!({"cluster": "c", "version": "0.1.0", "uic_url": "", "domain": "", "apps_url": "",
        "limits": {"memory_min_mb": 128, "memory_max_mb": 10240, "instances_max": 500, "cpu_max_millis": 64000}}))
}

async fn instances(State(dash): State<Dash>, Query(_): Query<Value>) -> impl IntoResponse {
    let instance = |id: &str, release: u64, state: &str| {
        json!({"instance": id, "app": "hello", "release": release, "node": "node1", "state": state, "routed": state == "ready",
            "since": 0, "restarts": 0, "node_condition": "ready"})
    };
    let ready = if dash.looks.load(Ordering::SeqCst) > 2 { "ready" } else { "starting" };
    Json(json!({"items": [instance("deadbeef00000001", 12, ready), instance("deadbeef00000002", 11, "ready")]}))
}

const GOOD: &[&str] = &["pending", "rolling", "rolling", "verifying", "succeeded"];

#[tokio::test(flavor = "multi_thread")]
async fn one_line_deploys() {
    let (world, dash) = world("succeeded", GOOD, false).await;
    let package = world.file("app.tar.gz", &[7; 200_000]);
    let args = [
        "deploy",
        package.to_str().unwrap(),
        "--app",
        "hello",
        "--runtime",
        "python",
        "--instances",
        "2",
        "--health",
        "/health",
    ];
    let ended = world.dinp(&args).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (first, second) = ended.stdout.split_once('\n').unwrap();
    assert_eq!(first, "hello release 2 is deployed (2 instances)");
    assert!(second.starts_with(&format!("{}  first answer after ", dash.url)), "{second}");
    assert_eq!(
        ended.stderr,
        "created app hello\n\
         build 3 of hello with runtime python\n\
         step 1 of 2\nstep 2 of 2\n\
         hello release 2: waiting to begin, 0/2 ready, 1 of other releases left\n\
         hello release 2: rolling, 0/2 ready, 1 of other releases left\n\
         hello release 2: rolling, 1/2 ready, 1 of other releases left\n\
         hello release 2: watching the new release, 1/2 ready, 1 of other releases left\n"
    );
    assert_eq!(dash.upload.came.lock().unwrap().len(), 200_000);
    let asked = dash.upload.asked.lock().unwrap().clone();
    assert_eq!((&asked["runtime"], &asked["package"]), (&json!("python"), &json!("app.tar.gz")));
    let asked = dash.asked.lock().unwrap().clone();
    assert_eq!(
        (&asked["build"], &asked["instances"], &asked["health"]["path"]),
        (&json!(3), &json!(2), &json!("/health"))
    );
    assert!(asked.get("image").is_none() && asked.get("memory_mb").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_learn_how_long_it_took() {
    let (world, dash) = world("succeeded", GOOD, true).await;
    let image = "control:5000/web/hello:v2";
    let args = ["deploy", "--image", image, "--app", "hello", "-o", "json", "-q", "--", "run", "--fast"];
    let ended = world.dinp(&args).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&document["state"], &document["release_number"]), (&json!("succeeded"), &json!(2)));
    assert!(document["first_answer_ms"].as_u64().unwrap() > 0);
    assert_eq!(dash.asked.lock().unwrap()["command"], json!(["run", "--fast"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_verdict_is_the_exit_code() {
    let bad: &[(&'static [&str], i32, &str)] = &[
        (
            &["rolling", "rolling_back", "rolled_back"],
            4,
            "release 2 of hello did not come up and was taken back: instance deadbeef ended with exit code 1",
        ),
        (&["pending", "cancelled"], 4, "deployment 7 of hello was cancelled"),
        (&["pending", "superseded"], 4, "deployment 7 of hello was overtaken by a newer one"),
        (&["pending", "gone"], 4, "app hello was deleted before its deployment ended"),
    ];
    for (states, code, sentence) in bad {
        let (world, _) = world("succeeded", states, true).await;
        let ended = world.dinp(&["app", "rollback", "hello"]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (*code, ""));
        assert!(ended.stderr.contains(&format!("error: {sentence}")), "{}", ended.stderr);
    }
    let (world, _) = world("succeeded", &["pending"], true).await;
    let ended = world.dinp(&["app", "rollback", "hello", "--no-wait"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "deployment 7 of hello release 2 is pending\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_deploys_nothing() {
    let (world, _) = world("failed", GOOD, true).await;
    let package = world.file("app.tar.gz", b"package");
    let ended = world.dinp(&["deploy", package.to_str().unwrap(), "--app", "hello", "--runtime", "python"]).await;
    assert_eq!(ended.code, 4);
    assert!(
        ended
            .stderr
            .contains("step 2 of 2\nerror: build 3 of hello failed: pip: no such package\n next: `dinp build log 3`"),
        "{}",
        ended.stderr
    );
    assert!(!world.requests().iter().any(|request| request.contains("deployments")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_cannot_be_told_is_asked_for_and_leaves_nothing_behind() {
    let (world, dash) = world("succeeded", GOOD, false).await;
    let package = world.file("app.tar.gz", b"package");
    let ended = world.dinp(&["deploy", package.to_str().unwrap(), "--app", "hello"]).await;
    assert_ne!(ended.code, 0);
    assert!(
        ended.stderr.contains("name one: nodejs, because the package has package.json; python, because")
            && ended.stderr.contains("--runtime"),
        "{}",
        ended.stderr
    );
    assert!(dash.app.lock().unwrap().is_none());
    let binary = world.file("server", b"\x7fELF...");
    let ended = world.dinp(&["deploy", binary.to_str().unwrap(), "--app", "hello"]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(dash.upload.asked.lock().unwrap()["package"], "server");
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_comes_from_arguments_files_and_standard_input_and_is_never_shown() {
    let (world, dash) = world("succeeded", GOOD, true).await;
    let file = world.file("cert", b"from file\n");
    let from_file = format!("B=@{}", file.display());
    let args = ["app", "env", "hello", "set", "A=from argument", &from_file, "C=-", "--no-deploy"];
    let env = [("DINP_SERVER", world.url.as_str()), ("DINP_TOKEN", support::TOKEN)];
    let ended = world.run(&args, &env, "from input\n").await;
    let sentence =
        "environment of hello is now version 5; nothing is deployed yet, the first deployment takes it along\n";
    assert_eq!((ended.code, ended.stdout.as_str()), (0, sentence));
    assert_eq!(
        *dash.asked.lock().unwrap(),
        json!({"set": {"A": "from argument", "B": "from file", "C": "from input"}, "unset": [], "deploy": false})
    );
    let ended = world.dinp(&["app", "env", "hello", "unset", "A", "--wait"]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.starts_with("hello release 2 is deployed"), "{}", ended.stdout);
    let not_taken = "the environment starts from version 3, in force; version 4 of the failed release 7 is left out: \
        --keep takes it along\nenvironment of hello is now version 5\n";
    assert!(ended.stderr.starts_with(not_taken), "{}", ended.stderr);
    let ended = world.dinp(&["app", "env", "hello", "set", "--keep", "--no-wait"]).await;
    assert!(ended.stderr.starts_with("environment of hello is now version 5\n"), "{}", ended.stderr);
    assert_eq!(dash.asked.lock().unwrap()["keep"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_leaves_no_app_behind() {
    let (world, dash) = world("succeeded", GOOD, false).await;
    let ended = world.dinp(&["deploy", "--image", "control:5000/nobody/nothing:1", "--app", "hello"]).await;
    assert_eq!(ended.code, 65);
    assert_eq!(
        ended.stderr,
        "created app hello\nremoved app hello again\nerror: image control:5000/nobody/nothing:1 is not in the registry\n"
    );
    assert!(dash.app.lock().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_says_why_and_what_runs() {
    let failed: &'static [&'static str] = &["rolling", "rolled_back"];
    for (exists, left) in
        [(true, "release 1 is in force as before"), (false, "nothing was in force before, so nothing runs")]
    {
        let (world, _) = world("succeeded", failed, exists).await;
        let ended = world.dinp(&["deploy", "--image", "control:5000/web/hello:v2", "--app", "hello"]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (4, ""));
        let sentence = format!(
            "error: release 2 of hello did not come up and was taken back: instance deadbeef ended with exit code 1\n \
             the last that the instance wrote:\n   Traceback\n   \n   KeyError: 'X'\n \
             next: {left}; `dinp logs hello --previous` and `dinp events hello` show more\n"
        );
        assert!(ended.stderr.ends_with(&sentence), "{}", ended.stderr);
    }
    let (world, _) = world("succeeded", failed, true).await;
    let args = ["deploy", "--image", "control:5000/web/hello:v2", "--app", "hello", "-o", "json", "-q"];
    let ended = world.dinp(&args).await;
    assert_eq!(ended.code, 4);
    let error: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!((&error["exit_code"], &error["output"][2]), (&json!(4), &json!("KeyError: 'X'")));
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(document["state"], "rolled_back");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_and_the_environment_come_with_the_deployment() {
    let (world, dash) = world("succeeded", GOOD, true).await;
    let file = world.file("env", b"# of the shop\nA=from file\nB='two\nlines'\n");
    let args =
        ["app", "deploy", "hello", "--health", "/up", "--health-host", "shop.example.org", "--start-timeout", "90"];
    let more = ["--min-healthy", "7", "--verify", "0", "--drain-timeout", "default", "--stop-grace", "4"];
    let env =
        ["--cpu-limit", "default", "--env-file", file.to_str().unwrap(), "-e", "A=-", "--env", "AT=@@me", "--no-wait"];
    let variables = [("DINP_SERVER", world.url.as_str()), ("DINP_TOKEN", support::TOKEN)];
    let ended = world.run(&[&args[..], &more, &env].concat(), &variables, "from input\n").await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("is left out: --keep-env takes it along"), "{}", ended.stderr);
    let asked = dash.asked.lock().unwrap().clone();
    assert_eq!((&asked["health"]["path"], &asked["health"]["host"]), (&json!("/up"), &json!("shop.example.org")));
    let timing = json!({"start_timeout_secs": 90, "min_healthy_secs": 7, "verify_secs": 0, "stop_grace_secs": 4});
    assert_eq!((&asked["timing"], &asked["reset"]), (&timing, &json!(["drain_timeout_secs", "cpu_limit_millis"])));
    assert_eq!(asked["env"]["set"], json!({"A": "from input", "AT": "@me", "B": "two\nlines"}));

    let ended = world.dinp(&["app", "deploy", "hello", "--health-tcp", "--keep-env", "--no-wait"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "what is kept is not left out");
    let asked = dash.asked.lock().unwrap().clone();
    assert_eq!((&asked["health"]["kind"], &asked["env"]["keep"]), (&json!("tcp"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_does_not_allow_is_refused_before_the_upload() {
    let (world, dash) = world("succeeded", GOOD, false).await;
    let package = world.file("app.tar.gz", b"package");
    for (flag, value, sentence) in [
        ("--cpu", "99", "cpu \"99000\" is not valid: it must be from 1 to 64000 thousandths of a core"),
        ("--memory", "1", "memory \"1\" is not valid: it must be from 128 to 10240 MiB"),
        ("--instances", "501", "instance count \"501\" is not valid"),
        ("--stop-grace", "0", "stop grace \"0\" is not valid: it must be from 1 to 600 seconds"),
    ] {
        let args = ["deploy", package.to_str().unwrap(), "--app", "hello", "--runtime", "python", flag, value];
        let ended = world.dinp(&args).await;
        assert_eq!(ended.code, 65, "{}", ended.stderr);
        assert!(ended.stderr.starts_with(&format!("error: {sentence}")), "{}", ended.stderr);
    }
    assert!(dash.app.lock().unwrap().is_none() && dash.upload.came.lock().unwrap().is_empty());
}
