//! Calling other daemons: JSON over HTTP, several addresses, problems as errors.

mod error;
mod targets;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use url::Url;

use crate::api::leader::{EPOCH_HEADER, LEADER_PATH, LeaderView};
use crate::auth::Credential;
use crate::problem::Problem;
use targets::Targets;

pub use error::ClientError;

/// A client of one kind of daemon, of which there may be several.
///
/// The address that worked last is tried first; the others follow when there is no answer or the
/// problem `not-leader`. A leader named by that problem is tried next.
///
/// A client [of servers](Self::of_servers) also asks the others each few seconds, beside its calls, who leads, and moves
/// to the one with the highest epoch at once.
#[derive(Clone, Debug)]
pub struct ApiClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    targets: Mutex<Targets>,
    credential: Option<Credential>,
    /// Counts how often another leader was found; none where it is not looked for.
    moves: Option<watch::Sender<u64>>,
}

/// What came back.
struct Answer {
    status: StatusCode,
    epoch: Option<u64>,
    body: bytes::Bytes,
}

impl ApiClient {
    /// How long a connection may take to come about.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

    /// A client with [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT).
    pub fn new(base_urls: Vec<Url>, credential: Option<Credential>, user_agent: &str) -> Self {
        Self::build(Self::plain(user_agent), base_urls, credential, None)
    }

    /// A client of the cluster's servers, which follows the one that leads.
    pub fn of_servers(base_urls: Vec<Url>, credential: Option<Credential>, user_agent: &str) -> Self {
        Self::build(Self::plain(user_agent), base_urls, credential, Some(watch::Sender::new(0)))
    }

    /// A client that speaks by other means than daemons do: see [`http`](Self::http).
    pub fn over(http: reqwest::Client, base_urls: Vec<Url>, credential: Option<Credential>) -> Self {
        Self::build(http, base_urls, credential, None)
    }

    /// How daemons speak. Whoever is to speak TLS adds whom it trusts: by this alone, that is nobody.
    pub fn http(user_agent: &str) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .user_agent(user_agent)
            .connect_timeout(Self::CONNECT_TIMEOUT)
            // Our own servers close idle connections after 10 s; be earlier, so as not to race that.
            .pool_idle_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
    }

    fn plain(user_agent: &str) -> reqwest::Client {
        let http = Self::http(user_agent).build();
        http.expect("a client that trusts nobody and has a valid user agent can always be built")
    }

    fn build(
        http: reqwest::Client,
        base_urls: Vec<Url>,
        credential: Option<Credential>,
        moves: Option<watch::Sender<u64>>,
    ) -> Self {
        let inner = Inner { http, targets: Mutex::new(Targets::new(base_urls)), credential, moves };
        Self { inner: Arc::new(inner) }
    }

    /// The addresses in the order in which they are to be tried now.
    pub fn targets(&self) -> Vec<Url> {
        self.known().in_order()
    }

    fn known(&self) -> MutexGuard<'_, Targets> {
        self.inner.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `GET path`; a path starts with `/` and may have a query.
    pub async fn get<R: DeserializeOwned>(&self, path: &str, timeout: Duration) -> Result<R, ClientError> {
        self.call(Method::GET, path, None, timeout).await
    }

    /// `POST path` with a JSON body. An answer without a body is `()`.
    pub async fn post<B, R>(&self, path: &str, body: &B, timeout: Duration) -> Result<R, ClientError>
    where
        B: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call(Method::POST, path, Some(encode(path, body)?), timeout).await
    }

    /// `PUT path` with a JSON body.
    pub async fn put<B, R>(&self, path: &str, body: &B, timeout: Duration) -> Result<R, ClientError>
    where
        B: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call(Method::PUT, path, Some(encode(path, body)?), timeout).await
    }

    /// `PATCH path` with a JSON body.
    pub async fn patch<B, R>(&self, path: &str, body: &B, timeout: Duration) -> Result<R, ClientError>
    where
        B: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call(Method::PATCH, path, Some(encode(path, body)?), timeout).await
    }

    /// `DELETE path`.
    pub async fn delete<R: DeserializeOwned>(&self, path: &str, timeout: Duration) -> Result<R, ClientError> {
        self.call(Method::DELETE, path, None, timeout).await
    }

    /// A request with credential and without time limit to the address that is to be tried first:
    /// for streams. Use [`check`] on the answer.
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ClientError> {
        self.survey_if_due();
        let base = self.targets().into_iter().next().ok_or_else(|| no_address(path))?;
        Ok(self.request_to(method, &join(&base, path)?))
    }

    /// As [`request`](Self::request), to any URL.
    pub fn request_to(&self, method: Method, url: &Url) -> RequestBuilder {
        let request = self.inner.http.request(method, url.clone());
        match &self.inner.credential {
            Some(credential) => request.bearer_auth(credential.to_string()),
            None => request,
        }
    }

    async fn call<R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<R, ClientError> {
        self.survey_if_due();
        // What only looks is given up where another server turns out to lead, and asked there: it may wait for long.
        let mut moves = self.inner.moves.as_ref().filter(|_| method == Method::GET).map(watch::Sender::subscribe);
        loop {
            let answered = self.call_all(&method, path, body.as_deref(), timeout);
            tokio::select! {
                answer = answered => return answer,
                () = moved(&mut moves) => {}
            }
        }
    }

    /// Calls one address after the other until one has answered.
    async fn call_all<R: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<R, ClientError> {
        let mut targets = self.targets();
        let mut next = 0;
        let mut last = no_address(path);
        while let Some(base) = targets.get(next).cloned() {
            next += 1;
            let url = join(&base, path)?;
            let mut request = self.request_to(method.clone(), &url).timeout(timeout);
            if let Some(body) = body {
                request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.to_vec());
            }
            match send(request, &url).await {
                Ok(answer) if answer.status.is_success() => {
                    self.known().worked(&base, answer.epoch);
                    // An empty answer stands for `null`, so that `()` and `Option` take it.
                    let text: &[u8] = if answer.body.is_empty() { b"null" } else { &answer.body };
                    return serde_json::from_slice(text).map_err(|source| ClientError::Decode { url, source });
                }
                Ok(answer) => {
                    let problem = problem_of(answer.status, &answer.body);
                    if problem.kind != "not-leader" {
                        self.known().worked(&base, answer.epoch);
                        return Err(ClientError::Problem(problem));
                    }
                    self.known().failed(&base);
                    // The leader it names is next, unless it has been asked already.
                    if let Some(leader) = problem.text("leader").and_then(|text| Url::parse(text).ok())
                        && !targets[..next].contains(&leader)
                    {
                        targets.retain(|url| *url != leader);
                        targets.insert(next.min(targets.len()), leader);
                    }
                    last = ClientError::Problem(problem);
                }
                Err(error) => {
                    self.known().failed(&base);
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Asks the other servers who leads, if it is time to; nobody waits for it.
    fn survey_if_due(&self) {
        let Some(moves) = self.inner.moves.clone() else { return };
        let Some(asked) = self.known().survey_due(Instant::now()) else { return };
        let client = self.clone();
        tokio::spawn(async move {
            join_all(asked.iter().map(|base| client.ask_who_leads(base, &moves))).await;
        });
    }

    async fn ask_who_leads(&self, base: &Url, moves: &watch::Sender<u64>) {
        let Ok(url) = join(base, LEADER_PATH) else { return };
        let request = self.inner.http.get(url.clone()).timeout(Self::CONNECT_TIMEOUT);
        // One that is down or of a version before this says nothing.
        let Ok(answer) = send(request, &url).await else { return };
        let Ok(view) = serde_json::from_slice::<LeaderView>(&answer.body) else { return };
        if self.known().heard(base, &view) {
            tracing::info!(leader = %base, epoch = view.epoch, "another server leads");
            moves.send_modify(|count| *count += 1);
        }
    }
}

/// Waits until another server turns out to lead; for ever where that is not looked for.
async fn moved(moves: &mut Option<watch::Receiver<u64>>) {
    if let Some(moves) = moves
        && moves.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Passes a successful answer on and turns any other into an error; for answers that are streams.
pub async fn check(response: reqwest::Response) -> Result<reqwest::Response, ClientError> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let url = response.url().clone();
    let bytes = response.bytes().await.map_err(|source| ClientError::Transport { url, source })?;
    Err(ClientError::Problem(problem_of(status, &bytes)))
}

async fn send(request: RequestBuilder, url: &Url) -> Result<Answer, ClientError> {
    let failed = |source: reqwest::Error| ClientError::Transport { url: url.clone(), source: source.without_url() };
    let response = request.send().await.map_err(failed)?;
    let (status, epoch) = (response.status(), epoch_of(response.headers()));
    Ok(Answer { status, epoch, body: response.bytes().await.map_err(failed)? })
}

fn epoch_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(EPOCH_HEADER)?.to_str().ok()?.parse().ok()
}

/// The problem in an answer; one is made up where something else than DINP answered.
fn problem_of(status: StatusCode, body: &[u8]) -> Problem {
    if let Ok(mut problem) = serde_json::from_slice::<Problem>(body) {
        problem.status = status.as_u16();
        return problem;
    }
    let text: String = String::from_utf8_lossy(body).chars().take(500).collect();
    let detail = if text.trim().is_empty() { status.to_string() } else { format!("{status}: {}", text.trim()) };
    Problem::new(status, format!("http-{}", status.as_u16()), detail)
}

fn encode<B: Serialize + ?Sized>(path: &str, body: &B) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body)
        .map_err(|error| ClientError::Url { path: path.to_owned(), problem: format!("encode the body: {error}") })
}

/// A part `..` is refused, in all its spellings: names of people's choice are parts of paths, and such a one would lead to
/// another endpoint.
fn join(base: &Url, path: &str) -> Result<Url, ClientError> {
    let parts = path.split('?').next().unwrap_or_default();
    // To a URL a backslash is a slash, ends of lines and tabs are nothing, and from `#` on it is no path.
    let is_odd = parts.contains(['\\', '#', '\t', '\r', '\n']);
    let is_dots = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if is_odd || parts.split('/').any(is_dots) {
        return Err(ClientError::Url { path: path.to_owned(), problem: "a part of it leads elsewhere".into() });
    }
    let text = format!("{}{path}", base.as_str().trim_end_matches('/'));
    Url::parse(&text).map_err(|error| ClientError::Url { path: path.to_owned(), problem: error.to_string() })
}

fn no_address(path: &str) -> ClientError {
    ClientError::Url { path: path.to_owned(), problem: "no address is configured".into() }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::{any, get, post};
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::CredentialKind;
    use crate::problem::ApiJson;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn serve(app: Router) -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    async fn dead() -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
    }

    #[test]
    fn no_part_of_a_path_leads_elsewhere() {
        let base: Url = "http://127.0.0.1:1984/".parse().unwrap();
        for bad in [
            "/v1/users/..",
            "/v1/teams/../members/anna",
            "/v1/routers/.",
            "/v1/users/..?limit=1",
            "/v1/users/%2e%2E",
            "/v1/users/.%2e/anna",
            "/v1/routers/%2E?limit=1",
            "/v1/users/..\\anna",
            "/v1/users/.\t.",
            "/v1/users/anna#/tokens",
        ] {
            let error = join(&base, bad).unwrap_err().to_string();
            assert_eq!(error, format!("make a URL of {bad}: a part of it leads elsewhere"));
        }
        for good in ["/v1/routers/a..b", "/v1/routers/a%2e", "/v1/routers/..."] {
            assert_eq!(join(&base, &format!("{good}?after=..")).unwrap().path(), good);
        }
    }

    fn leader() -> Router {
        let echo = |headers: http::HeaderMap, ApiJson(body): ApiJson<Value>| async move {
            crate::auth::bearer(&headers).map(|credential| ApiJson(json!({"who": credential.name, "body": body})))
        };
        Router::new()
            .route("/v1/echo", post(echo))
            .route("/v1/nothing", get(|| async { StatusCode::NO_CONTENT }))
            .route("/v1/taken", get(|| async { Problem::conflict("name-taken", "app web exists") }))
            .route("/v1/odd", get(|| async { (StatusCode::BAD_GATEWAY, "nginx") }))
    }

    #[tokio::test]
    async fn calls_and_problems() {
        let credential = Credential::generate(CredentialKind::Service, "dash");
        let client = ApiClient::new(vec![serve(leader()).await], Some(credential), "dinp-test");
        let answer: Value = client.post("/v1/echo", &json!([1]), LIMIT).await.unwrap();
        assert_eq!(answer, json!({"who": "dash", "body": [1]}));
        client.get::<()>("/v1/nothing", LIMIT).await.unwrap();
        assert!(client.get::<()>("/v1/taken", LIMIT).await.unwrap_err().is_kind("name-taken"));
        let odd = client.get::<()>("/v1/odd", LIMIT).await.unwrap_err();
        assert_eq!((odd.status(), odd.to_string().as_str()), (Some(502), "502 Bad Gateway: nginx"));
    }

    #[tokio::test]
    async fn follows_to_the_leader_and_stays_there() {
        let leader = serve(leader()).await;
        let hint = leader.to_string();
        let standby = serve(Router::new().fallback(move || async move { Problem::not_leader(Some(&hint)) })).await;
        let client = ApiClient::new(vec![dead().await, standby.clone()], None, "dinp-test");
        client.get::<()>("/v1/nothing", LIMIT).await.unwrap();
        assert_eq!(client.targets()[0], leader);

        let client = ApiClient::new(vec![standby.clone(), leader.clone()], None, "dinp-test");
        client.get::<()>("/v1/nothing", LIMIT).await.unwrap();
        assert_eq!(client.targets(), [leader, standby]);
    }

    /// A server that leads in an epoch.
    fn leads_in(epoch: u64) -> Router {
        let view = LeaderView { leading: true, epoch, ..LeaderView::default() };
        Router::new()
            .route(LEADER_PATH, get(move || async move { ApiJson(view) }))
            .route("/v1/who", any(move || async move { ([(EPOCH_HEADER, epoch.to_string())], ApiJson(epoch)) }))
    }

    #[tokio::test]
    async fn a_leader_that_still_answers_is_left_for_the_one_with_the_higher_epoch() {
        let (old, new) = (serve(leads_in(7)).await, serve(leads_in(8)).await);
        let client = ApiClient::of_servers(vec![old.clone(), new.clone()], None, "dinp-test");
        assert_eq!(client.post::<_, u64>("/v1/who", &(), LIMIT).await.unwrap(), 7);
        let mut moves = client.inner.moves.as_ref().unwrap().subscribe();
        moves.wait_for(|_| client.targets()[0] == new).await.unwrap();
        assert_eq!(client.targets(), [new, old]);
        assert_eq!(client.get::<u64>("/v1/who", LIMIT).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn a_long_poll_at_the_old_leader_goes_on_at_the_new_one() {
        let waits = Router::new().route("/v1/orders", get(std::future::pending::<StatusCode>));
        let orders = leads_in(8).route("/v1/orders", get(|| async { ApiJson("of epoch 8") }));
        let servers = vec![serve(waits).await, serve(orders).await];
        let client = ApiClient::of_servers(servers, None, "dinp-test");
        assert_eq!(client.get::<String>("/v1/orders", LIMIT).await.unwrap(), "of epoch 8");
    }

    #[tokio::test]
    async fn all_dead_is_a_transport_error() {
        let client = ApiClient::new(vec![dead().await], None, "dinp-test");
        assert!(matches!(client.get::<()>("/", LIMIT).await, Err(ClientError::Transport { .. })));
        let client = ApiClient::new(vec![], None, "dinp-test");
        assert!(matches!(client.get::<()>("/", LIMIT).await, Err(ClientError::Url { .. })));
    }
}
