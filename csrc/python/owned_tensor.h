// Tensors that the core reads and writes, owned meanwhile.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "python/tensors.h"

namespace unrolled {

// A tensor with its storage, and its view for the first sweep of a batch; that of the next is `step` bytes
// further. Storage and sizes belong to the view, whatever another thread does to the tensor
// (`tensor.data = …`).
struct OwnedTensor {
    nb::object tensor, storage;
    View view;
    std::vector<Index> sizes;
    Index step = 0;

    // Views a tensor. Nothing here lets other threads run.
    void take(nb::object owned) {
        tensor = std::move(owned);
        storage = unrolled::storage(tensor);
        try_view();
        const Index needed = bytes_needed(tensor, view), bytes = bytes_of(storage);
        if (needed > bytes)
            throw std::runtime_error("tensors: a storage must have at least " + std::to_string(needed) +
                                     " bytes for its tensor, got " + std::to_string(bytes) +
                                     "; untyped_storage().resize_ made it smaller");
    }
    // Views a new tensor, which no other thread has.
    void make(nb::object owned) {
        tensor = std::move(owned);
        try_view();
    }
    // Removes the first dimension, that of the sweeps.
    void drop_first() {
        --view.ndim;
        ++view.shape;
        ++view.strides;
        step = view.numel() * view.itemsize();
    }
    OwnedTensor() = default;
    OwnedTensor(OwnedTensor&&) = default;
    OwnedTensor& operator=(OwnedTensor&&) = default;

private:
    void try_view() {
        view = view_of(tensor);
        sizes = view.sizes();
        view.shape = sizes.data();
    }
};

}  // namespace unrolled
