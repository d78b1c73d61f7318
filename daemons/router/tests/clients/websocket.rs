//! As much of RFC 6455 as an app needs that says what it hears.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LAST: u8 = 0x80;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// The answer to a client that asks for a websocket, and in the same piece a first message: that must not be lost on the
/// way, whoever reads the head.
pub fn agreement(key: &str) -> Vec<u8> {
    let accept = STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    [head.as_bytes(), &frame(LAST | TEXT, b"welcome")].concat()
}

/// Sends each frame back as it came, until one says that it is the last.
pub async fn echo(stream: &mut TcpStream, bytes: &mut Vec<u8>) {
    loop {
        while let Some((first, content, end)) = parse(bytes) {
            bytes.drain(..end);
            if stream.write_all(&frame(first, &content)).await.is_err() || first & 15 == CLOSE {
                return;
            }
        }
        if !matches!(stream.read_buf(bytes).await, Ok(1..)) {
            return;
        }
    }
}

/// A frame as a server sends it: without a mask.
fn frame(first: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => vec![first, short],
        (_, Ok(middle)) => [&[first, 126][..], &middle.to_be_bytes()].concat(),
        _ => [&[first, 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&head[..], content].concat()
}

/// The first frame of a client: its first byte, its content, and where it ends.
fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    assert_eq!(second & 0x80, 0x80, "a client masks");
    let (length, rest) = match second & 0x7f {
        126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        short => (u64::from(short), rest),
    };
    let length = usize::try_from(length).unwrap();
    let (mask, rest) = rest.split_first_chunk::<4>()?;
    let content = rest.get(..length)?;
    let content = content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((first, content, bytes.len() - rest.len() + length))
}
