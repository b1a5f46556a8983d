// Rows of tables: the embedding of tokens, and of positions.
#include "planes.h"

// Writes the 32 numbers of a chunk, or adds them to what is there.
template <u32 T>
DEVICE void write_numbers(const Chunk<T>& chunk, u32 index, float factor, bool add, float* out) {
    u32 words[8];
    words_of<T>(chunk, words);
    const Scales scales = scales_of<T>(chunk, index);
#pragma unroll
    for (u32 k = 0; k < 8; ++k) {
        f32x4 quad;
#pragma unroll
        for (u32 b = 0; b < 4; ++b) {
            const i32 code = static_cast<i8>(words[k] >> 8 * b) - code_offset(T);
            float value = (k < 4 ? scales.first : scales.last) * static_cast<float>(code);
            if constexpr (has_minimum(T)) value -= k < 4 ? scales.first_minimum : scales.last_minimum;
            quad[b] = value * factor;
        }
        f32x4* place = reinterpret_cast<f32x4*>(out) + k;
        *place = add ? *place + quad : quad;
    }
}

template <u32 T>
DEVICE float float_number(const u8* row, u32 i) {
    if constexpr (T == F32) return reinterpret_cast<const float*>(row)[i];
    const u16 bits = reinterpret_cast<const u16*>(row)[i];
    return T == F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

constexpr u32 EMBED_THREADS = 128;

// out[r] = table[ids[stride * r]] * factor, or that added to what is there. An id that is no row of the table leaves its row of `out` as it is.
// table: [n_rows, n] of any type; ids: [stride * (rows - 1) + 1] u32; out: [rows, n] f32. Grid: (ceil(n / (32 * 128)), rows): a thread per chunk.
struct Embed {
    u64 table;
    u64 ids;
    u64 out;
    u32 type;
    u32 n;
    u32 n_rows;
    float factor;
    u32 stride;
    u32 add;
};

template <u32 T>
DEVICE void embed_chunk(const Embed& args, u32 row, u32 chunk, float* out) {
    if constexpr (is_float(T)) {
        const u8* numbers = at<u8>(args.table) + static_cast<u64>(row) * args.n * (T == F32 ? 4 : 2);
        for (u32 i = chunk * CHUNK; i < smaller(args.n, chunk * CHUNK + CHUNK); ++i) {
            const float number = float_number<T>(numbers, i) * args.factor;
            out[i] = args.add != 0 ? out[i] + number : number;
        }
    } else {
        const u32 n_chunks = args.n / CHUNK;
        const Place place = place_of<T>(at<u8>(args.table), args.n_rows * n_chunks, row * n_chunks + chunk);
        write_numbers<T>(load_chunk<T>(place), place.index, args.factor, args.add != 0, out + chunk * CHUNK);
    }
}

KERNEL(embed, Embed, EMBED_THREADS, 1) {
    const u32 chunk = block_x() * EMBED_THREADS + thread_index();
    if (chunk * CHUNK >= args.n) return;
    const u32 row = at<u32>(args.ids)[static_cast<u64>(block_y()) * args.stride];
    if (row >= args.n_rows) return;
    float* out = at_mut<float>(args.out) + static_cast<u64>(block_y()) * args.n;
#define ACTION(T) embed_chunk<T>(args, row, chunk, out)
    FOR_TYPE(args.type, ACTION)
#undef ACTION
}
