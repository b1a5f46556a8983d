// Turns a file's blocks into planes, in place. What a block's bytes mean is said here, as ggml writes them; what becomes of them, in planes.h.
#include "planes.h"

// Byte `i` of the codes' first field, and so on: where the fields of a block begin.
constexpr u32 codes_at(u32 t) {
    switch (t) {
        case Q4_1:
            return 4;
        case Q5_0:
            return 2 + 4;
        case Q5_1:
            return 4 + 4;
        case Q2_K:
            return 16;
        case Q3_K:
            return 32;
        case Q4_K:
            return 16;
        case Q5_K:
            return 16 + 32;
        case Q6_K:
            return 0;
        case IQ4_XS:
            return 8;
        case MXFP4:
            return 1;
        default:
            return 2;
    }
}

DEVICE u32 u16_at(const u8* bytes) { return bytes[0] | static_cast<u32>(bytes[1]) << 8; }
DEVICE u32 u32_at(const u8* bytes) { return u16_at(bytes) | u16_at(bytes + 2) << 16; }

// The code of element `i` of a block.
template <u32 T>
DEVICE u32 code_of(const u8* block, u32 i) {
    const u8* codes = block + codes_at(T);
    if constexpr (T == Q8_0) return codes[i];
    const u32 l = i % 32;
    if constexpr (T == Q2_K || T == Q3_K) {
        const u32 low = codes[i / 128 * 32 + l] >> 2 * (i % 128 / 32) & 3;
        if constexpr (T == Q2_K) return low;
        return low | (block[l] >> i / 32 & 1u) << 2;
    }
    if constexpr (T == Q4_K || T == Q5_K) {
        const u32 low = codes[i / 64 * 32 + l] >> 4 * (i % 64 / 32) & 15;
        if constexpr (T == Q4_K) return low;
        return low | (block[16 + l] >> i / 32 & 1u) << 4;
    }
    if constexpr (T == Q6_K) {
        const u32 group = i % 128 / 32;
        const u32 low = codes[i / 128 * 64 + group % 2 * 32 + l] >> 4 * (group / 2) & 15;
        return low | (block[128 + i / 128 * 32 + l] >> 2 * group & 3u) << 4;
    }
    if constexpr (T == IQ4_XS) return codes[i / 32 * 16 + l % 16] >> 4 * (l / 16) & 15;
    const u32 low = codes[i % 16] >> 4 * (i / 16) & 15;
    if constexpr (T == Q5_0 || T == Q5_1) return low | (u32_at(codes - 4) >> i & 1u) << 4;
    return low;
}

// Scales of a block's 8 chunks, as Q4_K and Q5_K pack 6-bit pairs into 12 bytes: scale and minimum `i`.
DEVICE u32 k_scale(const u8* s, u32 i) { return i < 4 ? s[i] & 63 : (s[i + 4] & 15) | (s[i - 4] >> 6) << 4; }
DEVICE u32 k_minimum(const u8* s, u32 i) { return i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | (s[i] >> 6) << 4; }
// Scale `i` of 16 as Q3_K packs them.
DEVICE u32 q3_scale(const u8* s, u32 i) { return (i < 8 ? s[i] & 15 : s[i - 8] >> 4) | (s[8 + i % 4] >> 2 * (i / 4) & 3u) << 4; }

// Writes the scales of chunk `i` of a panel of `n`; `c` is its place in its block.
template <u32 T>
DEVICE void write_scales(const u8* block, u8* plane, u32 n, u32 i, u32 c) {
    const auto put16 = [](u8* to, u32 value) { *reinterpret_cast<u16*>(to) = static_cast<u16>(value); };
    const auto put32 = [](u8* to, u32 value) { *reinterpret_cast<u32*>(to) = value; };
    if constexpr (T == Q4_K || T == Q5_K) {
        if (c != 0) return;
        u32 low[2] = {0, 0}, high = 0;
        for (u32 k = 0; k < 8; ++k) {
            const u32 scale = k_scale(block + 4, k), minimum = k_minimum(block + 4, k);
            low[k / 4] |= ((scale & 15) | (minimum & 15) << 4) << 8 * (k % 4);
            high |= (scale >> 4 | minimum >> 4 << 2) << 4 * k;
        }
        u8* to = plane + i / 8 * 16;
        put32(to, u32_at(block));
        put32(to + 4, low[0]);
        put32(to + 8, low[1]);
        put32(to + 12, high);
    } else if constexpr (T == Q6_K) {
        put16(plane + 2 * i, u16_at(block + 192 + 2 * c));
        if (c == 0) put16(plane + 2 * n + i / 8 * 2, u16_at(block + 208));
    } else if constexpr (T == Q3_K) {
        const u8* scales = block + 96;
        plane[n / 2 + i] = static_cast<u8>((q3_scale(scales, 2 * c) & 15) | (q3_scale(scales, 2 * c + 1) & 15) << 4);
        if (c != 0) return;
        u32 high = 0;
        for (u32 k = 0; k < 16; ++k) high |= (q3_scale(scales, k) >> 4) << 2 * k;
        put32(plane + i / 8 * 4, high);
        put16(plane + n / 2 + n + i / 8 * 2, u16_at(block + 108));
    } else if constexpr (T == Q2_K) {
        put16(plane + n / 2 + 2 * i, u16_at(block + 2 * c));
        if (c == 0) put32(plane + i / 8 * 4, u32_at(block + 80));
    } else if constexpr (T == IQ4_XS) {
        if (c != 0) return;
        put32(plane + i / 8 * 8, u32_at(block));
        put32(plane + i / 8 * 8 + 4, u32_at(block + 4));
    } else if constexpr (T == Q4_1 || T == Q5_1) {
        put32(plane + 4 * i, u32_at(block));
    } else if constexpr (T == MXFP4) {
        plane[i] = block[0];
    } else {
        put16(plane + 2 * i, u16_at(block));
    }
}

// Writes chunk `i` of a panel of `n` chunks out of the block that it lies in.
template <u32 T>
DEVICE void write_chunk(const u8* block, u8* panel, u32 n, u32 i) {
    const u32 c = i % block_chunks(T);
    u32 low4[4] = {0, 0, 0, 0}, two[2] = {0, 0}, one = 0;
    u32* eight = reinterpret_cast<u32*>(panel) + 8 * i;
    for (u32 k = 0; k < 8; ++k) {
        u32 word = 0;
        for (u32 b = 0; b < 4; ++b) {
            const u32 code = code_of<T>(block, c * CHUNK + 4 * k + b);
            word |= code << 8 * b;
        }
        if constexpr (eight_bytes(T) != 0) eight[k] = word;
        const u32 above = low4_bytes(T) != 0 ? word >> 4 : word;
        low4[k % 4] |= (word & 0x0f0f0f0fu) << 4 * (k / 4);
        two[k / 4] |= (above & 0x03030303u) << 2 * (k % 4);
        one |= ((T == Q3_K ? word >> 2 : above) & 0x01010101u) << k;
    }
    u8* plane = panel + eight_bytes(T) * n;
    if constexpr (low4_bytes(T) != 0) {
        for (u32 w = 0; w < 4; ++w) reinterpret_cast<u32*>(plane)[4 * i + w] = low4[w];
        plane += 16 * n;
    }
    if constexpr (two_bytes(T) != 0) {
        for (u32 w = 0; w < 2; ++w) reinterpret_cast<u32*>(plane)[2 * i + w] = two[w];
        plane += 8 * n;
    }
    if constexpr (one_bytes(T) != 0) {
        reinterpret_cast<u32*>(plane)[i] = one;
        plane += 4 * n;
    }
    write_scales<T>(block, plane, n, i, c);
}

// Repacks an extent of `chunks` chunks at `weights` (16-byte aligned) in place.
// A block takes one panel after another: reads it into block memory, then writes its planes. A thread per chunk; any number of blocks.
struct Repack {
    u64 weights;
    u32 chunks;
    u32 type;
    u32 blocks;
};

template <u32 T>
DEVICE void repack_panels(const Repack& args, u32* copy) {
    const u32 thread = thread_index();
    const u32 panels = (args.chunks + PANEL_CHUNKS - 1) / PANEL_CHUNKS;
    for (u32 p = block_x(); p < panels; p += args.blocks) {
        u8* panel = at_mut<u8>(args.weights) + static_cast<u64>(p) * panel_bytes(T);
        const u32 n = smaller(PANEL_CHUNKS, args.chunks - p * PANEL_CHUNKS);
        const u32 bytes = n / block_chunks(T) * block_bytes(T);
        for (u32 w = thread; w < bytes / 4; w += PANEL_CHUNKS) copy[w] = reinterpret_cast<const u32*>(panel)[w];
        if (thread < bytes % 4) reinterpret_cast<u8*>(copy)[bytes / 4 * 4 + thread] = panel[bytes / 4 * 4 + thread];
        barrier();
        if (thread < n) write_chunk<T>(reinterpret_cast<const u8*>(copy) + thread / block_chunks(T) * block_bytes(T), panel, n, thread);
        barrier();
    }
}

KERNEL(repack, Repack, PANEL_CHUNKS, 1) {
    SHARED(copy, u32[panel_bytes(Q8_0) / 4]);
#define ACTION(T) repack_panels<T>(args, copy)
    FOR_QUANTISED_TYPE(args.type, ACTION)
#undef ACTION
}
