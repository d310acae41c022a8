// Memory and small helpers of the kernels. No inline function of the standard library is used here, nor
// in files that include this one: the linker keeps one copy of such a function for all builds, possibly
// with instructions that the processor lacks.
#pragma once

#include "kernels/simd.h"
#include "support/memory.h"

namespace unrolled {
namespace UNROLLED_BUILD {

template <class A>
constexpr A min(A a, A b) {
    return b < a ? b : a;
}
template <class A>
constexpr A max(A a, A b) {
    return a < b ? b : a;
}
constexpr Index divide_up(Index a, Index b) { return (a + b - 1) / b; }
constexpr Index round_up(Index a, Index to) { return divide_up(a, to) * to; }

// Memory aligned to cache lines, not initialized; for plain data.
template <class X>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(Index count) : count_(count) {
        data_ = static_cast<X*>(allocate_memory(count * static_cast<Index>(sizeof(X))));
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) : data_(other.data_), count_(other.count_) { other.data_ = nullptr; }
    Buffer& operator=(Buffer&& other) {
        X* const data = other.data_;
        const Index count = other.count_;
        other.data_ = data_;
        other.count_ = count_;
        data_ = data;
        count_ = count;
        return *this;
    }
    ~Buffer() {
        if (data_) release_memory(data_);
    }

    X* data() { return data_; }
    const X* data() const { return data_; }
    X& operator[](Index i) { return data_[i]; }
    const X& operator[](Index i) const { return data_[i]; }
    Index count() const { return count_; }

    // The buffer from an index on; null in a buffer without memory.
    X* part(Index from) { return data_ ? data_ + from : nullptr; }

private:
    X* data_ = nullptr;
    Index count_ = 0;
};

// A buffer of zeros.
template <class X>
Buffer<X> zeros(Index count) {
    Buffer<X> buffer(count);
    clear(buffer.data(), count);
    return buffer;
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
