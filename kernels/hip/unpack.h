// Weights on their way to matrix cores: chunks of 32 as loaded, and as f16.
//
// Weights are unpacked to 64 times their value, so that small scales keep their digits in f16 (a weight may be as large as 1023); f16 weights stay what they are.
#pragma once
#include "planes.h"

constexpr float WEIGHT_FACTOR = 64.0f;

// A chunk of weights of any type on its way, as loaded. One container for all types: only loading and unpacking differ between them, and the multiplying code exists once.
struct Staged {
    u32 words[16];
};

template <u32 T>
DEVICE void stage(Staged& staged, const u8* weights, u32 total, u32 chunk) {
    if constexpr (is_float(T)) {
        const u32x4* from = reinterpret_cast<const u32x4*>(weights) + static_cast<u64>(chunk) * 4;
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const u32x4 four = load_once(from + i);
#pragma unroll
            for (u32 k = 0; k < 4; ++k) staged.words[4 * i + k] = four[k];
        }
    } else {
        const Chunk<T> loaded = load_chunk<T>(place_of<T>(weights, total, chunk));
#pragma unroll
        for (u32 k = 0; k < 4; ++k) {
            staged.words[k] = loaded.codes[0][k];
            if constexpr (T == Q8_0) staged.words[4 + k] = loaded.codes[1][k];
            staged.words[11 + k] = loaded.scales[k];
        }
        if constexpr (two_bytes(T) != 0) staged.words[8] = loaded.two[0], staged.words[9] = loaded.two[1];
        if constexpr (one_bytes(T) != 0) staged.words[10] = loaded.one;
    }
}

template <u32 T>
DEVICE Chunk<T> chunk_of(const Staged& staged) {
    Chunk<T> chunk;
#pragma unroll
    for (u32 k = 0; k < 4; ++k) {
        chunk.codes[0][k] = staged.words[k];
        if constexpr (T == Q8_0) chunk.codes[1][k] = staged.words[4 + k];
        chunk.scales[k] = staged.words[11 + k];
    }
    chunk.two[0] = staged.words[8], chunk.two[1] = staged.words[9];
    chunk.one = staged.words[10];
    return chunk;
}

// Two bytes of a word as f16, exactly, 1024 more than they are.
DEVICE f16x2 bytes_as_f16(u32 word, u32 pair) {
    return bit_cast<f16x2>(pick_bytes(word, 0x64646464u, pair == 0 ? 0x04010400u : 0x04030402u));
}

// Unpacks chunk `index` of a matrix to 32 f16.
template <u32 T>
DEVICE void unpack(const Staged& staged, u32 index, u32x4 (&out)[4]) {
    if constexpr (T == F16) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
            out[i] = u32x4{staged.words[4 * i], staged.words[4 * i + 1], staged.words[4 * i + 2], staged.words[4 * i + 3]};
    } else if constexpr (T == BF16) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32x4 packed;
#pragma unroll
            for (u32 k = 0; k < 4; ++k) {
                const u32 both = staged.words[4 * i + k];
                const f16x2 pair = {static_cast<f16>(bf16_to_f32(static_cast<u16>(both)) * WEIGHT_FACTOR),
                                    static_cast<f16>(bf16_to_f32(static_cast<u16>(both >> 16)) * WEIGHT_FACTOR)};
                packed[k] = bit_cast<u32>(pair);
            }
            out[i] = packed;
        }
    } else {
        constexpr bool SIGNED = T == Q8_0 || has_table(T);
        constexpr float OFFSET = 1024.0f + (SIGNED ? 128.0f : static_cast<float>(code_offset(T)));
        const Chunk<T> chunk = chunk_of<T>(staged);
        u32 words[8];
        words_of<T>(chunk, words);
        const Scales scales = scales_of<T>(chunk, index);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const f16 scale = static_cast<f16>((i < 2 ? scales.first : scales.last) * WEIGHT_FACTOR);
            const f16 minimum = static_cast<f16>((i < 2 ? scales.first_minimum : scales.last_minimum) * WEIGHT_FACTOR);
            u32x4 packed;
#pragma unroll
            for (u32 k = 0; k < 4; ++k) {
                const u32 word = SIGNED ? words[2 * i + k / 2] ^ 0x80808080u : words[2 * i + k / 2];
                f16x2 pair = bytes_as_f16(word, k % 2) - static_cast<f16>(OFFSET);
                pair *= scale;
                if constexpr (has_minimum(T)) pair -= minimum;
                packed[k] = bit_cast<u32>(pair);
            }
            out[i] = packed;
        }
    }
}

#define FOR_MATRIX_TYPE(type, action)                                                                                  \
    switch (type) {                                                                                                    \
        case F16: action(F16); break;                                                                                  \
        case BF16: action(BF16); break;                                                                                \
        default: FOR_QUANTISED_TYPE(type, action)                                                                      \
    }
