//! The daemon over real sockets: one behaviour a file.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of test files are small"
)]

mod support;

mod budget;
mod directory;
mod drain;
mod health;
mod lease;
mod list;
mod prefetch;
mod process;
mod rate;
mod read;
mod watch;
