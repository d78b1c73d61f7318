//! Calls to the other daemons: their answers passed on, their absence explained, their streams handed through.

use crate::Dash;
use axum::body::Body;
use axum::response::Response;
use dinp_common::client::{ApiClient, ClientError, check};
use dinp_common::error::ErrorChain;
use dinp_common::problem::Problem;
use dinp_common::quota::Share;
use futures_util::StreamExt;
use http::{HeaderValue, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Longest wait for an answer that is no stream.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the head of a stream.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// A hint is worth no more than this.
const HINT_LIMIT: Duration = Duration::from_millis(200);

/// What is said when a daemon does not answer.
pub(crate) struct Backend {
    kind: &'static str,
    absent: &'static str,
}

/// The leading server.
pub(crate) const SERVER: Backend = Backend {
    kind: "waiting-for-leader",
    absent: "waiting for leader: no server of the cluster leads or can be reached now; what runs keeps running, and \
             changes are carried out when there is a leader again",
};
/// The builder.
pub(crate) const BUILDER: Backend =
    Backend { kind: "builder-unavailable", absent: "the builder cannot be reached now; try again shortly" };
/// Sign-on.
pub(crate) const UIC: Backend =
    Backend { kind: "uic-unavailable", absent: "sign-on (uic) cannot be reached now; try again shortly" };

/// A failed call as an answer to the person.
pub(crate) fn problem(error: ClientError, backend: &Backend) -> Problem {
    match error {
        ClientError::Problem(problem) if problem.kind == "not-leader" => absent(backend),
        // Our own credential was refused: the person's is not at fault and must not look so.
        ClientError::Problem(problem) if problem.status == 401 => {
            tracing::error!(detail = %problem.detail, "own credential refused by another daemon");
            let detail = format!("another daemon refuses the credential of dash: {}", problem.detail);
            Problem::new(StatusCode::BAD_GATEWAY, "backend-refused", detail)
        }
        ClientError::Problem(problem) => problem,
        ClientError::Decode { .. } => Problem::internal(&error),
        // A name in it is none that anything can have.
        ClientError::Url { .. } => Problem::not_found("there is nothing of this name"),
        ClientError::Transport { .. } => {
            tracing::warn!(error = %ErrorChain(&error), "other daemon cannot be called");
            absent(backend)
        }
    }
}

fn absent(backend: &Backend) -> Problem {
    Problem::unavailable(backend.kind, backend.absent)
}

/// Waits for the head of a streamed answer.
pub(crate) async fn head(
    request: reqwest::RequestBuilder,
    limit: Option<Duration>,
    backend: &Backend,
) -> Result<reqwest::Response, Problem> {
    check(sent(request, limit, backend).await?).await.map_err(|error| problem(error, backend))
}

/// Waits for the head of any answer, a problem too.
pub(crate) async fn sent(
    request: reqwest::RequestBuilder,
    limit: Option<Duration>,
    backend: &Backend,
) -> Result<reqwest::Response, Problem> {
    let sent = match limit {
        Some(limit) => match tokio::time::timeout(limit, request.send()).await {
            Ok(sent) => sent,
            Err(_) => return Err(absent(backend)),
        },
        None => request.send().await,
    };
    sent.map_err(|error| {
        // What a query holds is people's, such as the address of a package with a token in it.
        let path = error.url().map(|url| url.path().to_owned()).unwrap_or_default();
        let error = error.without_url();
        tracing::warn!(path, error = %ErrorChain(&error), "other daemon cannot be called");
        absent(backend)
    })
}

impl Dash {
    /// Asks the leader.
    pub(crate) async fn ask_server<R: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<R, Problem> {
        self.server.get(path, limit).await.map_err(|error| problem(error, &SERVER))
    }

    /// Wakes the leader's poll of desired state; if that fails, the poll comes by itself.
    pub(crate) fn hint(&self) {
        let server: ApiClient = self.server.clone();
        tokio::spawn(async move {
            if let Err(error) = server.post::<_, ()>("/v1/hint", &serde_json::json!({}), HINT_LIMIT).await {
                tracing::debug!(error = %ErrorChain(&error), "leader not hinted");
            }
        });
    }

    /// A stream of the leader, handed through as it comes until `end`. `share` is held until then or until its reader goes.
    pub(crate) async fn stream_server(
        &self,
        path: &str,
        share: Share<String>,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Response, Problem> {
        let open = async || {
            let request = self.server.request(Method::GET, path).map_err(|error| problem(error, &SERVER))?;
            head(request, Some(HEAD_LIMIT), &SERVER).await
        };
        let response = match open().await {
            // A call that is no stream finds the leader and remembers it.
            Err(first) if first.kind == SERVER.kind => {
                self.ask_server::<serde_json::Value>("/v1/status", LIMIT).await.map_err(|_| first)?;
                open().await?
            }
            other => other?,
        };
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let state = (Box::pin(response.bytes_stream().take_until(end)), share);
        let chunks = futures_util::stream::unfold(state, |(mut chunks, share)| async move {
            Some((chunks.next().await?, (chunks, share)))
        });
        let mut answer = Response::new(Body::from_stream(chunks));
        let kind = kind.unwrap_or(HeaderValue::from_static("application/x-ndjson"));
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(answer)
    }
}
