// The forms in which activations travel next to their f32 numbers.
//
// int8: for dot products. Blocks of 32 numbers: quants i8 with x = scale * quant, scale = largest magnitude / 127, and the sums of the first and the last 16 quants, which a product needs for
//   weights with an offset or a minimum. quants: `[rows, n]`; blocks: `[rows, n / 32]`. A block with a number that is not finite has scale NaN, and so has every product with it.
// half: for matrix cores. x = scale * half with one scale per row, a power of two that keeps the largest magnitude below 2^15; 1 for a row that fits. A row with a number that is not finite
//   has scale NaN. half: `[rows, n]` f16; scales: `[rows]` f32.
#pragma once
#include "portable.h"

// What belongs to the 32 quants of a block.
struct BlockOfQuants {
    float scale;
    i16 first_sum;
    i16 last_sum;
};

// Where a kernel writes its result: any of the forms; address 0 means that nobody wants it.
struct Forms {
    u64 f32;        // [rows, n] f32
    u64 quants;     // [rows, n] i8
    u64 blocks;     // [rows, n / 32] BlockOfQuants
    u64 half;       // [rows, n] f16
    u64 scales;     // [rows] f32
};

// Four neighbours of a row of n numbers, zeros beyond its end.
DEVICE f32x4 load_quad(const float* row, u32 i, u32 n) {
    if (n % 4 == 0) return i < n ? *reinterpret_cast<const f32x4*>(row + i) : f32x4{0.0f, 0.0f, 0.0f, 0.0f};
    f32x4 quad = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (u32 k = 0; k < 4; ++k)
        if (i + k < n) quad[k] = row[i + k];
    return quad;
}
DEVICE void store_quad(float* row, u32 i, u32 n, f32x4 quad) {
    if (n % 4 == 0) {
        if (i < n) *reinterpret_cast<f32x4*>(row + i) = quad;
        return;
    }
#pragma unroll
    for (u32 k = 0; k < 4; ++k)
        if (i + k < n) row[i + k] = quad[k];
}
DEVICE float largest_of(f32x4 x) {
    return larger(larger(magnitude(x[0]), magnitude(x[1])), larger(magnitude(x[2]), magnitude(x[3])));
}
// Zero, or NaN if a number is not finite: what a maximum may lose.
DEVICE float not_finite_of(f32x4 x) {
    return nan_if_not_finite(x[0]) + nan_if_not_finite(x[1]) + nan_if_not_finite(x[2]) + nan_if_not_finite(x[3]);
}

// Quantises blocks of 32 numbers, four neighbours in each lane, so 8 lanes to a block and 4 blocks to a warp. All lanes of the warp take part; those with `inside` write. `index` is that of
// the lane's first number in `[rows, n]`.
DEVICE void write_quants(const Forms& forms, u64 index, f32x4 x, bool inside) {
    const u32 lane = lane_index();
    float largest = largest_of(x), not_finite = not_finite_of(x);
#pragma unroll
    for (u32 step = 4; step > 0; step /= 2) {
        largest = larger(largest, shuffle(largest, lane ^ step));
        not_finite += shuffle(not_finite, lane ^ step);
    }
    const float per_unit = largest > 0.0f ? 127.0f / largest : 0.0f;
    u32 quants = 0;
    i32 sum = 0;
#pragma unroll
    for (u32 k = 0; k < 4; ++k) {
        const float scaled = larger(-127.0f, smaller(127.0f, x[k] * per_unit));
        const i32 quant = is_finite(scaled) ? round_to_int(scaled) : 0;
        quants |= (static_cast<u32>(quant) & 0xffu) << 8 * k;
        sum += quant;
    }
    sum += shuffle(sum, lane ^ 2);
    sum += shuffle(sum, lane ^ 1);
    const i32 last_sum = shuffle(sum, lane | 4);
    if (!inside) return;
    *at_mut<u32>(forms.quants + index) = quants;
    if (lane % 8 == 0)
        at_mut<BlockOfQuants>(forms.blocks)[index / 32] =
            BlockOfQuants{largest / 127.0f + not_finite, static_cast<i16>(sum), static_cast<i16>(last_sum)};
}

// The power of two by which a row is divided whose largest magnitude is `largest`.
DEVICE float half_scale(float largest) {
    if (!(largest < 32768.0f)) {
        if (!is_finite(largest)) return bit_cast<float>(0x7fc00000u);
        // The exponent of `largest`, less 14: what is left is below 2^15.
        return bit_cast<float>(((bit_cast<u32>(largest) >> 23) - 14) << 23);
    }
    return 1.0f;
}

DEVICE void write_half(const Forms& forms, u64 index, u32 count, f32x4 x, float divide) {
    f16* half = at_mut<f16>(forms.half) + index;
#pragma unroll
    for (u32 k = 0; k < 4; ++k)
        if (k < count) half[k] = static_cast<f16>(x[k] * divide);
}

// Writes one row in the wanted forms; all threads of the block take part. `quad(i)` gives elements i .. i + 4, zeros beyond n; it is asked up to twice, by the same thread.
template <u32 threads, typename Quad>
DEVICE void write_row(const Forms& forms, u32 row, u32 n, float* partial, Quad quad) {
    constexpr u32 STEP = threads * 4;
    const u64 first = static_cast<u64>(row) * n;
    float largest = 0.0f, not_finite = 0.0f;
    for (u32 start = 0; start < n; start += STEP) {
        const u32 i = start + thread_index() * 4;
        const f32x4 x = quad(i);
        if (forms.f32 != 0) store_quad(at_mut<float>(forms.f32) + first, i, n, x);
        if (forms.quants != 0) write_quants(forms, first + i, x, i < n);
        largest = larger(largest, largest_of(x));
        not_finite += not_finite_of(x);
    }
    if (forms.half == 0) return;
    largest = block_max<threads / WARP>(largest, partial);
    barrier();
    not_finite = block_sum<threads / WARP>(not_finite, partial);
    const float scale = half_scale(largest) + not_finite;
    for (u32 i = thread_index() * 4; i < n; i += STEP) write_half(forms, first + i, smaller(4u, n - i), quad(i), 1.0f / scale);
    if (thread_index() == 0) at_mut<float>(forms.scales)[row] = scale;
}
