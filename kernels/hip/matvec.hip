// Products of weights with few rows of activations: decode. Bound by the bandwidth of memory.
#include "activation.h"
#include "dot.h"
#include "product.h"

constexpr u32 MATVEC_THREADS = 128;
// Outputs of a warp, and of a block.
constexpr u32 MATVEC_OUTPUTS = 2;
constexpr u32 MATVEC_BLOCK_OUTPUTS = MATVEC_THREADS / WARP * MATVEC_OUTPUTS;

// Up to three products over the same rows: query, key and value in one launch. Grid: (blocks of all products, groups of ROWS rows).
struct MatVec {
    Product products[3];
    Rows x;
    u32 n_products;
    u32 n_in;
    u32 rows;
    u32 rest;
};

// Sums, biases and residuals of a warp's outputs: rows x_row .. of x become rows out_row .. of out.
template <u32 T, u32 ROWS>
DEVICE void matvec_of(const Product& product, const Rows& x, u32 n_in, u32 x_row, u32 out_row, u32 rows) {
    const u32 first = (block_x() - product.first_block) * MATVEC_BLOCK_OUTPUTS + warp_index() * MATVEC_OUTPUTS;
    const u8* weights[MATVEC_OUTPUTS];
    u32 out[MATVEC_OUTPUTS];
#pragma unroll
    for (u32 i = 0; i < MATVEC_OUTPUTS; ++i) weights[i] = at<u8>(product.weights), out[i] = first + i;
    float sums[MATVEC_OUTPUTS][ROWS];
    dot_rows<T, MATVEC_OUTPUTS, ROWS, ROWS == 1>(weights, out, product.n_out, n_in, x, x_row, rows, sums);
#pragma unroll
    for (u32 i = 0; i < MATVEC_OUTPUTS; ++i)
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) {
            if (lane_index() != i * ROWS + r || r >= rows || out[i] >= product.n_out) continue;
            const u64 index = static_cast<u64>(out_row + r) * product.n_out + out[i];
            float sum = sums[i][r];
            if (product.bias != 0) sum += at<float>(product.bias)[out[i]];
            if (product.add != 0) sum += at<float>(product.add)[index];
            at_mut<float>(product.out)[index] = sum;
        }
}

template <u32 ROWS>
DEVICE void matvec(const MatVec& args) {
    const Product product = product_of_block(args.products, args.n_products);
    const u32 first = block_y() * ROWS;
#define ACTION(T) matvec_of<T, ROWS>(product, args.x, args.n_in, first, first, smaller(ROWS, args.rows - first))
    FOR_TYPE(product.type, ACTION)
#undef ACTION
}

KERNEL(matvec_1, MatVec, MATVEC_THREADS, 6) { matvec<1>(args); }
KERNEL(matvec_4, MatVec, MATVEC_THREADS, 5) { matvec<4>(args); }

constexpr u32 GATED_THREADS = 256;
// Outputs of a block: one block of the int8 form.
constexpr u32 GATED_OUTPUTS = 32;

// A gated feed-forward network's first half: out[r, o] = activation(gate[o] . x[r] + gate_bias[o]) * (up[o] . x[r] + up_bias[o])
// gate, up: [n_out, n_in] of one type; biases: [n_out] f32 or 0; out: f32 or int8 form of [rows, n_out]. Grid: (ceil(n_out / 32), groups of ROWS rows).
struct GatedMatVec {
    u64 gate;
    u64 up;
    u64 gate_bias;
    u64 up_bias;
    Rows x;
    Forms out;
    u32 type;
    u32 activation;
    u32 n_in;
    u32 n_out;
    u32 rows;
    u32 rest;
};

// Activated products of a warp's outputs, into block memory.
template <u32 T, u32 ROWS>
DEVICE void gated_matvec_of(const GatedMatVec& args, u32 x_row, u32 rows, float (&values)[ROWS][GATED_OUTPUTS]) {
    constexpr u32 PER_PASS = 1;
    constexpr u32 PER_WARP = GATED_OUTPUTS / (GATED_THREADS / WARP);
#pragma unroll 1
    for (u32 pass = 0; pass < PER_WARP / PER_PASS; ++pass) {
        const u32 place = warp_index() * PER_WARP + pass * PER_PASS;
        const u8* weights[2 * PER_PASS];
        u32 out[2 * PER_PASS];
#pragma unroll
        for (u32 i = 0; i < PER_PASS; ++i) {
            weights[i] = at<u8>(args.gate);
            weights[PER_PASS + i] = at<u8>(args.up);
            out[i] = out[PER_PASS + i] = block_x() * GATED_OUTPUTS + place + i;
        }
        float sums[2 * PER_PASS][ROWS];
        dot_rows<T, 2 * PER_PASS, ROWS>(weights, out, args.n_out, args.n_in, args.x, x_row, rows, sums);
#pragma unroll
        for (u32 i = 0; i < PER_PASS; ++i)
#pragma unroll
            for (u32 r = 0; r < ROWS; ++r) {
                if (lane_index() != i * ROWS + r) continue;
                const bool inside = out[i] < args.n_out;
                float g = sums[i][r], u = sums[PER_PASS + i][r];
                if (inside && args.gate_bias != 0) g += at<float>(args.gate_bias)[out[i]];
                if (inside && args.up_bias != 0) u += at<float>(args.up_bias)[out[i]];
                values[r][place + i] = inside ? gated(args.activation, g, u) : 0.0f;
            }
    }
}

template <u32 ROWS>
DEVICE void gated_matvec(const GatedMatVec& args) {
    SHARED(values, float[ROWS][GATED_OUTPUTS]);
    const u32 x_row = block_y() * ROWS;
    const u32 rows = smaller(ROWS, args.rows - x_row);
#define ACTION(T) gated_matvec_of<T, ROWS>(args, x_row, rows, values)
    FOR_TYPE(args.type, ACTION)
#undef ACTION
    barrier();
    // Eight lanes to a row.
    constexpr u32 WRITERS = (ROWS * 8 + WARP - 1) / WARP * WARP;
    if (thread_index() >= WRITERS) return;
    const u32 r = thread_index() / 8, place = thread_index() % 8 * 4;
    const bool inside = r < rows;
    f32x4 quad = {0.0f, 0.0f, 0.0f, 0.0f};
    if (inside) quad = *reinterpret_cast<const f32x4*>(&values[r][place]);
    const u32 o = block_x() * GATED_OUTPUTS + place;
    const u64 first = static_cast<u64>(x_row + r) * args.n_out;
    if (args.out.f32 != 0 && inside) store_quad(at_mut<float>(args.out.f32) + first, o, args.n_out, quad);
    if (args.out.quants != 0) write_quants(args.out, first + o, quad, inside);
}

KERNEL(gated_matvec_1, GatedMatVec, GATED_THREADS, 4) { gated_matvec<1>(args); }
KERNEL(gated_matvec_4, GatedMatVec, GATED_THREADS, 2) { gated_matvec<4>(args); }

// Products of chosen experts: slot s is row s / x_share of x, meets the expert ids[s], and is row s of out. Grid: (blocks of the product, slots).
// product.weights: [n_experts] addresses; product.bias: [n_experts] addresses of [n_out] f32, or 0.
struct ExpertMatVec {
    Product product;
    Rows x;
    u64 ids;  // [slots] u32
    u32 n_in;
    u32 x_share;
};

KERNEL(expert_matvec, ExpertMatVec, MATVEC_THREADS, 8) {
    Product product = args.product;
    const u32 slot = block_y(), expert = at<u32>(args.ids)[slot];
    product.weights = at<u64>(product.weights)[expert];
    if (product.bias != 0) product.bias = at<u64>(product.bias)[expert];
#define ACTION(T) matvec_of<T, 1>(product, args.x, args.n_in, slot / args.x_share, slot, 1)
    FOR_TYPE(product.type, ACTION)
#undef ACTION
}
