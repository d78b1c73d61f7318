//! A worker's connections to instances.
//!
//! They are kept by instance id, never by address: an address without its instance could be anybody's.

use super::body::RequestBody;
use super::wire::Wire;
use crate::config::Limits;
use crate::table::{Address, Endpoint};
use bytes::Bytes;
use dinp_common::model::InstanceId;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How long an idle connection is good for a request that may not be sent twice. An app closes idle connections after
/// some seconds, two at the least in what is widely used; the request that crosses that close is lost.
const SURELY_OPEN: Duration = Duration::from_secs(1);

/// One connection, ready for a request.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) wire: Wire,
    /// Gets what was read after a 101.
    pub(crate) leftover: oneshot::Receiver<Bytes>,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// The idle connections of one worker.
pub(crate) struct Pool {
    idle: RefCell<HashMap<InstanceId, Vec<Idle>>>,
    limits: Rc<Limits>,
}

impl Pool {
    pub(crate) fn new(limits: Rc<Limits>) -> Self {
        Self { idle: RefCell::default(), limits }
    }

    /// An idle connection, the one used last.
    pub(crate) fn take(&self, instance: &InstanceId, replayable: bool, now: Instant) -> Option<Connection> {
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(instance)?;
        let good_for = if replayable { self.limits.backend_idle } else { self.limits.backend_idle.min(SURELY_OPEN) };
        // The last is the youngest.
        while idle.last().is_some_and(|idle| now.saturating_duration_since(idle.since) < good_for) {
            let Idle { connection, .. } = idle.pop()?;
            let open = !connection.sender.is_closed() && (replayable || connection.wire.is_open());
            if open {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(&self, instance: &InstanceId, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        connection.reused = true;
        let mut all = self.idle.borrow_mut();
        let idle = match all.get_mut(instance) {
            Some(idle) => idle,
            None => all.entry(instance.clone()).or_default(),
        };
        if idle.len() < self.limits.backend_idle_max {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes the idle connections of an instance.
    pub(crate) fn close(&self, instance: &InstanceId) {
        self.idle.borrow_mut().remove(instance);
    }

    /// Closes what was idle for too long or is closed on the other side.
    pub(crate) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| {
                let age = now.saturating_duration_since(idle.since);
                age < self.limits.backend_idle && !idle.connection.sender.is_closed()
            });
            !idle.is_empty()
        });
    }

    /// Makes a new connection.
    pub(crate) async fn connect(&self, endpoint: &Endpoint, limit: Duration) -> io::Result<Connection> {
        let connect = async {
            match &endpoint.address {
                Address::Ip(address) => TcpStream::connect(address).await,
                Address::Name(name) => TcpStream::connect(&**name).await,
            }
        };
        let stream = tokio::time::timeout(limit, connect).await.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        let wire = Wire::new(stream)?;
        let handshake = Builder::new().handshake(TokioIo::new(wire.clone())).await;
        let (sender, mut connection) = handshake.map_err(io::Error::other)?;
        let (leftover_sender, leftover) = oneshot::channel();
        tokio::task::spawn_local(async move {
            // The request that was under way, if any, gets the error.
            if poll_fn(|cx| connection.poll_without_shutdown(cx)).await.is_ok() {
                // Wanted only after a 101.
                drop(leftover_sender.send(connection.into_parts().read_buf));
            }
        });
        Ok(Connection { sender, wire, leftover, reused: false })
    }
}
