//! The clients: connections that ask as a case says.

use crate::cases::Case;
use crate::routes::HOST;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Bytes that are read or sent at once.
const PIECE: usize = 262_144;

/// One connection, and what it asks for in turn.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    case: Case,
    requests: Arc<[Vec<u8>]>,
    next: usize,
    room: Vec<u8>,
}

impl Client {
    /// A connection that begins with the request of this number.
    pub(crate) async fn connect(address: &str, case: Case, requests: Arc<[Vec<u8>]>, first: usize) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let room = vec![0; (case.received + 4_096).min(PIECE)];
        Some(Self { stream, case, next: first % requests.len(), requests, room })
    }

    /// None when the request was not answered as it is to be.
    pub(crate) async fn ask(&mut self) -> Option<()> {
        let request = &self.requests[self.next];
        self.next = (self.next + 1) % self.requests.len();
        self.stream.write_all(request).await.ok()?;
        if self.case.is_streamed() {
            send_piecewise(&mut self.stream, self.case.sent).await?;
        }
        self.read_answer().await
    }

    async fn read_answer(&mut self) -> Option<()> {
        let (mut have, mut end) = (0, None);
        while end.is_none_or(|end| have < end) {
            // Beyond the head nothing is looked at.
            let at = if end.is_some() { 0 } else { have };
            let count = self.stream.read(&mut self.room[at..]).await.ok().filter(|count| *count > 0)?;
            have += count;
            if end.is_none() {
                let head = self.room[..have].windows(4).position(|four| four == b"\r\n\r\n");
                end = head.map(|at| at + 4 + self.case.received);
                head.filter(|_| !self.room.starts_with(b"HTTP/1.1 200")).map_or(Some(()), |_| None)?;
            }
        }
        Some(())
    }
}

/// Sends a body that is never in memory as a whole.
pub(crate) async fn send_piecewise(stream: &mut TcpStream, bytes: usize) -> Option<()> {
    let piece = vec![b'x'; PIECE.min(bytes)];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece[..now]).await.ok()?;
        left -= now;
    }
    Some(())
}

/// The requests for the host that all tables have.
pub(crate) fn usual(case: Case) -> Arc<[Vec<u8>]> {
    Arc::new([case.request(HOST)])
}

/// Asks as a case says, each connection as soon as its last request is answered; none when one was not.
pub(crate) async fn drive(address: &str, case: Case) -> Option<()> {
    drive_with(address, case, usual(case)).await
}

/// The same with these requests in turn.
pub(crate) async fn drive_with(address: &str, case: Case, requests: Arc<[Vec<u8>]>) -> Option<()> {
    let mut clients = JoinSet::new();
    for number in 0..case.connections {
        let (address, requests) = (address.to_owned(), requests.clone());
        clients.spawn(async move {
            // Each begins elsewhere, so that they do not ask the same at the same time.
            let first = number * requests.len() / case.connections;
            let mut client = Client::connect(&address, case, requests, first).await?;
            for _ in 0..case.of_each() {
                client.ask().await?;
            }
            Some(())
        });
    }
    let mut answered = Some(());
    while let Some(client) = clients.join_next().await {
        answered = answered.and(client.ok().flatten());
    }
    answered
}
