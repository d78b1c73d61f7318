//! Reading and writing with a limit on the time in which nothing moves.

use super::buffer::Buffer;
use crate::timer::Timer;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// Where bytes come from, and the limit on waiting for them.
pub(super) type Source<'a, 'b> = (&'a mut ReadHalf<'b>, &'a mut Timer);
/// Where bytes go, and the limit on waiting for that.
pub(super) type Sink<'a, 'b> = (&'a mut WriteHalf<'b>, &'a mut Timer);

/// Waits until bytes or the end of the stream are there.
pub(super) async fn readable(stream: &TcpStream, timer: &mut Timer, limit: Duration) -> io::Result<()> {
    timer.stop();
    poll_fn(|cx| match stream.poll_read_ready(cx) {
        Poll::Pending => timer.poll(cx, limit).map(|()| Err(ErrorKind::TimedOut.into())),
        ready => ready,
    })
    .await
}

/// Reads once; 0 for the end of the stream.
pub(super) async fn fill(
    reader: &mut ReadHalf<'_>,
    buffer: &mut Buffer,
    timer: &mut Timer,
    limit: Duration,
) -> io::Result<usize> {
    timer.stop();
    poll_fn(|cx| match buffer.poll_fill(cx, Pin::new(&mut *reader)) {
        Poll::Pending => timer.poll(cx, limit).map(|()| Err(ErrorKind::TimedOut.into())),
        ready => ready,
    })
    .await
}

/// Most bytes that are put together before they are written.
const TOGETHER: usize = 1024;

/// A write that failed.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// Bytes that the kernel had taken before.
    pub(super) taken: usize,
    pub(super) source: io::Error,
}

/// Writes all of the slices, with as few calls as it takes.
pub(super) async fn write_all(
    writer: &mut WriteHalf<'_>,
    slices: &mut [IoSlice<'_>],
    timer: &mut Timer,
    limit: Duration,
) -> Result<(), Unwritten> {
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    if total > TOGETHER {
        return write_parts(writer, slices, timer, limit).await;
    }
    // What is small is cheaper to copy than to tell the kernel of in parts.
    let mut room = [0; TOGETHER];
    let mut end = 0;
    for slice in slices.iter() {
        room[end..end + slice.len()].copy_from_slice(slice);
        end += slice.len();
    }
    write_parts(writer, &mut [IoSlice::new(&room[..end])], timer, limit).await
}

async fn write_parts(
    writer: &mut WriteHalf<'_>,
    mut slices: &mut [IoSlice<'_>],
    timer: &mut Timer,
    limit: Duration,
) -> Result<(), Unwritten> {
    let mut taken = 0;
    IoSlice::advance_slices(&mut slices, 0);
    while let [first, rest @ ..] = &*slices {
        timer.stop();
        let is_alone = rest.iter().all(|slice| slice.is_empty());
        let written = poll_fn(|cx| {
            let writer = Pin::new(&mut *writer);
            let written = if is_alone { writer.poll_write(cx, first) } else { writer.poll_write_vectored(cx, slices) };
            match written {
                Poll::Pending => timer.poll(cx, limit).map(|()| Err(ErrorKind::TimedOut.into())),
                ready => ready,
            }
        });
        match written.await {
            Ok(0) => return Err(Unwritten { taken, source: ErrorKind::WriteZero.into() }),
            Err(source) => return Err(Unwritten { taken, source }),
            Ok(count) => {
                taken += count;
                IoSlice::advance_slices(&mut slices, count);
            }
        }
    }
    Ok(())
}
