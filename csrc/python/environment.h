// What a call depends on besides its arguments: torch's modes, and context variables.
#pragma once

#include <nanobind/stl/string.h>

#include <string>

#include "dispatch/builds.h"
#include "python/tensors.h"

namespace unrolled {

class Environment {
public:
    // `observers`: functions that return something true if the call is traced, recorded or transformed.
    // `forward_ad`: the dictionary of that module. `variables`: context variables of the forced engine, of
    // open records and of the forced build. `functions`: whether gradients are enabled, the number of
    // threads, and the precision that torch's switch asks for in products of float32.
    Environment(nb::tuple observers, nb::dict forward_ad, nb::tuple variables, nb::tuple functions)
        : observers_(observers),
          forward_ad_(forward_ad),
          engine_(variables[0]),
          records_(variables[1]),
          build_(variables[2]),
          grad_enabled_(functions[0]),
          threads_(functions[1]),
          precision_(functions[2]),
          level_name_(nb::steal(PyUnicode_InternFromString("_current_level"))) {}

    // Whether the call must take the general path: something observes it, or another engine is forced.
    bool is_observed() const {
        for (nb::handle observer : observers_)
            if (is_true(observer)) return true;
        PyObject* const level = PyDict_GetItemWithError(forward_ad_.ptr(), level_name_.ptr());
        if (!level || PyLong_AsLong(level) != -1) return true;
        if (PyTuple_GET_SIZE(value_of(records_).ptr()) > 0) return true;
        const nb::object engine = value_of(engine_);
        return !engine.is_none() && PyUnicode_CompareWithASCIIString(engine.ptr(), "native") != 0;
    }

    bool grad_enabled() const { return is_true(grad_enabled_); }
    bool bf16_products() const {
        if (!find_build(build()).bf16_products) return false;
        const nb::object precision = checked(PyObject_CallNoArgs(precision_.ptr()));
        return PyUnicode_CompareWithASCIIString(precision.ptr(), "bf16") == 0;
    }
    Index threads() const { return nb::cast<Index>(checked(PyObject_CallNoArgs(threads_.ptr()))); }
    std::string build() const {
        const nb::object build = value_of(build_);
        return PyUnicode_GetLength(build.ptr()) == 0 ? std::string() : nb::cast<std::string>(build);
    }

private:
    static bool is_true(nb::handle function) {
        const nb::object answer = checked(PyObject_CallNoArgs(function.ptr()));
        if (answer.is(Py_False) || answer.is_none()) return false;
        const int truth = PyObject_IsTrue(answer.ptr());
        if (truth < 0) throw nb::python_error();
        return truth;
    }

    static nb::object value_of(const nb::object& variable) {
        PyObject* value = nullptr;
        if (PyContextVar_Get(variable.ptr(), nullptr, &value) < 0) throw nb::python_error();
        return nb::steal(value);
    }

    nb::tuple observers_;
    nb::dict forward_ad_;
    nb::object engine_, records_, build_, grad_enabled_, threads_, precision_, level_name_;
};

}  // namespace unrolled
