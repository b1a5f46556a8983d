//! Texts and tokens under sound vocabularies.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::plant(&fuzz::tokenizer::seeds()), |bytes: &[u8]| fuzz::tokenizer::check(bytes));
