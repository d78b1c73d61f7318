//! Where a chunked body ends, what its content is, and that it is nothing but a chunked body.

use super::headers::is_claim;
use super::{Fault, is_name, is_value};

/// Bytes of one line: a size with its extensions, or a trailer.
const MAX_LINE: usize = 4096;
/// Bytes of all trailers.
const MAX_TRAILERS: usize = 16_384;

/// Headers that are no trailers: they say where a message ends, where it goes, or who sends it. RFC 9110, 6.5.1.
const NOT_TRAILERS: [&str; 9] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "transfer-encoding",
    "x-request-id",
];

/// Follows a chunked body as its bytes come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chunks {
    state: State,
    /// Bytes of the line so far.
    line: usize,
    /// The trailers so far, as they came.
    trailers: Vec<u8>,
    /// It is a client's: what it could claim of itself in a header is no trailer either.
    is_request: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the size, with the digits so far.
    Size {
        value: u64,
        digits: u8,
    },
    /// In an extension.
    Extension {
        value: u64,
    },
    /// After the CR of the size's line.
    SizeEnd {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the begin of a trailer's line, or of the last, empty one.
    TrailerBegin,
    Trailer,
    TrailerLf,
    /// After the CR of the last line.
    LastLf,
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0 }
    }
}

impl Chunks {
    pub(crate) fn new(is_request: bool) -> Self {
        Self { is_request, ..Self::default() }
    }

    /// Whether the body's last byte has passed.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes up to the body's end, and moves the content of the chunks together at their begin. Says how many bytes
    /// belong to the body, and how many of content there are.
    pub(crate) fn join(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        let (mut at, mut content) = (0, 0);
        while at < bytes.len() && !self.is_done() {
            if let State::Data { left } = &mut self.state {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                bytes.copy_within(at..at + step, content);
                at += step;
                content += step;
                *left -= step as u64;
                if *left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let before = self.state;
            self.state = self.next(bytes[at])?;
            let ends_trailer = before == State::TrailerLf;
            if ends_trailer || matches!(self.state, State::Trailer | State::TrailerLf) {
                self.trailers.push(bytes[at]);
            }
            at += 1;
        }
        if self.is_done() {
            self.keep_trailers();
        }
        Ok((at, content))
    }

    /// The trailers that may go on, whole lines; all there are when the body is done.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn keep_trailers(&mut self) {
        let is_request = self.is_request;
        let is_good = |line: &[u8]| {
            let Some(colon) = memchr::memchr(b':', line) else { return false };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            let is_other = |other: &&str| !name.eq_ignore_ascii_case(other.as_bytes());
            is_name(name)
                && is_value(value)
                && !(is_request && is_claim(name, false))
                && NOT_TRAILERS.iter().all(is_other)
        };
        let lines = std::mem::take(&mut self.trailers);
        let lines = lines.split_inclusive(|byte| *byte == b'\n');
        let good = lines.filter(|line| line.strip_suffix(b"\r\n").is_some_and(is_good));
        self.trailers = good.flatten().copied().collect();
    }

    fn next(&mut self, byte: u8) -> Result<State, Fault> {
        const BAD: Fault = Fault::bad("the chunks of the body are malformed");
        self.line += 1;
        if self.line > MAX_LINE {
            return Err(BAD);
        }
        match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                if digits >= 15 {
                    return Err(BAD);
                }
                Ok(State::Size { value: value << 4 | digit, digits: digits + 1 })
            }
            (State::Size { value, digits: 1.. }, b';') => Ok(State::Extension { value }),
            (State::Size { value, digits: 1.. } | State::Extension { value }, b'\r') => Ok(State::SizeEnd { value }),
            (State::Extension { value }, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Extension { value }),
            (State::SizeEnd { value }, b'\n') => {
                self.line = 0;
                Ok(if value == 0 { State::TrailerBegin } else { State::Data { left: value } })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::default())
            }
            (State::TrailerBegin, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::Done),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerLf, b'\n') => {
                self.line = 0;
                if self.trailers.len() > MAX_TRAILERS { Err(BAD) } else { Ok(State::TrailerBegin) }
            }
            (State::TrailerBegin, b'!'..=b'~') | (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Trailer),
            _ => Err(BAD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that belong to the body, its content and trailers; none where it is malformed. However it is cut.
    fn read(bytes: &[u8], piece: usize) -> Option<(usize, bool, Vec<u8>, String)> {
        let mut chunks = Chunks::default();
        let (mut total, mut content) = (0, Vec::new());
        for part in bytes.chunks(piece) {
            let mut part = part.to_vec();
            let (taken, joined) = chunks.join(&mut part).ok()?;
            content.extend_from_slice(&part[..joined]);
            total += taken;
            if taken < part.len() {
                break;
            }
        }
        let trailers = String::from_utf8_lossy(chunks.trailers()).into_owned();
        Some((total, chunks.is_done(), content, trailers))
    }

    fn run(bytes: &[u8], piece: usize) -> Option<(usize, bool)> {
        read(bytes, piece).map(|(total, is_done, ..)| (total, is_done))
    }

    #[test]
    fn content_and_trailers() {
        let body = "3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\nHost: c\r\nno colon\r\nB:\r\n\r\n";
        for piece in [1, 2, 7, 100] {
            let (_, is_done, content, trailers) = read(body.as_bytes(), piece).unwrap();
            assert!(is_done);
            assert_eq!((content.as_slice(), trailers.as_str()), (&b"abcde"[..], "A: b\r\nB:\r\n"));
        }
    }

    #[test]
    fn bodies() {
        for (body, rest) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET"),
            ("a;x=\"y\"\r\n0123456789\r\n000\r\n\r\n", "x"),
            ("1\r\n\n\r\n0\r\nA: b\r\nC: d\r\n\r\n", "\r\n"),
        ] {
            for piece in [1, 2, 3, 100] {
                let all = format!("{body}{rest}");
                assert_eq!(run(all.as_bytes(), piece), Some((body.len(), true)), "{all:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn malformed() {
        for body in [
            "\r\n",
            ";\r\n",
            "g\r\n",
            "0x5\r\nhello",
            " 5\r\nhello",
            "5 \r\nhello",
            "-1\r\n",
            "5\nhello",
            "5\rhello",
            "5\r\nhello\n",
            "5\r\nhelloX",
            "5\r\nhello\rX",
            "1000000000000000\r\n",
            "0\r\n\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0;\n\r\n",
            "5;a\x00b\r\nhello",
        ] {
            assert_eq!(run(body.as_bytes(), 1), None, "{body:?}");
            assert_eq!(run(body.as_bytes(), 100), None, "{body:?}");
        }
        assert_eq!(run(format!("1;{}\r\n", "x".repeat(5000)).as_bytes(), 100), None);
        assert_eq!(run(format!("0\r\n{}\r\n", "A: b\r\n".repeat(5000)).as_bytes(), 100), None);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in "([0-9a-f;\r\n]|\r\n|0\r\n\r\n|1\r\nx\r\n){0,12}", piece in 1_usize..7) {
            prop_assert_eq!(read(bytes.as_bytes(), piece), read(bytes.as_bytes(), 1000));
        }

        #[test]
        fn what_is_well_formed_passes(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..5)) {
            let mut body = Vec::new();
            for part in &parts {
                body.extend(format!("{:x}\r\n", part.len()).bytes());
                body.extend(part);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            prop_assert_eq!(read(&body, 7), Some((body.len(), true, parts.concat(), String::new())));
        }
    }
}
