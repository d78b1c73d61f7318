//! Signing in at a real uic on a real MariaDB: its form is filled in as it stands.

use std::sync::Arc;
use std::time::Duration;

use crate::support::World;
use crate::support::tls::{self, Authority};
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
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use serde_json::json;
use tokio::net::TcpListener;
use url::Url;

const PASSWORD: &str = "correct horse battery & <staple>";

/// A cluster's uic with the user `anna`, and a dashboard to which any token is good.
struct Stage {
    _mysql: Mysql,
    root: Pool,
    uic_url: String,
    dash: World,
}

impl Stage {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::at(listener, url).await
    }

    /// Both behind proxies that speak TLS, with certificates of that authority.
    async fn behind_tls(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = tls::proxy(authority.sign("localhost"), listener.local_addr().unwrap()).await;
        let mut stage = Self::at(listener, url).await;
        stage.dash.url = tls::proxy(authority.sign("localhost"), stage.dash.address()).await;
        stage
    }

    async fn at(listener: TcpListener, uic_url: String) -> Self {
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        let pool = mysql.account(&root, "dinp_uic").await;
        let hash = Passwords::new(64, 1, 1).unwrap().hash(Secret::new(PASSWORD)).await.unwrap();
        store::user::insert(&mut pool.get_conn().await.unwrap(), "anna", &hash, PlatformRole::User).await.unwrap();
        let config =
            UicConfig { password_memory_kib: 64, password_passes: 1, password_parallel: 4, ..UicConfig::default() };
        let mut loaded = Loaded::for_tests("uic", config);
        loaded.cluster.uic.public_url = Url::parse(&uic_url).unwrap();
        let uic = Arc::new(Uic::new(&loaded, pool, ServiceAuth::for_tests([])).unwrap());
        tokio::spawn(listen::serve(vec![listener], api::router(uic), Default::default(), Duration::from_secs(1)));

        let meta = json!({
            "cluster": "dinp", "version": "0.1.0", "uic_url": uic_url, "domain": "apps.localhost", "apps_url": ""
        });
        let me = async || Json(json!({"name": "anna", "role": "user"}));
        // Whether uic's token is good, its session in the database tells.
        let dash = Router::new().route("/v1/meta", get(async move || Json(meta)));
        let dash = World::open(dash.route("/v1/me", get(me))).await;
        Self { _mysql: mysql, root, uic_url, dash }
    }

    /// How many command lines are signed in.
    async fn tokens(&self) -> u64 {
        let query = "SELECT COUNT(*) FROM session WHERE kind = 'access'";
        self.root.get_conn().await.unwrap().query_first(query).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn login_and_logout_at_a_real_uic() {
    let stage = Stage::new().await;
    let dash = &stage.dash;
    let login = ["login", "--server", &dash.url, "--username", "anna", "--password-stdin"];

    let wrong = dash.run(&login, &[], "wrong password\n").await;
    assert_eq!(wrong.code, 77, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("password"), "{}", wrong.stderr);

    let right = dash.run(&login, &[], &format!("{PASSWORD}\n")).await;
    assert_eq!(right.code, 0, "{}", right.stderr);
    assert_eq!(stage.tokens().await, 1);

    let out = dash.run(&["logout"], &[], "").await;
    assert_eq!((out.code, out.stderr), (0, format!("signed out of {}\n", dash.url)));
    assert_eq!(stage.tokens().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_proxies_that_speak_tls_an_authority_is_named_once() {
    let authority = Authority::new("Example & Sons");
    let stage = Stage::behind_tls(&authority).await;
    let dash = &stage.dash;
    authority.file(dash, "ca.pem");
    let login = ["login", "--server", &dash.url, "--username", "anna", "--password-stdin"];

    let unknown = dash.run(&login, &[], PASSWORD).await;
    assert_eq!(unknown.code, 69, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("signed by an authority that is not known here"), "{}", unknown.stderr);

    // A path that holds in this directory only.
    let mut command = dash.command(&[&login[..], &["--ca-file", "ca.pem"]].concat(), &[]);
    let right = dash.end(command.current_dir(dash.home.path()), PASSWORD).await;
    assert_eq!(right.code, 0, "{}", right.stderr);
    assert_eq!(right.stdout, format!("signed in to {} as anna (context dinp)\n", dash.url));

    let me = dash.run(&["whoami"], &[], "").await;
    assert_eq!(me.code, 0, "{}", me.stderr);
    let again = dash.run(&login, &[], PASSWORD).await;
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(stage.tokens().await, 2);
    let out = dash.run(&["logout"], &[], "").await;
    assert_eq!((out.code, out.stderr), (0, format!("signed out of {}\n", dash.url)));
    assert_eq!(stage.tokens().await, 1);
}

/// The value of a hidden field of a page.
fn hidden(page: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no field {name} in {page}"));
    rest.split_once('"').unwrap().0.replace("&#38;", "&")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_asks_before_the_command_line_is_signed_in() {
    let stage = Stage::new().await;
    let browser = reqwest::Client::builder().cookie_store(true).build().unwrap();
    let open = async |address: &str| browser.get(address).send().await.unwrap().text().await.unwrap();
    let send = async |address: &str, form: &[(&str, &str)]| {
        browser.post(address).form(form).send().await.unwrap().text().await.unwrap()
    };

    // The password that is typed for it says yes.
    let login = stage.dash.browser_login().await;
    let page = open(&login.address).await;
    assert!(page.contains("signs in the command line"), "{page}");
    let (csrf, next) = (hidden(&page, "csrf"), hidden(&page, "next"));
    let form = [("csrf", csrf.as_str()), ("next", &next), ("username", "anna"), ("password", PASSWORD)];
    let page = send(&format!("{}/login", stage.uic_url), &form).await;
    assert!(page.contains("You can close this window"), "{page}");
    let ended = login.ended().await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(stage.tokens().await, 1);

    // Where the browser is signed in already, it asks.
    for (answer, code, tokens) in [("allow", 0, 2), ("cancel", 77, 2)] {
        let login = stage.dash.browser_login().await;
        let page = open(&login.address).await;
        assert!(page.contains("on this machine as anna?"), "{page}");
        let page = send(&login.address, &[("csrf", &hidden(&page, "csrf")), ("answer", answer)]).await;
        assert!(page.contains("You can close this window"), "{page}");
        let ended = login.ended().await;
        assert_eq!((ended.code, stage.tokens().await), (code, tokens), "{}", ended.stderr);
        let refusal = "error: sign-in was refused: it was cancelled in the browser\n";
        assert_eq!(ended.stderr.contains(refusal), code == 77, "{}", ended.stderr);
    }
}
