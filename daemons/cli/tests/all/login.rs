//! Signing in, with a form and with a browser, and what is kept of it.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use crate::support::{Ended, TOKEN, World};
use axum::extract::{Form, Query, State};
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, header};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

type Map = HashMap<String, String>;

/// What uic remembers of the one who signs in.
#[derive(Clone, Default)]
struct Uic(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    authorize: Map,
    revoked: Vec<String>,
}

async fn authorize(State(uic): State<Uic>, headers: HeaderMap, Query(query): Query<Map>) -> Response {
    assert_eq!((query["client_id"].as_str(), query["code_challenge_method"].as_str()), ("cli", "S256"));
    let back = format!("{}?code=the-code&state={}", query["redirect_uri"], query["state"]);
    uic.0.lock().unwrap().authorize = query;
    if headers.get(header::COOKIE).is_some_and(|cookie| cookie.to_str().unwrap().contains("browser=known")) {
        return Redirect::to(&back).into_response();
    }
    Redirect::to("/login?next=authorize").into_response()
}

async fn form() -> Response {
    let page = r#"<form method="post" action="/login?next=authorize&#38;x=1"><input type="hidden" name="csrf" value="c&amp;d">
        <input name="username"><input name="password" type="password"><button>Sign in</button></form>"#;
    ([(header::SET_COOKIE, "csrf=c-and-d; Path=/; HttpOnly")], Html(page)).into_response()
}

async fn sign_in(
    State(uic): State<Uic>,
    headers: HeaderMap,
    Query(query): Query<Map>,
    Form(form): Form<Map>,
) -> Response {
    assert_eq!((query["x"].as_str(), form["csrf"].as_str()), ("1", "c&d"));
    assert_eq!(headers[header::COOKIE], "csrf=c-and-d");
    if (form["username"].as_str(), form["password"].as_str()) != ("anna", "correct horse") {
        let page = "<form action='/login'><p role=\"alert\">The name or the password is wrong.</p><input name=password></form>";
        return (StatusCode::UNAUTHORIZED, Html(page)).into_response();
    }
    let seen = uic.0.lock().unwrap();
    let asked = serde_urlencoded(&seen.authorize);
    ([(header::SET_COOKIE, "browser=known; Path=/")], Redirect::to(&asked)).into_response()
}

fn serde_urlencoded(query: &Map) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::from("/oauth/authorize?"));
    text.extend_pairs(query);
    text.finish()
}

async fn token(State(uic): State<Uic>, Form(form): Form<Map>) -> Response {
    let seen = uic.0.lock().unwrap();
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(form["code_verifier"].as_bytes()));
    assert_eq!(challenge, seen.authorize["code_challenge"]);
    assert_eq!(form["redirect_uri"], seen.authorize["redirect_uri"]);
    assert_eq!((form["grant_type"].as_str(), form["code"].as_str()), ("authorization_code", "the-code"));
    Json(json!({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600})).into_response()
}

async fn revoke(State(uic): State<Uic>, Form(form): Form<Map>) {
    uic.0.lock().unwrap().revoked.push(form["token"].clone());
}

async fn world() -> (World, Uic) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let meta =
        json!({"cluster": "dinp", "version": "0.1.0", "uic_url": url, "domain": "apps.localhost", "apps_url": url});
    let me = json!({"name": "anna", "role": "operator", "teams": [{"team": "web", "role": "owner"}]});
    let uic = Uic::default();
    let endpoints = Router::new()
        .route("/v1/meta", get(async move || Json(meta)))
        .route("/v1/me", get(async move || Json(me)))
        .route("/oauth/authorize", get(authorize))
        .route("/login", get(form).post(sign_in))
        .route("/oauth/token", post(token))
        .route("/oauth/revoke", post(revoke))
        .with_state(uic.clone());
    (World::at(listener, endpoints), uic)
}

async fn login(world: &World, password: &str) -> Ended {
    let args = ["login", "--server", &world.url, "--username", "anna", "--password-stdin"];
    world.run(&args, &[], &format!("{password}\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_browser_the_form_is_filled_in() {
    let (world, uic) = world().await;
    let ended = login(&world, "correct horse").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(ended.stdout, format!("signed in to {} as anna (context dinp)\n", world.url));

    let file = world.home.path().join(".config/dinp/contexts.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // From now on no address and no token are needed.
    let me = world.run(&["whoami"], &[], "").await;
    assert_eq!(me.stdout, format!("user    anna\nrole    operator\nteams   web (owner)\nserver  {}\n", world.url));
    let contexts = world.run(&["context", "ls", "--output", "json"], &[], "").await;
    assert!(
        contexts.stdout.contains("\"signed_in\": true") && !contexts.stdout.contains("session:"),
        "{}",
        contexts.stdout
    );

    // The token goes to no other server.
    let (other, _) = self::world().await;
    let ended = world.run(&["whoami", "--server", &other.url], &[], "").await;
    assert_eq!(ended.code, 77);
    assert_eq!(other.requests(), Vec::<String>::new());

    let ended = world.run(&["logout"], &[], "").await;
    assert_eq!((ended.code, ended.stderr), (0, format!("signed out of {}\n", world.url)));
    assert_eq!(uic.0.lock().unwrap().revoked, [TOKEN]);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("session:"));
    assert_eq!(world.run(&["whoami"], &[], "").await.code, 77);
    // Signing in again needs no address.
    let again = world.run(&["login", "-u", "anna", "--password-stdin", "-q"], &[], "correct horse").await;
    assert_eq!((again.code, again.stdout.as_str(), again.stderr.as_str()), (0, "", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_as_uic_says_it() {
    let (world, _) = world().await;
    let ended = login(&world, "wrong").await;
    assert_eq!(ended.code, 77);
    assert!(ended.stderr.starts_with("error: The name or the password is wrong.\n"), "{}", ended.stderr);
    assert!(!world.home.path().join(".config").exists());
    let empty = login(&world, "").await;
    assert_eq!(empty.code, 65);
    let nowhere = world.run(&["login", "-u", "anna", "--password-stdin"], &[], "x").await;
    assert_eq!(nowhere.code, 64);
    assert!(nowhere.stderr.contains("the address of the dashboard is not known yet"), "{}", nowhere.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_brings_the_code_to_the_loopback_address() {
    let (world, _) = world().await;
    let login = world.browser_login().await;
    let redirects = reqwest::redirect::Policy::limited(5);
    let browser = reqwest::Client::builder().redirect(redirects).build().unwrap();
    let address = url::Url::parse(&login.address).unwrap();
    let uri = address.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    let page = browser.get(address).header(header::COOKIE, "browser=known").send().await.unwrap();
    assert!(page.url().as_str().starts_with(&uri), "{}", page.url());
    assert!(page.text().await.unwrap().contains("You can close this window"));
    let ended = login.ended().await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("as anna"));
}
