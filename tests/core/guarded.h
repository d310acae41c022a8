// Arrays of exactly the size that a call gets, between guards. All bits of guards and of arrays to write are
// ones, that is NaN.
#pragma once

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace core_test {

constexpr unsigned char kPoison = 0xff;

// With guarded memory: blocks that may still be allocated, and those in use.
extern std::atomic<long> blocks_left, blocks_out;

inline bool all_poison(const void* memory, std::size_t bytes) {
    const unsigned char* p = static_cast<const unsigned char*>(memory);
    for (std::size_t k = 0; k < bytes; ++k)
        if (p[k] != kPoison) return false;
    return true;
}

template <class T>
class Guarded {
public:
    explicit Guarded(std::size_t count) : bytes_(count * sizeof(T)) {
        memory_ = static_cast<char*>(std::malloc(kFront + bytes_ + kBack));
        if (!memory_) throw std::bad_alloc();
        std::memset(memory_, kPoison, kFront + bytes_ + kBack);
        ASAN_POISON_MEMORY_REGION(memory_, kFront);
        ASAN_POISON_MEMORY_REGION(memory_ + kFront + bytes_, kBack);
    }
    // An input, which must be unchanged afterwards.
    explicit Guarded(const std::vector<double>& values) : Guarded(values.size()) {
        for (std::size_t k = 0; k < values.size(); ++k) data()[k] = static_cast<T>(values[k]);
        keep();
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    ~Guarded() {
        open();
        std::free(memory_);
    }

    // Aligned to its numbers only.
    T* data() { return reinterpret_cast<T*>(memory_ + kFront); }
    std::size_t count() const { return bytes_ / sizeof(T); }

    // From here on the numbers must not change.
    void keep() { before_.assign(memory_ + kFront, memory_ + kFront + bytes_); }

    bool unchanged() const {
        return before_.empty() || std::memcmp(before_.data(), memory_ + kFront, bytes_) == 0;
    }

    bool intact() const {
        open();
        const bool whole = all_poison(memory_, kFront) && all_poison(memory_ + kFront + bytes_, kBack);
        ASAN_POISON_MEMORY_REGION(memory_, kFront);
        ASAN_POISON_MEMORY_REGION(memory_ + kFront + bytes_, kBack);
        return whole;
    }

    std::vector<double> values() { return std::vector<double>(data(), data() + count()); }

private:
    static constexpr std::size_t kFront = 128 + sizeof(T), kBack = 192;

    void open() const { ASAN_UNPOISON_MEMORY_REGION(memory_, kFront + bytes_ + kBack); }

    char* memory_;
    std::size_t bytes_;
    std::vector<char> before_;
};

}  // namespace core_test
