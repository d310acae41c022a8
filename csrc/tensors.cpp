// What the core asks of tensors.
#include "tensors.h"

namespace unrolled {
namespace {

nb::object tuple_of(const std::vector<Index>& numbers) {
    nb::object made = own(PyTuple_New(static_cast<Py_ssize_t>(numbers.size())));
    for (std::size_t k = 0; k < numbers.size(); ++k)
        PyTuple_SET_ITEM(made.ptr(), static_cast<Py_ssize_t>(k), PyLong_FromLongLong(numbers[k]));
    return made;
}

}  // namespace

const Names& names() {
    static const auto intern = PyUnicode_InternFromString;
    static const Names known = {intern("shape"),         intern("dtype"),
                                intern("is_cpu"),        intern("is_contiguous"),
                                intern("contiguous"),    intern("data_ptr"),
                                intern("numel"),         intern("requires_grad"),
                                intern("new_empty_strided"), intern("new_zeros"),
                                intern("itemsize")};
    return known;
}

std::vector<Index> shape_of(nb::handle tensor) {
    const nb::object shape = get(tensor, names().shape);
    if (!PyTuple_Check(shape.ptr())) throw nb::type_error("a tensor's shape is a tuple");
    std::vector<Index> found(static_cast<std::size_t>(PyTuple_GET_SIZE(shape.ptr())));
    for (std::size_t d = 0; d < found.size(); ++d)
        found[d] = whole(PyTuple_GET_ITEM(shape.ptr(), static_cast<Py_ssize_t>(d)));
    return found;
}

nb::object empty(nb::handle like, const std::vector<Index>& shape) {
    std::vector<Index> strides(shape.size());
    Index stride = 1;
    for (std::size_t d = shape.size(); d-- > 0; stride *= shape[d] > 0 ? shape[d] : 1)
        strides[d] = stride;
    const nb::object sizes = tuple_of(shape), steps = tuple_of(strides);
    PyObject* const args[] = {like.ptr(), sizes.ptr(), steps.ptr()};
    return own(PyObject_VectorcallMethod(names().new_empty, args, 3, nullptr));
}

nb::object zeros(nb::handle like, const std::vector<Index>& shape) {
    const nb::object sizes = tuple_of(shape);
    PyObject* const args[] = {like.ptr(), sizes.ptr()};
    return own(PyObject_VectorcallMethod(names().new_zeros, args, 2, nullptr));
}

void add_array(Numbers& arrays, nb::handle tensor) {
    const bool none = !tensor.is_valid() || tensor.is_none();
    arrays.push_back(none ? 0 : address(tensor));
    arrays.push_back(none ? 0 : whole(call(tensor, names().numel)));
}

}  // namespace unrolled
