//! What stands between a client's socket and hyper: only requests whose framing is beyond doubt get through.
//!
//! hyper accepts more than a proxy should (both Content-Length and Transfer-Encoding, lines that end in a bare LF,
//! a doubled Host) and drops the traces of it. The gate looks at the raw bytes first. A head that is refused is
//! replaced by a request of our own, which the service answers with the refusal: so the answer comes in order, after
//! those to earlier requests, and the connection ends with it. It also holds what follows a request for an upgrade
//! back until the app has agreed, and it owns the time limits on reading and writing.

mod chunks;
mod framer;
mod head;
#[cfg(test)]
mod tests;

pub(crate) use head::{Fault, has_token};

use crate::clients::Seat;
use crate::config::Limits;
use crate::timer::Timer;
use bytes::{Buf, BytesMut};
use framer::Framer;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// What hyper is given instead of a head that is refused.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// Bytes that are held back while an upgrade is undecided.
const MOST_HELD: usize = 65_536;
/// Time that a client whose request was not read to its end gets to read our answer.
const LINGER: Duration = Duration::from_secs(5);

/// hyper's side: reads and writes.
pub(crate) struct Gate(Rc<RefCell<Inner>>);

/// The service's side: what the gate knows and hyper does not.
#[derive(Clone)]
pub(crate) struct Control(Rc<RefCell<Inner>>);

struct Inner {
    stream: TcpStream,
    limits: Rc<Limits>,
    framer: Framer,
    /// Bytes read and not passed on yet.
    held: BytesMut,
    /// So many of them may be passed on.
    released: usize,
    /// The last head passed on stands for a refused one.
    refused: Option<Fault>,
    /// The body under way is broken.
    body_fault: Option<Fault>,
    /// Whether a request is being answered, until the last byte of the answer is with the kernel.
    busy: bool,
    /// Whether the last byte of the answer is with hyper.
    answered: bool,
    /// Whether any request has come.
    used: bool,
    seat: Rc<Seat>,
    /// Who reads, and is not to wait for more bytes alone: a time limit begins when the answer has ended.
    reader: Option<Waker>,
    read_timer: Timer,
    write_timer: Timer,
}

impl Gate {
    pub(crate) fn new(stream: TcpStream, limits: Rc<Limits>, seat: Rc<Seat>) -> (Self, Control) {
        let inner = Rc::new(RefCell::new(Inner {
            stream,
            framer: Framer::new(limits.head_bytes),
            limits,
            held: BytesMut::new(),
            released: 0,
            refused: None,
            body_fault: None,
            busy: false,
            answered: false,
            used: false,
            seat,
            reader: None,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }));
        (Self(inner.clone()), Control(inner))
    }
}

impl Control {
    /// Notes that request number `number` of this connection has reached the service, until the guard is dropped.
    /// A fault means that it must be refused.
    pub(crate) fn begin(&self, number: u64) -> (Busy, Option<Fault>) {
        let mut inner = self.0.borrow_mut();
        inner.busy = true;
        inner.answered = false;
        inner.used = true;
        inner.seat.busy();
        let fault = inner.refused.filter(|_| number == inner.framer.heads());
        (Busy(self.clone()), fault)
    }

    /// What is wrong with the body of the request under way.
    pub(crate) fn body_fault(&self) -> Option<Fault> {
        self.0.borrow().body_fault
    }

    /// Request number `number` asks for an upgrade, and it has not been decided. The gate may already hold the head of
    /// a later one.
    pub(crate) fn wants_upgrade(&self, number: u64) -> bool {
        let inner = self.0.borrow();
        inner.framer.is_held() && inner.framer.heads() == number
    }

    /// There is no upgrade; what follows is the next request.
    pub(crate) fn no_upgrade(&self) {
        let mut inner = self.0.borrow_mut();
        inner.framer.release();
        if let Some(reader) = &inner.reader {
            reader.wake_by_ref();
        }
    }

    /// Whether a request is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.borrow().busy
    }

    /// The socket, and what the client has sent after its request. Only after hyper has let go.
    pub(crate) fn into_tunnel(self) -> Option<(TcpStream, BytesMut)> {
        let inner = Rc::into_inner(self.0)?.into_inner();
        Some((inner.stream, inner.held))
    }

    /// Closes so that the client can read the last answer, even if it is still sending.
    pub(crate) async fn close(self) {
        let Some(inner) = Rc::into_inner(self.0) else { return };
        let Inner { mut stream, framer, held, refused, .. } = inner.into_inner();
        let clean = refused.is_none() && framer.is_between() && held.is_empty();
        if clean || stream.shutdown().await.is_err() {
            return;
        }
        let mut sink = vec![0; 16_384];
        let discard = async { while matches!(stream.read(&mut sink).await, Ok(1..)) {} };
        // A client that goes on sending for longer has had its chance.
        tokio::time::timeout(LINGER, discard).await.ok();
    }
}

/// A request is being answered; the time for the next one counts from when all is written that came before this is
/// dropped.
pub(crate) struct Busy(Control);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.borrow_mut().answered = true;
    }
}

impl Inner {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.released > 0 {
                let count = self.released.min(buf.remaining());
                buf.put_slice(&self.held[..count]);
                self.held.advance(count);
                self.released -= count;
                return Poll::Ready(Ok(()));
            }
            if self.refused.is_some() {
                return Poll::Pending;
            }
            if self.body_fault.is_some() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if !self.held.is_empty() {
                match self.framer.take(&self.held) {
                    Ok(0) => {}
                    Ok(count) => {
                        self.read_timer.stop();
                        self.released = count;
                        continue;
                    }
                    Err(fault) => {
                        self.fault(fault);
                        continue;
                    }
                }
            }
            if ready!(self.poll_fill(cx, buf))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads from the socket. True when `buf` has got something, or the end was reached.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if !self.held.is_empty() || self.framer.is_held() {
            if self.framer.is_held() && self.held.len() >= MOST_HELD {
                return Poll::Pending;
            }
            let Poll::Ready(read) = tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.held)
            else {
                return self.poll_late(cx);
            };
            // The time for a head counts from its first byte, and no later byte begins it anew.
            if !self.framer.is_between() {
                self.read_timer.stop();
            }
            return Poll::Ready(read.map(|count| count == 0));
        }
        // Straight into hyper's buffer; only what may not pass yet is taken back.
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) else { return self.poll_late(cx) };
        read?;
        self.read_timer.stop();
        let fresh = &buf.filled()[before..];
        if fresh.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let passed = match self.framer.take(fresh) {
            Ok(count) => count,
            Err(fault) => {
                buf.set_filled(before);
                self.fault(fault);
                return Poll::Ready(Ok(false));
            }
        };
        self.held.extend_from_slice(&fresh[passed..]);
        buf.set_filled(before + passed);
        Poll::Ready(Ok(passed > 0))
    }

    /// Nothing has come: is it too late? True ends the connection like an end of the stream.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let between = self.framer.is_between();
        if self.busy && (between || self.framer.is_held()) {
            self.read_timer.stop();
            if self.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                self.reader = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let limit = match (between, self.held.is_empty()) {
            (true, true) if self.used => self.limits.keepalive,
            (true, _) => self.limits.head,
            (false, _) => self.limits.body,
        };
        ready!(self.read_timer.poll(cx, limit));
        if !between {
            self.fault(Fault::SLOW_BODY);
        } else if self.held.is_empty() {
            return Poll::Ready(Ok(true));
        } else {
            self.fault(Fault::SLOW_HEAD);
        }
        Poll::Ready(Ok(false))
    }

    /// hyper has written all that it had.
    fn flushed(&mut self) {
        if !std::mem::take(&mut self.answered) {
            return;
        }
        self.busy = false;
        self.seat.idle();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn fault(&mut self, fault: Fault) {
        if !self.framer.is_between() {
            self.body_fault = Some(fault);
            return;
        }
        self.refused = Some(fault);
        self.framer.count_refused();
        self.held.clear();
        self.held.extend_from_slice(REFUSED);
        self.released = REFUSED.len();
    }

    fn late_write<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.write_timer.poll(cx, self.limits.body));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        match Pin::new(&mut inner.stream).poll_write(cx, buf) {
            Poll::Ready(written) => {
                inner.write_timer.stop();
                Poll::Ready(written)
            }
            Poll::Pending => inner.late_write(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        match Pin::new(&mut inner.stream).poll_write_vectored(cx, bufs) {
            Poll::Ready(written) => {
                inner.write_timer.stop();
                Poll::Ready(written)
            }
            Poll::Pending => inner.late_write(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper asks for this once its own buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().flushed();
        Poll::Ready(Ok(()))
    }

    /// The socket is closed by [`Control::close`], or lives on as a tunnel.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
