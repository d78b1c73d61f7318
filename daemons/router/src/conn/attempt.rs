//! One request over one connection to an instance: the body goes up while the answer comes down.
//!
//! An app may answer before it has read the whole body, or close without reading it. So both ways are looked after at the
//! same time, and an app that takes nothing more is still heard to its end.

use super::buffer::{Buffer, Buffers};
use super::relay::relay;
use super::wire::{Sink, Source, Unwritten, fill, readable, write_all};
use crate::access::Served;
use crate::clients::Seat;
use crate::codec::headers::{Outgoing, to_client};
use crate::codec::{Answer, Body, Encoding, Fault, Framing, Request, Response, SizeLine};
use crate::config::Limits;
use crate::proxy::Failure;
use crate::table::{News, ReleaseStats};
use crate::timer::Timer;
use http::StatusCode;
use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

/// Time that an app gets to say whether it wants the body before the client is told to go on.
const CONTINUE_AFTER: Duration = Duration::from_secs(1);
/// Largest head of an answer, in bytes, where requests may not have larger ones.
const ANSWER_HEAD: usize = 262_144;

/// What an attempt is made with.
pub(super) struct Attempt<'a> {
    pub(super) request: &'a Request,
    /// The head for the app.
    pub(super) head: &'a [u8],
    pub(super) id: &'a str,
    pub(super) limits: &'a Limits,
    pub(super) buffers: &'a Rc<Buffers>,
    /// No answer is waited for any longer, unless the body moves.
    pub(super) deadline: Instant,
    pub(super) seat: &'a Seat,
    pub(super) news: &'a News,
    /// Of the release that is asked.
    pub(super) stats: &'a Arc<ReleaseStats>,
    pub(super) counts: Counts,
}

/// What is told of an attempt afterwards.
pub(super) struct Counts {
    began: Instant,
    /// The status of the answer, and the time until it came.
    answer: Cell<Option<(u16, Duration)>>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Counts {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, answer: Cell::default(), received: Cell::default(), sent: Cell::default() }
    }

    pub(super) fn tell(&self, served: &mut Served) {
        if let Some((status, took)) = self.answer.get() {
            (served.status, served.app_took) = (status, took);
        }
        (served.received, served.sent) = (self.received.get(), self.sent.get());
    }
}

/// What an attempt leaves to the next one. Limits on waiting are set again only when they are due too early, so that a
/// request that is quick costs none.
#[derive(Default)]
pub(super) struct Gear {
    /// The head for the client.
    out: Vec<u8>,
    from_client: Timer,
    to_app: Timer,
    from_app: Timer,
    to_client: Timer,
}

/// How an attempt ended that has reached the client.
pub(super) struct Answered {
    /// Whether the connection to the app is good for another request.
    pub(super) app_goes_on: bool,
    pub(super) client: After,
}

/// What becomes of the client's connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Another request may come.
    GoesOn,
    /// It ends; what the client still sends is not wanted.
    Ends,
    /// It ends at once: the answer has broken off, and must not be taken for a whole one.
    Breaks,
    /// It has become a tunnel; the app has said this already.
    IsTunnel(Vec<u8>),
}

/// How an attempt ended that has not.
#[derive(Debug)]
pub(super) enum Failed {
    /// The app gave no answer.
    App(Failure),
    /// The client's request cannot be finished.
    Request(Fault),
    /// The client is gone.
    Gone,
}

/// What both directions know of each other.
struct Shared {
    /// When a part of the request's body was last passed on.
    moved: Cell<Instant>,
    /// A byte of it has come.
    has_begun: Cell<bool>,
    /// All of it is with the app.
    is_sent: Cell<bool>,
    /// The client has been told the head of the answer.
    is_answered: Cell<bool>,
}

impl Attempt<'_> {
    /// Makes it. `rest` is what the client has sent beyond its head, `body` what is left of its body.
    pub(super) async fn run(
        &self,
        client: &mut TcpStream,
        rest: &mut Buffer,
        body: &mut Body,
        app: &mut TcpStream,
        gear: &mut Gear,
    ) -> Result<Answered, Failed> {
        let Gear { out, from_client, to_app, from_app, to_client } = gear;
        let shared = Shared {
            moved: Cell::new(Instant::now()),
            has_begun: Cell::new(false),
            is_sent: Cell::new(false),
            is_answered: Cell::new(false),
        };
        let (mut client_reader, mut client_writer) = client.split();
        let (mut app_reader, mut app_writer) = app.split();
        let up = async {
            match self.send((&mut client_reader, from_client), rest, body, (&mut app_writer, to_app), &shared).await {
                Ok(()) => watch(&mut client_reader).await,
                Err(Failed::Gone) => {}
                // An answer that is on its way says more than a request that is stuck.
                Err(_) if shared.is_answered.get() => pending().await,
                Err(failed) => return failed,
            }
            Failed::Gone
        };
        let mut down = pin!(self.receive((&mut app_reader, from_app), (&mut client_writer, to_client), &shared, out));
        // First the request: an app that has hung up meanwhile must be found while nothing was sent.
        let received = tokio::select! {
            biased;
            failed = up => match poll_fn(|cx| Poll::Ready(down.as_mut().poll(cx))).await {
                // The answer was there by the time the client was gone.
                Poll::Ready(received) => received,
                Poll::Pending if shared.is_answered.get() => {
                    tracing::debug!(app = %self.stats.app, ?failed, "a request broke off after its answer had begun");
                    return Ok(Answered { app_goes_on: false, client: After::Breaks });
                }
                Poll::Pending => return Err(failed),
            },
            received = down.as_mut() => received,
        };
        let mut answered = received?;
        if !shared.is_sent.get() {
            answered.app_goes_on = false;
            if answered.client == After::GoesOn {
                answered.client = After::Ends;
            }
        }
        Ok(answered)
    }

    /// Sends head and body to the app. An app that takes no more may answer all the same: then this does not return.
    async fn send(
        &self,
        (client, read_timer): Source<'_, '_>,
        rest: &mut Buffer,
        body: &mut Body,
        (app, write_timer): Sink<'_, '_>,
        shared: &Shared,
    ) -> Result<(), Failed> {
        let limit = self.limits.body;
        let encoding = match self.request.framing {
            Framing::Chunked => Encoding::Chunked,
            Framing::Length(_) | Framing::UntilClose => Encoding::Plain,
        };
        let mut head = self.head;
        loop {
            let piece = body.take(rest.data_mut()).map_err(Failed::Request)?;
            let is_last = body.is_done();
            if piece.consumed > 0 {
                shared.has_begun.set(true);
            }
            self.counts.received.set(self.counts.received.get() + piece.content as u64);
            let mut line = SizeLine::default();
            let content = &rest.data()[..piece.content];
            let mut slices = [IoSlice::new(head); 6];
            slices[1..].copy_from_slice(&encoding.slices(content, is_last, body.trailers(), &mut line));
            if let Err(Unwritten { taken, source }) = write_all(app, &mut slices, write_timer, limit).await {
                tracing::debug!(app = %self.stats.app, error = %source, "an app does not take a request");
                if source.kind() == ErrorKind::TimedOut {
                    return Err(Failed::App(Failure::TimedOut));
                }
                if !head.is_empty() && taken == 0 && !shared.has_begun.get() {
                    return Err(Failed::App(Failure::Unsent));
                }
                return pending().await;
            }
            head = b"";
            shared.moved.set(Instant::now());
            rest.consume(piece.consumed);
            if is_last {
                shared.is_sent.set(true);
                return Ok(());
            }
            match fill(client, rest, read_timer, limit).await {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(Failed::Request(Fault::SLOW_BODY)),
                Ok(0) | Err(_) => return Err(Failed::Gone),
            }
        }
    }

    /// Receives the answer, and passes it on.
    async fn receive(
        &self,
        mut from: Source<'_, '_>,
        mut to: Sink<'_, '_>,
        shared: &Shared,
        out: &mut Vec<u8>,
    ) -> Result<Answered, Failed> {
        let mut asks = self.request.expects_continue;
        self.wait(&mut from, &mut to, shared, &mut asks).await?;
        let mut buffer = self.buffers.take();
        let response = loop {
            let response = self.head(&mut from, &mut to, shared, &mut buffer, &mut asks).await?;
            let is_upgrade = response.status == 101 && self.request.is_upgrade;
            if response.status >= 200 || is_upgrade {
                break response;
            }
            if response.status == 101 {
                return Err(Failed::App(Failure::Garbage));
            }
            let wanted = !self.request.is_old && (response.status != 100 || std::mem::take(&mut asks));
            if wanted {
                out.clear();
                let outgoing = Outgoing { is_chunked: false, is_upgrade: false, connection: None, id: self.id };
                to_client(out, &response, buffer.data(), outgoing);
                let written = write_all(to.0, &mut [IoSlice::new(out)], to.1, self.limits.body).await;
                written.map_err(|_| Failed::Gone)?;
            }
            buffer.consume(response.lines.end);
        };
        self.pass_on(from, to, shared, buffer, response, out).await
    }

    /// Waits for the first byte of the answer. A client that asked is told to go on when the app has not said so in time.
    async fn wait(
        &self,
        (app, timer): &mut Source<'_, '_>,
        (client, write_timer): &mut Sink<'_, '_>,
        shared: &Shared,
        asks: &mut bool,
    ) -> Result<(), Failed> {
        if *asks {
            match readable((**app).as_ref(), timer, CONTINUE_AFTER).await {
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    *asks = false;
                    if !shared.has_begun.get() {
                        let go_on = IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n");
                        let written = write_all(client, &mut [go_on], write_timer, self.limits.body).await;
                        written.map_err(|_| Failed::Gone)?;
                    }
                }
                other => return other.map_err(|_| Failed::App(Failure::Ended)),
            }
        }
        loop {
            let now = Instant::now();
            let until = self.patience(shared);
            if now >= until {
                return Err(Failed::App(Failure::TimedOut));
            }
            match readable((**app).as_ref(), timer, until - now).await {
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                other => return other.map_err(|_| Failed::App(Failure::Ended)),
            }
        }
    }

    /// Until when an answer is waited for: a body that still moves is no reason to give up.
    fn patience(&self, shared: &Shared) -> Instant {
        self.deadline.max(shared.moved.get() + self.limits.request)
    }

    /// The next head of an answer.
    async fn head(
        &self,
        from: &mut Source<'_, '_>,
        to: &mut Sink<'_, '_>,
        shared: &Shared,
        buffer: &mut Buffer,
        asks: &mut bool,
    ) -> Result<Response, Failed> {
        let most = self.limits.head_bytes.max(ANSWER_HEAD);
        let (mut had_any, mut scanned) = (false, 0);
        loop {
            if !buffer.is_empty() {
                had_any = true;
                match Response::scan(buffer.data(), scanned, self.request.is_head) {
                    Answer::Complete(response) => return Ok(response),
                    Answer::Partial(lines) if buffer.data().len() <= most => scanned = lines,
                    Answer::Partial(_) | Answer::Garbage => return Err(Failed::App(Failure::Garbage)),
                }
            }
            if *asks && buffer.is_empty() {
                self.wait(from, to, shared, asks).await?;
            }
            let now = Instant::now();
            let until = self.patience(shared);
            if now >= until {
                return Err(Failed::App(Failure::TimedOut));
            }
            match fill(from.0, buffer, from.1, until - now).await {
                Ok(0) => return Err(Failed::App(if had_any { Failure::Garbage } else { Failure::Ended })),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(_) => return Err(Failed::App(if had_any { Failure::Garbage } else { Failure::Ended })),
            }
        }
    }

    /// Passes the final answer on, whose head stands at the begin of the buffer.
    async fn pass_on(
        &self,
        from: Source<'_, '_>,
        to: Sink<'_, '_>,
        shared: &Shared,
        mut buffer: Buffer,
        response: Response,
        out: &mut Vec<u8>,
    ) -> Result<Answered, Failed> {
        let limit = self.limits.body;
        let is_upgrade = response.status == 101;
        let has_body = response.framing != Framing::Length(0);
        let is_chunked = has_body && !self.request.is_old && !matches!(response.framing, Framing::Length(_));
        if response.is_coded && has_body && !is_chunked {
            // HTTP/1.0 has no way to say how it is coded.
            return Err(Failed::App(Failure::Garbage));
        }
        // Where nothing else tells the end of the answer, the end of the connection does.
        let ends_with_close = has_body && !is_chunked && !matches!(response.framing, Framing::Length(_));
        // A client whose body nobody reads to its end cannot ask again.
        let is_read = shared.is_sent.get();
        let goes_on = self.request.keeps_alive && is_read && !ends_with_close && !self.seat.is_closing();
        let connection = match (is_upgrade, goes_on) {
            (true, _) => Some("upgrade"),
            (false, false) => Some("close"),
            (false, true) => self.request.is_old.then_some("keep-alive"),
        };
        out.clear();
        to_client(out, &response, buffer.data(), Outgoing { is_chunked, is_upgrade, connection, id: self.id });
        buffer.consume(response.lines.end);
        let broken = |error: io::Error| {
            tracing::debug!(app = %self.stats.app, %error, "an answer broke off");
            Answered { app_goes_on: false, client: After::Breaks }
        };
        shared.is_answered.set(true);
        let status = StatusCode::from_u16(response.status).unwrap_or_default();
        let took = self.counts.began.elapsed();
        self.counts.answer.set(Some((response.status, took)));
        self.news.answered(self.stats, status, took);
        if is_upgrade {
            if let Err(Unwritten { source, .. }) = write_all(to.0, &mut [IoSlice::new(out)], to.1, limit).await {
                return Ok(broken(source));
            }
            return Ok(Answered { app_goes_on: false, client: After::IsTunnel(buffer.data().to_vec()) });
        }
        let mut body = Body::new(response.framing);
        let encoding = if is_chunked { Encoding::Chunked } else { Encoding::Plain };
        let relayed = relay(from, to, &mut buffer, (&mut body, encoding), out, &self.counts.sent, limit).await;
        if let Err(error) = relayed {
            return Ok(broken(error));
        }
        // An app that says more than its answer is not to be asked again.
        let app_goes_on = response.keeps_alive && buffer.is_empty();
        Ok(Answered { app_goes_on, client: if goes_on { After::GoesOn } else { After::Ends } })
    }
}

/// Returns when the client has hung up; while it has sent its next request already, that is not seen.
pub(super) async fn watch(client: &mut ReadHalf<'_>) {
    let ended = poll_fn(|cx| {
        let mut one = [0];
        let mut room = tokio::io::ReadBuf::new(&mut one);
        match client.poll_peek(cx, &mut room) {
            Poll::Ready(Ok(count)) => Poll::Ready(count == 0),
            Poll::Ready(Err(_)) => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    });
    if !ended.await {
        pending::<()>().await;
    }
}
