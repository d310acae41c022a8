// Checks a raw call against its program, and runs it.
#include "dispatch/raw_call.h"

#include <algorithm>
#include <deque>
#include <stdexcept>

#include "dispatch/builds.h"
#include "support/memory.h"
#include "support/sizes.h"

namespace unrolled {
namespace {

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

// A copy in float of numbers that a caller has in a format of 16 bits.
struct FloatCopy {
    float* numbers;
    Half* destination;  // null: the copy is read only
    Index count;
    FloatCopy(Index count, Half* destination)
        : numbers(static_cast<float*>(allocate_memory(count * static_cast<Index>(sizeof(float))))),
          destination(destination),
          count(count) {}
    FloatCopy(FloatCopy&& other)
        : numbers(other.numbers), destination(other.destination), count(other.count) {
        other.numbers = nullptr;
    }
    ~FloatCopy() {
        if (numbers) release_memory(numbers);
    }
};

// Reads (address, elements) pairs in the order in which they are expected.
class ArrayReader {
public:
    ArrayReader(const RawCall& call, const Build& build)
        : arrays_(call.arrays), format_(call.format), build_(build) {}

    // The next array as it is.
    template <class T>
    T* take(Index expected, bool optional, const char* name) {
        if (position_ + 2 > arrays_.size())
            fail("arrays: must have an entry for " + std::string(name) + ", got too few");
        const Index address = arrays_[position_], elements = arrays_[position_ + 1];
        position_ += 2;
        if (address == 0 && (optional || expected == 0)) return nullptr;
        if (address == 0 || elements != expected)
            fail(std::string(name) + ": must have " + std::to_string(expected) + " elements, got " +
                 std::to_string(elements));
        return reinterpret_cast<T*>(address);
    }

    // Numbers to read, in the type of the computation.
    template <class T>
    const T* input(Index expected, bool optional, const char* name) {
        if constexpr (sizeof(T) == sizeof(float))
            if (format_ != NumberFormat::native)
                return float_copy(take<Half>(expected, optional, name), expected, true);
        return take<const T>(expected, optional, name);
    }

    // Numbers to write, in the type of the computation.
    template <class T>
    T* output(Index expected, bool optional, const char* name) {
        if constexpr (sizeof(T) == sizeof(float))
            if (format_ != NumberFormat::native)
                return float_copy(take<Half>(expected, optional, name), expected, false);
        return take<T>(expected, optional, name);
    }

    // Numbers that the kernels themselves read, or write, as bfloat16.
    template <class T>
    Storage<const T> input_storage(Index expected, bool optional, const char* name) {
        if (format_ == NumberFormat::bfloat16) return {nullptr, take<Half>(expected, optional, name)};
        return {input<T>(expected, optional, name), nullptr};
    }
    template <class T>
    Storage<T> output_storage(Index expected, bool optional, const char* name) {
        if (format_ == NumberFormat::bfloat16) return {nullptr, take<Half>(expected, optional, name)};
        T* const result = output<T>(expected, optional, name);
        // Padding rows are written as zeros.
        if (result && format_ != NumberFormat::native) std::fill_n(result, expected, T(0));
        return {result, nullptr};
    }

    void check_finished() const {
        if (position_ != arrays_.size()) fail("arrays: must be those of the program, got more");
    }

    // Writes the copies of outputs back in the caller's format.
    void write_back() const {
        for (const FloatCopy& copy : copies_)
            if (copy.destination) build_.narrow(copy.numbers, copy.destination, copy.count, format_);
    }

private:
    float* float_copy(Half* from, Index count, bool is_input) {
        if (!from) return nullptr;
        copies_.emplace_back(count, is_input ? nullptr : from);
        if (is_input) build_.widen(from, copies_.back().numbers, count, format_);
        return copies_.back().numbers;
    }

    const IndexList& arrays_;
    NumberFormat format_;
    const Build& build_;
    std::vector<FloatCopy> copies_;
    std::size_t position_ = 0;
};

// Whether `count` rows, `stride` apart, reach beyond the caller's rows.
bool exceeds(Index stride, Index count, Index rows) {
    if (count < 2) return false;
    const Index bound = (rows - 1) / (count - 1);
    return stride > bound || stride < -bound;
}

void check_shape(const CallShape& s) {
    if (s.T < 1) fail("shape: T must be at least 1, got " + std::to_string(s.T));
    if (s.N < 0 || s.I < 0 || s.rows < 0)
        fail("shape: N, I and rows must not be negative, got " + std::to_string(s.N) + ", " +
             std::to_string(s.I) + ", " + std::to_string(s.rows));
    if (s.threads < 1) fail("shape: threads must be at least 1, got " + std::to_string(s.threads));
    for (Index size : {s.T, s.N, s.I, s.rows}) checked_product(size, 1);
}

void check_row(Index row, Index rows, const char* name) {
    if (row < 0 || row >= rows)
        fail(std::string(name) + ": rows must be from 0 to " + std::to_string(rows - 1) + ", got " +
             std::to_string(row));
}

void check_dense_rows(const CallShape& s) {
    const TokenRows& at = s.token_rows;
    check_row(at.start, s.rows, "shape");
    if (exceeds(at.stride_t, s.T, s.rows) || exceeds(at.stride_n, s.N, s.rows))
        fail("shape: strides must stay within the " + std::to_string(s.rows) + " rows, got " +
             std::to_string(at.stride_t) + ", " + std::to_string(at.stride_n));
    for (Index t : {Index(0), s.T - 1})
        for (Index n : {Index(0), s.N - 1}) check_row(at.dense_row(t, n), s.rows, "shape");
}

// Sizes of the steps and rows of the tokens, both checked element by element; null where dense.
template <class T>
void read_tokens(Call<T>& call, const CallShape& s, ArrayReader& arrays) {
    call.sizes = arrays.take<const Index>(s.T, true, "sizes");
    call.total = checked_product(s.T, s.N);
    if (call.sizes) {
        Index previous = s.N;
        call.total = 0;
        for (Index t = 0; t < s.T; ++t) {
            if (call.sizes[t] < 0 || call.sizes[t] > previous)
                fail("sizes: must be from 0 to N and not rise, got " + std::to_string(call.sizes[t]) +
                     " behind " + std::to_string(previous));
            call.total += previous = call.sizes[t];
        }
    }
    call.token_rows = s.token_rows;
    call.token_rows.table = arrays.take<const Index>(call.total, true, "table");
    if (const Index* const table = call.token_rows.table) {
        for (Index k = 0; k < call.total; ++k) check_row(table[k], s.rows, "table");
    } else if (call.total > 0) {
        check_dense_rows(s);
        if (call.sizes) fail("table: must be there with sizes, got none");
    }
}

// The saved array and the parameters, which a snapshot has itself.
template <class T>
void read_parameters(const Program& p, const CallShape& s, ArrayReader& arrays, Call<T>& call) {
    call.saved = arrays.take<T>(checked_product(call.total, p.saved_pitch), true, "saved");
    const Index M = p.x_parts * p.x_width;
    call.input.weight =
        arrays.input_storage<T>(checked_product(M, input_columns(p, s.I)), false, "input weight");
    call.input.bias = arrays.input<T>(M, true, "input bias");
    for (const Product& q : p.products) {
        const Index rows = q.parts * q.width;
        const Storage<const T> weight =
            arrays.input_storage<T>(checked_product(rows, q.columns), false, "weight");
        call.products.push_back({weight, arrays.input<T>(rows, true, "bias")});
    }
    for (Index w : p.vectors) call.vectors.push_back(arrays.input<T>(w, true, "vector"));
}

// Which arrays a list has; raw_call.h states their order.
enum class CallArrays { forward, backward, snapshot };

template <class T>
bool rounds_to_bfloat16(const RawCall& raw) {
    if (sizeof(T) != sizeof(float) || raw.format == NumberFormat::float16) return false;
    return raw.bf16_products || raw.format == NumberFormat::bfloat16;
}

template <class T>
Call<T> read_call(const RawCall& raw, ArrayReader& arrays, CallArrays kind) {
    const Program& p = *raw.program;
    const CallShape& s = raw.shape;
    const bool backward = kind == CallArrays::backward;
    check_shape(s);
    Call<T> call{};
    check_buffer_sizes(p, s.N);
    call.program = &p;
    call.cancel = raw.cancel;
    call.cache = raw.cache;
    call.bf16_products = rounds_to_bfloat16<T>(raw);
    call.T_steps = s.T;
    call.N = s.N;
    call.I = s.I;
    call.threads = static_cast<int>(std::min(s.threads, kMaxThreads));
    read_tokens(call, s, arrays);
    if (s.N == 0 && !call.sizes) call.T_steps = 1;  // no sequence: one step does
    call.tokens = arrays.input_storage<T>(checked_product(s.rows, s.I), false, "tokens");
    const Index outputs = checked_product(s.rows, p.states[0]);
    if (backward) {
        const Storage<const T> output = arrays.input_storage<T>(outputs, false, "output");
        call.output = {const_cast<T*>(output.native), output.half};  // backward only reads it
    } else {
        call.output = arrays.output_storage<T>(outputs, false, "output");
    }
    if (kind != CallArrays::snapshot) read_parameters(p, s, arrays, call);
    for (Index w : p.states)
        call.initial.push_back(arrays.input<T>(checked_product(s.N, w), true, "initial"));
    for (Index w : p.states)
        call.final.push_back(arrays.output<T>(checked_product(s.N, w), backward, "final"));
    return call;
}

template <class T>
Storage<T> weight_gradient(const Call<T>& call, ArrayReader& arrays, Index expected) {
    if (call.total > 0 && call.total <= kFewTokens)
        return arrays.output_storage<T>(expected, true, "grad weight");
    return {arrays.output<T>(expected, true, "grad weight"), nullptr};
}

template <class T>
void check_groups(const Call<T>& call, Index groups) {
    bool fits = groups >= 1 && call.N % groups == 0;
    for (Index t = 0; fits && call.sizes && t < call.T_steps; ++t) fits = call.sizes[t] % groups == 0;
    if (!fits) fail("groups: must divide the sequences of each step, got " + std::to_string(groups));
}

template <class T>
Gradients<T> read_gradients(const RawCall& raw, const Call<T>& call, ArrayReader& arrays) {
    const Program& p = *raw.program;
    const CallShape& s = raw.shape;
    const Index G = raw.groups;
    Gradients<T> g{};
    g.call = &call;
    g.groups = G;
    check_groups(call, G);
    if (!call.saved && call.total > 0 && p.saved_pitch > 0)
        fail("saved: must be there for backward, got none");
    g.grad_output = arrays.input_storage<T>(checked_product(s.rows, p.states[0]), true, "grad_output");
    for (Index w : p.states)
        g.grad_final.push_back(arrays.input<T>(checked_product(s.N, w), true, "grad_final"));
    g.grad_tokens = arrays.output_storage<T>(checked_product(s.rows, s.I), true, "grad_tokens");
    for (Index w : p.states)
        g.grad_initial.push_back(arrays.output<T>(checked_product(s.N, w), true, "grad_initial"));
    for (Index w : p.vectors)
        g.grad_vectors.push_back(arrays.output<T>(checked_product(G, w), true, "grad_vector"));
    const Index M = checked_product(G, p.x_parts * p.x_width);
    g.grad_weights.push_back(weight_gradient<T>(call, arrays, checked_product(M, input_columns(p, s.I))));
    g.grad_biases.push_back(arrays.output<T>(M, true, "grad input bias"));
    for (const Product& q : p.products) {
        const Index rows = checked_product(G, q.parts * q.width);
        g.grad_weights.push_back(weight_gradient<T>(call, arrays, checked_product(rows, q.columns)));
        g.grad_biases.push_back(arrays.output<T>(rows, true, "grad bias"));
    }
    return g;
}

template <class T>
struct ForwardCall {
    ArrayReader arrays;
    Call<T> run;
    ForwardCall(const RawCall& raw, const Build& build) : arrays(raw, build) {
        run = read_call<T>(raw, arrays, CallArrays::forward);
        arrays.check_finished();
    }
};

template <class T>
struct BackwardCall {
    ArrayReader arrays;
    Call<T> call;
    Gradients<T> run;
    BackwardCall(const RawCall& raw, const Build& build) : arrays(raw, build) {
        call = read_call<T>(raw, arrays, CallArrays::backward);
        run = read_gradients(raw, call, arrays);
        arrays.check_finished();
    }
    BackwardCall(const BackwardCall&) = delete;  // the gradients point at the call
};

template <class Checked, class Run>
void run_all(const RawCall* calls, std::size_t count, const Build& build,
             void (*kernel)(const Run* const*, Index)) {
    if (count == 1) {
        const Checked checked(calls[0], build);
        const Run* const run = &checked.run;
        kernel(&run, 1);
        return checked.arrays.write_back();
    }
    std::deque<Checked> checked;
    std::vector<const Run*> runs;
    for (std::size_t k = 0; k < count; ++k) runs.push_back(&checked.emplace_back(calls[k], build).run);
    if (count > 0) kernel(runs.data(), static_cast<Index>(count));
    for (const Checked& call : checked) call.arrays.write_back();
}

}  // namespace

CallShape shape_of(const IndexList& numbers) {
    if (numbers.size() != 8) fail("shape: must have 8 numbers, got " + std::to_string(numbers.size()));
    return {numbers[0], numbers[1], numbers[2], numbers[3], {nullptr, numbers[4], numbers[5], numbers[6]},
            numbers[7]};
}

void run_snapshot(const RawCall& raw, Snapshot& snapshot) {
    const MaskedFloatTraps masked;
    const Build& build = find_build("");
    ArrayReader arrays(raw, build);
    Call<float> call = read_call<float>(raw, arrays, CallArrays::snapshot);
    arrays.check_finished();
    snapshot.run(std::move(call));
}

PreparedSweep* prepare_forward(const RawCall& raw, const std::string& build) {
    const MaskedFloatTraps masked;
    const Build& kernels = find_build(build);
    const ForwardCall<float> checked(raw, kernels);
    if (raw.format != NumberFormat::native || checked.run.saved || checked.run.total > kMaxPreparedTokens)
        fail("call: must be short, in float32 and without gradient");
    return kernels.prepare(checked.run);
}

void run_prepared(PreparedSweep& sweep, const IndexList& arrays) {
    const MaskedFloatTraps masked;
    sweep.run(arrays);
}

void run_forward(const RawCall* calls, std::size_t count, const std::string& build, bool wide) {
    const MaskedFloatTraps masked;
    const Build& kernels = find_build(build);
    if (wide) run_all<ForwardCall<double>>(calls, count, kernels, kernels.forward_double);
    else run_all<ForwardCall<float>>(calls, count, kernels, kernels.forward_float);
}

void run_backward(const RawCall* calls, std::size_t count, const std::string& build, bool wide) {
    const MaskedFloatTraps masked;
    const Build& kernels = find_build(build);
    if (wide) run_all<BackwardCall<double>>(calls, count, kernels, kernels.backward_double);
    else run_all<BackwardCall<float>>(calls, count, kernels, kernels.backward_float);
}

}  // namespace unrolled
