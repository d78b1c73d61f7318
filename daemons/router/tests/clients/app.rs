//! The app behind the router: for each path one thing that HTTP knows, and that a client may understand otherwise.

use crate::websocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;

const PAGE: &str = include_str!("programs/page.html");
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";
const TRAILERS: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
    4\r\nwith\r\n9\r\n trailers\r\n0\r\nX-Sum: 13\r\n\r\n";

const EVENT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
    b\r\ndata: one\n\n\r\n";

/// What a page in a browser has found.
pub type Verdicts = UnboundedSender<String>;

/// Serves one connection to its end.
pub async fn serve(stream: TcpStream, verdicts: Verdicts) {
    let mut connection = Connection { stream, bytes: Vec::new() };
    while connection.answer(&verdicts).await.is_some() {}
}

struct Connection {
    stream: TcpStream,
    /// What was read and not yet used.
    bytes: Vec<u8>,
}

struct Head {
    path: String,
    lines: Vec<(String, String)>,
}

impl Head {
    fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Connection {
    /// Answers one request. None where it was the last one.
    async fn answer(&mut self, verdicts: &Verdicts) -> Option<()> {
        let head = self.head().await?;
        match head.path.as_str() {
            "/page.html" => self.send(&with_body("text/html", PAGE.as_bytes())).await,
            "/keep" => self.send(&with_body("text/plain", b"kept")).await,
            "/trailers" => self.send(TRAILERS).await,
            "/head" => self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Head: yes\r\n\r\n").await,
            "/empty" => self.send(b"HTTP/1.1 204 No Content\r\nX-Empty: yes\r\n\r\n").await,
            "/same" if head.get("if-none-match") == Some("\"1\"") => {
                self.send(b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n").await
            }
            "/same" => self.send(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 4\r\n\r\nsame").await,
            "/hints" => {
                self.send(HINTS).await?;
                self.send(&with_body("text/plain", b"hinted")).await
            }
            // Answers and reads no more, as a server does that was told to stop at a size.
            "/large" => {
                self.send(TOO_LARGE).await?;
                while self.fill().await.is_some() {
                    self.bytes.clear();
                }
                None
            }
            // Hangs up with the body unread: the kernel resets the connection.
            "/large/gone" => {
                self.send(TOO_LARGE).await?;
                None
            }
            "/echo" | "/silent" => {
                if head.get("expect").is_some() && head.path == "/echo" {
                    self.send(CONTINUE).await?;
                }
                let body = self.body(&head).await?;
                self.send(&with_body("application/octet-stream", &body)).await
            }
            "/duplex" => self.duplex().await,
            // Says something at once, and then no more until it is not listened to.
            "/events" => {
                self.send(EVENT).await?;
                while self.fill().await.is_some() {}
                None
            }
            "/verdict" => {
                let body = self.body(&head).await?;
                verdicts.send(String::from_utf8(body).unwrap()).ok();
                self.send(&with_body("text/plain", b"noted")).await
            }
            "/websocket" => {
                let key = head.get("sec-websocket-key")?;
                self.send(&websocket::agreement(key)).await?;
                websocket::echo(&mut self.stream, &mut self.bytes).await;
                None
            }
            _ => self.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await,
        }
    }

    async fn head(&mut self) -> Option<Head> {
        let end = loop {
            match self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.fill().await?,
            }
        };
        let text = String::from_utf8(self.take(end)).unwrap();
        let mut lines = text.trim_end().lines();
        let target = lines.next().unwrap().split(' ').nth(1).unwrap();
        let path = target.split('?').next().unwrap().to_owned();
        let lines = lines.map(|line| line.split_once(": ").unwrap());
        Some(Head { path, lines: lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect() })
    }

    async fn body(&mut self, head: &Head) -> Option<Vec<u8>> {
        if head.get("transfer-encoding").is_none() {
            let length = head.get("content-length").map_or(0, |length| length.parse().unwrap());
            return self.exactly(length).await;
        }
        let mut body = Vec::new();
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(&size, 16).unwrap();
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Some(body);
            }
            body.extend(self.exactly(size).await?);
            assert_eq!(self.line().await?, "", "a chunk ends with its line");
        }
    }

    /// Answers while a body comes, with the chunks of it as they come, and waits for nobody to read.
    async fn duplex(&mut self) -> Option<()> {
        self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(&line, 16).unwrap();
            let chunk = self.exactly(size + 2).await?;
            self.send(&[line.as_bytes(), b"\r\n", &chunk].concat()).await?;
            if size == 0 {
                return Some(());
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(end + 2);
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            self.fill().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.bytes.len() < length {
            self.fill().await?;
        }
        Some(self.take(length))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(length);
        std::mem::replace(&mut self.bytes, rest)
    }

    /// Reads more; none at the end.
    async fn fill(&mut self) -> Option<()> {
        matches!(self.stream.read_buf(&mut self.bytes).await, Ok(1..)).then_some(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()
    }
}

fn with_body(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
