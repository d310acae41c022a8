// Tensors as torch shows them to other libraries: nothing of it is linked.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "dispatch/raw_call.h"

namespace unrolled {

namespace nb = nanobind;

// An exception that a method raised goes on as it is.
inline nb::object own(PyObject* made) {
    if (!made) throw nb::python_error();
    return nb::steal(made);
}

inline nb::object get(nb::handle object, nb::handle name) {
    return own(PyObject_GetAttr(object.ptr(), name.ptr()));
}

inline nb::object call(nb::handle object, nb::handle name) {
    return own(PyObject_CallMethodNoArgs(object.ptr(), name.ptr()));
}

// Names of what is asked of a tensor; one set for the life of the module.
struct Names {
    PyObject *contiguous, *requires_grad, *resolve_neg, *new_empty, *new_zeros, *untyped_storage,
        *storage_offset, *nbytes;
};
const Names& names();

// What the core computes with, or widens.
enum class Kind { float32, float64, bfloat16, float16, other };

inline Storage storage_of(Kind kind) {
    if (kind == Kind::bfloat16) return Storage::bfloat16;
    return kind == Kind::float16 ? Storage::float16 : Storage::own;
}

// Where a tensor's numbers lie and in which form. It holds while the tensor lives and is not resized.
struct View : nb::dlpack::dltensor {
    Index address() const {
        return static_cast<Index>(reinterpret_cast<std::uintptr_t>(data) + byte_offset);
    }
    Index size(int d) const { return shape[d < 0 ? ndim + d : d]; }
    Index numel() const;
    bool contiguous() const;
    bool freed() const { return !data && numel() > 0; }  // its storage has no memory
    bool on_cpu() const { return device.device_type == nb::device::cpu::value; }
    Kind kind() const;
    Index itemsize() const { return dtype.bits / 8; }
    bool is(const std::vector<Index>& wanted) const;
    std::vector<Index> sizes() const { return {shape, shape + ndim}; }
};

// The class of all tensors, which has DLPack's table of C functions (`__dlpack_c_exchange_api__`, 2025):
// they show a tensor in nanoseconds, where each attribute in Python takes a tenth of a microsecond.
// `single` is a tensor in float32.
void name_tensors(nb::handle kind, nb::handle single);

// A tensor's view. What torch cannot show (no storage, a device without addresses) raises its error, or
// is false.
View see(nb::handle tensor);
bool look(nb::handle tensor, View& view);

// Whether a tensor's numbers are the negatives of those that lie there, which no view tells: torch makes
// such ones of imaginary parts of conjugates.
bool negated(nb::handle tensor);

// The storage under a tensor, which outlives an exchange (`tensor.data = …`) while it is owned. The call
// lets no other thread in.
nb::object storage(nb::handle tensor);

// Bytes of a storage, and how many of them a tensor with this view needs: `untyped_storage().resize_` may
// have taken some away. Neither call lets another thread in.
Index bytes_of(nb::handle storage);
Index bytes_needed(nb::handle tensor, const View& view);

// Sizes as messages show them: [2, 3].
std::string text_of(const std::vector<Index>& sizes);

// A contiguous tensor like another one, not initialised or of zeros.
nb::object empty(nb::handle like, const std::vector<Index>& shape);
nb::object zeros(nb::handle like, const std::vector<Index>& shape);

// A tensor in float32 to make others like.
nb::handle in_float();

// Address and number of elements, (0, 0) for None or none.
void add_array(Numbers& arrays, nb::handle tensor);
inline void add_array(Numbers& arrays, const View& view) {
    arrays.push_back(view.address());
    arrays.push_back(view.numel());
}

}  // namespace unrolled
