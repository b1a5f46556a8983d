// The host's stand-in for a GPU: a thread of a block is a fiber, a block runs on one thread of the process.
//
// Barriers and shuffles are real: a fiber that reaches one waits until its block, wave or warp has come. Fibers run in an order that HEARTH_EMULATE_ORDER chooses: "forward", "reverse", or a
// number that seeds a new order for every round. A missing barrier gives wrong numbers in at least one of them, a barrier that only some threads reach ends the process with a message.
// Block memory has a guard on both sides: written over, it ends the process when the block does; under the address sanitizer, at the write.
//
// What a host library of kernels exports, and all that its loader needs:
//   hearth_kernel_NAME  a HostKernel for each kernel
//   hearth_run          runs one launch and returns when it is complete; callable from any thread
#pragma once

#include <cstddef>
#include <cstdint>

#define DEVICE static inline __attribute__((always_inline))
#define DEVICE_MEMBER inline __attribute__((always_inline))

// A kernel that the loader found by name.
struct HostKernel {
    void (*body)(const void* args);
    u32 args_bytes;   // size of the one struct that the kernel takes
    u32 threads_max;  // threads of a block, at most
};

extern "C" void hearth_run(const HostKernel* kernel, const void* args, const u32* blocks, const u32* threads, u32 shared_bytes);

#define KERNEL(name, Args, threads, blocks)                                                                            \
    static void name##_body(const Args& args);                                                                         \
    extern "C" __attribute__((visibility("default"))) const HostKernel hearth_kernel_##name = {                        \
        [](const void* args) { name##_body(*static_cast<const Args*>(args)); }, sizeof(Args), threads};                \
    static void name##_body(const Args& args)

namespace fibers {

// Who wait for one another: 32 threads, the 64 of a CDNA wave, the block.
enum class Group : u32 { Warp, Wave, Block };

u32 thread_index();
u32 block_index(u32 axis);
// Returns when all threads of the group have called it.
void wait(Group group);
// Gives `value` to the group and returns what thread `from` of the block, one of the group, gave in the same exchange.
u64 exchange(Group group, u64 value, u32 from);
// As exchange, with the values of `count` threads of the group.
void gather(Group group, u64 value, u32 first, u32 count, u64* out);
// Block memory: the same for all threads of the block that ask with the same key.
void* shared(const void* key, size_t bytes);
void* dynamic_shared();

}  // namespace fibers

#define SHARED(name, ...)                                                                                              \
    using name##_type = __VA_ARGS__;                                                                                   \
    static const char name##_key = 0;                                                                                  \
    name##_type& name = *static_cast<name##_type*>(fibers::shared(&name##_key, sizeof(name##_type)))
#define DYNAMIC_SHARED(name, Type) Type* name = static_cast<Type*>(fibers::dynamic_shared())

DEVICE u32 thread_index() { return fibers::thread_index(); }
DEVICE u32 block_x() { return fibers::block_index(0); }
DEVICE u32 block_y() { return fibers::block_index(1); }
DEVICE u32 block_z() { return fibers::block_index(2); }

DEVICE void barrier() { fibers::wait(fibers::Group::Block); }
DEVICE void warp_barrier() { fibers::wait(fibers::Group::Warp); }
DEVICE void device_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }


DEVICE u32 shuffle_bits(u32 value, u32 lane) {
    const u32 from = (fibers::thread_index() & ~(WARP - 1)) | (lane & (WARP - 1));
    return static_cast<u32>(fibers::exchange(fibers::Group::Warp, value, from));
}
DEVICE i32 dot4(u32 a, u32 b, i32 sum) {
    for (u32 i = 0; i < 4; ++i)
        sum += static_cast<i32>(static_cast<i8>(a >> 8 * i)) * static_cast<i32>(static_cast<i8>(b >> 8 * i));
    return sum;
}
DEVICE float dot2(f16x2 a, f16x2 b, float sum) {
    for (u32 i = 0; i < 2; ++i) sum = __builtin_fmaf(static_cast<float>(a[i]), static_cast<float>(b[i]), sum);
    return sum;
}
DEVICE u32 pick_bytes(u32 low, u32 high, u32 selector) {
    const u64 both = static_cast<u64>(high) << 32 | low;
    u32 out = 0;
    for (u32 i = 0; i < 4; ++i) out |= static_cast<u32>(both >> 8 * (selector >> 8 * i & 7) & 0xff) << 8 * i;
    return out;
}
DEVICE float exp2_fast(float x) { return __builtin_exp2f(x); }
DEVICE float log2_fast(float x) { return __builtin_log2f(x); }
DEVICE float reciprocal_root(float x) { return 1.0f / __builtin_sqrtf(x); }
DEVICE u32 count_up(u32* counter) { return __atomic_fetch_add(counter, 1u, __ATOMIC_SEQ_CST); }
template <typename T>
DEVICE T load_once(const T* from) {
    return *from;
}
DEVICE void copy_aside(void* to, const void* from) { *static_cast<u32x4*>(to) = *static_cast<const u32x4*>(from); }
DEVICE void copy_aside_if(bool wanted, void* to, const void* from) { *static_cast<u32x4*>(to) = wanted ? *static_cast<const u32x4*>(from) : u32x4{0, 0, 0, 0}; }
DEVICE void wait_for_copies() {}
