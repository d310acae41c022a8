// A stack of layers from the tensors as the user passed them. Only plain calls are served; for all others the
// result is None, and the general path runs them or raises.
#include "python/bind.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/environment.h"
#include "python/interpreter_lock.h"
#include "python/interrupt.h"
#include "python/short_calls.h"
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
    // `classes`: those of tensors and parameters. `training` runs a call with gradient, from (input, states,
    // weights, parameters, batch_first, bf16_products).
    FastPath(nb::list sweeps, nb::list widths, nb::tuple classes, const Environment& environment,
             nb::object merge, nb::object training, bool step)
        : tensor_(classes[0]),
          parameter_(classes[1]),
          environment_(environment),
          merge_(merge),
          training_(training),
          step_(step) {
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

    // (output, final states as a layer returns them); None where the call is not plain.
    nb::object operator()(nb::handle input, nb::handle hx, nb::dict parameters, bool batch_first) {
        InputShape f;
        f.batch_first = batch_first;
        if (sweeps_.empty() || environment_.is_observed() || !read_input(input, f)) return nb::none();
        f.bf16_products = environment_.bf16_products();
        OwnedViews states;
        if (!read_states(hx, states)) return nb::none();
        OwnedViews weights;  // local: several threads may call
        if (!read_parameters(parameters, weights)) return nb::none();
        if (!environment_.grad_enabled() || !any_requires_grad(input, states, weights))
            return run(input, states, weights, f);
        if (!view_all(states, weights, f)) return nb::none();
        for (const LayerSweep& layer : sweeps_) layer.cache->clear();
        return train(input, states, weights, parameters, f);
    }

private:
    // A tensor (invalid: absent) and its view.
    struct OwnedView {
        nb::object tensor;
        View view;
    };
    using OwnedViews = std::vector<OwnedView>;

    struct InputShape {
        Index T = 0, N = 0;
        bool batch_first = false, contiguous = false, bf16_products = false;
        NumberType type = NumberType::float32;
    };

    std::vector<Index> output_shape(const InputShape& f) const {
        if (f.batch_first) return {f.N, f.T, widths_[0]};
        return {f.T, f.N, widths_[0]};
    }

    std::vector<Index> state_shape(const InputShape& f, std::size_t k) const {
        if (step_) return {f.N, widths_[k]};
        return {static_cast<Index>(sweeps_.size()), f.N, widths_[k]};
    }

    // Whether this is a tensor of torch's own classes, whose numbers are those in memory.
    bool is_plain(nb::handle x) const {
        return (x.type().is(tensor_) || x.type().is(parameter_)) && !has_negative_bit(x);
    }

    static bool is_readable(const View& view, const InputShape& f) {
        return view.on_cpu() && view.type() == f.type && view.contiguous() && !view.freed();
    }

    bool read_input(nb::handle input, InputShape& f) const {
        View view;
        if (!is_plain(input) || !try_view(input, view) || !view.on_cpu()) return false;
        if (view.type() == NumberType::other || view.ndim != (step_ ? 2 : 3)) return false;
        f.T = step_ ? 1 : view.size(0);
        f.N = view.size(-2);
        if (f.batch_first) std::swap(f.T, f.N);
        f.type = view.type();
        f.contiguous = view.contiguous();
        return view.size(-1) == sweeps_[0].I && f.T > 0 && f.N > 0;
    }

    // Adds a tensor without its view, which is taken last: torch's methods let other threads run. A handle
    // from a dict may be freed as soon as they do, so the tensor is owned first.
    bool add(nb::object x, OwnedViews& views) const {
        views.push_back({std::move(x), {}});
        return is_plain(views.back().tensor);
    }

    static bool view(OwnedView& x, const std::vector<Index>& shape, const InputShape& f) {
        return try_view(x.tensor, x.view) && is_readable(x.view, f) && x.view.is(shape);
    }

    // Views all tensors. False where the core cannot read one.
    bool view_all(OwnedViews& states, OwnedViews& weights, const InputShape& f) const {
        for (std::size_t k = 0; k < states.size(); ++k)
            if (!view(states[k], state_shape(f, k), f)) return false;
        OwnedView* weight = weights.data();
        for (const LayerSweep& layer : sweeps_)
            for (const std::vector<Index>& shape : layer.shapes)
                if (OwnedView& x = *weight++; x.tensor.is_valid() && !view(x, shape, f)) return false;
        return true;
    }

    // The initial states; empty: zeros.
    bool read_states(nb::handle hx, OwnedViews& states) const {
        if (hx.is_none()) return true;
        const std::size_t count = widths_.size();
        states.reserve(count);
        if (count == 1) return add(nb::borrow(hx), states);
        if (!PyTuple_CheckExact(hx.ptr()) || nb::len(hx) != count) return false;
        for (std::size_t k = 0; k < count; ++k)
            if (!add(nb::borrow(PyTuple_GET_ITEM(hx.ptr(), static_cast<Py_ssize_t>(k))), states))
                return false;
        return true;
    }

    bool read_parameters(const nb::dict& parameters, OwnedViews& weights) const {
        weights.reserve(8 * sweeps_.size());
        for (const LayerSweep& layer : sweeps_)
            for (std::size_t k = 0; k < layer.shapes.size(); ++k) {
                const nb::handle name = layer.names[k];
                if (name.is_none()) {
                    weights.push_back({});
                    continue;
                }
                PyObject* const parameter = PyDict_GetItemWithError(parameters.ptr(), name.ptr());
                if (!parameter && PyErr_Occurred()) throw nb::python_error();
                if (!parameter || !add(nb::borrow(parameter), weights)) return false;
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

    nb::object train(nb::handle input, const OwnedViews& states, const OwnedViews& weights,
                     const nb::dict& parameters, const InputShape& f) const {
        nb::list initial, list;
        for (const OwnedView& state : states) initial.append(state.tensor);
        for (const OwnedView& weight : weights)
            list.append(weight.tensor.is_valid() ? weight.tensor : nb::none());
        return training_(input, nb::tuple(initial), list, parameters, f.batch_first, f.bf16_products);
    }

    // What this size of call has set up; null if the call is not short, or the last one had another size.
    std::unique_ptr<ShortCall> take_short_call(const nb::object& values, const InputShape& f,
                                               const std::string& build) {
        double work = 0;
        for (const LayerSweep& layer : sweeps_) work += layer.work * static_cast<double>(f.T * f.N);
        if (f.type != NumberType::float32 || f.T * f.N > kMaxPreparedTokens || work > kMaxWorkWithLock)
            return nullptr;
        std::unique_ptr<ShortCall> call =
            short_calls_.take({f.T, f.N, f.batch_first, f.bf16_products, build});
        if (!call || !call->sweeps.empty()) return call;
        call->sweeps.resize(sweeps_.size());
        call->output = empty(values, output_shape(f));
        for (std::size_t k = 0; k < widths_.size(); ++k)
            call->final.push_back(empty(values, state_shape(f, k)));
        return call;
    }

    // None where the core cannot read a tensor, or another thread has changed it meanwhile.
    nb::object run(nb::handle input, OwnedViews& states, OwnedViews& weights, const InputShape& f) {
        const std::string build = environment_.build();
        const Index L = static_cast<Index>(sweeps_.size()), D = merge_.is_none() ? 1 : 2;
        nb::object values = f.contiguous ? nb::borrow(input) : call(input, names().contiguous);
        std::unique_ptr<ShortCall> short_call = take_short_call(values, f, build);
        if (!short_call && !view_all(states, weights, f)) return nb::none();
        const Index threads = short_call ? 1 : environment_.threads();
        nb::object final = checked(PyTuple_New(static_cast<Py_ssize_t>(widths_.size())));
        std::vector<View> final_views;
        for (std::size_t k = 0; k < widths_.size(); ++k) {
            nb::object end = short_call ? empty_like(short_call->final[k]) : empty(values, state_shape(f, k));
            final_views.push_back(view_of(end));
            PyTuple_SET_ITEM(final.ptr(), static_cast<Py_ssize_t>(k), end.release().ptr());
        }
        OwnedView* layer_weights = weights.data();
        for (Index w = 0; w < L; w += D) {
            nb::object outputs[2];
            std::size_t count = 0;  // of the layer's weights
            double work = 0;
            for (Index d = 0; d < D; ++d) {
                outputs[d] = short_call ? empty_like(short_call->output) : empty(values, output_shape(f));
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
                               final_views, f, threads))
                    return nb::none();
                layer_weights += sweeps_[w + d].shapes.size();
            }
            for (Index d = 0; short_call && d < D; ++d) run_short(short_call->sweeps[w + d], calls[d], build);
            if (!short_call) run_sweeps(calls, D, build, f.type, keeps_lock);
            values = D == 1 ? outputs[0] : merge(outputs);
        }
        if (short_call) short_calls_.put_back(std::move(short_call));
        return nb::make_tuple(values, widths_.size() == 1 ? nb::object(final[0]) : final);
    }

    static void run_short(std::unique_ptr<PreparedSweep>& sweep, const RawCall& call,
                          const std::string& build) {
        if (!sweep) sweep.reset(prepare_forward(call, build));
        run_prepared(*sweep, call.arrays);
    }

    static void run_sweeps(RawCall* calls, Index count, const std::string& build, NumberType type,
                           bool keeps_lock) {
        Interrupt interrupt;
        for (Index k = 0; k < count; ++k) calls[k].cancel = &interrupt;
        const auto run = [&] {
            run_forward(calls, static_cast<std::size_t>(count), build, type == NumberType::float64);
        };
        if (keeps_lock) {
            run();
        } else {
            const ReleasedLock released;
            run();
        }
        interrupt.raise();
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
                   const InputShape& f, Index threads) const {
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
            if (!view(weight, layer.shapes[k], f)) return false;
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
            if (!view(states[k], state_shape(f, k), f)) return false;
            add_state(&states[k].view, k);
        }
        for (std::size_t k = 0; k < widths_.size(); ++k) add_state(&final_views[k], k);
        const TokenRows token_rows = dense_token_rows(f.T, f.N, f.batch_first, layer.reverse);
        raw = {layer.program,
               {f.T, f.N, layer.I, tokens, token_rows, threads},
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
    Environment environment_;
    nb::object merge_, training_;
    bool step_;  // one step: no dimension of time, nor of layers
    std::vector<LayerSweep> sweeps_;
    std::vector<Index> widths_;
    ShortCalls short_calls_;
};

}  // namespace

void bind_fast_path(nb::module_& m) {
    nb::class_<Environment>(m, "Environment", "What plain calls depend on besides their arguments.")
        .def(nb::init<nb::tuple, nb::dict, nb::tuple, nb::tuple>(), nb::arg("observers"),
             nb::arg("forward_ad"), nb::arg("variables"), nb::arg("functions"));
    nb::class_<FastPath>(m, "FastPath", "A stack of layers on plain calls.")
        .def(nb::init<nb::list, nb::list, nb::tuple, const Environment&, nb::object, nb::object, bool>(),
             nb::arg("sweeps"), nb::arg("widths"), nb::arg("classes"), nb::arg("environment"),
             nb::arg("merge").none(), nb::arg("training"), nb::arg("step"))
        .def("__call__", &FastPath::operator(), nb::arg("input").none(), nb::arg("hx").none(),
             nb::arg("parameters"), nb::arg("batch_first"));
}

}  // namespace unrolled
