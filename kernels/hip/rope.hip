// Rotary position embedding (arXiv:2104.09864), and writing keys and values to the cache.
#include "portable.h"

// Cosine and sine within 1 unit in the last place of f32, for any angle that f32 holds: reduced in f64.
DEVICE f32x2 cos_sin(float angle) {
    const double x = angle;
    const double turns = __builtin_rint(x * 0.63661977236758134308);
    // pi / 2 in two parts: the first has 33 bits, so that its product is exact for all turns below 2^20.
    const double rest = (x - turns * 1.57079632673412561417) - turns * 6.07710050650619224932e-11;
    const double y = rest * rest;
    // Taylor series; the next terms are below 1e-11.
    const double s = rest * (1.0 + y * (-1.0 / 6 + y * (1.0 / 120 + y * (-1.0 / 5040 + y * (1.0 / 362880 - y / 39916800)))));
    const double c = 1.0 + y * (-1.0 / 2 + y * (1.0 / 24 + y * (-1.0 / 720 + y * (1.0 / 40320 + y * (-1.0 / 3628800 + y / 479001600)))));
    const u32 quarter = static_cast<u32>(static_cast<i64>(turns)) & 3;
    const float sine = static_cast<float>(quarter % 2 == 0 ? s : c), cosine = static_cast<float>(quarter % 2 == 0 ? c : s);
    return f32x2{quarter == 1 || quarter == 2 ? -cosine : cosine, quarter >= 2 ? -sine : sine};
}

// Cosine and sine of every pair's angle: angles[r, i] = (cos, sin)(position[r] * frequencies[i]) * factor
// positions: [rows], `stride` u32 apart; frequencies: [pairs] f32; angles: [rows, pairs, 2] f32. Grid: (ceil(rows * pairs / 256)).
struct RopeAngles {
    u64 positions;
    u64 frequencies;
    u64 angles;
    u32 rows;
    u32 pairs;
    u32 stride;
    float factor;
};

KERNEL(rope_angles, RopeAngles, 256, 1) {
    const u32 i = block_x() * 256 + thread_index();
    if (i >= args.rows * args.pairs) return;
    const float position = static_cast<float>(at<u32>(args.positions)[i / args.pairs * args.stride]);
    at_mut<f32x2>(args.angles)[i] = cos_sin(position * at<float>(args.frequencies)[i % args.pairs]) * args.factor;
}

// Where a row's key and value go; a block of NO_BLOCK: nowhere.
struct Slot {
    u32 block;
    u32 offset;
};
constexpr u32 NO_BLOCK = 0xffffffffu;

// Rotates the heads of q in place, and writes the rotated k and v to the cache; with no cache, k is rotated in place.
// q: [rows, n_heads, head_dim_k] f32 or 0; k: [rows, n_kv_heads, head_dim_k] f32 or 0; v: [rows, n_kv_heads, head_dim_v] f32; angles: [rows, pairs, 2] f32 or 0: nothing is rotated.
// keys: [n_blocks, n_kv_heads, block_len, key_stride] f16 or f32 or 0; values likewise. Pair i of a head is elements 2i and 2i + 1, or with `halves` i and i + pairs; elements beyond 2 * pairs
// pass through. Grid: (rows).
struct RopeWrite {
    u64 q;
    u64 k;
    u64 v;
    u64 angles;
    u64 slots;  // [rows] Slot
    u64 keys;
    u64 values;
    u32 n_heads;
    u32 n_kv_heads;
    u32 head_dim_k;
    u32 head_dim_v;
    u32 pairs;
    u32 halves;
    u32 block_len;
    u32 key_stride;
    u32 value_stride;
    u32 cache_f32;
};

constexpr u32 ROPE_THREADS = 256;

DEVICE void store(u64 cache, u32 is_f32, u64 index, float value) {
    if (is_f32 != 0) {
        at_mut<float>(cache)[index] = value;
    } else {
        at_mut<f16>(cache)[index] = static_cast<f16>(value);
    }
}

// Rotated elements of one pair, or an element that passes through: calls put(element, value).
template <typename Put>
DEVICE void rotate(const float* head, const f32x2* angles, u32 i, const RopeWrite& args, Put put) {
    const u32 pairs = args.angles == 0 ? 0 : args.pairs;
    if (i >= pairs) {
        // The rest of the head, one element for each i: counted from the end of the pairs.
        const u32 element = i + pairs;
        if (element < args.head_dim_k) put(element, head[element]);
        return;
    }
    const u32 first = args.halves != 0 ? i : 2 * i, second = args.halves != 0 ? i + pairs : 2 * i + 1;
    const float a = head[first], b = head[second];
    const f32x2 angle = angles[i];
    put(first, a * angle[0] - b * angle[1]);
    put(second, b * angle[0] + a * angle[1]);
}

KERNEL(rope_write, RopeWrite, ROPE_THREADS, 1) {
    const u32 row = block_x();
    const f32x2* angles = at<f32x2>(args.angles) + static_cast<u64>(row) * args.pairs;
    const u32 pairs = args.angles == 0 ? 0 : args.pairs;
    // Pieces of a head: its pairs, then single elements.
    const u32 pieces = args.head_dim_k - pairs;
    if (args.q != 0)
        for (u32 i = thread_index(); i < args.n_heads * pieces; i += ROPE_THREADS) {
            float* head = at_mut<float>(args.q) + (static_cast<u64>(row) * args.n_heads + i / pieces) * args.head_dim_k;
            rotate(head, angles, i % pieces, args, [&](u32 element, float value) INLINE { head[element] = value; });
        }
    if (args.k == 0) return;
    const bool cached = args.keys != 0;
    const Slot slot = cached ? at<Slot>(args.slots)[row] : Slot{0, 0};
    if (slot.block == NO_BLOCK) return;
    const auto cache_row = [&](u32 head) INLINE { return (static_cast<u64>(slot.block) * args.n_kv_heads + head) * args.block_len + slot.offset; };
    for (u32 i = thread_index(); i < args.n_kv_heads * pieces; i += ROPE_THREADS) {
        const u32 h = i / pieces;
        float* head = at_mut<float>(args.k) + (static_cast<u64>(row) * args.n_kv_heads + h) * args.head_dim_k;
        const u64 base = cached ? cache_row(h) * args.key_stride : 0;
        rotate(head, angles, i % pieces, args, [&](u32 element, float value) INLINE {
            if (cached) {
                store(args.keys, args.cache_f32, base + element, value);
            } else {
                head[element] = value;
            }
        });
    }
    if (!cached) return;
    for (u32 i = thread_index(); i < args.n_kv_heads * args.head_dim_v; i += ROPE_THREADS) {
        const float value = at<float>(args.v)[static_cast<u64>(row) * args.n_kv_heads * args.head_dim_v + i];
        store(args.values, args.cache_f32, cache_row(i / args.head_dim_v) * args.value_stride + i % args.head_dim_v, value);
    }
}
