// What every kernel may use: one small vocabulary over three compilers' targets.
//
//   clang -x hip   for gfx90a gfx942 gfx1030 gfx1100 gfx1201 (no ROCm header)
//   clang -x cuda  for sm_90                                  (no CUDA header)
//   clang++        for the host: fibers.h gives a block's threads as fibers
//
// Rules that keep one source right everywhere:
// - Lanes: a logical warp is 32 lanes, also where the hardware's wave has 64. Only matrix_core.h knows of waves.
// - Every thread of a warp takes part in a shuffle, every thread of a block in a barrier: no early return before either.
// - A kernel has one parameter, a struct of plain numbers and addresses, which Rust mirrors with repr(C).
// - Sums have one order: it follows from lengths and types, never from the number of rows or blocks in flight.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef _Float16 f16;

typedef u32 u32x2 __attribute__((ext_vector_type(2)));
typedef u32 u32x4 __attribute__((ext_vector_type(4)));
typedef float f32x2 __attribute__((ext_vector_type(2)));
typedef float f32x4 __attribute__((ext_vector_type(4)));
typedef f16 f16x2 __attribute__((ext_vector_type(2)));
typedef f16 f16x4 __attribute__((ext_vector_type(4)));
typedef f16 f16x8 __attribute__((ext_vector_type(8)));

#if defined(__HIP_DEVICE_COMPILE__) || (defined(__HIP__) && defined(__AMDGCN__))
#define ON_AMD 1
#elif defined(__CUDA__) && defined(__NVPTX__)
#define ON_NVIDIA 1
#else
#define ON_HOST 1
#endif

constexpr u32 WARP = 32;

// For lambdas: what they capture stays in registers.
#define INLINE __attribute__((always_inline))

// ---------------------------------------------------------------- GPU targets
#if ON_AMD || ON_NVIDIA

#define DEVICE static inline __attribute__((device, always_inline))
#define DEVICE_MEMBER inline __attribute__((device, always_inline))

// Defines a kernel. `threads` is the number of threads of its blocks: a launch never asks for more. `blocks` is how many blocks should share a multiprocessor: registers are rationed for it. AMD's
// compiler rations by itself.
#if ON_AMD
#define KERNEL(name, Args, threads, blocks)                                                                            \
    extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, threads))) void name(const Args args)
#else
#define KERNEL(name, Args, threads, blocks)                                                                            \
    extern "C" __attribute__((global)) __attribute__((launch_bounds(threads, blocks))) void name(const Args args)
#endif

// Block memory of a type, known when the kernel is compiled; what it holds at first is undefined.
#define SHARED(name, ...)                                                                                              \
    using name##_type = __VA_ARGS__;                                                                                   \
    static __attribute__((shared)) __attribute__((aligned(16))) u8 name##_bytes[sizeof(name##_type)];                  \
    name##_type& name = *reinterpret_cast<name##_type*>(name##_bytes)
// Block memory whose size the launch gives.
#define DYNAMIC_SHARED(name, Type)                                                                                     \
    extern __attribute__((shared)) __attribute__((aligned(16))) u8 dynamic_shared_bytes[];                             \
    Type* name = reinterpret_cast<Type*>(dynamic_shared_bytes)

#if ON_AMD

DEVICE u32 thread_index() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE u32 block_x() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE u32 block_y() { return __builtin_amdgcn_workgroup_id_y(); }
DEVICE u32 block_z() { return __builtin_amdgcn_workgroup_id_z(); }

DEVICE void barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
// Orders the lanes of a warp: what they wrote to block memory before, all of them see after.
DEVICE void warp_barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
// Makes this thread's writes to device memory visible to other blocks.
DEVICE void device_fence() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent"); }

// Lane of the hardware's wave, which may hold two warps.
DEVICE u32 wave_lane() { return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u)); }

DEVICE u32 shuffle_bits(u32 value, u32 lane) {
    const u32 from = (wave_lane() & ~(WARP - 1)) | (lane & (WARP - 1));
    return static_cast<u32>(__builtin_amdgcn_ds_bpermute(static_cast<i32>(from * 4), static_cast<i32>(value)));
}

DEVICE i32 dot4(u32 a, u32 b, i32 sum) {
#if defined(__gfx1100__) || defined(__gfx1201__)
    return __builtin_amdgcn_sudot4(true, static_cast<i32>(a), true, static_cast<i32>(b), sum, false);
#else
    return __builtin_amdgcn_sdot4(static_cast<i32>(a), static_cast<i32>(b), sum, false);
#endif
}
DEVICE float dot2(f16x2 a, f16x2 b, float sum) { return __builtin_amdgcn_fdot2(a, b, sum, false); }
// Bytes of `low` (0..3) and `high` (4..7), chosen by the low three bits of each byte of `selector`.
DEVICE u32 pick_bytes(u32 low, u32 high, u32 selector) { return __builtin_amdgcn_perm(high, low, selector); }

DEVICE float exp2_fast(float x) { return __builtin_amdgcn_exp2f(x); }
DEVICE float log2_fast(float x) { return __builtin_amdgcn_logf(x); }
DEVICE float reciprocal_root(float x) { return 1.0f / __builtin_sqrtf(x); }

#else // ON_NVIDIA

DEVICE u32 thread_index() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE u32 block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE u32 block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE u32 block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }

DEVICE void barrier() { __syncthreads(); }
DEVICE void warp_barrier() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }
DEVICE void device_fence() { asm volatile("membar.gl;" ::: "memory"); }

DEVICE u32 shuffle_bits(u32 value, u32 lane) {
    u32 out;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(out) : "r"(value), "r"(lane));
    return out;
}

DEVICE i32 dot4(u32 a, u32 b, i32 sum) {
    i32 out;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
    return out;
}
DEVICE u32 pick_bytes(u32 low, u32 high, u32 selector) {
    // One nibble per byte of the selector, where the instruction wants them side by side.
    const u32 pairs = (selector | selector >> 4) & 0x00ff00ffu;
    const u32 nibbles = (pairs | pairs >> 8) & 0xffffu;
    u32 out;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(low), "r"(high), "r"(nibbles));
    return out;
}

// Where block memory lies in its own space.
DEVICE u32 shared_address(const void* pointer) {
    return static_cast<u32>(reinterpret_cast<u64>((const __attribute__((address_space(3))) void*)pointer));
}
// Copies 16 bytes from device to block memory, aside of what the thread does next.
DEVICE void copy_aside(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
// The same where it is `wanted`, and zeros where it is not: then `from` is not read.
DEVICE void copy_aside_if(bool wanted, void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(wanted ? 16 : 0) : "memory");
}
// Waits until all copies of this thread are done; a barrier shows them to others.
DEVICE void wait_for_copies() { asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory"); }

DEVICE float exp2_fast(float x) {
    float out;
    asm("ex2.approx.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
DEVICE float log2_fast(float x) {
    float out;
    asm("lg2.approx.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
DEVICE float reciprocal_root(float x) {
    float root;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(root) : "f"(x));
    return 1.0f / root;
}

#endif

// Reads what the multiprocessor will not need again: weights pass its cache by.
template <typename T>
DEVICE T load_once(const T* from) {
#if ON_NVIDIA
    T out;
    if constexpr (sizeof(T) == 16) {
        asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
            : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
            : "l"(from));
    } else if constexpr (sizeof(T) == 8) {
        asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(out[0]), "=r"(out[1]) : "l"(from));
    } else {
        out = *from;
    }
    return out;
#else
    return __builtin_nontemporal_load(from);
#endif
}

// Adds to a counter in device memory that blocks share, and returns what it held before.
DEVICE u32 count_up(u32* counter) { return __atomic_fetch_add(counter, 1u, __ATOMIC_SEQ_CST); }

#if ON_AMD
DEVICE void copy_aside(void* to, const void* from) { *static_cast<u32x4*>(to) = *static_cast<const u32x4*>(from); }
DEVICE void copy_aside_if(bool wanted, void* to, const void* from) {
    if (wanted) {
        copy_aside(to, from);
    } else {
        *static_cast<u32x4*>(to) = u32x4{0, 0, 0, 0};
    }
}
DEVICE void wait_for_copies() {}
#endif

// --------------------------------------------------------------------- host
#else
#include "fibers.h"
#endif

// ------------------------------------------------------------ built on those

template <typename To, typename From>
DEVICE To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From), "a cast of bits keeps their number");
    return __builtin_bit_cast(To, from);
}

template <typename T>
DEVICE T smaller(T a, T b) {
    return a < b ? a : b;
}
template <typename T>
DEVICE T larger(T a, T b) {
    return a > b ? a : b;
}

DEVICE u32 lane_index() { return thread_index() & (WARP - 1); }
DEVICE u32 warp_index() { return thread_index() / WARP; }

// `value` as another lane of the warp has it.
template <typename T>
DEVICE T shuffle(T value, u32 lane) {
    return bit_cast<T>(shuffle_bits(bit_cast<u32>(value), lane));
}

// Sum over the lanes of a warp: a butterfly, so every lane ends with the same bits.
template <typename T>
DEVICE T warp_sum(T value) {
#pragma unroll
    for (u32 step = WARP / 2; step > 0; step /= 2) value += shuffle(value, lane_index() ^ step);
    return value;
}
DEVICE float warp_max(float value) {
#pragma unroll
    for (u32 step = WARP / 2; step > 0; step /= 2) value = larger(value, shuffle(value, lane_index() ^ step));
    return value;
}

// Sum over a block of `warps` warps, the same bits in every thread. `partial`: `[warps]` of block memory that nothing else uses until the next barrier.
template <u32 warps>
DEVICE float block_sum(float value, float* partial) {
    value = warp_sum(value);
    if (lane_index() == 0) partial[warp_index()] = value;
    barrier();
    float sum = 0.0f;
#pragma unroll
    for (u32 w = 0; w < warps; ++w) sum += partial[w];
    return sum;
}
template <u32 warps>
DEVICE float block_max(float value, float* partial) {
    value = warp_max(value);
    if (lane_index() == 0) partial[warp_index()] = value;
    barrier();
    float max = partial[0];
#pragma unroll
    for (u32 w = 1; w < warps; ++w) max = larger(max, partial[w]);
    return max;
}

DEVICE float magnitude(float x) { return bit_cast<float>(bit_cast<u32>(x) & 0x7fffffffu); }
DEVICE bool is_finite(float x) { return (bit_cast<u32>(x) & 0x7f800000u) != 0x7f800000u; }

// Largest of NaN and a number is NaN: what must not hide in a maximum.
DEVICE float nan_if_not_finite(float x) { return x * 0.0f; }

// Nearest whole number, ties to even, for |x| < 2^22.
DEVICE i32 round_to_int(float x) { return bit_cast<i32>(x + 12582912.0f) - bit_cast<i32>(12582912.0f); }

// exp(x): the exponent of two is split so that its rounding does not grow with |x|. Good to about 2 units in the last place.
DEVICE float exponential(float x) {
    constexpr float LOG2_E = 1.44269502f;
    constexpr float LOG2_E_REST = 1.92596299e-8f;
    // Far below zero all is zero, and products stay finite. (NaN is not below.)
    x = x < -200.0f ? -200.0f : x;
    const float whole = x * LOG2_E;
    const float rest = __builtin_fmaf(x, LOG2_E, -whole) + x * LOG2_E_REST;
    const float power = exp2_fast(whole);
    // exp2(whole + rest) = exp2(whole) * (1 + rest * ln 2), to first order; infinity stays.
    return is_finite(power) ? __builtin_fmaf(power, rest * 0.693147182f, power) : power;
}
// exp(x) with the rounding of x * log2(e) in it: where the result is rounded to f16 anyway.
DEVICE float exponential_fast(float x) { return exp2_fast(x * 1.44269502f); }
// tanh(x) = 1 - 2 / (exp(2x) + 1), and x itself near zero, where that would lose digits.
DEVICE float hyperbolic_tangent(float x) {
    const float square = x * x;
    if (square < 0.01f) return x * (1.0f - square * (0.333333333f - square * (0.133333333f - square * 0.053968254f)));
    return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f);
}
DEVICE float logarithm(float x) { return log2_fast(x) * 0.693147182f; }

DEVICE float f16_to_f32(u16 bits) { return static_cast<float>(bit_cast<f16>(bits)); }
DEVICE u16 f32_to_f16(float x) { return bit_cast<u16>(static_cast<f16>(x)); }
DEVICE float bf16_to_f32(u16 bits) { return bit_cast<float>(static_cast<u32>(bits) << 16); }

// What lies at an address of device memory. AMD's compiler is told which memory that is: it else allows for block memory at each access.
#if ON_AMD
#define IN_DEVICE_MEMORY __attribute__((address_space(1)))
#else
#define IN_DEVICE_MEMORY
#endif
template <typename T>
DEVICE const T* at(u64 address) {
    return (const T*)reinterpret_cast<const IN_DEVICE_MEMORY T*>(address);
}
template <typename T>
DEVICE T* at_mut(u64 address) {
    return (T*)reinterpret_cast<IN_DEVICE_MEMORY T*>(address);
}
