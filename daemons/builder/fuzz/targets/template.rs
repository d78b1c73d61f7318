//! Any text as a template, with any values.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dinp_builder::fuzzing::template(bytes));
