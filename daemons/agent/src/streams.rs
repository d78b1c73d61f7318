//! Streams to the leader: the orders ask for them, the agent dials.
//!
//! Logs of an instance that is started again go on.

use crate::docker::EngineError;
use crate::instance::container_of;
use crate::output::{Lines, ReadFrom};
use crate::shared::Shared;
use bytes::Bytes;
use dinp_common::api::agent::{LogLine, StreamKind, StreamOrder};
use dinp_common::client::{self, ApiClient};
use dinp_common::error::ErrorChain;
use dinp_common::model::InstanceId;
use http::Method;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How often an instance that has ended is looked at for whether it runs again.
const AGAIN: Duration = Duration::from_millis(100);

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
    let StreamKind::Logs { instance, tail, follow, previous } = order.kind;
    let (lines, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(256);
    let reading = async {
        let mut reader = Reader { shared: &shared, instance: &instance, lines };
        let read = match previous {
            true => {
                reader.read_kept(tail).await;
                Ok(())
            }
            false => reader.read(tail, follow).await,
        };
        if let Err(error) = read {
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
    shared: &'a Arc<Shared>,
    instance: &'a InstanceId,
    lines: mpsc::Sender<Result<Bytes, std::io::Error>>,
}

impl Reader<'_> {
    /// What is kept of an instance that is gone.
    async fn read_kept(&mut self, tail: u32) {
        let (shared, instance) = (self.shared.clone(), self.instance.clone());
        let reading = tokio::task::spawn_blocking(move || shared.ended.read(&instance));
        let lines = reading.await.ok().flatten().unwrap_or_default();
        let skipped = lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX));
        for line in &lines[skipped..] {
            if !self.send(line).await {
                return;
            }
        }
    }

    async fn read(&mut self, tail: u32, follow: bool) -> Result<(), EngineError> {
        let Some(container) = container_of(self.shared, self.instance).await? else {
            self.read_kept(tail).await;
            return Ok(());
        };
        let mut from = ReadFrom::Last(tail);
        loop {
            let mut lines = Lines::open(&self.shared.engine, &container, self.instance, from, follow).await?;
            while let Some(line) = lines.next().await.transpose()? {
                from = ReadFrom::After(line.at);
                if !self.send(&line).await {
                    return Ok(());
                }
            }
            if !follow || !self.runs_again().await {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, line: &LogLine) -> bool {
        let Ok(mut json) = serde_json::to_vec(line) else { return true };
        json.push(b'\n');
        self.lines.send(Ok(json.into())).await.is_ok()
    }

    /// Waits until the instance runs again; false when it is gone, or nobody reads any more.
    async fn runs_again(&self) -> bool {
        loop {
            match self.shared.board.get(self.instance).map(|report| report.state) {
                None => return false,
                Some(state) if state.runs() => return true,
                Some(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = self.lines.closed() => return false,
            }
        }
    }
}
