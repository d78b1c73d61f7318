//! dash as a whole: a real uic and a real database under their own accounts; server, builder and registry are played.

mod api;
mod browser;
mod pages;
mod played;
mod shots;
mod stage;
mod walk;
