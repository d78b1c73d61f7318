//! A dashboard that answers as told, and the program run against it.

pub mod tls;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use dinp_common::problem::Problem;
use dinp_common::testing::TestDir;
use tokio::net::TcpListener;

/// The only token that the dashboard takes.
pub const TOKEN: &str = "session:0123456789abcdef:00000000000000000000000000000000000000000000000000000000000000ff";

/// A dashboard, and a home directory for the program.
pub struct World {
    pub url: String,
    pub home: TestDir,
    requests: Arc<Mutex<Vec<String>>>,
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    /// With these endpoints; all but `/v1/meta`, `/oauth/...`, `/login` and `/` need the token.
    pub async fn new(endpoints: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::at(listener, endpoints)
    }

    /// With these endpoints and no guard.
    pub async fn open(endpoints: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, endpoints).await });
        Self { url, home: TestDir::new("cli"), requests: Arc::default() }
    }

    /// On a listener that the endpoints know the address of.
    pub fn at(listener: TcpListener, endpoints: Router) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let missing = async || Problem::not_found("there is no such thing");
        let app = endpoints.fallback(missing).layer(from_fn_with_state(requests.clone(), guard));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, home: TestDir::new("cli"), requests }
    }

    /// Requests so far, as `METHOD path?query`, without those for the app itself.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").parse().unwrap()
    }

    /// The program, told where the dashboard is and who we are.
    pub async fn dinp(&self, args: &[&str]) -> Ended {
        self.run(args, &[("DINP_SERVER", &self.url), ("DINP_TOKEN", TOKEN)], "").await
    }

    /// The program with its own environment only.
    pub async fn run(&self, args: &[&str], env: &[(&str, &str)], stdin: &str) -> Ended {
        self.end(&mut self.command(args, env), stdin).await
    }

    /// Runs a command of the program to its end.
    pub async fn end(&self, command: &mut Command, stdin: &str) -> Ended {
        let mut child = command.spawn().unwrap();
        let stdin = stdin.to_owned();
        let run = move || {
            // It may have ended without reading.
            child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
            let output = child.wait_with_output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            Ended { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    pub fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dinp"));
        command.args(args).env_clear().env("HOME", self.home.path()).envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `dinp login`, up to where it waits for a browser.
    pub async fn browser_login(&self) -> BrowserLogin {
        let mut child = self.command(&["login", "--no-browser", "--server", &self.url], &[]).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let find_address = move || {
            let found = stderr.by_ref().lines().map(Result::unwrap).find(|line| line.trim().starts_with("http"));
            (stderr, found)
        };
        let (stderr, found) = tokio::task::spawn_blocking(find_address).await.unwrap();
        BrowserLogin { child, stderr, address: found.unwrap_or_default().trim().to_owned() }
    }

    /// A file in the home directory.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// A `dinp login` that waits for a browser.
pub struct BrowserLogin {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// What the browser is to open.
    pub address: String,
}

impl BrowserLogin {
    /// Waits until it has ended; `stderr` is what it said since it began to wait.
    pub async fn ended(mut self) -> Ended {
        let wait = move || {
            let mut stderr = String::new();
            self.stderr.read_to_string(&mut stderr).unwrap();
            let output = self.child.wait_with_output().unwrap();
            let stdout = String::from_utf8(output.stdout).unwrap();
            Ended { code: output.status.code().unwrap(), stdout, stderr }
        };
        tokio::task::spawn_blocking(wait).await.unwrap()
    }
}

async fn guard(State(requests): State<Arc<Mutex<Vec<String>>>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let open = path == "/" || path == "/v1/meta" || path == "/login" || path.starts_with("/oauth/");
    if path != "/" {
        requests.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
    }
    let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if open || bearer == Some(format!("Bearer {TOKEN}").as_str()) {
        return next.run(request).await;
    }
    Problem::unauthorized("your session has ended").into_response()
}

/// Compares with `tests/golden/NAME`; `UPDATE_GOLDEN=1` writes it instead.
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, wanted, "{name} differs; UPDATE_GOLDEN=1 writes it anew");
}
