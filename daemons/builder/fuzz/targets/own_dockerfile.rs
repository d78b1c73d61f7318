//! Any text as a package's own Dockerfile.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dinp_builder::fuzzing::own_dockerfile(bytes));
