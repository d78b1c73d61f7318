//! How a proxy in front says for whom it has connected: the PROXY protocol, versions 1 and 2 (haproxy.org,
//! proxy-protocol.txt, 2020).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, with its end.
const LINE: usize = 107;
/// Fixed part of version 2.
const FIXED: usize = 16;
/// Most bytes of version 2 behind the fixed part: addresses, and what a proxy adds of TLS.
const MOST: usize = 4096;

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// It ends here. The client is none for a connection of the proxy's own, or of a kind that has no address.
    Complete(Option<SocketAddr>, usize),
    /// Nothing wrong yet.
    Partial,
    /// It is none: what follows could be anybody's.
    Garbage,
}

impl Introduction {
    /// Reads it from the begin of `bytes`.
    pub(crate) fn scan(bytes: &[u8]) -> Self {
        let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
        if begins(SIGNATURE) {
            binary(bytes)
        } else if begins(b"PROXY ") {
            line(bytes)
        } else {
            Self::Garbage
        }
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 4711 80`.
fn line(bytes: &[u8]) -> Introduction {
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE)]) else {
        return if bytes.len() < LINE { Introduction::Partial } else { Introduction::Garbage };
    };
    let found = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok()).and_then(client);
    found.map_or(Introduction::Garbage, |client| Introduction::Complete(client, end + 1))
}

fn client(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, target) = (words.next()?.parse::<IpAddr>().ok()?, words.next()?.parse::<IpAddr>().ok()?);
    let (port, _) = (number(words.next()?)?, number(words.next()?)?);
    let is_sound = match family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    (is_sound && words.next().is_none()).then(|| Some(SocketAddr::new(source, port)))
}

/// A port as it must be written: no sign, no zero before it.
fn number(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Version 2.
fn binary(bytes: &[u8]) -> Introduction {
    let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Introduction::Partial };
    let [.., order, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(order, 0x20 | 0x21) || length > MOST {
        return Introduction::Garbage;
    }
    let Some(rest) = bytes.get(FIXED..FIXED + length) else { return Introduction::Partial };
    let end = FIXED + length;
    // What follows the addresses is of no use here. A connection of the proxy's own says nothing of anybody.
    let client = match (order, family) {
        (0x20, _) => None,
        (_, 0x11) => match address(rest, |octets: [u8; 4]| Ipv4Addr::from(octets).into()) {
            Some(client) => Some(client),
            None => return Introduction::Garbage,
        },
        (_, 0x21) => match address(rest, |octets: [u8; 16]| Ipv6Addr::from(octets).into()) {
            Some(client) => Some(client),
            None => return Introduction::Garbage,
        },
        (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        _ => return Introduction::Garbage,
    };
    Introduction::Complete(client, end)
}

/// Source of a block of source, target and their ports.
fn address<const N: usize>(block: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Option<SocketAddr> {
    let source = *block.first_chunk::<N>()?;
    let ports = block.get(2 * N..2 * N + 4)?;
    Some(SocketAddr::new(ip(source), u16::from_be_bytes([ports[0], ports[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(order: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[order, family][..], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 0, 80];

    #[test]
    fn what_is_understood() {
        let four = Some("192.0.2.1:4711".parse().unwrap());
        let six = Some("[2001:db8::1]:4711".parse().unwrap());
        let mut block = [0; 36];
        block[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        (block[15], block[32], block[33]) = (1, 0x12, 0x67);
        let longer = [&V4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n".to_vec(), four),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 80\r\n".to_vec(), six),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, &V4), four),
            (v2(0x21, 0x11, &longer), four),
            (v2(0x21, 0x21, &block), six),
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, &V4), None),
            (v2(0x21, 0x00, b""), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let whole = Introduction::Complete(client, bytes.len());
            let more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(Introduction::scan(&more), whole, "{}", String::from_utf8_lossy(&bytes));
            for cut in 0..bytes.len() {
                assert_eq!(Introduction::scan(&bytes[..cut]), Introduction::Partial, "{cut} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\nHost: a.x\r\n\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 4711 80\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 4711 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80 \r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 4711 80\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 4711 80\r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.2 4711 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +471 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 04711 80\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 4711 80\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(Introduction::scan(line.as_bytes()), Introduction::Garbage, "{line}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107));
        assert_eq!(Introduction::scan(long.as_bytes()), Introduction::Garbage);
        for bytes in [v2(0x11, 0x11, &V4), v2(0x22, 0x11, &V4), v2(0x21, 0x41, &V4), v2(0x21, 0x11, &V4[..11])] {
            assert_eq!(Introduction::scan(&bytes), Introduction::Garbage, "{bytes:?}");
        }
        assert_eq!(Introduction::scan(&v2(0x21, 0x11, &[0; 5000])), Introduction::Garbage);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..300), begin in 0_usize..3) {
            let begin: &[u8] = [&b""[..], b"PROXY ", SIGNATURE][begin];
            let all = [begin, &bytes].concat();
            let found = Introduction::scan(&all);
            if let Introduction::Complete(_, end) = found {
                prop_assert!(end <= all.len());
                // The same bytes say the same, whatever comes behind them.
                prop_assert_eq!(Introduction::scan(&all[..end]), found);
            }
        }
    }
}
