// Memory that sweeps use again and again. Small blocks come from a piece that each thread has, which
// is empty again when all of them are back; large ones from a pool for all threads: who finds it busy
// does without.
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
constexpr std::size_t kSmall = 16 * 1024;             // from here on blocks are large
constexpr std::size_t kPiece = 256 * 1024;            // of a thread, for small ones
constexpr std::size_t kHuge = std::size_t(2) << 20;    // a large page
constexpr std::size_t kLimit = std::size_t(64) << 20;  // bytes that wait in the pool

// Stands before each block.
struct alignas(kLine) Header {
    std::size_t bytes;
    Header* next;
};

// A thread's piece: blocks are cut from it one after the other.
class Piece {
public:
    ~Piece() { free(memory_); }

    Header* cut(std::size_t bytes) {
        if (!memory_) memory_ = static_cast<char*>(aligned_alloc(kLine, kPiece));
        if (!memory_ || used_ + sizeof(Header) + bytes > kPiece) return nullptr;
        Header* const block = reinterpret_cast<Header*>(memory_ + used_);
        used_ += sizeof(Header) + bytes;
        ++out_;
        block->bytes = 0;
        return block;
    }

    void back() {
        if (--out_ == 0) used_ = 0;
    }

private:
    char* memory_ = nullptr;
    std::size_t used_ = 0, out_ = 0;
};

thread_local Piece piece;
thread_local bool lasting = false;  // what is taken now is kept beyond the call

std::atomic_flag busy = ATOMIC_FLAG_INIT;
Header* first = nullptr;
std::size_t waiting = 0;

// A thread of the parent may have been at the pool when it was copied: then its list may be torn.
const int repairs = pthread_atfork(nullptr, nullptr, [] {
    if (busy.test_and_set(std::memory_order_acquire)) {
        first = nullptr;
        waiting = 0;
    }
    busy.clear(std::memory_order_release);
});

// The smallest block that waits, fits, and is not much too large.
Header* find(std::size_t bytes) {
    Header** best = nullptr;
    for (Header** at = &first; *at; at = &(*at)->next)
        if ((*at)->bytes >= bytes && (*at)->bytes <= 2 * bytes &&
            (!best || (*at)->bytes < (*best)->bytes))
            best = at;
    if (!best) return nullptr;
    Header* const found = *best;
    *best = found->next;
    waiting -= found->bytes;
    return found;
}

// Weights of megabytes are read from end to end at each step: large pages spare the processor the
// search for 4 KiB ones.
void* from_system(std::size_t bytes) {
    const std::size_t align = bytes < kHuge ? kLine : kHuge;
    const std::size_t whole = (bytes + align - 1) / align * align;
    void* const found = aligned_alloc(align, whole);
    if (!found) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (bytes >= kHuge) madvise(found, whole, MADV_HUGEPAGE);
#endif
    return found;
}

}  // namespace

Lasting::Lasting() : before_(lasting) { lasting = true; }
Lasting::~Lasting() { lasting = before_; }

void out_of_memory() { throw std::bad_alloc(); }

void* take_memory(Index wanted) {
    if (wanted < 0) throw std::bad_alloc();
    const std::size_t bytes = (static_cast<std::size_t>(wanted) + 2 * kLine - 1) / kLine * kLine;
    Header* block = bytes <= kSmall && !lasting ? piece.cut(bytes) : nullptr;
    if (bytes > kSmall && !busy.test_and_set(std::memory_order_acquire)) {
        block = find(bytes);
        busy.clear(std::memory_order_release);
    }
    if (!block) {
        block = static_cast<Header*>(from_system(sizeof(Header) + bytes));
        block->bytes = bytes;
    }
#ifdef UNROLLED_POISON
    std::memset(block + 1, 0xff, bytes);  // NaN, to be noticed where it is read
#endif
    return block + 1;
}

void give_memory(void* memory) {
    Header* const block = static_cast<Header*>(memory) - 1;
    if (block->bytes == 0) return piece.back();
    if (block->bytes > kSmall && !busy.test_and_set(std::memory_order_acquire)) {
        const bool room = waiting + block->bytes <= kLimit;
        if (room) {
            block->next = first;
            first = block;
            waiting += block->bytes;
        }
        busy.clear(std::memory_order_release);
        if (room) return;
    }
    free(block);
}

}  // namespace unrolled
