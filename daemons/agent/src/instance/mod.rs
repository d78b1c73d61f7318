//! One instance: its life as a pure state machine, and the task that lives it.
//!
//! ```text
//!            ordered
//!               |
//!               v   no image        pulled, created, started
//!          Accepted ---> Pulling ------------+
//!               | image is there             |
//!               +--------------------------->|
//!                                            v        first good probe
//!     +---------------------------------> Starting ------------------> Ready <---------+
//!     |                                      |                         |  |  threshold  |
//!     | started again: three times           | ended, not ready in     |  v  of good    |
//!     | at once, then after 10 s             | time, wrong answers     | Unfit ---------+
//!     | doubling to 10 min                   v                         |  |   threshold of bad probes
//!     +----------------------------------- BackOff <---- ended --------+--+
//!                       pull or creation failed: again after 1 s doubling to 1 min
//!
//!     any state --- named in `stop` ---> Stopping --- SIGTERM, grace, SIGKILL, removed ---> gone
//! ```
//!
//! Ready, an instance has *proved* itself when it has been so for a while without an end or a failed probe ([`fitness`]).
//! An end is reported at once, and why as soon as the engine has been asked ([`autopsy`], [`reason`]).
//!
//! Docker's events wake the task, which then reads the container from the engine; the event of an end is believed
//! at once, because the engine answers no question about a container before it has cleaned up behind it. An engine that
//! does not answer changes no state: probes go on, calls are tried again.

mod autopsy;
mod calls;
mod driver;
mod fitness;
mod life;
mod reason;
mod shell;
mod shown;
mod sockets;
mod task;
mod terms;

pub use calls::{container_of, inspect_raw};
pub use task::{Found, Ordered, Task, Wanted};
pub use terms::{Died, News};
