// A layer's stack without gradient, from the tensors as the user passed them. Everything that is not
// the plainest case is refused with None: the usual way knows all forms and has all the messages.
#include "python/fast_path.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/interrupt.h"
#include "python/tensors.h"
#include "python/unlocked.h"

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
    double work;  // of a token, in multiplications
};

// Work of a layer up to which it keeps the interpreter's lock: some ten microseconds, in which no thread
// can take away what the core reads.
constexpr double kBrief = 1e5;

// Multiplications of a token, and what a step and its pointwise operations cost beside them, roughly: it
// is all that there is where layers are narrow and sequences long.
double work_of(const Program& p, Index I) {
    double work = 64 + static_cast<double>(p.x_parts) * static_cast<double>(p.x_width * I);
    for (const Phase& phase : p.ahead.phases)
        for (const Instruction& i : phase.work) work += 4 * static_cast<double>(p.nodes[i.made].width);
    for (const Product& q : p.products)
        work += static_cast<double>(q.parts) * static_cast<double>(q.width * q.source);
    return work;
}

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
            const Program* const program = nb::cast<const Program*>(held);
            const Index I = nb::cast<Index>(parts[4]);
            ways_.push_back({held, program, nb::cast<nb::tuple>(parts[1]),
                             nb::cast<std::vector<std::vector<Index>>>(parts[2]),
                             nb::cast<bool>(parts[3]), I, work_of(*program, I)});
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

    // A tensor of torch's own class on the CPU, of numbers that the core reads, as torch shows it. The
    // view is taken last: torch's methods let other threads in.
    bool show(nb::handle x, View& view) const {
        if (!x.type().is(tensor_) && !x.type().is(parameter_)) return false;
        return !negated(x) && look(x, view) && view.on_cpu() && view.kind() != Kind::other;
    }

    static bool lies(const View& view, const Form& f) {
        return view.on_cpu() && view.kind() == f.kind && view.contiguous() && !view.freed();
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

    // Adds a tensor that lies as the core reads it; a handle from a dict is as good as freed once another
    // thread may run, so the tensor is owned first.
    bool add(nb::object x, const std::vector<Index>& shape, const Form& f, Several& found) const {
        View view;
        if (!show(x, view) || !lies(view, f) || !view.is(shape)) return false;
        found.push_back({std::move(x), view});
        return true;
    }

    // The initial states; none for zeros.
    bool start(nb::handle hx, const Form& f, Several& states) const {
        if (hx.is_none()) return true;
        const std::size_t count = widths_.size();
        if (count == 1) return add(nb::borrow(hx), state_shape(f, 0), f, states);
        if (!PyTuple_CheckExact(hx.ptr()) || nb::len(hx) != count) return false;
        for (std::size_t k = 0; k < count; ++k)
            if (!add(nb::borrow(PyTuple_GET_ITEM(hx.ptr(), static_cast<Py_ssize_t>(k))),
                     state_shape(f, k), f, states))
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
                if (!found || !add(nb::borrow(found), way.shapes[k], f, weights)) return false;
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

    // None where a tensor has changed since it was looked at.
    nb::object run(nb::handle input, Several& states, Several& weights, const Form& f,
                   const std::string& build) const {
        const Index L = static_cast<Index>(ways_.size()), D = merge_.is_none() ? 1 : 2;
        nb::object values = f.contiguous ? nb::borrow(input) : call(input, names().contiguous);
        nb::object final = own(PyTuple_New(static_cast<Py_ssize_t>(widths_.size())));
        std::vector<View> ends;
        for (std::size_t k = 0; k < widths_.size(); ++k) {
            nb::object end = empty(values, state_shape(f, k));
            ends.push_back(see(end));
            PyTuple_SET_ITEM(final.ptr(), static_cast<Py_ssize_t>(k), end.release().ptr());
        }
        Found* own_weights = weights.data();
        for (Index w = 0; w < L; w += D) {
            nb::object outputs[2];
            std::size_t count = 0;  // of the layer's weights
            double work = 0;
            for (Index d = 0; d < D; ++d) {
                const Index P = widths_[0];
                outputs[d] = f.batch_first ? empty(values, {f.N, f.T, P}) : empty(values, {f.T, f.N, P});
                count += ways_[w + d].shapes.size();
                work += ways_[w + d].work * static_cast<double>(f.T * f.N);
            }
            const bool brief = work <= kBrief;
            std::vector<nb::object> storages;
            if (!brief && !hold_storages(values, states, own_weights, count, storages))
                return nb::none();
            // From here on no call lets other threads in until all addresses are known.
            Told told[2];
            for (Index d = 0; d < D; ++d) {
                if (!tell(told[d], w + d, values, see(outputs[d]), own_weights, states, ends, f))
                    return nb::none();
                own_weights += ways_[w + d].shapes.size();
            }
            Interrupt interrupt;
            told[0].stop = told[1].stop = &interrupt;
            const auto sweep = [&] {
                run_forward(told, static_cast<std::size_t>(D), build, f.kind == Kind::float64);
            };
            if (brief) {
                sweep();
            } else {
                const Unlocked unlocked;
                sweep();
            }
            interrupt.raise();
            values = D == 1 ? outputs[0] : merge(outputs);
        }
        return nb::make_tuple(values, final);
    }

    // False where one is smaller than its tensor. (A brief call sees only that there is none.)
    static bool hold_storages(const nb::object& values, const Several& states, const Found* weights,
                              std::size_t count, std::vector<nb::object>& storages) {
        storages.reserve(1 + states.size() + count);
        const auto hold = [&storages](const nb::object& tensor) {
            storages.push_back(storage(tensor));
            return bytes_needed(tensor, see(tensor)) <= bytes_of(storages.back());
        };
        bool whole = hold(values);
        for (const Found& state : states) whole = hold(state.tensor) && whole;
        for (std::size_t k = 0; k < count; ++k)
            if (weights[k].tensor.is_valid()) whole = hold(weights[k].tensor) && whole;
        return whole;
    }

    // What sweep number `index` reads and writes. False where a tensor is no longer as it was.
    bool tell(Told& told, Index index, const nb::object& values, const View& output, Found* weights,
              Several& states, const std::vector<View>& ends, const Form& f) const {
        const Way& way = ways_[index];
        const Index tokens = f.T * f.N;
        const View in = see(values);
        if (!lies(in, f) || in.numel() != tokens * way.I) return false;
        Numbers arrays = {0, 0, 0, 0, in.address(), in.numel(), output.address(), output.numel(), 0, 0};
        arrays.reserve(64);
        for (std::size_t k = 0; k < way.shapes.size(); ++k) {
            Found& weight = weights[k];
            if (!weight.tensor.is_valid()) {
                add_array(arrays, nb::handle());
                continue;
            }
            if (!look(weight.tensor, weight.view) || !lies(weight.view, f) ||
                !weight.view.is(way.shapes[k]))
                return false;
            add_array(arrays, weight.view);
        }
        const auto add_state = [&](const View* view, std::size_t k) {
            const Index numbers = f.N * widths_[k];
            arrays.push_back(view ? view->address() + index * numbers * view->itemsize() : 0);
            arrays.push_back(view ? numbers : 0);
        };
        for (std::size_t k = 0; k < widths_.size(); ++k) {
            if (states.empty()) {
                add_state(nullptr, k);
                continue;
            }
            Found& state = states[k];
            if (!look(state.tensor, state.view) || !lies(state.view, f) ||
                state.view.numel() != static_cast<Index>(ways_.size()) * f.N * widths_[k])
                return false;
            add_state(&state.view, k);
        }
        for (std::size_t k = 0; k < widths_.size(); ++k) add_state(&ends[k], k);
        const Index step = f.batch_first ? 1 : f.N, row = f.batch_first ? f.T : 1;
        const Index base = way.reverse ? (f.T - 1) * step : 0;
        told = {way.program,
                {f.T, f.N, way.I, tokens, base, way.reverse ? -step : step, row, f.threads},
                std::move(arrays), 1, storage_of(f.kind), nullptr};
        return true;
    }

    nb::object merge(const nb::object* outputs) const {
        nb::list both;
        both.append(outputs[0]);
        both.append(outputs[1]);
        return merge_(both);
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
