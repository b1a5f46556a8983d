// A product of weights with rows, as kernels take it that run several in one launch.
#pragma once
#include "portable.h"

// out[r, o] = sum_i weights[o, i] * x[r, i] + bias[o] + add[r, o]
struct Product {
    u64 weights;  // [n_out, n_in]
    u64 bias;     // [n_out] f32 or 0
    u64 add;      // [rows, n_out] f32 or 0; may be `out`
    u64 out;      // [rows, n_out] f32
    u32 type;
    u32 n_out;
    u32 first_block;  // of the grid's x
    u32 rest;
};

// The product that a block works on.
DEVICE Product product_of_block(const Product (&products)[3], u32 n_products) {
    Product product = products[0];
#pragma unroll
    for (u32 p = 1; p < 3; ++p)
        if (p < n_products && block_x() >= products[p].first_block) product = products[p];
    return product;
}
