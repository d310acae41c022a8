// One sweep from tensors: makes what it writes, hands out what it made.
#include "python/compiled_sweep.h"

#include <stdexcept>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/interrupt.h"
#include "python/owned_tensor.h"
#include "python/tensors.h"
#include "python/unlocked.h"
#include "support/sizes.h"

namespace unrolled {
namespace {

// Sweeps of one kind side by side: so many, and which of the tensors have a first dimension of so
// many; the others are the same for all. None: one sweep.
struct Stack {
    Index count = 0;
    std::vector<bool> which;
    bool has(std::size_t k) const { return k < which.size() && which[k]; }
};

// What stays the same between runs: the program, which rows the tokens are, which of the tensors that a
// run is given (tokens, states, then parameters in any order) the core wants where.
class Work {
public:
    using Places = std::vector<Index>;  // of the core's arrays among the tensors, -1 for none
    using Form = std::vector<std::vector<Index>>;  // shapes of the final states

    Work(nb::handle program, std::string build, Numbers place, nb::object counts, nb::object table,
         Index states, Places parameters, Form form, Index groups)
        : program_(nb::cast<const Program*>(program)), held_(nb::borrow(program)),
          build_(std::move(build)), place_(std::move(place)), counts_(counts), table_(table),
          states_(states), parameters_(std::move(parameters)), form_(std::move(form)),
          groups_(groups) {
        const Program& p = *program_;
        if (place_.size() != 6) throw std::invalid_argument("place: wanted 6 numbers");
        if (table.is_none()) total_ = product(place_[0], place_[1]);
        if (states != 0 && states != static_cast<Index>(p.states.size()))
            throw std::invalid_argument("states: wanted all or none of the program's");
        if (parameters_.size() != 2 * (1 + p.products.size()) + p.vectors.size())
            throw std::invalid_argument("parameters: wanted a place for each array of the program");
        if (form_.size() != p.states.size())
            throw std::invalid_argument("form: wanted the shape of each state");
        for (const auto& shape : form_)
            if (shape.empty()) throw std::invalid_argument("form: a state without dimensions");
        find_reached();
    }

    struct Tensors {
        std::vector<Owned> arrays;
        Kind kind = Kind::float32;

        const View& tokens() const { return arrays[0].view; }
        bool half() const { return storage_of(kind) != Storage::own; }
        bool wide() const { return kind == Kind::float64; }
    };

    // What one run needs and makes; `made` is for the caller.
    struct Run {
        Tensors given;
        Told told;            // of the first sweep
        Numbers steps;        // by array: bytes to the next sweep's
        Index count = 1;      // of sweeps
        nb::object made;
        std::vector<Owned> held;  // until the run is over

        void add(const Owned& array) {
            add_array(told.arrays, array.view);
            steps.push_back(array.step);
        }
        void add() {
            told.arrays.insert(told.arrays.end(), {0, 0});
            steps.push_back(0);
        }
    };

    // Makes (output [..., P], what backward needs or None, final states).
    Run forward(nb::handle tensors, const Stack& stack, bool training, Index threads) const {
        Run run = begin(tensors, stack, threads);
        const nb::object& tokens = run.given.arrays[0].held;
        std::vector<Index> rows = run.given.tokens().sizes();
        rows.back() = form_[0].back();
        const Owned output = make(tokens, stack, rows, full());
        Owned saved;
        if (training)
            saved = make(run.given.half() ? in_float() : nb::handle(tokens), stack,
                         {total(), program_->saved_pitch}, program_->saved_whole);
        tell(run, output, training ? &saved : nullptr);
        nb::list final;
        for (const std::vector<Index>& shape : form_) {
            const Owned end = make(tokens, stack, shape, true);
            run.add(end);
            final.append(end.held);
        }
        run.made = nb::make_tuple(output.held, training ? saved.held : nb::none(), final);
        return run;
    }

    // Makes gradients of the tensors that need one, None for the others and for those that no gradient
    // reaches. `slopes` are those of the output and of the final states, None for zeros. A stack names
    // tensors, output, saved, slopes.
    Run backward(nb::handle tensors, const Stack& stack, nb::handle output, nb::handle saved,
                 nb::handle slopes, nb::handle needs, Index threads) const {
        const std::size_t count = program_->states.size();
        Run run = begin(tensors, stack, threads);
        run.told.groups = groups_;
        std::size_t place = run.given.arrays.size();
        run.held.reserve(3 + count);
        const auto see_next = [&](nb::handle tensor) -> const Owned& {
            return run.held.emplace_back(show(tensor, stack, place++));
        };
        const Owned& ended = see_next(output);
        const Owned& kept = saved.is_none() ? run.held.emplace_back() : see_next(saved);
        check_kind(ended.view, run.given.kind);
        if (!saved.is_none())
            check_kind(kept.view, run.given.half() ? Kind::float32 : run.given.kind);
        tell(run, ended, saved.is_none() ? nullptr : &kept);
        for (std::size_t k = 0; k < count; ++k) run.add();
        for (nb::handle slope : slopes) {
            if (slope.is_none()) {
                ++place;
                run.add();
            } else {
                const Owned& seen = see_next(slope);
                run.add(seen);
                check_kind(seen.view, run.given.kind);
            }
        }
        nb::list grads;
        std::vector<Owned> made;
        for (nb::handle need : needs) {
            const std::size_t k = made.size();
            if (k == run.given.arrays.size()) throw std::invalid_argument("needs: more than tensors");
            const Owned& of = run.given.arrays[k];
            Owned grad;
            if (need.is(Py_True) && reached(k)) {
                std::vector<Index> shape = of.view.sizes();
                if (groups_ > 1 && k > static_cast<std::size_t>(states_))
                    shape.insert(shape.begin(), groups_);
                grad = make(of.held, stack, shape, k > 0 || full());
            }
            grads.append(grad.held.is_valid() ? grad.held : nb::none());
            made.push_back(std::move(grad));
        }
        const auto add = [&](Index k) {
            const bool some = k >= 0 && k < static_cast<Index>(made.size());
            if (some && made[static_cast<std::size_t>(k)].held.is_valid())
                run.add(made[static_cast<std::size_t>(k)]);
            else run.add();
        };
        add(0);
        for (std::size_t k = 0; k < count; ++k) add(states_ > 0 ? 1 + static_cast<Index>(k) : -1);
        const std::size_t matrices = 2 * (1 + program_->products.size());
        for (std::size_t k = matrices; k < parameters_.size(); ++k) add(parameters_[k]);
        for (std::size_t k = 0; k < matrices; ++k) add(parameters_[k]);
        run.made = grads;
        return run;
    }

    // Whether a gradient reaches tensor number k of a run.
    bool reached(std::size_t k) const { return k < reached_.size() && reached_[k]; }

    const std::string& build() const { return build_; }

    Index total() const { return table_.is_none() ? total_ : see(table_).numel(); }

private:
    // Initial states that no step reads are the final ones of sequences without a token.
    void find_reached() {
        const Reached& by = program_->reached;
        reached_.push_back(by.products[0]);
        for (std::size_t k = 0; k < static_cast<std::size_t>(states_); ++k)
            reached_.push_back(by.states[k] || !counts_.is_none());
        const std::size_t matrices = 2 * by.products.size();
        for (std::size_t k = 0; k < parameters_.size(); ++k) {
            if (parameters_[k] < 0) continue;
            const std::size_t place = static_cast<std::size_t>(parameters_[k]);
            if (place >= reached_.size()) reached_.resize(place + 1, false);
            reached_[place] = k < matrices ? by.products[k / 2] : by.vectors[k - matrices];
        }
    }

    Run begin(nb::handle tensors, const Stack& stack, Index threads) const {
        Run run;
        if (stack.count > 0) run.count = stack.count;
        Tensors& given = run.given;
        for (nb::handle tensor : tensors)
            given.arrays.push_back(show(tensor, stack, given.arrays.size()));
        const Index count = static_cast<Index>(given.arrays.size());
        if (count < 1 + states_) throw std::invalid_argument("tensors: wanted tokens and states");
        given.kind = given.tokens().kind();
        for (const Owned& array : given.arrays) check_kind(array.view, given.kind);
        run.told.storage = storage_of(given.kind);
        if (given.tokens().ndim < 1) throw std::invalid_argument("tokens: no dimension");
        for (Index k : parameters_)
            if (k >= count) throw std::invalid_argument("parameters: a tensor that is not there");
        check_parameters(given);
        run.told.program = program_;
        run.told.shape = {place_[0], place_[1], given.tokens().size(-1), place_[2], place_[3],
                          place_[4], place_[5], threads};
        return run;
    }

    // Tensor number k of a run.
    static Owned show(nb::handle tensor, const Stack& stack, std::size_t k) {
        const bool negative = negated(tensor);
        Owned array;
        array.take(negative ? call(tensor, names().resolve_neg) : nb::borrow(tensor));
        if (!array.view.contiguous()) array.take(call(array.held, names().contiguous));
        if (stack.has(k)) enter(array, stack);
        return array;
    }

    // Without the dimension of the sweeps.
    static void enter(Owned& array, const Stack& stack) {
        if (array.view.ndim < 1 || array.view.size(0) != stack.count)
            throw std::invalid_argument("stack: a tensor without a first dimension of its count");
        array.drop_first();
    }

    // A new tensor of this shape for each sweep; not `whole`: zeros, as not all of it is written.
    static Owned make(nb::handle like, const Stack& stack, std::vector<Index> shape, bool whole) {
        if (stack.count > 0) shape.insert(shape.begin(), stack.count);
        Owned array;
        array.make((whole ? empty : zeros)(like, shape));
        if (stack.count > 0) enter(array, stack);
        return array;
    }

    // That numbers are as the kernels read them.
    static void check_kind(const View& view, Kind kind) {
        if (!view.on_cpu() || kind == Kind::other || view.kind() != kind)
            throw std::runtime_error(
                "tensors: wanted all in float32, or all in float64, bfloat16 or float16");
    }

    // That parameters have the shapes of the program's: the number of elements alone does not tell a
    // weight from its transpose, nor an empty bias from none.
    void check_parameters(const Tensors& given) const {
        const Program& p = *program_;
        check_shape(given, parameters_[0], {p.x_parts * p.x_width, given.tokens().size(-1)}, "weight");
        check_shape(given, parameters_[1], {p.x_parts * p.x_width}, "bias");
        std::size_t place = 2;
        for (const Product& q : p.products) {
            check_shape(given, parameters_[place++], {q.parts * q.width, q.source}, "weight");
            check_shape(given, parameters_[place++], {q.parts * q.width}, "bias");
        }
        for (Index width : p.vectors) check_shape(given, parameters_[place++], {width}, "vector");
    }

    static void check_shape(const Tensors& given, Index k, const std::vector<Index>& shape,
                            const char* what) {
        if (k < 0) return;
        const View& view = given.arrays[static_cast<std::size_t>(k)].view;
        if (view.is(shape)) return;
        throw std::runtime_error(std::string(what) + " must have shape " + text_of(shape) +
                                 ", got " + text_of(view.sizes()));
    }

    bool full() const { return total() == place_[2]; }

    // What both directions read, in the order of raw_call.h.
    void tell(Run& run, const Owned& output, const Owned* saved) const {
        Numbers& arrays = run.told.arrays;
        arrays.reserve(64);
        run.steps.reserve(32);
        add_array(arrays, counts_);
        add_array(arrays, table_);
        run.steps.assign(2, 0);
        run.add(run.given.arrays[0]);
        run.add(output);
        if (saved) run.add(*saved);
        else run.add();
        const auto add = [&](Index k) {
            if (k < 0) run.add();
            else run.add(run.given.arrays[static_cast<std::size_t>(k)]);
        };
        for (Index k : parameters_) add(k);
        for (std::size_t k = 0; k < program_->states.size(); ++k)
            add(states_ > 0 ? 1 + static_cast<Index>(k) : -1);
    }

    const Program* program_;
    nb::object held_;  // the program's owner
    std::string build_;
    Numbers place_;  // T, N, rows; row of the first token, how far the next step and sequence are
    nb::object counts_, table_;
    Index total_ = 0;  // tokens, where there is no table
    Index states_;
    Places parameters_;
    Form form_;
    std::vector<bool> reached_;  // by tensor of a run
    Index groups_;  // sums over tokens that backward makes, see Gradients
};

using Kernel = void (*)(const Told*, std::size_t, const std::string&, bool);

// Runs what was begun, without the interpreter's lock.
nb::object finish(Work::Run run, Kernel kernel, const std::string& build) {
    Interrupt interrupt;
    run.told.stop = &interrupt;
    std::vector<Told> calls(1, std::move(run.told));
    calls.reserve(static_cast<std::size_t>(run.count));
    for (Index g = 1; g < run.count; ++g) {
        calls.push_back(calls[0]);
        for (std::size_t k = 0; k < run.steps.size(); ++k)
            calls.back().arrays[2 * k] += g * run.steps[k];
    }
    {
        const Unlocked unlocked;
        kernel(calls.data(), calls.size(), build, run.given.wide());
    }
    interrupt.raise();
    return run.made;
}

nb::object finish(Work::Run first, Work::Run second, Kernel kernel, const std::string& build) {
    if (first.given.kind != second.given.kind)
        throw std::runtime_error("tensors: wanted all of one kind");
    Interrupt interrupt;
    Told calls[2] = {std::move(first.told), std::move(second.told)};
    for (Told& told : calls) told.stop = &interrupt;
    {
        const Unlocked unlocked;
        kernel(calls, 2, build, first.given.wide());
    }
    interrupt.raise();
    return nb::make_tuple(first.made, second.made);
}

nb::object forward(const Work& work, nb::handle tensors, bool training, Index threads) {
    return finish(work.forward(tensors, {}, training, threads), run_forward, work.build());
}

nb::object forward_both(const Work& a, const Work& b, nb::handle of_a, nb::handle of_b,
                        bool training, Index threads) {
    return finish(a.forward(of_a, {}, training, threads), b.forward(of_b, {}, training, threads),
                  run_forward, a.build());
}

nb::object forward_each(const Work& work, Index count, std::vector<bool> which, nb::handle tensors,
                        bool training, Index threads) {
    const Stack stack{count, std::move(which)};
    return finish(work.forward(tensors, stack, training, threads), run_forward, work.build());
}

nb::object backward(const Work& work, nb::handle tensors, nb::handle output, nb::handle saved,
                    nb::handle slopes, nb::handle needs, Index threads) {
    return finish(work.backward(tensors, {}, output, saved, slopes, needs, threads), run_backward,
                  work.build());
}

// Of each: (tensors, output, saved, slopes, needs).
nb::object backward_both(const Work& a, const Work& b, nb::tuple of_a, nb::tuple of_b,
                         Index threads) {
    const auto make = [threads](const Work& work, nb::tuple of) {
        return work.backward(of[0], {}, of[1], of[2], of[3], of[4], threads);
    };
    return finish(make(a, of_a), make(b, of_b), run_backward, a.build());
}

nb::object backward_each(const Work& work, Index count, std::vector<bool> which, nb::handle tensors,
                         nb::handle output, nb::handle saved, nb::handle slopes, nb::handle needs,
                         Index threads) {
    const Stack stack{count, std::move(which)};
    return finish(work.backward(tensors, stack, output, saved, slopes, needs, threads), run_backward,
                  work.build());
}

}  // namespace

void bind_sweeps(nb::module_& m) {
    nb::class_<Work>(m, "Work", "What stays the same between runs of a sweep.")
        .def(nb::init<nb::handle, std::string, Numbers, nb::object, nb::object, Index, Work::Places,
                      Work::Form, Index>(),
             nb::arg("program"), nb::arg("build"), nb::arg("place"), nb::arg("counts").none(),
             nb::arg("table").none(), nb::arg("states"), nb::arg("parameters"), nb::arg("form"),
             nb::arg("groups"))
        .def("forward", &forward, nb::arg("tensors"), nb::arg("training"), nb::arg("threads"))
        .def("backward", &backward, nb::arg("tensors"), nb::arg("output"), nb::arg("saved").none(),
             nb::arg("slopes"), nb::arg("needs"), nb::arg("threads"))
        .def("forward_both", &forward_both, nb::arg("other"), nb::arg("own"), nb::arg("others"),
             nb::arg("training"), nb::arg("threads"))
        .def("backward_both", &backward_both, nb::arg("other"), nb::arg("own"), nb::arg("others"),
             nb::arg("threads"))
        .def("forward_each", &forward_each, nb::arg("count"), nb::arg("stacked"), nb::arg("tensors"),
             nb::arg("training"), nb::arg("threads"))
        .def("backward_each", &backward_each, nb::arg("count"), nb::arg("stacked"),
             nb::arg("tensors"), nb::arg("output"), nb::arg("saved"), nb::arg("slopes"),
             nb::arg("needs"), nb::arg("threads"))
        .def("reached", &Work::reached, nb::arg("tensor"),
             "Whether a gradient reaches a tensor of a run, by its number.")
        .def_prop_ro("total", &Work::total, "Number of tokens.");
}

}  // namespace unrolled
