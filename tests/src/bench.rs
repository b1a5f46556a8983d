//! Measuring: Hearth as its clients see it, another engine, and the machine's memory.

pub mod bandwidth;
pub mod hearth;
pub mod peer;
