//! The vector operations that kernels are written in.
//!
//! # Why tokens
//! An implementation of [`Simd`] is a zero-sized token that can be had only where its instructions exist. Holding one is the proof, so every operation is a safe method and kernels are safe
//! code, written once for all instruction sets. [`Simd::run`] compiles a kernel with the instructions switched on: everything between it and an operation must be `#[inline(always)]`, or the
//! operations turn into function calls.

/// Elements of a quantised row that are handled at a time: eight blocks of 32, or one of 256.
pub(crate) const CHUNK_LEN: usize = 256;

/// A piece of work that is compiled once per instruction set.
pub(crate) trait Kernel {
    type Output;

    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Operations on vectors of [`Simd::LANES`] f32 numbers.
///
/// Results are the same bits each time on one machine. Between instruction sets they may differ in the last bits, as not all of them fuse a product with a sum.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Numbers in a vector; a divisor of 16.
    const LANES: usize;

    /// A vector.
    type F32: Copy;

    /// A vector of as many i32 numbers.
    type I32: Copy;

    /// 32 bytes.
    type Bytes: Copy;

    /// As many elements in memory as a vector has lanes.
    type Chunk<T: Copy + Default>: AsRef<[T]> + AsMut<[T]>;

    /// Runs a kernel with this token's instructions.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Whole chunks, and the elements that are left.
    fn chunks<T: Copy + Default>(elements: &[T]) -> (&[Self::Chunk<T>], &[T]);

    /// Whole chunks to write, and the elements that are left.
    fn chunks_mut<T: Copy + Default>(elements: &mut [T]) -> (&mut [Self::Chunk<T>], &mut [T]);

    /// A chunk that begins with the given elements (fewer than [`Simd::LANES`]) and ends with zeros.
    fn partial<T: Copy + Default>(elements: &[T]) -> Self::Chunk<T>;

    /// The same number in all lanes.
    fn splat(self, value: f32) -> Self::F32;
    fn load(self, chunk: &Self::Chunk<f32>) -> Self::F32;
    fn store(self, vector: Self::F32, chunk: &mut Self::Chunk<f32>);
    /// F32 numbers of a file.
    fn load_f32(self, chunk: &Self::Chunk<[u8; 4]>) -> Self::F32;
    /// F16 numbers of a file.
    fn load_f16(self, chunk: &Self::Chunk<[u8; 2]>) -> Self::F32;
    /// BF16 numbers of a file.
    fn load_bf16(self, chunk: &Self::Chunk<[u8; 2]>) -> Self::F32;
    /// One F16 number of a file.
    fn f16(self, bytes: [u8; 2]) -> f32;

    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a · b + c, rounded once where the instruction set can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger number; `b` where either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller number; `b` where either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// 2^n for whole numbers -126 ..= 127; anything for others.
    fn exp2_whole(self, n: Self::F32) -> Self::F32;

    /// Sum of all lanes: neighbours first, then pairs of neighbours, and so on.
    fn sum(self, vector: Self::F32) -> f32;

    /// [`Simd::sum`] of four vectors, bit by bit, in fewer instructions.
    fn sum_of_each(self, vectors: [Self::F32; 4]) -> [f32; 4];

    fn splat_i32(self, value: i32) -> Self::I32;
    fn load_i32(self, chunk: &Self::Chunk<i32>) -> Self::I32;
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The low 32 bits of each product.
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn to_f32(self, vector: Self::I32) -> Self::F32;

    /// Four unsigned bytes for each lane.
    fn load_quads(self, chunk: &Self::Chunk<[u8; 4]>) -> Self::I32;
    /// Adds to each lane the four products of its bytes with those of `x`, exactly. `WIDE` says that bytes of `w` may be above 127.
    fn dot_quads<const WIDE: bool>(self, sum: Self::I32, w: Self::I32, x: [i8; 4]) -> Self::I32;
    /// Puts the fours of bytes of up to [`Simd::LANES`] rows side by side: `[q][lane]`, four `q` of row `lane`. `BYTES` is a multiple of 64. What becomes of lanes without a row is not said.
    fn interleave<const BYTES: usize>(self, rows: &[&[u8; BYTES]], to: &mut [[u8; 4]]);
    /// The lower or the upper of the two signed 16-bit numbers in each lane.
    fn half<const UPPER: bool>(self, pairs: Self::I32) -> Self::I32;
    /// Adds to each lane the two products of its numbers with those of `x`, exactly.
    fn dot_pairs(self, sum: Self::I32, w: Self::I32, x: [i16; 2]) -> Self::I32;
    /// Adds to each lane the two products of its BF16 numbers with those of `x`. Numbers that are too small for a normal f32 may count as zero.
    fn dot_bf16(self, sum: Self::F32, w: Self::I32, x: Self::I32) -> Self::F32;

    /// Products of bytes, summed over each 32, exactly. `WIDE` says that bytes of `w` may be above 127.
    fn dots_of_32<const WIDE: bool>(
        self,
        w: &[u8; CHUNK_LEN],
        x: &[i8; CHUNK_LEN],
    ) -> [i32; CHUNK_LEN / 32];
    /// Products of bytes, summed over each 16, times the scale of these 16, all summed, exactly. `WIDE` says that bytes of `w` may be above 127. The result must fit.
    fn scaled_dots_of_16<const WIDE: bool>(
        self,
        w: &[u8; CHUNK_LEN],
        x: &[i8; CHUNK_LEN],
        scales: &[i16; CHUNK_LEN / 16],
    ) -> i32;
    /// `sums[i] += (a[i] · b[i]) · n[i]`, every product and sum rounded.
    fn add_scaled(self, sums: &mut [f32; 8], factors: [&[f32; 8]; 2], n: &[i32; 8]);
    /// Asks for the cache line of an address that will be read soon; any address will do.
    fn prefetch(self, address: *const u8);
    fn load_bytes(self, bytes: &[u8; 32]) -> Self::Bytes;
    fn store_bytes(self, bytes: Self::Bytes, to: &mut [u8; 32]);
    /// The low nibbles of all bytes, then the high ones.
    fn nibbles(self, bytes: &[u8; 16]) -> Self::Bytes;
    /// [`Simd::nibbles`] of both, stored one behind the other.
    #[inline(always)]
    fn store_nibbles(self, blocks: [&[u8; 16]; 2], to: &mut [[u8; 32]; 2]) {
        for (block, to) in blocks.into_iter().zip(to) {
            self.store_bytes(self.nibbles(block), to);
        }
    }
    /// `value` for each of the 32 bits that is set, zero for the others.
    fn bits(self, bits: [u8; 4], value: u8) -> Self::Bytes;
    /// `((byte >> right) & mask) << left` for each byte; shifts are below 8 and no bit is lost on the left.
    fn field(self, bytes: Self::Bytes, right: u32, mask: u8, left: u32) -> Self::Bytes;
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Each byte with the bits of `mask` turned over.
    fn xor(self, bytes: Self::Bytes, mask: u8) -> Self::Bytes;
    /// `table[byte]` for each byte, which is below 16.
    fn look_up(self, table: &[u8; 16], bytes: Self::Bytes) -> Self::Bytes;
    /// F16 numbers of a file that do not lie together.
    fn f16s(self, numbers: [[u8; 2]; 8]) -> [f32; 8];
    /// Each byte twice.
    fn twice(self, bytes: [u8; 8]) -> [i16; 16];
}

/// e^x within 2 units in the last place; infinity, zero and NaN where f32 has them.
///
/// `x = n · ln 2 + r` with whole `n`, so e^x = 2^n · e^r; the polynomial for |r| <= ln 2 / 2 and the split of ln 2 are those of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // Adding it leaves a whole number in the low bits: 1.5 · 2^23.
    const TO_WHOLE: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const POLYNOMIAL: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];

    // Beyond these the result is infinity or zero. The order of operands lets NaN through.
    let x = simd.min(simd.splat(89.0), simd.max(simd.splat(-104.0), x));
    let n = whole(
        simd,
        simd.mul(x, simd.splat(std::f32::consts::LOG2_E)),
        TO_WHOLE,
    );
    let r = simd.mul_add(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN_2_LOW), r);
    let mut p = simd.splat(POLYNOMIAL[0]);
    for &coefficient in &POLYNOMIAL[1..] {
        p = simd.mul_add(p, r, simd.splat(coefficient));
    }
    let p = simd.add(simd.mul_add(p, simd.mul(r, r), r), simd.splat(1.0));
    // In two steps, as 2^n alone may leave the range of normal numbers where the product does not.
    let half = whole(simd, simd.mul(n, simd.splat(0.5)), TO_WHOLE);
    let p = simd.mul(p, simd.exp2_whole(half));
    simd.mul(p, simd.exp2_whole(simd.sub(n, half)))
}

/// The nearest whole number.
#[inline(always)]
fn whole<S: Simd>(simd: S, x: S::F32, to_whole: f32) -> S::F32 {
    simd.sub(simd.add(x, simd.splat(to_whole)), simd.splat(to_whole))
}
