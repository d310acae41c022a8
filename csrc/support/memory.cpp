// Memory that sweeps reuse. Small blocks come from an arena of each thread, which is empty again when all of
// them are released; large ones from a pool of all threads. A thread that finds the pool busy bypasses it.
#include "support/memory.h"

#include <pthread.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <atomic>
#include <cstring>
#include <new>

namespace unrolled {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kMaxSmall = 16 * 1024;               // bytes of a small block
constexpr std::size_t kArenaBytes = 256 * 1024;            // of an arena
constexpr std::size_t kHugePage = std::size_t(2) << 20;    // bytes of a large page
constexpr std::size_t kMaxPooled = std::size_t(64) << 20;  // bytes in the pool

// Precedes each block.
struct alignas(kLine) Header {
    std::size_t bytes;
    Header* next;
};

// Memory of one thread: blocks are allocated one behind the other.
class ThreadArena {
public:
    ~ThreadArena() { free(memory_); }

    Header* allocate(std::size_t bytes) {
        if (!memory_) memory_ = static_cast<char*>(aligned_alloc(kLine, kArenaBytes));
        if (!memory_ || used_ + sizeof(Header) + bytes > kArenaBytes) return nullptr;
        Header* const block = reinterpret_cast<Header*>(memory_ + used_);
        used_ += sizeof(Header) + bytes;
        ++in_use_;
        block->bytes = 0;
        return block;
    }

    void release() {
        if (--in_use_ == 0) used_ = 0;
    }

private:
    char* memory_ = nullptr;
    std::size_t used_ = 0, in_use_ = 0;
};

thread_local ThreadArena arena;
thread_local bool long_lived = false;  // see LongLivedMemory

std::atomic_flag pool_busy = ATOMIC_FLAG_INIT;
Header* pool_head = nullptr;
std::size_t pooled_bytes = 0;

// A thread of the parent may have been using the pool at the fork: then its list may be inconsistent.
const int fork_handler = pthread_atfork(nullptr, nullptr, [] {
    if (pool_busy.test_and_set(std::memory_order_acquire)) {
        pool_head = nullptr;
        pooled_bytes = 0;
    }
    pool_busy.clear(std::memory_order_release);
});

// Removes the smallest block that fits and is not much too large.
Header* take_from_pool(std::size_t bytes) {
    Header** best = nullptr;
    for (Header** at = &pool_head; *at; at = &(*at)->next)
        if ((*at)->bytes >= bytes && (*at)->bytes <= 2 * bytes && (!best || (*at)->bytes < (*best)->bytes))
            best = at;
    if (!best) return nullptr;
    Header* const block = *best;
    *best = block->next;
    pooled_bytes -= block->bytes;
    return block;
}

// Large weights are read as a whole at each step: large pages save address translations.
void* allocate_from_system(std::size_t bytes) {
    const std::size_t align = bytes < kHugePage ? kLine : kHugePage;
    const std::size_t rounded = (bytes + align - 1) / align * align;
    void* const block = aligned_alloc(align, rounded);
    if (!block) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (bytes >= kHugePage) madvise(block, rounded, MADV_HUGEPAGE);
#endif
    return block;
}

}  // namespace

LongLivedMemory::LongLivedMemory() : previous_(long_lived) { long_lived = true; }
LongLivedMemory::~LongLivedMemory() { long_lived = previous_; }

void out_of_memory() { throw std::bad_alloc(); }

void* allocate_memory(Index bytes_requested) {
    if (bytes_requested < 0) throw std::bad_alloc();
    const std::size_t bytes = (static_cast<std::size_t>(bytes_requested) + 2 * kLine - 1) / kLine * kLine;
    Header* block = bytes <= kMaxSmall && !long_lived ? arena.allocate(bytes) : nullptr;
    if (bytes > kMaxSmall && !pool_busy.test_and_set(std::memory_order_acquire)) {
        block = take_from_pool(bytes);
        pool_busy.clear(std::memory_order_release);
    }
    if (!block) {
        block = static_cast<Header*>(allocate_from_system(sizeof(Header) + bytes));
        block->bytes = bytes;
    }
#ifdef UNROLLED_POISON
    std::memset(block + 1, 0xff, bytes);  // NaN, so that reads of it are noticed
#endif
    return block + 1;
}

void release_memory(void* memory) {
    Header* const block = static_cast<Header*>(memory) - 1;
    if (block->bytes == 0) return arena.release();
    if (block->bytes > kMaxSmall && !pool_busy.test_and_set(std::memory_order_acquire)) {
        const bool room = pooled_bytes + block->bytes <= kMaxPooled;
        if (room) {
            block->next = pool_head;
            pool_head = block;
            pooled_bytes += block->bytes;
        }
        pool_busy.clear(std::memory_order_release);
        if (room) return;
    }
    free(block);
}

}  // namespace unrolled
