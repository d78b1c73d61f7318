//! Sign-on from the first page to the revoked token, over real HTTP and a real database.

use crate::common::{Browser, PASSWORD, Server, VERIFIER};
use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::store::session::{self, NewSession, SessionKind};
use dinp_common::store::user;
use futures_util::future::join_all;
use mysql_async::prelude::Queryable;
use std::time::{Duration, Instant};

const DASH: &str = "http://dash.example:1985/auth/callback";
const CLI: &str = "http://127.0.0.1:40123/callback";

#[tokio::test]
async fn from_the_sign_in_page_to_the_revoked_token() {
    let server = Server::start().await;
    let browser = Browser::new();

    // The page is hardened.
    let page = browser.get(&server, &server.authorize_path("dash", DASH)).await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe-inline"));
    assert_eq!(page.headers["cache-control"], "no-store");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    assert!(!page.body.contains("<script") && !page.body.contains(" style="));

    // A wrong password and an unknown user get the same answer.
    let path = server.authorize_path("dash", DASH);
    let wrong = browser.log_in(&server, &path, "anna", "wrong password").await;
    let unknown = browser.log_in(&server, &path, "nobody", "wrong password").await;
    assert_eq!((wrong.status, unknown.status), (422, 422));
    assert!(wrong.body.contains("The name or the password is wrong."));
    assert_eq!(wrong.body.replace("anna", "nobody"), unknown.body);

    // The whole way; the code is good once, for its own client, address and verifier.
    let code = browser.code(&server, "anna", "dash", DASH).await;
    assert_eq!(server.token("dash", DASH, &code, VERIFIER).await.status(), 200);
    assert_eq!(server.token("dash", DASH, &code, VERIFIER).await.status(), 400);
    for (client, redirect, verifier) in
        [("cli", DASH, VERIFIER), ("dash", CLI, VERIFIER), ("dash", DASH, "a".repeat(43).as_str())]
    {
        let code = browser.code(&server, "anna", "dash", DASH).await;
        let refused = server.token(client, redirect, &code, verifier).await;
        assert_eq!(refused.status(), 400);
        assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["error"], "invalid_grant");
        assert_eq!(server.token("dash", DASH, &code, VERIFIER).await.status(), 400, "a failed try uses the code up");
    }

    // Tokens of dash and command line; signing out of dash ends the browser and leaves the command line.
    let dash = server.sign_in(&browser, "anna", "dash", DASH).await;
    let cli = server.sign_in(&browser, "anna", "cli", CLI).await;
    let seen = server.introspect(&dash).await;
    assert_eq!((&seen["active"], &seen["user"]["name"]), (&true.into(), &"anna".into()));
    assert!(seen["expires_at"].as_i64().unwrap() > dinp_common::api::unix_millis() + 11 * 3_600_000);
    assert_eq!(server.introspect("session:0000:nonsense").await["active"], false);
    let forged = format!("{}{}", &dash[..dash.len() - 4], "0000");
    assert_eq!(server.introspect(&forged).await["active"], false);
    let http = &browser.http;
    for _ in 0..2 {
        let revoked = http.post(format!("{}/oauth/revoke", server.url)).form(&[("token", &dash)]).send().await.unwrap();
        assert_eq!(revoked.status(), 200);
    }
    assert_eq!(server.introspect(&dash).await["active"], false);
    assert_eq!(server.introspect(&cli).await["active"], true);
    assert_eq!(browser.get(&server, "/").await.location, "/login");

    // A new sign-on is a new session: nobody can plant one.
    let before = browser.cookies.lock().unwrap().get("dinp_uic").cloned();
    browser.log_in(&server, "/login", "anna", PASSWORD).await;
    let after = browser.cookies.lock().unwrap().get("dinp_uic").cloned();
    assert_ne!(before, after);
    assert!(browser.get(&server, "/").await.body.contains("anna"));
}

/// Codes that wait to be exchanged.
async fn codes(server: &Server) -> u64 {
    server.root.get_conn().await.unwrap().query_first("SELECT COUNT(*) FROM auth_code").await.unwrap().unwrap()
}

#[tokio::test]
async fn the_command_line_gets_no_code_before_the_person_says_yes() {
    let server = Server::start().await;
    let browser = Browser::new();
    browser.log_in(&server, "/login", "anna", PASSWORD).await;
    let path = server.authorize_path("cli", CLI);

    // Any page can lead here: nothing happens but the question, which says who, what, how long and for whom.
    let page = browser.get(&server, &path).await;
    assert_eq!((page.status, page.location.as_str()), (200, ""));
    for part in ["as anna?", "(user)", "do all that anna may do", "30 days", CLI, ">Allow<", ">Cancel<"] {
        assert!(page.body.contains(part), "{part} in {}", page.body);
    }
    assert!(!page.body.contains("<script") && !page.body.contains("onclick"));
    assert_eq!(page.action(), path);

    // Only this page of this session can say yes.
    let other = Browser::new();
    other.log_in(&server, "/login", "admin", PASSWORD).await;
    let foreign = other.get(&server, &path).await.hidden("csrf");
    for csrf in ["", "x", foreign.as_str()] {
        let refused = browser.post(&server, &path, &[("csrf", csrf), ("answer", "allow")]).await;
        assert_eq!((refused.status, refused.location.as_str()), (403, ""), "{csrf}");
    }
    let form = [("csrf", page.hidden("csrf")), ("answer", "allow".to_owned())];
    let request = browser.http.post(format!("{}{path}", server.url)).form(&form);
    assert_eq!(browser.send(request.header("origin", "http://evil.example")).await.status, 403);
    let evil = server.authorize_path("cli", "http://evil.example/callback");
    let refused = browser.post(&server, &evil, &[("csrf", &page.hidden("csrf")), ("answer", "allow")]).await;
    assert_eq!((refused.status, refused.location.as_str()), (400, ""));
    let stranger = Browser::new().post(&server, &path, &[("csrf", "x"), ("answer", "allow")]).await;
    assert_eq!((stranger.status, &stranger.location), (303, &path), "who is signed out begins anew");

    // No is told to the client; what is neither is no.
    for answer in ["cancel", "", "maybe"] {
        let denied = browser.say(&server, &page, answer).await;
        assert!(denied.location.starts_with(CLI), "{}", denied.location);
        assert_eq!(denied.query("error").as_deref(), Some("access_denied"));
        assert_eq!(denied.query("state").as_deref(), Some("st&te"));
        assert_eq!(denied.query("code"), None);
    }
    assert_eq!(codes(&server).await, 0);

    // Yes gives one code, and the next request is asked for again.
    let allowed = browser.say(&server, &page, "allow").await;
    assert_eq!(allowed.query("state").as_deref(), Some("st&te"));
    assert_eq!(server.token("cli", CLI, &allowed.query("code").unwrap(), VERIFIER).await.status(), 200);
    assert_eq!(browser.get(&server, &path).await.status, 200);

    // Somebody else can sign in on the way.
    let form = browser.say(&server, &page, "other").await;
    assert!(form.body.contains("name=\"password\"") && form.body.contains("dinp login"), "{}", form.body);
    let (csrf, next) = (form.hidden("csrf"), form.hidden("next"));
    let form = [("csrf", csrf.as_str()), ("next", &next), ("username", "admin"), ("password", PASSWORD)];
    let code = browser.post(&server, "/login", &form).await.query("code").unwrap();
    let reply: serde_json::Value = server.token("cli", CLI, &code, VERIFIER).await.json().await.unwrap();
    assert_eq!(server.introspect(reply["access_token"].as_str().unwrap()).await["user"]["name"], "admin");

    // The dashboard, at its one address, is not asked for.
    let dash = browser.get(&server, &server.authorize_path("dash", DASH)).await;
    assert!(dash.location.starts_with(DASH) && dash.query("code").is_some(), "{}", dash.location);
}

#[tokio::test]
async fn the_password_typed_for_the_command_line_says_yes() {
    let server = Server::start().await;
    let path = server.authorize_path("cli", CLI);
    let browser = Browser::new();
    assert!(!browser.get(&server, "/login").await.body.contains("command line"));
    assert!(!browser.get(&server, &server.authorize_path("dash", DASH)).await.body.contains("command line"));
    assert!(browser.get(&server, &path).await.body.contains("This signs in the command line"));
    let wrong = browser.log_in(&server, &path, "anna", "wrong password").await;
    assert!(wrong.body.contains("This signs in the command line"), "{}", wrong.body);
    let signed_in = browser.log_in(&server, &path, "anna", PASSWORD).await;
    assert!(signed_in.location.starts_with(CLI), "{}", signed_in.location);
    let code = signed_in.query("code").unwrap();
    assert_eq!(server.token("cli", CLI, &code, VERIFIER).await.status(), 200);
    assert!(browser.get(&server, &path).await.body.contains("as anna?"), "once, for this request");
}

#[tokio::test]
async fn a_database_that_hangs_is_an_answer_in_time() {
    let server = Server::with_deadline(Duration::from_secs(1)).await;
    let browser = Browser::new();
    browser.log_in(&server, "/login", "anna", PASSWORD).await;
    let mut blocker = server.root.get_conn().await.unwrap();
    blocker.query_drop("LOCK TABLES session WRITE, user WRITE").await.unwrap();

    let begin = Instant::now();
    let page = browser.get(&server, "/").await;
    assert_eq!((page.status, &page.headers["content-type"]), (503, &"text/html; charset=utf-8".parse().unwrap()));
    assert!(page.body.contains("the answer took too long"), "{}", page.body);
    assert!(page.headers.contains_key("content-security-policy"));
    assert_eq!(browser.get(&server, &server.authorize_path("cli", CLI)).await.status, 503);
    let request = browser.http.get(format!("{}/v1/users", server.url)).bearer_auth(server.dash.to_string());
    let problem: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(problem["type"], "urn:dinp:timeout");
    // Six more than are free: what was never compared is no failed try.
    let sign_ins = (0..6).map(async |_| Browser::new().log_in(&server, "/login", "admin", PASSWORD).await.status);
    assert_eq!(join_all(sign_ins).await, [503; 6]);
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());

    blocker.query_drop("UNLOCK TABLES").await.unwrap();
    assert_eq!(Browser::new().log_in(&server, "/login", "admin", PASSWORD).await.status, 303);
    assert_eq!(browser.get(&server, "/").await.status, 200);
}

#[tokio::test]
async fn who_tries_many_names_has_to_wait() {
    let server = Server::start().await;
    let guesser = Browser::new();
    let mut tries = 0;
    loop {
        let answer = guesser.log_in(&server, "/login", &format!("name{tries}"), "wrong password").await;
        if answer.body.contains("Too many tries") {
            break;
        }
        assert!(answer.body.contains("The name or the password is wrong."), "{}", answer.body);
        tries += 1;
        assert!(tries < 100, "nobody stops who tries many names");
    }
    assert!(tries >= 50, "so few may be an office on a Monday: {tries}");
}

#[tokio::test]
async fn what_is_not_sound_is_refused() {
    let server = Server::start().await;
    let browser = Browser::new();

    // Never a redirect to an address that is not the client's.
    for (client, redirect) in [
        ("dash", "http://evil.example/auth/callback"),
        ("cli", "http://evil.example/callback"),
        ("cli", "http://127.0.0.1/callback"),
        ("other", DASH),
        ("dash", ""),
    ] {
        let answer = browser.get(&server, &server.authorize_path(client, redirect)).await;
        assert_eq!((answer.status, answer.location.as_str()), (400, ""), "{client} {redirect}");
    }
    let plain = server.authorize_path("dash", DASH).replace("S256", "plain");
    let answer = browser.get(&server, &plain).await;
    assert_eq!(answer.query("error").as_deref(), Some("invalid_request"));

    // Forms of other sites, without a token, or with somebody else's.
    let other = Browser::new();
    let token = other.get(&server, "/login").await.hidden("csrf");
    browser.get(&server, "/login").await;
    let form = [("csrf", token.as_str()), ("next", "/"), ("username", "anna"), ("password", PASSWORD)];
    assert_eq!(browser.post(&server, "/login", &form).await.status, 422);
    let page = browser.get(&server, "/login").await;
    let csrf = page.hidden("csrf");
    let form = [("csrf", csrf.as_str()), ("next", "/"), ("username", "anna"), ("password", PASSWORD)];
    let request =
        browser.http.post(format!("{}/login", server.url)).form(&form).header("origin", "http://evil.example");
    assert_eq!(browser.send(request).await.status, 403);
    let form = [("csrf", csrf.as_str()), ("next", "//evil.example"), ("username", "anna"), ("password", PASSWORD)];
    assert_eq!(browser.post(&server, "/login", &form).await.location, "/");
    assert_eq!(browser.post(&server, "/logout", &[("csrf", "x")]).await.status, 403);
    let csrf = browser.get(&server, "/").await.hidden("csrf");

    // The own password: the current one is needed, and other sessions end.
    let cli = server.sign_in(&Browser::new(), "anna", "cli", CLI).await;
    let change = |current: &'static str, new: &'static str| {
        let csrf = csrf.clone();
        let (server, browser) = (&server, &browser);
        async move {
            let form = [("csrf", csrf.as_str()), ("current", current), ("new", new), ("repeated", new)];
            browser.post(server, "/password", &form).await
        }
    };
    assert!(change("wrong", "another password").await.body.contains("The current password is wrong."));
    assert!(change(PASSWORD, "short").await.body.contains("10 characters"));
    assert_eq!(change(PASSWORD, "another password").await.location, "/?saved=1");
    assert_eq!(server.introspect(&cli).await["active"], false);
    assert_eq!(browser.post(&server, "/logout", &[("csrf", &csrf)]).await.location, "/login");
    assert_eq!(browser.get(&server, "/").await.status, 303);

    // After five failures tries have to wait, even right ones.
    let guesser = Browser::new();
    for _ in 0..5 {
        guesser.log_in(&server, "/login", "admin", "wrong password").await;
    }
    let refused = guesser.log_in(&server, "/login", "admin", PASSWORD).await;
    assert!(refused.body.contains("Too many tries"), "{}", refused.body);

    // Introspection is for dash alone.
    for credential in [None, Some(&server.router)] {
        let mut request = browser.http.post(format!("{}/v1/introspect", server.url));
        if let Some(credential) = credential {
            request = request.bearer_auth(credential.to_string());
        }
        let status = request.json(&serde_json::json!({"token": "x"})).send().await.unwrap().status();
        assert_eq!(status, if credential.is_some() { 403 } else { 401 });
    }
}

#[tokio::test]
async fn a_name_is_taken_as_it_is() {
    let server = Server::start().await;
    // MySQL compares as if both had the same number of spaces at the end.
    let padded = format!("anna{}x", " ".repeat(59));
    let refused = Browser::new().log_in(&server, "/login", &padded, PASSWORD).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("The name or the password is wrong."), "{}", refused.body);
}

#[tokio::test]
async fn a_sign_on_under_way_does_not_survive_what_ends_all_sign_ons() {
    let server = Server::start().await;
    let mut conn = server.root.get_conn().await.unwrap();
    let anna = user::by_name(&mut conn, "anna").await.unwrap().unwrap();
    let browser = Credential::generate(CredentialKind::Session, "00000000000000b1");
    let access = Credential::generate(CredentialKind::Session, "00000000000000a1");
    let (browser_hash, access_hash) = (browser.secret_hash(), access.secret_hash());
    let begun = NewSession {
        id: &browser.name,
        secret_hash: &browser_hash,
        user_id: anna.id,
        kind: SessionKind::Browser,
        client: "",
        parent: None,
        ttl_secs: 600,
    };
    let token = NewSession {
        id: &access.name,
        secret_hash: &access_hash,
        kind: SessionKind::Access,
        client: "cli",
        parent: Some(&browser.name),
        ..begun
    };
    assert!(!session::insert_while(&mut conn, token, &anna.password_hash).await.unwrap(), "its browser is signed out");
    assert!(session::insert_while(&mut conn, begun, &anna.password_hash).await.unwrap());
    assert!(session::insert_while(&mut conn, token, &anna.password_hash).await.unwrap());
    assert_eq!(server.introspect(&access.to_string()).await["active"], true);

    session::remove_of_user(&mut conn, anna.id, "").await.unwrap();
    user::set_suspended(&mut conn, anna.id, true).await.unwrap();
    assert!(!session::insert_while(&mut conn, begun, &anna.password_hash).await.unwrap(), "suspended");
    user::set_suspended(&mut conn, anna.id, false).await.unwrap();
    user::set_password(&mut conn, anna.id, "another").await.unwrap();
    assert!(!session::insert_while(&mut conn, begun, &anna.password_hash).await.unwrap(), "another password");
}

#[tokio::test]
async fn without_the_database_pages_say_so_and_it_comes_back() {
    let mut server = Server::start().await;
    let browser = Browser::new();
    browser.log_in(&server, "/login", "anna", PASSWORD).await;
    server.mysql.stop();
    let page = browser.get(&server, "/").await;
    assert_eq!(page.status, 503);
    assert!(page.body.contains("the database cannot be reached now"), "{}", page.body);
    server.mysql.start_again().await;
    assert_eq!(browser.get(&server, "/").await.status, 200);
}
