// Paged attention without matrix cores: caches in f32, and heads of any length. Sums are f32, over splits of 256 positions in order.
#include "attention.h"

constexpr u32 SPLIT = 256;
constexpr u32 PLAIN_THREADS = 128;
constexpr u32 PLAIN_WARPS = PLAIN_THREADS / WARP;
// Elements of a head's value that a thread has: heads of up to 1,024.
constexpr u32 PLAIN_OWN = 8;

// Grid: (n_heads, rows).
struct PlainAttention {
    Attention attention;
    u32 head_dim_k;
    u32 head_dim_v;
    u32 cache_f32;
    u32 rest;
};

DEVICE float cached(u64 cache, u32 is_f32, u64 index) {
    return is_f32 != 0 ? at<float>(cache)[index] : static_cast<float>(at<f16>(cache)[index]);
}

KERNEL(attention_plain, PlainAttention, PLAIN_THREADS, 1) {
    SHARED(weights, float[SPLIT]);
    SHARED(partial, float[2][PLAIN_WARPS]);
    const Attention& a = args.attention;
    const u32 head = block_x(), row = block_y(), thread = thread_index();
    const PlaceOfRow place = at<PlaceOfRow>(a.places)[row];
    if (place.position == NO_POSITION) return;
    const u32* table = at<u32>(a.tables) + static_cast<u64>(place.table) * a.table_stride;
    const u32 kv_head = head / (a.n_heads / a.n_kv_heads);
    const auto cache_row = [&](u32 position) INLINE {
        return (static_cast<u64>(table[position / a.block_len]) * a.n_kv_heads + kv_head) * a.block_len + position % a.block_len;
    };
    const float* q = at<float>(a.q) + (static_cast<u64>(row) * a.n_heads + head) * args.head_dim_k;
    const u32 start = first_position(a, place.position), stop = place.position + 1;
    float maximum = NOTHING, weight = 0.0f;
    float own[PLAIN_OWN] = {};
    for (u32 begin = start / SPLIT * SPLIT; begin < stop; begin += SPLIT) {
        float largest = NOTHING;
#pragma unroll
        for (u32 i = 0; i < SPLIT / PLAIN_THREADS; ++i) {
            const u32 position = begin + i * PLAIN_THREADS + thread;
            float score = NOTHING;
            if (position >= start && position < stop) {
                const u64 key = cache_row(position) * a.key_stride;
                score = 0.0f;
                for (u32 d = 0; d < args.head_dim_k; ++d) score = __builtin_fmaf(q[d], cached(a.keys, args.cache_f32, key + d), score);
                score *= a.scale;
                if (a.soft_cap != 0.0f) score = a.soft_cap * hyperbolic_tangent(score / a.soft_cap);
            }
            weights[i * PLAIN_THREADS + thread] = score;
            largest = larger(largest, score);
        }
        largest = larger(maximum, block_max<PLAIN_WARPS>(largest, partial[0]));
        const float rescale = exponential(maximum - largest);
        maximum = largest;
        float sum = 0.0f;
#pragma unroll
        for (u32 i = 0; i < SPLIT / PLAIN_THREADS; ++i) {
            float& score = weights[i * PLAIN_THREADS + thread];
            score = score == NOTHING ? 0.0f : exponential(score - maximum);
            sum += score;
        }
        weight = weight * rescale + block_sum<PLAIN_WARPS>(sum, partial[1]);
        const u32 first = larger(begin, start), count = smaller(stop, begin + SPLIT);
#pragma unroll
        for (u32 i = 0; i < PLAIN_OWN; ++i) {
            if (i * PLAIN_THREADS >= args.head_dim_v) continue;
            // A thread beyond the last element has the last, and does not write it.
            const u32 d = smaller(i * PLAIN_THREADS + thread, args.head_dim_v - 1);
            own[i] *= rescale;
            for (u32 position = first; position < count; ++position)
                own[i] = __builtin_fmaf(weights[position - begin], cached(a.values, args.cache_f32, cache_row(position) * a.value_stride + d), own[i]);
        }
        barrier();
    }
    float factor;
    const float total = total_weight(a, head, maximum, weight, factor);
#pragma unroll
    for (u32 i = 0; i < PLAIN_OWN; ++i) {
        const u32 d = i * PLAIN_THREADS + thread;
        if (d < args.head_dim_v) at_mut<float>(a.out.f32)[(static_cast<u64>(row) * a.n_heads + head) * args.head_dim_v + d] = own[i] * factor / total;
    }
}
