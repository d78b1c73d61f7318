//! A real uic on a real MariaDB under its own account, and a browser without a face.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dinp_common::api::uic::PlatformRole;
use dinp_common::auth::{Credential, CredentialKind, Role, ServiceAuth};
use dinp_common::config::Loaded;
use dinp_common::credentials::Secret;
use dinp_common::listen;
use dinp_common::store;
use dinp_common::testing::Mysql;
use dinp_uic::passwords::Passwords;
use dinp_uic::{Uic, UicConfig, api};
use mysql_async::Pool;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

pub const PASSWORD: &str = "correct horse battery";
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

pub struct Server {
    pub url: String,
    pub mysql: Mysql,
    pub root: Pool,
    pub dash: Credential,
    pub router: Credential,
}

impl Server {
    /// Starts uic with the administrator `admin` and the user `anna`.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with another patience for answers.
    pub async fn with_deadline(deadline: Duration) -> Self {
        Self::start_so(deadline, |_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(change: impl FnOnce(&mut Loaded<UicConfig>)) -> Self {
        Self::start_so(Duration::from_secs(20), change).await
    }

    async fn start_so(deadline: Duration, change: impl FnOnce(&mut Loaded<UicConfig>)) -> Self {
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        let pool = mysql.account(&root, "dinp_uic").await;
        let config =
            UicConfig { password_memory_kib: 64, password_passes: 1, password_parallel: 4, ..UicConfig::default() };
        let passwords = Passwords::new(64, 1, 1).unwrap();
        let hash = passwords.hash(Secret::new(PASSWORD)).await.unwrap();
        let mut conn = pool.get_conn().await.unwrap();
        store::user::insert(&mut conn, "admin", &hash, PlatformRole::Admin).await.unwrap();
        store::user::insert(&mut conn, "anna", &hash, PlatformRole::User).await.unwrap();
        drop(conn);

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut loaded = Loaded::for_tests("uic", config);
        loaded.cluster.uic.public_url = Url::parse(&url).unwrap();
        loaded.cluster.dash.public_url = Url::parse("http://dash.example:1985").unwrap();
        change(&mut loaded);
        let dash = Credential::generate(CredentialKind::Service, "dash");
        let router = Credential::generate(CredentialKind::Service, "router");
        let services = ServiceAuth::for_tests([(dash.clone(), Role::Dash), (router.clone(), Role::Router)]);
        let mut uic = Uic::new(&loaded, pool, services).unwrap();
        uic.deadline = deadline;
        let app = api::router(Arc::new(uic));
        tokio::spawn(listen::serve(vec![listener], app, Default::default(), Duration::from_secs(1)));
        Self { url, mysql, root, dash, router }
    }

    pub fn authorize_path(&self, client: &str, redirect: &str) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER.as_bytes()));
        let mut url = Url::parse(&format!("{}/oauth/authorize", self.url)).unwrap();
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", redirect),
            ("state", "st&te"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        format!("{}?{}", url.path(), url.query().unwrap())
    }

    pub async fn token(&self, client: &str, redirect: &str, code: &str, verifier: &str) -> reqwest::Response {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("client_id", client),
            ("code_verifier", verifier),
        ];
        reqwest::Client::new().post(format!("{}/oauth/token", self.url)).form(&form).send().await.unwrap()
    }

    /// Signs in and returns an access token.
    pub async fn sign_in(&self, browser: &Browser, name: &str, client: &str, redirect: &str) -> String {
        let code = browser.code(self, name, client, redirect).await;
        let reply: serde_json::Value =
            self.token(client, redirect, &code, VERIFIER).await.error_for_status().unwrap().json().await.unwrap();
        reply["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn introspect(&self, token: &str) -> serde_json::Value {
        let request = reqwest::Client::new().post(format!("{}/v1/introspect", self.url));
        let request = request.bearer_auth(self.dash.to_string()).json(&serde_json::json!({"token": token}));
        request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
    }
}

/// Keeps cookies and follows nothing.
pub struct Browser {
    pub http: reqwest::Client,
    pub cookies: Mutex<BTreeMap<String, String>>,
}

pub struct Answer {
    pub status: u16,
    pub location: String,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    /// The value of a hidden field.
    pub fn hidden(&self, name: &str) -> String {
        self.attribute(&format!("name=\"{name}\" value=\""))
    }

    /// Where the first form goes.
    pub fn action(&self) -> String {
        self.attribute("<form method=\"post\" action=\"")
    }

    fn attribute(&self, start: &str) -> String {
        let at = self.body.find(start).unwrap_or_else(|| panic!("no {start} in {}", self.body)) + start.len();
        let text = &self.body[at..];
        text[..text.find('"').unwrap()].replace("&#38;", "&").replace("&amp;", "&")
    }

    pub fn query(&self, name: &str) -> Option<String> {
        let url = Url::parse(&self.location).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

impl Browser {
    pub fn new() -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, cookies: Mutex::default() }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let cookies: Vec<String> =
            self.cookies.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let response = request.header("cookie", cookies.join("; ")).send().await.unwrap();
        let headers = response.headers().clone();
        for value in headers.get_all("set-cookie") {
            let value = value.to_str().unwrap();
            assert!(value.contains("HttpOnly") && value.contains("SameSite=Lax"), "{value}");
            let (name, rest) = value.split_once('=').unwrap();
            let content = rest.split(';').next().unwrap();
            let mut cookies = self.cookies.lock().unwrap();
            if rest.contains("Max-Age=0") {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), content.to_owned());
            }
        }
        let location = headers.get("location").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        Answer { status: response.status().as_u16(), location, headers, body: response.text().await.unwrap() }
    }

    pub async fn get(&self, server: &Server, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", server.url))).await
    }

    pub async fn post(&self, server: &Server, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send(self.http.post(format!("{}{path}", server.url)).form(form)).await
    }

    pub async fn log_in(&self, server: &Server, path: &str, name: &str, password: &str) -> Answer {
        let page = self.get(server, path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let (csrf, next) = (page.hidden("csrf"), page.hidden("next"));
        self.post(server, "/login", &[("csrf", &csrf), ("next", &next), ("username", name), ("password", password)])
            .await
    }

    /// Sends the form of a page that asks.
    pub async fn say(&self, server: &Server, page: &Answer, answer: &str) -> Answer {
        self.post(server, &page.action(), &[("csrf", &page.hidden("csrf")), ("answer", answer)]).await
    }

    /// Walks from the authorization endpoint to the code.
    pub async fn code(&self, server: &Server, name: &str, client: &str, redirect: &str) -> String {
        let path = server.authorize_path(client, redirect);
        let mut answer = self.get(server, &path).await;
        if answer.body.contains("name=\"password\"") {
            answer = self.log_in(server, &path, name, PASSWORD).await;
            if client == "dash" {
                assert_eq!((answer.status, answer.location.as_str()), (303, path.as_str()), "{}", answer.body);
                answer = self.get(server, &path).await;
            }
        } else if client == "cli" {
            answer = self.say(server, &answer, "allow").await;
        }
        assert_eq!(answer.status, 303, "{}", answer.body);
        assert!(answer.location.starts_with(redirect), "{}", answer.location);
        assert_eq!(answer.query("state").as_deref(), Some("st&te"));
        answer.query("code").unwrap()
    }
}
