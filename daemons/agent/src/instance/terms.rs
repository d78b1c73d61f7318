//! The terms in which the life of an instance is told.

use dinp_common::api::UnixMillis;
use dinp_common::api::agent::InstanceState;
use std::time::Instant;

/// This moment on both clocks: one to decide by, one for people.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub instant: Instant,
    /// On the wall.
    pub millis: UnixMillis,
}

impl Now {
    /// This moment.
    pub fn read() -> Self {
        Self { instant: Instant::now(), millis: dinp_common::api::unix_millis() }
    }
}

/// What the orders in force say about the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// No orders have been read yet.
    Undecided,
    /// Run it. It can be created only if its environment is known.
    Run {
        /// Whether all that a container needs is known.
        can_create: bool,
    },
    /// Nothing: it runs on.
    Unnamed,
    /// Stop it.
    Stop,
}

/// What the engine says about the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// There is none.
    Absent,
    /// It does not run.
    Down(Option<Exit>),
    /// It has run since then (in the engine's words).
    Up(String),
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its code.
    pub code: i64,
    /// Whether the kernel ended it for its memory.
    pub out_of_memory: bool,
    /// What the engine says about it.
    pub error: String,
}

impl Exit {
    /// In words.
    pub fn reason(&self) -> String {
        match self {
            Self { out_of_memory: true, .. } => "out of memory".into(),
            Self { error, .. } if !error.is_empty() => error.clone(),
            // Engines with cgroup version 1 may miss that it was for memory.
            Self { code: 137, .. } => "exited with code 137 (killed: out of memory, or by hand)".into(),
            Self { code: 127, .. } => "exited with code 127 (its command was not found)".into(),
            Self { code, .. } => format!("exited with code {code}"),
        }
    }
}

/// What the engine's event says about the end of a container. It comes before the engine is done with it, and
/// so before it answers questions about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died {
    /// When, in nanoseconds since 1970, on the clock that starts are told by too.
    pub at_nanos: i64,
    /// The exit code.
    pub code: i64,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the container from the engine.
    Look,
    /// Pull the image.
    Pull,
    /// Create the container.
    Create,
    /// Start it.
    Start,
    /// Ask whether it is well.
    Probe,
    /// Stop it because it was not ready in time.
    Abort,
    /// Stop it because the orders say so.
    End,
    /// Remove the container.
    Remove,
    /// Nothing before that moment, unless something happens.
    Wait(Option<Instant>),
    /// It is over.
    Gone,
}

/// What a report says of the life.
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
}
