//! Serving HTTP/1 and HTTP/2 until told to stop, and then draining.

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
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for the head of a request; also how long an idle connection is kept.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `app` on all `listeners` until `shutdown`; then accepts nothing new and gives what is
/// under way until `drain` has passed.
///
/// Handlers of requests that may change something (all but GET, HEAD and OPTIONS) run to their end
/// even if the client hangs up.
pub async fn serve(listeners: Vec<TcpListener>, app: Router, shutdown: CancellationToken, drain: Duration) {
    let server = Arc::new(Server {
        app: TowerToHyperService::new(app),
        graceful: GracefulShutdown::new(),
        connections: TaskTracker::new(),
        handlers: TaskTracker::new(),
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
    app: TowerToHyperService<Router>,
    graceful: GracefulShutdown,
    connections: TaskTracker,
    /// Handlers that must run to their end.
    handlers: TaskTracker,
    /// Cancelled when the drain's deadline has passed.
    cut: CancellationToken,
}

impl Server {
    async fn drain(self, limit: Duration) {
        let Self { graceful, connections, handlers, cut, .. } = self;
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
                let connection = connection(stream, peer, &server);
                server.connections.spawn(connection);
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

fn connection(stream: TcpStream, peer: SocketAddr, server: &Server) -> impl Future<Output = ()> + use<> {
    let watcher = server.graceful.watcher();
    let cut = server.cut.clone();
    let app = server.app.clone();
    let handlers = server.handlers.clone();
    let service = service_fn(move |request| answer(app.clone(), handlers.clone(), peer, request));
    async move {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        // The builder's own time limit starts with the first byte.
        let first_byte = tokio::time::timeout(HEADER_READ_TIMEOUT, stream.readable());
        let silent = tokio::select! {
            first = first_byte => !matches!(first, Ok(Ok(()))),
            () = cut.cancelled() => true,
        };
        if silent {
            return;
        }
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(HEADER_READ_TIMEOUT);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        tokio::select! {
            result = watcher.watch(connection) => {
                if let Err(error) = result {
                    tracing::debug!(%peer, error = error.as_ref() as &dyn std::error::Error, "connection ended");
                }
            }
            () = cut.cancelled() => {}
        }
    }
}

async fn answer(
    app: TowerToHyperService<Router>,
    handlers: TaskTracker,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
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
    let answered = handlers.spawn(answer).await;
    Ok(answered.unwrap_or_else(|error| {
        tracing::error!(%error, "request handler panicked");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }))
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
