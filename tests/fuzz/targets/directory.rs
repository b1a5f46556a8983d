//! Headers of model files.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::plant(&fuzz::directory::seeds()), |bytes: &[u8]| fuzz::directory::check(bytes));
