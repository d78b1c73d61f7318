//! Bodies on their way through.

use super::pool::{Connection, Pool};
use crate::gate::Busy;
use crate::table::InFlight;
use crate::timer::Timer;
use bytes::Bytes;
use dinp_common::model::InstanceId;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::cell::Cell;
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// How far a request's body has come.
pub(crate) struct Progress {
    /// When a part of it was last passed on.
    pub(crate) last: Cell<Instant>,
    /// All of it has been passed on.
    pub(crate) done: Cell<bool>,
}

/// The body of a request, or none.
pub(crate) struct RequestBody {
    inner: Option<Incoming>,
    progress: Rc<Progress>,
}

impl RequestBody {
    pub(crate) fn new(inner: Option<Incoming>) -> (Self, Rc<Progress>) {
        let progress = Rc::new(Progress { last: Cell::new(Instant::now()), done: Cell::new(inner.is_none()) });
        (Self { inner, progress: progress.clone() }, progress)
    }

    pub(crate) fn into_inner(self) -> Option<Incoming> {
        self.inner
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
        let done = frame.is_none() || inner.is_end_stream();
        self.progress.last.set(Instant::now());
        self.progress.done.set(done);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What an answer holds on to until its body has ended.
pub(crate) struct Lease {
    pub(crate) pool: Rc<Pool>,
    pub(crate) instance: InstanceId,
    pub(crate) connection: Option<Connection>,
    pub(crate) progress: Rc<Progress>,
    pub(crate) in_flight: InFlight,
}

/// The body of an answer.
pub(crate) struct ResponseBody {
    content: Content,
    _busy: Busy,
}

enum Content {
    Page(Full<Bytes>),
    App { inner: Incoming, lease: Lease, ended: bool, timer: Timer, limit: Duration },
}

impl ResponseBody {
    /// A page of the router's own.
    pub(crate) fn page(text: Bytes, busy: Busy) -> Self {
        Self { content: Content::Page(Full::new(text)), _busy: busy }
    }

    /// What an instance sends; `limit` is the longest silence.
    pub(crate) fn app(inner: Incoming, lease: Lease, limit: Duration, busy: Busy) -> Self {
        let ended = inner.is_end_stream();
        Self { content: Content::App { inner, lease, ended, timer: Timer::default(), limit }, _busy: busy }
    }
}

impl Drop for ResponseBody {
    /// A connection is good for the next request only if this one has ended in both directions.
    fn drop(&mut self) {
        let Content::App { inner, lease, ended, .. } = &mut self.content else { return };
        if (*ended || inner.is_end_stream())
            && lease.progress.done.get()
            && let Some(connection) = lease.connection.take()
        {
            lease.pool.put(&lease.instance, connection);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.content {
            Content::Page(page) => Pin::new(page).poll_frame(cx).map_err(Into::into),
            Content::App { inner, ended, timer, limit, .. } => {
                let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) else {
                    ready!(timer.poll(cx, *limit));
                    return Poll::Ready(Some(Err("the app sends no more of its answer".into())));
                };
                timer.stop();
                *ended = frame.is_none();
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Page(page) => page.is_end_stream(),
            Content::App { inner, .. } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Page(page) => page.size_hint(),
            Content::App { inner, .. } => inner.size_hint(),
        }
    }
}
