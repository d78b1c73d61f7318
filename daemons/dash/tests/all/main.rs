//! dash as a whole: a real uic and a real database under their own accounts; server, builder and registry are played.

#![allow(clippy::unwrap_used, reason = "what is missing in a test fails it")]

mod api;
mod browser;
mod builds;
mod pages;
mod played;
mod quotas;
mod rebase;
mod releases;
mod shots;
mod stage;
mod uploads;
mod walk;
