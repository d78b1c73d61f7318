//! The attempts to get an answer for one request.

use super::pages::Refusal;
use super::pool::Connection;
use super::retry::{Failure, Next, next};
use super::{Lease, Proxy, RequestBody, balance};
use crate::gate::Control;
use crate::table::{Endpoint, InFlight};
use dinp_common::model::InstanceId;
use dinp_common::routes::RouteState;
use http::{HeaderMap, Method, Response, Uri};
use hyper::body::{Body, Incoming};
use std::io;
use std::rc::Rc;
use std::time::Instant;

/// Bodies up to this size, in bytes, never wait for the app to read them.
const SMALL_BODY: u64 = 16_384;

/// A request on its way to an instance.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Incoming>,
    /// Whether it may reach the app twice.
    pub(crate) replayable: bool,
}

impl Request {
    /// The request to send, and what is left for another attempt: all of it if it may be replayed.
    fn split(self) -> (http::Request<RequestBody>, Rc<super::body::Progress>, Option<Self>) {
        let Self { method, uri, headers, body, replayable } = self;
        let copy = replayable.then(|| Self {
            method: method.clone(),
            uri: uri.clone(),
            headers: headers.clone(),
            body: None,
            replayable,
        });
        let (body, progress) = RequestBody::new(body);
        let mut request = http::Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        (request, progress, copy)
    }

    /// What hyper gave back unsent.
    fn recover(request: http::Request<RequestBody>, replayable: bool) -> Self {
        let (parts, body) = request.into_parts();
        Self { method: parts.method, uri: parts.uri, headers: parts.headers, body: body.into_inner(), replayable }
    }
}

/// An instance's answer.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
}

/// Sends a request to an instance of the app that answers to `host`.
///
/// The table is looked at anew for each attempt, so that none goes to an instance that has left it meanwhile.
pub(crate) async fn forward(proxy: &Proxy, host: &str, request: Request, control: &Control) -> Result<Answer, Refusal> {
    let deadline = Instant::now() + proxy.limits.request;
    let mut request = request;
    let mut tried: Vec<InstanceId> = Vec::new();
    // The instance whose idle connection was closed under our hands.
    let mut again: Option<InstanceId> = None;
    let mut last = None;
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Err(Refusal::TimedOut);
        }
        let (endpoint, in_flight) =
            choose(proxy, host, &tried, again.as_ref(), now).map_err(|none| last.unwrap_or(none))?;
        let id = endpoint.instance.id.clone();
        let replayable = request.replayable;
        let idle = if again.take().is_some() { None } else { proxy.pool.take(&id, replayable, now) };
        let reused = idle.is_some();
        let connected = match idle {
            Some(connection) => Ok(connection),
            None => proxy.pool.connect(&endpoint, proxy.limits.connect.min(deadline - now)).await,
        };
        let attempt = match connected {
            Ok(connection) => attempt(proxy, request, connection, &endpoint, in_flight, deadline, control).await,
            Err(error) => {
                unreachable(proxy, &endpoint, &error);
                Err((Failure::NoConnection, Some(request)))
            }
        };
        let (failure, left) = match attempt {
            Ok(answer) => {
                proxy.totals.news.answered(&endpoint.stats, answer.response.status());
                return Ok(answer);
            }
            Err(failed) => failed,
        };
        if let Some(fault) = control.body_fault() {
            return Err(Refusal::Fault(fault));
        }
        let refusal = match failure {
            Failure::TimedOut => Refusal::TimedOut,
            Failure::Garbage => Refusal::BadAnswer,
            Failure::NoConnection => Refusal::NoConnection,
            Failure::Ended | Failure::Unsent => Refusal::NoAnswer,
        };
        match (next(failure, reused, replayable), left) {
            (Next::NewConnection, Some(left)) => {
                again = Some(id);
                request = left;
            }
            (Next::OtherInstance, Some(left)) => {
                proxy.totals.news.failed(&endpoint.stats);
                tried.push(id);
                request = left;
                last = Some(refusal);
            }
            (_, _) => {
                proxy.totals.news.failed(&endpoint.stats);
                tracing::debug!(app = %endpoint.stats.app, instance = %id, ?failure, "no answer from an instance");
                return Err(refusal);
            }
        }
    }
}

/// Looks the host up and chooses an endpoint; from here on the request counts as in flight to it.
fn choose(
    proxy: &Proxy,
    host: &str,
    tried: &[InstanceId],
    again: Option<&InstanceId>,
    now: Instant,
) -> Result<(Endpoint, InFlight), Refusal> {
    if !proxy.has_table.is_cancelled() {
        return Err(Refusal::NoTable);
    }
    let hosts = proxy.hosts.borrow();
    let app = hosts.get(host).ok_or(Refusal::UnknownHost)?;
    let same = again.and_then(|id| app.endpoints.iter().find(|endpoint| endpoint.instance.id == *id));
    let chosen = same.or_else(|| balance::choose(&app.endpoints, tried, now, |below| rand::random_range(0..below)));
    let Some(endpoint) = chosen else {
        return Err(match app.state {
            RouteState::Stopped => Refusal::Stopped,
            RouteState::Started => Refusal::NoInstances,
        });
    };
    Ok((endpoint.clone(), InFlight::new(&endpoint.instance)))
}

/// Notes that no connection could be made.
fn unreachable(proxy: &Proxy, endpoint: &Endpoint, error: &io::Error) {
    // A router without descriptors or ports must not take that for the instance's fault.
    let ours = matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
        || matches!(
            error.raw_os_error().map(nix::errno::Errno::from_raw),
            Some(nix::errno::Errno::EMFILE | nix::errno::Errno::ENFILE)
        );
    if ours {
        tracing::error!(%error, "connections to instances cannot be made: {error}");
        return;
    }
    endpoint.instance.refused(Instant::now());
    proxy.pool.close(&endpoint.instance.id);
    let (app, instance) = (&endpoint.stats.app, &endpoint.instance.id);
    tracing::debug!(%app, %instance, address = ?endpoint.address, %error, "no connection to an instance");
}

/// Sends the request over a connection and waits for the head of the answer.
async fn attempt(
    proxy: &Proxy,
    request: Request,
    mut connection: Connection,
    endpoint: &Endpoint,
    in_flight: InFlight,
    deadline: Instant,
    control: &Control,
) -> Result<Answer, (Failure, Option<Request>)> {
    let replayable = request.replayable;
    if !connection.reused {
        endpoint.instance.connected();
    }
    // One that has just been put back may still be finishing its last answer.
    let ready = tokio::time::timeout_at(deadline.into(), connection.sender.ready()).await;
    match ready {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err((Failure::Unsent, Some(request))),
        Err(_) => return Err((Failure::TimedOut, None)),
    }
    let limits = &proxy.limits;
    // What is small fits into the kernel's buffers on the other side, whether the app reads it or not.
    let small =
        request.body.as_ref().is_none_or(|body| body.size_hint().upper().is_some_and(|size| size <= SMALL_BODY));
    let patience = if small { limits.connect * 2 } else { limits.body };
    connection.wire.set_patience(patience);
    let received = connection.wire.received();
    let (message, progress, copy) = request.split();
    let mut answer = std::pin::pin!(connection.sender.try_send_request(message));
    let mut until = deadline;
    let outcome = loop {
        match tokio::time::timeout_at(until.into(), answer.as_mut()).await {
            Ok(outcome) => break outcome,
            // A body that still moves is no reason to give up.
            Err(_) if control.body_fault().is_none() && progress.last.get() + proxy.limits.request > Instant::now() => {
                until = progress.last.get() + proxy.limits.request;
            }
            Err(_) => return Err((Failure::TimedOut, None)),
        }
    };
    match outcome {
        Ok(response) => {
            let lease = Lease {
                pool: proxy.pool.clone(),
                instance: endpoint.instance.id.clone(),
                connection: Some(connection),
                progress,
                in_flight,
            };
            Ok(Answer { response, lease })
        }
        Err(mut unsent) => {
            if let Some(message) = unsent.take_message() {
                return Err((Failure::Unsent, Some(Request::recover(message, replayable))));
            }
            let failure = if connection.wire.received() == received { Failure::Ended } else { Failure::Garbage };
            Err((failure, copy))
        }
    }
}
