// Operations on rows: norms, activations, sums, and turning rows into the forms that products read.
#include "activation.h"
#include "forms.h"

constexpr u32 ROW_THREADS = 512;
constexpr u32 ROW_WARPS = ROW_THREADS / WARP;

// RMS norm: out[r, i] = x[r, i] / sqrt(mean_i(x[r, i]^2) + eps) * weight[i]
// With `add`, x[r, i] += add[r, i] comes first, and x keeps the sum.
// x, add: [rows, n] f32; weight: [n] f32; out: forms of [rows, n]. One block per row.
struct RmsNorm {
    u64 x;
    u64 add;  // 0: nothing is added
    u64 weight;
    Forms out;
    u32 n;
    float eps;
};

KERNEL(rms_norm, RmsNorm, ROW_THREADS, 1) {
    SHARED(partial, float[2 * ROW_WARPS]);
    const u32 row = block_x(), n = args.n;
    float* x = at_mut<float>(args.x) + static_cast<u64>(row) * n;
    const float* weight = at<float>(args.weight);
    float sum = 0.0f;
    for (u32 i = thread_index() * 4; i < n; i += ROW_THREADS * 4) {
        f32x4 quad = load_quad(x, i, n);
        if (args.add != 0) {
            quad += load_quad(at<float>(args.add) + static_cast<u64>(row) * n, i, n);
            store_quad(x, i, n, quad);
        }
        sum += (quad[0] * quad[0] + quad[1] * quad[1]) + (quad[2] * quad[2] + quad[3] * quad[3]);
    }
    sum = block_sum<ROW_WARPS>(sum, partial);
    const float scale = reciprocal_root(sum / static_cast<float>(n) + args.eps);
    // A thread reads again what it wrote itself.
    write_row<ROW_THREADS>(args.out, row, n, partial + ROW_WARPS,
                           [&](u32 i) INLINE { return load_quad(x, i, n) * scale * load_quad(weight, i, n); });
}

// Layer norm: out[r, i] = (x[r, i] - mean_r) / sqrt(variance_r + eps) * weight[i] + bias[i]
// x: [rows, n] f32; weight: [n] f32; bias: [n] f32 or 0; out: forms of [rows, n]. One block per row.
struct LayerNorm {
    u64 x;
    u64 weight;
    u64 bias;
    Forms out;
    u32 n;
    float eps;
};

KERNEL(layer_norm, LayerNorm, ROW_THREADS, 1) {
    SHARED(partial, float[3 * ROW_WARPS]);
    const u32 row = block_x(), n = args.n;
    const float* x = at<float>(args.x) + static_cast<u64>(row) * n;
    float sum = 0.0f;
    for (u32 i = thread_index() * 4; i < n; i += ROW_THREADS * 4) {
        const f32x4 quad = load_quad(x, i, n);
        sum += (quad[0] + quad[1]) + (quad[2] + quad[3]);
    }
    const float mean = block_sum<ROW_WARPS>(sum, partial) / static_cast<float>(n);
    float squares = 0.0f;
    for (u32 i = thread_index() * 4; i < n; i += ROW_THREADS * 4) {
        const f32x4 quad = load_quad(x, i, n);
#pragma unroll
        for (u32 k = 0; k < 4; ++k)
            if (i + k < n) squares += (quad[k] - mean) * (quad[k] - mean);
    }
    squares = block_sum<ROW_WARPS>(squares, partial + ROW_WARPS);
    const float scale = reciprocal_root(squares / static_cast<float>(n) + args.eps);
    write_row<ROW_THREADS>(args.out, row, n, partial + 2 * ROW_WARPS, [&](u32 i) INLINE {
        f32x4 quad = (load_quad(x, i, n) - mean) * scale * load_quad(at<float>(args.weight), i, n);
        if (args.bias != 0) quad += load_quad(at<float>(args.bias), i, n);
        // Beyond the end x is read as zero, which the mean would move.
#pragma unroll
        for (u32 k = 0; k < 4; ++k)
            if (i + k >= n) quad[k] = 0.0f;
        return quad;
    });
}

// RMS norm of every head: x[r, h, i] = x[r, h, i] / sqrt(mean_i(x[r, h, i]^2) + eps) * weight[i], in place.
// x: [rows, n_heads, n] f32 with `stride` numbers between rows; weight: [n] f32. A warp per head, 8 to a block; grid: (ceil(n_heads / 8), rows).
struct HeadNorm {
    u64 x;
    u64 weight;
    u32 n;
    u32 n_heads;
    u32 stride;
    float eps;
};

KERNEL(head_norm, HeadNorm, 256, 1) {
    const u32 head = block_x() * 8 + warp_index();
    const bool inside = head < args.n_heads;
    float* x = at_mut<float>(args.x) + static_cast<u64>(block_y()) * args.stride + static_cast<u64>(inside ? head : 0) * args.n;
    const float* weight = at<float>(args.weight);
    float sum = 0.0f;
    for (u32 i = lane_index(); i < args.n; i += WARP) sum += x[i] * x[i];
    sum = warp_sum(sum);
    const float scale = reciprocal_root(sum / static_cast<float>(args.n) + args.eps);
    if (!inside) return;
    for (u32 i = lane_index(); i < args.n; i += WARP) x[i] = x[i] * scale * weight[i];
}

// Writes forms of rows: out = x.
// x: [rows, n] f32. One block per row.
struct WriteForms {
    u64 x;
    Forms out;
    u32 n;
};

KERNEL(write_forms, WriteForms, ROW_THREADS, 1) {
    SHARED(partial, float[ROW_WARPS]);
    const float* x = at<float>(args.x) + static_cast<u64>(block_x()) * args.n;
    write_row<ROW_THREADS>(args.out, block_x(), args.n, partial, [&](u32 i) INLINE { return load_quad(x, i, args.n); });
}

// The gate of a feed-forward network: out[r, i] = activation(gate[r, i]) * up[r, i]; without `up`, activation(gate[r, i]).
// gate, up: [rows, n] f32 with `stride` numbers between rows. One block per row.
struct Activate {
    u64 gate;
    u64 up;  // 0: none
    Forms out;
    u32 n;
    u32 stride;
    u32 activation;
};

KERNEL(activate, Activate, ROW_THREADS, 1) {
    SHARED(partial, float[ROW_WARPS]);
    const u64 row = static_cast<u64>(block_x()) * args.stride;
    write_row<ROW_THREADS>(args.out, block_x(), args.n, partial, [&](u32 i) INLINE {
        const f32x4 gate = load_quad(at<float>(args.gate) + row, i, args.n);
        f32x4 up = {1.0f, 1.0f, 1.0f, 1.0f};
        if (args.up != 0) up = load_quad(at<float>(args.up) + row, i, args.n);
        f32x4 out = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (u32 k = 0; k < 4; ++k)
            if (i + k < args.n) out[k] = args.up != 0 ? gated(args.activation, gate[k], up[k]) : activated(args.activation, gate[k]);
        return out;
    });
}

constexpr u32 FLAT_THREADS = 256;

// Adds element by element: x[r, i] = x[r, i] * scale + y[r, i], where y has `y_rows` rows, all or one: a bias.
// x: [count / n, n] f32; y: [y_rows, n] f32 or 0: x is only scaled. A thread per 4 elements.
struct Add {
    u64 x;
    u64 y;
    u64 count;
    u32 n;
    u32 y_rows;
    float scale;
};

KERNEL(add, Add, FLAT_THREADS, 1) {
    const u64 first = (static_cast<u64>(block_x()) * FLAT_THREADS + thread_index()) * 4;
    float* x = at_mut<float>(args.x);
    const float* y = at<float>(args.y);
    for (u64 i = first; i < smaller(first + 4, args.count); ++i) {
        const float sum = args.y == 0 ? 0.0f : y[args.y_rows == 1 ? i % args.n : i];
        x[i] = x[i] * args.scale + sum;
    }
}

// Bounds every number smoothly: x[i] = cap * tanh(x[i] / cap).
// x: [count] f32. A thread per element.
struct SoftCap {
    u64 x;
    u64 count;
    float cap;
};

KERNEL(soft_cap, SoftCap, FLAT_THREADS, 1) {
    const u64 i = static_cast<u64>(block_x()) * FLAT_THREADS + thread_index();
    float* x = at_mut<float>(args.x);
    if (i < args.count) x[i] = args.cap * hyperbolic_tangent(x[i] / args.cap);
}

// Multiplies each row with the sigmoid of its gate: x[r, i] = x[r, i] / (1 + exp(-gate[r])).
// x: [count / n, n] f32; gate: [count / n] f32. A thread per element.
struct GateRows {
    u64 x;
    u64 gate;
    u64 count;
    u32 n;
};

KERNEL(gate_rows, GateRows, FLAT_THREADS, 1) {
    const u64 i = static_cast<u64>(block_x()) * FLAT_THREADS + thread_index();
    if (i < args.count) at_mut<float>(args.x)[i] *= 1.0f / (1.0f + exponential(-at<float>(args.gate)[i / args.n]));
}

// Copies chosen rows: out[i] = x[rows[i]].
// x: [any, n] f32; rows: [grid.x] u32; out: [grid.x, n] f32. One block per row.
struct GatherRows {
    u64 x;
    u64 rows;
    u64 out;
    u32 n;
};

KERNEL(gather_rows, GatherRows, FLAT_THREADS, 1) {
    const u64 from = static_cast<u64>(at<u32>(args.rows)[block_x()]) * args.n;
    for (u32 i = thread_index(); i < args.n; i += FLAT_THREADS)
        at_mut<float>(args.out)[static_cast<u64>(block_x()) * args.n + i] = at<float>(args.x)[from + i];
}
