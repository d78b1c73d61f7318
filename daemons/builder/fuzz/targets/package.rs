//! Any file as a package.
#![no_main]

use dinp_builder_fuzz::archives;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dinp_builder::fuzzing::package(bytes));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    archives::mutate(data, size, most, seed, &libfuzzer_sys::fuzzer_mutate)
});
