//! The body of an answer on its way to the client.

use super::buffer::Buffer;
use super::wire::{Sink, Source, fill, write_all};
use crate::codec::{Body, Encoding, SizeLine};
use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

/// Writes the head, and passes the body on to its end. `sent` counts its content.
pub(super) async fn relay(
    (app, read_timer): Source<'_, '_>,
    (client, write_timer): Sink<'_, '_>,
    buffer: &mut Buffer,
    (body, encoding): (&mut Body, Encoding),
    mut head: &[u8],
    sent: &Cell<u64>,
    limit: Duration,
) -> io::Result<()> {
    let mut is_over = false;
    loop {
        let piece = body.take(buffer.data_mut()).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        let is_last = body.is_done() || is_over;
        let mut line = SizeLine::default();
        let content = &buffer.data()[..piece.content];
        let mut slices = [IoSlice::new(head); 6];
        slices[1..].copy_from_slice(&encoding.slices(content, is_last, body.trailers(), &mut line));
        write_all(client, &mut slices, write_timer, limit).await.map_err(|unwritten| unwritten.source)?;
        head = b"";
        sent.set(sent.get() + piece.content as u64);
        buffer.consume(piece.consumed);
        if is_last {
            return Ok(());
        }
        match fill(app, buffer, read_timer, limit).await? {
            0 if body.ends_with_connection() => is_over = true,
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}
