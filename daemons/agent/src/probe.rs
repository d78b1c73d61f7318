//! Asking an instance whether it is well, over the node's address, as a router would.

use dinp_common::model::{HealthCheck, HealthKind};
use http::header::HOST;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A connection must come about within this.
const CONNECT: Duration = Duration::from_secs(1);

/// How long a connection over the loopback address must last to prove something.
const PROXIED: Duration = Duration::from_millis(50);

/// Time for any answer to `GET /` of an app without a check: a home page may be slow, the first time most of all.
const HOME: Duration = Duration::from_secs(10);

/// Most characters that are quoted of a wrong answer.
const QUOTED: usize = 200;

/// Where and how an instance is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The node's address.
    pub address: &'a str,
    /// Port on it.
    pub port: u16,
    /// Port inside the container, which the app's people know.
    pub inner: u16,
    /// Host header; empty for address and port.
    pub host: &'a str,
    /// How; none for `GET /` with any answer.
    pub check: Option<&'a HealthCheck>,
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub reason: String,
    /// What was there.
    pub kind: FailureKind,
}

/// What a failed probe has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Nothing that listens.
    NoListener,
    /// No answer in time, or none that is whole.
    Silence,
    /// A wrong answer of the app.
    Answer,
}

impl Failure {
    fn silence(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), kind: FailureKind::Silence }
    }
}

/// A client for probes: nothing is reused or followed.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .user_agent(concat!("dinp-agent/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(0)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client without TLS and with a valid user agent can always be built")
}

impl Question<'_> {
    /// Asks once.
    pub async fn ask(&self, client: &reqwest::Client) -> Result<(), Failure> {
        match self.check {
            Some(check) if check.kind == HealthKind::Tcp => self.connect().await,
            Some(check) => {
                let limit = Duration::from_secs(check.timeout_secs.into());
                self.get(client, &check.path, check.host.as_deref().unwrap_or(self.host), limit, true).await
            }
            None => self.get(client, "/", self.host, HOME, false).await,
        }
    }

    /// A GET request; a `strict` one is answered well from 200 to 399 only.
    async fn get(
        &self,
        client: &reqwest::Client,
        path: &str,
        host: &str,
        limit: Duration,
        strict: bool,
    ) -> Result<(), Failure> {
        let url = format!("http://{}:{}{path}", in_url(self.address), self.port);
        let mut request = client.get(url).header("x-forwarded-proto", "http").timeout(limit);
        if !host.is_empty() {
            request = request.header(HOST, host);
        }
        match request.send().await {
            Ok(answer) if !strict || (200..400).contains(&answer.status().as_u16()) => Ok(()),
            Ok(answer) => Err(Failure { reason: told(path, answer).await, kind: FailureKind::Answer }),
            Err(error) if error.is_timeout() => {
                Err(Failure::silence(format!("GET {path} has not been answered within {} s", limit.as_secs())))
            }
            Err(_) => {
                self.connect().await?;
                Err(Failure::silence(format!("GET {path} gave no complete HTTP answer")))
            }
        }
    }

    async fn connect(&self) -> Result<(), Failure> {
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect((self.address, self.port))).await;
        let Ok(Ok(mut stream)) = connected else { return Err(self.nothing_listens()) };
        if !stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
            return Ok(());
        }
        // Over loopback it is Docker's proxy that accepts, and hangs up when the app does not.
        match tokio::time::timeout(PROXIED, stream.read(&mut [0])).await {
            Ok(Ok(0) | Err(_)) => Err(self.nothing_listens()),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    fn nothing_listens(&self) -> Failure {
        Failure { reason: format!("nothing listens on port {}", self.inner), kind: FailureKind::NoListener }
    }
}

/// A wrong answer in words, with the first line of its body.
async fn told(path: &str, mut answer: reqwest::Response) -> String {
    let status = answer.status().as_u16();
    let body = answer.chunk().await.ok().flatten().unwrap_or_default();
    match first_line(&body) {
        line if line.is_empty() => format!("GET {path} answered {status}"),
        line => format!("GET {path} answered {status}: {line}"),
    }
}

/// The first line that says something, as far as it can be printed and quoted.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * QUOTED)]);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(QUOTED).collect()
}

fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
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
    use axum::extract::Request;
    use axum::routing::get;
    use dinp_common::testing::free_port;
    use http::StatusCode;
    use tokio::net::TcpListener;

    async fn serve(app: Router) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        port
    }

    async fn ask(port: u16, check: Option<HealthCheck>) -> Result<(), String> {
        let question =
            Question { address: "127.0.0.1", port, inner: 8080, host: "web.apps.localhost", check: check.as_ref() };
        question.ask(&client()).await.map_err(|failure| failure.reason)
    }

    fn check(path: &str) -> Option<HealthCheck> {
        Some(HealthCheck { timeout_secs: 1, ..HealthCheck::new(path) })
    }

    #[tokio::test]
    async fn answers_from_200_to_399_are_well_and_others_are_quoted() {
        let status =
            |code: u16, body: &'static str| get(move || async move { (StatusCode::from_u16(code).unwrap(), body) });
        let app = Router::new()
            .route("/200", status(200, ""))
            .route("/302", status(302, ""))
            .route("/404", status(404, ""))
            .route("/500", status(500, "\n  no database\u{1b}[31m: refused  \nTraceback\n"))
            .route("/never", get(std::future::pending::<()>));
        let port = serve(app).await;
        assert_eq!(ask(port, check("/200")).await, Ok(()));
        assert_eq!(ask(port, check("/302")).await, Ok(()));
        assert_eq!(ask(port, check("/404")).await, Err("GET /404 answered 404".into()));
        assert_eq!(ask(port, check("/500")).await, Err("GET /500 answered 500: no database[31m: refused".into()));
        assert_eq!(ask(port, check("/never")).await, Err("GET /never has not been answered within 1 s".into()));
        assert_eq!(ask(port, Some(HealthCheck::tcp())).await, Ok(()));
    }

    #[tokio::test]
    async fn without_a_check_any_http_answer_will_do() {
        let port = serve(Router::new().route("/", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))).await;
        assert_eq!(ask(port, None).await, Ok(()));
    }

    /// Django, Rails and ASP.NET answer 400 to hosts that they do not know.
    #[tokio::test]
    async fn probes_come_as_routers_send_requests() {
        let only_known = async |request: Request| {
            let header =
                |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
            let all = [header("host"), header("x-forwarded-proto"), header("user-agent")];
            let agent = concat!("dinp-agent/", env!("CARGO_PKG_VERSION"));
            let known = ["web.apps.localhost", "shop.example.org"].contains(&&*all[0]) && all[1..] == ["http", agent];
            if known { (StatusCode::OK, String::new()) } else { (StatusCode::BAD_REQUEST, all.join(" ")) }
        };
        let port = serve(Router::new().fallback(only_known)).await;
        assert_eq!(ask(port, check("/health")).await, Ok(()));
        let own = HealthCheck { host: Some("shop.example.org".into()), ..HealthCheck::new("/") };
        assert_eq!(ask(port, Some(own)).await, Ok(()));
        let other = HealthCheck { host: Some("other.example.org".into()), ..HealthCheck::new("/") };
        assert!(ask(port, Some(other)).await.unwrap_err().starts_with("GET / answered 400: other.example.org http"));
    }

    #[tokio::test]
    async fn who_accepts_and_hangs_up_does_not_listen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        let nothing = Err("nothing listens on port 8080".to_owned());
        for port in [port, free_port()] {
            assert_eq!(ask(port, None).await, nothing);
            assert_eq!(ask(port, check("/")).await, nothing);
            assert_eq!(ask(port, Some(HealthCheck::tcp())).await, nothing);
        }
    }

    #[tokio::test]
    async fn what_speaks_no_http_is_not_well_unless_it_is_asked_by_connection() {
        use tokio::io::AsyncWriteExt;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.readable().await.ok();
                    stream.write_all(b"220 mail.example.org ESMTP\r\n").await.ok();
                });
            }
        });
        assert_eq!(ask(port, None).await, Err("GET / gave no complete HTTP answer".into()));
        assert_eq!(ask(port, Some(HealthCheck::tcp())).await, Ok(()));
    }

    #[test]
    fn a_quote_is_one_line_of_bounded_length() {
        assert_eq!(first_line("\u{e4}".repeat(1000).as_bytes()).chars().count(), QUOTED);
        assert_eq!(first_line(b""), "");
        assert_eq!(first_line(b"\xff\n"), "\u{fffd}");
    }
}
