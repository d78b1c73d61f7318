//! What the processes of a container listen on, as the kernel tells of their network.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Docker's own resolver listens here in every container of a network.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The state `LISTEN` in the kernel's tables.
const LISTEN: &str = "0A";

/// Longest list of other addresses in a sentence.
const NAMED: usize = 5;

/// Says where a container listens instead, if nothing listens on its port for others; `pid` is any of its processes.
/// None where it listens nowhere, or the kernel does not tell.
pub fn instead(pid: i64, port: u16) -> Option<String> {
    let table = |name: &str| std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(name));
    let tables = [table("net/tcp").ok()?, table("net/tcp6").unwrap_or_default()];
    sentence(&listening(&tables), port)
}

fn sentence(listening: &BTreeSet<(IpAddr, u16)>, port: u16) -> Option<String> {
    let own: Vec<_> = listening.iter().filter(|(_, own)| *own == port).collect();
    if let Some((address, _)) = own.first() {
        return own.iter().all(|(address, _)| address.is_loopback()).then(|| format!("it listens on {address} only"));
    }
    let others = listening.iter().map(|(address, port)| match address {
        address if address.is_loopback() => format!("{address}:{port}"),
        _ => port.to_string(),
    });
    let others: BTreeSet<String> = others.collect();
    let named: Vec<_> = others.into_iter().take(NAMED).collect();
    (!named.is_empty()).then(|| format!("it listens on {}", named.join(", ")))
}

/// The sockets of the kernel's tables that wait for connections, without the resolver's.
fn listening(tables: &[String]) -> BTreeSet<(IpAddr, u16)> {
    let entries = tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(entry);
    entries.filter(|(address, _)| *address != RESOLVER).collect()
}

/// `0: 0100007F:1F90 00000000:0000 0A ...`: slot, local address, remote one, state.
fn entry(line: &str) -> Option<(IpAddr, u16)> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    Some((parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Words of four bytes, each in the order of the machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue\n";

    /// The kernel's line, as machines of little-endian order have it.
    fn line(address: &str, port: u16, state: &str) -> String {
        format!("   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000\n")
    }

    fn said(lines: &[String]) -> Option<String> {
        sentence(&listening(&[format!("{HEAD}{}", lines.concat())]), 8080)
    }

    const ANY: &str = "00000000";
    const LOOPBACK: &str = "0100007F";

    #[test]
    fn an_app_on_another_port_is_told() {
        assert_eq!(said(&[line(ANY, 5000, "0A")]).as_deref(), Some("it listens on 5000"));
        let any6 = "0".repeat(32);
        assert_eq!(said(&[line(&any6, 3000, "0A"), line(ANY, 3000, "0A")]).as_deref(), Some("it listens on 3000"));
        assert_eq!(said(&[line(LOOPBACK, 5000, "0A")]).as_deref(), Some("it listens on 127.0.0.1:5000"));
    }

    #[test]
    fn an_app_on_loopback_only_is_told() {
        assert_eq!(said(&[line(LOOPBACK, 8080, "0A")]).as_deref(), Some("it listens on 127.0.0.1 only"));
        let loopback6 = format!("{}01000000", "0".repeat(24));
        assert_eq!(said(&[line(&loopback6, 8080, "0A")]).as_deref(), Some("it listens on ::1 only"));
        assert_eq!(said(&[line(LOOPBACK, 8080, "0A"), line(ANY, 8080, "0A")]), None);
    }

    #[test]
    fn connections_and_the_resolver_of_docker_are_no_listeners() {
        assert_eq!(said(&[line(ANY, 5000, "01"), line("0B00007F", 40000, "0A")]), None);
        assert_eq!(said(&["nonsense\n".into(), String::new()]), None);
    }

    #[test]
    fn the_kernel_tells_of_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = std::process::id().into();
        assert_eq!(instead(own, port).as_deref(), Some("it listens on 127.0.0.1 only"));
        assert_eq!(instead(i64::MAX, port), None);
    }
}
