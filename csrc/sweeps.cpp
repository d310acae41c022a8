// One sweep from tensors: makes what it writes, hands out what it made.
#include "sweeps.h"

#include <stdexcept>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "tensors.h"

namespace unrolled {
namespace {

// What both directions read: tensors (tokens, states, then parameters in any order), and which of
// them the core wants where.
class Given {
public:
    using Places = std::vector<Index>;  // of the core's arrays among the tensors, -1 for none
    using Form = std::vector<std::vector<Index>>;  // shapes of the final states

    Given(nb::handle program, std::string build, bool wide, Numbers place, nb::object counts,
          nb::object table, nb::handle tensors, Index states, Places parameters)
        : program_(nb::cast<const Program*>(program)), held_(nb::borrow(program)),
          build_(std::move(build)), wide_(wide), place_(std::move(place)), counts_(counts),
          table_(table), states_(states), parameters_(std::move(parameters)) {
        const Program& p = *program_;
        if (place_.size() != 6) throw std::invalid_argument("place: wanted 6 numbers");
        for (nb::handle tensor : tensors) tensors_.push_back(call(tensor, names().contiguous));
        const Index count = static_cast<Index>(tensors_.size());
        if (count < 1 + states || (states != 0 && states != static_cast<Index>(p.states.size())))
            throw std::invalid_argument("states: wanted all or none of the program's");
        if (parameters_.size() != 2 * (1 + p.products.size()) + p.vectors.size())
            throw std::invalid_argument("parameters: wanted a place for each array of the program");
        for (Index k : parameters_)
            if (k >= count) throw std::invalid_argument("parameters: a tensor that is not there");
        for (const nb::object& tensor : tensors_) check_size(tensor);
        check_weight(0, p.x_parts * p.x_width, shape_of(tokens()).back());
        for (std::size_t k = 0; k < p.products.size(); ++k) {
            const Product& q = p.products[k];
            check_weight(k + 1, q.parts * q.width, q.source);
        }
    }

    // What one run needs and makes; `made` is for the caller.
    struct Run {
        Told told;
        nb::object made;
        std::vector<nb::object> held;  // until the run is over
    };

    // Makes (output [..., P], what backward needs or None, final states).
    Run forward(const Form& form, bool training, Index threads) const {
        std::vector<Index> rows = shape_of(tokens());
        Run run{{program_, sizes(rows.back(), threads), {}}, {}, {}};
        rows.back() = form.at(0).back();
        const nb::object output = full() ? empty(tokens(), rows) : zeros(tokens(), rows);
        nb::object saved = nb::none();
        if (training) {
            const std::vector<Index> kept{total(), program_->saved_pitch};
            saved = program_->saved_whole ? empty(tokens(), kept) : zeros(tokens(), kept);
        }
        run.told.arrays = read(output, saved);
        nb::list final;
        for (const std::vector<Index>& wanted : form) {
            const nb::object end = empty(tokens(), wanted);
            add_array(run.told.arrays, end);
            final.append(end);
        }
        run.made = nb::make_tuple(output, saved, final);
        return run;
    }

    // Makes gradients of the tensors that need one, None for the others; as many as `needs`. `slopes`
    // are those of the output and of the final states, None for zeros.
    Run backward(nb::handle output, nb::handle saved, nb::handle slopes, nb::handle needs,
                 Index threads) const {
        const Index count = static_cast<Index>(program_->states.size());
        Run run{{program_, sizes(shape_of(tokens()).back(), threads), read(output, saved)}, {}, {}};
        Numbers& arrays = run.told.arrays;
        arrays.resize(arrays.size() + 2 * static_cast<std::size_t>(count));
        for (nb::handle slope : slopes) {
            check_size(slope);
            run.held.push_back(slope.is_none() ? nb::none() : call(slope, names().contiguous));
            add_array(arrays, run.held.back());
        }
        nb::list grads;
        std::size_t next = 0;
        for (nb::handle need : needs) {
            if (next == tensors_.size()) throw std::invalid_argument("needs: more than tensors");
            const nb::object& tensor = tensors_[next];
            const bool whole = next++ > 0 || full();
            if (!need.is(Py_True)) grads.append(nb::none());
            else grads.append(whole ? empty(tensor, shape_of(tensor)) : zeros(tensor, shape_of(tensor)));
        }
        const auto add = [&](Index k) {
            const bool some = k >= 0 && k < static_cast<Index>(next);
            add_array(arrays, some ? nb::handle(grads[k]) : nb::handle());
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
    bool wide() const { return wide_; }

    Index total() const {
        return table_.is_none() ? place_[0] * place_[1] : whole(call(table_, names().numel));
    }

private:
    // That a number is as long as the kernels read it, None passes.
    void check_size(nb::handle tensor) const {
        if (!tensor.is_none() && whole(get(tensor, names().itemsize)) != (wide_ ? 8 : 4))
            throw std::runtime_error("tensors: wanted all in float32, or all in float64");
    }

    // That a product's weight is a matrix [rows, columns]: numbers alone do not tell it from [columns,
    // rows].
    void check_weight(std::size_t product, Index rows, Index columns) const {
        const Index k = parameters_[2 * product];
        if (k < 0) return;
        const std::vector<Index> shape = shape_of(tensors_[k]);
        if (shape == std::vector<Index>{rows, columns}) return;
        std::string found;
        for (Index size : shape) found += (found.empty() ? "" : ", ") + std::to_string(size);
        throw std::runtime_error("weight: wanted shape [" + std::to_string(rows) + ", " +
                                 std::to_string(columns) + "], got [" + found + "]");
    }

    const nb::object& tokens() const { return tensors_[0]; }
    bool full() const { return total() == place_[2]; }

    Numbers sizes(Index I, Index threads) const {
        return {place_[0], place_[1], I, place_[2], place_[3], place_[4], place_[5], threads};
    }

    // What both directions read, in the order of arrays.h.
    Numbers read(nb::handle output, nb::handle saved) const {
        check_size(output);
        check_size(saved);
        Numbers arrays;
        arrays.reserve(64);
        for (const nb::object* tensor : {&counts_, &table_, &tokens()}) add_array(arrays, *tensor);
        add_array(arrays, output);
        add_array(arrays, saved);
        for (Index k : parameters_) add_array(arrays, k < 0 ? nb::handle() : nb::handle(tensors_[k]));
        for (Index k = 0; k < static_cast<Index>(program_->states.size()); ++k)
            add_array(arrays, states_ > 0 ? nb::handle(tensors_[1 + k]) : nb::handle());
        return arrays;
    }

    const Program* program_;
    nb::object held_;  // the program's owner
    std::string build_;
    bool wide_;
    Numbers place_;  // T, N, rows; row of the first token, how far the next step and sequence are
    nb::object counts_, table_;
    std::vector<nb::object> tensors_;
    Index states_;
    Places parameters_;
};

using Form = Given::Form;

nb::object forward(const Given& g, const Form& form, bool training, Index threads) {
    const Given::Run run = g.forward(form, training, threads);
    {
        nb::gil_scoped_release free;
        run_forward(run.told, g.build(), g.wide());
    }
    return run.made;
}

nb::object forward_both(const Given& a, const Given& b, const Form& form, bool training,
                        Index threads) {
    const Given::Run first = a.forward(form, training, threads);
    const Given::Run second = b.forward(form, training, threads);
    {
        nb::gil_scoped_release free;
        run_forward(first.told, second.told, a.build(), a.wide());
    }
    return nb::make_tuple(first.made, second.made);
}

nb::object backward(const Given& g, nb::handle output, nb::handle saved, nb::handle slopes,
                    nb::handle needs, Index threads) {
    const Given::Run run = g.backward(output, saved, slopes, needs, threads);
    {
        nb::gil_scoped_release free;
        run_backward(run.told, g.build(), g.wide());
    }
    return run.made;
}

// Of each: (output, saved, slopes, needs).
nb::object backward_both(const Given& a, const Given& b, nb::tuple of_a, nb::tuple of_b,
                         Index threads) {
    const Given::Run first = a.backward(of_a[0], of_a[1], of_a[2], of_a[3], threads);
    const Given::Run second = b.backward(of_b[0], of_b[1], of_b[2], of_b[3], threads);
    {
        nb::gil_scoped_release free;
        run_backward(first.told, second.told, a.build(), a.wide());
    }
    return nb::make_tuple(first.made, second.made);
}

}  // namespace

void bind_sweeps(nb::module_& m) {
    nb::class_<Given>(m, "Given", "What a run reads.")
        .def(nb::init<nb::handle, std::string, bool, Numbers, nb::object, nb::object, nb::handle, Index,
                      Given::Places>(),
             nb::arg("program"), nb::arg("build"), nb::arg("wide"), nb::arg("place"),
             nb::arg("counts").none(), nb::arg("table").none(), nb::arg("tensors"), nb::arg("states"),
             nb::arg("parameters"))
        .def("forward", &forward, nb::arg("form"), nb::arg("training"), nb::arg("threads"))
        .def("backward", &backward, nb::arg("output"), nb::arg("saved"), nb::arg("slopes"),
             nb::arg("needs"), nb::arg("threads"))
        .def("forward_both", &forward_both, nb::arg("other"), nb::arg("form"), nb::arg("training"),
             nb::arg("threads"))
        .def("backward_both", &backward_both, nb::arg("other"), nb::arg("own"), nb::arg("others"),
             nb::arg("threads"))
        .def_prop_ro("total", &Given::total, "Number of tokens.");
}

}  // namespace unrolled
