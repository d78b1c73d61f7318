//! Listening sockets, inherited from systemd or bound here, and serving HTTP on them.

mod admission;
mod readers;
mod serve;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

pub use admission::{Limits, Untold, client, descriptors};
pub use readers::StatusReaders;
pub use serve::{HEADER_READ_TIMEOUT, Handlers, serve, serve_within};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address cannot be bound.
    #[error("bind {address}: {}", in_words(error))]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// The system's answer; told in this error's own text, hence no source.
        error: io::Error,
    },
    /// systemd handed over something that cannot be used.
    #[error("use inherited socket {name}")]
    Inherited {
        /// Its FileDescriptorName.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The environment says something about inherited sockets that makes no sense.
    #[error("read inherited sockets")]
    Environment(#[source] io::Error),
    /// Neither inherited nor configured.
    #[error("nothing to listen on for {0}: no inherited socket and no address")]
    Nothing(String),
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".into(),
        io::ErrorKind::AddrNotAvailable => "address not available on this host".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// The sockets that systemd handed over under `fd_name` (`FileDescriptorName=`), or else newly
/// bound ones. Within a runtime.
pub async fn listeners(fd_name: &str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let inherited = take_inherited(fd_name)?;
    let listeners: Vec<TcpListener> = if inherited.is_empty() {
        addresses.iter().map(|address| bind(*address, addresses)).collect::<Result<_, _>>()?
    } else {
        let wrong = |source| ListenError::Inherited { name: fd_name.to_owned(), source };
        inherited.into_iter().map(adopt).collect::<Result<_, _>>().map_err(wrong)?
    };
    if listeners.is_empty() {
        return Err(ListenError::Nothing(fd_name.to_owned()));
    }
    for listener in &listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(name = fd_name, %address, "listening on {address}");
        }
    }
    Ok(listeners)
}

fn adopt(fd: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(fd);
    // Fails on anything that is no internet socket.
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn bind(address: SocketAddr, all: &[SocketAddr]) -> Result<TcpListener, ListenError> {
    let try_bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // [::] would take IPv4 too, and then clash with 0.0.0.0 of the same port.
        let clash = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
        if address.ip() == IpAddr::from([0_u16; 8]) && all.iter().any(clash) {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    try_bind().map_err(|error| ListenError::Bind { address, error })
}

/// What systemd handed over and nobody has taken yet; none before the environment was read.
static INHERITED: Mutex<Option<Vec<(String, OwnedFd)>>> = Mutex::new(None);

/// The sockets that systemd handed over under `fd_name`, of whatever kind; none the second time.
pub fn take_inherited(fd_name: &str) -> Result<Vec<OwnedFd>, ListenError> {
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    let left = match inherited.as_mut() {
        Some(left) => left,
        None => inherited.insert(read_inherited().map_err(ListenError::Environment)?),
    };
    let before = std::mem::take(left);
    let (mine, others): (Vec<_>, Vec<_>) = before.into_iter().partition(|(name, _)| name == fd_name);
    if mine.is_empty() && !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|(name, _)| name.as_str()).collect();
        tracing::warn!(wanted = fd_name, inherited = ?names, "no inherited socket is named {fd_name}, binding the configured addresses");
    }
    *left = others;
    Ok(mine.into_iter().map(|(_, fd)| fd).collect())
}

#[allow(unsafe_code, reason = "an inherited descriptor is a number in the environment; somebody has to own it")]
fn read_inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    use std::os::fd::FromRawFd;
    let fds = sd_notify::listen_fds_with_names()?;
    // SAFETY: systemd passed these descriptors to this process (LISTEN_PID was compared) for it to
    // own, and `INHERITED` is filled once, so that each has exactly one owner.
    Ok(fds.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The number of an inherited descriptor is fixed (3), so it is a child process that inherits:
    /// this same test, started again by way of a shell that puts a socket at 3.
    #[tokio::test]
    async fn inherited_sockets_win() {
        use std::os::fd::AsRawFd;
        let name = "listen::tests::inherited_sockets_win";
        if let Ok(expected) = std::env::var("DINP_TEST_INHERITED") {
            let listeners = listeners("http", &[addr("127.0.0.1:0")]).await.unwrap();
            assert_eq!(listeners.len(), 1);
            assert_eq!(listeners[0].local_addr().unwrap().to_string(), expected);
            assert!(matches!(super::listeners("http", &[]).await, Err(ListenError::Nothing(_))), "taken once");
            return;
        }
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inheritable = nix::unistd::dup(&socket).unwrap();
        let script =
            format!("exec 3<&{}; LISTEN_PID=$$ exec \"$0\" --exact {name} --nocapture", inheritable.as_raw_fd());
        let status = crate::daemon::command("bash")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "http")
            .env("DINP_TEST_INHERITED", socket.local_addr().unwrap().to_string())
            .status()
            .await
            .unwrap();
        assert!(status.success());
    }

    #[tokio::test]
    async fn both_families_on_one_port() {
        let port = crate::testing::free_port();
        let addresses = [addr(&format!("0.0.0.0:{port}")), addr(&format!("[::]:{port}"))];
        assert_eq!(listeners("both", &addresses).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_used_address_is_named() {
        let used = listeners("used", &[addr("127.0.0.1:0")]).await.unwrap();
        let address = used[0].local_addr().unwrap();
        let error = listeners("used", &[address]).await.unwrap_err();
        assert_eq!(crate::error::ErrorChain(&error).to_string(), format!("bind {address}: address in use"));
    }
}
