//! Where one request ends and the next begins.

use super::chunks::Chunks;
use super::head::{self, Fault, Framing, Scan};

/// Follows a client's bytes.
#[derive(Debug)]
pub(crate) struct Framer {
    state: State,
    /// Bytes of the head that have been looked at.
    scanned: usize,
    limit: usize,
    heads: u64,
}

#[derive(Debug)]
enum State {
    /// Between requests, or in a head.
    Head,
    Length(u64),
    Chunked(Chunks),
    /// After a request for an upgrade.
    Held,
}

impl Framer {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: State::Head, scanned: 0, limit, heads: 0 }
    }

    /// Heads that have passed.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    pub(crate) fn count_refused(&mut self) {
        self.heads += 1;
    }

    /// Whether no body is under way.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Head)
    }

    pub(crate) fn is_held(&self) -> bool {
        matches!(self.state, State::Held)
    }

    /// Ends the hold after a request for an upgrade.
    pub(crate) fn release(&mut self) {
        if self.is_held() {
            self.state = State::Head;
        }
    }

    /// How many of the next bytes may pass; 0 when more must come first. While a head is not complete, the next call
    /// must begin with the same bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match &mut self.state {
            State::Held => Ok(0),
            State::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                if *left == 0 {
                    self.state = State::Head;
                }
                Ok(count)
            }
            State::Chunked(chunks) => {
                let count = chunks.feed(bytes)?;
                if chunks.is_done() {
                    self.state = State::Head;
                }
                Ok(count)
            }
            State::Head => match head::scan(bytes, self.scanned, self.limit) {
                Scan::Partial { scanned } => {
                    self.scanned = scanned;
                    Ok(0)
                }
                Scan::Fault(fault) => Err(fault),
                Scan::Complete { end, framing, .. } => {
                    self.scanned = 0;
                    self.heads += 1;
                    self.state = match framing {
                        Framing::Length(0) => State::Head,
                        Framing::Length(length) => State::Length(length),
                        Framing::Chunked => State::Chunked(Chunks::default()),
                        Framing::Upgrade => State::Held,
                    };
                    let body = match &self.state {
                        State::Length(_) if end < bytes.len() => self.take(&bytes[end..])?,
                        _ => 0,
                    };
                    Ok(end + body)
                }
            },
        }
    }
}
