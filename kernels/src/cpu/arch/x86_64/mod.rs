//! x86-64 beyond its baseline.
#![allow(
    unsafe_code,
    reason = "instructions that the compiler may not assume are called here, and nowhere else in this crate"
)]

mod avx2;
mod avx512;
mod transpose;

pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;
