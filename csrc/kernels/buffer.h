// Memory and small helpers for the kernels. Nothing here, nor in what includes it, is an inline
// function of the standard library: the linker keeps one copy of those for all builds, and it might
// be the one with instructions that the processor lacks.
#pragma once

#include "support/memory.h"
#include "kernels/simd.h"

namespace unrolled {
namespace UNROLLED_BUILD {

template <class A>
constexpr A least(A a, A b) {
    return b < a ? b : a;
}
template <class A>
constexpr A most(A a, A b) {
    return a < b ? b : a;
}
constexpr Index divide_up(Index a, Index b) { return (a + b - 1) / b; }
constexpr Index round_up(Index a, Index to) { return divide_up(a, to) * to; }

// Memory aligned to a cache line; not initialised, and without constructors: for plain data.
template <class X>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(Index count) : count_(count) {
        data_ = static_cast<X*>(take_memory(count * static_cast<Index>(sizeof(X))));
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
        if (data_) give_memory(data_);
    }

    X* data() { return data_; }
    const X* data() const { return data_; }
    X& operator[](Index i) { return data_[i]; }
    const X& operator[](Index i) const { return data_[i]; }
    Index count() const { return count_; }

    // From a number on; nowhere in a buffer without memory.
    X* part(Index from) { return data_ ? data_ + from : nullptr; }

private:
    X* data_ = nullptr;
    Index count_ = 0;
};

// A buffer of zeros.
template <class X>
Buffer<X> zeros(Index count) {
    Buffer<X> made(count);
    clear(made.data(), count);
    return made;
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
