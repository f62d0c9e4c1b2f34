//! See `fuzzing::registering`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::registering(bytes));
