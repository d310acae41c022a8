// A layer's stack without gradient, from the tensors as the user passed them. Everything that is not
// the plainest case is refused with None: the usual way knows all forms and has all the messages.
#include "direct.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "interrupt.h"
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
    Direct(nb::list ways, nb::list widths, nb::dict cell, nb::tuple kinds, nb::tuple watchers,
           nb::object merge, bool step)
        : tensor_(kinds[0]), parameter_(kinds[1]), watchers_(watchers), merge_(merge), cell_(cell),
          step_(step) {
        each_setting([this](PyObject* value) { settings_.push_back(nb::borrow(value)); });
        for (nb::handle way : ways) {
            const nb::tuple parts = nb::cast<nb::tuple>(way);
            const nb::object held = parts[0];
            ways_.push_back({held, nb::cast<const Program*>(held), nb::cast<nb::tuple>(parts[1]),
                             nb::cast<std::vector<std::vector<Index>>>(parts[2]),
                             nb::cast<bool>(parts[3]), nb::cast<Index>(parts[4])});
        }
        for (nb::handle width : widths) widths_.push_back(nb::cast<Index>(width));
    }

    // (output, final states) without gradient; where `grad` and one is needed, [states, parameters];
    // or None.
    nb::object operator()(nb::handle input, nb::handle hx, nb::dict parameters, bool batch_first,
                          bool grad, const std::string& build, Index threads) {
        Form f;
        f.batch_first = batch_first;
        f.threads = threads;
        if (ways_.empty() || watched() || !unchanged() || !enter(input, f)) return nb::none();
        Several states;
        if (!start(hx, f, states)) return nb::none();
        Several weights;  // those of this call: another thread may be in another one
        if (!collect(parameters, f, weights)) return nb::none();
        if (grad && wanted(input, states, weights)) return wanting(states, weights);
        return run(input, states, weights, f, build);
    }

private:
    // A tensor, invalid where one is absent, and how it lies.
    struct Found {
        nb::object tensor;
        View view;
    };
    using Several = std::vector<Found>;

    struct Form {
        Index T = 0, N = 0, threads = 1;
        bool batch_first = false, contiguous = false;
        Kind kind = Kind::float32;
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

    // A tensor of torch's own class on the CPU, of numbers that the core reads, as torch shows it.
    bool show(nb::handle x, View& view) const {
        if (!x.type().is(tensor_) && !x.type().is(parameter_)) return false;
        return look(x, view) && view.on_cpu() && view.kind() != Kind::other && !negated(x);
    }

    bool enter(nb::handle input, Form& f) const {
        View view;
        if (!show(input, view) || view.ndim != (step_ ? 2 : 3)) return false;
        f.T = step_ ? 1 : view.size(0);
        f.N = view.size(-2);
        if (f.batch_first) std::swap(f.T, f.N);
        f.kind = view.kind();
        f.contiguous = view.contiguous();
        return view.size(-1) == ways_[0].I && f.T > 0 && f.N > 0;
    }

    // Adds a tensor that lies as the core reads it.
    bool add(nb::handle x, const std::vector<Index>& shape, const Form& f, Several& found) const {
        View view;
        if (!show(x, view) || view.kind() != f.kind || !view.is(shape) || !view.contiguous())
            return false;
        found.push_back({nb::borrow(x), view});
        return true;
    }

    // The initial states; none for zeros.
    bool start(nb::handle hx, const Form& f, Several& states) const {
        if (hx.is_none()) return true;
        const std::size_t count = widths_.size();
        if (count == 1) return add(hx, state_shape(f, 0), f, states);
        if (!PyTuple_CheckExact(hx.ptr()) || nb::len(hx) != count) return false;
        for (std::size_t k = 0; k < count; ++k)
            if (!add(PyTuple_GET_ITEM(hx.ptr(), static_cast<Py_ssize_t>(k)), state_shape(f, k), f, states))
                return false;
        return true;
    }

    bool collect(const nb::dict& parameters, const Form& f, Several& weights) const {
        for (const Way& way : ways_)
            for (std::size_t k = 0; k < way.shapes.size(); ++k) {
                const nb::handle name = way.names[k];
                if (name.is_none()) {
                    weights.push_back({});
                    continue;
                }
                PyObject* const found = PyDict_GetItemWithError(parameters.ptr(), name.ptr());
                if (!found && PyErr_Occurred()) throw nb::python_error();
                if (!found || !add(found, way.shapes[k], f, weights)) return false;
            }
        return true;
    }

    static bool needs(nb::handle tensor) {
        return tensor.is_valid() && get(tensor, names().requires_grad).is(Py_True);
    }

    static bool wanted(nb::handle input, const Several& states, const Several& weights) {
        if (needs(input)) return true;
        for (const Several* several : {&states, &weights})
            for (const Found& found : *several)
                if (needs(found.tensor)) return true;
        return false;
    }

    static nb::object wanting(const Several& states, const Several& weights) {
        nb::list starts, found;
        for (const Found& state : states) starts.append(state.tensor);
        for (const Found& weight : weights)
            found.append(weight.tensor.is_valid() ? weight.tensor : nb::none());
        return nb::list(nb::make_tuple(nb::tuple(starts), found));
    }

    nb::object run(nb::handle input, const Several& states, const Several& weights, const Form& f,
                   const std::string& build) const {
        const Index L = static_cast<Index>(ways_.size()), size = see(input).itemsize();
        nb::object values = f.contiguous ? nb::borrow(input) : call(input, names().contiguous);
        nb::object final = own(PyTuple_New(static_cast<Py_ssize_t>(widths_.size())));
        std::vector<Index> begins, ends;
        for (std::size_t k = 0; k < widths_.size(); ++k) {
            nb::object end = empty(values, state_shape(f, k));
            ends.push_back(see(end).address());
            PyTuple_SET_ITEM(final.ptr(), static_cast<Py_ssize_t>(k), end.release().ptr());
            begins.push_back(states.empty() ? 0 : states[k].view.address());
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
                Numbers own = {0, 0, 0, 0, see(values).address(), tokens * way.I,
                               see(outputs[d]).address(), tokens * P, 0, 0};
                own.reserve(64);
                for (std::size_t k = 0; k < way.shapes.size(); ++k, ++next) {
                    if (weights[next].tensor.is_valid()) add_array(own, weights[next].view);
                    else add_array(own, nb::handle());
                }
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
                           std::move(own), 1, storage_of(f.kind), nullptr};
            }
            Interrupt interrupt;
            told[0].stop = told[1].stop = &interrupt;
            {
                nb::gil_scoped_release free;
                run_forward(told, static_cast<std::size_t>(D), build, f.kind == Kind::float64);
            }
            interrupt.raise();
            values = D == 1 ? nb::borrow(outputs[0]) : merge_(outputs);
        }
        return nb::make_tuple(values, final);
    }

    nb::object tensor_, parameter_;
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
        .def(nb::init<nb::list, nb::list, nb::dict, nb::tuple, nb::tuple, nb::object, bool>(),
             nb::arg("ways"), nb::arg("widths"), nb::arg("cell"), nb::arg("kinds"),
             nb::arg("watchers"), nb::arg("merge").none(), nb::arg("step"))
        .def("__call__", &Direct::operator(), nb::arg("input").none(), nb::arg("hx").none(),
             nb::arg("parameters"), nb::arg("batch_first"), nb::arg("grad"), nb::arg("build"),
             nb::arg("threads"));
}

}  // namespace unrolled
