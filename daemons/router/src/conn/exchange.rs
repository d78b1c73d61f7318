//! One request, over as many attempts as it takes.

use super::attempt::{After, Answered, Attempt, Counts, Failed, Gear, watch};
use super::buffer::Buffer;
use super::tunnel::Tunnel;
use super::{Client, Next};
use crate::access::{Asked, Entry, Served};
use crate::codec::headers::{Origin, sound_id, to_app};
use crate::codec::{Body, Framing, Request, host};
use crate::proxy::{Case, Choice, Connection, Failure, Form, Next as Retry, NotFound, Reader, Refusal, Search};
use crate::proxy::{choose, next, unreachable};
use crate::table::{Endpoint, InFlight};
use dinp_common::model::{AppName, InstanceId};
use std::time::{Duration, Instant};

/// Bodies up to this size, in bytes, never wait for the app to read them.
const SMALL_BODY: u64 = 16_384;
/// How long what is small may go unacknowledged by the instance's host.
const SMALL_PATIENCE: Duration = Duration::from_secs(2);

/// Room that one request leaves to the next one of its connection.
#[derive(Default)]
pub(super) struct Scratch {
    /// The head for the app.
    head: Vec<u8>,
    /// The host as it is looked up.
    host: String,
    /// The request's id.
    id: String,
    gear: Gear,
}

/// How long to wait before all instances of an app are tried once more; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// What is left when all attempts are over.
enum Outcome {
    Answered(Answered, Option<Tunnel>),
    Refused(Refusal),
    Gone,
}

impl Client {
    /// Answers the request whose head stands at the begin of the buffer.
    pub(super) async fn exchange(&mut self, buffer: &mut Buffer, request: &Request, scratch: &mut Scratch) -> Next {
        let began = Instant::now();
        let Scratch { head, host, id, .. } = scratch;
        head.clear();
        host.clear();
        id.clear();
        match sound_id(request, buffer.data()) {
            Some(own) => id.push_str(own),
            None => id.extend(random_id()),
        }
        let limits = self.proxy.limits.now();
        let is_trusted = limits.trusts(self.client);
        let origin = Origin { client: &self.address, is_trusted, is_forwarded: limits.forwarded, id };
        to_app(head, request, buffer.data(), origin);
        host.push_str(&host::key(request.host(buffer.data())));
        buffer.consume(request.lines.end);
        let mut body = Body::of_request(request.framing);
        let mut served = Served::default();
        let next = match self.forward((request, began), scratch, buffer, &mut body, &mut served).await {
            Outcome::Answered(answered, tunnel) => match (answered.client, tunnel) {
                (After::GoesOn, _) => Next::Request,
                (After::Ends, _) if body.is_done() && !self.says_more(buffer) => Next::Close,
                (After::Ends, _) => Next::Linger,
                (After::IsTunnel(_), Some(tunnel)) => Next::Tunnel(tunnel),
                (After::Breaks | After::IsTunnel(_), _) => {
                    served.error = Some("broken_off");
                    Next::Close
                }
            },
            Outcome::Refused(refusal) => {
                (served.status, served.error) = (refusal.status(), Some(refusal.code()));
                let reader = Reader { request, id: &scratch.id, form: Form::preferred(&scratch.head) };
                self.refuse(refusal, Some(&reader), body.is_done(), buffer).await
            }
            Outcome::Gone => {
                served.error = Some("client_gone");
                Next::Close
            }
        };
        if self.proxy.lines.are_wanted() {
            served.took = began.elapsed();
            let Scratch { head, host, id, .. } = scratch;
            let asked = Asked { head, host, id, is_old: request.is_old };
            self.proxy.lines.note(&Entry { client: &self.address, asked: Some(asked), served: &served });
        }
        next
    }

    /// Sends the request to an instance of the app that answers to its host.
    ///
    /// The table is looked at anew for each attempt, so that none goes to an instance that has left it meanwhile. Where no
    /// instance takes a connection, all are tried again for a while: one that is just being replaced is soon there.
    async fn forward(
        &mut self,
        (request, began): (&Request, Instant),
        scratch: &mut Scratch,
        buffer: &mut Buffer,
        body: &mut Body,
        served: &mut Served,
    ) -> Outcome {
        let Scratch { head, host, id, gear } = scratch;
        let (proxy, buffers, seat) = (self.proxy.clone(), self.buffers.clone(), self.seat.clone());
        let limits = proxy.limits.now();
        let deadline = began + limits.request;
        let is_replayable = request.is_safe && body.is_done();
        let mut tried: Vec<InstanceId> = Vec::new();
        // The instance whose idle connection was closed under our hands.
        let mut again: Option<Choice> = None;
        let mut queued_until = None;
        let (mut last, mut has_reached, mut pause) = (None, false, FIRST_PAUSE);
        loop {
            let mut now = Instant::now();
            if now >= deadline {
                return Outcome::Refused(Refusal::TimedOut);
            }
            let is_again = again.is_some();
            let search = Search { host, tried: &tried, has_waited: false };
            let mut found = choose(&proxy, search, again.take(), now);
            if let Err(NotFound::Busy(app)) = &found {
                let until = deadline.min(*queued_until.get_or_insert(now + limits.queue));
                let Some(waited) = self.room(app, search, until).await else { return Outcome::Gone };
                (found, now) = (waited, Instant::now());
            }
            let chosen = match found {
                Ok(chosen) => chosen,
                Err(NotFound::Busy(_)) => return Outcome::Refused(Refusal::Overloaded),
                Err(_) if last.is_some() && !has_reached && now + pause < deadline.min(began + limits.connect) => {
                    let (mut reader, _) = self.stream.split();
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = watch(&mut reader) => return Outcome::Gone,
                    }
                    pause *= 2;
                    tried.clear();
                    continue;
                }
                Err(NotFound::Refused(none)) => return Outcome::Refused(last.unwrap_or(none)),
            };
            let endpoint = chosen.endpoint();
            let instance = endpoint.instance.id.clone();
            // One attempt is enough to find an idle connection closed: the next one asks the kernel first.
            let may_be_closed = is_replayable && last.is_none();
            let idle = if is_again { None } else { proxy.pool.take(&instance, may_be_closed, now) };
            let is_reused = idle.is_some();
            let connected = match idle {
                Some(connection) => Ok(connection),
                None => proxy.pool.connect(endpoint, limits.connect.min(deadline - now)).await,
            };
            served.attempts += 1;
            if proxy.lines.are_wanted() {
                served.by = Some((endpoint.stats.clone(), instance.clone()));
            }
            let attempt = match connected {
                Ok(connection) => {
                    let attempt = Attempt {
                        request,
                        head,
                        id,
                        limits: &limits,
                        buffers: &buffers,
                        seat: &seat,
                        news: &proxy.totals.news,
                        stats: &endpoint.stats,
                        deadline,
                        counts: Counts::new(now),
                    };
                    let outcome = self.attempt(&attempt, connection, endpoint, buffer, body, gear).await;
                    attempt.counts.tell(served);
                    outcome
                }
                Err(error) => {
                    unreachable(&proxy, endpoint, &error);
                    Err(Failed::App(Failure::NoConnection))
                }
            };
            let failure = match attempt {
                Ok((answered, tunnel)) => return Outcome::Answered(answered, tunnel),
                Err(Failed::Gone) => return Outcome::Gone,
                Err(Failed::Request(fault)) => return Outcome::Refused(Refusal::Fault(fault)),
                Err(Failed::App(failure)) => failure,
            };
            let refusal = match failure {
                Failure::TimedOut => Refusal::TimedOut,
                Failure::Garbage => Refusal::BadAnswer,
                Failure::NoConnection if !has_reached => Refusal::NoConnection,
                Failure::NoConnection | Failure::Ended | Failure::Unsent => Refusal::NoAnswer,
            };
            let case = Case { is_reused, is_replayable, has_reached };
            has_reached |= failure == Failure::Ended;
            let may_again = || failure != Failure::Ended || proxy.budget.take(&endpoint.stats, now);
            match next(failure, case) {
                // An idle connection that was closed says nothing of the app.
                Retry::NewConnection => again = Some(chosen),
                Retry::OtherInstance if may_again() => {
                    proxy.totals.news.failed(&endpoint.stats);
                    tried.push(instance);
                    last = Some(refusal);
                }
                _ => {
                    proxy.totals.news.failed(&endpoint.stats);
                    tracing::debug!(app = %endpoint.stats.app, %instance, ?failure, "no answer from an instance");
                    return Outcome::Refused(refusal);
                }
            }
        }
    }

    /// Waits in the app's queue for an instance that has room: busy where there is no place in it, or none in time. None
    /// where the client is gone.
    async fn room(&mut self, app: &AppName, search: Search<'_>, until: Instant) -> Option<Result<Choice, NotFound>> {
        let proxy = &self.proxy;
        let busy = || Some(Err(NotFound::Busy(app.clone())));
        let Some(place) = proxy.totals.queues.join(app, proxy.limits.now().queued) else { return busy() };
        let search = Search { has_waited: true, ..search };
        let look = || match choose(proxy, search, None, Instant::now()) {
            Err(NotFound::Busy(_)) => None,
            found => Some(found),
        };
        let (mut reader, _) = self.stream.split();
        tokio::select! {
            found = place.wait(look) => Some(found),
            () = tokio::time::sleep_until(until.into()) => busy(),
            () = watch(&mut reader) => None,
        }
    }

    /// One attempt over this connection, which is kept for the next request if it is good for one.
    async fn attempt(
        &mut self,
        attempt: &Attempt<'_>,
        mut connection: Connection,
        endpoint: &Endpoint,
        buffer: &mut Buffer,
        body: &mut Body,
        gear: &mut Gear,
    ) -> Result<(Answered, Option<Tunnel>), Failed> {
        let limits = attempt.limits;
        if !connection.is_reused {
            endpoint.instance.connected();
        }
        // What is small fits into the kernel's buffers on the other side, whether the app reads it or not.
        let is_small = matches!(attempt.request.framing, Framing::Length(..=SMALL_BODY));
        connection.set_patience(if is_small { SMALL_PATIENCE.min(limits.connect * 2) } else { limits.body });
        let mut answered = attempt.run(&mut self.stream, buffer, body, &mut connection.stream, gear).await?;
        if let After::IsTunnel(said) = &mut answered.client {
            connection.set_patience(limits.body);
            let said = std::mem::take(said);
            return Ok((answered, Some(Tunnel::new(connection, said, InFlight::new(&endpoint.instance)))));
        }
        if answered.app_goes_on {
            self.proxy.pool.put(&endpoint.instance.id, connection);
        }
        Ok((answered, None))
    }
}

fn random_id() -> impl Iterator<Item = char> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random: u128 = rand::random();
    (0..32).map(move |digit| char::from(DIGITS[(random >> (4 * digit)) as usize & 15]))
}
