// Products of weights with many rows of activations, on matrix cores: prefill, and decode of many streams.
//
// A block makes a tile of BM rows by BN outputs. Step by step along k, it unpacks its weights to f16 and lays them and its rows into block memory, where the waves multiply them; the next step is
// laid there meanwhile, and the bytes of the one after it are on their way. The steps of each type of weights are a loop of their own, in which unpacking and multiplying mingle. Sums are f32, in the
// order of k.
#include "forms.h"
#include "matrix_core.h"
#include "unpack.h"

// out[r, o] = sum_i weights[o, i] * x[r, i] + bias[o] + add[r, o]
//
// Dense: every row meets the same weights. Grid: (row tiles, output tiles, 1).
// Experts: `experts` is a table of weights' addresses; `order` lists slots expert by expert, those of expert e from first[e] to first[e + 1]. Slot s is row s / x_share of x and row s of out. Grid:
// (row tiles of the busiest expert, output tiles, experts).
struct MatMul {
    u64 weights;  // [n_out, n_in]
    u64 x;        // [rows, n_in] f16
    u64 scales;   // [rows] f32
    u64 bias;     // [n_out] f32 or 0; with experts [n_experts] addresses of such
    u64 add;      // [rows, n_out] f32 or 0; may be `out`
    u64 out;      // [rows, n_out] f32
    u64 experts;  // [n_experts] u64 or 0
    u64 order;    // [slots] u32
    u64 first;    // [n_experts + 1] u32
    u32 type;
    u32 n_in;
    u32 n_out;
    u32 rows;
    u32 x_share;
    u32 rest;
};

// Numbers between rows in block memory: 16 bytes more than a step, so that neighbours lie in different banks.
constexpr u32 tile_stride(u32 bk) { return bk + 8; }

// Which row of x, and of out, is row m of a tile; beyond the end: the last.
struct TileRows {
    const u32* order;  // 0: rows follow each other
    u32 first;
    u32 count;
    u32 x_share;

    DEVICE_MEMBER u32 out_row(u32 m) const {
        const u32 i = first + smaller(m, count - 1);
        return order == nullptr ? i : order[i];
    }
    DEVICE_MEMBER u32 x_row(u32 m) const { return order == nullptr ? out_row(m) : out_row(m) / x_share; }
};

template <u32 BM, u32 BN, u32 BK, u32 THREADS, u32 WAVES_M>
struct TileProduct {
    static constexpr u32 STRIDE = tile_stride(BK);
    static constexpr u32 STEP_CHUNKS = BK / CHUNK;
    static constexpr u32 TASKS = BN * STEP_CHUNKS;
    static constexpr u32 PER_THREAD = (TASKS + THREADS - 1) / THREADS;
    static constexpr u32 WAVES_N = THREADS / WAVE / WAVES_M;
    static constexpr u32 TILES_M = BM / WAVES_M / 16, TILES_N = BN / WAVES_N / 16;
    static constexpr u32 ROW_PIECES = BK / 8;  // of 16 bytes

    // A thread copies a piece of so many rows in a step, which lie so many rows apart.
    static constexpr u32 COPIES = BM * ROW_PIECES / THREADS, COPY_STRIDE = THREADS / ROW_PIECES;

    Accumulator acc[TILES_M][TILES_N];
    Staged staged[PER_THREAD];
    u32 copied[COPIES];

    // Begins to read the weights of the step at chunk `c`.
    template <u32 T>
    DEVICE_MEMBER void stage_weights(const u8* weights, u32 n_out, u32 c, u32 end, u32 first_out) {
#pragma unroll
        for (u32 i = 0; i < PER_THREAD; ++i) {
            const u32 task = thread_index() + i * THREADS;
            const u32 o = smaller(first_out + task / STEP_CHUNKS, n_out - 1);
            const u32 chunk = smaller(c + task % STEP_CHUNKS, end - 1);
            if (TASKS % THREADS == 0 || task < TASKS) stage<T>(staged[i], weights, n_out * end, o * end + chunk);
        }
    }
    // Lays the staged weights into block memory; zeros beyond the end of k. Rows begin with whole blocks, so a chunk's place in its row says as much as its place in the matrix.
    template <u32 T>
    DEVICE_MEMBER void unpack_weights(f16* b, u32 c, u32 end) {
#pragma unroll
        for (u32 i = 0; i < PER_THREAD; ++i) {
            const u32 task = thread_index() + i * THREADS;
            if (TASKS % THREADS != 0 && task >= TASKS) continue;
            f16* to = b + task / STEP_CHUNKS * STRIDE + task % STEP_CHUNKS * CHUNK;
            if (c + task % STEP_CHUNKS < end) {
                u32x4 numbers[4];
                unpack<T>(staged[i], c + task % STEP_CHUNKS, numbers);
#pragma unroll
                for (u32 k = 0; k < 4; ++k) reinterpret_cast<u32x4*>(to)[k] = numbers[k];
            } else {
#pragma unroll
                for (u32 k = 0; k < 4; ++k) reinterpret_cast<u32x4*>(to)[k] = u32x4{0, 0, 0, 0};
            }
        }
    }
    // Begins to copy the rows' numbers of the step at chunk `c`; zeros beyond the end of k.
    DEVICE_MEMBER void copy_rows(f16* a, const f16* x, u32 n_in, u32 c) {
        const u32 row = thread_index() / ROW_PIECES, place = thread_index() % ROW_PIECES * 8, k = c * CHUNK + place;
#pragma unroll
        for (u32 i = 0; i < COPIES; ++i) copy_aside_if(k < n_in, a + (row + i * COPY_STRIDE) * STRIDE + place, x + static_cast<u64>(copied[i]) * n_in + k);
    }
    DEVICE_MEMBER void multiply_step(const f16* a, const f16* b) {
        const u32 row = wave_index() / WAVES_N * (BM / WAVES_M), column = wave_index() % WAVES_N * (BN / WAVES_N);
#pragma unroll
        for (u32 k = 0; k < BK; k += 16) {
            Fragment columns[TILES_N];
#pragma unroll
            for (u32 n = 0; n < TILES_N; ++n) columns[n] = load_fragment(b + (column + n * 16) * STRIDE + k, STRIDE);
#pragma unroll
            for (u32 m = 0; m < TILES_M; ++m) {
                const Fragment rows = load_fragment(a + (row + m * 16) * STRIDE + k, STRIDE);
#pragma unroll
                for (u32 n = 0; n < TILES_N; ++n) multiply(acc[m][n], rows, columns[n]);
            }
        }
    }

    // Sums over all of k, of weights of type T. `memory`: two steps of rows, then two of weights.
    template <u32 T>
    DEVICE_MEMBER void sum(const MatMul& args, const u8* weights, const TileRows& rows, u32 first_out, f16* memory) {
        const f16* x = at<f16>(args.x);
        const u32 end = args.n_in / CHUNK;
        const auto a = [&](u32 step) INLINE { return memory + step * BM * STRIDE; };
        const auto b = [&](u32 step) INLINE { return memory + 2 * BM * STRIDE + step * BN * STRIDE; };
#pragma unroll
        for (u32 m = 0; m < TILES_M; ++m)
#pragma unroll
            for (u32 n = 0; n < TILES_N; ++n) clear(acc[m][n]);
#pragma unroll
        for (u32 i = 0; i < COPIES; ++i) copied[i] = rows.x_row(thread_index() / ROW_PIECES + i * COPY_STRIDE);
        // Lays a step out, whose weights were staged before, and stages those of the step after it.
        const auto lay_out = [&](u32 step, u32 c) INLINE {
            copy_rows(a(step), x, args.n_in, c);
            unpack_weights<T>(b(step), c, end);
            if (c + STEP_CHUNKS < end) stage_weights<T>(weights, args.n_out, c + STEP_CHUNKS, end, first_out);
        };
        stage_weights<T>(weights, args.n_out, 0, end, first_out);
        lay_out(0, 0);
        u32 now = 0;
        for (u32 c = 0; c < end; c += STEP_CHUNKS) {
            wait_for_copies();
            barrier();
            // All threads have multiplied the step before: its memory is free.
            if (c + STEP_CHUNKS < end) lay_out(1 - now, c + STEP_CHUNKS);
            multiply_step(a(now), b(now));
            now = 1 - now;
        }
    }

    DEVICE_MEMBER void write(const MatMul& args, const TileRows& rows, u32 count, u32 first_out, const float* bias) {
        const float factor = args.type == F16 ? 1.0f : 1.0f / WEIGHT_FACTOR;
        const u32 row = wave_index() / WAVES_N * (BM / WAVES_M), column = first_out + wave_index() % WAVES_N * (BN / WAVES_N);
        float* out = at_mut<float>(args.out);
#pragma unroll
        for (u32 m = 0; m < TILES_M; ++m)
#pragma unroll
            for (u32 i = 0; i < ACCUMULATED; ++i) {
                const u32 at_row = row + m * 16 + row_of(i);
                if (at_row >= count) continue;
                const u32 r = rows.out_row(at_row);
                const float scale = at<float>(args.scales)[rows.x_row(at_row)] * factor;
#pragma unroll
                for (u32 n = 0; n < TILES_N; ++n) {
                    const u32 o = column + n * 16 + column_of(i);
                    if (o >= args.n_out) continue;
                    const u64 index = static_cast<u64>(r) * args.n_out + o;
                    float sum = acc[m][n].number[i] * scale;
                    if (bias != nullptr) sum += bias[o];
                    if (args.add != 0) sum += at<float>(args.add)[index];
                    out[index] = sum;
                }
            }
    }
};

template <u32 BM, u32 BN, u32 BK, u32 THREADS, u32 WAVES_M>
DEVICE void matmul(const MatMul& args, f16* memory) {
    const u32 first_out = block_y() * BN;
    const u8* weights = at<u8>(args.weights);
    TileRows rows = {nullptr, block_x() * BM, args.rows - block_x() * BM, args.x_share};
    const float* bias = args.bias == 0 || args.experts != 0 ? nullptr : at<float>(args.bias);
    if (args.experts != 0) {
        const u32 expert = block_z();
        const u32 from = at<u32>(args.first)[expert], to = at<u32>(args.first)[expert + 1];
        if (block_x() * BM >= to - from) return;
        weights = at<u8>(at<u64>(args.experts)[expert]);
        rows = TileRows{at<u32>(args.order), from + block_x() * BM, to - from - block_x() * BM, args.x_share};
        if (args.bias != 0) bias = at<float>(at<u64>(args.bias)[expert]);
    }
    TileProduct<BM, BN, BK, THREADS, WAVES_M> product;
#define SUM(T) product.template sum<T>(args, weights, rows, first_out, memory)
    FOR_MATRIX_TYPE(args.type, SUM)
#undef SUM
    product.write(args, rows, smaller(rows.count, BM), first_out, bias);
}

// Steps are longer where there are few rows, so that more bytes are on their way. AMD's block memory holds 64 KiB.
#if ON_AMD
constexpr u32 WIDE_STEP = 32;
#else
constexpr u32 WIDE_STEP = 64;
#endif

KERNEL(matmul_128, MatMul, 256, 2) {
    DYNAMIC_SHARED(memory, f16);
    matmul<128, 128, WIDE_STEP, 256, 2>(args, memory);
}
KERNEL(matmul_64, MatMul, 256, 2) {
    DYNAMIC_SHARED(memory, f16);
    matmul<64, 128, WIDE_STEP, 256, 2>(args, memory);
}
KERNEL(matmul_16, MatMul, 128, 4) {
    DYNAMIC_SHARED(memory, f16);
    matmul<16, 64, 128, 128, 1>(args, memory);
}
