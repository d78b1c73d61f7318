//! Clients that people have, before a router and an app: each asks for all that HTTP knows, and says what it has got.
//!
//! A client's program prints a line `ok NAME` or `bad NAME: why` for each case. What is asserted is what the client is
//! told by its own library; where that is known to fall short of HTTP, its program says so and expects just that. They
//! need programs that building does not: `scripts/test full --only router` runs them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod app;
mod browser;
#[path = "../common/mod.rs"]
mod common;
mod curl;
mod go;
mod java;
mod node;
mod python;
mod websocket;

use common::{Backend, Leader, Options, Router, routes};
use dinp_common::testing::{Redis, TestDir};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Time for a program, which may have to be compiled on a machine that has much else to do.
const WHOLE: Duration = Duration::from_secs(150);
/// Where the clients' requests go: by address, which none of them has to look up.
const DOMAIN: &str = "127.0.0.1";
/// Requests over one connection.
const KEPT: usize = 20;
/// Cases that every program has.
const EVERY: [&str; 12] = [
    "length",
    "chunked",
    "trailers",
    "head",
    "no-content",
    "not-modified",
    "early-answer",
    "early-answer-gone",
    "endless",
    "hints",
    "unknown-host",
    "websocket",
];

struct Scene {
    router: Router,
    verdicts: UnboundedReceiver<String>,
    dir: TestDir,
    _app: Backend,
    _redis: Redis,
}

impl Scene {
    async fn new() -> Self {
        let (redis, dir) = (Redis::start().await, TestDir::new("clients"));
        let mut leader = Leader::new(&redis).await;
        let router = Router::start(Options::new(&redis, &dir)).await;
        let (sender, verdicts) = unbounded_channel();
        let app = Backend::start(move |_, stream| app::serve(stream, sender.clone())).await;
        let mut routes = routes("web", &[app.endpoint()]);
        routes.domains = vec![DOMAIN.to_owned()];
        let version = leader.publish_routes(routes).await;
        router.applied(version).await;
        Self { router, verdicts, dir, _app: app, _redis: redis }
    }

    /// The app.
    fn url(&self) -> String {
        format!("http://{DOMAIN}:{}", self.router.http.port())
    }

    /// The same router by a name that no app answers to.
    fn unknown(&self) -> String {
        format!("http://localhost:{}", self.router.http.port())
    }

    /// Runs the cases that every program has, and those that this one has besides.
    async fn cases(&self, program: &Program<'_>, own: &[&str]) {
        self.run(program, &self.url(), &[&EVERY, own].concat()).await;
    }

    /// Runs one case of a client's program, and says how many connections it makes to the router.
    async fn connections(&self, program: &Program<'_>, case: &str) -> usize {
        let counted = self.counted().await;
        self.run(program, &format!("http://{}", counted.address), &[case]).await;
        counted.connections()
    }

    /// A way to the router on which connections are counted.
    async fn counted(&self) -> Backend {
        let router = self.router.http;
        Backend::start(move |_, mut client| async move {
            let mut router = TcpStream::connect(router).await.unwrap();
            tokio::io::copy_bidirectional(&mut client, &mut router).await.ok();
        })
        .await
    }

    async fn run(&self, program: &Program<'_>, url: &str, cases: &[&str]) {
        let mut command = program.command();
        let Said { out, errors, status } = finished(program, command.args([url, &self.unknown()]).args(cases)).await;
        let expected: String = cases.iter().map(|case| format!("ok {case}\n")).collect();
        let is_good = out == expected && status.is_some_and(|status| status.success());
        let end = status.map_or_else(|| format!("no end after {WHOLE:?}"), |status| status.to_string());
        assert!(is_good, "{}: {end}\n{out}{errors}", program.name);
    }
}

/// A program of a client, and the package of Debian that it comes with.
struct Program<'a> {
    name: &'a str,
    package: &'a str,
    arguments: Vec<String>,
    environment: Vec<(&'a str, PathBuf)>,
}

impl Program<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        command.args(&self.arguments).envs(self.environment.iter().cloned()).stdin(Stdio::null()).kill_on_drop(true);
        // A proxy of the surroundings is not what is to be asked.
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS"] {
            command.env_remove(name);
        }
        command
    }
}

/// What a program has said, and how it has ended.
struct Said {
    out: String,
    errors: String,
    status: Option<ExitStatus>,
}

/// Runs a program to its end, or as long as there is patience.
async fn finished(program: &Program<'_>, command: &mut Command) -> Said {
    let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("there is no {}: install the package {}", program.name, program.package)
        }
        Err(error) => panic!("{} does not start: {error}", program.name),
    };
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let (mut from_out, mut from_errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let ended = async {
        let read = tokio::try_join!(from_out.read_to_end(&mut out), from_errors.read_to_end(&mut errors));
        read.and(child.wait().await)
    };
    let status = tokio::time::timeout(WHOLE, ended).await.ok().map(|ended| ended.expect("it is readable"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { out: text(out), errors: text(errors), status }
}

/// The path of a client's program.
fn source(name: &str) -> String {
    format!("{}/tests/clients/programs/{name}", env!("CARGO_MANIFEST_DIR"))
}
