//! One thread that carries requests: its own runtime, its own table, its own connections to instances.

use crate::access::Log;
use crate::clients::Clients;
use crate::config::{InForce, Limits};
use crate::conn::{Buffers, Client};
use crate::proxy::{Proxy, is_out_of_descriptors};
use crate::table::Slice;
use crate::totals::Totals;
use dinp_common::lifecycle::{Heartbeat, Lifecycle};
use dinp_common::quota::Quota;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::coop::unconstrained;
use tokio::task::{JoinHandle, JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// How long to wait when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a worker may go without a sign of life.
const MAX_SILENCE: Duration = Duration::from_secs(15);

/// Time for the last request of a connection that is idle when the router stops.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// How long connections are left waiting at the start for the first table, before they are told that there is none.
const FIRST_TABLE: Duration = Duration::from_secs(2);

/// A change of the table, in parts, and where to say that all of it is in force.
pub(crate) type Order = (Vec<Arc<Slice>>, oneshot::Sender<()>);

/// What a worker's connections share.
struct Worker {
    proxy: Rc<Proxy>,
    clients: Rc<Clients>,
    buffers: Rc<Buffers>,
    /// Connections that were there when the stop began.
    connections: TaskTracker,
    /// Those that have come since, and what accepts them.
    late: TaskTracker,
    stop: CancellationToken,
}

/// A running worker.
pub(crate) struct Handle {
    orders: mpsc::UnboundedSender<Order>,
}

/// What a worker is started with.
pub(crate) struct Start {
    pub(crate) listeners: Vec<std::net::TcpListener>,
    /// The limits, as they are and will be.
    pub(crate) limits: watch::Receiver<Limits>,
    /// Places for clients' connections, shared by all workers.
    pub(crate) places: Quota<IpAddr>,
    pub(crate) totals: Arc<Totals>,
    /// The access log, where there is one.
    pub(crate) log: Option<Log>,
    /// End when what is under way is done.
    pub(crate) stop: CancellationToken,
}

impl Handle {
    /// Starts a thread, and the task that stands for it: it ends as the thread does.
    pub(crate) fn start(number: usize, start: Start, lifecycle: &Lifecycle) -> io::Result<(Self, JoinHandle<()>)> {
        let name: &str = format!("worker-{number}").leak();
        let (orders, inbox) = mpsc::unbounded_channel();
        let heartbeat = lifecycle.heartbeat(name, MAX_SILENCE);
        let (tell, ended) = oneshot::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| carry(start, inbox, heartbeat)));
            // Nobody hears it where the whole daemon is gone.
            tell.send(outcome).ok();
        })?;
        let task = lifecycle.task(name, async move {
            match ended.await {
                Ok(Ok(Ok(()))) | Err(_) => {}
                Ok(Ok(Err(error))) => tracing::error!(%error, "a worker cannot go on: {error}"),
                Ok(Err(panic)) => resume_unwind(panic),
            }
        });
        Ok((Self { orders }, task))
    }

    /// Hands a change over; the answer comes when it is in force.
    pub(crate) fn order(&self, update: Vec<Arc<Slice>>) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        // A worker that is gone drops `done`, which the caller sees.
        drop(self.orders.send((update, done)));
        wait
    }
}

/// The thread's work, from start to stop.
fn carry(start: Start, inbox: mpsc::UnboundedReceiver<Order>, heartbeat: Heartbeat) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(start, inbox, heartbeat))
}

async fn run(start: Start, mut inbox: mpsc::UnboundedReceiver<Order>, heartbeat: Heartbeat) -> io::Result<()> {
    let mut changed_limits = start.limits;
    let limits = InForce::new(changed_limits.borrow_and_update().clone());
    let worker = Rc::new(Worker {
        clients: Clients::new(start.places, limits.clone(), start.totals.clone()),
        proxy: Proxy::new(limits, start.totals, start.log),
        buffers: Rc::default(),
        connections: TaskTracker::new(),
        late: TaskTracker::new(),
        stop: start.stop,
    });
    let mut accepting = JoinSet::new();
    for listener in start.listeners {
        let listener = TcpListener::from_std(listener)?;
        accepting.spawn_local(worker.late.track_future(accept(listener, worker.clone())));
    }
    let drained = worker.drain();
    let mut drained = pin!(drained);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            Some((update, done)) = inbox.recv() => {
                for slice in update {
                    worker.proxy.apply(&slice);
                    // Connections come between the parts of a large change.
                    tokio::task::yield_now().await;
                }
                worker.proxy.has_table.cancel();
                // Nobody may be waiting.
                done.send(()).ok();
            }
            Ok(()) = changed_limits.changed() => {
                worker.proxy.limits.replace(changed_limits.borrow_and_update().clone());
            }
            _ = sweep.tick() => {
                heartbeat.beat();
                worker.proxy.sweep();
            }
            Some(Err(error)) = accepting.join_next() => return Err(io::Error::other(error)),
            () = &mut drained => return Ok(()),
        }
    }
}

async fn accept(listener: TcpListener, worker: Rc<Worker>) {
    // Those who came while the router was restarted have waited in the queue of the socket: a moment more is better
    // than a refusal.
    tokio::time::timeout(FIRST_TABLE, worker.proxy.has_table.cancelled()).await.ok();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.clients.closed() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                worker.admit(stream, peer);
                // The other workers listen on the same socket: let them have the next one.
                tokio::task::yield_now().await;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) if is_out_of_descriptors(&error) && worker.proxy.pool.give_way() => {}
            Err(error) => {
                tracing::error!(%error, "connections cannot be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Whoever is in the queue has been told that it is connected, and is lost with a socket that nobody else holds.
    loop {
        match unconstrained(poll_fn(|cx| Poll::Ready(listener.poll_accept(cx)))).await {
            Poll::Ready(Ok((stream, peer))) => worker.admit(stream, peer),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Poll::Ready(Err(_)) | Poll::Pending => return,
        }
    }
}

impl Worker {
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let proxy = &self.proxy;
        match self.clients.seat(peer.ip()) {
            Ok(seat) => {
                let client = Client::new(stream, peer, seat, proxy.clone(), self.buffers.clone());
                let tracker = if self.stop.is_cancelled() { &self.late } else { &self.connections };
                tracker.spawn_local(client.serve());
            }
            Err(limit) => proxy.totals.turned_away(peer.ip(), limit),
        }
    }

    /// Ends when all connections have, after the word to stop.
    ///
    /// Something long, such as a tunnel, may hold the old connections up; whoever comes meanwhile would wait for the next
    /// router all that time, and is served. Only then nobody is taken any more, and what has come last is finished.
    async fn drain(&self) {
        self.stop.cancelled().await;
        self.clients.stop();
        self.end(&self.connections, || self.clients.stop_waiting()).await;
        self.clients.close();
        self.end(&self.late, || self.clients.stop_all()).await;
        // They end with the thread's runtime.
        let left = self.connections.len() + self.late.len();
        if left > 0 {
            tracing::warn!(connections = left, "drain deadline passed, cutting off {left} connections");
        }
    }

    /// Waits until these have ended, but not for ever. Those who are idle are told to go after a while.
    async fn end(&self, connections: &TaskTracker, tell_idle: impl FnOnce()) {
        connections.close();
        let limit = self.proxy.limits.now().drain;
        let waiting = async {
            tokio::time::sleep(LAST_REQUEST.min(limit / 2)).await;
            tell_idle();
            connections.wait().await;
        };
        let ended = async {
            tokio::select! { () = connections.wait() => {}, () = waiting => {} }
        };
        // What is left then is told of at the end.
        tokio::time::timeout(limit, ended).await.ok();
    }
}
