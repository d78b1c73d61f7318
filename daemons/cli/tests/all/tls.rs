//! A dashboard behind a proxy that speaks TLS: who is trusted, and what is said of who is not.

use crate::support::tls::{Authority, Certificate, proxy};
use crate::support::{Ended, TOKEN, World};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

async fn world() -> World {
    let me = async || Json(json!({"name": "anna", "role": "user"}));
    World::new(Router::new().route("/v1/me", get(me))).await
}

async fn whoami(world: &World, server: &str, env: &[(&str, &str)]) -> Ended {
    let known = [("DINP_SERVER", server), ("DINP_TOKEN", TOKEN)];
    world.run(&["whoami"], &[&known, env].concat(), "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_the_machine_are_trusted_and_one_that_the_caller_names() {
    let world = world().await;
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let url = proxy(ours.sign("localhost"), world.address()).await;
    let (ours, others) = (ours.file(&world, "ours.pem"), others.file(&world, "others.pem"));
    let (ours, others) = (ours.to_str().unwrap(), others.to_str().unwrap());

    for env in [&[][..], &[("SSL_CERT_FILE", others)], &[("DINP_CA_FILE", others)]] {
        let ended = whoami(&world, &url, env).await;
        assert_eq!(ended.code, 69, "{}", ended.stderr);
        let told = format!(
            "error: no answer from {url}: its certificate is signed by an authority that is not known here\n \
             next: if the authority is your own, name its certificate: --ca-file FILE, or DINP_CA_FILE\n"
        );
        assert_eq!(ended.stderr, told);
    }
    assert_eq!(world.requests(), Vec::<String>::new(), "nobody got the token");

    for env in [
        &[("DINP_CA_FILE", ours)][..],
        &[("SSL_CERT_FILE", ours)],
        &[("SSL_CERT_FILE", ours), ("DINP_CA_FILE", others)],
    ] {
        let ended = whoami(&world, &url, env).await;
        assert_eq!(ended.code, 0, "{env:?}: {}", ended.stderr);
        assert!(ended.stdout.contains(&format!("server  {url}")), "{}", ended.stdout);
    }
    let known = [("DINP_SERVER", url.as_str()), ("DINP_TOKEN", TOKEN), ("DINP_CA_FILE", others)];
    let ended = world.run(&["whoami", "--ca-file", ours], &known, "").await;
    assert_eq!(ended.code, 0, "the command line goes before the environment: {}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_trusted_is_told_with_its_reason() {
    let world = world().await;
    let authority = Authority::new("ours");
    let file = authority.file(&world, "ca.pem");
    let env = [("DINP_CA_FILE", file.to_str().unwrap())];
    let at = async |certificate: Certificate| proxy(certificate, world.address()).await;
    let [elsewhere, expired, good] = [
        at(authority.sign("uic.example")).await,
        at(authority.sign_expired("localhost")).await,
        at(authority.sign("localhost")).await,
    ];
    let no_tls = world.url.replace("http://", "https://");
    let no_http = good.replace("https://", "http://");
    for (server, why, hint) in [
        (&elsewhere, "its certificate is for another name than localhost", "call it by the name of its certificate"),
        (&expired, "its certificate has expired", "renew it at the proxy"),
        (&no_tls, "it speaks no TLS", &*format!("or write {}", world.url)),
        (&no_http, "what it speaks is not HTTP", &format!("if that is TLS, write {good}")),
    ] {
        let ended = whoami(&world, server, &env).await;
        assert_eq!(ended.code, 69, "{}", ended.stderr);
        assert!(
            ended.stderr.starts_with(&format!("error: no answer from {server}: {why}\n next: ")),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    }
    assert_eq!(world.requests(), Vec::<String>::new());

    let missing = whoami(&world, &good, &[("DINP_CA_FILE", "/no/such.pem")]).await;
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.starts_with("error: cannot read /no/such.pem: No such file"), "{}", missing.stderr);
}
