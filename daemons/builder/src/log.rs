//! The log of a build: written to MySQL in pieces while the build runs, so that every dash can show it.

use crate::engine::Log;
use dinp_common::error::ErrorChain;
use dinp_common::store::{self, StoreError};
use mysql_async::Pool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long text waits for more before it is written.
const GATHER: Duration = Duration::from_millis(150);
/// From one try to the next where the database is away.
const RETRY: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);
/// Most of one log; a build that says more is not followed further.
const LONGEST: usize = 8 << 20;

/// The log of one build. Clones write to the same.
#[derive(Debug, Clone)]
pub struct BuildLog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// Nothing is gathered any more.
    closing: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    pending: String,
    total: usize,
    closed: bool,
}

/// The task that writes a log to MySQL.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl BuildLog {
    /// Begins the log of a build. `abandon` ends the writing where the database stays away.
    pub fn begin(pool: Pool, build: u64, abandon: CancellationToken) -> (Self, Writer) {
        let shared = Arc::<Shared>::default();
        let writer = tokio::spawn(write_all(shared.clone(), pool, build, abandon));
        (Self { shared }, Writer(writer))
    }

    /// Appends a line.
    pub fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Ends the log and waits until all of it is written.
    pub async fn close(self, writer: Writer) {
        self.shared.state().closed = true;
        self.shared.closing.cancel();
        self.shared.changed.notify_one();
        if let Err(error) = writer.0.await {
            tracing::error!(%error, "writer of a build's log failed");
        }
    }
}

impl Log for BuildLog {
    fn write(&self, text: &str) {
        let mut state = self.shared.state();
        if state.total >= LONGEST {
            return;
        }
        state.total += text.len();
        state.pending.push_str(text);
        if state.total >= LONGEST {
            state.pending.push_str("\nthe log is longer than 8 MiB, the rest is left out\n");
        }
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to write, and whether more can come.
    fn take(&self) -> (String, bool) {
        let mut state = self.state();
        (std::mem::take(&mut state.pending), state.closed)
    }
}

async fn write_all(shared: Arc<Shared>, pool: Pool, build: u64, abandon: CancellationToken) {
    let mut is_first = true;
    let mut next = None;
    loop {
        let (text, closed) = shared.take();
        if !text.is_empty() {
            tokio::select! {
                written = write_piece(&pool, build, next, &text) => next = Some(written + 1),
                () = abandon.cancelled() => return,
            }
        } else if closed {
            return;
        } else {
            shared.changed.notified().await;
            // The first line shows at once; those after it are gathered.
            if !std::mem::take(&mut is_first) {
                tokio::time::timeout(GATHER, shared.closing.cancelled()).await.ok();
            }
        }
    }
}

/// Writes a piece; returns its number, which is the next that is free where none is given.
async fn write_piece(pool: &Pool, build: u64, number: Option<u32>, text: &str) -> u32 {
    let mut number = number;
    loop {
        let write = async {
            let mut conn = store::connect(pool, DEADLINE).await?;
            let seq = match number {
                Some(seq) => seq,
                // An earlier attempt has written before.
                None => *number.insert(store::build::next_piece(&mut conn, build).await?),
            };
            store::build::append_log(&mut conn, build, seq, text).await?;
            Ok::<_, StoreError>(seq)
        };
        match write.await {
            Ok(seq) => return seq,
            Err(error) => {
                tracing::warn!(build, error = %ErrorChain(&error), "log of a build cannot be written");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
