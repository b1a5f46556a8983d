//! Chat templates and messages.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::plant(&fuzz::chat::seeds()), |bytes: &[u8]| fuzz::chat::check(bytes));
