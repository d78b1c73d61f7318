//! The log of a build as it grows: as text, or as server-sent events, which a reader takes up again where it lost them.

use crate::{Caller, Dash};
use axum::body::Body;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dinp_common::api::builder::{BuildView, Stage};
use dinp_common::error::ErrorChain;
use dinp_common::problem::Problem;
use dinp_common::quota::Share;
use dinp_common::store::build;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, header};
use serde_json::json;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time from one look at a growing log to the next.
const POLL: Duration = Duration::from_millis(300);
/// How long the database may be away while a log is followed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a silent stream of events shows that it is alive.
const ALIVE: Duration = Duration::from_secs(15);
/// What a reader of events was given last.
const LAST_EVENT_ID: &str = "last-event-id";

/// Something that a build tells.
enum Told {
    /// A piece of its log, and its number.
    Piece(u32, String),
    /// What it does from now on.
    Stage(Stage),
    /// It has ended.
    End(Box<BuildView>),
}

impl Dash {
    /// The log of a build from a piece on; followed, it ends when the build does, or when the caller may see it no more.
    ///
    /// As text, or where `text/event-stream` is asked for as events: a piece of the log with its number as id and `text` in
    /// it, `stage` when another one begins, and `end` with the whole record. After a `Last-Event-ID` it goes on.
    pub(crate) fn build_log(
        self: &Arc<Self>,
        caller: &Caller,
        view: &BuildView,
        headers: &HeaderMap,
        from: u32,
        follow: bool,
    ) -> Result<Response, Problem> {
        let share = self.log_reader(caller)?;
        let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse::<u32>().ok());
        let tail = Tail {
            dash: self.clone(),
            id: view.id,
            next: last.map_or(from, |last| last.saturating_add(1)),
            stages: 0,
            follow,
            ready: VecDeque::new(),
            ended: false,
            _share: share,
        };
        let end = self.clone().until_hidden(caller.clone(), view.app.clone());
        let told = tail.stream().take_until(end);
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accept.contains("text/event-stream") {
            return Ok(Sse::new(told.map(event)).keep_alive(KeepAlive::new().interval(ALIVE)).into_response());
        }
        let text = told.filter_map(async |told| match told {
            Ok(Told::Piece(_, text)) => Some(Ok(Bytes::from(text))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(text)).into_response())
    }
}

fn event(told: io::Result<Told>) -> io::Result<Event> {
    let event = match told? {
        Told::Piece(number, text) => Event::default().id(number.to_string()).json_data(json!({"text": text})),
        Told::Stage(stage) => Event::default().event("stage").json_data(stage),
        Told::End(view) => Event::default().event("end").json_data(view),
    };
    event.map_err(io::Error::other)
}

/// A log that is being read.
struct Tail {
    dash: Arc<Dash>,
    id: u64,
    next: u32,
    /// How many stages were told.
    stages: usize,
    follow: bool,
    ready: VecDeque<Told>,
    ended: bool,
    _share: Share<String>,
}

impl Tail {
    fn stream(self) -> impl Stream<Item = io::Result<Told>> + Send + 'static {
        futures_util::stream::try_unfold(self, |mut tail| async move {
            let told = tail.told().await?;
            Ok(told.map(|told| (told, tail)))
        })
    }

    /// What comes next; nothing at the end.
    async fn told(&mut self) -> io::Result<Option<Told>> {
        let mut failing_since: Option<Instant> = None;
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(Some(told));
            }
            if self.ended {
                return Ok(None);
            }
            match self.look().await {
                Ok(()) if !self.ready.is_empty() || self.ended => continue,
                Ok(()) => failing_since = None,
                Err(problem) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(io::Error::other(problem.detail));
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn look(&mut self) -> Result<(), Problem> {
        let mut conn = self.dash.conn().await?;
        // The record first: a build that had ended by then writes nothing more.
        let view = build::get(&mut conn, self.id).await?;
        let pieces = build::log_from(&mut conn, self.id, self.next).await.inspect_err(|error| {
            tracing::warn!(build = self.id, error = %ErrorChain(error), "log of a build cannot be read");
        })?;
        let has_more = !pieces.is_empty();
        for (number, text) in pieces {
            self.next = number + 1;
            self.ready.push_back(Told::Piece(number, text));
        }
        let Some(view) = view else {
            self.ended = !has_more;
            return Ok(());
        };
        self.ready.extend(view.stages.iter().skip(self.stages).cloned().map(Told::Stage));
        self.stages = self.stages.max(view.stages.len());
        self.ended = !has_more && (view.status.is_final() || !self.follow);
        if self.ended && view.status.is_final() {
            self.ready.push_back(Told::End(Box::new(view)));
        }
        Ok(())
    }
}
