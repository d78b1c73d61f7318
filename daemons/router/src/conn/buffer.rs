//! Room for bytes on their way. A buffer has some only while there are bytes in it; a worker keeps what is free for the next
//! one that needs it, which thus finds it in the processor's cache.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of one buffer: what a download that nobody reads may hold.
pub(crate) const SIZE: usize = 65_536;
/// Free buffers that a worker keeps.
const MOST_FREE: usize = 64;

/// The free buffers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer.
    pub(crate) fn take(self: &Rc<Self>) -> Buffer {
        Buffer { bytes: Vec::new(), start: 0, end: 0, home: self.clone() }
    }
}

/// Bytes that were read and not dealt with yet.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    home: Rc<Buffers>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_room_back();
    }
}

impl Buffer {
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// These bytes are dealt with.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.give_room_back();
        }
    }

    fn give_room_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.home.0.borrow_mut();
        // One that had to grow for a large head does not stay.
        if bytes.len() == SIZE && free.len() < MOST_FREE {
            free.push(bytes);
        }
    }

    /// Reads once behind what there is; grows where there is no room. Says how many bytes came, 0 for the end. While it has
    /// to wait with nothing in it, it needs no room.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        reader: Pin<&mut impl AsyncRead>,
    ) -> Poll<io::Result<usize>> {
        if self.end == self.bytes.len() {
            self.make_room();
        }
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        let read = reader.poll_read(cx, &mut room);
        let count = room.filled().len();
        if read.is_pending() && self.is_empty() {
            self.give_room_back();
        }
        ready!(read)?;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.is_empty() {
            let free = self.home.0.borrow_mut().pop();
            self.bytes = free.unwrap_or_else(|| vec![0; SIZE]);
        } else if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::poll_fn;

    fn fill(buffer: &mut Buffer, mut from: &[u8]) -> usize {
        let read = poll_fn(|cx| buffer.poll_fill(cx, Pin::new(&mut from)));
        read.now_or_never().unwrap().unwrap()
    }

    #[test]
    fn bytes_in_and_out() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.take();
        assert_eq!(fill(&mut buffer, b"abc"), 3);
        buffer.consume(1);
        assert_eq!(fill(&mut buffer, b"de"), 2);
        assert_eq!(buffer.data(), b"bcde");
        assert_eq!(fill(&mut buffer, b""), 0, "the end");
        buffer.consume(4);
        assert!(buffer.is_empty());
        drop(buffer);
        assert_eq!(buffers.0.borrow().len(), 1);
    }

    #[test]
    fn who_waits_with_nothing_holds_nothing() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.take();
        let (reader, _writer) = tokio::io::simplex(10);
        let mut reader = std::pin::pin!(reader);
        let read = poll_fn(|cx| buffer.poll_fill(cx, reader.as_mut()));
        assert!(read.now_or_never().is_none());
        assert_eq!((buffer.bytes.len(), buffers.0.borrow().len()), (0, 1));
        assert_eq!(fill(&mut buffer, b"abc"), 3);
        assert_eq!((buffer.data(), buffers.0.borrow().len()), (&b"abc"[..], 0));
    }

    #[test]
    fn a_large_head_gets_room_that_is_not_kept() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.take();
        let much = vec![1; 10 * SIZE];
        assert_eq!(fill(&mut buffer, &much), SIZE);
        buffer.consume(10);
        assert_eq!(fill(&mut buffer, &much), 10, "what was dealt with makes room");
        assert_eq!(fill(&mut buffer, &much), SIZE);
        assert_eq!(buffer.data().len(), 2 * SIZE);
        drop(buffer);
        assert!(buffers.0.borrow().is_empty());
    }
}
