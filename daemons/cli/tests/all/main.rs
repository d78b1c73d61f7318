//! The command line as people and scripts meet it.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

mod deploy;
mod exit_codes;
mod help;
mod login;
mod logs;
mod man;
mod real_sign_on;
mod rebase;
mod support;
mod tables;
mod tls;
mod uploads;
