//! Streams to the leader: the orders ask for them, the agent dials.
//!
//! Logs are read by way of the engine, whose log driver is journald where there is a journal; this works for
//! containers that run and for those that ended. Lines of an instance that is started again go on.

use crate::container::INSTANCE;
use crate::docker::{EngineError, failed};
use crate::shared::Shared;
use bollard::container::LogOutput;
use bollard::query_parameters::{ListContainersOptions, LogsOptions};
use bytes::Bytes;
use dinp_common::api::UnixMillis;
use dinp_common::api::agent::{InstanceState, LogLine, LogStream, StreamKind, StreamOrder};
use dinp_common::client::{self, ApiClient};
use dinp_common::error::ErrorChain;
use dinp_common::model::InstanceId;
use futures_util::StreamExt;
use http::Method;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How often an instance that has ended is looked at for whether it runs again.
const AGAIN: Duration = Duration::from_millis(100);

/// Longest line that is kept whole.
const LONGEST: usize = 64 * 1024;

/// The streams that were asked for.
#[derive(Debug)]
pub struct Streams {
    shared: Arc<Shared>,
    client: ApiClient,
    dialled: HashSet<String>,
}

impl Streams {
    /// None yet.
    pub fn new(shared: Arc<Shared>, client: ApiClient) -> Self {
        Self { shared, client, dialled: HashSet::new() }
    }

    /// Dials each stream that was not dialled before; forgets those that are no longer asked for.
    pub fn open(&mut self, orders: &[StreamOrder]) {
        self.dialled.retain(|stream| orders.iter().any(|order| order.stream == *stream));
        for order in orders {
            let plain = !order.stream.is_empty()
                && order.stream.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if plain && self.dialled.insert(order.stream.clone()) {
                tokio::spawn(carry(self.shared.clone(), self.client.clone(), order.clone()));
            }
        }
    }
}

async fn carry(shared: Arc<Shared>, client: ApiClient, order: StreamOrder) {
    let StreamKind::Logs { instance, tail, follow } = order.kind;
    let (lines, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(256);
    let reading = async {
        let mut reader = Reader { shared: &shared, instance: &instance, lines, last: None };
        if let Err(error) = reader.read(tail, follow).await {
            tracing::warn!(%instance, error = %ErrorChain(&error), "logs cannot be read");
        }
    };
    let dialling = async {
        let path = format!("/v1/agent/streams/{}", order.stream);
        let request = client.request(Method::POST, &path)?;
        let request = request
            .header(http::header::CONTENT_TYPE, "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(ReceiverStream::new(body)));
        let url = client.targets().into_iter().next();
        let sent = request.send().await.map_err(|source| match url {
            Some(url) => client::ClientError::Transport { url, source: source.without_url() },
            None => client::ClientError::Url { path, problem: "no address is configured".into() },
        })?;
        client::check(sent).await
    };
    // Either end of it ends the stream: the reader drops the sender, the server hangs up.
    let answer = async {
        let mut dialling = std::pin::pin!(dialling);
        tokio::select! {
            answer = &mut dialling => return answer,
            () = reading => {}
        }
        dialling.await
    };
    if let Err(error) = answer.await {
        tracing::debug!(%instance, error = %ErrorChain(&error), "a stream ended");
    }
}

struct Reader<'a> {
    shared: &'a Shared,
    instance: &'a InstanceId,
    lines: mpsc::Sender<Result<Bytes, std::io::Error>>,
    /// Time of the last line sent.
    last: Option<UnixMillis>,
}

impl Reader<'_> {
    async fn read(&mut self, tail: u32, follow: bool) -> Result<(), EngineError> {
        let Some(container) = self.container().await? else { return Ok(()) };
        let mut options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            timestamps: true,
            tail: tail.to_string(),
            ..LogsOptions::default()
        };
        loop {
            if !self.pass(&container, options.clone()).await? || !follow || !self.runs_again().await {
                return Ok(());
            }
            // Whole seconds are all that the engine takes; what was sent already is left out.
            options.since = i32::try_from(self.last.unwrap_or_default() / 1000).unwrap_or_default();
            options.tail = "all".into();
        }
    }

    /// Passes on what the engine has; false when nobody reads any more.
    async fn pass(&mut self, container: &str, options: LogsOptions) -> Result<bool, EngineError> {
        let docker = self.shared.engine.docker().await?;
        let begin = self.last;
        let mut logs = std::pin::pin!(docker.logs(container, Some(options)));
        let mut pieces = [Vec::new(), Vec::new()];
        while let Some(output) = logs.next().await {
            let (stream, message) = match output.map_err(|error| failed("read logs", error))? {
                LogOutput::StdErr { message } => (LogStream::Stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => (LogStream::Stdout, message),
                LogOutput::StdIn { .. } => continue,
            };
            let piece = &mut pieces[usize::from(stream == LogStream::Stderr)];
            piece.extend_from_slice(&message);
            for line in whole_lines(piece) {
                let (at, text) = split(&line);
                let at = at.or(self.last).unwrap_or_default();
                if begin.is_some_and(|begin| at <= begin) {
                    continue;
                }
                if !self.send(at, stream, text).await {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn send(&mut self, at: UnixMillis, stream: LogStream, text: String) -> bool {
        self.last = Some(at);
        let line = LogLine { at, instance: self.instance.clone(), stream, text };
        let Ok(mut json) = serde_json::to_vec(&line) else { return true };
        json.push(b'\n');
        self.lines.send(Ok(json.into())).await.is_ok()
    }

    async fn container(&self) -> Result<Option<String>, EngineError> {
        let label = format!("{INSTANCE}={}", self.instance);
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..ListContainersOptions::default()
        };
        let list = self
            .shared
            .engine
            .call("list containers", |d| async move { d.list_containers(Some(options)).await })
            .await?;
        Ok(list.into_iter().find_map(|summary| summary.id))
    }

    /// Waits until the instance runs again; false when it is gone, or nobody reads any more.
    async fn runs_again(&self) -> bool {
        loop {
            match self.shared.board.get(self.instance).map(|report| report.state) {
                None => return false,
                Some(InstanceState::Starting | InstanceState::Ready | InstanceState::Unfit) => return true,
                Some(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = self.lines.closed() => return false,
            }
        }
    }
}

/// Takes the whole lines out of what has arrived; a line that is too long is cut.
fn whole_lines(piece: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
        let mut line: Vec<u8> = piece.drain(..=end).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        lines.push(line);
    }
    if piece.len() > LONGEST {
        lines.push(std::mem::take(piece));
    }
    lines
}

/// A line as the engine gives it: its time, a space, the text.
fn split(line: &[u8]) -> (Option<UnixMillis>, String) {
    let text = String::from_utf8_lossy(line);
    if let Some((time, rest)) = text.split_once(' ').or(Some((text.as_ref(), "")))
        && let Ok(time) = time.parse::<jiff::Timestamp>()
    {
        return (Some(time.as_millisecond()), rest.to_owned());
    }
    (None, text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_times() {
        assert_eq!(split(b"1970-01-01T00:00:01.500000001Z hello  world"), (Some(1500), "hello  world".into()));
        assert_eq!(split(b"1970-01-01T00:00:02Z "), (Some(2000), String::new()));
        assert_eq!(split(b"1970-01-01T00:00:02Z"), (Some(2000), String::new()));
        assert_eq!(split(b"no time \xff"), (None, "no time \u{fffd}".into()));
    }

    #[test]
    fn pieces_become_lines() {
        let mut piece = b"a\r\nb\nc".to_vec();
        assert_eq!(whole_lines(&mut piece), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(piece, b"c");
        let mut long = vec![b'x'; LONGEST + 1];
        assert_eq!(whole_lines(&mut long).len(), 1);
        assert!(long.is_empty());
    }
}
