//! The terms in which the life of an instance is told.

use dinp_common::api::UnixMillis;
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
    /// Whether the kernel killed a process of it for its memory, at the end or shortly before.
    pub out_of_memory: bool,
    /// What the engine says about it.
    pub error: String,
    /// Whether it ended while agent or engine were not there: as a rule that was the doing of the node.
    pub is_unwatched: bool,
}

impl Exit {
    /// Takes over what the engine knows about the same end, in addition to what is known.
    pub fn learn(&mut self, engine: Self) {
        *self = Self { out_of_memory: self.out_of_memory || engine.out_of_memory, ..engine };
    }
}

/// What was found out about an end, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why it ended.
    pub reason: String,
    /// Whether it was for memory.
    pub out_of_memory: bool,
    /// The last lines that it wrote.
    pub output: Vec<String>,
}

/// What the agent is told about a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It has ended.
    Died(Died),
    /// A process in it was killed for memory.
    OutOfMemory,
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
    /// Find out why it ended.
    Examine,
    /// Ask whether it is well.
    Probe,
    /// Take in what time has brought.
    Reckon,
    /// Stop it because it did not become ready.
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
