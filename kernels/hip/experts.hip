// Mixtures of experts: choosing, ordering by expert, and putting together.
#include "portable.h"

enum Gating : u32 { SoftmaxOfAll = 0, Sigmoid = 1, SoftmaxOfChosen = 2 };

constexpr u32 EXPERTS_MAX = 512;
constexpr u32 EXPERTS_PER_LANE = EXPERTS_MAX / WARP;

// Chooses the k best experts of each row, best first, the lower id on a tie.
// logits: [rows, n_experts] f32; bias: [n_experts] f32 or 0, added for the choice alone. The weight of an expert is its softmax over all, its sigmoid, or its softmax over the chosen, which are
// chosen by their logits; with `normalise` weights are divided by their sum; then multiplied by `scale`. ids: [rows, k] u32; weights: [rows, k] f32. A warp per row, 4 to a block.
struct ChooseExperts {
    u64 logits;
    u64 bias;
    u64 ids;
    u64 weights;
    u32 rows;
    u32 n_experts;
    u32 k;
    u32 gating;
    u32 normalise;
    float scale;
};

KERNEL(choose_experts, ChooseExperts, 128, 1) {
    const u32 row = block_x() * 4 + warp_index(), lane = lane_index();
    const bool inside = row < args.rows;
    const float* logits = at<float>(args.logits) + static_cast<u64>(inside ? row : 0) * args.n_experts;
    constexpr float LOWEST = -3.0e38f, SMALLEST = 1.17549435e-38f;
    float value[EXPERTS_PER_LANE], choice[EXPERTS_PER_LANE];
    float largest = LOWEST;
#pragma unroll
    for (u32 i = 0; i < EXPERTS_PER_LANE; ++i) {
        const u32 e = i * WARP + lane;
        value[i] = e < args.n_experts ? logits[e] : LOWEST;
        largest = larger(largest, value[i]);
    }
    largest = warp_max(largest);
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < EXPERTS_PER_LANE; ++i) {
        const u32 e = i * WARP + lane;
        if (args.gating == Sigmoid) {
            value[i] = 1.0f / (1.0f + exponential(-value[i]));
        } else {
            value[i] = exponential(value[i] - largest);
            sum += e < args.n_experts ? value[i] : 0.0f;
        }
    }
    sum = warp_sum(sum);
#pragma unroll
    for (u32 i = 0; i < EXPERTS_PER_LANE; ++i) {
        const u32 e = i * WARP + lane;
        choice[i] = LOWEST;
        if (e >= args.n_experts) continue;
        if (args.gating == SoftmaxOfAll) value[i] /= sum;
        const float score = args.gating == SoftmaxOfChosen ? logits[e] : value[i];
        const float rank = score + (args.bias != 0 ? at<float>(args.bias)[e] : 0.0f);
        // A number that is none is chosen last.
        if (rank > LOWEST) choice[i] = rank;
    }
    float chosen_sum = 0.0f, mine = 0.0f;
    u32 my_id = 0;
    for (u32 j = 0; j < args.k; ++j) {
        float best = LOWEST;
        u32 best_id = 0xffffffffu;
#pragma unroll
        for (u32 i = 0; i < EXPERTS_PER_LANE; ++i) {
            const u32 e = i * WARP + lane;
            if (e < args.n_experts && choice[i] >= LOWEST && (choice[i] > best || best_id == 0xffffffffu)) best = choice[i], best_id = e;
        }
#pragma unroll
        for (u32 step = WARP / 2; step > 0; step /= 2) {
            const float other = shuffle(best, lane ^ step);
            const u32 other_id = shuffle(best_id, lane ^ step);
            if (other_id != 0xffffffffu && (best_id == 0xffffffffu || other > best || (other == best && other_id < best_id))) best = other, best_id = other_id;
        }
        float weight = 0.0f;
#pragma unroll
        for (u32 i = 0; i < EXPERTS_PER_LANE; ++i)
            if (i * WARP + lane == best_id) {
                weight = value[i];
                // Below what is looked at: never chosen again.
                choice[i] = -__builtin_inff();
            }
        weight = shuffle(weight, best_id % WARP);
        chosen_sum += weight;
        if (lane == j) mine = weight, my_id = best_id;
    }
    if (!inside || lane >= args.k) return;
    // Sigmoids may all be zero.
    if (args.gating == SoftmaxOfChosen || args.normalise != 0) mine /= larger(chosen_sum, SMALLEST);
    at_mut<u32>(args.ids)[row * args.k + lane] = my_id;
    at_mut<float>(args.weights)[row * args.k + lane] = mine * args.scale;
}

constexpr u32 ORDER_THREADS = 256;
constexpr u32 ORDER_WARPS = ORDER_THREADS / WARP;

// Lists slots expert by expert, in ascending order: order[first[e] .. first[e + 1]] are those with ids[slot] = e.
// ids: [n_slots] u32; order: [n_slots] u32; first: [n_experts + 1] u32. A block per expert.
struct OrderSlots {
    u64 ids;
    u64 order;
    u64 first;
    u32 n_slots;
    u32 n_experts;
};

KERNEL(order_slots, OrderSlots, ORDER_THREADS, 1) {
    SHARED(counts, u32[2][ORDER_WARPS]);
    const u32 expert = block_x(), thread = thread_index(), lane = lane_index();
    const u32* ids = at<u32>(args.ids);
    u32 below = 0;
    for (u32 s = thread; s < args.n_slots; s += ORDER_THREADS) below += ids[s] < expert ? 1 : 0;
    below = warp_sum(below);
    if (lane == 0) counts[0][warp_index()] = below;
    barrier();
    u32 next = 0;
    for (u32 w = 0; w < ORDER_WARPS; ++w) next += counts[0][w];
    barrier();
    if (thread == 0) {
        at_mut<u32>(args.first)[expert] = next;
        if (expert + 1 == args.n_experts) at_mut<u32>(args.first)[args.n_experts] = args.n_slots;
    }
    u32 round = 0;
    for (u32 start = 0; start < args.n_slots; start += ORDER_THREADS, round ^= 1) {
        const u32 s = start + thread;
        const u32 is_mine = s < args.n_slots && ids[s] == expert ? 1 : 0;
        // How many of the warp's lanes up to this one are: a running sum.
        u32 running = is_mine;
#pragma unroll
        for (u32 step = 1; step < WARP; step *= 2) {
            const u32 other = shuffle(running, lane - step);
            running += lane >= step ? other : 0;
        }
        if (lane == WARP - 1) counts[round][warp_index()] = running;
        barrier();
        u32 before = 0, all = 0;
        for (u32 w = 0; w < ORDER_WARPS; ++w) {
            if (w < warp_index()) before += counts[round][w];
            all += counts[round][w];
        }
        if (is_mine != 0) at_mut<u32>(args.order)[next + before + running - 1] = s;
        next += all;
    }
}

// out[r, i] = add[r, i] + sum_j weights[r, j] * y[r * k + j, i], in the order of j.
// y: [rows * k, n] f32; weights: [rows, k] f32; add: [rows, n] f32 or 0, may be `out`; out: [rows, n] f32. Grid: (ceil(n / 256), rows).
struct AddExperts {
    u64 y;
    u64 weights;
    u64 add;
    u64 out;
    u32 n;
    u32 k;
};

KERNEL(add_experts, AddExperts, 256, 1) {
    const u32 i = block_x() * 256 + thread_index(), row = block_y();
    if (i >= args.n) return;
    const u64 index = static_cast<u64>(row) * args.n + i;
    float sum = args.add != 0 ? at<float>(args.add)[index] : 0.0f;
    for (u32 j = 0; j < args.k; ++j) {
        const u64 slot = static_cast<u64>(row) * args.k + j;
        sum = __builtin_fmaf(at<float>(args.weights)[slot], at<float>(args.y)[slot * args.n + i], sum);
    }
    at_mut<float>(args.out)[index] = sum;
}
