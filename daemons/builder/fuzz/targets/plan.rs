//! Any text as a Dockerfile that may be done without the Engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dinp_builder::fuzzing::plan(bytes));
