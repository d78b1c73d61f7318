//! What can go wrong while a testbed is made or used.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Result of the testbed.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a scenario returns: the first `?` that fails marks the scenario as failed, and the journals
/// of the hosts are printed at its end.
pub type Scenario = std::result::Result<(), Failure>;

/// A failed act, in one sentence that names it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of this machine could not be run at all.
    #[error("cannot run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` on {place} ended with {status}:\n{output}")]
    Command {
        /// What was run.
        command: String,
        /// The host, or "this machine".
        place: String,
        /// Exit code or signal.
        status: String,
        /// What it printed, both streams.
        output: String,
    },
    /// A file could not be read or written.
    #[error("cannot {act} {}", path.display())]
    File {
        /// read, write, copy, ...
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Something printed what is not the JSON that was expected.
    #[error("{what} is not the JSON expected: {text}")]
    Json {
        /// Whose output.
        what: String,
        /// The output.
        text: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A request got no answer.
    #[error("no answer from {url}")]
    Http {
        /// The address asked.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// What should have become true in time did not.
    #[error("not within {within:?}: {what}; last seen: {last}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        within: std::time::Duration,
        /// What the last look showed.
        last: String,
    },
    /// Anything else, said in full.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An error that says it all itself.
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }

    /// The error with all of its causes, on one line each.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str("\n  because: ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

static FAILED: AtomicBool = AtomicBool::new(false);

/// The end of a scenario that failed.
pub struct Failure(Error);

impl Failure {
    /// From now on the scenario of this process has failed.
    pub(super) fn mark() {
        FAILED.store(true, Ordering::Relaxed);
    }

    /// Whether a scenario of this process has failed by `?`.
    pub(super) fn happened() -> bool {
        FAILED.load(Ordering::Relaxed)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::mark();
        Self(error)
    }
}

// The test harness prints a returned error with Debug.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.chain())
    }
}
