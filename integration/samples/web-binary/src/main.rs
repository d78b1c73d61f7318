//! A web application to test with: one static executable that serves static files and misbehaves on demand.
//!
//! | request | what happens |
//! |---|---|
//! | `GET /` | application, version, instance |
//! | `GET /version` | the version alone |
//! | `GET /static/...` | embedded files |
//! | `GET /slow?ms=N` | answers after N ms |
//! | `GET /health` | 200, or what was set last |
//! | `POST /health?status=N` | sets what `/health` answers in this instance |
//! | `GET /crash` | the process ends with code 70 |
//! | `GET /hang` | never answers; with `?all=1` no further request is answered either |
//! | `GET /env?name=N` | a variable of the environment |
//! | `GET /headers` | the request's headers |
//! | `POST /echo` | the request's body |
//! | `GET /tunnel` with `Upgrade: lines` | each line comes back with the version before it, until the process stops |
//! | `GET /tcp?addr=HOST:PORT` | tries to connect: connected, refused, timeout or error |
//!
//! SIGTERM: nothing new is accepted, requests under way are finished, exit code 0.

mod http;
mod pages;
mod stop;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long requests under way may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(25);

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("web: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
    stop::on_terminate(&listener);
    println!("web: version {} listens on port {port}", pages::version());
    for stream in listener.incoming() {
        if stop::STOPPING.load(Ordering::SeqCst) {
            break;
        }
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        if let Err(error) = stream.and_then(|stream| thread.spawn(move || http::connection(&stream))) {
            eprintln!("web: connection refused: {error}");
        }
    }
    let left = http::ACTIVE.drain(DRAIN);
    println!("web: stopped, {left} requests cut off");
    Ok(())
}
