//! Merging the output of an app's instances into one stream of lines.

use crate::streams::Stream;
use bytes::{Bytes, BytesMut};
use dinp_common::api::agent::{EndedInstance, LogLine, StreamKind};
use dinp_common::api::control::{InstanceView, LogQuery};
use dinp_common::model::{AppName, InstanceId, NodeName};
use dinp_common::problem::Problem;
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use std::collections::BTreeSet;
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

/// Lines of each instance to begin with where nobody says, and at most.
const TAIL: (u32, u32) = (100, 10_000);
/// Ended instances that are shown where none is named.
const ENDED: usize = 10;

/// The streams that answer a query: of the app's instances, or of its last ended ones where it has no other or they alone
/// are asked for; of one instance, wherever it is, where one is named.
pub fn choose(
    app: &AppName,
    query: &LogQuery,
    live: Vec<InstanceView>,
    ended: Vec<(NodeName, EndedInstance)>,
) -> Result<Vec<(NodeName, StreamKind)>, Problem> {
    let is_asked = |id: &InstanceId| query.instance.as_ref().is_none_or(|digits| digits.begins(id));
    let live: Vec<_> = live.into_iter().filter(|view| !query.previous && is_asked(&view.instance)).collect();
    let is_gone = |id: &InstanceId| live.iter().all(|view| view.instance != *id);
    let is_of_this_app = |ended: &EndedInstance| query.since.is_none_or(|since| ended.at >= since);
    let mut ended: Vec<_> = ended
        .into_iter()
        .filter(|(_, ended)| is_asked(&ended.instance) && is_gone(&ended.instance) && is_of_this_app(ended))
        .collect();
    if let Some(digits) = &query.instance {
        let found: BTreeSet<&InstanceId> =
            live.iter().map(|view| &view.instance).chain(ended.iter().map(|(_, ended)| &ended.instance)).collect();
        match found.len() {
            0 => {
                return Err(Problem::not_found(format!(
                    "{app} has no instance {digits}, and no output of one is kept"
                )));
            }
            1 => {}
            _ => {
                let detail = format!("{app} has several instances that begin with {digits}: give more digits");
                return Err(Problem::unprocessable("ambiguous-instance", detail).with("field", "instance"));
            }
        }
    } else if !live.is_empty() {
        ended.clear();
    }
    ended.truncate(ENDED);
    let tail = query.tail.unwrap_or(TAIL.0).min(TAIL.1);
    let of_live = live.into_iter().map(|view| (view.node, running(view.instance, tail, query.follow)));
    let of_ended = ended.into_iter().map(|(node, ended)| {
        (node, StreamKind::Logs { instance: ended.instance, tail, follow: false, previous: true })
    });
    Ok(of_live.chain(of_ended).collect())
}

/// The streams of instances that a follower does not know yet, from their beginning on.
pub fn of_new(known: &mut BTreeSet<InstanceId>, live: Vec<InstanceView>) -> Vec<(NodeName, StreamKind)> {
    let new = live.into_iter().filter(|view| known.insert(view.instance.clone()));
    new.map(|view| (view.node, running(view.instance, TAIL.1, true))).collect()
}

fn running(instance: InstanceId, tail: u32, follow: bool) -> StreamKind {
    StreamKind::Logs { instance, tail, follow, previous: false }
}

/// Whole lines of all streams: what is there at first in the order of time, and then as it comes if it is to be followed;
/// `later` gives further streams to follow.
pub fn merge(
    streams: Vec<Stream>,
    later: Option<BoxStream<'static, Stream>>,
    shutdown: CancellationToken,
) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + Send {
    let all: SelectAll<Lines> = streams.into_iter().map(lines).collect();
    stream::once(first(all, later))
        .flat_map(move |(past, rest)| stream::iter(past).chain(rest))
        .map(Ok)
        .take_until(shutdown.cancelled_owned())
}

/// Gathers what is there and sorts it. Without `later` that is everything, unless it is too much to keep: then the rest
/// comes as it comes.
async fn first(mut all: SelectAll<Lines>, later: Option<BoxStream<'static, Stream>>) -> (Vec<Bytes>, Lines) {
    let follow = later.is_some();
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
    let rest: Lines = if let Some(later) = later {
        Box::pin(stream::select(all, later.flat_map_unordered(None, lines)))
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
    use dinp_common::api::agent::InstanceState;
    use dinp_common::api::control::NodeCondition;

    fn web() -> AppName {
        "web".parse().unwrap()
    }

    fn live(bits: u64) -> InstanceView {
        InstanceView {
            instance: InstanceId::from_bits(bits),
            app: web(),
            release: 7,
            node: "node1".parse().unwrap(),
            address: None,
            port: None,
            state: InstanceState::Ready,
            routed: true,
            since: 0,
            restarts: 0,
            exit_code: None,
            reason: String::new(),
            node_condition: NodeCondition::Ready,
        }
    }

    fn ended(bits: u64) -> (NodeName, EndedInstance) {
        let (instance, ticket) = (InstanceId::from_bits(bits), "k1.abc".into());
        let ended = EndedInstance { instance, app: web(), release: 8, at: 9, exit_code: Some(1), ticket };
        ("node2".parse().unwrap(), ended)
    }

    /// What is chosen, as first digits of the instance, with a `-` where it is what was kept.
    fn chosen(query: &LogQuery, live: Vec<InstanceView>, ended: Vec<(NodeName, EndedInstance)>) -> Vec<String> {
        let name = |(_, StreamKind::Logs { instance, previous, .. }): &(NodeName, StreamKind)| {
            format!("{}{}", if *previous { "-" } else { "" }, &instance.as_str()[..2])
        };
        choose(&web(), query, live, ended).unwrap().iter().map(name).collect()
    }

    const A: u64 = 0xaa << 56;
    const B: u64 = 0xbb << 56;
    const C: u64 = 0xcc << 56;

    #[test]
    fn without_instances_the_last_ended_ones_are_shown_and_alone_where_that_is_asked_for() {
        let query = LogQuery::default();
        assert_eq!(chosen(&query, vec![live(A)], vec![ended(B)]), ["aa"]);
        assert_eq!(chosen(&query, vec![], vec![ended(B), ended(C)]), ["-bb", "-cc"]);
        let previous = LogQuery { previous: true, ..LogQuery::default() };
        assert_eq!(chosen(&previous, vec![live(A)], vec![ended(B)]), ["-bb"]);
        assert_eq!(chosen(&previous, vec![], (0..30).map(ended).collect()).len(), ENDED);
        assert_eq!(chosen(&query, vec![], vec![]), [""; 0]);
    }

    #[test]
    fn who_has_taken_the_name_of_a_deleted_app_reads_nothing_of_what_ended_before() {
        let since = |since| LogQuery { since: Some(since), ..LogQuery::default() };
        assert_eq!(chosen(&since(9), vec![], vec![ended(B)]), ["-bb"]);
        assert_eq!(chosen(&since(10), vec![], vec![ended(B)]), [""; 0]);
        let named = LogQuery { instance: Some("bb".parse().unwrap()), ..since(10) };
        assert_eq!(choose(&web(), &named, vec![], vec![ended(B)]).unwrap_err().status, 404);
    }

    #[test]
    fn an_instance_is_found_by_its_first_digits_running_or_ended() {
        let query = |digits: &str| LogQuery { instance: Some(digits.parse().unwrap()), ..LogQuery::default() };
        let all = || (vec![live(A), live(A + 1)], vec![ended(B), ended(C)]);
        assert_eq!(chosen(&query("aa00000000000001"), all().0, all().1), ["aa"]);
        assert_eq!(chosen(&query("bb"), all().0, all().1), ["-bb"]);
        let refused = |digits| choose(&web(), &query(digits), all().0, all().1).unwrap_err().detail;
        assert_eq!(refused("dd"), "web has no instance dd, and no output of one is kept");
        assert_eq!(refused("aa"), "web has several instances that begin with aa: give more digits");
    }

    #[tokio::test]
    async fn who_follows_hears_instances_that_start_later() {
        let streams = Streams::default();
        let reader = streams.reader(&web()).unwrap();
        let mut known = BTreeSet::from([InstanceId::from_bits(A)]);
        let new = of_new(&mut known, vec![live(A), live(B)]);
        assert_eq!(new.len(), 1);
        assert!(of_new(&mut known, vec![live(A), live(B)]).is_empty());
        let node: NodeName = "node1".parse().unwrap();
        let opened = reader.open(new).unwrap();
        let id = streams.orders(&node)[0].stream.clone();
        let later = stream::iter(opened).boxed();
        let mut merged = Box::pin(merge(vec![], Some(later), CancellationToken::new()));
        let sender = streams.accept(&node, &id).unwrap();
        sender.send(Bytes::from(line(1))).await.unwrap();
        assert_eq!(merged.next().await.unwrap().unwrap(), line(1));
    }

    fn line(at: i64) -> String {
        format!("{{\"at\":{at},\"instance\":\"0123456789abcdef\",\"stream\":\"stdout\",\"text\":\"t\"}}\n")
    }

    #[tokio::test]
    async fn lines_of_two_instances_come_whole_and_in_order() {
        let streams = Streams::default();
        let nodes = ["node1", "node2"].map(|name| name.parse().unwrap());
        let kind = running("0123456789abcdef".parse().unwrap(), 9, false);
        let wanted = nodes.iter().map(|node| (dinp_common::model::NodeName::clone(node), kind.clone()));
        let open = streams.reader(&web()).unwrap().open(wanted.collect()).unwrap();
        let merged = merge(open, None, CancellationToken::new());
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
        let kind = running("0123456789abcdef".parse().unwrap(), 9, false);
        let open = streams.reader(&web()).unwrap().open(vec![(node.clone(), kind)]).unwrap();
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
        let merged = merge(open, None, CancellationToken::new());
        assert_eq!(merged.count().await, count);
    }
}
