//! A connection that has become something else: bytes go both ways until one side ends, or none has moved for long.

use super::buffer::Buffers;
use super::wire::{fill, readable, write_all};
use crate::proxy::Connection;
use crate::table::InFlight;
use crate::timer::Timer;
use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// The instance's side of an upgraded connection; in flight as long as it lives.
pub(crate) struct Tunnel {
    app: Connection,
    /// What the instance has said behind its agreement.
    said: Vec<u8>,
    _in_flight: InFlight,
}

/// What both directions of a tunnel share.
struct Shared<'a> {
    buffers: &'a Rc<Buffers>,
    moved: Cell<Instant>,
    limit: Duration,
}

impl Tunnel {
    pub(super) fn new(app: Connection, said: Vec<u8>, in_flight: InFlight) -> Self {
        Self { app, said, _in_flight: in_flight }
    }

    /// Carries bytes until the end. `limit` is the longest silence in both directions.
    pub(super) async fn run(mut self, mut client: TcpStream, buffers: &Rc<Buffers>, limit: Duration) -> io::Result<()> {
        let shared = Shared { buffers, moved: Cell::new(Instant::now()), limit };
        let (mut client_reader, mut client_writer) = client.split();
        let (mut app_reader, mut app_writer) = self.app.stream.split();
        let up = shared.carry(&mut client_reader, &mut app_writer, b"");
        let down = shared.carry(&mut app_reader, &mut client_writer, &self.said);
        tokio::try_join!(up, down).map(drop)
    }
}

impl Shared<'_> {
    async fn carry(&self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, first: &[u8]) -> io::Result<()> {
        let mut timer = Timer::default();
        write_all(to, &mut [IoSlice::new(first)], &mut timer, self.limit)
            .await
            .map_err(|unwritten| unwritten.source)?;
        loop {
            self.wait(from, &mut timer).await?;
            // Room is held only while there are bytes.
            let mut buffer = self.buffers.take();
            if fill(from, &mut buffer, &mut timer, self.limit).await? == 0 {
                return to.shutdown().await;
            }
            self.moved.set(Instant::now());
            let mut slices = [IoSlice::new(buffer.data())];
            let written = write_all(to, &mut slices, &mut timer, self.limit).await;
            written.map_err(|unwritten| unwritten.source)?;
        }
    }

    /// Waits for bytes; one side may be silent for as long as the other is not.
    async fn wait(&self, from: &ReadHalf<'_>, timer: &mut Timer) -> io::Result<()> {
        loop {
            let left = self.limit.saturating_sub(self.moved.get().elapsed());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            match readable(from.as_ref(), timer, left).await {
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                other => return other,
            }
        }
    }
}
