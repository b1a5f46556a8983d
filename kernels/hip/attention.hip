// Paged attention on matrix cores, keys and values in f16.
//
// out[r, h] = sum_p softmax_p(score(r, h, p)) * v[p, kv(h)],  score = cap(scale * q[r, h] . k[p, kv(h)]),  over the positions p of row r's sequence, up to its own, within the window.
//
// The query heads that share a head of keys and values are rows of one tile, so that each key and value is read once for all of them. Scores never leave the multiprocessor: a running maximum
// and sum per row rescale what was accumulated (arXiv:1805.02867, arXiv:2205.14135).
//
// prefill: a tile is up to 64 / group rows of one sequence; each wave has 16 of the tile's 64 rows and sees all positions, from a multiple of the step on.
// decode: a tile is one row; the waves share out the positions of a split and put their parts together in order; the last block of a row puts its splits together in order. Which
//   positions a split has, and so every sum, depends on the row's position alone.
#include "attention.h"
#include "matrix_core.h"

// THREADS threads, tiles of BM rows, steps of KT positions. BY_POSITION: waves share the positions of a step, else the rows of the tile.
template <u32 DIM, u32 BM, u32 KT, u32 THREADS, bool BY_POSITION>
struct Flash {
    static constexpr u32 STRIDE = DIM + 8;
    static constexpr u32 WAVES = THREADS / WAVE;
    static constexpr u32 TILES_M = BY_POSITION ? BM / 16 : BM / 16 / WAVES;
    static constexpr u32 TILES_P = BY_POSITION ? KT / 16 / WAVES : KT / 16;
    static constexpr u32 TILES_D = DIM / 16;
    static constexpr u32 PIECES = DIM / 8;
    static constexpr u32 SCRATCH = 16 * 24;
    static constexpr u32 MEMORY = (BM + 2 * KT) * STRIDE + WAVES * SCRATCH;  // of f16

    const Attention& args;
    f16* q;
    f16* k;
    f16* v;
    f16* scratch;
    const u32* table;
    u32 kv_head, group;
    Accumulator out[TILES_M][TILES_D];
    float maximum[TILES_M][ROW_SLOTS];
    float weights[TILES_M][ROW_SLOTS];

    DEVICE_MEMBER Flash(const Attention& args, f16* memory, u32 kv_head)
        : args(args),
          q(memory),
          k(memory + BM * STRIDE),
          v(memory + (BM + KT) * STRIDE),
          scratch(memory + (BM + 2 * KT) * STRIDE + wave_index() * SCRATCH),
          kv_head(kv_head),
          group(args.n_heads / args.n_kv_heads) {
#pragma unroll
        for (u32 m = 0; m < TILES_M; ++m) {
#pragma unroll
            for (u32 d = 0; d < TILES_D; ++d) clear(out[m][d]);
#pragma unroll
            for (u32 s = 0; s < ROW_SLOTS; ++s) maximum[m][s] = NOTHING, weights[m][s] = 0.0f;
        }
    }

    // Row `m` of the tile is head m % group of row first + m / group.
    DEVICE_MEMBER void load_queries(u32 first, u32 count) {
        for (u32 piece = thread_index(); piece < BM * (DIM / 4); piece += THREADS) {
            const u32 m = piece / (DIM / 4), d = piece % (DIM / 4) * 4;
            f32x4 quad = {0.0f, 0.0f, 0.0f, 0.0f};
            if (m < count * group) {
                const u64 head = static_cast<u64>(first + m / group) * args.n_heads + kv_head * group + m % group;
                quad = *at<f32x4>(args.q + (head * DIM + d) * 4) * args.scale;
            }
            const f16x4 half = {static_cast<f16>(quad[0]), static_cast<f16>(quad[1]), static_cast<f16>(quad[2]), static_cast<f16>(quad[3])};
            *reinterpret_cast<f16x4*>(q + m * STRIDE + d) = half;
        }
    }

    // Copies keys and values of positions from .. from + KT into block memory; zeros from `end` on.
    DEVICE_MEMBER void load_step(u32 from, u32 end) {
        constexpr u32 LOADS = KT * PIECES / THREADS;
        static_assert(KT * PIECES % THREADS == 0, "every thread copies as much");
        // Blocks are looked up before the first copy, which would have to wait for each of them otherwise; AMD has no registers left for that.
#if ON_AMD
        constexpr u32 AT_ONCE = 1;
#else
        constexpr u32 AT_ONCE = LOADS;
#endif
        for (u32 first = 0; first < LOADS; first += AT_ONCE) {
            u32 blocks[AT_ONCE];
            const auto position_of = [&](u32 i) INLINE { return from + (thread_index() + (first + i) * THREADS) / PIECES; };
#pragma unroll
            for (u32 i = 0; i < AT_ONCE; ++i) blocks[i] = position_of(i) < end ? table[position_of(i) / args.block_len] : 0;
#pragma unroll
            for (u32 i = 0; i < AT_ONCE; ++i) {
                const u32 position = position_of(i), d = (thread_index() + (first + i) * THREADS) % PIECES * 8;
                const u64 row = (static_cast<u64>(blocks[i]) * args.n_kv_heads + kv_head) * args.block_len + position % args.block_len;
                const u32 to = (position - from) * STRIDE + d;
                copy_aside_if(position < end, k + to, at<f16>(args.keys) + row * args.key_stride + d);
                copy_aside_if(position < end, v + to, at<f16>(args.values) + row * args.value_stride + d);
            }
        }
        wait_for_copies();
        barrier();
    }

    // Takes in the step at `from`. `limit(m)` is the range of positions that row m of the tile sees.
    template <typename Limit>
    DEVICE_MEMBER void take_step(u32 from, u32 row, Limit limit) {
        const u32 first_p = BY_POSITION ? wave_index() * TILES_P * 16 : 0;
#pragma unroll
        for (u32 m = 0; m < TILES_M; ++m) {
            Accumulator scores[TILES_P];
#pragma unroll
            for (u32 p = 0; p < TILES_P; ++p) clear(scores[p]);
#pragma unroll
            for (u32 d = 0; d < DIM; d += 16) {
                const Fragment rows = load_fragment(q + (row + m * 16) * STRIDE + d, STRIDE);
#pragma unroll
                for (u32 p = 0; p < TILES_P; ++p) multiply(scores[p], rows, load_fragment(k + (first_p + p * 16) * STRIDE + d, STRIDE));
            }
            settle(scores);
            weigh(scores, m, from + first_p, row, limit);
#pragma unroll
            for (u32 p = 0; p < TILES_P; ++p) {
                const Fragment rows = as_rows(scores[p], scratch);
                // Values come from block memory four tiles at a time: all at once, they would not fit beside the sums.
#pragma unroll
                for (u32 d = 0; d < TILES_D; ++d) {
                    multiply(out[m][d], rows, load_fragment_across(v + (first_p + p * 16) * STRIDE + d * 16, STRIDE));
                    if (d % 4 == 3 || d + 1 == TILES_D) settle(out[m]);
                }
                wave_barrier();
            }
        }
    }

    // Turns scores into weights, and rescales what was accumulated where a row's maximum has grown.
    template <typename Limit>
    DEVICE_MEMBER void weigh(Accumulator (&scores)[TILES_P], u32 m, u32 from, u32 row, Limit limit) {
        float largest[ROW_SLOTS], rescale[ROW_SLOTS];
        u32x2 seen[ROW_SLOTS];
#pragma unroll
        for (u32 s = 0; s < ROW_SLOTS; ++s) {
            seen[s] = limit(row + m * 16 + row_of_slot(s));
            largest[s] = NOTHING;
        }
#pragma unroll
        for (u32 p = 0; p < TILES_P; ++p)
#pragma unroll
            for (u32 i = 0; i < ACCUMULATED; ++i) {
                float& score = scores[p].number[i];
                const u32 position = from + p * 16 + column_of(i);
                if (args.soft_cap != 0.0f) score = args.soft_cap * hyperbolic_tangent(score / args.soft_cap);
                const u32x2 range = seen[slot_of(i)];
                score = position >= range[0] && position < range[1] ? score : NOTHING;
                largest[slot_of(i)] = larger(largest[slot_of(i)], score);
            }
#pragma unroll
        for (u32 s = 0; s < ROW_SLOTS; ++s) {
            largest[s] = larger(maximum[m][s], row_max(largest[s]));
            rescale[s] = exponential_fast(maximum[m][s] - largest[s]);
            maximum[m][s] = largest[s];
            weights[m][s] *= rescale[s];
        }
        float sum[ROW_SLOTS];
#pragma unroll
        for (u32 s = 0; s < ROW_SLOTS; ++s) sum[s] = 0.0f;
#pragma unroll
        for (u32 p = 0; p < TILES_P; ++p)
#pragma unroll
            for (u32 i = 0; i < ACCUMULATED; ++i) {
                float& score = scores[p].number[i];
                score = score == NOTHING ? 0.0f : exponential_fast(score - largest[slot_of(i)]);
                sum[slot_of(i)] += score;
            }
#pragma unroll
        for (u32 s = 0; s < ROW_SLOTS; ++s) weights[m][s] += row_sum(sum[s]);
#pragma unroll
        for (u32 d = 0; d < TILES_D; ++d)
#pragma unroll
            for (u32 i = 0; i < ACCUMULATED; ++i) out[m][d].number[i] *= rescale[slot_of(i)];
    }
};

// Grid: (tiles, kv heads).
template <u32 DIM, u32 BM, u32 KT, u32 THREADS>
DEVICE void attention_prefill(const Attention& args, f16* memory) {
    using Tile = Flash<DIM, BM, KT, THREADS, false>;
    Tile tile(args, memory, block_y());
    const RowTile rows = at<RowTile>(args.tiles)[block_x()];
    const PlaceOfRow* places = at<PlaceOfRow>(args.places) + rows.first;
    tile.table = at<u32>(args.tables) + static_cast<u64>(places[0].table) * args.table_stride;
    tile.load_queries(rows.first, rows.count);
    const u32 row = wave_index() * Tile::TILES_M * 16;
    const u32 used = rows.count * tile.group;
    const auto limit = [&](u32 m) INLINE {
        if (m >= used) return u32x2{0, 0};
        const u32 position = places[m / tile.group].position;
        return u32x2{first_position(args, position), position + 1};
    };
    const u32 end = places[rows.count - 1].position + 1;
    for (u32 from = first_position(args, places[0].position) / KT * KT; from < end; from += KT) {
        tile.load_step(from, end);
        tile.take_step(from, row, limit);
        barrier();
    }
#pragma unroll
    for (u32 m = 0; m < Tile::TILES_M; ++m)
#pragma unroll
        for (u32 i = 0; i < ACCUMULATED; ++i) {
            const u32 at_row = row + m * 16 + row_of(i);
            if (at_row >= used) continue;
            const u32 head = tile.kv_head * tile.group + at_row % tile.group;
            float factor;
            const float total = total_weight(args, head, tile.maximum[m][slot_of(i)], tile.weights[m][slot_of(i)], factor);
            float* out = at_mut<float>(args.out.f32) + (static_cast<u64>(rows.first + at_row / tile.group) * args.n_heads + head) * DIM;
#pragma unroll
            for (u32 d = 0; d < Tile::TILES_D; ++d) out[d * 16 + column_of(i)] = tile.out[m][d].number[i] * factor / total;
        }
}

// What waves, or splits, have for one row of a tile: put together in order.
template <typename Part>
DEVICE void put_together(u32 parts, Part part, float& maximum, float& weight) {
    maximum = NOTHING;
    for (u32 i = 0; i < parts; ++i) maximum = larger(maximum, part(i)[0]);
    weight = 0.0f;
    for (u32 i = 0; i < parts; ++i) weight += part(i)[1] * exponential(part(i)[0] - maximum);
}

// Grid: (kv heads, rows, splits).
template <u32 DIM, u32 KT, u32 THREADS>
DEVICE void attention_decode(const Attention& args, f16* memory) {
    using Tile = Flash<DIM, 16, KT, THREADS, true>;
    constexpr u32 WAVES = Tile::WAVES;
    SHARED(is_last, u32);
    const u32 kv_head = block_x(), row = block_y(), split = block_z();
    const PlaceOfRow place = at<PlaceOfRow>(args.places)[row];
    if (place.position == NO_POSITION) return;
    const u32 start = first_position(args, place.position), stop = place.position + 1;
    const u32 len = split_len(args, place.position);
    const u32 first_split = start / len, splits = (stop + len - 1) / len - first_split;
    if (split >= splits) return;
    const u32 begin = (first_split + split) * len, end = smaller(stop, begin + len);

    Tile tile(args, memory, kv_head);
    tile.table = at<u32>(args.tables) + static_cast<u64>(place.table) * args.table_stride;
    tile.load_queries(row, 1);
    const auto limit = [&](u32 m) INLINE { return m < tile.group ? u32x2{start, end} : u32x2{0, 0}; };
    for (u32 from = begin; from < end; from += KT) {
        tile.load_step(from, end);
        tile.take_step(from, 0, limit);
        barrier();
    }

    // Sums of each wave [16, DIM + 2], over the memory of keys and values.
    constexpr u32 WIDTH = DIM + 2;
    float* parts = reinterpret_cast<float*>(memory);
#pragma unroll
    for (u32 i = 0; i < ACCUMULATED; ++i) {
        float* part = parts + (wave_index() * 16 + row_of(i)) * WIDTH;
        part[DIM] = tile.maximum[0][slot_of(i)];
        part[DIM + 1] = tile.weights[0][slot_of(i)];
#pragma unroll
        for (u32 d = 0; d < Tile::TILES_D; ++d) part[d * 16 + column_of(i)] = tile.out[0][d].number[i];
    }
    barrier();
    const u32 group = tile.group, first_head = kv_head * group;
    float* partial = at_mut<float>(args.partial) + ((static_cast<u64>(row) * args.n_heads + first_head) * args.splits) * WIDTH;
    const auto of_split = [&](u32 head, u32 s) INLINE { return partial + (static_cast<u64>(head) * args.splits + s) * WIDTH; };
    // Four neighbours to a thread; all threads take part in every round, as the forms' shuffles want it.
    const u32 quads = group * (DIM / 4), rounds = (quads + THREADS - 1) / THREADS;
    bool complete = splits == 1;
    for (u32 stage = 0; stage < 2; ++stage) {
        for (u32 round = 0; round < rounds; ++round) {
            const u32 quad = round * THREADS + thread_index();
            const bool inside = quad < quads;
            const u32 head = inside ? quad / (DIM / 4) : 0, d = quad % (DIM / 4) * 4;
            const auto part = [&](u32 i) INLINE -> const float* { return stage == 0 ? parts + (i * 16 + head) * WIDTH : of_split(head, i); };
            const u32 count = stage == 0 ? WAVES : splits;
            float maximum, weight;
            put_together(count, [&](u32 i) INLINE { return part(i) + DIM; }, maximum, weight);
            f32x4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
            for (u32 i = 0; i < count; ++i) {
                const float factor = exponential(part(i)[DIM] - maximum);
#pragma unroll
                for (u32 e = 0; e < 4; ++e) sum[e] += part(i)[d + e] * factor;
            }
            if (complete) {
                float factor;
                const float total = total_weight(args, first_head + head, maximum, weight, factor);
                const f32x4 result = sum * (factor / total);
                const u64 index = (static_cast<u64>(row) * args.n_heads + first_head + head) * DIM + d;
                if (args.out.f32 != 0 && inside) *at_mut<f32x4>(args.out.f32 + index * 4) = result;
                if (args.out.quants != 0) write_quants(args.out, index, result, inside);
            } else if (inside) {
                float* to = of_split(head, split);
#pragma unroll
                for (u32 e = 0; e < 4; ++e) to[d + e] = sum[e];
                if (d == 0) to[DIM] = maximum, to[DIM + 1] = weight;
            }
        }
        if (complete) return;
        // The block that comes last has all splits before it.
        device_fence();
        barrier();
        u32* counter = at_mut<u32>(args.counters) + row * args.n_kv_heads + kv_head;
        if (thread_index() == 0) {
            is_last = count_up(counter) == splits - 1;
            if (is_last) *counter = 0;
        }
        barrier();
        if (!is_last) return;
        device_fence();
        complete = true;
    }
}

#define ATTENTION(dim, bm, kt, threads, blocks)                                                                        \
    KERNEL(attention_prefill_##dim, Attention, threads, blocks) {                                                      \
        DYNAMIC_SHARED(memory, f16);                                                                                   \
        attention_prefill<dim, bm, kt, threads>(args, memory);                                                         \
    }                                                                                                                  \
    KERNEL(attention_decode_##dim, Attention, threads, blocks) {                                                       \
        DYNAMIC_SHARED(memory, f16);                                                                                   \
        attention_decode<dim, kt, threads>(args, memory);                                                              \
    }

ATTENTION(64, 64, 64, 128, 4)
ATTENTION(80, 64, 64, 128, 3)
ATTENTION(96, 64, 64, 128, 3)
ATTENTION(128, 64, 64, 128, 3)
ATTENTION(256, 32, 32, 64, 4)
