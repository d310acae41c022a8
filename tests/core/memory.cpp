// The memory of sweeps: blocks are aligned, do not overlap, and are reused.
#include <cstring>
#include <new>

#include "suite.h"
#include "support/memory.h"

namespace core_test {

void check_memory(Checks& checks) {
    Random random(1);
    struct Block {
        unsigned char* data;
        Index bytes;
        unsigned char mark;
    };
    std::vector<Block> blocks;
    for (int round = 0; round < 4000; ++round) {
        if (random.coin() || blocks.empty()) {
            const Index bytes = random.below(random.coin() ? 300 : 60000);
            const auto mark = static_cast<unsigned char>(random.below(256));
            auto* const data = static_cast<unsigned char*>(unrolled::allocate_memory(bytes));
            checks.that(reinterpret_cast<std::uintptr_t>(data) % 64 == 0, "a block is not aligned");
            std::memset(data, mark, static_cast<std::size_t>(bytes));
            blocks.push_back({data, bytes, mark});
        } else {
            const std::size_t k = random.place(blocks.size());
            bool whole = true;
            for (Index i = 0; i < blocks[k].bytes; ++i) whole = whole && blocks[k].data[i] == blocks[k].mark;
            checks.that(whole, "two blocks overlap");
            unrolled::release_memory(blocks[k].data);
            blocks[k] = blocks.back();
            blocks.pop_back();
        }
    }
    for (const Block& block : blocks) unrolled::release_memory(block.data);
    bool refused = false;
    try {
        unrolled::allocate_memory(-1);
    } catch (const std::bad_alloc&) {
        refused = true;
    }
    checks.that(refused, "a block of negative size");
}

}  // namespace core_test
