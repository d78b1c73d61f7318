//! Streams from agents to people, by way of the leader: the leader writes `open` beside a node's orders, the agent dials,
//! and what it sends is handed on.

use bytes::Bytes;
use dinp_common::api::agent::{StreamKind, StreamOrder};
use dinp_common::model::{AppName, NodeName};
use dinp_common::quota::{Full, Quota, Share};
use rand::Rng;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Chunks that wait for a slow reader before the agent has to.
const BUFFER: usize = 64;
/// Most readers of one app's logs at a time.
const READERS_PER_APP: usize = 100;
/// Most streams of all readers at a time: each is a connection and a task of an agent.
const STREAMS: usize = 2_000;

struct Waiting {
    node: NodeName,
    kind: StreamKind,
    sender: mpsc::Sender<Bytes>,
}

/// All open streams of this leader.
#[derive(Clone)]
pub struct Streams {
    inner: Arc<Mutex<HashMap<String, Waiting>>>,
    changed: Arc<watch::Sender<u64>>,
    quota: Quota<AppName>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { inner: Arc::default(), changed: Arc::default(), quota: Quota::new(READERS_PER_APP, STREAMS) }
    }
}

/// Somebody who reads an app's logs.
pub struct Reader {
    streams: Streams,
    place: Arc<Share<AppName>>,
}

/// A stream that somebody reads; closing it takes the order back.
pub struct Stream {
    id: String,
    streams: Streams,
    receiver: mpsc::Receiver<Bytes>,
    /// The reader's place, and what the stream was opened with: both last as long as it does.
    _shares: [Arc<Share<AppName>>; 2],
}

impl Streams {
    /// A place among the readers of an app's logs, unless there are too many.
    pub fn reader(&self, app: &AppName) -> Result<Reader, Full> {
        Ok(Reader { streams: self.clone(), place: Arc::new(self.quota.take(app, 0)?) })
    }

    /// What a node is asked for now.
    pub fn orders(&self, node: &NodeName) -> Vec<StreamOrder> {
        let inner = self.lock();
        let of_node = inner.iter().filter(|(_, waiting)| waiting.node == *node);
        let mut orders: Vec<StreamOrder> =
            of_node.map(|(id, waiting)| StreamOrder { stream: id.clone(), kind: waiting.kind.clone() }).collect();
        orders.sort_by(|a, b| a.stream.cmp(&b.stream));
        orders
    }

    /// Where to hand on what a node sends; none if nobody reads it, or it was asked of another node.
    pub fn accept(&self, node: &NodeName, id: &str) -> Option<mpsc::Sender<Bytes>> {
        self.lock().get(id).filter(|waiting| waiting.node == *node).map(|waiting| waiting.sender.clone())
    }

    /// The agent has sent all.
    pub fn finish(&self, id: &str) {
        self.lock().remove(id);
        self.touch();
    }

    /// Rises whenever the orders of some node change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Waiting>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Asks nodes for streams, unless there are too many.
    pub fn open(&self, wanted: Vec<(NodeName, StreamKind)>) -> Result<Vec<Stream>, Full> {
        let streams = &self.streams;
        let share = Arc::new(streams.quota.more(wanted.len())?);
        let opened = wanted.into_iter().map(|(node, kind)| {
            let id = format!("{:032x}", rand::rng().random::<u128>());
            let (sender, receiver) = mpsc::channel(BUFFER);
            streams.lock().insert(id.clone(), Waiting { node, kind, sender });
            Stream { id, streams: streams.clone(), receiver, _shares: [self.place.clone(), share.clone()] }
        });
        let opened = opened.collect();
        streams.touch();
        Ok(opened)
    }
}

impl Stream {
    /// The next chunk; none at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.finish(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppName {
        "web".parse().unwrap()
    }

    fn kind() -> StreamKind {
        StreamKind::Logs { instance: "0123456789abcdef".parse().unwrap(), tail: 10, follow: false, previous: false }
    }

    #[test]
    fn readers_are_counted_by_app_and_by_streams_until_they_are_gone() {
        let streams = Streams { quota: Quota::new(2, 5), ..Streams::default() };
        let node: NodeName = "node1".parse().unwrap();
        let open = |app: &AppName, count: usize| streams.reader(app)?.open(vec![(node.clone(), kind()); count]);
        let (other, first, second) = ("other".parse().unwrap(), open(&app(), 2).unwrap(), open(&app(), 1).unwrap());
        assert_eq!(open(&app(), 1).err(), Some(Full::Each(2)));
        assert_eq!(open(&other, 3).err(), Some(Full::All(5)));
        assert_eq!(streams.orders(&node).len(), 3, "who is refused asks nothing of a node");
        let mut rest = first.into_iter();
        drop(rest.next());
        assert_eq!(open(&app(), 1).err(), Some(Full::Each(2)), "a reader is there as long as one of its streams");
        drop(rest);
        assert_eq!(open(&other, 4).unwrap().len() + second.len(), 5);
    }

    #[tokio::test]
    async fn only_the_node_that_was_asked_may_send_and_closing_takes_the_order_back() {
        let streams = Streams::default();
        let (node, other): (NodeName, NodeName) = ("node1".parse().unwrap(), "node2".parse().unwrap());
        let mut opened = streams.reader(&app()).unwrap().open(vec![(node.clone(), kind())]).unwrap();
        let mut stream = opened.pop().unwrap();
        let id = streams.orders(&node)[0].stream.clone();
        assert!(streams.orders(&other).is_empty());
        assert!(streams.accept(&other, &id).is_none());
        let sender = streams.accept(&node, &id).unwrap();
        sender.send(Bytes::from_static(b"line\n")).await.unwrap();
        drop(sender);
        assert_eq!(stream.next().await.unwrap(), "line\n");
        drop(stream);
        assert!(streams.orders(&node).is_empty());
        assert!(streams.accept(&node, &id).is_none());
    }
}
