// Tensors as their Python methods show them: nothing of torch is linked.
#pragma once

#include <nanobind/nanobind.h>

#include "arrays.h"

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

inline Index whole(nb::handle number) {
    const long long value = PyLong_AsLongLong(number.ptr());
    if (value == -1 && PyErr_Occurred()) throw nb::python_error();
    return value;
}

// Names of what is asked of a tensor; one set for the life of the module.
struct Names {
    PyObject *shape, *dtype, *is_cpu, *is_contiguous, *contiguous, *data_ptr, *numel, *requires_grad,
        *new_empty, *new_zeros, *itemsize;
};
const Names& names();

// Sizes of a tensor.
std::vector<Index> shape_of(nb::handle tensor);

// A contiguous tensor like another one, not initialised or of zeros.
nb::object empty(nb::handle like, const std::vector<Index>& shape);
nb::object zeros(nb::handle like, const std::vector<Index>& shape);

inline Index address(nb::handle tensor) { return whole(call(tensor, names().data_ptr)); }

// Address and number of elements, (0, 0) for None or none.
void add_array(Numbers& arrays, nb::handle tensor);

}  // namespace unrolled
