//! Serving HTTP/1 until told to stop, and then draining.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, Limits, Place};

/// How long a client may take for the head of a request, from its first byte to its last; also how long an idle
/// connection is kept.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `app` on all `listeners` until `shutdown`; then accepts nothing new and gives what is
/// under way until `drain` has passed.
///
/// Handlers of requests that may change something (all but GET, HEAD and OPTIONS) run to their end
/// even if the client hangs up.
pub async fn serve(listeners: Vec<TcpListener>, app: Router, shutdown: CancellationToken, drain: Duration) {
    serve_within(Limits::default(), listeners, app, shutdown, drain).await;
}

/// As [`serve`], with limits of its own.
pub async fn serve_within(
    limits: Limits,
    listeners: Vec<TcpListener>,
    app: Router,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let server = Arc::new(Server {
        admission: Admission::new(&limits),
        head: limits.head,
        app: TowerToHyperService::new(app),
        graceful: GracefulShutdown::new(),
        connections: TaskTracker::new(),
        handlers: Handlers::default(),
        cut: CancellationToken::new(),
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, server.clone(), shutdown.clone()));
    }
    while let Some(ended) = accepting.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    // The accepting tasks have ended, so this is the last one that holds the server.
    if let Some(server) = Arc::into_inner(server) {
        server.drain(drain).await;
    }
}

/// What the accepting tasks share.
struct Server {
    admission: Admission,
    /// Time for the head of a request.
    head: Duration,
    app: TowerToHyperService<Router>,
    graceful: GracefulShutdown,
    connections: TaskTracker,
    handlers: Handlers,
    /// Cancelled when the drain's deadline has passed.
    cut: CancellationToken,
}

impl Server {
    async fn drain(self, limit: Duration) {
        let Self { graceful, connections, handlers: Handlers(handlers), cut, .. } = self;
        connections.close();
        handlers.close();
        let done = async {
            graceful.shutdown().await;
            connections.wait().await;
            handlers.wait().await;
        };
        if tokio::time::timeout(limit, done).await.is_err() {
            let (connections, handlers) = (connections.len(), handlers.len());
            tracing::warn!(
                connections,
                handlers,
                "drain deadline passed, cutting off {connections} connections and {handlers} handlers"
            );
        }
        cut.cancel();
    }
}

async fn accept(listener: TcpListener, server: Arc<Server>, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let own = stream.local_addr().ok().map(|own| own.ip());
                if let Some(place) = server.admission.admit(peer.ip(), own) {
                    server.connections.spawn(connection(stream, peer, place, &server));
                }
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "connections cannot be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors that accept(2) passes on from one connection that is already gone.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn connection(stream: TcpStream, peer: SocketAddr, place: Place, server: &Server) -> impl Future<Output = ()> + use<> {
    let head = server.head;
    let watcher = server.graceful.watcher();
    let cut = server.cut.clone();
    let app = server.app.clone();
    let handlers = server.handlers.clone();
    let service = service_fn(move |request| answer(app.clone(), handlers.clone(), peer, request));
    async move {
        let _place = place;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        // The builder's own time limit starts with the first byte.
        let first_byte = tokio::time::timeout(head, stream.readable());
        let silent = tokio::select! {
            first = first_byte => !matches!(first, Ok(Ok(()))),
            () = cut.cancelled() => true,
        };
        if silent {
            return;
        }
        let mut builder = http1::Builder::new();
        // Not HTTP/2: its heads come in frames, on which there is no time limit.
        builder.timer(TokioTimer::new()).header_read_timeout(head);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            result = watcher.watch(connection) => {
                if let Err(error) = result {
                    tracing::debug!(%peer, error = &error as &dyn std::error::Error, "connection ended");
                }
            }
            () = cut.cancelled() => {}
        }
    }
}

async fn answer(
    app: TowerToHyperService<Router>,
    handlers: Handlers,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(handlers.clone());
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let answer = async move {
        match app.call(request.map(Body::new)).await {
            Ok(response) => response,
            Err(infallible) => match infallible {},
        }
    };
    if only_reads {
        return Ok(answer.await);
    }
    Ok(handlers.run(answer).await)
}

/// Handlers that must run to their end, whoever waits for their answers. In the extensions of each request.
#[derive(Clone, Default)]
pub struct Handlers(TaskTracker);

impl Handlers {
    /// Runs a handler, which goes on if this is dropped.
    pub async fn run(&self, handler: impl Future<Output = Response> + Send + 'static) -> Response {
        self.0.spawn(handler).await.unwrap_or_else(|error| {
            tracing::error!(%error, "request handler panicked");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn start(app: Router, drain: Duration) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(vec![listener], app, shutdown.clone(), drain));
        (address, shutdown, server)
    }

    #[tokio::test]
    async fn serves_and_tells_who_calls() {
        let app =
            Router::new().route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }));
        let (address, shutdown, server) = start(app, LONG).await;
        let text = reqwest::get(format!("http://{address}/")).await.unwrap().text().await.unwrap();
        assert!(text.starts_with("127.0.0.1:"));
        shutdown.cancel();
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    /// A server with limits, and nothing behind it but `GET /`.
    async fn start_within(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(serve_within(limits, vec![listener], app, CancellationToken::new(), LONG));
        address
    }

    /// Sends the bytes again and again until the other side has had enough; how long that took.
    async fn drip(address: SocketAddr, begin: &[u8], drop: &[u8]) -> Duration {
        let begun = std::time::Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let mut answer = [0; 1];
        loop {
            tokio::select! {
                read = stream.read(&mut answer) => {
                    assert!(matches!(read, Ok(0) | Err(_)), "it was answered");
                    return begun.elapsed();
                }
                _ = ticks.tick() => drop_in(&mut stream, drop).await,
            }
        }
    }

    async fn drop_in(stream: &mut TcpStream, drop: &[u8]) {
        // It may be closed already, which the read tells.
        stream.write_all(drop).await.ok();
    }

    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_is_cut_off_at_its_deadline() {
        let head = Duration::from_millis(400);
        let address = start_within(Limits { head, ..Limits::default() }).await;
        let took = drip(address, b"GET / HTTP/1.1\r\nhost: a\r\nx: ", b"y").await;
        assert!((head..head * 5).contains(&took), "{took:?}");
        // The begin of a preface of HTTP/2, after which nothing comes.
        let took = drip(address, b"P", b"").await;
        assert!((head..head * 5).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn a_connection_that_is_idle_between_requests_is_ended() {
        let head = Duration::from_millis(300);
        let address = start_within(Limits { head, ..Limits::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut all = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut all)).await.unwrap().unwrap();
        assert!(all.ends_with("here"), "{all}");
    }

    #[tokio::test]
    async fn who_opens_connections_without_end_does_not_lock_out_others() {
        let address = start_within(Limits { each: 3, all: 100, ..Limits::default() }).await;
        let greedy = async || TcpStream::connect(address).await.unwrap();
        let held = [greedy().await, greedy().await, greedy().await];
        let mut refused = greedy().await;
        assert!(matches!(refused.read(&mut [0; 1]).await, Ok(0) | Err(_)), "a fourth one is closed at once");
        // Another address of this host stands for another client.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = socket.connect(address).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut all = String::new();
        other.read_to_string(&mut all).await.unwrap();
        assert!(all.ends_with("here"), "{all}");
        drop(held);
    }

    #[tokio::test]
    async fn drains_what_is_under_way() {
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let app = Router::new().route(
            "/",
            get({
                let (entered, go) = (entered.clone(), go.clone());
                move || async move {
                    entered.notify_one();
                    go.notified().await;
                    "done"
                }
            }),
        );
        let (address, shutdown, server) = start(app, LONG).await;
        let call = tokio::spawn(async move { reqwest::get(format!("http://{address}/")).await?.text().await });
        entered.notified().await;
        shutdown.cancel();
        go.notify_one();
        assert_eq!(call.await.unwrap().unwrap(), "done");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn the_deadline_cuts_off() {
        let entered = Arc::new(Notify::new());
        let app = Router::new().route(
            "/",
            get({
                let entered = entered.clone();
                move || async move {
                    entered.notify_one();
                    std::future::pending::<()>().await;
                }
            }),
        );
        let (address, shutdown, server) = start(app, Duration::from_millis(20)).await;
        let call = tokio::spawn(async move { reqwest::get(format!("http://{address}/")).await });
        entered.notified().await;
        shutdown.cancel();
        server.await.unwrap();
        assert!(call.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_change_is_finished_after_its_time_was_over() {
        let (go, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (go, finished) = (go.clone(), finished.clone());
            move || async move {
                go.notified().await;
                finished.notify_one();
            }
        };
        let app = Router::new().route("/", post(handler.clone()).get(handler)).layer(axum::middleware::from_fn(
            |request, next| crate::web::within_deadline(Duration::from_millis(20), request, next),
        ));
        let (address, shutdown, server) = start(app, LONG).await;
        let url = format!("http://{address}/");
        let read = reqwest::get(&url).await.unwrap();
        assert_eq!((read.status().as_u16(), read.text().await.unwrap().contains("may still be done")), (503, false));
        let changed = reqwest::Client::new().post(&url).send().await.unwrap();
        assert_eq!(
            (changed.status().as_u16(), changed.text().await.unwrap().contains("may still be done")),
            (503, true)
        );
        // Who stops waits for it; only what reads was dropped.
        shutdown.cancel();
        go.notify_one();
        finished.notified().await;
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_change_is_finished_after_the_client_hung_up() {
        let (entered, go, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let app = Router::new().route(
            "/",
            post({
                let (entered, go, finished) = (entered.clone(), go.clone(), finished.clone());
                move || async move {
                    entered.notify_one();
                    go.notified().await;
                    finished.notify_one();
                }
            }),
        );
        let (address, shutdown, server) = start(app, LONG).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        entered.notified().await;
        drop(stream);
        // A second connection is answered, so the server has had its turn to see the end of the first.
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"GET /none HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        other.read_to_end(&mut Vec::new()).await.unwrap();
        go.notify_one();
        finished.notified().await;
        shutdown.cancel();
        server.await.unwrap();
    }
}
