// One sweep from tensors: checks them, allocates its outputs and fills its call.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "python/owned_tensor.h"
#include "python/tensors.h"
#include "support/sizes.h"

namespace unrolled {

// A batch of sweeps of equal shape: how many, and which tensors are stacked, with a first dimension of that
// size; the others are shared. count 0: one sweep.
struct Batched {
    Index count = 0;
    std::vector<bool> stacked;
    bool has(std::size_t k) const { return k < stacked.size() && stacked[k]; }
};

// What all runs share: the program, the rows of the tokens, and which tensor of a run (tokens,
// states, then parameters in any order) is which array of the core.
class CompiledSweep {
public:
    using ArrayIndices = std::vector<Index>;              // by array of the core: its tensor, -1: none
    using StateShapes = std::vector<std::vector<Index>>;  // of the final states

    CompiledSweep(nb::handle program, std::string build, const IndexList& rows, nb::object counts,
                  nb::object table, Index states, ArrayIndices parameters, StateShapes state_shapes,
                  Index groups, bool bf16_products)
        : program_(nb::cast<const Program*>(program)),
          owner_(nb::borrow(program)),
          build_(std::move(build)),
          counts_(counts),
          table_(table),
          states_(states),
          parameters_(std::move(parameters)),
          state_shapes_(std::move(state_shapes)),
          groups_(groups),
          bf16_products_(bf16_products) {
        const Program& p = *program_;
        if (rows.size() != 6)
            throw std::invalid_argument("rows: must have 6 numbers, got " + std::to_string(rows.size()));
        shape_ = {rows[0], rows[1], 0, rows[2], {nullptr, rows[3], rows[4], rows[5]}, 1};
        if (table.is_none()) total_ = checked_product(shape_.T, shape_.N);
        if (states != 0) check_count("states", static_cast<std::size_t>(states), p.states.size());
        check_count("parameters", parameters_.size(), 2 * (1 + p.products.size()) + p.vectors.size());
        check_count("state_shapes", state_shapes_.size(), p.states.size());
        for (const auto& shape : state_shapes_)
            if (shape.empty())
                throw std::invalid_argument("state_shapes: a shape must have a dimension, got []");
        find_reached();
    }

    struct Tensors {
        std::vector<OwnedTensor> arrays;
        NumberType type = NumberType::float32;

        const View& tokens() const { return arrays[0].view; }
        bool half() const { return number_format_of(type) != NumberFormat::native; }
        bool wide() const { return type == NumberType::float64; }
    };

    // One run: its tensors and its call. `result` is what the caller gets.
    struct Execution {
        Tensors inputs;
        RawCall call;     // of the first sweep
        IndexList steps;  // by array: bytes to that of the next sweep
        Index count = 1;  // of sweeps
        nb::object result;
        std::vector<OwnedTensor> buffers;  // owned until the run is over

        void add(const OwnedTensor& array) {
            add_array(call.arrays, array.view);
            steps.push_back(array.step);
        }
        void add() {
            call.arrays.insert(call.arrays.end(), {0, 0});
            steps.push_back(0);
        }
    };

    // Its result is (output [..., P], the saved array or None, final states). The saved array is
    // [tokens, saved_pitch], or with `saved_size` that many numbers, see mark_saved.
    Execution forward(nb::handle tensors, const Batched& batched, bool training, Index threads,
                      Index saved_size = 0) const {
        Execution run = begin_call(tensors, batched, threads);
        const nb::object& tokens = run.inputs.arrays[0].tensor;
        std::vector<Index> rows = run.inputs.tokens().sizes();
        rows.back() = state_shapes_[0].back();
        const OwnedTensor output = make_output(tokens, batched, rows, covers_all_rows());
        OwnedTensor saved;
        if (training) {
            std::vector<Index> shape = {total(), program_->saved_pitch};
            if (saved_size > 0) shape = {saved_size};
            saved = make_output(run.inputs.half() ? float_tensor() : nb::handle(tokens), batched, shape,
                                program_->saved_whole);
            if (saved_size > 0) mark_saved(saved, run.inputs.wide());
        }
        add_inputs(run, output, training ? &saved : nullptr);
        nb::list final;
        for (const std::vector<Index>& shape : state_shapes_) {
            const OwnedTensor final_state = make_output(tokens, batched, shape, true);
            run.add(final_state);
            final.append(final_state.tensor);
        }
        run.result = nb::make_tuple(output.tensor, training ? saved.tensor : nb::none(), final);
        return run;
    }

    // Its result is the gradients of the tensors, None where `needs` is not set or no gradient reaches one.
    // `grads` are the gradients of the output and of the final states, None for zeros. `batched` counts
    // tensors, output, saved, grads.
    Execution backward(nb::handle tensors, const Batched& batched, nb::handle output, nb::handle saved,
                       nb::handle grads, nb::handle needs, Index threads) const {
        const std::size_t count = program_->states.size();
        Execution run = begin_call(tensors, batched, threads);
        run.call.groups = groups_;
        std::size_t index = run.inputs.arrays.size();
        run.buffers.reserve(3 + count);
        const auto see_next = [&](nb::handle tensor) -> const OwnedTensor& {
            return run.buffers.emplace_back(view_input(tensor, batched, index++));
        };
        const OwnedTensor& output_view = see_next(output);
        const OwnedTensor& saved_view = saved.is_none() ? run.buffers.emplace_back() : see_next(saved);
        check_type(output_view.view, run.inputs.type);
        if (!saved.is_none())
            check_type(saved_view.view, run.inputs.half() ? NumberType::float32 : run.inputs.type);
        add_inputs(run, output_view, saved.is_none() ? nullptr : &saved_view);
        for (std::size_t k = 0; k < count; ++k) run.add();
        for (nb::handle grad_in : grads) {
            if (grad_in.is_none()) {
                ++index;
                run.add();
            } else {
                const OwnedTensor& view = see_next(grad_in);
                run.add(view);
                check_type(view.view, run.inputs.type);
            }
        }
        nb::list list;
        std::vector<OwnedTensor> results;
        for (nb::handle need : needs) {
            const std::size_t k = results.size();
            if (k == run.inputs.arrays.size())
                throw std::invalid_argument("needs: must have one entry a tensor, got more");
            const OwnedTensor& of = run.inputs.arrays[k];
            OwnedTensor grad;
            if (need.is(Py_True) && reached(k)) {
                std::vector<Index> shape = of.view.sizes();
                if (groups_ > 1 && k > static_cast<std::size_t>(states_))
                    shape.insert(shape.begin(), groups_);
                grad = make_output(of.tensor, batched, shape, k > 0 || covers_all_rows());
            }
            list.append(grad.tensor.is_valid() ? grad.tensor : nb::none());
            results.push_back(std::move(grad));
        }
        const auto add = [&](Index k) {
            const bool exists = k >= 0 && k < static_cast<Index>(results.size());
            if (exists && results[static_cast<std::size_t>(k)].tensor.is_valid())
                run.add(results[static_cast<std::size_t>(k)]);
            else run.add();
        };
        add(0);
        for (std::size_t k = 0; k < count; ++k) add(states_ > 0 ? 1 + static_cast<Index>(k) : -1);
        const std::size_t matrices = 2 * (1 + program_->products.size());
        for (std::size_t k = matrices; k < parameters_.size(); ++k) add(parameters_[k]);
        for (std::size_t k = 0; k < matrices; ++k) add(parameters_[k]);
        run.result = list;
        return run;
    }

    // Whether a gradient reaches tensor k of a run.
    bool reached(std::size_t k) const { return k < reached_.size() && reached_[k]; }

    const std::string& build() const { return build_; }

    bool bf16_products() const { return bf16_products_; }

    Index total() const { return table_.is_none() ? total_ : view_of(table_).numel(); }

private:
    static void check_count(const char* name, std::size_t count, std::size_t expected) {
        if (count == expected) return;
        throw std::invalid_argument(std::string(name) + ": must have " + std::to_string(expected) +
                                    " entries, got " + std::to_string(count));
    }

    // Where sequences may be empty, initial states are final ones: a gradient reaches all of them.
    void find_reached() {
        const Reached& by = program_->reached;
        reached_.push_back(by.products[0]);
        for (std::size_t k = 0; k < static_cast<std::size_t>(states_); ++k)
            reached_.push_back(by.states[k] || !counts_.is_none());
        const std::size_t matrices = 2 * by.products.size();
        for (std::size_t k = 0; k < parameters_.size(); ++k) {
            if (parameters_[k] < 0) continue;
            const std::size_t index = static_cast<std::size_t>(parameters_[k]);
            if (index >= reached_.size()) reached_.resize(index + 1, false);
            reached_[index] = k < matrices ? by.products[k / 2] : by.vectors[k - matrices];
        }
    }

    Execution begin_call(nb::handle tensors, const Batched& batched, Index threads) const {
        Execution run;
        if (batched.count > 0) run.count = batched.count;
        Tensors& inputs = run.inputs;
        for (nb::handle tensor : tensors)
            inputs.arrays.push_back(view_input(tensor, batched, inputs.arrays.size()));
        const Index count = static_cast<Index>(inputs.arrays.size());
        if (count < 1 + states_)
            throw std::invalid_argument("tensors: must have " + std::to_string(1 + states_) +
                                        " or more, tokens and states, got " + std::to_string(count));
        inputs.type = inputs.tokens().type();
        for (const OwnedTensor& array : inputs.arrays) check_type(array.view, inputs.type);
        run.call.format = number_format_of(inputs.type);
        if (inputs.tokens().ndim < 1)
            throw std::invalid_argument("tokens: must have a dimension, got a number");
        for (Index k : parameters_)
            if (k >= count)
                throw std::invalid_argument("parameters: must be below the " + std::to_string(count) +
                                            " tensors, got " + std::to_string(k));
        check_parameters(inputs);
        run.call.program = program_;
        run.call.bf16_products = bf16_products_;
        run.call.shape = shape_;
        run.call.shape.I = inputs.tokens().size(-1);
        run.call.shape.threads = threads;
        return run;
    }

    // Tensor k of a run, contiguous.
    static OwnedTensor view_input(nb::handle tensor, const Batched& batched, std::size_t k) {
        const bool negative = has_negative_bit(tensor);
        OwnedTensor array;
        array.take(negative ? call(tensor, names().resolve_neg) : nb::borrow(tensor));
        if (!array.view.contiguous()) array.take(call(array.tensor, names().contiguous));
        if (batched.has(k)) split_batch(array, batched);
        return array;
    }

    // Leaves the dimension of the sweeps to `step`.
    static void split_batch(OwnedTensor& array, const Batched& batched) {
        if (array.view.ndim < 1 || array.view.size(0) != batched.count)
            throw std::invalid_argument("stacked: a tensor must have a first dimension of " +
                                        std::to_string(batched.count));
        array.drop_first();
    }

    // A new tensor of this shape for each sweep; zeros unless all of it is written.
    static OwnedTensor make_output(nb::handle like, const Batched& batched, std::vector<Index> shape,
                                   bool overwritten) {
        if (batched.count > 0) shape.insert(shape.begin(), batched.count);
        OwnedTensor array;
        array.make((overwritten ? empty : zeros)(like, shape));
        if (batched.count > 0) split_batch(array, batched);
        return array;
    }

    // Throws unless the kernels can read the tensor with others of this type.
    static void check_type(const View& view, NumberType type) {
        if (!view.on_cpu() || type == NumberType::other || view.type() != type)
            throw std::runtime_error(
                "tensors: must be on the CPU, all in float32, float64, bfloat16 or float16");
    }

    // Compares parameters with the shapes of the program: by number of elements a weight equals its
    // transpose, and an empty bias no bias.
    void check_parameters(const Tensors& inputs) const {
        const Program& p = *program_;
        const Index columns = input_columns(p, inputs.tokens().size(-1));
        check_shape(inputs, parameters_[0], {p.x_parts * p.x_width, columns}, "weight");
        check_shape(inputs, parameters_[1], {p.x_parts * p.x_width}, "bias");
        std::size_t index = 2;
        for (const Product& q : p.products) {
            check_shape(inputs, parameters_[index++], {q.parts * q.width, q.columns}, "weight");
            check_shape(inputs, parameters_[index++], {q.parts * q.width}, "bias");
        }
        for (Index width : p.vectors) check_shape(inputs, parameters_[index++], {width}, "vector");
    }

    static void check_shape(const Tensors& inputs, Index k, const std::vector<Index>& shape,
                            const char* name) {
        if (k < 0) return;
        const View& view = inputs.arrays[static_cast<std::size_t>(k)].view;
        if (view.is(shape)) return;
        throw std::runtime_error(std::string(name) + " must have shape " + text_of(shape) + ", got " +
                                 text_of(view.sizes()));
    }

    // Writes what lies behind the numbers of the tokens: zeros, and at the end 1 if products are in
    // bfloat16, else 0. The array's view is then only of those of the tokens.
    void mark_saved(OwnedTensor& saved, bool wide) const {
        const Index used = checked_product(total(), program_->saved_pitch), size = saved.view.numel();
        if (size <= used)
            throw std::invalid_argument("saved_size: must be above " + std::to_string(used) + ", got " +
                                        std::to_string(size));
        const auto mark = [&](auto* numbers) {
            for (Index k = used; k < size; ++k) numbers[k] = 0;
            numbers[size - 1] = bf16_products_ ? 1 : 0;
        };
        if (wide) mark(reinterpret_cast<double*>(saved.view.address()));
        else mark(reinterpret_cast<float*>(saved.view.address()));
        saved.sizes[0] = used;
    }

    bool covers_all_rows() const { return total() == shape_.rows; }

    // The arrays that forward and backward have, in the order of raw_call.h.
    void add_inputs(Execution& run, const OwnedTensor& output, const OwnedTensor* saved) const {
        IndexList& arrays = run.call.arrays;
        arrays.reserve(64);
        run.steps.reserve(32);
        add_array(arrays, counts_);
        add_array(arrays, table_);
        run.steps.assign(2, 0);
        run.add(run.inputs.arrays[0]);
        run.add(output);
        if (saved) run.add(*saved);
        else run.add();
        const auto add = [&](Index k) {
            if (k < 0) run.add();
            else run.add(run.inputs.arrays[static_cast<std::size_t>(k)]);
        };
        for (Index k : parameters_) add(k);
        for (std::size_t k = 0; k < program_->states.size(); ++k)
            add(states_ > 0 ? 1 + static_cast<Index>(k) : -1);
    }

    const Program* program_;
    nb::object owner_;  // the program's owner
    std::string build_;
    CallShape shape_;  // without I and threads
    nb::object counts_, table_;
    Index total_ = 0;  // number of tokens, if there is no table
    Index states_;
    ArrayIndices parameters_;
    StateShapes state_shapes_;
    std::vector<bool> reached_;  // by tensor of a run
    Index groups_;               // see Gradients
    bool bf16_products_;         // see Call
};

}  // namespace unrolled
