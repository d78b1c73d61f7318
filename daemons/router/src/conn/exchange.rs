//! One request, over as many attempts as it takes.

use super::attempt::{After, Answered, Attempt, Failed, Gear};
use super::buffer::Buffer;
use super::tunnel::Tunnel;
use super::{Client, Next};
use crate::codec::headers::{Origin, sound_id, to_app};
use crate::codec::{Body, Framing, Request, host};
use crate::proxy::{Connection, Failure, Next as Retry, Refusal, choose, next, unreachable};
use crate::table::{Endpoint, InFlight};
use dinp_common::model::InstanceId;
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

/// What is left when all attempts are over.
enum Outcome {
    Answered(Answered, Option<Tunnel>),
    Refused(Refusal),
    Gone,
}

impl Client {
    /// Answers the request whose head stands at the begin of the buffer and ends at `end`.
    pub(super) async fn exchange(
        &mut self,
        buffer: &mut Buffer,
        request: &Request,
        end: usize,
        scratch: &mut Scratch,
    ) -> Next {
        let Scratch { head, host, id, .. } = scratch;
        head.clear();
        host.clear();
        id.clear();
        match sound_id(request, buffer.data()) {
            Some(own) => id.push_str(own),
            None => id.extend(random_id()),
        }
        let origin = Origin { client: &self.address, is_trusted: self.is_trusted, id };
        to_app(head, request, buffer.data(), origin);
        host.push_str(&host::key(request.host(buffer.data())));
        buffer.consume(end);
        let mut body = Body::new(request.framing);
        match self.forward(request, scratch, buffer, &mut body).await {
            Outcome::Answered(answered, tunnel) => match (answered.client, tunnel) {
                (After::GoesOn, _) => Next::Request,
                (After::Ends, _) if body.is_done() => Next::Close,
                (After::Ends, _) => Next::Linger,
                (After::IsTunnel(_), Some(tunnel)) => Next::Tunnel(tunnel),
                (After::Breaks | After::IsTunnel(_), _) => Next::Close,
            },
            Outcome::Refused(refusal) => self.refuse(refusal, Some((request, &scratch.id)), body.is_done()).await,
            Outcome::Gone => Next::Close,
        }
    }

    /// Sends the request to an instance of the app that answers to its host.
    ///
    /// The table is looked at anew for each attempt, so that none goes to an instance that has left it meanwhile.
    async fn forward(
        &mut self,
        request: &Request,
        scratch: &mut Scratch,
        buffer: &mut Buffer,
        body: &mut Body,
    ) -> Outcome {
        let Scratch { head, host, id, gear } = scratch;
        let (proxy, buffers, seat) = (self.proxy.clone(), self.buffers.clone(), self.seat.clone());
        let deadline = Instant::now() + proxy.limits.request;
        let is_replayable = request.is_safe && body.is_done();
        let mut tried: Vec<InstanceId> = Vec::new();
        // The instance whose idle connection was closed under our hands.
        let mut again: Option<InstanceId> = None;
        let mut last = None;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Outcome::Refused(Refusal::TimedOut);
            }
            let chosen = match choose(&proxy, host, &tried, again.as_ref(), now) {
                Ok(chosen) => chosen,
                Err(none) => return Outcome::Refused(last.unwrap_or(none)),
            };
            let endpoint = &chosen.0;
            let instance = endpoint.instance.id.clone();
            let idle = if again.take().is_some() { None } else { proxy.pool.take(&instance, is_replayable, now) };
            let is_reused = idle.is_some();
            let connected = match idle {
                Some(connection) => Ok(connection),
                None => proxy.pool.connect(endpoint, proxy.limits.connect.min(deadline - now)).await,
            };
            let attempt = match connected {
                Ok(connection) => {
                    let attempt = Attempt {
                        request,
                        head,
                        id,
                        limits: &proxy.limits,
                        buffers: &buffers,
                        seat: &seat,
                        news: &proxy.totals.news,
                        stats: &endpoint.stats,
                        deadline,
                    };
                    self.attempt(&attempt, connection, &chosen, buffer, body, gear).await
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
                Failure::NoConnection => Refusal::NoConnection,
                Failure::Ended | Failure::Unsent => Refusal::NoAnswer,
            };
            match next(failure, is_reused, is_replayable) {
                Retry::NewConnection => again = Some(instance),
                Retry::OtherInstance => {
                    proxy.totals.news.failed(&endpoint.stats);
                    tried.push(instance);
                    last = Some(refusal);
                }
                Retry::GiveUp => {
                    proxy.totals.news.failed(&endpoint.stats);
                    tracing::debug!(app = %endpoint.stats.app, %instance, ?failure, "no answer from an instance");
                    return Outcome::Refused(refusal);
                }
            }
        }
    }

    /// One attempt over this connection, which is kept for the next request if it is good for one.
    async fn attempt(
        &mut self,
        attempt: &Attempt<'_>,
        mut connection: Connection,
        (endpoint, in_flight): &(Endpoint, InFlight),
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
            return Ok((answered, Some(Tunnel::new(connection, said, in_flight.another()))));
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
