//! What a report says of an instance's life.

use super::reason;
use super::terms::Now;
use dinp_common::api::UnixMillis;
use dinp_common::api::agent::InstanceState;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where it is.
    pub state: InstanceState,
    /// Since when.
    pub since: UnixMillis,
    /// Why, for people.
    pub reason: String,
    /// Times it was started again.
    pub restarts: u32,
    /// Code of the last end.
    pub exit_code: Option<i64>,
    /// Times that it failed by its own fault.
    pub failures: u32,
    /// Why it failed last; empty once it has proved itself.
    pub last_failure: String,
    /// Whether that was a start that came to nothing in all its time.
    pub failed_start: bool,
    /// Whether that was for memory.
    pub out_of_memory: bool,
    /// What it wrote before its last end; empty once it has proved itself.
    pub output: Vec<String>,
    /// Whether `reason` is the node's fault.
    pub node_fault: bool,
    /// Times that a process in it was killed for memory and it ran on.
    pub oom_kills: u32,
}

impl Shown {
    /// Of an instance that was ordered at that time.
    pub fn new(since: UnixMillis) -> Self {
        Self {
            state: InstanceState::Accepted,
            since,
            reason: String::new(),
            restarts: 0,
            exit_code: None,
            failures: 0,
            last_failure: String::new(),
            failed_start: false,
            out_of_memory: false,
            output: Vec::new(),
            node_fault: false,
            oom_kills: 0,
        }
    }

    /// It is in that state from now on, if it was not before, and for that reason.
    pub fn enter(&mut self, state: InstanceState, reason: &str, now: Now) {
        if self.state != state {
            self.state = state;
            self.since = now.millis;
        }
        self.reason = reason.to_owned();
        self.node_fault = false;
    }

    /// It failed by its own fault.
    pub fn count_failure(&mut self, reason: &str, failed_start: bool) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = reason.to_owned();
        self.failed_start = failed_start;
        self.out_of_memory = false;
    }

    /// It has proved itself: why it failed before is of no concern any more.
    pub fn forgive(&mut self) {
        self.output.clear();
        self.last_failure.clear();
        (self.failed_start, self.out_of_memory) = (false, false);
    }

    /// It runs on after a process in it was killed for memory.
    pub fn survive(&mut self, limit_mb: u32) {
        self.oom_kills = self.oom_kills.saturating_add(1);
        self.reason = format!("a process in it was killed: {}", reason::out_of_memory(limit_mb));
    }
}
