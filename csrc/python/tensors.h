// Views of torch's tensors by DLPack; nothing of torch is linked.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "dispatch/raw_call.h"

namespace unrolled {

namespace nb = nanobind;

// Owns the result of a call; null: its exception propagates.
inline nb::object checked(PyObject* result) {
    if (!result) throw nb::python_error();
    return nb::steal(result);
}

inline nb::object get(nb::handle object, nb::handle name) {
    return checked(PyObject_GetAttr(object.ptr(), name.ptr()));
}

inline nb::object call(nb::handle object, nb::handle name) {
    return checked(PyObject_CallMethodNoArgs(object.ptr(), name.ptr()));
}

// Interned names of attributes and methods of a tensor.
struct TensorMethods {
    PyObject *contiguous, *requires_grad, *resolve_neg, *new_empty, *new_zeros, *untyped_storage,
        *storage_offset, *nbytes;
};
const TensorMethods& names();

// Types of numbers that the core computes with or converts.
enum class NumberType { float32, float64, bfloat16, float16, other };

inline NumberFormat number_format_of(NumberType type) {
    if (type == NumberType::bfloat16) return NumberFormat::bfloat16;
    return type == NumberType::float16 ? NumberFormat::float16 : NumberFormat::native;
}

// A tensor's memory, type and shape. Valid while the tensor lives and is not resized.
struct View : nb::dlpack::dltensor {
    Index address() const { return static_cast<Index>(reinterpret_cast<std::uintptr_t>(data) + byte_offset); }
    Index size(int d) const { return shape[d < 0 ? ndim + d : d]; }
    Index numel() const;
    bool contiguous() const;
    bool freed() const { return !data && numel() > 0; }  // its storage has no memory
    bool on_cpu() const { return device.device_type == nb::device::cpu::value; }
    NumberType type() const;
    Index itemsize() const { return dtype.bits / 8; }
    bool is(const std::vector<Index>& wanted) const;
    std::vector<Index> sizes() const { return {shape, shape + ndim}; }
};

// Sets the class of tensors, which has DLPack's table of C functions (`__dlpack_c_exchange_api__`, 2025): a
// view by it takes nanoseconds, where each attribute in Python takes a tenth of a microsecond. `single` is a
// tensor of float32.
void name_tensors(nb::handle type, nb::handle single);

// A tensor's view. If torch has none (no storage, a device without addresses) view_of raises its error,
// and try_view is false.
View view_of(nb::handle tensor);
bool try_view(nb::handle tensor, View& view);

// Whether a tensor's values are the negatives of those in memory, as in imaginary parts of conjugates. Views
// do not have this bit.
bool has_negative_bit(nb::handle tensor);

// A tensor's storage, which stays valid while it is owned, also after `tensor.data = …`. The call lets no
// other thread run.
nb::object storage(nb::handle tensor);

// Bytes of a storage, and those that a tensor with this view needs: `untyped_storage().resize_` may have
// shrunk the storage. Neither call lets another thread run.
Index bytes_of(nb::handle storage);
Index bytes_needed(nb::handle tensor, const View& view);

// Sizes as in messages: [2, 3].
std::string text_of(const std::vector<Index>& sizes);

// A contiguous tensor of the same type as another, not initialized or zeros.
nb::object empty(nb::handle like, const std::vector<Index>& shape);
nb::object zeros(nb::handle like, const std::vector<Index>& shape);

// The same with the shape of `like` itself, which is contiguous: this takes less time.
nb::object empty_like(nb::handle like);

// A tensor of float32, an argument for empty() and zeros().
nb::handle float_tensor();

// Appends address and number of elements; (0, 0) for None or an invalid handle.
void add_array(IndexList& arrays, nb::handle tensor);
inline void add_array(IndexList& arrays, const View& view) {
    arrays.push_back(view.address());
    arrays.push_back(view.numel());
}

}  // namespace unrolled
