//! One probe: a GET as routers send it, over a connection of its own, or the connection alone where the check says so, with
//! a deadline over all of it.

use bytes::Bytes;
use dinp_common::api::hm::Target;
use dinp_common::model::HealthKind;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// Why an instance does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("no connection: {}", in_words(.0))]
    Connect(#[source] io::Error),
    /// A connection, but no answer over it.
    #[error("no answer: {0}")]
    Answer(#[source] hyper::Error),
    /// An answer that is not from 200 to 399.
    #[error("status {0}")]
    Status(StatusCode),
    /// All of it took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The target makes no request.
    #[error("not a request: {0}")]
    Target(#[source] http::Error),
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        _ => error.to_string(),
    }
}

/// Asks once.
pub async fn probe(target: &Target) -> Result<(), ProbeError> {
    let limit = Duration::from_secs(u64::from(target.check.timeout_secs));
    let probing = async {
        let stream = TcpStream::connect((target.address.as_str(), target.port)).await.map_err(ProbeError::Connect)?;
        match target.check.kind {
            HealthKind::Tcp => Ok(()),
            HealthKind::Http => judge(ask(target, stream).await?),
        }
    };
    tokio::time::timeout(limit, probing).await.map_err(|_| ProbeError::Late(limit))?
}

fn judge(status: StatusCode) -> Result<(), ProbeError> {
    if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(ProbeError::Status(status)) }
}

/// The status of the answer. Its body is nobody's concern; the connection ends with the drop.
async fn ask(target: &Target, stream: TcpStream) -> Result<StatusCode, ProbeError> {
    let request = Request::get(&target.check.path)
        .header(HOST, target.check.host.as_ref().unwrap_or(&target.host))
        .header("x-forwarded-proto", "http")
        .header(USER_AGENT, concat!("dinp-hm/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(ProbeError::Target)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ProbeError::Answer)?;
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection ends with the answer, so that both may be there at once.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    }
    .map(|response| response.status())
    .map_err(ProbeError::Answer)
}
