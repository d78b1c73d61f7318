//! The router with a real table, between real connections.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod edge;
mod failures;
mod feed;
mod front;
mod queue;
mod routing;
mod stop;
mod strictness;
