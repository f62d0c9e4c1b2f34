//! See `fuzzing::bus_event`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::bus_event(bytes));
