//! DINP master.

pub mod core;
