// One sweep from tensors: makes what it writes, hands out what it made.
#include "sweeps.h"

#include <stdexcept>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "tensors.h"

namespace unrolled {
namespace {

// What stays the same between runs: the program, which rows the tokens are, which of the tensors that a
// run is given (tokens, states, then parameters in any order) the core wants where.
class Work {
public:
    using Places = std::vector<Index>;  // of the core's arrays among the tensors, -1 for none
    using Form = std::vector<std::vector<Index>>;  // shapes of the final states

    Work(nb::handle program, std::string build, Numbers place, nb::object counts, nb::object table,
         Index states, Places parameters, Form form)
        : program_(nb::cast<const Program*>(program)), held_(nb::borrow(program)),
          build_(std::move(build)), place_(std::move(place)), counts_(counts), table_(table),
          states_(states), parameters_(std::move(parameters)), form_(std::move(form)) {
        const Program& p = *program_;
        if (place_.size() != 6) throw std::invalid_argument("place: wanted 6 numbers");
        if (states != 0 && states != static_cast<Index>(p.states.size()))
            throw std::invalid_argument("states: wanted all or none of the program's");
        if (parameters_.size() != 2 * (1 + p.products.size()) + p.vectors.size())
            throw std::invalid_argument("parameters: wanted a place for each array of the program");
        if (form_.size() != p.states.size())
            throw std::invalid_argument("form: wanted the shape of each state");
        for (const auto& shape : form_)
            if (shape.empty()) throw std::invalid_argument("form: a state without dimensions");
    }

    // One run's tensors, whose numbers lie in a row each.
    struct Tensors {
        std::vector<nb::object> held;
        std::vector<View> views;
        bool wide = false;  // float64

        const nb::object& tokens() const { return held[0]; }
        void add(nb::handle tensor) {
            held.push_back(nb::borrow(tensor));
            views.push_back(see(tensor));
            if (views.back().contiguous()) return;
            held.back() = call(tensor, names().contiguous);
            views.back() = see(held.back());
        }
    };

    // What one run needs and makes; `made` is for the caller.
    struct Run {
        Tensors given;
        Told told;
        nb::object made;
        std::vector<nb::object> held;  // until the run is over
    };

    // Makes (output [..., P], what backward needs or None, final states).
    Run forward(nb::handle tensors, bool training, Index threads) const {
        Run run{take(tensors), {}, {}, {}};
        const nb::object& tokens = run.given.tokens();
        std::vector<Index> rows = run.given.views[0].sizes();
        rows.back() = form_[0].back();
        const nb::object output = (full() ? empty : zeros)(tokens, rows);
        nb::object saved = nb::none();
        if (training)
            saved = (program_->saved_whole ? empty : zeros)(tokens, {total(), program_->saved_pitch});
        run.told = tell(run.given, output, saved, threads);
        nb::list final;
        for (const std::vector<Index>& shape : form_) {
            const nb::object end = empty(tokens, shape);
            add_array(run.told.arrays, end);
            final.append(end);
        }
        run.made = nb::make_tuple(output, saved, final);
        return run;
    }

    // Makes gradients of the tensors that need one, None for the others. `slopes` are those of the
    // output and of the final states, None for zeros.
    Run backward(nb::handle tensors, nb::handle output, nb::handle saved, nb::handle slopes,
                 nb::handle needs, Index threads) const {
        const Index count = static_cast<Index>(program_->states.size());
        Run run{take(tensors), {}, {}, {}};
        run.told = tell(run.given, output, saved, threads);
        Numbers& arrays = run.told.arrays;
        arrays.resize(arrays.size() + 2 * static_cast<std::size_t>(count));
        Tensors from;
        for (nb::handle slope : slopes) {
            if (slope.is_none()) {
                add_array(arrays, slope);
                continue;
            }
            from.add(slope);
            check_kind(from.views.back(), run.given.wide);
            add_array(arrays, from.views.back());
        }
        run.held = std::move(from.held);
        nb::list grads;
        std::vector<nb::object> made;
        for (nb::handle need : needs) {
            if (made.size() == run.given.held.size())
                throw std::invalid_argument("needs: more than tensors");
            const nb::object& tensor = run.given.held[made.size()];
            const bool whole = !made.empty() || full();
            nb::object grad = nb::none();
            if (need.is(Py_True))
                grad = (whole ? empty : zeros)(tensor, run.given.views[made.size()].sizes());
            made.push_back(grad);
            grads.append(grad);
        }
        const auto add = [&](Index k) {
            const bool some = k >= 0 && k < static_cast<Index>(made.size());
            add_array(arrays, some ? made[static_cast<std::size_t>(k)] : nb::handle());
        };
        add(0);
        for (Index k = 0; k < count; ++k) add(states_ > 0 ? 1 + k : -1);
        const std::size_t matrices = 2 * (1 + program_->products.size());
        for (std::size_t k = matrices; k < parameters_.size(); ++k) add(parameters_[k]);
        for (std::size_t k = 0; k < matrices; ++k) add(parameters_[k]);
        run.made = grads;
        return run;
    }

    const std::string& build() const { return build_; }

    Index total() const { return table_.is_none() ? place_[0] * place_[1] : see(table_).numel(); }

private:
    Tensors take(nb::handle tensors) const {
        Tensors given;
        for (nb::handle tensor : tensors) given.add(tensor);
        const Index count = static_cast<Index>(given.held.size());
        if (count < 1 + states_) throw std::invalid_argument("tensors: wanted tokens and states");
        given.wide = given.views[0].itemsize() == 8;
        for (const View& view : given.views) check_kind(view, given.wide);
        if (given.views[0].ndim < 1) throw std::invalid_argument("tokens: no dimension");
        const Program& p = *program_;
        check_weight(given, 0, p.x_parts * p.x_width, given.views[0].size(-1));
        for (std::size_t k = 0; k < p.products.size(); ++k) {
            const Product& q = p.products[k];
            check_weight(given, k + 1, q.parts * q.width, q.source);
        }
        for (Index k : parameters_)
            if (k >= count) throw std::invalid_argument("parameters: a tensor that is not there");
        return given;
    }

    // That numbers are as the kernels read them.
    static void check_kind(const View& view, bool wide) {
        if (!view.on_cpu() || !view.real() || view.itemsize() != (wide ? 8 : 4))
            throw std::runtime_error("tensors: wanted all in float32, or all in float64");
    }

    // That a product's weight is a matrix [rows, columns]: numbers alone do not tell it from [columns,
    // rows].
    void check_weight(const Tensors& given, std::size_t product, Index rows, Index columns) const {
        const Index k = parameters_[2 * product];
        if (k < 0 || k >= static_cast<Index>(given.views.size())) return;
        const View& view = given.views[static_cast<std::size_t>(k)];
        if (view.is({rows, columns})) return;
        std::string found;
        for (Index size : view.sizes()) found += (found.empty() ? "" : ", ") + std::to_string(size);
        throw std::runtime_error("weight: wanted shape [" + std::to_string(rows) + ", " +
                                 std::to_string(columns) + "], got [" + found + "]");
    }

    bool full() const { return total() == place_[2]; }

    // What both directions read, in the order of arrays.h.
    Told tell(const Tensors& given, nb::handle output, nb::handle saved, Index threads) const {
        Told told{program_,
                  {place_[0], place_[1], given.views[0].size(-1), place_[2], place_[3], place_[4],
                   place_[5], threads},
                  {}};
        Numbers& arrays = told.arrays;
        arrays.reserve(64);
        add_array(arrays, counts_);
        add_array(arrays, table_);
        add_array(arrays, given.views[0]);
        for (nb::handle tensor : {output, saved}) {
            if (!tensor.is_none()) check_kind(see(tensor), given.wide);
            add_array(arrays, tensor);
        }
        const auto add = [&](Index k) {
            if (k < 0) add_array(arrays, nb::handle());
            else add_array(arrays, given.views[static_cast<std::size_t>(k)]);
        };
        for (Index k : parameters_) add(k);
        for (std::size_t k = 0; k < program_->states.size(); ++k)
            add(states_ > 0 ? 1 + static_cast<Index>(k) : -1);
        return told;
    }

    const Program* program_;
    nb::object held_;  // the program's owner
    std::string build_;
    Numbers place_;  // T, N, rows; row of the first token, how far the next step and sequence are
    nb::object counts_, table_;
    Index states_;
    Places parameters_;
    Form form_;
};

nb::object forward(const Work& work, nb::handle tensors, bool training, Index threads) {
    const Work::Run run = work.forward(tensors, training, threads);
    {
        nb::gil_scoped_release free;
        run_forward(run.told, work.build(), run.given.wide);
    }
    return run.made;
}

void check_same(const Work::Run& first, const Work::Run& second) {
    if (first.given.wide != second.given.wide)
        throw std::runtime_error("tensors: wanted all in float32, or all in float64");
}

nb::object forward_both(const Work& a, const Work& b, nb::handle of_a, nb::handle of_b,
                        bool training, Index threads) {
    const Work::Run first = a.forward(of_a, training, threads);
    const Work::Run second = b.forward(of_b, training, threads);
    check_same(first, second);
    {
        nb::gil_scoped_release free;
        run_forward(first.told, second.told, a.build(), first.given.wide);
    }
    return nb::make_tuple(first.made, second.made);
}

nb::object backward(const Work& work, nb::handle tensors, nb::handle output, nb::handle saved,
                    nb::handle slopes, nb::handle needs, Index threads) {
    const Work::Run run = work.backward(tensors, output, saved, slopes, needs, threads);
    {
        nb::gil_scoped_release free;
        run_backward(run.told, work.build(), run.given.wide);
    }
    return run.made;
}

// Of each: (tensors, output, saved, slopes, needs).
nb::object backward_both(const Work& a, const Work& b, nb::tuple of_a, nb::tuple of_b,
                         Index threads) {
    const auto make = [threads](const Work& work, nb::tuple of) {
        return work.backward(of[0], of[1], of[2], of[3], of[4], threads);
    };
    const Work::Run first = make(a, of_a), second = make(b, of_b);
    check_same(first, second);
    {
        nb::gil_scoped_release free;
        run_backward(first.told, second.told, a.build(), first.given.wide);
    }
    return nb::make_tuple(first.made, second.made);
}

}  // namespace

void bind_sweeps(nb::module_& m) {
    nb::class_<Work>(m, "Work", "What stays the same between runs of a sweep.")
        .def(nb::init<nb::handle, std::string, Numbers, nb::object, nb::object, Index, Work::Places,
                      Work::Form>(),
             nb::arg("program"), nb::arg("build"), nb::arg("place"), nb::arg("counts").none(),
             nb::arg("table").none(), nb::arg("states"), nb::arg("parameters"), nb::arg("form"))
        .def("forward", &forward, nb::arg("tensors"), nb::arg("training"), nb::arg("threads"))
        .def("backward", &backward, nb::arg("tensors"), nb::arg("output"), nb::arg("saved").none(),
             nb::arg("slopes"), nb::arg("needs"), nb::arg("threads"))
        .def("forward_both", &forward_both, nb::arg("other"), nb::arg("own"), nb::arg("others"),
             nb::arg("training"), nb::arg("threads"))
        .def("backward_both", &backward_both, nb::arg("other"), nb::arg("own"), nb::arg("others"),
             nb::arg("threads"))
        .def_prop_ro("total", &Work::total, "Number of tokens.");
}

}  // namespace unrolled
