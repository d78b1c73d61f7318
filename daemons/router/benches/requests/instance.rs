//! The instance behind each proxy: answers with as many bytes as the path says, and echoes what comes through tunnels.

use crate::cases::{CASES, Case, LARGEST_KEPT};
use crate::load::send_piecewise;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Its answer to a client that wants a tunnel; the key is that of RFC 6455, section 1.3.
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Listens on all addresses of 127/8, so that each endpoint of a large table can have its own; the port.
pub(crate) async fn answer_all() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = CASES.into_iter().map(|Case { received, .. }| (received, answer(received))).collect();
    let answers: Arc<BTreeMap<usize, Vec<u8>>> = Arc::new(kept);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("the instance has a descriptor for each connection");
            let answers = answers.clone();
            tokio::spawn(async move { answer_each(stream, &answers).await });
        }
    });
    port
}

fn head(size: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n").into_bytes()
}

fn answer(size: usize) -> Vec<u8> {
    let mut answer = head(size);
    answer.resize(answer.len() + size, b'x');
    answer
}

async fn answer_each(mut stream: TcpStream, answers: &BTreeMap<usize, Vec<u8>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    // What has thousands of connections, tunnels, reads little at once.
    let mut bytes: Vec<u8> = Vec::with_capacity(4_096);
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
        };
        let asked = Asked::of(&bytes[..end])?;
        if asked.is_upgrade {
            stream.write_all(SWITCHED.as_bytes()).await.ok()?;
            return echo(stream).await;
        }
        drop(bytes.drain(..end));
        read_past(&mut stream, &mut bytes, asked.length).await?;
        if asked.size > LARGEST_KEPT {
            stream.write_all(&head(asked.size)).await.ok()?;
            send_piecewise(&mut stream, asked.size).await?;
        } else {
            stream.write_all(answers.get(&asked.size)?).await.ok()?;
        }
    }
}

/// What the instance looks at in a request.
struct Asked {
    /// Of the answer's body.
    size: usize,
    /// Of the request's.
    length: usize,
    is_upgrade: bool,
}

impl Asked {
    fn of(head: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let path = head.split(' ').nth(1)?;
        let value = |wanted: &str| {
            head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(wanted).then(|| value.trim())
            })
        };
        Some(Self {
            size: path.rsplit('/').next()?.parse().ok()?,
            length: value("content-length").map_or(Some(0), |length| length.parse().ok())?,
            is_upgrade: value("upgrade").is_some(),
        })
    }
}

/// Reads as many bytes as the body has, and keeps none; `bytes` holds what has been read of it.
async fn read_past(stream: &mut TcpStream, bytes: &mut Vec<u8>, length: usize) -> Option<()> {
    if length > bytes.len() {
        // Once for each connection that sends bodies.
        bytes.reserve(131_072);
    }
    let mut left = length;
    loop {
        let now = left.min(bytes.len());
        drop(bytes.drain(..now));
        left -= now;
        if left == 0 {
            return Some(());
        }
        (stream.read_buf(bytes).await.ok()? > 0).then_some(())?;
    }
}

async fn echo(mut stream: TcpStream) -> Option<()> {
    let mut room = [0; 256];
    loop {
        let count = stream.read(&mut room).await.ok().filter(|count| *count > 0)?;
        stream.write_all(&room[..count]).await.ok()?;
    }
}
