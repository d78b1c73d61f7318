//! What the application answers.

use crate::http::{Request, Response};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

const PLAIN: &str = "text/plain; charset=utf-8";
/// Name, type and content of what is embedded.
const STATIC: [(&str, &str, &[u8]); 2] = [
    ("/static/style.css", "text/css", include_bytes!("../static/style.css")),
    ("/static/hello.html", "text/html; charset=utf-8", include_bytes!("../static/hello.html")),
];

static HEALTH: AtomicU16 = AtomicU16::new(200);
static HANGING: AtomicBool = AtomicBool::new(false);

/// The version that was packed: the file VERSION in the current directory.
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        std::fs::read_to_string("VERSION").map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
    })
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn plain(status: u16, text: impl Into<String>) -> Response {
    Response { status, kind: PLAIN, body: (text.into() + "\n").into_bytes() }
}

/// Answers a request; see the program's documentation.
#[allow(clippy::disallowed_methods, reason = "to be slow is what /slow is for")]
pub fn answer(request: &Request) -> Response {
    if HANGING.load(Ordering::SeqCst) {
        hang();
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/") => {
            let app = std::env::var("APP_NAME").unwrap_or_else(|_| "web".into());
            plain(200, format!("Hello from {app} {} on {}", version(), host()))
        }
        (_, "/version") => plain(200, version()),
        ("POST", "/health") => match request.param("status").and_then(|status| status.parse().ok()) {
            Some(status @ 200..=599) => {
                HEALTH.store(status, Ordering::SeqCst);
                plain(200, format!("health is {status} from now on"))
            }
            _ => plain(400, "status must be from 200 to 599"),
        },
        (_, "/health") => match HEALTH.load(Ordering::SeqCst) {
            200 => plain(200, "ok"),
            status => plain(status, "unwell"),
        },
        (_, "/slow") => {
            let wait = request.param("ms").and_then(|ms| ms.parse().ok()).unwrap_or(1000);
            std::thread::sleep(Duration::from_millis(wait));
            plain(200, format!("slept {wait} ms"))
        }
        (_, "/crash") => {
            println!("web: asked to crash");
            drop(io::stdout().flush());
            std::process::exit(70)
        }
        (_, "/hang") => {
            HANGING.fetch_or(request.param("all").is_some(), Ordering::SeqCst);
            hang()
        }
        (_, "/env") => {
            let name = request.param("name").unwrap_or_default();
            match std::env::var(name) {
                Ok(value) => plain(200, value),
                Err(_) => plain(404, format!("{name} is not set")),
            }
        }
        (_, "/headers") => {
            let lines: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            plain(200, lines.join("\n"))
        }
        ("POST" | "PUT", "/echo") => {
            Response { status: 200, kind: "application/octet-stream", body: request.body.clone() }
        }
        (_, "/tcp") => tcp(request.param("addr").unwrap_or_default()),
        ("GET" | "HEAD", path) => match STATIC.iter().find(|(name, ..)| *name == path) {
            Some((_, kind, body)) => Response { status: 200, kind, body: body.to_vec() },
            None => plain(404, "there is no such page"),
        },
        _ => plain(405, "this page cannot be asked like that"),
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// Whether a connection to an address can be made from inside the container.
fn tcp(address: &str) -> Response {
    let addresses: Vec<SocketAddr> = match address.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return plain(200, format!("error: {error}")),
    };
    let mut outcome = "error: no address".to_owned();
    for address in addresses {
        outcome = match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(_) => return plain(200, "connected"),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => "refused".into(),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout".into(),
                _ => format!("error: {error}"),
            },
        };
    }
    plain(200, outcome)
}
