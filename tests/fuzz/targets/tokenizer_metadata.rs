//! Vocabularies as any file may hold them.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::plant(&fuzz::tokenizer_metadata::seeds()), |bytes: &[u8]| fuzz::tokenizer_metadata::check(bytes));
