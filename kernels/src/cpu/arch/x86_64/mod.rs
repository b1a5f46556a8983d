//! x86-64 beyond its baseline.

mod avx2;

pub(super) use avx2::Avx2;
