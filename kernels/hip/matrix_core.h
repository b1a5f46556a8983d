// Matrix cores: products of 16 x 16 tiles, accumulated in f32.
//
// A wave multiplies `a` (16 rows) with `b` (16 columns), both over 16 steps of k, both in block memory with k running fastest:  acc[row, column] += sum_k a[row, k] * b[column, k].
// How a tile is spread over the lanes differs between machines; `Fragment` and `Accumulator` hide it, and `row_of` / `column_of` say which element an accumulator's number is.
//
//   MMA     NVIDIA: mma.sync m16n8k16, twice                     32 lanes
//   MFMA    CDNA (gfx90a, gfx942): v_mfma_f32_16x16x16_f16       64 lanes
//   WMMA11  RDNA 3: v_wmma_f32_16x16x16_f16, operands doubled    32 lanes
//   WMMA12  RDNA 4: the same without doubling                    32 lanes
//   PLAIN   no matrix cores (gfx1030), and the host              32 lanes
//
// The host can run every layout (HEARTH_TILE, which emulate/emulated.sh sets): lanes exchange fragments there, and a number is fetched from the lane that holds it. That shows that layouts and kernel agree; that the layout is
// the machine's, only the machine can show.
#pragma once
#include "portable.h"

#define TILE_PLAIN 0
#define TILE_MMA 1
#define TILE_MFMA 2
#define TILE_WMMA11 3
#define TILE_WMMA12 4

#if ON_NVIDIA
#define TILE TILE_MMA
#elif defined(__gfx90a__) || defined(__gfx942__)
#define TILE TILE_MFMA
#elif defined(__gfx1100__)
#define TILE TILE_WMMA11
#elif defined(__gfx1201__)
#define TILE TILE_WMMA12
#elif ON_HOST && defined(HEARTH_TILE)
#define TILE HEARTH_TILE
#else
#define TILE TILE_PLAIN
#endif

constexpr u32 WAVE = TILE == TILE_MFMA ? 64 : 32;
// Accumulated numbers of a tile that a lane holds.
constexpr u32 ACCUMULATED = 256 / WAVE;

DEVICE u32 wave_index() { return thread_index() / WAVE; }
DEVICE u32 lane_of_wave() { return thread_index() % WAVE; }

// Orders the lanes of a wave: what they wrote to block memory before, all of them see after.
DEVICE void wave_barrier() {
#if ON_HOST
    fibers::wait(WAVE == 64 ? fibers::Group::Wave : fibers::Group::Warp);
#else
    warp_barrier();
#endif
}

struct Accumulator {
    float number[ACCUMULATED];
};

DEVICE void clear(Accumulator& acc) {
#pragma unroll
    for (u32 i = 0; i < ACCUMULATED; ++i) acc.number[i] = 0.0f;
}

// The sums are made before what follows. AMD's compiler would else move products down to where their sums are used, or loads of later ones up: either way more operands wait than there are registers.
// NVIDIA's leaves both where they are written.
#if ON_AMD
DEVICE void settle(Accumulator& acc) {
#pragma unroll
    for (u32 i = 0; i < ACCUMULATED; ++i) asm volatile("" : "+v"(acc.number[i]));
}
template <u32 N>
DEVICE void settle(Accumulator (&tiles)[N]) {
#pragma unroll
    for (u32 t = 0; t < N; ++t) settle(tiles[t]);
}
#else
template <typename Sums>
DEVICE void settle(Sums&) {}
#endif

// Row and column of number `i` of a lane's accumulator.
DEVICE u32 row_of(u32 i) {
    const u32 lane = lane_of_wave();
    switch (TILE) {
        case TILE_MMA:
            return lane / 4 + i % 4 / 2 * 8;
        case TILE_MFMA:
            return lane / 16 * 4 + i;
        case TILE_WMMA11:
            return 2 * i + lane / 16;
        case TILE_WMMA12:
            return lane / 16 * 8 + i;
        default:
            return lane / 8 * 4 + i % 4;
    }
}
DEVICE u32 column_of(u32 i) {
    const u32 lane = lane_of_wave();
    switch (TILE) {
        case TILE_MMA:
            return i / 4 * 8 + lane % 4 * 2 + i % 2;
        case TILE_PLAIN:
            return i / 4 * 8 + lane % 8;
        default:
            return lane % 16;
    }
}

typedef f16 f16x16 __attribute__((ext_vector_type(16)));
typedef float f32x8 __attribute__((ext_vector_type(8)));

#if TILE == TILE_MMA
// Registers 0..3: rows 0..8 and 8..16 of k 0..8, then of k 8..16.
struct Fragment {
    u32 pairs[4];
};
#elif TILE == TILE_MFMA
// Row lane % 16, k from lane / 16 * 4.
struct Fragment {
    f16x4 numbers;
};
#elif TILE == TILE_WMMA11
// Row lane % 16, all of k.
struct Fragment {
    f16x16 numbers;
};
#elif TILE == TILE_WMMA12
// Row lane % 16, k from lane / 16 * 8.
struct Fragment {
    f16x8 numbers;
};
#else
// The tile itself.
struct Fragment {
    const f16* tile;
    u32 row_stride, k_stride;
};
#endif

// Reads a 16 x 16 tile from block memory: row r begins at tile + r * stride, a multiple of 16 bytes. It stays unchanged until the fragment was multiplied.
DEVICE Fragment load_fragment(const f16* tile, u32 stride) {
    Fragment out;
#if TILE == TILE_MMA && ON_NVIDIA
    const u32 lane = lane_of_wave();
    const f16* row = tile + (lane % 16) * stride + lane / 16 * 8;
    const u32 address = shared_address(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out.pairs[0]), "=r"(out.pairs[1]), "=r"(out.pairs[2]), "=r"(out.pairs[3])
                 : "r"(address)
                 : "memory");
#elif TILE == TILE_MMA
    const u32 lane = lane_of_wave();
    for (u32 m = 0; m < 4; ++m)
        __builtin_memcpy(&out.pairs[m], tile + (lane / 4 + m % 2 * 8) * stride + m / 2 * 8 + lane % 4 * 2, 4);
#elif TILE == TILE_PLAIN
    out = Fragment{tile, stride, 1};
#else
    const u32 lane = lane_of_wave();
    constexpr u32 COUNT = sizeof(out.numbers) / sizeof(f16);
    const f16* from = tile + (lane % 16) * stride + (COUNT == 16 ? 0 : lane / 16 * COUNT);
#pragma unroll
    for (u32 i = 0; i < COUNT; i += 4) {
        const f16x4 four = *reinterpret_cast<const f16x4*>(from + i);
#pragma unroll
        for (u32 k = 0; k < 4; ++k) out.numbers[i + k] = four[k];
    }
#endif
    return out;
}

// As load_fragment, for a tile that lies with k running slowest: element [row, k] at tile + k * stride + row.
DEVICE Fragment load_fragment_across(const f16* tile, u32 stride) {
    Fragment out;
#if TILE == TILE_MMA && ON_NVIDIA
    const u32 lane = lane_of_wave();
    const f16* row = tile + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out.pairs[0]), "=r"(out.pairs[1]), "=r"(out.pairs[2]), "=r"(out.pairs[3])
                 : "r"(shared_address(row))
                 : "memory");
#elif TILE == TILE_MMA
    const u32 lane = lane_of_wave();
    for (u32 m = 0; m < 4; ++m) {
        const f16* from = tile + (m / 2 * 8 + lane % 4 * 2) * stride + lane / 4 + m % 2 * 8;
        const f16x2 pair = {from[0], from[stride]};
        out.pairs[m] = bit_cast<u32>(pair);
    }
#elif TILE == TILE_PLAIN
    out = Fragment{tile, 1, stride};
#else
    const u32 lane = lane_of_wave();
    constexpr u32 COUNT = sizeof(out.numbers) / sizeof(f16);
    const f16* from = tile + (COUNT == 16 ? 0 : lane / 16 * COUNT) * stride + lane % 16;
#pragma unroll
    for (u32 k = 0; k < COUNT; ++k) out.numbers[k] = from[k * stride];
#endif
    return out;
}

// An accumulator, rounded to f16, as the 16 rows of another product. `scratch`: 16 x (16 + 8) f16 of block memory for this wave alone.
DEVICE Fragment as_rows(const Accumulator& acc, f16* scratch) {
#if TILE == TILE_MMA
    // Its pairs lie just where a fragment wants them.
    (void)scratch;
    Fragment out;
#pragma unroll
    for (u32 m = 0; m < 4; ++m) {
        const f16x2 pair = {static_cast<f16>(acc.number[2 * m]), static_cast<f16>(acc.number[2 * m + 1])};
        out.pairs[m] = bit_cast<u32>(pair);
    }
    return out;
#else
    constexpr u32 STRIDE = 24;
#pragma unroll
    for (u32 i = 0; i < ACCUMULATED; ++i) scratch[row_of(i) * STRIDE + column_of(i)] = static_cast<f16>(acc.number[i]);
    wave_barrier();
    return load_fragment(scratch, STRIDE);
#endif
}

// Rows of which a lane holds numbers: number `i` belongs to row `slot_of(i)` of them.
constexpr u32 ROW_SLOTS = TILE == TILE_MMA ? 2 : TILE == TILE_PLAIN ? 4 : ACCUMULATED;
DEVICE constexpr u32 slot_of(u32 i) { return TILE == TILE_MMA ? i % 4 / 2 : i % ROW_SLOTS; }
DEVICE u32 row_of_slot(u32 slot) { return row_of(TILE == TILE_MMA ? slot * 2 : slot); }
// Lanes that share a row: this many neighbours.
constexpr u32 ROW_LANES = TILE == TILE_MMA ? 4 : TILE == TILE_PLAIN ? 8 : 16;

DEVICE float row_max(float value) {
#pragma unroll
    for (u32 step = ROW_LANES / 2; step > 0; step /= 2) value = larger(value, shuffle(value, lane_index() ^ step));
    return value;
}
DEVICE float row_sum(float value) {
#pragma unroll
    for (u32 step = ROW_LANES / 2; step > 0; step /= 2) value += shuffle(value, lane_index() ^ step);
    return value;
}

// An operand that lanes fill by themselves, without block memory. A lane holds HELD_ROWS rows of the 16, `held_row(j)`, and of each 2 * HELD_WORDS numbers along k. Which of the 16 steps of k those
// are does not matter as long as both operands agree: lanes of one group, of HELD_GROUPS, hold the same.
#if TILE == TILE_PLAIN
struct Held {
    f16x8 numbers;
};
#else
typedef Fragment Held;
#endif
constexpr u32 HELD_ROWS = TILE == TILE_MMA ? 2 : 1;
constexpr u32 HELD_GROUPS = TILE == TILE_MMA || TILE == TILE_MFMA ? 4 : TILE == TILE_WMMA11 ? 1 : 2;
constexpr u32 HELD_WORDS = 8 / HELD_GROUPS;

DEVICE u32 held_row(u32 j) { return TILE == TILE_MMA ? lane_of_wave() / 4 + 8 * j : lane_of_wave() % 16; }
DEVICE u32 held_group() { return TILE == TILE_MMA ? lane_of_wave() % 4 : lane_of_wave() / 16 % HELD_GROUPS; }

// Fills row j with pairs of f16.
DEVICE void hold(Held& held, u32 j, const u32 (&pairs)[HELD_WORDS]) {
#if TILE == TILE_MMA
    held.pairs[j] = pairs[0];
    held.pairs[j + 2] = pairs[1];
#else
    (void)j;
#pragma unroll
    for (u32 w = 0; w < HELD_WORDS; ++w) {
        const f16x2 pair = bit_cast<f16x2>(pairs[w]);
        held.numbers[2 * w] = pair[0];
        held.numbers[2 * w + 1] = pair[1];
    }
#endif
}

// The host takes numbers from where they are held, also for no layout in particular: it is asked for gfx1030's by name to do as that does.
#if ON_HOST && !(defined(HEARTH_TILE) && TILE == TILE_PLAIN)
#define FROM_HOLDERS 1
// Element [row, k] of an operand's tile, from the lane that holds it.
DEVICE float element_of(const Held* const* lanes, u32 row, u32 k) {
#if TILE == TILE_MMA
    const Fragment* holder = lanes[row % 8 * 4 + k % 8 / 2];
    return f16_to_f32(static_cast<u16>(holder->pairs[row / 8 + k / 8 * 2] >> 16 * (k % 2)));
#elif TILE == TILE_MFMA
    return static_cast<float>(lanes[k / 4 * 16 + row]->numbers[k % 4]);
#elif TILE == TILE_WMMA11
    return static_cast<float>(lanes[row]->numbers[k]);
#else
    return static_cast<float>(lanes[k / 8 * 16 + row]->numbers[k % 8]);
#endif
}
DEVICE void multiply_held(Accumulator& acc, const Held& a, const Held& b) {
    const Held* all[2][WAVE];
    const fibers::Group group = WAVE == 64 ? fibers::Group::Wave : fibers::Group::Warp;
    const u32 first = thread_index() / WAVE * WAVE;
    fibers::gather(group, reinterpret_cast<u64>(&a), first, WAVE, reinterpret_cast<u64*>(all[0]));
    fibers::gather(group, reinterpret_cast<u64>(&b), first, WAVE, reinterpret_cast<u64*>(all[1]));
    for (u32 i = 0; i < ACCUMULATED; ++i)
        for (u32 k = 0; k < 16; ++k) acc.number[i] += element_of(all[0], row_of(i), k) * element_of(all[1], column_of(i), k);
    fibers::wait(group);
}
#endif

#if TILE == TILE_PLAIN
// The 16 numbers of a row of a tile along k.
DEVICE void read_pairs(const Fragment& fragment, u32 row, f16x2 (&pairs)[8]) {
    const f16* from = fragment.tile + row * fragment.row_stride;
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        f16x8 numbers;
        if (fragment.k_stride == 1) {
            numbers = reinterpret_cast<const f16x8*>(from)[half];
        } else {
#pragma unroll
            for (u32 k = 0; k < 8; ++k) numbers[k] = from[(half * 8 + k) * fragment.k_stride];
        }
#pragma unroll
        for (u32 w = 0; w < 4; ++w) pairs[half * 4 + w] = f16x2{numbers[2 * w], numbers[2 * w + 1]};
    }
}
#endif

DEVICE void multiply(Accumulator& acc, const Fragment& a, const Fragment& b) {
#if ON_HOST && TILE != TILE_PLAIN
    multiply_held(acc, a, b);
#elif TILE == TILE_MMA
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        float* d = acc.number + 4 * half;
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[half]), "r"(b.pairs[half + 2]));
    }
#elif TILE == TILE_MFMA
    f32x4 sum = {acc.number[0], acc.number[1], acc.number[2], acc.number[3]};
    sum = __builtin_amdgcn_mfma_f32_16x16x16f16(a.numbers, b.numbers, sum, 0, 0, 0);
#pragma unroll
    for (u32 i = 0; i < 4; ++i) acc.number[i] = sum[i];
#elif TILE == TILE_WMMA11 || TILE == TILE_WMMA12
    f32x8 sum;
#pragma unroll
    for (u32 i = 0; i < 8; ++i) sum[i] = acc.number[i];
#if TILE == TILE_WMMA11
    sum = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a.numbers, b.numbers, sum);
#else
    sum = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a.numbers, b.numbers, sum);
#endif
#pragma unroll
    for (u32 i = 0; i < 8; ++i) acc.number[i] = sum[i];
#else
    f16x2 columns[2][8];
    read_pairs(b, column_of(0), columns[0]);
    read_pairs(b, column_of(4), columns[1]);
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        f16x2 row[8];
        read_pairs(a, row_of(i), row);
#pragma unroll
        for (u32 c = 0; c < 2; ++c)
#pragma unroll
            for (u32 w = 0; w < 8; ++w) acc.number[4 * c + i] = dot2(row[w], columns[c][w], acc.number[4 * c + i]);
    }
    settle(acc);
#endif
}

#if !FROM_HOLDERS
DEVICE void multiply_held(Accumulator& acc, const Held& a, const Held& b) {
#if TILE == TILE_PLAIN
#pragma unroll
    for (u32 group = 0; group < HELD_GROUPS; ++group)
#pragma unroll
        for (u32 w = 0; w < HELD_WORDS; ++w) {
            const auto pair_of = [&](const Held& held, u32 row) INLINE {
                const f16x2 pair = {held.numbers[2 * w], held.numbers[2 * w + 1]};
                return shuffle(pair, group * 16 + row);
            };
            const f16x2 columns[2] = {pair_of(b, column_of(0)), pair_of(b, column_of(4))};
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const f16x2 row = pair_of(a, row_of(i));
#pragma unroll
                for (u32 c = 0; c < 2; ++c) acc.number[4 * c + i] = dot2(row, columns[c], acc.number[4 * c + i]);
            }
        }
#else
    multiply(acc, a, b);
#endif
}
#endif
