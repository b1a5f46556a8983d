// The non-linear functions of feed-forward networks, numbered as in launch/activation.rs.
#pragma once
#include "portable.h"

enum Activation : u32 { Silu = 0, Gelu = 1, GeluTanh = 2, Relu = 3, ReluSquared = 4, SwigluClamped = 5 };

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

// erf(x) within 2e-7: Abramowitz and Stegun, 7.1.26.
DEVICE float error_function(float x) {
    const float a = magnitude(x);
    const float t = 1.0f / (1.0f + 0.3275911f * a);
    float sum = 1.061405429f;
    sum = sum * t - 1.453152027f;
    sum = sum * t + 1.421413741f;
    sum = sum * t - 0.284496736f;
    sum = sum * t + 0.254829592f;
    const float result = 1.0f - sum * t * exponential(-a * a);
    return x < 0.0f ? -result : result;
}

DEVICE float activated(u32 activation, float x) {
    switch (activation) {
        case Silu:
            return x * sigmoid(x);
        case Gelu:
            return 0.5f * x * (1.0f + error_function(x * 0.707106781f));
        case GeluTanh: {
            const float y = 0.797884561f * (x + 0.044715f * x * x * x);
            return 0.5f * x * (1.0f + hyperbolic_tangent(y));
        }
        case Relu:
            return larger(x, 0.0f);
        case SwigluClamped: {
            const float g = smaller(x, 7.0f);
            return g * sigmoid(1.702f * g);
        }
        default: {
            const float positive = larger(x, 0.0f);
            return positive * positive;
        }
    }
}

// activation(gate) * up; gpt-oss's form is `gate * sigmoid(1.702 gate) * (up + 1)` with gate at most 7 and up within -7 .. 7.
DEVICE float gated(u32 activation, float gate, float up) {
    if (activation == SwigluClamped) {
        return activated(activation, gate) * (larger(-7.0f, smaller(7.0f, up)) + 1.0f);
    }
    return activated(activation, gate) * up;
}
