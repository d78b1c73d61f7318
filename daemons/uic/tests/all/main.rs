//! uic as a whole: real HTTP, real database, its own account.

#![allow(clippy::unwrap_used, reason = "what is missing in a test fails it")]

mod common;
mod people;
mod proxies;
mod sign_on;
