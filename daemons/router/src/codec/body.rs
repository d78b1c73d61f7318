//! Bodies: what belongs to one, and how it is written anew.

use super::Fault;
use super::chunks::Chunks;
use std::io::IoSlice;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; 0 for no body.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    UntilClose,
}

/// A body as it comes.
#[derive(Debug)]
pub(crate) enum Body {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

/// What a look at the next bytes of a body found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// So many bytes are dealt with.
    pub(crate) consumed: usize,
    /// So many bytes of content stand at their begin now.
    pub(crate) content: usize,
}

impl Body {
    /// Of an answer.
    pub(crate) fn new(framing: Framing) -> Self {
        Self::of(framing, false)
    }

    pub(crate) fn of_request(framing: Framing) -> Self {
        Self::of(framing, true)
    }

    fn of(framing: Framing, is_request: bool) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::new(is_request)),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether nothing more belongs to it.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Takes what belongs to the body; chunks are joined in place.
    pub(crate) fn take(&mut self, bytes: &mut [u8]) -> Result<Piece, Fault> {
        match self {
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                Ok(Piece { consumed: count, content: count })
            }
            Self::Chunked(chunks) => {
                let (consumed, content) = chunks.join(bytes)?;
                Ok(Piece { consumed, content })
            }
            Self::UntilClose => Ok(Piece { consumed: bytes.len(), content: bytes.len() }),
        }
    }

    /// The trailers after the last chunk: whole lines, valid ones alone.
    pub(crate) fn trailers(&self) -> &[u8] {
        match self {
            Self::Chunked(chunks) => chunks.trailers(),
            _ => b"",
        }
    }
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is: its length or the end of the connection tells its end.
    Plain,
    Chunked,
}

/// Room for the line of a chunk's size.
pub(crate) type SizeLine = [u8; 18];

impl Encoding {
    /// What to write for a piece of content, in order. `line` is room for what goes before it.
    pub(crate) fn slices<'a>(
        self,
        content: &'a [u8],
        is_last: bool,
        trailers: &'a [u8],
        line: &'a mut SizeLine,
    ) -> [IoSlice<'a>; 5] {
        const NOTHING: &[u8] = b"";
        let slices: [&[u8]; 5] = match self {
            Self::Plain => [content, NOTHING, NOTHING, NOTHING, NOTHING],
            Self::Chunked => {
                let (before, after): (&[u8], &[u8]) = match content.is_empty() {
                    true => (NOTHING, NOTHING),
                    false => (size_line(content.len(), line), b"\r\n"),
                };
                match is_last {
                    // One slice more would be needed for all parts on their own.
                    true if content.is_empty() => [b"0\r\n", trailers, b"\r\n", NOTHING, NOTHING],
                    true => [before, content, b"\r\n0\r\n", trailers, b"\r\n"],
                    false => [before, content, after, NOTHING, NOTHING],
                }
            }
        };
        slices.map(IoSlice::new)
    }
}

fn size_line(mut size: usize, line: &mut SizeLine) -> &[u8] {
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        line[at] = b"0123456789abcdef"[size & 15];
        size >>= 4;
        if size == 0 {
            return &line[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(encoding: Encoding, content: &[u8], is_last: bool, trailers: &[u8]) -> String {
        let mut line = SizeLine::default();
        let slices = encoding.slices(content, is_last, trailers, &mut line);
        String::from_utf8(slices.iter().flat_map(|slice| slice.to_vec()).collect()).unwrap()
    }

    #[test]
    fn written_anew() {
        let long = vec![b'x'; 0x1a2b];
        assert_eq!(written(Encoding::Plain, b"abc", true, b"A: b\r\n"), "abc");
        for (content, is_last, trailers, expected) in [
            (&b"abc"[..], false, &b""[..], "3\r\nabc\r\n"),
            (b"abc", true, b"", "3\r\nabc\r\n0\r\n\r\n"),
            (b"abc", true, b"A: b\r\n", "3\r\nabc\r\n0\r\nA: b\r\n\r\n"),
            (b"", true, b"A: b\r\n", "0\r\nA: b\r\n\r\n"),
            (b"", false, b"", ""),
        ] {
            assert_eq!(written(Encoding::Chunked, content, is_last, trailers), expected);
        }
        assert!(written(Encoding::Chunked, &long, false, b"").starts_with("1a2b\r\nxxx"));
    }

    #[test]
    fn known_lengths_and_open_ends() {
        let mut body = Body::new(Framing::Length(5));
        assert_eq!(body.take(&mut b"abc".to_vec()), Ok(Piece { consumed: 3, content: 3 }));
        assert_eq!(body.take(&mut b"deGET".to_vec()), Ok(Piece { consumed: 2, content: 2 }));
        assert!(body.is_done());
        assert!(Body::new(Framing::Length(0)).is_done());
        let mut open = Body::new(Framing::UntilClose);
        assert_eq!(open.take(&mut b"abc".to_vec()), Ok(Piece { consumed: 3, content: 3 }));
        assert!(!open.is_done());
    }
}
