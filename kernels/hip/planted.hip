// Kernels with one fault each, in the host's image alone: what the emulation must notice.
#include "portable.h"

#if ON_HOST

// out[i] = what thread i + 1 of the block wrote; out: [64] u32.
struct Planted {
    u64 out;
};

constexpr u32 PLANTED_THREADS = 64;

// As it should be.
KERNEL(planted_nothing, Planted, PLANTED_THREADS, 1) {
    SHARED(numbers, u32[PLANTED_THREADS]);
    const u32 thread = thread_index();
    numbers[thread] = thread;
    barrier();
    at_mut<u32>(args.out)[thread] = numbers[(thread + 1) % PLANTED_THREADS];
}

KERNEL(planted_missing_barrier, Planted, PLANTED_THREADS, 1) {
    SHARED(numbers, u32[PLANTED_THREADS]);
    const u32 thread = thread_index();
    numbers[thread] = thread;
    at_mut<u32>(args.out)[thread] = numbers[(thread + 1) % PLANTED_THREADS];
}

// The last warp does not come.
KERNEL(planted_divergent_barrier, Planted, PLANTED_THREADS, 1) {
    if (thread_index() < WARP) barrier();
    at_mut<u32>(args.out)[thread_index()] = 0;
}

KERNEL(planted_shared_overrun, Planted, PLANTED_THREADS, 1) {
    SHARED(numbers, u32[PLANTED_THREADS]);
    numbers[thread_index() + 1] = thread_index();
    barrier();
    at_mut<u32>(args.out)[thread_index()] = numbers[thread_index()];
}

#endif
