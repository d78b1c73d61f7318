//! Calling other daemons: JSON over HTTP, several addresses, problems as errors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::auth::Credential;
use crate::problem::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The other side answered, with a problem.
    #[error(transparent)]
    Problem(Problem),
    /// There was no complete answer.
    #[error("call {url}")]
    Transport {
        /// What was called.
        url: Url,
        /// Why it failed.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is not what it should be.
    #[error("decode the answer of {url}")]
    Decode {
        /// What was called.
        url: Url,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// The client has no address, or the path makes no URL with it.
    #[error("make a URL of {path}: {problem}")]
    Url {
        /// The path that was asked for.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl ClientError {
    /// The problem, if the other side answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// True for the problem `kind`.
    pub fn is_kind(&self, kind: &str) -> bool {
        self.problem().is_some_and(|problem| problem.kind == kind)
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.problem().map(|problem| problem.status)
    }
}

/// A client of one kind of daemon, of which there may be several.
///
/// The address that worked last is tried first; the others follow when there is no answer or the
/// problem `not-leader`. A leader named by that problem is tried next.
#[derive(Clone, Debug)]
pub struct ApiClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    urls: Vec<Url>,
    good: AtomicUsize,
    leader: Mutex<Option<Url>>,
    credential: Option<Credential>,
}

impl ApiClient {
    /// How long a connection may take to come about.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

    /// A client with [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT).
    pub fn new(base_urls: Vec<Url>, credential: Option<Credential>, user_agent: &str) -> Self {
        Self::with_connect_timeout(base_urls, credential, user_agent, Self::CONNECT_TIMEOUT)
    }

    /// A client with its own time limit for connecting.
    pub fn with_connect_timeout(
        base_urls: Vec<Url>,
        credential: Option<Credential>,
        user_agent: &str,
        connect_timeout: Duration,
    ) -> Self {
        let http = reqwest::Client::builder()
            .user_agent(user_agent)
            .connect_timeout(connect_timeout)
            // Our own servers close idle connections after 10 s; be earlier, so as not to race that.
            .pool_idle_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without TLS and with a valid user agent can always be built");
        let inner = Inner { http, urls: base_urls, good: AtomicUsize::new(0), leader: Mutex::new(None), credential };
        Self { inner: Arc::new(inner) }
    }

    /// The addresses in the order in which they are to be tried now.
    pub fn targets(&self) -> Vec<Url> {
        let inner = &*self.inner;
        let good = inner.good.load(Ordering::Relaxed);
        let leader = inner.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (before, from) = inner.urls.split_at(good.min(inner.urls.len()));
        let mut targets: Vec<Url> = leader.into_iter().collect();
        for url in from.iter().chain(before) {
            if !targets.contains(url) {
                targets.push(url.clone());
            }
        }
        targets
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
        let mut targets = self.targets();
        let mut next = 0;
        let mut last = no_address(path);
        while let Some(base) = targets.get(next).cloned() {
            next += 1;
            let url = join(&base, path)?;
            let mut request = self.request_to(method.clone(), &url).timeout(timeout);
            if let Some(body) = &body {
                request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.clone());
            }
            match send(request, &url).await {
                Ok((status, bytes)) if status.is_success() => {
                    self.worked(&base);
                    // An empty answer stands for `null`, so that `()` and `Option` take it.
                    let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
                    return serde_json::from_slice(text).map_err(|source| ClientError::Decode { url, source });
                }
                Ok((status, bytes)) => {
                    let problem = problem_of(status, &bytes);
                    if problem.kind != "not-leader" {
                        self.worked(&base);
                        return Err(ClientError::Problem(problem));
                    }
                    self.failed(&base);
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
                    self.failed(&base);
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn worked(&self, base: &Url) {
        let mut leader = self.inner.leader.lock().unwrap_or_else(PoisonError::into_inner);
        match self.inner.urls.iter().position(|url| url == base) {
            Some(index) => {
                self.inner.good.store(index, Ordering::Relaxed);
                *leader = None;
            }
            None => *leader = Some(base.clone()),
        }
    }

    fn failed(&self, base: &Url) {
        let mut leader = self.inner.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if leader.as_ref() == Some(base) {
            *leader = None;
        }
    }
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

async fn send(request: RequestBuilder, url: &Url) -> Result<(StatusCode, bytes::Bytes), ClientError> {
    let failed = |source: reqwest::Error| ClientError::Transport { url: url.clone(), source: source.without_url() };
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    Ok((status, response.bytes().await.map_err(failed)?))
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

fn join(base: &Url, path: &str) -> Result<Url, ClientError> {
    let text = format!("{}{path}", base.as_str().trim_end_matches('/'));
    Url::parse(&text).map_err(|error| ClientError::Url { path: path.to_owned(), problem: error.to_string() })
}

fn no_address(path: &str) -> ClientError {
    ClientError::Url { path: path.to_owned(), problem: "no address is configured".into() }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::{get, post};
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

    #[tokio::test]
    async fn all_dead_is_a_transport_error() {
        let client = ApiClient::new(vec![dead().await], None, "dinp-test");
        assert!(matches!(client.get::<()>("/", LIMIT).await, Err(ClientError::Transport { .. })));
        let client = ApiClient::new(vec![], None, "dinp-test");
        assert!(matches!(client.get::<()>("/", LIMIT).await, Err(ClientError::Url { .. })));
    }
}
