// The scheduler behind fibers.h.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "portable.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#if WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace fibers {
namespace {

#if WITH_ASAN
constexpr size_t STACK_BYTES = 512 * 1024;
#else
constexpr size_t STACK_BYTES = 128 * 1024;
#endif
constexpr size_t GUARD_BYTES = 256;
constexpr u8 GUARD = 0xa5;
// What block memory holds before anybody writes to it: large, so that it is seen.
constexpr u8 UNDEFINED = 0x7e;

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "kernel emulation: %s\n", what.c_str());
    std::fflush(stderr);
    std::abort();
}

// ------------------------------------------------------------------ switching

#if defined(__x86_64__)
// Saves what a call must preserve on the stack, keeps the stack pointer in *from and goes on at `to`.
extern "C" void hearth_switch(void** from, void* to);
asm(R"(
.text
.globl hearth_switch
.hidden hearth_switch
.type hearth_switch,@function
hearth_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size hearth_switch, .-hearth_switch
)");
#endif

class Stack {
   public:
    Stack() {
        memory_ = mmap(nullptr, GUARD_PAGE_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory_ == MAP_FAILED) fail("no memory for the stack of a fiber");
        mprotect(memory_, GUARD_PAGE_BYTES, PROT_NONE);
    }
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    ~Stack() { munmap(memory_, GUARD_PAGE_BYTES + STACK_BYTES); }
    char* bottom() const { return static_cast<char*>(memory_) + GUARD_PAGE_BYTES; }
    char* top() const { return bottom() + STACK_BYTES; }

   private:
    static constexpr size_t GUARD_PAGE_BYTES = 4096;
    void* memory_;
};

// A flow of control with its own place to stop at.
struct Context {
#if defined(__x86_64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t context;
#endif
#if WITH_ASAN
    void* fake_stack = nullptr;
#endif
    const void* stack_bottom = nullptr;
    size_t stack_bytes = 0;
};

void enter(Context& context, const Stack& stack, void (*entry)()) {
    context.stack_bottom = stack.bottom();
    context.stack_bytes = STACK_BYTES;
#if WITH_ASAN
    context.fake_stack = nullptr;
    ASAN_UNPOISON_MEMORY_REGION(stack.bottom(), STACK_BYTES);
#endif
#if defined(__x86_64__)
    // As after a call: the return address lies at a multiple of 16, less 8.
    void** top = reinterpret_cast<void**>(stack.top()) - 1;
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    context.stack_pointer = top;
#else
    getcontext(&context.context);
    context.context.uc_stack.ss_sp = stack.bottom();
    context.context.uc_stack.ss_size = STACK_BYTES;
    context.context.uc_link = nullptr;
    makecontext(&context.context, entry, 0);
#endif
}

void go(Context& from, Context& to, [[maybe_unused]] bool from_ends) {
#if WITH_ASAN
    __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.fake_stack, to.stack_bottom, to.stack_bytes);
#endif
#if defined(__x86_64__)
    hearth_switch(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
#if WITH_ASAN
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// --------------------------------------------------------------- block memory

// Bytes between two guards.
class Guarded {
   public:
    explicit Guarded(size_t bytes) : bytes_(bytes), memory_(static_cast<u8*>(aligned_alloc(256, total()))) {
        if (memory_ == nullptr) fail("no memory for a block's shared memory");
        std::memset(memory_, GUARD, total());
        std::memset(data(), UNDEFINED, bytes_);
        poison(true);
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    ~Guarded() {
        poison(false);
        free(memory_);
    }
    u8* data() const { return memory_ + GUARD_BYTES; }
    bool is_whole() const {
        poison(false);
        const auto untouched = [](u8 byte) { return byte == GUARD; };
        return std::all_of(memory_, data(), untouched) && std::all_of(data() + bytes_, memory_ + total(), untouched);
    }

   private:
    size_t total() const { return (bytes_ + 2 * GUARD_BYTES + 255) & ~size_t{255}; }
    void poison([[maybe_unused]] bool poisoned) const {
#if WITH_ASAN
        if (poisoned) {
            ASAN_POISON_MEMORY_REGION(memory_, GUARD_BYTES);
            ASAN_POISON_MEMORY_REGION(data() + bytes_, total() - GUARD_BYTES - bytes_);
        } else {
            ASAN_UNPOISON_MEMORY_REGION(memory_, total());
        }
#endif
    }
    size_t bytes_;
    u8* memory_;
};

// -------------------------------------------------------------------- a block

struct Launch {
    const HostKernel* kernel;
    const void* args;
    u32 blocks[3];
    u32 threads;
    u32 shared_bytes;
};

enum class State : u8 { Ready, Waiting, Done };

struct Fiber {
    Context context;
    State state = State::Done;
    Group group = Group::Block;
    u32 exchanges = 0;
    u64 slots[2] = {0, 0};
};

// The order in which the fibers that may run do so.
class Order {
   public:
    explicit Order(u32 threads) : order_(threads) {
        std::iota(order_.begin(), order_.end(), 0u);
        const char* name = std::getenv("HEARTH_EMULATE_ORDER");
        const std::string chosen = name == nullptr ? "forward" : name;
        if (chosen == "reverse") {
            std::reverse(order_.begin(), order_.end());
        } else if (chosen != "forward") {
            char* end = nullptr;
            const unsigned long seed = std::strtoul(chosen.c_str(), &end, 10);
            if (chosen.empty() || *end != 0) fail("HEARTH_EMULATE_ORDER is \"" + chosen + "\": neither forward, reverse nor a number");
            random_.seed(static_cast<u32>(seed));
            shuffled_ = true;
        }
    }
    const std::vector<u32>& next_round() {
        if (shuffled_) std::shuffle(order_.begin(), order_.end(), random_);
        return order_;
    }

   private:
    std::vector<u32> order_;
    std::minstd_rand random_;
    bool shuffled_ = false;
};

// One OS thread's place to run blocks, used again from launch to launch.
class Processor {
   public:
    void run(const Launch& launch, const u32 (&block)[3]);

    const Launch* launch = nullptr;
    u32 block[3] = {0, 0, 0};
    u32 current = 0;
    std::vector<Fiber> fibers;
    std::vector<std::pair<const void*, std::unique_ptr<Guarded>>> shared;
    std::unique_ptr<Guarded> dynamic;
    Context scheduler;

   private:
    void release();
    bool release_group(Group group, u32 first, u32 count);
    void check_memory() const;

    std::vector<std::unique_ptr<Stack>> stacks_;
};

thread_local Processor* processor = nullptr;

void fiber_main() {
#if WITH_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &processor->scheduler.stack_bottom, &processor->scheduler.stack_bytes);
#endif
    Processor& here = *processor;
    here.launch->kernel->body(here.launch->args);
    here.fibers[here.current].state = State::Done;
    go(here.fibers[here.current].context, here.scheduler, true);
}

void Processor::run(const Launch& launched, const u32 (&at)[3]) {
    launch = &launched;
    std::copy(at, at + 3, block);
    dynamic = std::make_unique<Guarded>(launched.shared_bytes);
    shared.clear();
    while (stacks_.size() < launched.threads) stacks_.push_back(std::make_unique<Stack>());
    fibers.assign(launched.threads, Fiber{});
    for (u32 t = 0; t < launched.threads; ++t) {
        enter(fibers[t].context, *stacks_[t], fiber_main);
        fibers[t].state = State::Ready;
    }
    Order order(launched.threads);
    processor = this;
    const auto done = [](const Fiber& fiber) { return fiber.state == State::Done; };
    while (true) {
        for (const u32 t : order.next_round()) {
            if (fibers[t].state != State::Ready) continue;
            current = t;
            go(scheduler, fibers[t].context, false);
        }
        if (std::all_of(fibers.begin(), fibers.end(), done)) break;
        release();
    }
    check_memory();
}

// Lets every group go on whose threads have all come. No group: those who wait do so forever.
void Processor::release() {
    const u32 threads = launch->threads;
    bool any = release_group(Group::Block, 0, threads);
    for (u32 first = 0; first < threads; first += 32) any |= release_group(Group::Warp, first, std::min(32u, threads - first));
    for (u32 first = 0; first < threads; first += 64) any |= release_group(Group::Wave, first, std::min(64u, threads - first));
    if (any) return;
    const auto waits = std::find_if(fibers.begin(), fibers.end(), [](const Fiber& f) { return f.state == State::Waiting; });
    fail("divergent barrier: thread " + std::to_string(waits - fibers.begin()) + " waits at one that not all threads of its " +
         (waits->group == Group::Block ? "block" : "warp") + " reach");
}

bool Processor::release_group(Group group, u32 first, u32 count) {
    const auto begin = fibers.begin() + first;
    const auto here = [group](const Fiber& f) { return f.state == State::Waiting && f.group == group; };
    if (!std::all_of(begin, begin + count, here)) return false;
    std::for_each(begin, begin + count, [](Fiber& f) { f.state = State::Ready; });
    return true;
}

void Processor::check_memory() const {
    const auto whole = [](const auto& entry) { return entry.second->is_whole(); };
    if (!dynamic->is_whole() || !std::all_of(shared.begin(), shared.end(), whole)) fail("shared memory was written past its end");
}

// Processors that no launch uses.
std::mutex idle_lock;
std::vector<std::unique_ptr<Processor>>& idle() {
    static auto* processors = new std::vector<std::unique_ptr<Processor>>;
    return *processors;
}

void run_blocks(const Launch& launch, std::atomic<u64>& next) {
    std::unique_ptr<Processor> mine;
    {
        const std::lock_guard<std::mutex> held(idle_lock);
        if (!idle().empty()) {
            mine = std::move(idle().back());
            idle().pop_back();
        }
    }
    if (!mine) mine = std::make_unique<Processor>();
    const u64 total = u64{launch.blocks[0]} * launch.blocks[1] * launch.blocks[2];
    for (u64 index = next++; index < total; index = next++) {
        const u32 block[3] = {static_cast<u32>(index % launch.blocks[0]), static_cast<u32>(index / launch.blocks[0] % launch.blocks[1]),
                              static_cast<u32>(index / launch.blocks[0] / launch.blocks[1])};
        mine->run(launch, block);
    }
    const std::lock_guard<std::mutex> held(idle_lock);
    idle().push_back(std::move(mine));
}

u32 group_size(Group group) { return group == Group::Warp ? 32 : group == Group::Wave ? 64 : 1u << 30; }

}  // namespace

u32 thread_index() { return processor->current; }
u32 block_index(u32 axis) { return processor->block[axis]; }

void wait(Group group) {
    Fiber& fiber = processor->fibers[processor->current];
    fiber.group = group;
    fiber.state = State::Waiting;
    go(fiber.context, processor->scheduler, false);
}

u64 exchange(Group group, u64 value, u32 from) {
    const u32 thread = processor->current;
    const u32 size = group_size(group);
    if (from / size != thread / size || from >= processor->fibers.size()) fail("a thread reads from outside of its group");
    // Two slots: whoever runs ahead fills the other one, and cannot come back to this before all have read it.
    const u32 slot = processor->fibers[thread].exchanges++ % 2;
    processor->fibers[thread].slots[slot] = value;
    wait(group);
    return processor->fibers[from].slots[slot];
}

void gather(Group group, u64 value, u32 first, u32 count, u64* out) {
    exchange(group, value, first);
    const u32 slot = (processor->fibers[processor->current].exchanges - 1) % 2;
    for (u32 i = 0; i < count; ++i) out[i] = processor->fibers[first + i].slots[slot];
}

void* shared(const void* key, size_t bytes) {
    for (const auto& [known, memory] : processor->shared)
        if (known == key) return memory->data();
    processor->shared.emplace_back(key, std::make_unique<Guarded>(bytes));
    return processor->shared.back().second->data();
}

void* dynamic_shared() { return processor->dynamic->data(); }

}  // namespace fibers

extern "C" __attribute__((visibility("default"))) void hearth_run(const HostKernel* kernel, const void* args, const u32* blocks, const u32* threads,
                                                                  u32 shared_bytes) {
    const fibers::Launch launch{kernel, args, {blocks[0], blocks[1], blocks[2]}, threads[0] * threads[1] * threads[2], shared_bytes};
    if (launch.threads == 0 || launch.threads > kernel->threads_max)
        fibers::fail("a block of " + std::to_string(launch.threads) + " threads, at most " + std::to_string(kernel->threads_max) + " were compiled for");
    const u64 total = u64{blocks[0]} * blocks[1] * blocks[2];
    std::atomic<u64> next{0};
    const u64 helpers = std::min<u64>(std::thread::hardware_concurrency(), total / 8);
    std::vector<std::thread> threads_of_launch;
    for (u64 i = 1; i < helpers; ++i) threads_of_launch.emplace_back([&] { fibers::run_blocks(launch, next); });
    fibers::run_blocks(launch, next);
    for (auto& thread : threads_of_launch) thread.join();
}
