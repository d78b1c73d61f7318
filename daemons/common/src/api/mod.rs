//! The documents that the daemons and the people's programs exchange, as JSON over HTTP.
//!
//! One module per conversation. Fields are only ever added, with a default, so that versions N and N-1
//! of any two components understand each other; golden files in `tests/golden` hold the format still.
//! Times are milliseconds since 1970 in UTC.

pub mod agent;
pub mod builder;
pub mod control;
pub mod env;
pub mod hm;
pub mod leader;
pub mod people;
pub mod router;
pub mod uic;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 in UTC.
pub type UnixMillis = i64;

/// Now, on the wall clock. For what people read; decisions use the monotonic clock.
pub fn unix_millis() -> UnixMillis {
    jiff::Timestamp::now().as_millisecond()
}

/// The highest revision of desired state that a leader has carried out, with the servers' proof. It stands in orders and
/// in Redis' head, and tells a leader whose database shows a lower one that the database is older than what runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedRevision {
    /// The revision; 0 for none.
    pub number: u64,
    /// An HMAC by a key of the servers over cluster and number: without a valid one the number is a mere claim.
    pub proof: String,
}

impl ProvedRevision {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.number == 0
    }

    /// The higher one of two; of equal ones the newer, whose proof is of a newer key.
    pub fn or_newer(self, newer: Self) -> Self {
        if newer.number >= self.number { newer } else { self }
    }
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What to pass as `after` for the next page; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Query of a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PageQuery {
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most entries wanted: 1 to 1000, by default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl PageQuery {
    /// The limit within its bounds.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, 1000)
    }
}

/// Query of a long poll: answer at once when the version differs, else when it changes, else 204 after a while.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WatchQuery {
    /// The version that the caller has; none for an answer at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<String>,
    /// Longest wait in seconds, at most 30.
    #[serde(default)]
    pub wait_secs: u32,
}
