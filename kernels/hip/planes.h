// How weights lie in device memory: the one place that decides it. repack.hip makes this layout out of a file's blocks, in place.
//
// F32, F16, BF16 stay as in the file. Every quantised type becomes planes. Its numbers are counted in *chunks* of 32 along a row, over the whole extent; 64 chunks (the last time fewer) form
// a *panel* of exactly the file's bytes, in which the fields of all chunks lie side by side:
//
//     eight  32 bytes a chunk   codes of 8 bits                    Q8_0
//     low4   16 bytes a chunk   low 4 bits of the codes            Q4_* Q5_* Q6_K IQ4_* MXFP4
//     two     8 bytes a chunk   2 bits: the low ones of Q2_K and Q3_K, the high ones of Q6_K
//     one     4 bytes a chunk   1 bit: the highest of Q5_* and Q3_K
//     then scales, whose planes are said at `Scales`.
//
// So a warp whose lanes take neighbouring chunks reads each plane as one aligned stream, whatever odd size a file's block has (18, 22, 34, 110, 210 bytes ...).
//
// Inside a chunk the codes form eight words of four bytes: word k holds elements 4k .. 4k + 4, as dot4 wants them. low4: word w of 4 has word w in its low nibbles and word w + 4 in its high
// ones. two: word w of 2 has word 4w + k at bits 2k of each byte. one: bit k of each byte is for word k.
//
// element = scale * (code - OFFSET) - minimum, or scale * table[code]. Scales and minima hold for 16 elements (a half of a chunk) or more.
#pragma once
#include "portable.h"

// ggml's numbers.
enum TensorType : u32 {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
    BF16 = 30,
    MXFP4 = 39,
};

// Runs `action` with the quantised type as a constant.
#define FOR_QUANTISED_TYPE(type, action)                                                                               \
    switch (type) {                                                                                                    \
        case Q4_0: action(Q4_0); break;                                                                                \
        case Q4_1: action(Q4_1); break;                                                                                \
        case Q5_0: action(Q5_0); break;                                                                                \
        case Q5_1: action(Q5_1); break;                                                                                \
        case Q8_0: action(Q8_0); break;                                                                                \
        case Q2_K: action(Q2_K); break;                                                                                \
        case Q3_K: action(Q3_K); break;                                                                                \
        case Q4_K: action(Q4_K); break;                                                                                \
        case Q5_K: action(Q5_K); break;                                                                                \
        case Q6_K: action(Q6_K); break;                                                                                \
        case IQ4_NL: action(IQ4_NL); break;                                                                            \
        case IQ4_XS: action(IQ4_XS); break;                                                                            \
        case MXFP4: action(MXFP4); break;                                                                              \
        default: break;                                                                                                \
    }

// The same for all types.
#define FOR_TYPE(type, action)                                                                                         \
    switch (type) {                                                                                                    \
        case F32: action(F32); break;                                                                                  \
        case F16: action(F16); break;                                                                                  \
        case BF16: action(BF16); break;                                                                                \
        default: FOR_QUANTISED_TYPE(type, action)                                                                      \
    }

constexpr bool is_float(u32 t) { return t == F32 || t == F16 || t == BF16; }

constexpr u32 CHUNK = 32;
constexpr u32 PANEL_CHUNKS = 64;

constexpr bool is_k_quant(u32 t) { return t == Q2_K || t == Q3_K || t == Q4_K || t == Q5_K || t == Q6_K || t == IQ4_XS; }
// Chunks of a block of the file.
constexpr u32 block_chunks(u32 t) { return is_k_quant(t) ? 8 : 1; }

constexpr u32 eight_bytes(u32 t) { return t == Q8_0 ? 32 : 0; }
constexpr u32 low4_bytes(u32 t) { return t == Q8_0 || t == Q2_K || t == Q3_K ? 0 : 16; }
constexpr u32 two_bytes(u32 t) { return t == Q2_K || t == Q3_K || t == Q6_K ? 8 : 0; }
constexpr u32 one_bytes(u32 t) { return t == Q5_0 || t == Q5_1 || t == Q5_K || t == Q3_K ? 4 : 0; }
constexpr u32 code_bytes(u32 t) { return eight_bytes(t) + low4_bytes(t) + two_bytes(t) + one_bytes(t); }

// Bytes of the scales of 8 chunks.
constexpr u32 scale_bytes(u32 t) {
    switch (t) {
        case Q4_1:
        case Q5_1:
            return 8 * 4;
        case Q2_K:
            return 16 + 4;
        case Q3_K:
            return 12 + 2;
        case Q4_K:
        case Q5_K:
            return 12 + 4;
        case Q6_K:
            return 16 + 2;
        case IQ4_XS:
            return 4 + 2 + 2;
        case MXFP4:
            return 8;
        default:
            return 8 * 2;
    }
}
constexpr u32 block_bytes(u32 t) { return block_chunks(t) * code_bytes(t) + scale_bytes(t) * block_chunks(t) / 8; }
constexpr u32 panel_bytes(u32 t) { return PANEL_CHUNKS / block_chunks(t) * block_bytes(t); }

constexpr i32 code_offset(u32 t) { return t == Q4_0 ? 8 : t == Q5_0 ? 16 : t == Q6_K ? 32 : t == Q3_K ? 4 : 0; }
// Codes are places in a table.
constexpr bool has_table(u32 t) { return t == IQ4_NL || t == IQ4_XS || t == MXFP4; }
// The minimum is not zero.
constexpr bool has_minimum(u32 t) { return t == Q4_1 || t == Q5_1 || t == Q2_K || t == Q4_K || t == Q5_K; }
// The halves of a chunk have scales of their own.
constexpr bool has_halves(u32 t) { return t == Q2_K || t == Q3_K || t == Q6_K; }

// Where a chunk lies.
struct Place {
    const u8* panel;
    u32 chunks;  // of the panel
    u32 index;   // in the panel
};

// Chunk `chunk` of an extent of `total` chunks at `weights`.
template <u32 T>
DEVICE Place place_of(const u8* weights, u32 total, u32 chunk) {
    const u32 first = chunk & ~(PANEL_CHUNKS - 1);
    return Place{weights + static_cast<u64>(chunk / PANEL_CHUNKS) * panel_bytes(T), smaller(PANEL_CHUNKS, total - first), chunk - first};
}

// The bytes of one chunk, as loaded.
template <u32 T>
struct Chunk {
    u32x4 codes[eight_bytes(T) == 32 ? 2 : 1];
    u32x2 two;
    u32 one;
    u32x4 scales;
};

// Scales and minima of the halves of a chunk; the same twice where halves share them.
struct Scales {
    float first, last;
    float first_minimum, last_minimum;
};

template <u32 T>
DEVICE Chunk<T> load_chunk(Place at) {
    Chunk<T> chunk;
    const u8* plane = at.panel;
    if constexpr (eight_bytes(T) != 0) {
        chunk.codes[0] = load_once(reinterpret_cast<const u32x4*>(plane) + 2 * at.index);
        chunk.codes[1] = load_once(reinterpret_cast<const u32x4*>(plane) + 2 * at.index + 1);
        plane += 32 * at.chunks;
    }
    if constexpr (low4_bytes(T) != 0) {
        chunk.codes[0] = load_once(reinterpret_cast<const u32x4*>(plane) + at.index);
        plane += 16 * at.chunks;
    }
    if constexpr (two_bytes(T) != 0) {
        chunk.two = load_once(reinterpret_cast<const u32x2*>(plane) + at.index);
        plane += 8 * at.chunks;
    }
    if constexpr (one_bytes(T) != 0) {
        chunk.one = load_once(reinterpret_cast<const u32*>(plane) + at.index);
        plane += 4 * at.chunks;
    }
    // Scales. n is the number of chunks, b of blocks of 8:
    if constexpr (T == Q4_K || T == Q5_K) {
        // [b] of 16 bytes: d, dmin f16; low nibbles of 8 scales and minima, a byte each pair; their high 2 bits, a nibble each pair.
        chunk.scales = load_once(reinterpret_cast<const u32x4*>(plane) + at.index / 8);
    } else if constexpr (T == Q6_K) {
        // [n] pairs of i8; [b] d f16
        chunk.scales[0] = load_once(reinterpret_cast<const u16*>(plane) + at.index);
        chunk.scales[1] = load_once(reinterpret_cast<const u16*>(plane + 2 * at.chunks) + at.index / 8);
    } else if constexpr (T == Q3_K) {
        // [b] of 4 bytes: high 2 bits of 16 scales, a nibble each pair; [n] bytes: their low nibbles; [b] d f16
        chunk.scales[0] = load_once(reinterpret_cast<const u32*>(plane) + at.index / 8);
        chunk.scales[1] = load_once(plane + at.chunks / 2 + at.index);
        chunk.scales[2] = load_once(reinterpret_cast<const u16*>(plane + at.chunks / 2 + at.chunks) + at.index / 8);
    } else if constexpr (T == Q2_K) {
        // [b] d, dmin f16; [n] pairs of bytes: scale and minimum of each half, a nibble each
        chunk.scales[0] = load_once(reinterpret_cast<const u32*>(plane) + at.index / 8);
        chunk.scales[1] = load_once(reinterpret_cast<const u16*>(plane + at.chunks / 2) + at.index);
    } else if constexpr (T == IQ4_XS) {
        // [b] of 8 bytes: d f16, high 2 bits of 8 scales, low nibbles of 8 scales
        const u32x2 both = load_once(reinterpret_cast<const u32x2*>(plane) + at.index / 8);
        chunk.scales[0] = both[0];
        chunk.scales[1] = both[1];
    } else if constexpr (T == Q4_1 || T == Q5_1) {
        // [n] d, m f16
        chunk.scales[0] = load_once(reinterpret_cast<const u32*>(plane) + at.index);
    } else if constexpr (T == MXFP4) {
        // [n] exponents
        chunk.scales[0] = load_once(plane + at.index);
    } else {
        // [n] d f16
        chunk.scales[0] = load_once(reinterpret_cast<const u16*>(plane) + at.index);
    }
    return chunk;
}

// Scales of a chunk; `index` is its place in the panel.
template <u32 T>
DEVICE Scales scales_of(const Chunk<T>& chunk, u32 index) {
    const u32x4 raw = chunk.scales;
    const float d = f16_to_f32(static_cast<u16>(raw[0]));
    Scales out = {d, d, 0.0f, 0.0f};
    const u32 i = index % 8;
    if constexpr (T == Q4_1 || T == Q5_1) {
        out.first_minimum = out.last_minimum = -f16_to_f32(static_cast<u16>(raw[0] >> 16));
    } else if constexpr (T == Q4_K || T == Q5_K) {
        const u32 low = (i < 4 ? raw[1] : raw[2]) >> 8 * (i % 4);
        const u32 high = raw[3] >> 4 * i;
        out.first = out.last = d * static_cast<float>((low & 15) | (high & 3) << 4);
        out.first_minimum = out.last_minimum =
            f16_to_f32(static_cast<u16>(raw[0] >> 16)) * static_cast<float>((low >> 4 & 15) | (high >> 2 & 3) << 4);
    } else if constexpr (T == Q6_K) {
        const float block = f16_to_f32(static_cast<u16>(raw[1]));
        out.first = block * static_cast<float>(static_cast<i8>(raw[0]));
        out.last = block * static_cast<float>(static_cast<i8>(raw[0] >> 8));
    } else if constexpr (T == Q3_K) {
        const float block = f16_to_f32(static_cast<u16>(raw[2]));
        const u32 high = raw[0] >> 4 * i;
        out.first = block * static_cast<float>(static_cast<i32>((raw[1] & 15) | (high & 3) << 4) - 32);
        out.last = block * static_cast<float>(static_cast<i32>((raw[1] >> 4 & 15) | (high >> 2 & 3) << 4) - 32);
    } else if constexpr (T == Q2_K) {
        const float minimum = f16_to_f32(static_cast<u16>(raw[0] >> 16));
        out.first = d * static_cast<float>(raw[1] & 15);
        out.first_minimum = minimum * static_cast<float>(raw[1] >> 4 & 15);
        out.last = d * static_cast<float>(raw[1] >> 8 & 15);
        out.last_minimum = minimum * static_cast<float>(raw[1] >> 12 & 15);
    } else if constexpr (T == IQ4_XS) {
        const u32 scale = (raw[1] >> 4 * i & 15) | (raw[0] >> (16 + 2 * i) & 3) << 4;
        out.first = out.last = d * static_cast<float>(static_cast<i32>(scale) - 32);
    } else if constexpr (T == MXFP4) {
        // 2^(e - 128): the table holds doubled values. Small exponents are subnormal numbers.
        const u32 e = raw[0];
        out.first = out.last = bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    }
    return out;
}

// The tables' 16 values, four to a word.
template <u32 T>
DEVICE u32 table_word(u32 word) {
    if constexpr (T == MXFP4) {
        // 0 1 2 3, 4 6 8 12, and their negatives: twice the values of a 4-bit float.
        return word == 0 ? 0x03020100u : word == 1 ? 0x0c080604u : word == 2 ? 0xfdfeff00u : 0xf4f8fafcu;
    } else {
        // -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113
        return word == 0 ? 0xbfad9881u : word == 1 ? 0xf6eaddcfu : word == 2 ? 0x26190d01u : 0x71594535u;
    }
}

// Four nibbles, a byte each, as the table's values.
template <u32 T>
DEVICE u32 looked_up(u32 nibbles) {
    const u32 low = pick_bytes(table_word<T>(0), table_word<T>(1), nibbles & 0x07070707u);
    const u32 high = pick_bytes(table_word<T>(2), table_word<T>(3), nibbles & 0x07070707u);
    const u32 is_high = (nibbles >> 3 & 0x01010101u) * 0xffu;
    return (low & ~is_high) | (high & is_high);
}

// The codes of a chunk as eight words of four signed bytes, table values looked up.
template <u32 T>
DEVICE void words_of(const Chunk<T>& chunk, u32 (&words)[8]) {
#pragma unroll
    for (u32 k = 0; k < 8; ++k) {
        u32 word = 0;
        if constexpr (eight_bytes(T) != 0) word = chunk.codes[k / 4][k % 4];
        if constexpr (low4_bytes(T) != 0) word = (k < 4 ? chunk.codes[0][k % 4] : chunk.codes[0][k % 4] >> 4) & 0x0f0f0f0fu;
        if constexpr (has_table(T)) word = looked_up<T>(word);
        if constexpr (T == Q6_K) {
            const u32 bits = chunk.two[k / 4];
            word |= (k % 4 < 2 ? bits << (4 - 2 * (k % 4)) : bits >> (2 * (k % 4) - 4)) & 0x30303030u;
        }
        if constexpr (T == Q2_K || T == Q3_K) word = chunk.two[k / 4] >> 2 * (k % 4) & 0x03030303u;
        if constexpr (T == Q3_K) word |= (k < 2 ? chunk.one << (2 - k) : chunk.one >> (k - 2)) & 0x04040404u;
        if constexpr (T == Q5_0 || T == Q5_1 || T == Q5_K) word |= (k < 4 ? chunk.one << (4 - k) : chunk.one >> (k - 4)) & 0x10101010u;
        words[k] = word;
    }
}
