//! Streams from agents to people, by way of the leader: the leader writes `open` beside a node's orders, the agent dials,
//! and what it sends is handed on.

use bytes::Bytes;
use dinp_common::api::agent::{StreamKind, StreamOrder};
use dinp_common::model::NodeName;
use rand::Rng;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Chunks that wait for a slow reader before the agent has to.
const BUFFER: usize = 64;

struct Waiting {
    node: NodeName,
    kind: StreamKind,
    sender: mpsc::Sender<Bytes>,
}

/// All open streams of this leader.
#[derive(Clone, Default)]
pub struct Streams {
    inner: Arc<Mutex<HashMap<String, Waiting>>>,
    changed: Arc<watch::Sender<u64>>,
}

/// A stream that somebody reads; closing it takes the order back.
pub struct Stream {
    id: String,
    streams: Streams,
    receiver: mpsc::Receiver<Bytes>,
}

impl Streams {
    /// Asks a node for a stream.
    pub fn open(&self, node: NodeName, kind: StreamKind) -> Stream {
        let id = format!("{:032x}", rand::rng().random::<u128>());
        let (sender, receiver) = mpsc::channel(BUFFER);
        self.lock().insert(id.clone(), Waiting { node, kind, sender });
        self.touch();
        Stream { id, streams: self.clone(), receiver }
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

    #[tokio::test]
    async fn only_the_node_that_was_asked_may_send_and_closing_takes_the_order_back() {
        let streams = Streams::default();
        let (node, other): (NodeName, NodeName) = ("node1".parse().unwrap(), "node2".parse().unwrap());
        let kind = StreamKind::Logs { instance: "0123456789abcdef".parse().unwrap(), tail: 10, follow: false };
        let mut stream = streams.open(node.clone(), kind);
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
