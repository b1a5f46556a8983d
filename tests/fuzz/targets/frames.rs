//! Messages of the hand-off socket.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::plant(&fuzz::frames::seeds()), |bytes: &[u8]| fuzz::frames::check(bytes));
