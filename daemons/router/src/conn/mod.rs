//! A client's connection, from accept to close: one request after the other.
//!
//! While nothing is asked it holds a socket, a place and a timer, and nothing else.

mod attempt;
mod buffer;
mod exchange;
mod io;
mod relay;
mod tunnel;

pub(crate) use buffer::Buffers;

use crate::clients::Seat;
use crate::codec::{Fault, Request, Scan};
use crate::proxy::{Proxy, Refusal};
use crate::timer::Timer;
use crate::totals::Open;
use buffer::Buffer;
use exchange::Scratch;
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tunnel::Tunnel;

/// Time that a client whose request was not read to its end gets to read our answer.
const LINGER: Duration = Duration::from_secs(5);
/// A connection on which the next request comes within this time keeps what it needs to answer.
const WARM: Duration = Duration::from_secs(1);

/// A client and its connection.
pub(crate) struct Client {
    stream: TcpStream,
    _open: Open,
    /// Its address as apps are told of it.
    address: String,
    is_trusted: bool,
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
        let address = peer.ip().to_canonical();
        let is_trusted = proxy.limits.trusts(address);
        let _open = proxy.totals.connection();
        // Without it answers wait for each other; a socket that does not know it is about to end anyhow.
        stream.set_nodelay(true).ok();
        Self { stream, _open, address: address.to_string(), is_trusted, seat, proxy, buffers, is_used: false }
    }

    /// Serves it to its end.
    pub(crate) async fn serve(mut self) {
        let mut timer = Timer::default();
        loop {
            let limit = if self.is_used { self.proxy.limits.keepalive } else { self.proxy.limits.head };
            match self.come(&mut timer, limit).await {
                Come::Nothing => return,
                Come::Bytes => {}
            }
            // In a box: what requests need is large, and most connections are idle.
            match Box::pin(self.requests()).await {
                Next::Request => {}
                Next::Close => return,
                Next::Linger => return self.linger().await,
                Next::Tunnel(tunnel) => return self.tunnel(tunnel).await,
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
            if self.seat.poll_has_to_go(cx, self.is_used).is_ready() || timer.poll(cx, limit).is_ready() {
                return Poll::Ready(Come::Nothing);
            }
            Poll::Pending
        })
        .await
    }

    /// Answers requests as long as one comes soon after the other.
    async fn requests(&mut self) -> Next {
        let mut buffer = self.buffers.take();
        let (mut timer, mut scratch) = (Timer::default(), Scratch::default());
        loop {
            let (request, end) = match self.head(&mut buffer, &mut timer).await {
                Ok(Some(head)) => head,
                Ok(None) => return Next::Close,
                Err(fault) => return self.refuse(Refusal::Fault(fault), None, false).await,
            };
            self.is_used = true;
            self.seat.busy();
            if request.is_upgrade && buffer.data().len() > end {
                let fault = Fault::bad("bytes follow a request for another protocol before it was agreed to");
                return self.refuse(Refusal::Fault(fault), None, false).await;
            }
            let next = self.exchange(&mut buffer, &request, end, &mut scratch).await;
            if !matches!(next, Next::Request) {
                return next;
            }
            self.seat.idle();
            if buffer.is_empty() {
                match self.come(&mut timer, WARM.min(self.proxy.limits.keepalive)).await {
                    Come::Bytes => {}
                    // Whether it has to end, or may wait for longer, is seen there.
                    Come::Nothing => return Next::Request,
                }
            }
        }
    }

    /// Reads the head of the next request; none at the end of the connection. Its time counts from its first byte, and no
    /// later byte begins it anew.
    async fn head(&mut self, buffer: &mut Buffer, timer: &mut Timer) -> Result<Option<(Request, usize)>, Fault> {
        let limits = self.proxy.limits.clone();
        let deadline = Instant::now() + limits.head;
        let mut scanned = 0;
        loop {
            if !buffer.is_empty() {
                match Request::scan(buffer.data(), scanned, limits.head_bytes) {
                    Scan::Complete(request, end) => return Ok(Some((request, end))),
                    Scan::Fault(fault) => return Err(fault),
                    Scan::Partial(lines) => scanned = lines,
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let (mut reader, _) = self.stream.split();
            timer.stop();
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = buffer.poll_fill(cx, Pin::new(&mut reader)) {
                    return Poll::Ready(read);
                }
                // Who is in the middle of a head has not been served yet, and is in the way of those who wait for a place.
                if self.seat.poll_is_shed(cx).is_ready() {
                    return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
                }
                timer.poll(cx, left).map(|()| Err(ErrorKind::TimedOut.into()))
            });
            match read.await {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut && !buffer.is_empty() => {
                    return Err(Fault::SLOW_HEAD);
                }
                Ok(0) | Err(_) => return Ok(None),
            }
        }
    }

    /// Answers itself. `to` is the request and its id, where it is understood so far; `is_read` says that it was read to
    /// its end.
    async fn refuse(&mut self, refusal: Refusal, to: Option<(&Request, &str)>, is_read: bool) -> Next {
        self.proxy.totals.refused(refusal.code());
        let goes_on = is_read
            && !matches!(refusal, Refusal::Fault(_))
            && to.is_some_and(|(request, _)| request.keeps_alive)
            && !self.seat.is_closing();
        let page = refusal.page(to, goes_on);
        let (_, mut writer) = self.stream.split();
        let limit = self.proxy.limits.body;
        let written = io::write_all(&mut writer, &mut [IoSlice::new(&page)], &mut Timer::default(), limit).await;
        match (written.is_ok(), goes_on, is_read) {
            (true, true, _) => Next::Request,
            (true, false, false) => Next::Linger,
            (false, ..) | (true, false, true) => Next::Close,
        }
    }

    /// Closes so that the client can read the last answer, even if it is still sending.
    async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut sink = vec![0; 16_384];
        let discard = async { while matches!(self.stream.read(&mut sink).await, Ok(1..)) {} };
        // A client that goes on sending for longer has had its chance.
        tokio::time::timeout(LINGER, discard).await.ok();
    }

    async fn tunnel(self, tunnel: Tunnel) {
        if let Err(error) = tunnel.run(self.stream, &self.buffers, self.proxy.limits.tunnel).await {
            tracing::debug!(client = self.address, %error, "a tunnel ended");
        }
    }
}
