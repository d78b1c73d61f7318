//! A client's connection, from accept to close: one request after the other.
//!
//! While nothing is asked it holds a socket, a place and a timer, and nothing else.

mod attempt;
mod buffer;
mod exchange;
mod relay;
mod tunnel;
mod wire;

pub(crate) use buffer::Buffers;

use crate::access::{Entry, Served};
use crate::clients::Seat;
use crate::codec::{Fault, Introduction, Request, Scan};
use crate::proxy::{Proxy, Reader, Refusal};
use crate::timer::Timer;
use crate::totals::Open;
use buffer::Buffer;
use exchange::Scratch;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tunnel::Tunnel;
use wire::write_all;

/// Time that a client whose request was not read to its end gets to read our answer: many read nothing before they have
/// sent everything.
const LINGER: Duration = Duration::from_secs(15);
/// Silence after which such a client has read what it will.
const LINGER_SILENCE: Duration = Duration::from_secs(5);
/// A connection on which the next request comes within this time keeps what it needs to answer.
const WARM: Duration = Duration::from_secs(1);

/// A client and its connection.
pub(crate) struct Client {
    stream: TcpStream,
    _open: Open,
    /// Who has connected.
    peer: IpAddr,
    /// For whom: the same, unless a proxy has named another.
    client: IpAddr,
    /// The same, as apps are told of it.
    address: String,
    seat: Rc<Seat>,
    proxy: Rc<Proxy>,
    buffers: Rc<Buffers>,
    /// Whether any request has come.
    is_used: bool,
}

/// What comes after a request.
enum Next {
    /// Another one may.
    Request,
    /// The end.
    Close,
    /// The end, after what the client still sends was thrown away: it would not read the answer otherwise.
    Linger,
    /// A tunnel to an instance.
    Tunnel(Tunnel),
}

/// What a wait for a request ended with.
enum Come {
    /// Bytes are there.
    Bytes,
    /// Nothing has come, and nothing is waited for.
    Nothing,
}

impl Client {
    pub(crate) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        seat: Rc<Seat>,
        proxy: Rc<Proxy>,
        buffers: Rc<Buffers>,
    ) -> Self {
        let peer = peer.ip().to_canonical();
        let _open = proxy.totals.connection();
        // Without it answers wait for each other; a socket that does not know it is about to end anyhow.
        stream.set_nodelay(true).ok();
        Self { stream, _open, peer, client: peer, address: peer.to_string(), seat, proxy, buffers, is_used: false }
    }

    /// Serves it to its end.
    pub(crate) async fn serve(mut self) {
        let mut timer = Timer::default();
        let mut said = None;
        if self.proxy.limits.now().is_introduced_by(self.peer) {
            match Box::pin(self.introduction(&mut timer)).await {
                Some(buffer) => said = Some(buffer).filter(|buffer| !buffer.is_empty()),
                None => return,
            }
        }
        loop {
            let limits = self.proxy.limits.now();
            let limit = if self.is_used { limits.keepalive } else { limits.head };
            if said.is_none() && matches!(self.come(&mut timer, limit).await, Come::Nothing) {
                return;
            }
            // In a box: what requests need is large, and most connections are idle.
            let buffer = said.take().unwrap_or_else(|| self.buffers.take());
            match Box::pin(self.requests(buffer)).await {
                Next::Request => {}
                Next::Close => return,
                Next::Linger => return Box::pin(self.linger()).await,
                Next::Tunnel(tunnel) => return Box::pin(self.tunnel(tunnel)).await,
            }
        }
    }

    /// Reads for whom a proxy has connected, and gives what it has said beyond that. None where it does not say: from such
    /// a peer nothing else is taken, as it could claim to be anybody.
    async fn introduction(&mut self, timer: &mut Timer) -> Option<Buffer> {
        let limit = self.proxy.limits.now().head;
        if matches!(self.come(timer, limit).await, Come::Nothing) {
            return None;
        }
        let deadline = Instant::now() + limit;
        let mut buffer = self.buffers.take();
        loop {
            match Introduction::scan(buffer.data()) {
                Introduction::Complete(client, end) => {
                    buffer.consume(end);
                    if let Some(client) = client {
                        self.client = client.ip().to_canonical();
                        self.address = self.client.to_string();
                        match self.seat.of(self.client) {
                            Ok(seat) => self.seat = seat,
                            Err(limit) => {
                                self.proxy.totals.turned_away(self.client, limit);
                                return None;
                            }
                        }
                    }
                    return Some(buffer);
                }
                Introduction::Garbage => {
                    self.proxy.totals.refused("bad_proxy_header");
                    tracing::debug!(peer = %self.peer, "a connection does not begin with the PROXY protocol");
                    return None;
                }
                Introduction::Partial => {}
            }
            if !matches!(self.more(&mut buffer, timer, deadline).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Waits for the first byte of a request.
    async fn come(&self, timer: &mut Timer, limit: Duration) -> Come {
        timer.stop();
        poll_fn(|cx| {
            if self.stream.poll_read_ready(cx).is_ready() {
                return Poll::Ready(Come::Bytes);
            }
            if self.seat.poll_has_to_go(cx).is_ready() || timer.poll(cx, limit).is_ready() {
                return Poll::Ready(Come::Nothing);
            }
            Poll::Pending
        })
        .await
    }

    /// Answers requests as long as one comes soon after the other.
    async fn requests(&mut self, mut buffer: Buffer) -> Next {
        let (mut timer, mut scratch) = (Timer::default(), Scratch::default());
        loop {
            let request = match self.head(&mut buffer, &mut timer).await {
                Ok(Some(request)) => request,
                Ok(None) => return Next::Close,
                Err(fault) => return self.refuse(Refusal::Fault(fault), None, false, &buffer).await,
            };
            self.is_used = true;
            self.seat.busy();
            if request.is_upgrade && buffer.data().len() > request.lines.end {
                let fault = Fault::bad("bytes follow a request for another protocol before it was agreed to");
                return self.refuse(Refusal::Fault(fault), None, false, &buffer).await;
            }
            let next = self.exchange(&mut buffer, &request, &mut scratch).await;
            if !matches!(next, Next::Request) {
                return next;
            }
            self.seat.idle();
            if buffer.is_empty() {
                match self.come(&mut timer, WARM.min(self.proxy.limits.now().keepalive)).await {
                    Come::Bytes => {}
                    // Whether it has to end, or may wait for longer, is seen there.
                    Come::Nothing => return Next::Request,
                }
            }
        }
    }

    /// Reads the head of the next request; none at the end of the connection. Its time counts from its first byte, and no
    /// later byte begins it anew.
    async fn head(&mut self, buffer: &mut Buffer, timer: &mut Timer) -> Result<Option<Request>, Fault> {
        let limits = self.proxy.limits.now();
        let deadline = Instant::now() + limits.head;
        let mut scanned = 0;
        loop {
            if !buffer.is_empty() {
                match Request::scan(buffer.data(), scanned, limits.head_bytes) {
                    Scan::Complete(request) => return Ok(Some(request)),
                    Scan::Fault(fault) => return Err(fault),
                    Scan::Partial(lines) => scanned = lines,
                }
            }
            match self.more(buffer, timer, deadline).await {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut && !buffer.is_empty() => {
                    return Err(Fault::SLOW_HEAD);
                }
                Ok(0) | Err(_) => return Ok(None),
            }
        }
    }

    /// Reads once, until the deadline.
    async fn more(&mut self, buffer: &mut Buffer, timer: &mut Timer, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (mut reader, _) = self.stream.split();
        timer.stop();
        poll_fn(|cx| {
            if let Poll::Ready(read) = buffer.poll_fill(cx, Pin::new(&mut reader)) {
                return Poll::Ready(read);
            }
            // Who is in the middle of a head has not been served yet, and is in the way of those who wait for a place.
            if self.seat.poll_is_shed(cx).is_ready() {
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            timer.poll(cx, left).map(|()| Err(ErrorKind::TimedOut.into()))
        })
        .await
    }

    /// Answers itself. `buffer` holds what the client has sent beyond the request. Without a reader the request was not
    /// understood, and is told of here. `is_read` says that the request was read to its end.
    async fn refuse(&mut self, refusal: Refusal, reader: Option<&Reader<'_>>, is_read: bool, buffer: &Buffer) -> Next {
        self.proxy.totals.refused(refusal.code());
        if reader.is_none() {
            let served = Served { status: refusal.status(), error: Some(refusal.code()), ..Served::default() };
            self.proxy.lines.note(&Entry { client: &self.address, asked: None, served: &served });
        }
        let goes_on = is_read
            && !matches!(refusal, Refusal::Fault(_))
            && reader.is_some_and(|reader| reader.request.keeps_alive)
            && !self.seat.is_closing();
        let page = refusal.page(reader, goes_on);
        let (_, mut writer) = self.stream.split();
        let limit = self.proxy.limits.now().body;
        let written = write_all(&mut writer, &mut [IoSlice::new(&page)], &mut Timer::default(), limit).await;
        match written {
            Ok(()) if goes_on => Next::Request,
            Ok(()) if !is_read || self.says_more(buffer) => Next::Linger,
            _ => Next::Close,
        }
    }

    /// Closes so that the client can read the last answer, even if it is still sending.
    async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        self.seat.idle();
        let mut sink = vec![0; 16_384];
        let discard = async {
            while matches!(tokio::time::timeout(LINGER_SILENCE, self.stream.read(&mut sink)).await, Ok(Ok(1..))) {}
        };
        let has_to_go = poll_fn(|cx| self.seat.poll_has_to_go(cx));
        // A client that goes on sending for longer has had its chance.
        tokio::select! {
            () = discard => {}
            () = has_to_go => {}
            () = tokio::time::sleep(LINGER) => {}
        }
    }

    /// Whether the client has sent more already than was asked for: it would not read our answer if its connection were
    /// closed with that unread.
    fn says_more(&self, buffer: &Buffer) -> bool {
        !buffer.is_empty() || matches!(self.stream.try_read(&mut [0]), Ok(1))
    }

    async fn tunnel(self, tunnel: Tunnel) {
        let carried = tunnel.run(self.stream, &self.buffers, self.proxy.limits.now().tunnel);
        let ended = tokio::select! {
            ended = carried => ended,
            () = self.seat.cut_off() => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        if let Err(error) = ended {
            tracing::debug!(client = self.address, %error, "a tunnel ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Clients;
    use crate::config::{InForce, RouterConfig};
    use dinp_common::quota::Quota;
    use std::sync::Arc;

    /// Most connections are idle: what one of them holds is this, and what tokio adds.
    #[tokio::test]
    async fn an_idle_connection_is_small() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let limits = InForce::new(RouterConfig::default().limits());
        let clients = Clients::new(Quota::new(9, 9), limits.clone(), Arc::default());
        let peer = stream.local_addr().unwrap();
        let seat = clients.seat(peer.ip()).unwrap();
        let proxy = Proxy::new(limits, Arc::default(), None);
        let client = Client::new(stream, peer, seat, proxy, Rc::default());
        let size = size_of_val(&client.serve());
        assert!(size <= 1024, "{size} bytes");
    }
}
