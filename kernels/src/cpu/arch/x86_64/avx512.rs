//! AVX-512 with VNNI: vectors of sixteen f32 numbers. Intel since Ice Lake, AMD since Zen 4. With BF16: Intel since Sapphire Rapids, AMD since Zen 4.

use std::arch::x86_64::*;

use super::{Avx2, transpose};
use crate::cpu::simd::{CHUNK_LEN, Kernel, Simd};

/// Proof that the processor has AVX-512 F, BW, DQ, VL and VNNI (and with them everything that [`Avx2`](super::Avx2) asks for), and products of BF16 numbers if it says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(Avx2);

const LANES: usize = 16;

impl<const BF16: bool> Avx512<BF16> {
    /// The token, where the processor (and the operating system) has the instructions.
    pub(crate) fn new() -> Option<Avx512<BF16>> {
        let has_bf16 = !BF16 || is_x86_feature_detected!("avx512bf16");
        let has_all = has_bf16
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        has_all.then_some(Avx512(Avx2::new()?))
    }
}

impl Avx512<true> {
    /// The same for kernels that multiply no BF16 numbers, which need not be compiled twice.
    pub(crate) fn without_bf16(self) -> Avx512<false> {
        Avx512(self.0)
    }
}

/// An intrinsic that takes and gives values only.
macro_rules! with_token {
    ($token:ident, $intrinsic:expr) => {{
        let Avx512(_) = $token;
        // SAFETY: an `Avx512` is made only in `Avx512::new`, after all of its instructions were found; these intrinsics ask for nothing else.
        unsafe { $intrinsic }
    }};
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = LANES;

    type F32 = __m512;
    type I32 = __m512i;
    type Bytes = __m256i;
    type Chunk<T: Copy + Default> = [T; LANES];

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn compiled_with_avx512<S: Simd, K: Kernel>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c"
        )]
        fn compiled_with_bf16<S: Simd, K: Kernel>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        if BF16 {
            // SAFETY: an `Avx512<true>` is made only in `Avx512::new`, after all of these features were found.
            unsafe { compiled_with_bf16(self, kernel) }
        } else {
            // SAFETY: an `Avx512` is made only in `Avx512::new`, after all of these features were found.
            unsafe { compiled_with_avx512(self, kernel) }
        }
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
    fn splat(self, value: f32) -> __m512 {
        with_token!(self, _mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, chunk: &[f32; LANES]) -> __m512 {
        // SAFETY: the token proves AVX-512; the reference covers the 64 bytes that are read, and the load has no alignment.
        unsafe { _mm512_loadu_ps(chunk.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, vector: __m512, chunk: &mut [f32; LANES]) {
        // SAFETY: the token proves AVX-512; the reference covers the 64 bytes that are written, and the store has no alignment.
        unsafe { _mm512_storeu_ps(chunk.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn load_f32(self, chunk: &[[u8; 4]; LANES]) -> __m512 {
        with_token!(
            self,
            _mm512_castsi512_ps(self.load_vector(bytemuck::cast_ref(chunk)))
        )
    }

    #[inline(always)]
    fn load_f16(self, chunk: &[[u8; 2]; LANES]) -> __m512 {
        let halves = self.load_halves(chunk);
        with_token!(self, _mm512_cvtph_ps(halves))
    }

    #[inline(always)]
    fn load_bf16(self, chunk: &[[u8; 2]; LANES]) -> __m512 {
        let halves = self.load_halves(chunk);
        // A bf16 is the upper half of the f32 with the same value.
        with_token!(
            self,
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        )
    }

    #[inline(always)]
    fn f16(self, bytes: [u8; 2]) -> f32 {
        self.0.f16(bytes)
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        with_token!(self, _mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        with_token!(self, _mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        with_token!(self, _mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        with_token!(self, _mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        with_token!(self, _mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        with_token!(self, _mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        with_token!(self, _mm512_min_ps(a, b))
    }

    /// The sum leaves `n` plus the exponent's bias in the low bits; they are moved up to where the exponent lies.
    #[inline(always)]
    fn exp2_whole(self, n: __m512) -> __m512 {
        let biased = self.add(n, self.splat(12_582_912.0 + 127.0));
        with_token!(
            self,
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(biased)))
        )
    }

    #[inline(always)]
    fn sum(self, vector: __m512) -> f32 {
        let [sum, ..] = self.sum_of_each([vector; 4]);
        sum
    }

    /// Transposes fours within each quarter, so that each addition is between neighbours.
    #[inline(always)]
    fn sum_of_each(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        let quarters = self.neighbours(self.neighbours(a, b), self.neighbours(c, d));
        let low = with_token!(self, _mm512_castps512_ps256(quarters));
        let high = with_token!(self, _mm512_extractf32x8_ps::<1>(quarters));
        let sums = with_token!(self, _mm_add_ps(self.halves(low), self.halves(high)));
        let mut results = [0.0; 4];
        // SAFETY: the token proves SSE; the reference covers the 16 bytes that are written, and the store has no alignment.
        unsafe { _mm_storeu_ps(results.as_mut_ptr(), sums) };
        results
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> __m512i {
        with_token!(self, _mm512_set1_epi32(value))
    }

    #[inline(always)]
    fn load_i32(self, chunk: &[i32; LANES]) -> __m512i {
        self.load_vector(bytemuck::cast_ref(chunk))
    }

    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        with_token!(self, _mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub_i32(self, a: __m512i, b: __m512i) -> __m512i {
        with_token!(self, _mm512_sub_epi32(a, b))
    }

    #[inline(always)]
    fn mul_i32(self, a: __m512i, b: __m512i) -> __m512i {
        with_token!(self, _mm512_mullo_epi32(a, b))
    }

    #[inline(always)]
    fn to_f32(self, vector: __m512i) -> __m512 {
        with_token!(self, _mm512_cvtepi32_ps(vector))
    }

    #[inline(always)]
    fn load_quads(self, chunk: &[[u8; 4]; LANES]) -> __m512i {
        self.load_vector(bytemuck::cast_ref(chunk))
    }

    #[inline(always)]
    fn interleave<const BYTES: usize>(self, rows: &[&[u8; BYTES]], to: &mut [[u8; 4]]) {
        let (to, _) = to.as_chunks_mut::<LANES>();
        for (part, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut vectors = [self.splat_i32(0); LANES];
            for lane in 0..rows.len() {
                vectors[lane] = self.load_vector(&rows[lane].as_chunks().0[part]);
            }
            let columns = with_token!(self, transpose::sixteen(vectors));
            for q in 0..LANES {
                self.store_vector(columns[q], bytemuck::cast_mut(&mut to[q]));
            }
        }
    }

    #[inline(always)]
    fn half<const UPPER: bool>(self, pairs: __m512i) -> __m512i {
        with_token!(self, {
            let upper = if UPPER {
                pairs
            } else {
                _mm512_slli_epi32::<16>(pairs)
            };
            _mm512_srai_epi32::<16>(upper)
        })
    }

    #[inline(always)]
    fn dot_quads<const WIDE: bool>(self, sum: __m512i, w: __m512i, x: [i8; 4]) -> __m512i {
        let x = self.splat_i32(bytemuck::cast(x));
        with_token!(self, _mm512_dpbusd_epi32(sum, w, x))
    }

    #[inline(always)]
    fn dot_pairs(self, sum: __m512i, w: __m512i, x: [i16; 2]) -> __m512i {
        let x = self.splat_i32(bytemuck::cast(x));
        with_token!(self, _mm512_dpwssd_epi32(sum, w, x))
    }

    #[inline(always)]
    fn dot_bf16(self, sum: __m512, w: __m512i, x: __m512i) -> __m512 {
        if BF16 {
            // SAFETY: an `Avx512<true>` is made only in `Avx512::new`, after AVX-512 BF16 was found. All three types are 64 bytes of which every pattern means something.
            return unsafe {
                _mm512_dpbf16_ps(
                    sum,
                    std::mem::transmute::<__m512i, __m512bh>(w),
                    std::mem::transmute::<__m512i, __m512bh>(x),
                )
            };
        }
        with_token!(self, {
            // A bf16 is the upper half of the f32 with the same value.
            let upper =
                |pairs| _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-0x1_0000)));
            let lower = |pairs| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
            let sum = _mm512_fmadd_ps(lower(w), lower(x), sum);
            _mm512_fmadd_ps(upper(w), upper(x), sum)
        })
    }

    #[inline(always)]
    fn dots_of_32<const WIDE: bool>(
        self,
        w: &[u8; CHUNK_LEN],
        x: &[i8; CHUNK_LEN],
    ) -> [i32; CHUNK_LEN / 32] {
        let (w, x): (&[[u8; 64]], &[[i8; 64]]) = (w.as_chunks().0, x.as_chunks().0);
        let mut sums = [self.splat_i32(0); 4];
        for i in 0..4 {
            let w = self.load_vector(&w[i]);
            let x = self.load_vector(bytemuck::cast_ref(&x[i]));
            sums[i] = with_token!(self, _mm512_dpbusd_epi32(sums[i], w, x));
        }
        let [a, b, c, d] = sums;
        // Sums within each quarter, one of each vector: [a, b, c, d] four times, of which two belong to one block.
        let ab = with_token!(
            self,
            _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
        );
        let cd = with_token!(
            self,
            _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d))
        );
        let quarters = with_token!(
            self,
            _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
        );
        let (even, odd) = with_token!(
            self,
            (
                _mm512_castsi512_si256(quarters),
                _mm512_extracti64x4_epi64::<1>(quarters)
            )
        );
        let blocks = with_token!(
            self,
            _mm256_permutevar8x32_epi32(
                _mm256_add_epi32(
                    _mm256_permute2x128_si256::<0x20>(even, odd),
                    _mm256_permute2x128_si256::<0x31>(even, odd)
                ),
                _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)
            )
        );
        let mut sums = [0; CHUNK_LEN / 32];
        // SAFETY: the token proves AVX; the array has the 32 bytes that are written, and the store has no alignment.
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), blocks) };
        sums
    }

    #[inline(always)]
    fn scaled_dots_of_16<const WIDE: bool>(
        self,
        w: &[u8; CHUNK_LEN],
        x: &[i8; CHUNK_LEN],
        scales: &[i16; CHUNK_LEN / 16],
    ) -> i32 {
        let (w, x): (&[[u8; 64]], &[[i8; 64]]) = (w.as_chunks().0, x.as_chunks().0);
        // SAFETY: the token proves AVX; the reference covers the 32 bytes that are read, and the load has no alignment.
        let scales = unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) };
        let mut sum = self.splat_i32(0);
        for i in 0..4 {
            let (w, x) = (&w[i], &x[i]);
            let (w, x) = (
                self.load_in_halves(w),
                self.load_vector(bytemuck::cast_ref(x)),
            );
            sum = if WIDE {
                let dots = with_token!(self, _mm512_dpbusd_epi32(self.splat_i32(0), w, x));
                let lanes = self.load_i32(&FOURS[i]);
                let scales = with_token!(
                    self,
                    _mm512_permutexvar_epi32(lanes, _mm512_cvtepi16_epi32(scales))
                );
                self.add_i32(sum, self.mul_i32(dots, scales))
            } else {
                // Pairs of products are added in 16 bits with saturation: with |x| <= 127 and w <= 127 a pair is at most 2 · 127 · 127 = 32,258, which fits.
                let pairs = with_token!(self, _mm512_maddubs_epi16(w, x));
                let lanes = self.load_vector(bytemuck::cast_ref(&EIGHTS[i]));
                let scales = with_token!(
                    self,
                    _mm512_permutexvar_epi16(lanes, _mm512_castsi256_si512(scales))
                );
                with_token!(self, _mm512_dpwssd_epi32(sum, pairs, scales))
            };
        }
        with_token!(self, _mm512_reduce_add_epi32(sum))
    }

    #[inline(always)]
    fn add_scaled(self, sums: &mut [f32; 8], factors: [&[f32; 8]; 2], n: &[i32; 8]) {
        self.0.add_scaled(sums, factors, n)
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        self.0.prefetch(address)
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 32]) -> __m256i {
        self.0.load_bytes(bytes)
    }

    #[inline(always)]
    fn store_bytes(self, bytes: __m256i, to: &mut [u8; 32]) {
        self.0.store_bytes(bytes, to)
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8; 16]) -> __m256i {
        self.0.nibbles(bytes)
    }

    #[inline(always)]
    fn store_nibbles(self, blocks: [&[u8; 16]; 2], to: &mut [[u8; 32]; 2]) {
        let [first, second] = blocks.map(|block| self.0.load_16(block));
        let nibbles = with_token!(self, {
            let twice_each =
                _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(first), 0xff00, second);
            // The second time of each, its high nibbles.
            let low = _mm512_mask_srli_epi32::<4>(twice_each, 0xf0f0, twice_each);
            _mm512_and_si512(low, _mm512_set1_epi8(0x0f))
        });
        self.store_vector(nibbles, bytemuck::cast_mut(to));
    }

    #[inline(always)]
    fn bits(self, bits: [u8; 4], value: u8) -> __m256i {
        with_token!(
            self,
            _mm256_maskz_set1_epi8(u32::from_le_bytes(bits), value.cast_signed())
        )
    }

    #[inline(always)]
    fn field(self, bytes: __m256i, right: u32, mask: u8, left: u32) -> __m256i {
        self.0.field(bytes, right, mask, left)
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        self.0.or(a, b)
    }

    #[inline(always)]
    fn xor(self, bytes: __m256i, mask: u8) -> __m256i {
        self.0.xor(bytes, mask)
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], bytes: __m256i) -> __m256i {
        self.0.look_up(table, bytes)
    }

    #[inline(always)]
    fn f16s(self, numbers: [[u8; 2]; 8]) -> [f32; 8] {
        self.0.f16s(numbers)
    }

    #[inline(always)]
    fn twice(self, bytes: [u8; 8]) -> [i16; 16] {
        self.0.twice(bytes)
    }
}

/// For each 64 bytes of a chunk the number of the 16 that each 32-bit lane belongs to.
static FOURS: [[i32; 16]; 4] = {
    let mut lanes = [[0; 16]; 4];
    let mut lane = 0_i32;
    while lane < 64 {
        lanes[lane as usize / 16][lane as usize % 16] = lane / 4;
        lane += 1;
    }
    lanes
};

/// The same for 16-bit lanes.
static EIGHTS: [[i16; 32]; 4] = {
    let mut lanes = [[0; 32]; 4];
    let mut lane = 0_i16;
    while lane < 128 {
        lanes[lane as usize / 32][lane as usize % 32] = lane / 8;
        lane += 1;
    }
    lanes
};

impl<const BF16: bool> Avx512<BF16> {
    /// Sums of neighbours of both, in turn within each quarter: those of `a`, those of `b`.
    #[inline(always)]
    fn neighbours(self, a: __m512, b: __m512) -> __m512 {
        let even = with_token!(self, _mm512_shuffle_ps::<0b10_00_10_00>(a, b));
        let odd = with_token!(self, _mm512_shuffle_ps::<0b11_01_11_01>(a, b));
        self.add(even, odd)
    }

    /// The sum of both halves.
    #[inline(always)]
    fn halves(self, eight: __m256) -> __m128 {
        let (low, high) = with_token!(
            self,
            (
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight)
            )
        );
        with_token!(self, _mm_add_ps(low, high))
    }

    #[inline(always)]
    fn load_vector(self, bytes: &[u8; 64]) -> __m512i {
        // SAFETY: the token proves AVX-512; the reference covers the 64 bytes that are read, and the load has no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_vector(self, vector: __m512i, to: &mut [u8; 64]) {
        // SAFETY: the token proves AVX-512; the reference covers the 64 bytes that are written, and the store has no alignment.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), vector) }
    }

    /// Two loads of 32 bytes: unpacked weights were stored that way just now, and a load that spans two stores waits until both are in the cache.
    #[inline(always)]
    fn load_in_halves(self, bytes: &[u8; 64]) -> __m512i {
        let halves: &[[u8; 32]; 2] = bytemuck::cast_ref(bytes);
        let (low, high) = (self.load_bytes(&halves[0]), self.load_bytes(&halves[1]));
        with_token!(
            self,
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        )
    }

    #[inline(always)]
    fn load_halves(self, chunk: &[[u8; 2]; LANES]) -> __m256i {
        // SAFETY: the token proves AVX; the reference covers the 32 bytes that are read, and the load has no alignment.
        unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) }
    }
}
