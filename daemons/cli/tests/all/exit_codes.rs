//! Exit codes and sentences: the same value is refused with the same words here and there.

use crate::support::{TOKEN, World};
use axum::Router;
use axum::extract::Path;
use axum::routing::{any, get};
use dinp_common::problem::Problem;
use http::StatusCode;

/// A dashboard where `GET /v1/apps/s<status>` answers with that status.
async fn world() -> World {
    let answer = async |Path(name): Path<String>| {
        let status = StatusCode::from_bytes(name.trim_start_matches('s').as_bytes()).unwrap();
        Problem::new(status, "some-kind", format!("app {name} has its reasons"))
    };
    World::new(Router::new().route("/v1/apps/{name}", any(answer)).route("/v1/me", get(async || "no document"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_becomes_an_exit_code_and_the_servers_sentence() {
    let world = world().await;
    for (status, code) in [
        (400, 65),
        (401, 77),
        (403, 77),
        (404, 65),
        (409, 65),
        (413, 65),
        (422, 65),
        (429, 69),
        (500, 1),
        (502, 69),
        (503, 69),
    ] {
        let ended = world.dinp(&["app", "show", &format!("s{status}")]).await;
        assert_eq!(ended.code, code, "{status}: {}", ended.stderr);
        assert!(ended.stderr.starts_with(&format!("error: app s{status} has its reasons\n")), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_values_are_refused_before_any_request() {
    let world = world().await;
    let label = "is not valid: it must be a DNS label: 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end";
    for (args, sentence) in [
        (&["app", "create", "Foo"][..], format!("app name \"Foo\" {label}")),
        (&["node", "add", "a_b", "--address", "10.0.0.1"], format!("node name \"a_b\" {label}")),
        (&["user", "create", "A"], format!("user name \"A\" {label}")),
        (&["team", "rm", "x.y", "--yes"], format!("team name \"x.y\" {label}")),
        (
            &["deploy", "--image", "nginx", "--app", "a"],
            "image \"nginx\" is not valid: it must be registry/path:tag".into(),
        ),
        (&["app", "domain", "a", "add", "shop"], "domain \"shop\" is not valid".into()),
        (&["app", "env", "a", "set", "1A=x"], "environment variable \"1A\" is not valid".into()),
        (&["app", "deploy", "a", "--health", "health"], "health path \"health\" is not valid".into()),
        (&["app", "deploy", "a", "--cpu", "fast"], "cpu \"fast\" is not valid".into()),
        (&["deploy", "/nowhere/x.tar.gz", "--app", "a"], "package /nowhere/x.tar.gz does not exist".into()),
        (&["--server", "ftp://dash", "ps"], "it must begin with http:// or https://".into()),
    ] {
        let ended = world.dinp(args).await;
        assert_eq!(ended.code, 65, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&sentence), "{args:?}: {}", ended.stderr);
    }
    assert_eq!(world.requests(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_is_64() {
    let world = world().await;
    for args in [
        &[][..],
        &["nothing"],
        &["ps", "--output", "yaml"],
        &["deploy", "--app", "a"],
        &["deploy", "x.tar.gz"],
        &["deploy", "x.tar.gz", "--image", "r:5/a:b", "--app", "a"],
        &["login", "--password-stdin"],
        &["build"],
        &["app", "rm", "a"],
        &["orphan"],
        &["ticket"],
        &["app", "env", "a", "set", "A=-", "B=-"],
    ] {
        let ended = world.dinp(args).await;
        assert_eq!(ended.code, 64, "{args:?}: {}{}", ended.stdout, ended.stderr);
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(world.requests(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_or_not_known_has_own_codes() {
    let world = world().await;
    let nobody = world.run(&["ps"], &[], "").await;
    assert_eq!(nobody.code, 77);
    assert_eq!(
        nobody.stderr,
        "error: you are not signed in\n next: sign in with `dinp login --server http://<dashboard>:1985`\n"
    );
    let other = world.run(&["ps"], &[("DINP_SERVER", &world.url)], "").await;
    assert_eq!(other.code, 77);
    assert!(other.stderr.contains(&format!("`dinp login --server {}`", world.url)), "{}", other.stderr);

    let dead = world.run(&["ps"], &[("DINP_SERVER", "http://127.0.0.1:1"), ("DINP_TOKEN", TOKEN)], "").await;
    assert_eq!(dead.code, 69);
    assert!(dead.stderr.starts_with("error: no answer from http://127.0.0.1:1: Connection refused"), "{}", dead.stderr);

    let garbled = world.dinp(&["whoami"]).await;
    assert_eq!(garbled.code, 1);
    assert!(garbled.stderr.contains("something else than a document of DINP"), "{}", garbled.stderr);

    let bad_token = world.run(&["ps"], &[("DINP_SERVER", &world.url), ("DINP_TOKEN", "secret-text")], "").await;
    assert_eq!(bad_token.code, 77);
    assert!(bad_token.stderr.contains("DINP_TOKEN is no access token") && !bad_token.stderr.contains("secret-text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_errors_as_documents() {
    let world = world().await;
    for (args, code, pointer, value) in [
        (&["app", "show", "s409", "-o", "json"][..], 65, "/type", "urn:dinp:some-kind"),
        (&["app", "show", "s409", "--output", "json"], 65, "/detail", "app s409 has its reasons"),
        (&["app", "show", "s401", "-o", "json"], 77, "/hint", "sign in with `dinp login`"),
        (
            &["deploy", "/nowhere/x.tar.gz", "--app", "a", "-o", "json"],
            65,
            "/detail",
            "package /nowhere/x.tar.gz does not exist",
        ),
    ] {
        let ended = world.dinp(args).await;
        let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!((ended.code, &error["exit_code"]), (code, &code.into()), "{args:?}");
        assert_eq!(error.pointer(pointer).unwrap(), value, "{args:?}");
    }
    let ended = world.dinp(&["nothing", "--output=json"]).await;
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert!(ended.code == 64 && error["detail"].as_str().unwrap().starts_with("unrecognized subcommand"), "{error}");
}
