//! The real program against a real MariaDB and a real Redis; agents and routers are played by the test, over the real
//! protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crowd;
mod desired_state;
mod harness;
mod leadership;
mod line;
mod logs;
mod orders;
mod restore;
mod trust;
