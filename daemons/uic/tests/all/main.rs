//! uic as a whole: real HTTP, real database, its own account.

mod common;
mod people;
mod sign_on;
