//! Everything up and wired.

use crate::played::{self, Played};
use dinp_common::api::uic::{PlatformRole, TeamRole};
use dinp_common::auth::{Credential, CredentialKind, Role, ServiceAuth, hex};
use dinp_common::config::{Loaded, LogConfig, LogSink};
use dinp_common::credentials::Secret;
use dinp_common::listen;
use dinp_common::seal::OpeningKey;
use dinp_common::store::session::{NewSession, SessionKind};
use dinp_common::store::{session, team, user};
use dinp_common::testing::{Mysql, TestDir};
use dinp_dash::{Dash, DashConfig, Quotas};
use dinp_uic::passwords::Passwords;
use dinp_uic::{Uic, UicConfig};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use reqwest::Method;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

pub const PASSWORD: &str = "correct horse battery";

pub struct Stage {
    pub mysql: Mysql,
    /// As root: what only other daemons write.
    pub root: Pool,
    pub uic_pool: Pool,
    pub played: Arc<Played>,
    pub registry: String,
    pub url: String,
    pub uic_url: String,
    pub http: reqwest::Client,
    pub key: OpeningKey,
    _files: TestDir,
}

impl Stage {
    /// People: `admin`, `olga` (operator), `anna` and `bert` (users), and the team `shop` with `otto` (owner), `dora`
    /// (deployer) and `vera` (viewer).
    pub async fn set() -> Self {
        let quota = Quotas {
            apps: 10_000,
            instances: 10_000,
            memory_mb: 10_000_000,
            domains: 10_000,
            requests_burst: 10_000,
            ..Quotas::default()
        };
        Self::set_with(DashConfig { token_cache_secs: 0, quota, ..DashConfig::default() }).await
    }

    /// The same with other settings of dash.
    pub async fn set_with(config: DashConfig) -> Self {
        Self::set_at(config, None).await
    }

    /// The same where browsers reach dash and uic elsewhere.
    pub async fn set_at(config: DashConfig, public: Option<[&str; 2]>) -> Self {
        let log = LogConfig { sink: LogSink::Stderr, level: "warn".into() };
        dinp_common::logging::init("dash", &log);
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        let uic_pool = mysql.account(&root, "dinp_uic").await;
        let dash_pool = mysql.account(&root, "dinp_dash").await;

        let hash = Passwords::new(64, 1, 1).unwrap().hash(Secret::new(PASSWORD)).await.unwrap();
        let mut conn = uic_pool.get_conn().await.unwrap();
        for (name, role) in [
            ("admin", PlatformRole::Admin),
            ("olga", PlatformRole::Operator),
            ("anna", PlatformRole::User),
            ("bert", PlatformRole::User),
            ("otto", PlatformRole::User),
            ("dora", PlatformRole::User),
            ("vera", PlatformRole::User),
        ] {
            user::insert(&mut conn, name, &hash, role).await.unwrap();
        }
        team::insert(&mut conn, "shop").await.unwrap();
        let shop = team::id_of(&mut conn, "shop").await.unwrap().unwrap();
        for (name, role) in [("otto", TeamRole::Owner), ("dora", TeamRole::Deployer), ("vera", TeamRole::Viewer)] {
            let id = user::by_name(&mut conn, name).await.unwrap().unwrap().id;
            team::put_member(&mut conn, shop, id, role).await.unwrap();
        }
        drop(conn);
        let key = OpeningKey::generate();
        let mut conn = root.get_conn().await.unwrap();
        conn.exec_drop("INSERT INTO sealing_key (id, public_key) VALUES (1, ?)", (key.public_key().to_vec(),))
            .await
            .unwrap();
        drop(conn);

        let credential = Credential::generate(CredentialKind::Service, "dash");
        let services = ServiceAuth::for_tests([(credential.clone(), Role::Dash)]);
        let played = Arc::new(Played {
            services: services.clone(),
            pool: root.clone(),
            hints: Default::default(),
            instances: Default::default(),
            packages: Default::default(),
            arriving: Default::default(),
            gate: Default::default(),
            frozen: Default::default(),
            uploads: std::sync::Mutex::default(),
        });
        let server = played::serve(played::server(played.clone())).await;
        let builder = played::serve(played::builder(played.clone())).await;
        let registry = played::serve(played::registry(played.clone())).await;

        let uic_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dash_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uic_url = format!("http://{}", uic_listener.local_addr().unwrap());
        let url = format!("http://{}", dash_listener.local_addr().unwrap());
        let files = TestDir::new("dash");
        let account = files.path().join("registry-pull");
        std::fs::write(&account, "reader:geheim\n").unwrap();

        let uic_config = UicConfig { password_memory_kib: 64, password_passes: 1, ..UicConfig::default() };
        let mut loaded = Loaded::for_tests("uic", uic_config);
        loaded.cluster.uic.public_url = Url::parse(&uic_url).unwrap();
        loaded.cluster.dash.public_url = Url::parse(&url).unwrap();
        if let Some([dash, uic]) = public {
            loaded.cluster.dash.public_url = Url::parse(dash).unwrap();
            loaded.cluster.uic.public_url = Url::parse(uic).unwrap();
        }
        let uic = Arc::new(Uic::new(&loaded, uic_pool.clone(), services).unwrap());
        let drain = Duration::from_secs(1);
        tokio::spawn(listen::serve(vec![uic_listener], dinp_uic::api::router(uic), Default::default(), drain));

        let mut dash = Loaded::for_tests("dash", DashConfig { upload_max_mb: 4, ..config });
        dash.cluster = loaded.cluster.clone();
        dash.cluster.uic.url = Url::parse(&uic_url).unwrap();
        dash.cluster.servers = vec![Url::parse(&format!("http://{server}")).unwrap()];
        dash.cluster.builder.url = Url::parse(&format!("http://{builder}")).unwrap();
        dash.cluster.registry.address = registry.clone();
        dash.cluster.registry.credential_file = Some(account);
        let dash = Arc::new(Dash::new(&dash, dash_pool, &credential).unwrap());
        tokio::spawn(listen::serve(vec![dash_listener], dinp_dash::router(dash), Default::default(), drain));

        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { mysql, root, uic_pool, played, registry, url, uic_url, http, key, _files: files }
    }

    /// An access token of this person, as uic would give it.
    pub async fn token(&self, name: &str) -> String {
        let mut conn = self.uic_pool.get_conn().await.unwrap();
        let user = user::by_name(&mut conn, name).await.unwrap().unwrap();
        let id = hex(&rand::random::<[u8; 8]>());
        let credential = Credential::generate(CredentialKind::Session, id);
        let new = NewSession {
            id: &credential.name,
            secret_hash: &credential.secret_hash(),
            user_id: user.id,
            kind: SessionKind::Access,
            client: "cli",
            parent: None,
            ttl_secs: 3600,
        };
        session::insert(&mut conn, new).await.unwrap();
        credential.to_string()
    }

    pub async fn call(&self, token: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let text = response.text().await.unwrap();
        if status >= 400 {
            assert_eq!(kind, "application/problem+json", "{path}: {text}");
        }
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// What the server does when a deployment has succeeded.
    pub async fn succeed(&self, deployment: u64) {
        let mut conn = self.root.get_conn().await.unwrap();
        conn.exec_drop(
            "UPDATE app a JOIN deployment d ON d.app = a.name SET a.release_id = d.release_id, d.state = 'succeeded', \
             d.finished_at = NOW(3) WHERE d.id = ?",
            (deployment,),
        )
        .await
        .unwrap();
    }

    pub async fn sql(&self, statement: &str) {
        self.root.get_conn().await.unwrap().query_drop(statement).await.unwrap();
    }

    pub async fn text(&self, query: &str) -> String {
        let row: Option<String> = self.root.get_conn().await.unwrap().query_first(query).await.unwrap();
        row.unwrap_or_default()
    }
}
