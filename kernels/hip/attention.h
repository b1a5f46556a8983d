// What all attention kernels share: operands, windows, sinks.
#pragma once
#include "forms.h"

// Where a row is in its sequence.
struct PlaceOfRow {
    u32 table;
    u32 position;
};
// Rows of prefill that a block takes: of one sequence, one after the other.
struct RowTile {
    u32 first;
    u32 count;
};
// A position of a row that only fills a batch up: nothing is read or written for it.
constexpr u32 NO_POSITION = 0xffffffffu;

struct Attention {
    u64 q;         // [rows, n_heads, head_dim] f32
    u64 keys;      // [n_blocks, n_kv_heads, block_len, key_stride] f16
    u64 values;    // [n_blocks, n_kv_heads, block_len, value_stride] f16
    u64 tables;    // [any, table_stride] u32: blocks of each sequence
    u64 places;    // [rows] PlaceOfRow
    u64 tiles;     // prefill: [grid.x] RowTile
    u64 sinks;     // [n_heads] f32 or 0: a score that takes part in the softmax and has no value
    u64 partial;   // decode: [rows, n_heads, splits, head_dim + 2] f32: sums, maximum, sum of weights
    u64 counters;  // decode: [rows, n_kv_heads] u32, zero before and after
    Forms out;     // [rows, n_heads * head_dim]; prefill writes f32 alone
    u32 n_heads;
    u32 n_kv_heads;
    u32 key_stride;
    u32 value_stride;
    u32 block_len;
    u32 table_stride;
    u32 window;  // positions that a row sees, its own included; 0: all
    u32 splits;      // decode: of the grid; those beyond a row's positions do nothing
    u32 split_unit;  // decode: a multiple of 64
    u32 rest;
    float scale;
    float soft_cap;  // 0: none
};

// A row has up to 16 splits in decode, each of whole units of `split_unit` positions: what they are follows from that and the row's position.
constexpr u32 SPLITS_MAX = 16;
DEVICE u32 split_len(const Attention& args, u32 position) {
    return (position / (args.split_unit * SPLITS_MAX) + 1) * args.split_unit;
}
constexpr float NOTHING = -3.0e38f;

DEVICE u32 first_position(const Attention& args, u32 position) {
    return args.window == 0 || position < args.window ? 0 : position + 1 - args.window;
}

// The sink's part in a softmax: factor on the sums, and on the weights what comes on top.
DEVICE float total_weight(const Attention& args, u32 head, float maximum, float weight, float& factor) {
    factor = 1.0f;
    if (args.sinks == 0) return weight;
    const float sink = at<float>(args.sinks)[head];
    const float both = larger(maximum, sink);
    factor = exponential(maximum - both);
    return weight * factor + exponential(sink - both);
}
