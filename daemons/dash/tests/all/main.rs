//! dash as a whole: a real uic and a real database under their own accounts; server, builder and registry are played.

mod api;
mod played;
mod stage;
mod walk;
