//! A connection to an instance that two can hold: hyper, which speaks over it, and the router, which must know whether
//! it is still open, whether anything has come back, and in the end may take it over.

use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Clone)]
pub(crate) struct Wire(Rc<Inner>);

struct Inner {
    stream: RefCell<TcpStream>,
    received: Cell<u64>,
    sent: Cell<u64>,
    patience: Cell<Duration>,
}

/// Silence after which the kernel asks whether the other host is still there, and the time between its questions.
const KEEP_ALIVE: (u32, u32, u32) = (5, 1, 3);

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> nix::Result<Self> {
        // A host that has died says nothing: without this a request that waits for its answer would wait for long.
        let (idle, interval, count) = KEEP_ALIVE;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &idle)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &interval)?;
        setsockopt(&stream, sockopt::TcpKeepCount, &count)?;
        let (received, sent, patience) = (Cell::new(0), Cell::new(0), Cell::new(Duration::MAX));
        Ok(Self(Rc::new(Inner { stream: RefCell::new(stream), received, sent, patience })))
    }

    /// How long what is sent may go unacknowledged by the other host. Not to be short while a body is sent: the kernel
    /// takes an app that does not read for a while for one that is gone.
    pub(crate) fn set_patience(&self, limit: Duration) {
        if self.0.patience.replace(limit) != limit {
            let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
            if let Err(error) = setsockopt(&*self.0.stream.borrow(), sockopt::TcpUserTimeout, &millis) {
                tracing::debug!(%error, "no TCP_USER_TIMEOUT");
            }
        }
    }

    /// Bytes that have come so far.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.get()
    }

    /// Bytes that have gone either way so far.
    pub(crate) fn moved(&self) -> u64 {
        self.0.received.get() + self.0.sent.get()
    }

    /// Asks the kernel whether the other side has kept it open and has sent nothing unasked.
    pub(crate) fn is_open(&self) -> bool {
        let fd = self.0.stream.borrow().as_raw_fd();
        recv(fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) == Err(nix::errno::Errno::EAGAIN)
    }

    fn count_sent(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.0.sent.set(self.0.sent.get() + *count as u64);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buf);
        self.0.received.set(self.0.received.get() + (buf.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, buf);
        self.count_sent(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, bufs);
        self.count_sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}
