//! Asking an instance whether it is well, over the node's address.

use dinp_common::model::HealthCheck;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A connection must come about within this.
const CONNECT: Duration = Duration::from_secs(1);

/// How long a connection over the loopback address must last to prove something.
const PROXIED: Duration = Duration::from_millis(50);

/// Asks once; the error says for people why it is not well.
pub async fn probe(
    client: &reqwest::Client,
    host: &str,
    port: u16,
    health: Option<&HealthCheck>,
) -> Result<(), String> {
    match health {
        Some(health) => http(client, host, port, health).await,
        None => tcp(host, port).await,
    }
}

/// A client for probes: nothing is reused or followed.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .user_agent(concat!("dinp-agent/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(0)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client without TLS and with a valid user agent can always be built")
}

async fn http(client: &reqwest::Client, host: &str, port: u16, health: &HealthCheck) -> Result<(), String> {
    let url = format!("http://{}:{port}{}", in_url(host), health.path);
    let limit = Duration::from_secs(health.timeout_secs.into());
    match client.get(url).timeout(limit).send().await {
        Ok(answer) if (200..400).contains(&answer.status().as_u16()) => Ok(()),
        Ok(answer) => Err(format!("{} answers {}", health.path, answer.status().as_u16())),
        Err(error) if error.is_timeout() => Err(format!("{} has not answered for {} s", health.path, limit.as_secs())),
        Err(error) if error.is_connect() => Err(format!("port {port} cannot be connected")),
        Err(_) => Err(format!("{} gave no complete answer", health.path)),
    }
}

fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

async fn tcp(host: &str, port: u16) -> Result<(), String> {
    let refused = || format!("port {port} cannot be connected");
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await;
    let Ok(Ok(mut stream)) = connected else { return Err(refused()) };
    if !stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
        return Ok(());
    }
    // Over loopback it is Docker's proxy that accepts, and hangs up when the app does not.
    match tokio::time::timeout(PROXIED, stream.read(&mut [0])).await {
        Ok(Ok(0) | Err(_)) => Err(refused()),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// Time from one probe to the next while an instance starts: short at first, because a deploy waits for it.
pub fn pace(waiting: Duration) -> Duration {
    match waiting.as_secs() {
        0..=2 => Duration::from_millis(50),
        3..=9 => Duration::from_millis(200),
        _ => Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use dinp_common::testing::free_port;
    use http::StatusCode;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn answers_from_200_to_399_are_well() {
        let status = |code: u16| get(move || async move { StatusCode::from_u16(code).unwrap() });
        let app = Router::new()
            .route("/200", status(200))
            .route("/302", status(302))
            .route("/500", status(500))
            .route("/never", get(std::future::pending::<()>));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = client();
        let ask = async |path: &str| {
            let health = HealthCheck { timeout_secs: 1, ..HealthCheck::new(path) };
            probe(&client, "127.0.0.1", port, Some(&health)).await
        };
        assert_eq!(ask("/200").await, Ok(()));
        assert_eq!(ask("/302").await, Ok(()));
        assert_eq!(ask("/500").await, Err("/500 answers 500".into()));
        assert_eq!(ask("/never").await, Err("/never has not answered for 1 s".into()));
        assert_eq!(probe(&client, "127.0.0.1", port, None).await, Ok(()));
    }

    #[tokio::test]
    async fn who_accepts_and_hangs_up_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        assert!(tcp("127.0.0.1", port).await.is_err());
        assert!(tcp("127.0.0.1", free_port()).await.is_err());
    }
}
