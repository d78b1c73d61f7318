//! A worker's connections to instances.
//!
//! They are kept by instance id, never by address: an address without its instance could be anybody's.

use crate::config::InForce;
use crate::table::{Address, Endpoint};
use dinp_common::model::InstanceId;
use foldhash::fast::RandomState;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long an idle connection is good for a request that may not be sent twice. An app closes idle connections after
/// some seconds, two at the least in what is widely used; the request that crosses that close is lost.
const SURELY_OPEN: Duration = Duration::from_secs(1);

/// Silence after which the kernel asks whether the other host is still there, and the time between its questions.
const KEEP_ALIVE: (u32, u32, u32) = (5, 1, 3);

/// One connection, ready for a request.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// Whether it has carried a request before.
    pub(crate) is_reused: bool,
    patience: Duration,
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        // A host that has died says nothing: without this a request that waits for its answer would wait for long.
        let (idle, interval, count) = KEEP_ALIVE;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &idle)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &interval)?;
        setsockopt(&stream, sockopt::TcpKeepCount, &count)?;
        Ok(Self { stream, is_reused: false, patience: Duration::MAX })
    }

    /// How long what is sent may go unacknowledged by the other host. Not to be short while a body is sent: the kernel
    /// takes an app that does not read for a while for one that is gone.
    pub(crate) fn set_patience(&mut self, limit: Duration) {
        if std::mem::replace(&mut self.patience, limit) != limit {
            let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
            if let Err(error) = setsockopt(&self.stream, sockopt::TcpUserTimeout, &millis) {
                tracing::debug!(%error, "no TCP_USER_TIMEOUT");
            }
        }
    }

    /// Whether nothing has come on it, its end least of all, as far as this worker has been told. Costs nothing.
    fn seems_open(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same, asked of the kernel.
    fn is_open(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// The idle connections of one worker.
pub(crate) struct Pool {
    idle: RefCell<HashMap<InstanceId, Vec<Idle>, RandomState>>,
    limits: InForce,
    shortage: Arc<Shortage>,
    /// The shortages that this worker has heard of.
    heard: Cell<u64>,
}

/// Where workers tell each other that one of them is out of descriptors and has none to close: a count.
pub(crate) type Shortage = AtomicU64;

impl Pool {
    pub(crate) fn new(limits: InForce, shortage: Arc<Shortage>) -> Self {
        Self { idle: RefCell::default(), limits, heard: Cell::new(shortage.load(Ordering::Relaxed)), shortage }
    }

    /// An idle connection, the one used last.
    pub(crate) fn take(&self, instance: &InstanceId, is_replayable: bool, now: Instant) -> Option<Connection> {
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(instance)?;
        let most = self.limits.now().backend_idle;
        let good_for = if is_replayable { most } else { most.min(SURELY_OPEN) };
        // The last is the youngest.
        while idle.last().is_some_and(|idle| now.saturating_duration_since(idle.since) < good_for) {
            let Idle { connection, .. } = idle.pop()?;
            if connection.seems_open() && (is_replayable || connection.is_open()) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(&self, instance: &InstanceId, connection: Connection) {
        let mut all = self.idle.borrow_mut();
        let idle = match all.get_mut(instance) {
            Some(idle) => idle,
            None => all.entry(instance.clone()).or_default(),
        };
        if idle.len() < self.limits.now().backend_idle_max {
            let connection = Connection { is_reused: true, ..connection };
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes the idle connections of an instance.
    pub(crate) fn close(&self, instance: &InstanceId) {
        self.idle.borrow_mut().remove(instance);
    }

    /// Closes what was idle for too long or is closed on the other side; everything where another worker is in want.
    pub(crate) fn sweep(&self, now: Instant) {
        let shortages = self.shortage.load(Ordering::Relaxed);
        if self.heard.replace(shortages) != shortages {
            self.idle.take();
        }
        let most = self.limits.now().backend_idle;
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| {
                let age = now.saturating_duration_since(idle.since);
                age < most && idle.connection.seems_open()
            });
            !idle.is_empty()
        });
    }

    /// Closes all idle connections: what is under way needs their descriptors. False where there are none; then the other
    /// workers close theirs when they next sweep.
    pub(crate) fn give_way(&self) -> bool {
        let has_any = !self.idle.take().is_empty();
        if !has_any {
            self.heard.set(self.shortage.fetch_add(1, Ordering::Relaxed) + 1);
        }
        has_any
    }

    /// Makes a new connection.
    pub(crate) async fn connect(&self, endpoint: &Endpoint, limit: Duration) -> io::Result<Connection> {
        let connect = async || match &endpoint.address {
            Address::V4(address) => TcpStream::connect(address).await,
            Address::V6(address) => TcpStream::connect(&**address).await,
            Address::Name(name) => TcpStream::connect(name.as_str()).await,
        };
        let connect = async {
            match connect().await {
                Err(error) if is_out_of_descriptors(&error) && self.give_way() => connect().await,
                outcome => outcome,
            }
        };
        let stream = tokio::time::timeout(limit, connect).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Connection::new(stream)
    }
}

/// Whether this process, or this machine, may open nothing more.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouterConfig;

    #[tokio::test]
    async fn a_worker_in_want_gets_the_descriptors_of_the_others() {
        let limits = InForce::new(RouterConfig::default().limits());
        let shortage = Arc::<Shortage>::default();
        let [in_want, other] = [(); 2].map(|()| Pool::new(limits.clone(), shortage.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let instance = InstanceId::from_bits(1);
        let connect =
            async || Connection::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()).unwrap();
        other.put(&instance, connect().await);
        in_want.put(&instance, connect().await);
        other.sweep(Instant::now());
        assert!(in_want.give_way() && !other.idle.borrow().is_empty(), "its own come first");
        assert!(!in_want.give_way());
        other.sweep(Instant::now());
        assert!(other.idle.borrow().is_empty());
        other.put(&instance, connect().await);
        other.sweep(Instant::now());
        assert!(!other.idle.borrow().is_empty(), "once");
    }
}
