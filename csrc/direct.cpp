// A layer's stack without gradient, from the tensors as the user passed them. Everything that is not
// the plainest case is refused with None: the usual way knows all forms and has all the messages.
//
// Tensors are seen through their Python methods alone; nothing of torch is linked.
#include "direct.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "tensors.h"

namespace unrolled {
namespace {

// One sweep: its program, the names and shapes of its parameters in the core's order (None where one is
// absent).
struct Way {
    nb::object held;
    const Program* program;
    nb::tuple names;
    std::vector<std::vector<Index>> shapes;
    bool reverse;
    Index I;
};

class Direct {
public:
    Direct(nb::list ways, nb::list widths, nb::dict cell, nb::tuple kinds, nb::tuple dtypes,
           nb::tuple watchers, nb::object merge, bool step)
        : tensor_(kinds[0]), parameter_(kinds[1]), single_(dtypes[0]), double_(dtypes[1]),
          watchers_(watchers), merge_(merge), cell_(cell),
          step_(step) {
        each_setting([this](PyObject* value) { settings_.push_back(nb::borrow(value)); });
        for (nb::handle way : ways) {
            const nb::tuple parts = nb::cast<nb::tuple>(way);
            const nb::object held = parts[0];
            ways_.push_back({held, nb::cast<const Program*>(held), nb::cast<nb::tuple>(parts[1]),
                             nb::cast<std::vector<std::vector<Index>>>(parts[2]),
                             nb::cast<bool>(parts[3]), nb::cast<Index>(parts[4])});
        }
        for (nb::handle width : widths) widths_.push_back(whole(width));
    }

    // (output, final states) without gradient; where `grad` and one is needed, [states, parameters];
    // or None.
    nb::object operator()(nb::handle input, nb::handle hx, nb::dict parameters, bool batch_first,
                          bool grad, const std::string& build, Index threads) {
        Form f;
        if (ways_.empty() || watched() || !unchanged() || !enter(input, f)) return nb::none();
        if (batch_first) std::swap(f.T, f.N);
        if (f.I != ways_[0].I || f.T < 1 || f.N < 1) return nb::none();
        f.batch_first = batch_first;
        f.threads = threads;
        States states;
        if (!start(hx, f, states)) return nb::none();
        Weights weights;  // those of this call: another thread may be in another one
        for (const Way& way : ways_)
            for (std::size_t k = 0; k < way.shapes.size(); ++k)
                if (!add(way.names[k], way.shapes[k], parameters, f, weights)) return nb::none();
        if (grad && wanted(input, states, weights)) return wanting(states, weights);
        return run(input, states, weights, f, build);
    }

private:
    using States = std::vector<nb::handle>;
    using Weights = std::vector<nb::object>;  // invalid where one is absent

    struct Form {
        Index T = 0, N = 0, I = 0, threads = 1;
        bool batch_first = false, wide = false;
        nb::object dtype;
    };

    // Whether anything watches, records or transforms what runs: a watcher's answer is not empty.
    bool watched() const {
        for (nb::handle watcher : watchers_) {
            const nb::object found = own(PyObject_CallNoArgs(watcher.ptr()));
            const int some = PyObject_IsTrue(found.ptr());
            if (some < 0) throw nb::python_error();
            if (some) return true;
        }
        return false;
    }

    // What a program holds for: the values in a cell's __dict__ but for private ones.
    template <class F>
    void each_setting(F seen) const {
        PyObject *key, *value;
        for (Py_ssize_t at = 0; PyDict_Next(cell_.ptr(), &at, &key, &value);)
            if (PyUnicode_GET_LENGTH(key) == 0 || PyUnicode_READ_CHAR(key, 0) != '_') seen(value);
    }

    bool unchanged() const {
        std::size_t count = 0;
        bool same = true;
        each_setting([&](PyObject* value) {
            same = same && count < settings_.size() && settings_[count].is(value);
            ++count;
        });
        return same && count == settings_.size();
    }

    std::vector<Index> state_shape(const Form& f, std::size_t k) const {
        if (step_) return {f.N, widths_[k]};
        return {static_cast<Index>(ways_.size()), f.N, widths_[k]};
    }

    bool is_tensor(nb::handle x) const { return x.type().is(tensor_); }

    bool true_of(nb::handle x, nb::handle name) const { return get(x, name).is(Py_True); }

    bool enter(nb::handle input, Form& f) const {
        if (!is_tensor(input)) return false;
        std::vector<Index> shape = shape_of(input);
        if (shape.size() != (step_ ? 2 : 3)) return false;
        f.T = step_ ? 1 : shape[0];
        f.N = shape[shape.size() - 2];
        f.I = shape.back();
        f.dtype = get(input, names().dtype);
        f.wide = f.dtype.is(double_);
        return (f.wide || f.dtype.is(single_)) && true_of(input, names().is_cpu);
    }

    // The initial states; none for zeros.
    bool start(nb::handle hx, const Form& f, States& states) const {
        if (hx.is_none()) return true;
        if (widths_.size() == 1) {
            states.push_back(hx);
        } else {
            if (!PyTuple_CheckExact(hx.ptr())) return false;
            for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(hx.ptr()); ++k)
                states.push_back(PyTuple_GET_ITEM(hx.ptr(), k));
        }
        if (states.size() != widths_.size()) return false;
        for (std::size_t k = 0; k < states.size(); ++k) {
            if (!is_tensor(states[k]) || !plain(states[k], f)) return false;
            if (shape_of(states[k]) != state_shape(f, k)) return false;
        }
        return true;
    }

    bool plain(nb::handle x, const Form& f) const {
        return get(x, names().dtype).is(f.dtype) && true_of(x, names().is_cpu) &&
               call(x, names().is_contiguous).is(Py_True);
    }

    bool add(nb::handle name, const std::vector<Index>& shape, const nb::dict& parameters,
             const Form& f, Weights& weights) const {
        if (name.is_none()) {
            weights.push_back({});
            return true;
        }
        PyObject* const found = PyDict_GetItemWithError(parameters.ptr(), name.ptr());
        if (!found) return PyErr_Occurred() ? throw nb::python_error() : false;
        const nb::handle p = found;
        if (!(p.type().is(parameter_) || is_tensor(p)) || !plain(p, f) || shape_of(p) != shape)
            return false;
        weights.push_back(nb::borrow(p));
        return true;
    }

    bool wanted(nb::handle input, const States& states, const Weights& weights) const {
        if (true_of(input, names().requires_grad)) return true;
        for (nb::handle state : states)
            if (true_of(state, names().requires_grad)) return true;
        for (const nb::object& weight : weights)
            if (weight.is_valid() && true_of(weight, names().requires_grad)) return true;
        return false;
    }

    static nb::object wanting(const States& states, const Weights& weights) {
        nb::list starts, found;
        for (nb::handle state : states) starts.append(state);
        for (const nb::object& weight : weights) found.append(weight.is_valid() ? weight : nb::none());
        return nb::list(nb::make_tuple(nb::tuple(starts), found));
    }

    nb::object run(nb::handle input, const States& states, const Weights& weights, const Form& f,
                   const std::string& build) const {
        const Index L = static_cast<Index>(ways_.size()), size = f.wide ? 8 : 4;
        nb::object values = call(input, names().contiguous);
        nb::object final = own(PyTuple_New(static_cast<Py_ssize_t>(widths_.size())));
        std::vector<Index> begins, ends;
        for (std::size_t k = 0; k < widths_.size(); ++k) {
            nb::object end = empty(values, state_shape(f, k));
            ends.push_back(address(end));
            PyTuple_SET_ITEM(final.ptr(), static_cast<Py_ssize_t>(k), end.release().ptr());
            begins.push_back(states.empty() ? 0 : address(states[k]));
        }
        const Index D = merge_.is_none() ? 1 : 2, P = widths_[0], tokens = f.T * f.N;
        std::size_t next = 0;
        for (Index w = 0; w < L; w += D) {
            Told told[2];
            nb::list outputs;
            for (Index d = 0; d < D; ++d) {
                const Way& way = ways_[w + d];
                outputs.append(f.batch_first ? empty(values, {f.N, f.T, P})
                                             : empty(values, {f.T, f.N, P}));
                Numbers own = {0, 0, 0, 0, address(values), tokens * way.I, address(outputs[d]),
                               tokens * P, 0, 0};
                for (std::size_t k = 0; k < nb::len(way.names); ++k) add_array(own, weights[next++]);
                for (const auto* at : {&begins, &ends})
                    for (std::size_t k = 0; k < widths_.size(); ++k) {
                        const Index numbers = f.N * widths_[k], first = (*at)[k];
                        own.push_back(first ? first + (w + d) * numbers * size : 0);
                        own.push_back(first ? numbers : 0);
                    }
                const Index step = f.batch_first ? 1 : f.N, row = f.batch_first ? f.T : 1;
                const Index base = way.reverse ? (f.T - 1) * step : 0;
                told[d] = {way.program,
                           {f.T, f.N, way.I, tokens, base, way.reverse ? -step : step, row, f.threads},
                           std::move(own)};
            }
            {
                nb::gil_scoped_release free;
                if (D == 1) run_forward(told[0], build, f.wide);
                else run_forward(told[0], told[1], build, f.wide);
            }
            values = D == 1 ? nb::borrow(outputs[0]) : merge_(outputs);
        }
        return nb::make_tuple(values, final);
    }

    nb::object tensor_, parameter_, single_, double_;
    nb::tuple watchers_;
    nb::object merge_;
    nb::dict cell_;
    bool step_;  // one step: no dimension of time, nor of layers
    std::vector<nb::object> settings_;
    std::vector<Way> ways_;
    std::vector<Index> widths_;
};

}  // namespace

void bind_direct(nb::module_& m) {
    nb::class_<Direct>(m, "Direct", "A layer's stack without gradient, from its tensors.")
        .def(nb::init<nb::list, nb::list, nb::dict, nb::tuple, nb::tuple, nb::tuple, nb::object,
                      bool>(),
             nb::arg("ways"), nb::arg("widths"), nb::arg("cell"), nb::arg("kinds"), nb::arg("dtypes"), nb::arg("watchers"),
             nb::arg("merge").none(), nb::arg("step"))
        .def("__call__", &Direct::operator(), nb::arg("input").none(), nb::arg("hx").none(),
             nb::arg("parameters"), nb::arg("batch_first"), nb::arg("grad"), nb::arg("build"),
             nb::arg("threads"));
}

}  // namespace unrolled
