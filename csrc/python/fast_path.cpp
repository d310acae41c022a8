// A stack of layers without gradient, from the tensors as the user passed them. Only plain calls are
// served; for all others the result is None, and the general path runs them or raises.
#include "python/bind.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/interpreter_lock.h"
#include "python/interrupt.h"
#include "python/tensors.h"

namespace unrolled {
namespace {

// One layer in one direction: its program, and the names and shapes of its parameters in the order of the
// core (None: the layer has no such parameter).
struct LayerSweep {
    nb::object owner;
    const Program* program;
    nb::tuple names;
    std::vector<std::vector<Index>> shapes;
    bool reverse;
    Index I;
    nb::object cache_owner;
    WeightCache* cache;
    double work;  // of a token, in multiplications
};

// Up to this much work a layer keeps the interpreter's lock: some ten microseconds, in which no other thread
// can free what the core reads.
constexpr double kMaxWorkWithLock = 1e5;

// Multiplications of a token, plus an estimate for the step and its pointwise operations, which dominate
// where layers are narrow.
double work_of(const Program& p, Index I) {
    double work =
        64 + static_cast<double>(p.x_parts) * static_cast<double>(p.x_width * (I / p.x_diagonal_blocks));
    for (const Phase& phase : p.forward_schedule.phases)
        for (const Instruction& i : phase.work) work += 4 * static_cast<double>(p.nodes[i.result].width);
    for (const Product& q : p.products)
        work += static_cast<double>(q.parts) * static_cast<double>(q.width * q.columns);
    return work;
}

class FastPath {
public:
    // `sweeps`: (program, names of parameters, their shapes, reverse, I, WeightCache) of each layer and
    // direction.
    // `classes`: those of tensors and parameters. `watchers`: functions that return something true if the
    // call is traced, recorded or transformed.
    FastPath(nb::list sweeps, nb::list widths, nb::tuple classes, nb::tuple watchers, nb::object merge,
             bool step)
        : tensor_(classes[0]), parameter_(classes[1]), watchers_(watchers), merge_(merge), step_(step) {
        for (nb::handle layer : sweeps) {
            const nb::tuple fields = nb::cast<nb::tuple>(layer);
            const nb::object owner = fields[0];
            const Program* const program = nb::cast<const Program*>(owner);
            const Index I = nb::cast<Index>(fields[4]);
            sweeps_.push_back({owner, program, nb::cast<nb::tuple>(fields[1]),
                               nb::cast<std::vector<std::vector<Index>>>(fields[2]),
                               nb::cast<bool>(fields[3]), I, nb::object(fields[5]),
                               nb::cast<WeightCache*>(fields[5]), work_of(*program, I)});
        }
        for (nb::handle width : widths) widths_.push_back(nb::cast<Index>(width));
    }

    // (output, final states) without gradient. If `grad` is set and a tensor requires one:
    // [states, parameters], for autograd. None where the call is not plain.
    nb::object operator()(nb::handle input, nb::handle hx, nb::dict parameters, bool batch_first, bool grad,
                          const std::string& build, Index threads, bool bf16_products) {
        InputShape f;
        f.batch_first = batch_first;
        f.threads = threads;
        f.bf16_products = bf16_products;
        if (sweeps_.empty() || is_observed() || !read_input(input, f)) return nb::none();
        OwnedViews states;
        if (!read_states(hx, f, states)) return nb::none();
        OwnedViews weights;  // local: several threads may call
        if (!read_parameters(parameters, f, weights)) return nb::none();
        if (grad && any_requires_grad(input, states, weights)) {
            for (const LayerSweep& layer : sweeps_) layer.cache->clear();
            return tensors_for_autograd(states, weights);
        }
        return run(input, states, weights, f, build);
    }

private:
    // A tensor (invalid: absent) and its view.
    struct OwnedView {
        nb::object tensor;
        View view;
    };
    using OwnedViews = std::vector<OwnedView>;

    struct InputShape {
        Index T = 0, N = 0, threads = 1;
        bool batch_first = false, contiguous = false, bf16_products = false;
        NumberType type = NumberType::float32;
    };

    // Whether anything traces, records or transforms the call: the result of a watcher is true.
    bool is_observed() const {
        for (nb::handle watcher : watchers_) {
            const nb::object answer = checked(PyObject_CallNoArgs(watcher.ptr()));
            const int active = PyObject_IsTrue(answer.ptr());
            if (active < 0) throw nb::python_error();
            if (active) return true;
        }
        return false;
    }

    std::vector<Index> state_shape(const InputShape& f, std::size_t k) const {
        if (step_) return {f.N, widths_[k]};
        return {static_cast<Index>(sweeps_.size()), f.N, widths_[k]};
    }

    // The view of a tensor of torch's own class, on the CPU, of a type that the core reads. It is taken
    // last: torch's methods let other threads run.
    bool view_readable(nb::handle x, View& view) const {
        if (!x.type().is(tensor_) && !x.type().is(parameter_)) return false;
        return !has_negative_bit(x) && try_view(x, view) && view.on_cpu() && view.type() != NumberType::other;
    }

    static bool is_readable(const View& view, const InputShape& f) {
        return view.on_cpu() && view.type() == f.type && view.contiguous() && !view.freed();
    }

    bool read_input(nb::handle input, InputShape& f) const {
        View view;
        if (!view_readable(input, view) || view.ndim != (step_ ? 2 : 3)) return false;
        f.T = step_ ? 1 : view.size(0);
        f.N = view.size(-2);
        if (f.batch_first) std::swap(f.T, f.N);
        f.type = view.type();
        f.contiguous = view.contiguous();
        return view.size(-1) == sweeps_[0].I && f.T > 0 && f.N > 0;
    }

    // Adds a tensor that the core can read. A handle from a dict may be freed as soon as another thread
    // runs, so the tensor is owned first.
    bool add(nb::object x, const std::vector<Index>& shape, const InputShape& f, OwnedViews& views) const {
        View view;
        if (!view_readable(x, view) || !is_readable(view, f) || !view.is(shape)) return false;
        views.push_back({std::move(x), view});
        return true;
    }

    // The initial states; empty: zeros.
    bool read_states(nb::handle hx, const InputShape& f, OwnedViews& states) const {
        if (hx.is_none()) return true;
        const std::size_t count = widths_.size();
        if (count == 1) return add(nb::borrow(hx), state_shape(f, 0), f, states);
        if (!PyTuple_CheckExact(hx.ptr()) || nb::len(hx) != count) return false;
        for (std::size_t k = 0; k < count; ++k)
            if (!add(nb::borrow(PyTuple_GET_ITEM(hx.ptr(), static_cast<Py_ssize_t>(k))), state_shape(f, k), f,
                     states))
                return false;
        return true;
    }

    bool read_parameters(const nb::dict& parameters, const InputShape& f, OwnedViews& weights) const {
        for (const LayerSweep& layer : sweeps_)
            for (std::size_t k = 0; k < layer.shapes.size(); ++k) {
                const nb::handle name = layer.names[k];
                if (name.is_none()) {
                    weights.push_back({});
                    continue;
                }
                PyObject* const parameter = PyDict_GetItemWithError(parameters.ptr(), name.ptr());
                if (!parameter && PyErr_Occurred()) throw nb::python_error();
                if (!parameter || !add(nb::borrow(parameter), layer.shapes[k], f, weights)) return false;
            }
        return true;
    }

    static bool requires_grad(nb::handle tensor) {
        return tensor.is_valid() && get(tensor, names().requires_grad).is(Py_True);
    }

    static bool any_requires_grad(nb::handle input, const OwnedViews& states, const OwnedViews& weights) {
        if (requires_grad(input)) return true;
        for (const OwnedViews* views : {&states, &weights})
            for (const OwnedView& view : *views)
                if (requires_grad(view.tensor)) return true;
        return false;
    }

    static nb::object tensors_for_autograd(const OwnedViews& states, const OwnedViews& weights) {
        nb::list initial, parameters;
        for (const OwnedView& state : states) initial.append(state.tensor);
        for (const OwnedView& weight : weights)
            parameters.append(weight.tensor.is_valid() ? weight.tensor : nb::none());
        return nb::list(nb::make_tuple(nb::tuple(initial), parameters));
    }

    // None where another thread has changed a tensor meanwhile.
    nb::object run(nb::handle input, OwnedViews& states, OwnedViews& weights, const InputShape& f,
                   const std::string& build) const {
        const Index L = static_cast<Index>(sweeps_.size()), D = merge_.is_none() ? 1 : 2;
        nb::object values = f.contiguous ? nb::borrow(input) : call(input, names().contiguous);
        nb::object final = checked(PyTuple_New(static_cast<Py_ssize_t>(widths_.size())));
        std::vector<View> final_views;
        for (std::size_t k = 0; k < widths_.size(); ++k) {
            nb::object end = empty(values, state_shape(f, k));
            final_views.push_back(view_of(end));
            PyTuple_SET_ITEM(final.ptr(), static_cast<Py_ssize_t>(k), end.release().ptr());
        }
        OwnedView* layer_weights = weights.data();
        for (Index w = 0; w < L; w += D) {
            nb::object outputs[2];
            std::size_t count = 0;  // of the layer's weights
            double work = 0;
            for (Index d = 0; d < D; ++d) {
                const Index P = widths_[0];
                outputs[d] = f.batch_first ? empty(values, {f.N, f.T, P}) : empty(values, {f.T, f.N, P});
                count += sweeps_[w + d].shapes.size();
                work += sweeps_[w + d].work * static_cast<double>(f.T * f.N);
            }
            const bool keeps_lock = work <= kMaxWorkWithLock;
            std::vector<nb::object> storages;
            if (!keeps_lock && !hold_storages(values, states, layer_weights, count, storages))
                return nb::none();
            // From here on no call lets other threads run until all addresses are known.
            RawCall calls[2];
            for (Index d = 0; d < D; ++d) {
                if (!fill_call(calls[d], w + d, values, view_of(outputs[d]), layer_weights, states,
                               final_views, f))
                    return nb::none();
                layer_weights += sweeps_[w + d].shapes.size();
            }
            Interrupt interrupt;
            calls[0].cancel = calls[1].cancel = &interrupt;
            const auto sweep = [&] {
                run_forward(calls, static_cast<std::size_t>(D), build, f.type == NumberType::float64);
            };
            if (keeps_lock) {
                sweep();
            } else {
                const ReleasedLock released;
                sweep();
            }
            interrupt.raise();
            values = D == 1 ? outputs[0] : merge(outputs);
        }
        return nb::make_tuple(values, final);
    }

    // Takes references to all storages. False where one is smaller than its tensor. (A call that keeps the
    // lock notices only that there is no memory at all.)
    static bool hold_storages(const nb::object& values, const OwnedViews& states, const OwnedView* weights,
                              std::size_t count, std::vector<nb::object>& storages) {
        storages.reserve(1 + states.size() + count);
        const auto hold = [&storages](const nb::object& tensor) {
            storages.push_back(storage(tensor));
            return bytes_needed(tensor, view_of(tensor)) <= bytes_of(storages.back());
        };
        bool large_enough = hold(values);
        for (const OwnedView& state : states) large_enough = hold(state.tensor) && large_enough;
        for (std::size_t k = 0; k < count; ++k)
            if (weights[k].tensor.is_valid()) large_enough = hold(weights[k].tensor) && large_enough;
        return large_enough;
    }

    // The call of sweep `index`. False where another thread has changed a tensor meanwhile.
    bool fill_call(RawCall& raw, Index index, const nb::object& values, const View& output,
                   OwnedView* weights, OwnedViews& states, const std::vector<View>& final_views,
                   const InputShape& f) const {
        const LayerSweep& layer = sweeps_[index];
        const Index tokens = f.T * f.N;
        const View input = view_of(values);
        if (!is_readable(input, f) || input.numel() != tokens * layer.I) return false;
        IndexList arrays = {0, 0, 0, 0, input.address(), input.numel(), output.address(), output.numel(),
                            0, 0};
        arrays.reserve(64);
        for (std::size_t k = 0; k < layer.shapes.size(); ++k) {
            OwnedView& weight = weights[k];
            if (!weight.tensor.is_valid()) {
                add_array(arrays, nb::handle());
                continue;
            }
            if (!try_view(weight.tensor, weight.view) || !is_readable(weight.view, f) ||
                !weight.view.is(layer.shapes[k]))
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
            OwnedView& state = states[k];
            if (!try_view(state.tensor, state.view) || !is_readable(state.view, f) ||
                state.view.numel() != static_cast<Index>(sweeps_.size()) * f.N * widths_[k])
                return false;
            add_state(&state.view, k);
        }
        for (std::size_t k = 0; k < widths_.size(); ++k) add_state(&final_views[k], k);
        const TokenRows token_rows = dense_token_rows(f.T, f.N, f.batch_first, layer.reverse);
        raw = {layer.program,
               {f.T, f.N, layer.I, tokens, token_rows, f.threads},
               std::move(arrays),
               1,
               number_format_of(f.type),
               nullptr,
               f.bf16_products,
               layer.cache};
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
    bool step_;  // one step: no dimension of time, nor of layers
    std::vector<LayerSweep> sweeps_;
    std::vector<Index> widths_;
};

}  // namespace

void bind_fast_path(nb::module_& m) {
    nb::class_<FastPath>(m, "FastPath", "A stack of layers on plain calls.")
        .def(nb::init<nb::list, nb::list, nb::tuple, nb::tuple, nb::object, bool>(), nb::arg("sweeps"),
             nb::arg("widths"), nb::arg("classes"), nb::arg("watchers"), nb::arg("merge").none(),
             nb::arg("step"))
        .def("__call__", &FastPath::operator(), nb::arg("input").none(), nb::arg("hx").none(),
             nb::arg("parameters"), nb::arg("batch_first"), nb::arg("grad"), nb::arg("build"),
             nb::arg("threads"), nb::arg("bf16_products"));
}

}  // namespace unrolled
