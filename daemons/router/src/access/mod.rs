//! The access log: one line for each request, in JSON.
//!
//! ```text
//! worker: a line into its own buffer --(when it is full, or each second)--> one thread --> file, or journal
//! ```
//!
//! Requests never wait for it. Where the disk is too slow lines are dropped, and counted.

mod line;
mod sink;

pub(crate) use line::{Asked, Entry, Served};
pub use sink::AccessLog;

use crate::totals::Totals;
use sink::Sink;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Bytes that a worker gathers before it hands them over.
const BATCH: usize = 32_768;
/// Batches that wait for the disk before lines are dropped.
const WAITING: usize = 256;

/// What workers write to.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    batches: SyncSender<Vec<u8>>,
    totals: Arc<Totals>,
}

impl Log {
    /// Starts the thread that writes; it ends when the last clone of this is gone and all is written.
    pub(crate) fn start(to: &AccessLog, totals: Arc<Totals>) -> io::Result<Option<(Self, JoinHandle<()>)>> {
        let Some(mut sink) = Sink::open(to)? else { return Ok(None) };
        let (batches, inbox) = sync_channel::<Vec<u8>>(WAITING);
        let counts = totals.clone();
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            let mut is_well = true;
            for batch in inbox {
                let written = sink.write(&batch);
                match &written {
                    Ok(()) if !is_well => tracing::info!("the access log can be written again"),
                    Err(error) if is_well => tracing::error!(%error, "the access log cannot be written: {error}"),
                    _ => {}
                }
                is_well = written.is_ok();
                if !is_well {
                    counts.unlogged(lines_of(&batch));
                }
            }
        })?;
        Ok(Some((Self { batches, totals }, thread)))
    }
}

fn lines_of(batch: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', batch).count() as u64
}

/// The end of one worker.
pub(crate) struct Lines {
    log: Option<Log>,
    buffer: RefCell<Vec<u8>>,
}

impl Lines {
    pub(crate) fn new(log: Option<Log>) -> Self {
        Self { log, buffer: RefCell::default() }
    }

    /// Whether anybody wants them.
    pub(crate) fn are_wanted(&self) -> bool {
        self.log.is_some()
    }

    /// Writes a line, where anybody wants it.
    pub(crate) fn note(&self, entry: &Entry<'_>) {
        if !self.are_wanted() {
            return;
        }
        let is_full = {
            let mut buffer = self.buffer.borrow_mut();
            entry.write(jiff::Timestamp::now(), &mut buffer);
            buffer.len() >= BATCH
        };
        if is_full {
            self.flush();
        }
    }

    /// Hands over what was gathered.
    pub(crate) fn flush(&self) {
        let Some(log) = &self.log else { return };
        let batch = std::mem::take(&mut *self.buffer.borrow_mut());
        if batch.is_empty() {
            return;
        }
        self.buffer.borrow_mut().reserve(BATCH + 1024);
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = log.batches.try_send(batch) {
            log.totals.unlogged(lines_of(&batch));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}
