// Dot products of weight rows with activation rows: what the matrix-vector kernels are made of.
//
// A warp takes a few weight rows; its lanes take neighbouring chunks, so that each plane is read as one stream; the next chunks are on their way while these are multiplied. A chunk's products
// are summed exactly as integers. The order of the sum depends on the row's length and type alone, so a result is the same bits for any number of rows beside it.
#pragma once
#include "forms.h"
#include "planes.h"

// Rows of activations: f32 for weights that are not quantised, the int8 form for others. All `[rows, n_in]`.
struct Rows {
    u64 f32;
    u64 quants;
    u64 blocks;
};

// The int8 form of one chunk of one row.
struct QuantChunk {
    u32x4 first, last;
    float scale;
    i32 first_sum, last_sum;
};

DEVICE QuantChunk load_quants(const Rows& x, u64 chunk) {
    const u32x4* quants = at<u32x4>(x.quants) + 2 * chunk;
    const u32x2 block = at<u32x2>(x.blocks)[chunk];
    return QuantChunk{quants[0], quants[1], bit_cast<float>(block[0]), static_cast<i32>(static_cast<i16>(block[1])), static_cast<i32>(block[1]) >> 16};
}

// Product of a chunk of weights with one of activations.
template <u32 T>
DEVICE float chunk_product(const u32 (&words)[8], const Scales& scales, const QuantChunk& x) {
    i32 first = 0, last = 0;
#pragma unroll
    for (u32 k = 0; k < 4; ++k) {
        first = dot4(words[k], x.first[k], first);
        last = dot4(words[k + 4], x.last[k], last);
    }
    float sum;
    if constexpr (has_halves(T)) {
        sum = scales.first * static_cast<float>(first - code_offset(T) * x.first_sum) + scales.last * static_cast<float>(last - code_offset(T) * x.last_sum);
        if constexpr (has_minimum(T)) sum -= scales.first_minimum * static_cast<float>(x.first_sum) + scales.last_minimum * static_cast<float>(x.last_sum);
    } else {
        const i32 x_sum = x.first_sum + x.last_sum;
        sum = scales.first * static_cast<float>(first + last - code_offset(T) * x_sum);
        if constexpr (has_minimum(T)) sum -= scales.first_minimum * static_cast<float>(x_sum);
    }
    return sum * x.scale;
}

// sums[i][r] += weight row i . activation row r, this lane's share of it. Weight row i begins at chunk `first_chunk[i]` of an extent of `total` chunks; activation row r is row `x_row + r`.
// ROW_FIRST: the first activation row is on its way while the weights are awaited, for some registers more.
template <u32 T, u32 N, u32 ROWS, bool ROW_FIRST>
DEVICE void dot_quantised(const u8* const (&weights)[N], const u32 (&first_chunk)[N], u32 total, u32 n_chunks, const Rows& x, u32 x_row, u32 rows, float (&sums)[N][ROWS]) {
    Chunk<T> next[N];
    const auto fetch = [&](u32 c) INLINE {
#pragma unroll
        for (u32 i = 0; i < N; ++i) next[i] = load_chunk<T>(place_of<T>(weights[i], total, first_chunk[i] + c));
    };
    if (lane_index() < n_chunks) fetch(lane_index());
    for (u32 c = lane_index(); c < n_chunks; c += WARP) {
        // A row that is not there is computed like the first, and not written.
        const auto row_at = [&](u32 r) INLINE { return load_quants(x, static_cast<u64>(x_row + (r < rows ? r : 0)) * n_chunks + c); };
        QuantChunk first_row = {};
        if constexpr (ROW_FIRST) first_row = row_at(0);
        u32 words[N][8];
        Scales scales[N];
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
            words_of<T>(next[i], words[i]);
            scales[i] = scales_of<T>(next[i], first_chunk[i] + c);
        }
        if (c + WARP < n_chunks) fetch(c + WARP);
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) {
            const QuantChunk chunk = ROW_FIRST && r == 0 ? first_row : row_at(r);
#pragma unroll
            for (u32 i = 0; i < N; ++i) sums[i][r] += chunk_product<T>(words[i], scales[i], chunk);
        }
    }
}

template <u32 T>
DEVICE float float_element(const u8* row, u32 i) {
    if constexpr (T == F32) return reinterpret_cast<const float*>(row)[i];
    if constexpr (T == F16) return f16_to_f32(reinterpret_cast<const u16*>(row)[i]);
    return bf16_to_f32(reinterpret_cast<const u16*>(row)[i]);
}
constexpr u32 float_bytes(u32 t) { return t == F32 ? 4 : 2; }

// Eight neighbours of a row of floats.
template <u32 T>
DEVICE void load_eight(const u8* row, u32 i, float (&out)[8]) {
    if constexpr (T == F32) {
        const f32x4 a = bit_cast<f32x4>(load_once(reinterpret_cast<const u32x4*>(row + 4 * i)));
        const f32x4 b = bit_cast<f32x4>(load_once(reinterpret_cast<const u32x4*>(row + 4 * i) + 1));
#pragma unroll
        for (u32 k = 0; k < 4; ++k) out[k] = a[k], out[k + 4] = b[k];
    } else {
        const u32x4 raw = load_once(reinterpret_cast<const u32x4*>(row + 2 * i));
#pragma unroll
        for (u32 k = 0; k < 8; ++k) {
            const u16 bits = static_cast<u16>(raw[k / 2] >> 16 * (k % 2));
            out[k] = T == F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
        }
    }
}

// As dot_quantised, for weights that are floats: `weights[i]` is the row itself.
template <u32 T, u32 N, u32 ROWS>
DEVICE void dot_floats(const u8* const (&weights)[N], u32 n_in, const Rows& x, u32 x_row, u32 rows, float (&sums)[N][ROWS]) {
    // Rows whose length is no multiple of 8 are not aligned; they are read one by one, in the same order.
    const bool aligned = n_in % 8 == 0;
    for (u32 i = lane_index() * 8; i < n_in; i += WARP * 8) {
        float w[N][8];
#pragma unroll
        for (u32 n = 0; n < N; ++n) {
            if (aligned) {
                load_eight<T>(weights[n], i, w[n]);
            } else {
#pragma unroll
                for (u32 k = 0; k < 8; ++k) w[n][k] = i + k < n_in ? float_element<T>(weights[n], i + k) : 0.0f;
            }
        }
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) {
            const float* row = at<float>(x.f32) + static_cast<u64>(x_row + (r < rows ? r : 0)) * n_in + i;
            float v[8];
            if (aligned) {
                const f32x4 a = reinterpret_cast<const f32x4*>(row)[0], b = reinterpret_cast<const f32x4*>(row)[1];
#pragma unroll
                for (u32 k = 0; k < 4; ++k) v[k] = a[k], v[k + 4] = b[k];
            } else {
#pragma unroll
                for (u32 k = 0; k < 8; ++k) v[k] = i + k < n_in ? row[k] : 0.0f;
            }
#pragma unroll
            for (u32 n = 0; n < N; ++n)
#pragma unroll
                for (u32 k = 0; k < 8; ++k) sums[n][r] = __builtin_fmaf(w[n][k], v[k], sums[n][r]);
        }
    }
}

// sums[i][r] = row `out[i]` of weights[i] . activation row x_row + r: whole sums in every lane. weights[i]: `[n_out, n_in]` of type T.
template <u32 T, u32 N, u32 ROWS, bool ROW_FIRST = false>
DEVICE void dot_rows(const u8* const (&weights)[N], const u32 (&out)[N], u32 n_out, u32 n_in, const Rows& x, u32 x_row, u32 rows, float (&sums)[N][ROWS]) {
#pragma unroll
    for (u32 i = 0; i < N; ++i)
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) sums[i][r] = 0.0f;
    // A row beyond the last is computed like the last, and not written.
    if constexpr (is_float(T)) {
        const u8* row[N];
#pragma unroll
        for (u32 i = 0; i < N; ++i) row[i] = weights[i] + static_cast<u64>(smaller(out[i], n_out - 1)) * n_in * float_bytes(T);
        dot_floats<T, N, ROWS>(row, n_in, x, x_row, rows, sums);
    } else {
        const u32 n_chunks = n_in / CHUNK;
        u32 first_chunk[N];
#pragma unroll
        for (u32 i = 0; i < N; ++i) first_chunk[i] = smaller(out[i], n_out - 1) * n_chunks;
        dot_quantised<T, N, ROWS, ROW_FIRST>(weights, first_chunk, n_out * n_chunks, n_chunks, x, x_row, rows, sums);
    }
#pragma unroll
    for (u32 i = 0; i < N; ++i)
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) sums[i][r] = warp_sum(sums[i][r]);
}
