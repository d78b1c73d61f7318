//! Where a chunked body ends, and that it is nothing but a chunked body.

use super::head::Fault;

/// Bytes of one line: a size with its extensions, or a trailer.
const MAX_LINE: usize = 4096;
/// Bytes of all trailers.
const MAX_TRAILERS: usize = 16_384;

/// Follows a chunked body as its bytes pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chunks {
    state: State,
    /// Bytes of the line so far.
    line: usize,
    /// Bytes of trailers so far.
    trailers: usize,
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
    /// Whether the body's last byte has passed.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes up to the body's end; says how many belong to it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data { left } = &mut self.state {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += step;
                *left -= step as u64;
                if *left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.next(bytes[at])?;
            at += 1;
        }
        Ok(at)
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
                self.trailers += self.line;
                self.line = 0;
                if self.trailers > MAX_TRAILERS { Err(BAD) } else { Ok(State::TrailerBegin) }
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

    /// Bytes that belong to the body, or none where it is malformed; however it is cut into pieces.
    fn run(bytes: &[u8], piece: usize) -> Option<(usize, bool)> {
        let mut chunks = Chunks::default();
        let mut total = 0;
        for part in bytes.chunks(piece) {
            let taken = chunks.feed(part).ok()?;
            total += taken;
            if taken < part.len() {
                break;
            }
        }
        Some((total, chunks.is_done()))
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
            prop_assert_eq!(run(bytes.as_bytes(), piece), run(bytes.as_bytes(), 1000));
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
            prop_assert_eq!(run(&body, 7), Some((body.len(), true)));
        }
    }
}
