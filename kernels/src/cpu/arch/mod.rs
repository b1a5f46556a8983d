//! Instruction sets: one thin file each, all with the same operations.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use super::simd::{Kernel, Simd};
use portable::Portable;

/// The instruction set that a device uses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Isa {
    /// What the compiler may assume of every machine of this architecture.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(x86_64::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86_64::Avx512<false>),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(x86_64::Avx512<true>),
}

impl Isa {
    /// The best that this machine has.
    pub(super) fn detect() -> Isa {
        Isa::available()[0]
    }

    /// All that this machine has, the best first.
    pub(super) fn available() -> Vec<Isa> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            available.extend(x86_64::Avx512::new().map(Isa::Avx512Bf16));
            available.extend(x86_64::Avx512::new().map(Isa::Avx512));
            available.extend(x86_64::Avx2::new().map(Isa::Avx2));
        }
        available.push(Isa::Portable);
        available
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2+fma+f16c",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512+vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(_) => "avx512+vnni+bf16",
        }
    }

    /// Runs a kernel with these instructions.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Portable => Portable.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(avx2) => avx2.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(avx512) => avx512.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(avx512) => avx512.without_bf16().run(kernel),
        }
    }

    /// Runs a kernel that multiplies BF16 numbers.
    pub(super) fn run_bf16<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(avx512) => avx512.run(kernel),
            other => other.run(kernel),
        }
    }

    /// Whether it has an instruction that multiplies BF16 numbers.
    pub(super) fn has_bf16(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
