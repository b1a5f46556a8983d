//! What must hold of every input: one module per target, with `check`, which panics where something does not hold, and `seeds`, valid inputs to begin with.
//!
//! The targets are libFuzzer programs that plain cargo builds with the stable compiler: `.cargo/config.toml` of this folder asks for the coverage counters. `run.sh` runs them all; one of them alone, or
//! an input that it found:
//!
//! ```text
//! cargo run --release --bin directory -- -max_len=4096 ../../target/fuzz/corpus/directory
//! cargo run --release --bin directory -- ../../target/fuzz/artifacts/directory/crash-…
//! ```
//!
//! # Why no input lies in the tree
//! Seeds are built by the same writers as the tests' files, so that they stay valid when a format changes. An input that found a fault becomes a seed here, spelled in code, with the fix.

pub mod chat;
pub mod directory;
pub mod frames;
mod input;
pub mod tokenizer;
pub mod tokenizer_metadata;
mod vocabulary;

use std::path::{Path, PathBuf};

/// The broken and odd model files of `$HEARTH_ORACLE`; none where that is not given.
///
/// # Panics
/// If it is given and they cannot be read.
pub(crate) fn broken_files() -> Vec<Vec<u8>> {
    let Some(oracle) = std::env::var_os("HEARTH_ORACLE") else {
        return Vec::new();
    };
    let folder = Path::new(&oracle).join("malformed/open");
    let entries = folder.read_dir().expect("the oracle has broken files");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "gguf")
        })
        .collect();
    paths.sort();
    let read = |path: &PathBuf| std::fs::read(path).expect("a readable file");
    paths.iter().map(read).collect()
}

/// Writes `seeds` into the corpus, the first folder among the arguments. Without one (when a single input is run again) it does nothing.
///
/// # Panics
/// If the folder cannot be written.
pub fn plant(seeds: &[Vec<u8>]) {
    let arguments = || std::env::args_os().skip(1);
    let Some(corpus) = arguments().find(|argument| Path::new(argument).is_dir()) else {
        return;
    };
    for (index, seed) in seeds.iter().enumerate() {
        let path = Path::new(&corpus).join(format!("seed-{index:03}"));
        std::fs::write(&path, seed).expect("the corpus folder takes seeds");
    }
}
