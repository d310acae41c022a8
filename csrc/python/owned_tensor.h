// Tensors that the core reads and writes, owned while it does.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "python/tensors.h"

namespace unrolled {

// A tensor's numbers in a row each, of one sweep's; `step` bytes to the next one's. Storage and sizes
// are those of the view, whatever another thread makes of the tensor (`tensor.data = …`).
struct Owned {
    nb::object held, storage;
    View view;
    std::vector<Index> sizes;
    Index step = 0;

    // Takes the view of a tensor. None of this lets other threads in.
    void take(nb::object tensor) {
        held = std::move(tensor);
        storage = unrolled::storage(held);
        look();
        const Index needed = bytes_needed(held, view), bytes = bytes_of(storage);
        if (needed > bytes)
            throw std::runtime_error(
                "tensors: a storage must have at least " + std::to_string(needed) +
                " bytes for its tensor, got " + std::to_string(bytes) +
                "; untyped_storage().resize_ made it smaller");
    }
    // Of one that no other thread knows.
    void make(nb::object tensor) {
        held = std::move(tensor);
        look();
    }
    // Leaves the dimension of sweeps to `step`.
    void drop_first() {
        --view.ndim;
        ++view.shape;
        ++view.strides;
        step = view.numel() * view.itemsize();
    }
    Owned() = default;
    Owned(Owned&&) = default;
    Owned& operator=(Owned&&) = default;

private:
    void look() {
        view = see(held);
        sizes = view.sizes();
        view.shape = sizes.data();
    }
};

}  // namespace unrolled
