// Memory of sweeps for tests, in place of csrc/support/memory.cpp: every block is fresh, exactly as large
// as requested, full of NaN, and checked when it is released. The linker takes these definitions
// and leaves out the library's.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "guarded.h"
#include "support/memory.h"

namespace core_test {

std::atomic<long> blocks_left{1L << 40}, blocks_out{0};

}  // namespace core_test

namespace unrolled {
namespace {

constexpr std::size_t kLine = 64;

// Precedes each block; behind the block are bytes that must stay unchanged.
struct alignas(kLine) Header {
    std::size_t bytes;
};

}  // namespace

void out_of_memory() { throw std::bad_alloc(); }

// Any thread may release any block at any time.
LongLivedMemory::LongLivedMemory() : previous_(false) {}
LongLivedMemory::~LongLivedMemory() { (void)previous_; }

void* allocate_memory(Index expected) {
    if (expected < 0 || core_test::blocks_left-- <= 0) out_of_memory();
    const std::size_t bytes = static_cast<std::size_t>(expected);
    void* memory = nullptr;
    if (posix_memalign(&memory, kLine, sizeof(Header) + bytes + kLine)) out_of_memory();
    Header* const block = new (memory) Header{bytes};
    char* const data = reinterpret_cast<char*>(block + 1);
    ++core_test::blocks_out;
    std::memset(data, core_test::kPoison, bytes + kLine);
    ASAN_POISON_MEMORY_REGION(data + bytes, kLine);
    return data;
}

void release_memory(void* memory) {
    Header* const block = static_cast<Header*>(memory) - 1;
    char* const end = static_cast<char*>(memory) + block->bytes;
    ASAN_UNPOISON_MEMORY_REGION(end, kLine);
    if (!core_test::all_poison(end, kLine)) {
        std::fprintf(stderr, "failed: a sweep wrote beyond a block of %zu bytes\n", block->bytes);
        std::abort();
    }
    --core_test::blocks_out;
    std::free(block);
}

}  // namespace unrolled
