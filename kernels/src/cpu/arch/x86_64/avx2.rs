//! AVX2 with FMA and F16C: vectors of eight f32 numbers. Intel since Haswell, AMD since Excavator.

use std::arch::x86_64::*;

use super::transpose;
use crate::cpu::simd::{CHUNK_LEN, Kernel, Simd};

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

const LANES: usize = 8;

impl Avx2 {
    /// The token, where the processor (and the operating system) has the instructions.
    pub(crate) fn new() -> Option<Avx2> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has_all.then_some(Avx2(()))
    }
}

/// An intrinsic that takes and gives values only.
macro_rules! with_token {
    ($token:ident, $intrinsic:expr) => {{
        let Avx2(()) = $token;
        // SAFETY: an `Avx2` is made only in `Avx2::new`, after all of its instructions were found; these intrinsics ask for nothing else.
        unsafe { $intrinsic }
    }};
}

impl Simd for Avx2 {
    const LANES: usize = LANES;

    type F32 = __m256;
    type I32 = __m256i;
    type Bytes = __m256i;
    type Chunk<T: Copy + Default> = [T; LANES];

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled_with_avx2<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: an `Avx2` is made only in `Avx2::new`, after all three features were found.
        unsafe { compiled_with_avx2(self, kernel) }
    }

    #[inline(always)]
    fn chunks<T: Copy + Default>(elements: &[T]) -> (&[[T; LANES]], &[T]) {
        elements.as_chunks()
    }

    #[inline(always)]
    fn chunks_mut<T: Copy + Default>(elements: &mut [T]) -> (&mut [[T; LANES]], &mut [T]) {
        elements.as_chunks_mut()
    }

    #[inline(always)]
    fn partial<T: Copy + Default>(elements: &[T]) -> [T; LANES] {
        let mut chunk = [T::default(); LANES];
        chunk[..elements.len()].copy_from_slice(elements);
        chunk
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        with_token!(self, _mm256_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, chunk: &[f32; LANES]) -> __m256 {
        // SAFETY: the token proves AVX; the reference covers the 32 bytes that are read, and the load has no alignment.
        unsafe { _mm256_loadu_ps(chunk.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, vector: __m256, chunk: &mut [f32; LANES]) {
        // SAFETY: the token proves AVX; the reference covers the 32 bytes that are written, and the store has no alignment.
        unsafe { _mm256_storeu_ps(chunk.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn load_f32(self, chunk: &[[u8; 4]; LANES]) -> __m256 {
        // SAFETY: the token proves AVX; the reference covers the 32 bytes that are read, and the load has no alignment.
        unsafe { _mm256_loadu_ps(chunk.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_f16(self, chunk: &[[u8; 2]; LANES]) -> __m256 {
        // SAFETY: the token proves SSE2; the reference covers the 16 bytes that are read, and the load has no alignment.
        let halves = unsafe { _mm_loadu_si128(chunk.as_ptr().cast()) };
        with_token!(self, _mm256_cvtph_ps(halves))
    }

    #[inline(always)]
    fn load_bf16(self, chunk: &[[u8; 2]; LANES]) -> __m256 {
        // SAFETY: the token proves SSE2; the reference covers the 16 bytes that are read, and the load has no alignment.
        let halves = unsafe { _mm_loadu_si128(chunk.as_ptr().cast()) };
        // A bf16 is the upper half of the f32 with the same value.
        with_token!(
            self,
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
        )
    }

    #[inline(always)]
    fn f16(self, bytes: [u8; 2]) -> f32 {
        let bits = i32::from(u16::from_le_bytes(bytes));
        with_token!(self, _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))))
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        with_token!(self, _mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        with_token!(self, _mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        with_token!(self, _mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        with_token!(self, _mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        with_token!(self, _mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        with_token!(self, _mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        with_token!(self, _mm256_min_ps(a, b))
    }

    /// The sum leaves `n` plus the exponent's bias in the low bits; they are moved up to where the exponent lies.
    #[inline(always)]
    fn exp2_whole(self, n: __m256) -> __m256 {
        let biased = self.add(n, self.splat(12_582_912.0 + 127.0));
        with_token!(
            self,
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(biased)))
        )
    }

    #[inline(always)]
    fn sum(self, vector: __m256) -> f32 {
        let pairs = with_token!(self, _mm256_hadd_ps(vector, vector));
        let fours = with_token!(self, _mm256_hadd_ps(pairs, pairs));
        let high = with_token!(self, _mm256_extractf128_ps::<1>(fours));
        with_token!(
            self,
            _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(fours), high))
        )
    }

    #[inline(always)]
    fn sum_of_each(self, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        let pairs = with_token!(self, (_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d)));
        let fours = with_token!(self, _mm256_hadd_ps(pairs.0, pairs.1));
        let high = with_token!(self, _mm256_extractf128_ps::<1>(fours));
        let sums = with_token!(self, _mm_add_ps(_mm256_castps256_ps128(fours), high));
        let mut results = [0.0; 4];
        // SAFETY: the token proves SSE; the reference covers the 16 bytes that are written, and the store has no alignment.
        unsafe { _mm_storeu_ps(results.as_mut_ptr(), sums) };
        results
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> __m256i {
        with_token!(self, _mm256_set1_epi32(value))
    }

    #[inline(always)]
    fn load_i32(self, chunk: &[i32; LANES]) -> __m256i {
        self.load_bytes(bytemuck::cast_ref(chunk))
    }

    #[inline(always)]
    fn add_i32(self, a: __m256i, b: __m256i) -> __m256i {
        with_token!(self, _mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub_i32(self, a: __m256i, b: __m256i) -> __m256i {
        with_token!(self, _mm256_sub_epi32(a, b))
    }

    #[inline(always)]
    fn mul_i32(self, a: __m256i, b: __m256i) -> __m256i {
        with_token!(self, _mm256_mullo_epi32(a, b))
    }

    #[inline(always)]
    fn to_f32(self, vector: __m256i) -> __m256 {
        with_token!(self, _mm256_cvtepi32_ps(vector))
    }

    #[inline(always)]
    fn load_quads(self, chunk: &[[u8; 4]; LANES]) -> __m256i {
        self.load_bytes(bytemuck::cast_ref(chunk))
    }

    #[inline(always)]
    fn interleave<const BYTES: usize>(self, rows: &[&[u8; BYTES]], to: &mut [[u8; 4]]) {
        let (to, _) = to.as_chunks_mut::<LANES>();
        for (part, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut vectors = [self.splat_i32(0); LANES];
            for lane in 0..rows.len() {
                vectors[lane] = self.load_bytes(&rows[lane].as_chunks().0[part]);
            }
            let columns = with_token!(self, transpose::eight(vectors));
            for q in 0..LANES {
                self.store_bytes(columns[q], bytemuck::cast_mut(&mut to[q]));
            }
        }
    }

    #[inline(always)]
    fn half<const UPPER: bool>(self, pairs: __m256i) -> __m256i {
        with_token!(self, {
            let upper = if UPPER {
                pairs
            } else {
                _mm256_slli_epi32::<16>(pairs)
            };
            _mm256_srai_epi32::<16>(upper)
        })
    }

    #[inline(always)]
    fn dot_quads<const WIDE: bool>(self, sum: __m256i, w: __m256i, x: [i8; 4]) -> __m256i {
        let x = self.splat_i32(bytemuck::cast(x));
        self.dot_bytes::<WIDE>(sum, w, x, self.ones())
    }

    #[inline(always)]
    fn dot_pairs(self, sum: __m256i, w: __m256i, x: [i16; 2]) -> __m256i {
        let x = self.splat_i32(bytemuck::cast(x));
        self.add_i32(sum, with_token!(self, _mm256_madd_epi16(w, x)))
    }

    #[inline(always)]
    fn dot_bf16(self, sum: __m256, w: __m256i, x: __m256i) -> __m256 {
        with_token!(self, {
            // A bf16 is the upper half of the f32 with the same value.
            let upper =
                |pairs| _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-0x1_0000)));
            let lower = |pairs| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
            let sum = _mm256_fmadd_ps(lower(w), lower(x), sum);
            _mm256_fmadd_ps(upper(w), upper(x), sum)
        })
    }

    #[inline(always)]
    fn dots_of_32<const WIDE: bool>(
        self,
        w: &[u8; CHUNK_LEN],
        x: &[i8; CHUNK_LEN],
    ) -> [i32; CHUNK_LEN / 32] {
        let (w, x): (&[[u8; 32]], &[[i8; 32]]) = (w.as_chunks().0, x.as_chunks().0);
        let mut sums = [self.splat_i32(0); 8];
        for i in 0..8 {
            let (w, x) = (
                self.load_bytes(&w[i]),
                self.load_bytes(bytemuck::cast_ref(&x[i])),
            );
            sums[i] = self.dot_bytes::<WIDE>(sums[i], w, x, self.ones());
        }
        let [a, b, c, d, e, f, g, h] = sums;
        let (first, last) = (self.four_sums([a, b, c, d]), self.four_sums([e, f, g, h]));
        let (low, high) = with_token!(
            self,
            (
                _mm256_permute2x128_si256::<0x20>(first, last),
                _mm256_permute2x128_si256::<0x31>(first, last)
            )
        );
        self.stored(self.add_i32(low, high))
    }

    #[inline(always)]
    fn scaled_dots_of_16<const WIDE: bool>(
        self,
        w: &[u8; CHUNK_LEN],
        x: &[i8; CHUNK_LEN],
        scales: &[i16; CHUNK_LEN / 16],
    ) -> i32 {
        let (w, x): (&[[u8; 32]], &[[i8; 32]]) = (w.as_chunks().0, x.as_chunks().0);
        let mut sum = self.splat_i32(0);
        for ((w, x), &[a, b]) in w.iter().zip(x).zip(scales.as_chunks().0) {
            let scales = with_token!(self, _mm256_set_m128i(_mm_set1_epi16(b), _mm_set1_epi16(a)));
            let (w, x) = (self.load_bytes(w), self.load_bytes(bytemuck::cast_ref(x)));
            sum = self.dot_bytes::<WIDE>(sum, w, x, scales);
        }
        self.stored(sum).iter().sum()
    }

    #[inline(always)]
    fn add_scaled(self, sums: &mut [f32; 8], [a, b]: [&[f32; 8]; 2], n: &[i32; 8]) {
        let n = self.to_f32(self.load_i32(n));
        let products = self.mul(self.mul(self.load(a), self.load(b)), n);
        self.store(self.add(self.load(sums), products), sums);
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: the token proves SSE; the instruction takes any address and faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 32]) -> __m256i {
        // SAFETY: the token proves AVX; the reference covers the 32 bytes that are read, and the load has no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_bytes(self, bytes: __m256i, to: &mut [u8; 32]) {
        // SAFETY: the token proves AVX; the reference covers the 32 bytes that are written, and the store has no alignment.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) }
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8; 16]) -> __m256i {
        let bytes = self.load_16(bytes);
        let both = with_token!(self, _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes));
        with_token!(self, _mm256_and_si256(both, _mm256_set1_epi8(0x0f)))
    }

    /// Copies each byte of bits to eight bytes and keeps another bit in each.
    #[inline(always)]
    fn bits(self, bits: [u8; 4], value: u8) -> __m256i {
        let all = self.splat_i32(i32::from_le_bytes(bits));
        let copies = with_token!(
            self,
            _mm256_setr_epi64x(
                0,
                0x0101_0101_0101_0101,
                0x0202_0202_0202_0202,
                0x0303_0303_0303_0303
            )
        );
        let one = with_token!(
            self,
            _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed())
        );
        let chosen = with_token!(
            self,
            _mm256_and_si256(_mm256_shuffle_epi8(all, copies), one)
        );
        with_token!(
            self,
            _mm256_and_si256(
                _mm256_cmpeq_epi8(chosen, one),
                _mm256_set1_epi8(value.cast_signed())
            )
        )
    }

    /// Shifts move bits between the two bytes of a 16-bit lane; the masks drop those.
    #[inline(always)]
    fn field(self, bytes: __m256i, right: u32, mask: u8, left: u32) -> __m256i {
        let right = with_token!(self, _mm_cvtsi32_si128(right.cast_signed()));
        let left = with_token!(self, _mm_cvtsi32_si128(left.cast_signed()));
        let mask = with_token!(self, _mm256_set1_epi8(mask.cast_signed()));
        let shifted = with_token!(self, _mm256_srl_epi16(bytes, right));
        let field = with_token!(self, _mm256_and_si256(shifted, mask));
        with_token!(self, _mm256_sll_epi16(field, left))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        with_token!(self, _mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn xor(self, bytes: __m256i, mask: u8) -> __m256i {
        let mask = with_token!(self, _mm256_set1_epi8(mask.cast_signed()));
        with_token!(self, _mm256_xor_si256(bytes, mask))
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], bytes: __m256i) -> __m256i {
        // SAFETY: the token proves SSE2; the reference covers the 16 bytes that are read, and the load has no alignment.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        with_token!(
            self,
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), bytes)
        )
    }

    #[inline(always)]
    fn f16s(self, numbers: [[u8; 2]; 8]) -> [f32; 8] {
        let [a, b, c, d, e, f, g, h]: [i16; 8] = bytemuck::cast(numbers);
        let numbers = with_token!(
            self,
            _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, e, f, g, h))
        );
        let mut floats = [0.0; 8];
        // SAFETY: the token proves AVX; the array has the 32 bytes that are written, and the store has no alignment.
        unsafe { _mm256_storeu_ps(floats.as_mut_ptr(), numbers) };
        floats
    }

    #[inline(always)]
    fn twice(self, bytes: [u8; 8]) -> [i16; 16] {
        let bytes = with_token!(self, _mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
        let twice = with_token!(self, _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(bytes, bytes)));
        let mut numbers = [0; 16];
        // SAFETY: the token proves AVX; the array has the 32 bytes that are written, and the store has no alignment.
        unsafe { _mm256_storeu_si256(numbers.as_mut_ptr().cast(), twice) };
        numbers
    }
}

impl Avx2 {
    #[inline(always)]
    pub(super) fn load_16(self, bytes: &[u8; 16]) -> __m128i {
        // SAFETY: the token proves SSE2; the reference covers the 16 bytes that are read, and the load has no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn ones(self) -> __m256i {
        with_token!(self, _mm256_set1_epi16(1))
    }

    #[inline(always)]
    fn stored(self, vector: __m256i) -> [i32; LANES] {
        let mut numbers = [0; LANES];
        // SAFETY: the token proves AVX; the array has the 32 bytes that are written, and the store has no alignment.
        unsafe { _mm256_storeu_si256(numbers.as_mut_ptr().cast(), vector) };
        numbers
    }

    /// Adds to each lane the products of its four bytes, each pair of products times the 16-bit factor that lies there.
    ///
    /// The instruction adds pairs of products in 16 bits with saturation: with |x| <= 127 and w <= 127 a pair is at most 2 · 127 · 127 = 32,258, which fits. Wider bytes are cut in two
    /// halves, at most 127 and 128.
    #[inline(always)]
    fn dot_bytes<const WIDE: bool>(
        self,
        sum: __m256i,
        w: __m256i,
        x: __m256i,
        factors: __m256i,
    ) -> __m256i {
        if !WIDE {
            return self.dot_narrow(sum, w, x, factors);
        }
        let half = with_token!(
            self,
            _mm256_and_si256(_mm256_srli_epi16::<1>(w), _mm256_set1_epi8(0x7f))
        );
        let rest = with_token!(self, _mm256_sub_epi8(w, half));
        self.dot_narrow(self.dot_narrow(sum, half, x, factors), rest, x, factors)
    }

    #[inline(always)]
    fn dot_narrow(self, sum: __m256i, w: __m256i, x: __m256i, factors: __m256i) -> __m256i {
        let pairs = with_token!(self, _mm256_maddubs_epi16(w, x));
        self.add_i32(sum, with_token!(self, _mm256_madd_epi16(pairs, factors)))
    }

    /// Sums of each vector's halves: `[a, b, c, d]` of the low ones, then of the high ones.
    #[inline(always)]
    fn four_sums(self, [a, b, c, d]: [__m256i; 4]) -> __m256i {
        let ab = with_token!(self, _mm256_hadd_epi32(a, b));
        let cd = with_token!(self, _mm256_hadd_epi32(c, d));
        with_token!(self, _mm256_hadd_epi32(ab, cd))
    }
}
