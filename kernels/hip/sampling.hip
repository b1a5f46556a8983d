// What sampling wants to know of rows of logits, so that the rows themselves need not leave the device.
#include "portable.h"

constexpr u32 SAMPLE_THREADS = 1024;
constexpr u32 SAMPLE_WARPS = SAMPLE_THREADS / WARP;

struct Best {
    float value;
    u32 id;
};
constexpr u32 NO_ID = 0xffffffffu;

// Whether `a` goes before `b`: the larger number, the lower id on a tie; what is no number comes last.
DEVICE bool goes_before(Best a, Best b) {
    if (a.id == NO_ID || b.id == NO_ID) return a.id != NO_ID;
    const bool a_is_none = a.value != a.value, b_is_none = b.value != b.value;
    if (a_is_none || b_is_none) return a_is_none == b_is_none ? a.id < b.id : b_is_none;
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}

DEVICE Best first_of_warp(Best best) {
#pragma unroll
    for (u32 step = WARP / 2; step > 0; step /= 2) {
        const Best other = {shuffle(best.value, lane_index() ^ step), shuffle(best.id, lane_index() ^ step)};
        if (goes_before(other, best)) best = other;
    }
    return best;
}

// The n largest logits of each row in order, and the logarithm of the sum of exponentials of all.
// logits: [rows, count] f32; ids: [rows, n] u32; values: [rows, n] f32 or 0; log_sums: [rows] f32 or 0. One block per row; n = 1 without log_sums is argmax. n <= count.
struct TopLogits {
    u64 logits;
    u64 ids;
    u64 values;
    u64 log_sums;
    u32 count;
    u32 n;
};

KERNEL(top_logits, TopLogits, SAMPLE_THREADS, 1) {
    SHARED(firsts, Best[2][SAMPLE_WARPS]);
    SHARED(partial, float[SAMPLE_WARPS]);
    const u32 row = block_x(), thread = thread_index();
    const float* logits = at<float>(args.logits) + static_cast<u64>(row) * args.count;
    // A thread answers for every SAMPLE_THREADS-th logit: its best, of those that go after `after`.
    const auto best_after = [&](Best after) INLINE {
        Best best = {0.0f, NO_ID};
        for (u32 i = thread; i < args.count; i += SAMPLE_THREADS) {
            const Best here = {logits[i], i};
            if ((after.id == NO_ID || goes_before(after, here)) && goes_before(here, best)) best = here;
        }
        return best;
    };
    Best mine = best_after(Best{0.0f, NO_ID});
    float largest = 0.0f;
    for (u32 j = 0; j < args.n; ++j) {
        Best best = first_of_warp(mine);
        if (lane_index() == 0) firsts[j % 2][warp_index()] = best;
        barrier();
        best = first_of_warp(lane_index() < SAMPLE_WARPS ? firsts[j % 2][lane_index()] : Best{0.0f, NO_ID});
        if (j == 0) largest = best.value;
        if (thread == 0) {
            at_mut<u32>(args.ids)[static_cast<u64>(row) * args.n + j] = best.id;
            if (args.values != 0) at_mut<float>(args.values)[static_cast<u64>(row) * args.n + j] = best.value;
        }
        if (mine.id == best.id && best.id != NO_ID && j + 1 < args.n) mine = best_after(best);
    }
    if (args.log_sums == 0) return;
    float sum = 0.0f;
    for (u32 i = thread; i < args.count; i += SAMPLE_THREADS) sum += exponential(logits[i] - largest);
    sum = block_sum<SAMPLE_WARPS>(sum, partial);
    if (thread == 0) at_mut<float>(args.log_sums)[row] = largest + logarithm(sum);
}
