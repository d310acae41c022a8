// What a caller says in numbers, read and checked against the program.
#include "dispatch/raw_call.h"

#include <algorithm>
#include <deque>
#include <stdexcept>

#include "dispatch/builds.h"
#include "support/memory.h"
#include "support/sizes.h"

namespace unrolled {
namespace {

// Memory of the pool, for copies in float of what a caller has in half of it.
struct Copy {
    float* numbers;
    Half* home;  // null: nothing goes back
    Index count;
    Copy(Index count, Half* home)
        : numbers(static_cast<float*>(take_memory(count * static_cast<Index>(sizeof(float))))),
          home(home), count(count) {}
    Copy(Copy&& other) : numbers(other.numbers), home(other.home), count(other.count) {
        other.numbers = nullptr;
    }
    ~Copy() {
        if (numbers) give_memory(numbers);
    }
};

// Reads (address, elements) pairs in the order in which they are expected.
class Arrays {
public:
    Arrays(const Told& told, const Build& build)
        : numbers_(told.arrays), storage_(told.storage), build_(build) {}

    // An array as it is.
    template <class T>
    T* next(Index wanted, bool optional, const char* what) {
        if (at_ + 2 > numbers_.size())
            throw std::invalid_argument(std::string(what) + ": the list of arrays ends before it");
        const Index address = numbers_[at_], elements = numbers_[at_ + 1];
        at_ += 2;
        if (address == 0 && (optional || wanted == 0)) return nullptr;
        if (address == 0 || elements != wanted)
            throw std::invalid_argument(std::string(what) + ": wanted " + std::to_string(wanted) +
                                        " elements, got " + std::to_string(elements));
        return reinterpret_cast<T*>(address);
    }

    // Numbers to read.
    template <class T>
    const T* read(Index wanted, bool optional, const char* what) {
        if constexpr (sizeof(T) == sizeof(float))
            if (storage_ != Storage::own) return widened(next<Half>(wanted, optional, what), wanted, true);
        return next<const T>(wanted, optional, what);
    }

    // Numbers to write.
    template <class T>
    T* made(Index wanted, bool optional, const char* what) {
        if constexpr (sizeof(T) == sizeof(float))
            if (storage_ != Storage::own) return widened(next<Half>(wanted, optional, what), wanted, false);
        return next<T>(wanted, optional, what);
    }

    // Numbers that the kernels themselves read, or write, as bfloat16.
    template <class T>
    Lines<const T> lines(Index wanted, bool optional, const char* what) {
        if (storage_ == Storage::bfloat16) return {nullptr, next<Half>(wanted, optional, what)};
        return {read<T>(wanted, optional, what), nullptr};
    }
    template <class T>
    Lines<T> lines_made(Index wanted, bool optional, const char* what) {
        if (storage_ == Storage::bfloat16) return {nullptr, next<Half>(wanted, optional, what)};
        T* const found = made<T>(wanted, optional, what);
        // Rows that are no token go home as zeros.
        if (found && storage_ != Storage::own) std::fill_n(found, wanted, T(0));
        return {found, nullptr};
    }

    void finish() const {
        if (at_ != numbers_.size()) throw std::invalid_argument("arrays: more than the program has");
    }

    // Brings home what was made.
    void narrow() const {
        for (const Copy& copy : copies_)
            if (copy.home) build_.narrow(copy.numbers, copy.home, copy.count, storage_);
    }

private:
    float* widened(Half* from, Index count, bool reads) {
        if (!from) return nullptr;
        copies_.emplace_back(count, reads ? nullptr : from);
        if (reads) build_.widen(from, copies_.back().numbers, count, storage_);
        return copies_.back().numbers;
    }

    const Numbers& numbers_;
    Storage storage_;
    const Build& build_;
    std::vector<Copy> copies_;
    std::size_t at_ = 0;
};

// What a call says besides its arrays: T, N, I, the caller's rows, the plan of a dense batch (base,
// step, next), threads.
struct Shape {
    Index T, N, I, rows, base, step, next, threads;
};

Shape read_shape(const Numbers& numbers) {
    if (numbers.size() != 8) throw std::invalid_argument("shape: wanted 8 numbers");
    const Shape s{numbers[0], numbers[1], numbers[2], numbers[3],
                  numbers[4], numbers[5], numbers[6], numbers[7]};
    if (s.T < 1) throw std::invalid_argument("shape: wanted at least one step");
    if (s.N < 0 || s.I < 0 || s.rows < 0 || s.threads < 1)
        throw std::invalid_argument("shape: negative size or no thread");
    for (Index size : {s.T, s.N, s.I, s.rows}) product(size, 1);
    return s;
}

// Whether so many places, `stride` apart, reach beyond the rows.
bool beyond(Index stride, Index places, Index rows) {
    if (places < 2) return false;
    const Index most = (rows - 1) / (places - 1);
    return stride > most || stride < -most;
}

// Sizes of the steps and rows of the tokens, both checked element by element; null where dense.
template <class T>
void read_tokens(Call<T>& call, const Shape& s, Arrays& arrays) {
    call.sizes = arrays.next<const Index>(s.T, true, "sizes");
    call.total = product(s.T, s.N);
    if (call.sizes) {
        Index before = s.N;
        call.total = 0;
        for (Index t = 0; t < s.T; ++t) {
            if (call.sizes[t] < 0 || call.sizes[t] > before)
                throw std::invalid_argument("sizes: wanted falling numbers of rows");
            call.total += before = call.sizes[t];
        }
    }
    call.rows = {arrays.next<const Index>(call.total, true, "table"), s.base, s.step, s.next};
    if (call.rows.table) {
        for (Index k = 0; k < call.total; ++k)
            if (call.rows.table[k] < 0 || call.rows.table[k] >= s.rows)
                throw std::invalid_argument("table: a row that is not there");
    } else if (call.total > 0) {
        if (s.base < 0 || s.base >= s.rows || beyond(s.step, s.T, s.rows) ||
            beyond(s.next, s.N, s.rows))
            throw std::invalid_argument("shape: a row that is not there");
        for (Index t : {Index(0), s.T - 1})
            for (Index n : {Index(0), s.N - 1}) {
                const Index row = s.base + t * s.step + n * s.next;
                if (row < 0 || row >= s.rows)
                    throw std::invalid_argument("shape: a row that is not there");
            }
        if (call.sizes) throw std::invalid_argument("table: missing beside sizes");
    }
}

// What is saved, and what a snapshot has of its own.
template <class T>
void read_parameters(const Program& p, const Shape& s, Arrays& arrays, Call<T>& call) {
    call.saved = arrays.next<T>(product(call.total, p.saved_pitch), true, "saved");
    const Index M = p.x_parts * p.x_width;
    call.input.weight = arrays.lines<T>(product(M, s.I), false, "input weight");
    call.input.bias = arrays.read<T>(M, true, "input bias");
    for (const Product& q : p.products) {
        const Index rows = q.parts * q.width;
        const Lines<const T> weight = arrays.lines<T>(product(rows, q.source), false, "weight");
        call.products.push_back({weight, arrays.read<T>(rows, true, "bias")});
    }
    for (Index w : p.vectors) call.vectors.push_back(arrays.read<T>(w, true, "vector"));
}

// Order of the arrays: sizes, table, tokens, output, saved; weight and bias of the input and of each
// product; vectors; initial and final states (of which backward knows nothing).
enum class Of { forward, backward, snapshot };

template <class T>
Call<T> read_call(const Program& p, const Shape& s, Arrays& arrays, Of kind) {
    const bool backward = kind == Of::backward;
    Call<T> call{};
    check_room(p, s.N);
    call.program = &p;
    call.T_steps = s.T;
    call.N = s.N;
    call.I = s.I;
    call.threads = static_cast<int>(std::min(s.threads, kMostThreads));
    read_tokens(call, s, arrays);
    if (s.N == 0 && !call.sizes) call.T_steps = 1;  // steps of nothing, however many
    call.tokens = arrays.lines<T>(product(s.rows, s.I), false, "tokens");
    if (backward) {
        const Lines<const T> found = arrays.lines<T>(product(s.rows, p.states[0]), false, "output");
        call.output = {const_cast<T*>(found.own), found.brief};  // which backward only reads
    } else {
        call.output = arrays.lines_made<T>(product(s.rows, p.states[0]), false, "output");
    }
    if (kind != Of::snapshot) read_parameters(p, s, arrays, call);
    for (Index w : p.states)
        call.initial.push_back(arrays.read<T>(product(s.N, w), true, "initial"));
    for (Index w : p.states)
        call.final.push_back(arrays.made<T>(product(s.N, w), backward, "final"));
    return call;
}

template <class T>
Lines<T> weight_gradient(const Call<T>& call, Arrays& arrays, Index wanted) {
    if (call.total > 0 && call.total <= kAtOnce)
        return arrays.lines_made<T>(wanted, true, "grad weight");
    return {arrays.made<T>(wanted, true, "grad weight"), nullptr};
}

template <class T>
void check_groups(const Call<T>& call, Index groups) {
    bool fits = groups >= 1 && call.N % groups == 0;
    for (Index t = 0; fits && call.sizes && t < call.T_steps; ++t) fits = call.sizes[t] % groups == 0;
    if (!fits) throw std::invalid_argument("groups: wanted a divisor of each step's sequences");
}

// Then, backward: gradients of the output and of the final states; out, of the tokens, the initial
// states, the vectors, weight and bias of the input and of each product.
template <class T>
Gradients<T> read_gradients(const Told& told, const Call<T>& call, const Shape& s, Arrays& arrays) {
    const Program& p = *told.program;
    const Index G = told.groups;
    Gradients<T> g{};
    g.call = &call;
    g.groups = G;
    check_groups(call, G);
    if (!call.saved && call.total > 0 && p.saved_pitch > 0)
        throw std::invalid_argument("saved: missing");
    g.grad_output = arrays.lines<T>(product(s.rows, p.states[0]), true, "grad_output");
    for (Index w : p.states)
        g.grad_final.push_back(arrays.read<T>(product(s.N, w), true, "grad_final"));
    g.grad_tokens = arrays.lines_made<T>(product(s.rows, s.I), true, "grad_tokens");
    for (Index w : p.states)
        g.grad_initial.push_back(arrays.made<T>(product(s.N, w), true, "grad_initial"));
    for (Index w : p.vectors)
        g.grad_vectors.push_back(arrays.made<T>(product(G, w), true, "grad_vector"));
    const Index M = product(G, p.x_parts * p.x_width);
    g.grad_weights.push_back(weight_gradient<T>(call, arrays, product(M, s.I)));
    g.grad_biases.push_back(arrays.made<T>(M, true, "grad input bias"));
    for (const Product& q : p.products) {
        const Index rows = product(G, q.parts * q.width);
        g.grad_weights.push_back(weight_gradient<T>(call, arrays, product(rows, q.source)));
        g.grad_biases.push_back(arrays.made<T>(rows, true, "grad bias"));
    }
    return g;
}

// A call forward, read.
template <class T>
struct Ahead {
    Arrays arrays;
    Call<T> run;
    Ahead(const Told& told, const Build& build) : arrays(told, build) {
        run = read_call<T>(*told.program, read_shape(told.shape), arrays, Of::forward);
        run.stop = told.stop;
        arrays.finish();
    }
};

// A call backward, read.
template <class T>
struct Back {
    Arrays arrays;
    Call<T> call;
    Gradients<T> run;
    Back(const Told& told, const Build& build) : arrays(told, build) {
        const Shape shape = read_shape(told.shape);
        call = read_call<T>(*told.program, shape, arrays, Of::backward);
        call.stop = told.stop;
        run = read_gradients(told, call, shape, arrays);
        arrays.finish();
    }
    Back(const Back&) = delete;  // the gradients point at the call
};

template <class Read, class Run>
void run_all(const Told* calls, std::size_t count, const Build& build,
             void (*kernel)(const Run* const*, Index)) {
    if (count == 1) {
        const Read read(calls[0], build);
        const Run* const one = &read.run;
        kernel(&one, 1);
        return read.arrays.narrow();
    }
    std::deque<Read> reads;
    std::vector<const Run*> runs;
    for (std::size_t k = 0; k < count; ++k) runs.push_back(&reads.emplace_back(calls[k], build).run);
    if (count > 0) kernel(runs.data(), static_cast<Index>(count));
    for (const Read& read : reads) read.arrays.narrow();
}

}  // namespace

void run_snapshot(const Told& told, Snapshot& snapshot) {
    const Masked masked;
    const Build& build = find_build("");
    Arrays arrays(told, build);
    Call<float> call = read_call<float>(*told.program, read_shape(told.shape), arrays, Of::snapshot);
    call.stop = told.stop;
    arrays.finish();
    snapshot.run(std::move(call));
}

void run_forward(const Told* calls, std::size_t count, const std::string& build, bool wide) {
    const Masked masked;
    const Build& kernels = find_build(build);
    if (wide) run_all<Ahead<double>>(calls, count, kernels, kernels.forward_double);
    else run_all<Ahead<float>>(calls, count, kernels, kernels.forward_float);
}

void run_backward(const Told* calls, std::size_t count, const std::string& build, bool wide) {
    const Masked masked;
    const Build& kernels = find_build(build);
    if (wide) run_all<Back<double>>(calls, count, kernels, kernels.backward_double);
    else run_all<Back<float>>(calls, count, kernels, kernels.backward_float);
}

}  // namespace unrolled
