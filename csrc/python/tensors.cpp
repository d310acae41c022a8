// Views of tensors.
#include "python/tensors.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "dispatch/builds.h"

namespace unrolled {
namespace {

// DLPack's table of functions, version 1; those that are not called here only have a name.
struct DLPackTable {
    std::uint32_t major, minor;
    const DLPackTable* older;
    void *allocate, *take, *give;
    int (*try_view)(void* tensor, nb::dlpack::dltensor* out);
    void* stream;
};

const DLPackTable* dlpack_table = nullptr;
PyObject* float_example = nullptr;  // for the life of the module
PyObject* is_neg_method = nullptr;  // looked up once
PyObject* empty_like_function = nullptr;

}  // namespace

const TensorMethods& names() {
    static const auto intern = PyUnicode_InternFromString;
    static const TensorMethods known = {
        intern("contiguous"), intern("requires_grad"),   intern("resolve_neg"),    intern("new_empty"),
        intern("new_zeros"),  intern("untyped_storage"), intern("storage_offset"), intern("nbytes")};
    return known;
}

Index View::numel() const {
    Index count = 1;
    for (int d = 0; d < ndim; ++d) count *= shape[d];
    return count;
}

bool View::contiguous() const {
    Index wanted = 1;
    for (int d = ndim - 1; d >= 0; --d) {
        if (shape[d] == 0) return true;
        if (shape[d] > 1 && strides[d] != wanted) return false;
        wanted *= shape[d];
    }
    return true;
}

bool View::is(const std::vector<Index>& wanted) const {
    if (static_cast<std::size_t>(ndim) != wanted.size()) return false;
    for (int d = 0; d < ndim; ++d)
        if (shape[d] != wanted[static_cast<std::size_t>(d)]) return false;
    return true;
}

NumberType View::type() const {
    const bool plain = dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float);
    const bool brain = dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat);
    if (dtype.lanes != 1 || !(plain || brain)) return NumberType::other;
    if (dtype.bits == 16) return brain ? NumberType::bfloat16 : NumberType::float16;
    if (brain) return NumberType::other;
    return dtype.bits == 32   ? NumberType::float32
           : dtype.bits == 64 ? NumberType::float64
                              : NumberType::other;
}

void name_tensors(nb::handle type, nb::handle single) {
    const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__");
    void* const table = PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
    if (!table) throw nb::python_error();
    const DLPackTable* functions = static_cast<const DLPackTable*>(table);
    while (functions && functions->major != 1) functions = functions->older;
    if (!functions || !functions->try_view)
        throw std::runtime_error("tensors: the class must have DLPack's C functions, version 1");
    names();  // now: a forked child would wait for a thread of its parent that initializes them
    is_neg_method = nb::object(nb::getattr(type, "is_neg")).release().ptr();
    empty_like_function = nb::object(nb::module_::import_("torch").attr("empty_like")).release().ptr();
    dlpack_table = functions;
    float_example = single.inc_ref().ptr();
}

nb::handle float_tensor() { return float_example; }

View view_of(nb::handle tensor) {
    if (!dlpack_table) throw std::runtime_error("tensors: name_tensors must be called first");
    View view;
    if (dlpack_table->try_view(tensor.ptr(), &view) != 0) throw nb::python_error();
    return view;
}

bool try_view(nb::handle tensor, View& view) {
    if (dlpack_table && dlpack_table->try_view(tensor.ptr(), &view) == 0) return true;
    PyErr_Clear();
    return false;
}

bool has_negative_bit(nb::handle tensor) {
    return checked(PyObject_CallOneArg(is_neg_method, tensor.ptr())).is(Py_True);
}

nb::object storage(nb::handle tensor) { return call(tensor, names().untyped_storage); }

static Index number(const nb::object& result) {
    const Index value = PyLong_AsLongLong(result.ptr());
    if (value == -1 && PyErr_Occurred()) throw nb::python_error();
    return value;
}

Index bytes_of(nb::handle storage) { return number(call(storage, names().nbytes)); }

Index bytes_needed(nb::handle tensor, const View& view) {
    Index last = 0;
    for (int d = 0; d < view.ndim; ++d) {
        if (view.shape[d] == 0) return 0;
        last += (view.shape[d] - 1) * view.strides[d];
    }
    return (number(call(tensor, names().storage_offset)) + last + 1) * view.itemsize();
}

std::string text_of(const std::vector<Index>& sizes) {
    std::string text;
    for (Index size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
    return "[" + text + "]";
}

// Calls a method of a tensor with sizes.
static nb::object make(PyObject* method, nb::handle like, const std::vector<Index>& shape) {
    constexpr std::size_t most = 8;
    if (shape.size() > most) throw std::invalid_argument("shape must have at most 8 dimensions");
    nb::object sizes[most];
    PyObject* args[1 + most] = {like.ptr()};
    for (std::size_t d = 0; d < shape.size(); ++d) {
        sizes[d] = checked(PyLong_FromLongLong(shape[d]));
        args[1 + d] = sizes[d].ptr();
    }
    return checked(PyObject_VectorcallMethod(method, args, 1 + shape.size(), nullptr));
}

nb::object empty(nb::handle like, const std::vector<Index>& shape) {
    return make(names().new_empty, like, shape);
}

nb::object empty_like(nb::handle like) {
    return checked(PyObject_CallOneArg(empty_like_function, like.ptr()));
}

// In a forked child torch would wait forever for the threads that fill the tensor.
nb::object zeros(nb::handle like, const std::vector<Index>& shape) {
    if (!forked()) return make(names().new_zeros, like, shape);
    const nb::object tensor = empty(like, shape);
    const View view = view_of(tensor);
    if (const Index numbers = view.numel())
        std::memset(reinterpret_cast<void*>(view.address()), 0,
                    static_cast<std::size_t>(numbers * view.itemsize()));
    return tensor;
}

void add_array(IndexList& arrays, nb::handle tensor) {
    if (!tensor.is_valid() || tensor.is_none()) {
        arrays.insert(arrays.end(), {0, 0});
        return;
    }
    add_array(arrays, view_of(tensor));
}

}  // namespace unrolled
