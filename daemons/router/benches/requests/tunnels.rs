//! Thousands of websockets: what one costs in memory, and a message through it in CPU time.

use crate::cpu::warm;
use crate::ground::Ground;
use crate::proxies::{PROXIES, Proxy, Setup};
use crate::report::{Figures, Metric};
use crate::routes::HOST;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const TUNNELS: usize = 5_000;
/// Tunnels through which something goes at the same time.
const AT_ONCE: usize = 32;
/// Messages through each tunnel of a round.
const MESSAGES: usize = 4;
const MESSAGE: [u8; 32] = [b'm'; 32];

const CASE: &str = "websockets";
const HELD: Metric = Metric { name: "memory of each", unit: "KiB", targets: &[] };
const CPU: Metric = Metric { name: "CPU per echoed message", unit: "us", targets: &[] };

pub(crate) async fn measure(ground: &Ground) -> Figures {
    let tunnels = ground.at_most(TUNNELS);
    let mut figures = Figures::new(format!("{tunnels} websockets"), &PROXIES);
    for _ in 0..ground.rounds {
        for &peer in &ground.peers {
            // A new process each time: memory that the last tunnels left would count for the next.
            let Some(proxy) = Proxy::start(ground, Setup::plain(peer)).await else { continue };
            warm(&proxy).await;
            let before = proxy.resident();
            let open = open_all(&proxy, tunnels).await;
            let open = open.unwrap_or_else(|| panic!("{} does not make tunnels", proxy.name));
            let used = proxy.cpu();
            let open = echo_through(open).await.unwrap_or_else(|| panic!("{} loses messages", proxy.name));
            let micros = (proxy.cpu() - used).as_secs_f64() * 1e6;
            figures.add(CASE, HELD, peer, (proxy.resident() - before) / tunnels as f64);
            figures.add(CASE, CPU, peer, micros / (tunnels * MESSAGES) as f64);
            drop(open);
        }
    }
    figures
}

/// Tunnels in as many groups as are used at the same time.
async fn open_all(proxy: &Proxy, tunnels: usize) -> Option<Vec<Vec<TcpStream>>> {
    let address: Arc<str> = proxy.address.as_str().into();
    let mut groups = JoinSet::new();
    for group in 0..AT_ONCE {
        let address = address.clone();
        groups.spawn(async move {
            let mut open = Vec::new();
            for _ in (group..tunnels).step_by(AT_ONCE) {
                open.push(open_one(&address).await?);
            }
            Some(open)
        });
    }
    groups.join_all().await.into_iter().collect()
}

async fn open_one(address: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let request = format!(
        "GET /tunnel/0 HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::with_capacity(1_024);
    while !head.ends_with(b"\r\n\r\n") {
        (stream.read_buf(&mut head).await.ok()? > 0).then_some(())?;
    }
    head.starts_with(b"HTTP/1.1 101").then_some(stream)
}

/// Sends each message when the last of its group is back.
async fn echo_through(groups: Vec<Vec<TcpStream>>) -> Option<Vec<Vec<TcpStream>>> {
    let mut under_way = JoinSet::new();
    for mut group in groups {
        under_way.spawn(async move {
            let mut room = MESSAGE;
            for _ in 0..MESSAGES {
                for stream in &mut group {
                    stream.write_all(&MESSAGE).await.ok()?;
                    stream.read_exact(&mut room).await.ok()?;
                }
            }
            Some(group)
        });
    }
    under_way.join_all().await.into_iter().collect()
}
