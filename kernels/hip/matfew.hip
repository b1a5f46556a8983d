// Products of weights with some rows of activations, on matrix cores: decode of many streams, and all products where a row's result must not depend on the rows beside it.
//
// A lane unpacks whole chunks of weights to f16 in its registers, and multiplies them from there: weights never pass through block memory, and each is unpacked once for all rows of a block. For that
// a chunk's 32 numbers belong to one group of lanes, which is as good an order of k as any other. The rows lie in block memory, a step at a time.
//
// The steps of each type of weights are a loop of their own: what is staged of a chunk takes no more registers than its type needs.
//
// Sums are f32. Those of each SPLIT_CHUNKS chunks are whole by themselves, and added up from the first to the last: by one block where there are blocks enough, else by the block that comes last of
// one for each. So the order depends on n_in alone, and a result is the same bits for any number of rows, of outputs and of blocks.
#include "matrix_core.h"
#include "product.h"
#include "unpack.h"

// Up to three products over the same rows. Grid: (blocks of all products, groups of N rows, 1 or splits).
struct MatFew {
    Product products[3];
    u64 x;         // [rows, n_in] f16
    u64 scales;    // [rows] f32
    u64 partial;   // where blocks have one split each: [blocks, splits, outputs of a block * N] f32
    u64 counters;  // there: [blocks] u32, zero before and after
    u32 n_products;
    u32 n_in;
    u32 rows;
    u32 blocks;  // of all products
};

constexpr u32 FEW_THREADS = 128;
constexpr u32 FEW_WAVES = FEW_THREADS / WAVE;
// Outputs of a block for so many rows. With twice the outputs the rows are read half as often, and there is more to multiply while the next weights are awaited; AMD has neither the registers nor the
// block memory for that.
#if ON_AMD
constexpr u32 few_outputs(u32) { return 64; }
#else
constexpr u32 few_outputs(u32 rows) { return rows > 16 ? 128 : 64; }
#endif
// Chunks of a step and of a split. Where each lane holds all of k, or there are no matrix cores, a step is shorter, for want of registers.
constexpr u32 FEW_STEP = HELD_GROUPS == 1 || TILE == TILE_PLAIN ? 2 : 4;
constexpr u32 SPLIT_CHUNKS = 32;
// A row of a step in pieces of 16 bytes.
constexpr u32 FEW_PIECES = FEW_STEP * CHUNK / 8;

// Where piece `piece` of row `row` lies in block memory: neighbours among the lanes that read at once find different banks.
DEVICE u32 few_place(u32 row, u32 piece) { return row * FEW_PIECES + (piece ^ ((piece >> 3 & 1) << 1 | (row & 1))); }

// A thread's sums of the splits that are over: in registers on AMD, which has them, and in block memory elsewhere.
template <u32 COUNT>
struct FewTotals {
#if ON_AMD
    float numbers[COUNT];
    DEVICE_MEMBER explicit FewTotals(float*) {}
    DEVICE_MEMBER float& operator[](u32 i) { return numbers[i]; }
#else
    float* first;
    DEVICE_MEMBER explicit FewTotals(float* memory) : first(memory + thread_index()) {}
    DEVICE_MEMBER float& operator[](u32 i) { return first[i * FEW_THREADS]; }
#endif
};

template <u32 N>
struct FewProduct {
    static constexpr u32 OUTPUTS = few_outputs(N);
    static constexpr u32 TILES_M = OUTPUTS / 16 / FEW_WAVES, TILES_N = N / 16;
    static constexpr u32 SUBSTEPS = FEW_STEP / HELD_GROUPS;
    static constexpr u32 LANE_CHUNKS = TILES_M * HELD_ROWS * SUBSTEPS;
    // Pieces of a lane's chunk that one instruction takes, and instructions that a piece serves.
    static constexpr u32 OP_PIECES = HELD_WORDS > 4 ? HELD_WORDS / 4 : 1;
    static constexpr u32 PIECE_OPS = HELD_WORDS < 4 ? 4 / HELD_WORDS : 1;

    Accumulator acc[TILES_M][TILES_N];
    Staged staged[LANE_CHUNKS];
    u32x4 weights[LANE_CHUNKS][4];
    // What makes sums of unpacked weights those of weights.
    float factor;

    // Output, counted from the block's first, and chunk, counted from the step's first, of a lane's chunk.
    DEVICE_MEMBER static u32 output_of(u32 i) { return (wave_index() * TILES_M + i / (HELD_ROWS * SUBSTEPS)) * 16 + held_row(i % HELD_ROWS); }
    DEVICE_MEMBER static u32 chunk_of_lane(u32 i) { return i / HELD_ROWS % SUBSTEPS * HELD_GROUPS + held_group(); }

    // Begins to read the weights of the step at chunk `c`. Beyond the last output and the last chunk the last is read.
    template <u32 T>
    DEVICE_MEMBER void stage_step(const Product& product, u32 n_chunks, u32 c, u32 first_out) {
#pragma unroll
        for (u32 i = 0; i < LANE_CHUNKS; ++i) {
            const u32 o = smaller(first_out + output_of(i), product.n_out - 1), chunk = smaller(c + chunk_of_lane(i), n_chunks - 1);
            stage<T>(staged[i], at<u8>(product.weights), product.n_out * n_chunks, o * n_chunks + chunk);
        }
    }
    // Unpacks them. Rows begin with whole blocks, so a chunk's place in its row says as much as its place in the matrix.
    template <u32 T>
    DEVICE_MEMBER void unpack_step(u32 n_chunks, u32 c) {
#pragma unroll
        for (u32 i = 0; i < LANE_CHUNKS; ++i) {
            unpack<T>(staged[i], c + chunk_of_lane(i), weights[i]);
            if (c + chunk_of_lane(i) < n_chunks) continue;
#pragma unroll
            for (u32 k = 0; k < 4; ++k) weights[i][k] = u32x4{0, 0, 0, 0};
        }
    }
    // Begins to copy the rows' numbers of the step at chunk `c`; zeros beyond the last row and beyond the end.
    DEVICE_MEMBER static void copy_step(u32x4* to, const MatFew& args, u32 first_row, u32 c) {
        constexpr u32 STRIDE = FEW_THREADS / FEW_PIECES;
        const u32 first = thread_index() / FEW_PIECES, piece = thread_index() % FEW_PIECES, k = c * CHUNK + piece * 8;
        const f16* from = at<f16>(args.x) + static_cast<u64>(first_row + first) * args.n_in + k;
        const u32 rows = k < args.n_in ? args.rows - first_row : 0;
#pragma unroll
        for (u32 i = 0; i < N / STRIDE; ++i) {
            const u32 row = first + i * STRIDE;
            copy_aside_if(row < rows, to + few_place(row, piece), from + static_cast<u64>(i * STRIDE) * args.n_in);
        }
    }
    DEVICE_MEMBER void multiply_step(const u32x4* x) {
#pragma unroll
        for (u32 sub = 0; sub < SUBSTEPS; ++sub)
#pragma unroll
            for (u32 q = 0; q < 4; q += OP_PIECES) {
                const u32 first_piece = (sub * HELD_GROUPS + held_group()) * 4 + q;
#pragma unroll
                for (u32 n = 0; n < TILES_N; ++n) {
                    u32x4 rows[HELD_ROWS][OP_PIECES];
#pragma unroll
                    for (u32 j = 0; j < HELD_ROWS; ++j)
#pragma unroll
                        for (u32 p = 0; p < OP_PIECES; ++p) rows[j][p] = x[few_place(n * 16 + held_row(j), first_piece + p)];
#pragma unroll
                    for (u32 op = 0; op < PIECE_OPS; ++op) {
                        Held b;
#pragma unroll
                        for (u32 j = 0; j < HELD_ROWS; ++j) hold_pieces(b, j, rows[j], op);
#pragma unroll
                        for (u32 m = 0; m < TILES_M; ++m) {
                            Held a;
#pragma unroll
                            for (u32 j = 0; j < HELD_ROWS; ++j) {
                                u32x4 pieces[OP_PIECES];
#pragma unroll
                                for (u32 p = 0; p < OP_PIECES; ++p) pieces[p] = weights[(m * SUBSTEPS + sub) * HELD_ROWS + j][q + p];
                                hold_pieces(a, j, pieces, op);
                            }
                            multiply_held(acc[m][n], a, b);
                        }
                    }
                }
                each([&](u32 m, u32 n) INLINE { settle(acc[m][n]); });
            }
    }
    DEVICE_MEMBER static void hold_pieces(Held& held, u32 j, const u32x4 (&pieces)[OP_PIECES], u32 op) {
        u32 words[HELD_WORDS];
#pragma unroll
        for (u32 w = 0; w < HELD_WORDS; ++w) words[w] = pieces[w / 4][(op * HELD_WORDS + w) % 4];
        hold(held, j, words);
    }

    // Sums of splits `split` .. `last`, added up, of weights of type T. `memory`: two steps of rows, then totals.
    template <u32 T>
    DEVICE_MEMBER void sum(const MatFew& args, const Product& product, u32 first_out, u32 first_row, u32 split, u32 last, u32x4* memory) {
        const u32 n_chunks = args.n_in / CHUNK;
        const u32 end = smaller(n_chunks, last * SPLIT_CHUNKS);
        FewTotals<TILES_M * TILES_N * ACCUMULATED> totals(reinterpret_cast<float*>(memory + 2 * N * FEW_PIECES));
        each_number([&](float& number, u32 index) INLINE { number = 0.0f, totals[index] = 0.0f; });
        u32 now = 0, next = split * SPLIT_CHUNKS;
        copy_step(memory, args, first_row, next);
        stage_step<T>(product, n_chunks, next, first_out);
        for (u32 c = next; c < end; c = next) {
            next = c + FEW_STEP;
            unpack_step<T>(n_chunks, c);
            wait_for_copies();
            barrier();
            // All threads have multiplied the step before: its memory is free.
            if (next < end) {
                copy_step(memory + (1 - now) * N * FEW_PIECES, args, first_row, next);
                stage_step<T>(product, n_chunks, next, first_out);
            }
            multiply_step(memory + now * N * FEW_PIECES);
            now = 1 - now;
            if (next % SPLIT_CHUNKS == 0 || next >= end) each_number([&](float& number, u32 index) INLINE { totals[index] += number, number = 0.0f; });
        }
        each_number([&](float& number, u32 index) INLINE { number = totals[index]; });
        factor = T == F16 ? 1.0f : 1.0f / WEIGHT_FACTOR;
    }

    template <typename Action>
    DEVICE_MEMBER static void each(Action action) {
#pragma unroll
        for (u32 m = 0; m < TILES_M; ++m)
#pragma unroll
            for (u32 n = 0; n < TILES_N; ++n) action(m, n);
    }
    // The thread's accumulated numbers, counted.
    template <typename Action>
    DEVICE_MEMBER void each_number(Action action) {
        each([&](u32 m, u32 n) INLINE {
#pragma unroll
            for (u32 i = 0; i < ACCUMULATED; ++i) action(acc[m][n].number[i], (m * TILES_N + n) * ACCUMULATED + i);
        });
    }

    // Puts a block's sums down for the last block of the same outputs, which gets the sums of all. Answers whether this is the last.
    DEVICE_MEMBER bool add_splits(const MatFew& args, u32 splits) {
        constexpr u32 NUMBERS = OUTPUTS * N;
        SHARED(is_last, u32);
        const u32 block = block_y() * args.blocks + block_x();
        float* partial = at_mut<float>(args.partial) + static_cast<u64>(block) * splits * NUMBERS + thread_index();
        each_number([&](float& number, u32 index) INLINE { partial[block_z() * NUMBERS + index * FEW_THREADS] = number; });
        device_fence();
        barrier();
        u32* counter = at_mut<u32>(args.counters) + block;
        if (thread_index() == 0) {
            is_last = count_up(counter) == splits - 1;
            if (is_last) *counter = 0;
        }
        barrier();
        if (!is_last) return false;
        device_fence();
        each_number([&](float& number, u32) INLINE { number = 0.0f; });
        for (u32 s = 0; s < splits; ++s) each_number([&](float& number, u32 index) INLINE { number += partial[s * NUMBERS + index * FEW_THREADS]; });
        return true;
    }

    DEVICE_MEMBER void write(const MatFew& args, const Product& product, u32 first_out, u32 first_row) {
        each([&](u32 m, u32 n) INLINE {
#pragma unroll
            for (u32 i = 0; i < ACCUMULATED; ++i) {
                const u32 o = first_out + (wave_index() * TILES_M + m) * 16 + row_of(i), r = first_row + n * 16 + column_of(i);
                if (o >= product.n_out || r >= args.rows) continue;
                const u64 index = static_cast<u64>(r) * product.n_out + o;
                float sum = acc[m][n].number[i] * (at<float>(args.scales)[r] * factor);
                if (product.bias != 0) sum += at<float>(product.bias)[o];
                if (product.add != 0) sum += at<float>(product.add)[index];
                at_mut<float>(product.out)[index] = sum;
            }
        });
    }
};

template <u32 N>
DEVICE void matfew(const MatFew& args, u32x4* memory) {
    const bool splits_apart = args.partial != 0;
    const Product product = product_of_block(args.products, args.n_products);
    const u32 first_out = (block_x() - product.first_block) * FewProduct<N>::OUTPUTS, first_row = block_y() * N;
    const u32 splits = (args.n_in / CHUNK + SPLIT_CHUNKS - 1) / SPLIT_CHUNKS;
    const u32 first = splits_apart ? block_z() : 0, last = splits_apart ? first + 1 : splits;
    FewProduct<N> few;
#define SUM(T) few.template sum<T>(args, product, first_out, first_row, first, last, memory)
    FOR_MATRIX_TYPE(product.type, SUM)
#undef SUM
    if (splits_apart && !few.add_splits(args, splits)) return;
    few.write(args, product, first_out, first_row);
}

#define MATFEW(n, blocks)                                                                                              \
    KERNEL(matfew_##n, MatFew, FEW_THREADS, blocks) {                                                            \
        DYNAMIC_SHARED(memory, u32x4);                                                                                 \
        matfew<n>(args, memory);                                                                                       \
    }

MATFEW(16, 4)
MATFEW(32, 2)
MATFEW(64, 2)
