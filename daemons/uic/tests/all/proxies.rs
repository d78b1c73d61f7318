//! Proxies in front of uic: one that speaks TLS, and one that nobody has named.

use crate::common::{Answer, Browser, PASSWORD, Server};
use mysql_async::prelude::Queryable;
use url::Url;

const DASH: &str = "https://dash.example/auth/callback";

/// Sends the sign-in form as if it came through a proxy that says who called it.
async fn log_in_from(server: &Server, browser: &Browser, address: &str, password: &str) -> Answer {
    let page = browser.get(server, "/login").await;
    let form = [("csrf", page.hidden("csrf")), ("username", "anna".into()), ("password", password.into())];
    let request = browser.http.post(format!("{}/login", server.url)).form(&form);
    browser.send(request.header("x-forwarded-for", address).header("x-forwarded-proto", "https")).await
}

async fn audited(server: &Server) -> Vec<String> {
    let sql = "SELECT address FROM audit_event WHERE action = 'session.begin' ORDER BY id";
    server.root.get_conn().await.unwrap().query(sql).await.unwrap()
}

#[tokio::test]
async fn behind_a_tls_proxy_cookies_are_this_hosts_alone_and_each_person_has_an_address() {
    let server = Server::start_with(|loaded| {
        loaded.cluster.uic.public_url = Url::parse("https://uic.example").unwrap();
        loaded.cluster.dash.public_url = Url::parse("https://dash.example").unwrap();
        loaded.daemon.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let anna = Browser::new();
    let page = anna.get(&server, &server.authorize_path("dash", DASH)).await;
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-dinp_uic_form=") && cookie.contains("; Path=/;"), "{cookie}");
    assert!(cookie.ends_with("; Secure") && !cookie.contains("Domain"), "{cookie}");

    // Where one person has failed too often, another one behind the same proxy has not.
    for _ in 0..5 {
        assert_eq!(log_in_from(&server, &anna, "192.0.2.1", "wrong password").await.status, 422);
    }
    let waits = log_in_from(&server, &anna, "192.0.2.1", PASSWORD).await;
    assert!(waits.body.contains("Too many tries"), "{}", waits.body);
    let done = log_in_from(&server, &Browser::new(), "198.51.100.7", PASSWORD).await;
    assert_eq!(done.status, 303, "{}", done.body);
    let begun = done.headers.get_all("set-cookie").iter().any(|value| {
        let value = value.to_str().unwrap();
        value.starts_with("__Host-dinp_uic=") && value.ends_with("; Secure")
    });
    assert!(begun, "{:?}", done.headers);
    assert_eq!(audited(&server).await, ["198.51.100.7"]);

    // The way on leads to the dashboard by TLS.
    let browser = Browser::new();
    let code = browser.code(&server, "admin", "dash", DASH).await;
    assert!(!code.is_empty() && browser.cookies.lock().unwrap().contains_key("__Host-dinp_uic"));
}

#[tokio::test]
async fn what_an_untrusted_peer_says_about_addresses_changes_nothing() {
    let server = Server::start().await;
    let browser = Browser::new();
    assert_eq!(log_in_from(&server, &browser, "192.0.2.9", PASSWORD).await.status, 303);
    assert_eq!(audited(&server).await, ["127.0.0.1"]);
    let guesser = Browser::new();
    for n in 0..5 {
        assert_eq!(log_in_from(&server, &guesser, &format!("192.0.2.{n}"), "wrong password").await.status, 422);
    }
    let waits = log_in_from(&server, &guesser, "192.0.2.100", "wrong password").await;
    assert!(waits.body.contains("Too many tries"), "{}", waits.body);
    // Nor does it make a request one by TLS.
    let page = guesser.get(&server, "/login").await;
    let form = [("csrf", page.hidden("csrf")), ("username", "admin".into()), ("password", PASSWORD.into())];
    let origin = server.url.replace("http://", "https://");
    let request = guesser.http.post(format!("{}/login", server.url)).form(&form).header("origin", origin);
    assert_eq!(guesser.send(request.header("x-forwarded-proto", "https")).await.status, 403);
}
