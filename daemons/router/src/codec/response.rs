//! The head of an answer of an app.

use super::body::Framing;
use super::{decimal, is_name, is_value, tokens};
use std::ops::Range;

/// A head that is understood. Places are those in the bytes that were scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) reason: Range<usize>,
    /// The lines after the first, with the empty one at the end; the head ends with them.
    pub(crate) lines: Range<usize>,
    pub(crate) framing: Framing,
    /// What Content-Length says, with a body or without one.
    pub(crate) length: Option<u64>,
    /// Codings below `chunked`, as in `gzip, chunked`.
    pub(crate) is_coded: bool,
    /// Whether the app takes another request on this connection.
    pub(crate) keeps_alive: bool,
    /// Whether Connection names other headers, that end here.
    pub(crate) names_headers: bool,
}

/// What a scan of the bytes so far finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A whole head.
    Complete(Response),
    /// More has to come. Lines up to here have been looked at.
    Partial(usize),
    /// It is no answer.
    Garbage,
}

impl Response {
    /// Looks for a head at the begin of `bytes`, of which lines up to `scanned` have been seen before. `to_head` says
    /// that the request was a HEAD: its answer has no body.
    ///
    /// Lines may end in LF alone: programs that print their own headers do that, and here they get their CR.
    pub(crate) fn scan(bytes: &[u8], scanned: usize, to_head: bool) -> Answer {
        let mut line = scanned;
        while let Some(length) = memchr::memchr(b'\n', &bytes[line..]) {
            let end = line + length;
            let is_empty = end == line || (end == line + 1 && bytes[line] == b'\r');
            if is_empty {
                let response = Self::parse(bytes, end + 1, to_head);
                return response.map_or(Answer::Garbage, Answer::Complete);
            }
            line = end + 1;
        }
        const BEGIN: &[u8] = b"HTTP/1.";
        let known = bytes.len().min(BEGIN.len());
        if bytes[..known] == BEGIN[..known] { Answer::Partial(line) } else { Answer::Garbage }
    }

    fn parse(bytes: &[u8], end: usize, to_head: bool) -> Option<Self> {
        let first = memchr::memchr(b'\n', &bytes[..end])? + 1;
        let (is_old, status, reason) = status_line(trim_end(&bytes[..first]))?;
        let mut found = Fields::default();
        for line in bytes[first..end].split_inclusive(|byte| *byte == b'\n').map(trim_end) {
            if !line.is_empty() {
                found.add(line)?;
            }
        }
        let Fields { length, codings, is_chunked, close, keep_alive, names_headers } = found;
        // Codings of which chunked is not the last end with the connection; HTTP/1.0 knows none.
        if codings > 0 && (is_old || !is_chunked) {
            return None;
        }
        let has_none = to_head || status < 200 || matches!(status, 204 | 304);
        let framing = match length {
            _ if has_none => Framing::Length(0),
            _ if codings > 0 => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        };
        let is_doubtful = codings > 0 && length.is_some();
        Some(Self {
            status,
            reason,
            lines: first..end,
            framing,
            // The chunks count, whatever length is claimed beside them.
            length: length.filter(|_| codings == 0),
            is_coded: codings > 1,
            keeps_alive: !close && (!is_old || keep_alive) && framing != Framing::UntilClose && !is_doubtful,
            names_headers,
        })
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether it is HTTP/1.0, the status, and where the reason stands.
fn status_line(line: &[u8]) -> Option<(bool, u16, Range<usize>)> {
    let is_old = match line.get(..9)? {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return None,
    };
    let digits = line.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    let reason = match line.get(12) {
        None => 12..12,
        Some(b' ') => 13..line.len(),
        Some(_) => return None,
    };
    ((100..=999).contains(&status) && is_value(&line[reason.clone()])).then_some((is_old, status, reason))
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    /// Transfer codings.
    codings: u32,
    /// The last of them is chunked, and no other one is.
    is_chunked: bool,
    close: bool,
    keep_alive: bool,
    names_headers: bool,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Option<()> {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_name(name) || !is_value(value) {
            return None;
        }
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            10 if is(b"connection") => {
                for token in tokens(value) {
                    let is = |word: &[u8]| token.eq_ignore_ascii_case(word);
                    match token.len() {
                        5 if is(b"close") => self.close = true,
                        7 if is(b"upgrade") => {}
                        10 if is(b"keep-alive") => self.keep_alive = true,
                        _ => self.names_headers = true,
                    }
                }
            }
            14 if is(b"content-length") => {
                let length = decimal(value)?;
                if self.length.replace(length).is_some_and(|before| before != length) {
                    return None;
                }
            }
            17 if is(b"transfer-encoding") => {
                for coding in tokens(value) {
                    if self.is_chunked {
                        return None;
                    }
                    self.codings += 1;
                    self.is_chunked = coding.eq_ignore_ascii_case(b"chunked");
                }
            }
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Answer {
        Response::scan(text.as_bytes(), 0, false)
    }

    fn framing(lines: &str) -> Option<(Framing, bool)> {
        match scan(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n")) {
            Answer::Complete(response) => Some((response.framing, response.keeps_alive)),
            _ => None,
        }
    }

    #[test]
    fn heads() {
        let text = "HTTP/1.0 404 Not there\r\nA: b\r\n\r\nrest";
        let Answer::Complete(response) = scan(text) else { panic!("{:?}", scan(text)) };
        assert_eq!(
            (response.status, &text[response.reason.clone()], &text[response.lines.end..]),
            (404, "Not there", "rest")
        );
        assert_eq!(&text[response.lines], "A: b\r\n\r\n");
        assert_eq!((response.framing, response.keeps_alive), (Framing::UntilClose, false));
        for text in ["HTTP/1.1 200\n\n", "HTTP/1.1 200 \r\n\r\n", "HTTP/1.1 299 \u{e4}\nA:\n\n"] {
            assert!(matches!(scan(text), Answer::Complete(..)), "{text:?}");
        }
        for text in ["", "H", "HTTP/1.", "HTTP/1.1 200 OK\r\nA: b\r\n"] {
            assert!(matches!(scan(text), Answer::Partial(_)), "{text:?}");
        }
        for text in [
            "x",
            "HTTP/2",
            "SSH-2.0\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(scan(text), Answer::Garbage, "{text:?}");
        }
    }

    #[test]
    fn framings() {
        use Framing::{Chunked, Length, UntilClose};
        for (lines, expected) in [
            ("", Some((UntilClose, false))),
            ("Content-Length: 5\r\n", Some((Length(5), true))),
            ("content-length: 5\r\nContent-Length: 5\r\n", Some((Length(5), true))),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", None),
            ("Content-Length: 5, 5\r\n", None),
            ("Content-Length: +5\r\n", None),
            ("Content-Length:\r\n", None),
            ("Transfer-Encoding: chunked\r\n", Some((Chunked, true))),
            ("Transfer-Encoding: gzip, Chunked\r\n", Some((Chunked, true))),
            ("Transfer-Encoding: chunked, gzip\r\n", None),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", None),
            ("Transfer-Encoding: gzip\r\n", None),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Some((Chunked, false))),
            ("Content-Length: 5\r\nConnection: x, Close\r\n", Some((Length(5), false))),
        ] {
            assert_eq!(framing(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_has_no_body() {
        for (status, to_head) in [(200, true), (204, false), (304, false), (103, false)] {
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
            let answer = Response::scan(text.as_bytes(), 0, to_head);
            let Answer::Complete(response) = answer else { panic!("{answer:?}") };
            assert_eq!((response.framing, response.length), (Framing::Length(0), Some(5)), "{status}");
            assert!(response.keeps_alive);
        }
        let wrong = "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n";
        assert_eq!(Response::scan(wrong.as_bytes(), 0, true), Answer::Garbage, "for a HEAD, too");
    }
}
