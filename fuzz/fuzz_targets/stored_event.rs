//! See `fuzzing::stored_event`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::stored_event(bytes));
