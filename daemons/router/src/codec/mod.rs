//! HTTP/1 as bytes: heads, bodies, and what may not be read in two ways. Pure; sockets are elsewhere.
//!
//! What two parsers could read differently is an attack, so it is refused: of requests with a [`Fault`], of answers as no
//! answer at all. Nothing that was read goes on as it came: heads and chunks are written anew from what was understood.
//! Rules: RFC 9110, RFC 9112.

mod body;
mod chunks;
mod fault;
mod forwarded;
pub(crate) mod headers;
pub(crate) mod host;
mod introduction;
#[cfg(test)]
mod mutations;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(crate) use body::{Body, Encoding, Framing, SizeLine};
pub(crate) use fault::Fault;
pub(crate) use introduction::Introduction;
pub(crate) use request::{Request, Scan};
pub(crate) use response::{Answer, Response};

/// The header lines of a head, from after its first line to the empty one: names and trimmed values. Only of a head that
/// was found valid.
pub(crate) fn fields(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Whether a comma-separated list has a word.
pub(crate) fn has_token(list: &[u8], token: &[u8]) -> bool {
    tokens(list).any(|word| word.eq_ignore_ascii_case(token))
}

/// The words of a comma-separated list.
pub(crate) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

/// A character of a method or of a header's name.
fn is_token(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            #[allow(clippy::cast_possible_truncation, reason = "below 256")]
            let one = byte as u8;
            table[byte] = one.is_ascii_alphanumeric()
                || matches!(
                    one,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
            byte += 1;
        }
        table
    };
    TABLE[usize::from(byte)]
}

fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token(*byte))
}

/// Whether a header's value holds nothing that ends a line or a text.
fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte >= b' ' && *byte != 0x7f || *byte == b'\t')
}

/// A number of bytes: digits alone, and no more of them than fit.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
