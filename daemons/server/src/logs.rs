//! Merging the output of an app's instances into one stream of lines.

use crate::streams::Stream;
use bytes::{Bytes, BytesMut};
use dinp_common::api::agent::LogLine;
use futures_util::stream::{self, SelectAll, StreamExt};
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time in which lines of the past are gathered and put in order.
const GATHER: Duration = Duration::from_millis(700);
/// Time after which an agent that sends nothing is not waited for any longer.
const SILENCE: Duration = Duration::from_secs(10);

/// Most that is gathered: the leader's memory is not for logs.
const GATHER_BYTES: usize = 4 << 20;
/// Longest line. Agents cut them shorter.
const LINE_BYTES: usize = 1 << 20;

type Lines = Pin<Box<dyn stream::Stream<Item = Bytes> + Send>>;

/// Whole lines of all streams: what is there at first in the order of time, and then as it comes if `follow`.
pub fn merge(
    streams: Vec<Stream>,
    follow: bool,
    shutdown: CancellationToken,
) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + Send {
    let all: SelectAll<Lines> = streams.into_iter().map(lines).collect();
    stream::once(first(all, follow))
        .flat_map(move |(past, rest)| stream::iter(past).chain(rest))
        .map(Ok)
        .take_until(shutdown.cancelled_owned())
}

/// Gathers what is there and sorts it. Without `follow` that is everything, unless it is too much to keep: then the rest
/// comes as it comes.
async fn first(mut all: SelectAll<Lines>, follow: bool) -> (Vec<Bytes>, Lines) {
    let mut past = Vec::new();
    let mut bytes = 0;
    let mut until = Instant::now() + if follow { GATHER } else { SILENCE };
    while bytes < GATHER_BYTES
        && let Ok(Some(line)) = tokio::time::timeout_at(until, all.next()).await
    {
        bytes += line.len();
        past.push(line);
        if !follow {
            until = Instant::now() + SILENCE;
        }
    }
    past.sort_by_cached_key(|line| serde_json::from_slice::<LogLine>(line).map_or(i64::MAX, |line| line.at));
    let rest: Lines = if follow {
        Box::pin(all)
    } else if bytes < GATHER_BYTES {
        Box::pin(stream::empty())
    } else {
        Box::pin(stream::unfold(all, |mut all| async move {
            let line = tokio::time::timeout(SILENCE, all.next()).await.ok().flatten()?;
            Some((line, all))
        }))
    };
    (past, rest)
}

/// Cuts what an agent sends into lines: two instances' must not be mixed within one.
fn lines(stream: Stream) -> Lines {
    let state = (stream, BytesMut::new());
    Box::pin(stream::unfold(state, |(mut stream, mut rest)| async move {
        loop {
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.split_to(end + 1).freeze();
                return Some((line, (stream, rest)));
            }
            if rest.len() > LINE_BYTES {
                tracing::warn!(bytes = rest.len(), "log stream ended, it has a line without an end");
                return None;
            }
            rest.extend_from_slice(&stream.next().await?);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::Streams;
    use dinp_common::api::agent::StreamKind;

    fn line(at: i64) -> String {
        format!("{{\"at\":{at},\"instance\":\"0123456789abcdef\",\"stream\":\"stdout\",\"text\":\"t\"}}\n")
    }

    #[tokio::test]
    async fn lines_of_two_instances_come_whole_and_in_order() {
        let streams = Streams::default();
        let nodes = ["node1", "node2"].map(|name| name.parse().unwrap());
        let kind = StreamKind::Logs { instance: "0123456789abcdef".parse().unwrap(), tail: 9, follow: false };
        let wanted = nodes.iter().map(|node| (dinp_common::model::NodeName::clone(node), kind.clone()));
        let open = streams.open(&"web".parse().unwrap(), wanted.collect()).unwrap();
        let merged = merge(open, false, CancellationToken::new());
        for (node, pieces) in nodes.iter().zip([[line(3), line(4)].concat(), [line(1), line(2)].concat()]) {
            let id = streams.orders(node)[0].stream.clone();
            let sender = streams.accept(node, &id).unwrap();
            let (left, right) = pieces.split_at(20);
            for piece in [left, right] {
                sender.send(Bytes::copy_from_slice(piece.as_bytes())).await.unwrap();
            }
            drop(sender);
            streams.finish(&id);
        }
        let got: Vec<String> = merged.map(|line| String::from_utf8(line.unwrap().to_vec()).unwrap()).collect().await;
        assert_eq!(got, [line(1), line(2), line(3), line(4)]);
    }

    #[tokio::test]
    async fn what_is_too_much_to_sort_comes_whole_and_an_endless_line_ends_its_stream() {
        let streams = Streams::default();
        let node: dinp_common::model::NodeName = "node1".parse().unwrap();
        let kind = StreamKind::Logs { instance: "0123456789abcdef".parse().unwrap(), tail: 9, follow: false };
        let open = streams.open(&"web".parse().unwrap(), vec![(node.clone(), kind)]).unwrap();
        let id = streams.orders(&node)[0].stream.clone();
        let sender = streams.accept(&node, &id).unwrap();
        let count = 3 * GATHER_BYTES / 65_536;
        tokio::spawn(async move {
            let long = Bytes::from([vec![b'x'; 65_535], vec![b'\n']].concat());
            for _ in 0..count {
                sender.send(long.clone()).await.unwrap();
            }
            let endless = Bytes::from(vec![b'x'; 65_536]);
            while sender.send(endless.clone()).await.is_ok() {}
        });
        let merged = merge(open, false, CancellationToken::new());
        assert_eq!(merged.count().await, count);
    }
}
