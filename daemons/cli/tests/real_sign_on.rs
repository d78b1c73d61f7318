//! Signing in at a real uic on a real MariaDB: its form is filled in as it stands.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use dinp_common::api::uic::PlatformRole;
use dinp_common::auth::ServiceAuth;
use dinp_common::config::Loaded;
use dinp_common::credentials::Secret;
use dinp_common::testing::Mysql;
use dinp_common::{listen, store};
use dinp_uic::passwords::Passwords;
use dinp_uic::{Uic, UicConfig, api};
use mysql_async::prelude::Queryable;
use serde_json::json;
use support::World;
use tokio::net::TcpListener;
use url::Url;

const PASSWORD: &str = "correct horse battery & <staple>";

#[tokio::test(flavor = "multi_thread")]
async fn login_and_logout_at_a_real_uic() {
    let mysql = Mysql::start().await;
    let root = mysql.database().await;
    let pool = mysql.account(&root, "dinp_uic").await;
    let hash = Passwords::new(64, 1, 1).unwrap().hash(Secret::new(PASSWORD)).await.unwrap();
    store::user::insert(&mut pool.get_conn().await.unwrap(), "anna", &hash, PlatformRole::User).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uic_url = format!("http://{}", listener.local_addr().unwrap());
    let config =
        UicConfig { password_memory_kib: 64, password_passes: 1, password_parallel: 4, ..UicConfig::default() };
    let mut loaded = Loaded::for_tests("uic", config);
    loaded.cluster.uic.public_url = Url::parse(&uic_url).unwrap();
    let uic = Arc::new(Uic::new(&loaded, pool, ServiceAuth::for_tests([])).unwrap());
    tokio::spawn(listen::serve(vec![listener], api::router(uic), Default::default(), Duration::from_secs(1)));

    let meta =
        json!({"cluster": "dinp", "version": "0.1.0", "uic_url": uic_url, "domain": "apps.localhost", "apps_url": ""});
    let me = async || Json(json!({"name": "anna", "role": "user"}));
    // Any token is good here: whether uic's is, its session in the database tells.
    let dash = Router::new().route("/v1/meta", get(async move || Json(meta)));
    let dash = World::open(dash.route("/v1/me", get(me))).await;
    let login = ["login", "--server", &dash.url, "--username", "anna", "--password-stdin"];

    let wrong = dash.run(&login, &[], "wrong password\n").await;
    assert_eq!(wrong.code, 77, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("password"), "{}", wrong.stderr);

    let sessions = async || {
        let query = "SELECT COUNT(*) FROM session WHERE kind = 'access'";
        root.get_conn().await.unwrap().query_first::<u64, _>(query).await.unwrap().unwrap()
    };
    let right = dash.run(&login, &[], &format!("{PASSWORD}\n")).await;
    assert_eq!(right.code, 0, "{}", right.stderr);
    assert_eq!(sessions().await, 1);

    let out = dash.run(&["logout"], &[], "").await;
    assert_eq!((out.code, out.stderr), (0, format!("signed out of {}\n", dash.url)));
    assert_eq!(sessions().await, 0);
}
