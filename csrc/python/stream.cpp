// Layers, lines and poolings from arrays, and streams of them. A step costs microseconds, so arrays
// are seen by the buffer protocol, and nothing is made for one.
#include "python/stream.h"

#include <memory>
#include <stdexcept>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dispatch/raw_call.h"
#include "model/streaming.h"
#include "dispatch/builds.h"
#include "python/interrupt.h"
#include "python/tensors.h"
#include "support/sizes.h"

namespace unrolled {
namespace {

// An array's memory while this lives: contiguous, in the type that is wanted.
class Seen {
public:
    Seen(nb::handle array, const char* what, bool written = false) {
        const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (written ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(array.ptr(), &view_, flags) != 0) {
            PyErr_Clear();
            throw nb::type_error((std::string(what) + ": wanted a contiguous array" +
                                  (written ? " that can be written" : "") + ", got " +
                                  Py_TYPE(array.ptr())->tp_name).c_str());
        }
    }
    Seen(const Seen&) = delete;
    Seen& operator=(const Seen&) = delete;
    ~Seen() { PyBuffer_Release(&view_); }

    Index count() const { return view_.itemsize ? view_.len / view_.itemsize : 0; }
    bool is(char type) const {
        const char* const format = view_.format ? view_.format : "B";
        return *format == type && format[1] == 0;
    }
    bool whole_numbers() const { return (is('l') || is('q') || is('i')); }
    const double* doubles() const { return static_cast<const double*>(view_.buf); }
    Index number(Index k) const {
        if (view_.itemsize == 4) return static_cast<const std::int32_t*>(view_.buf)[k];
        return static_cast<const std::int64_t*>(view_.buf)[k];
    }

    Floats floats(const char* what) const {
        if (!is('f'))
            throw nb::type_error((std::string(what) + ": wanted float32, got the type " +
                                  (view_.format ? view_.format : "B")).c_str());
        return {static_cast<const float*>(view_.buf), count()};
    }

    float* floats(Index wanted, const char* what) const {
        floats(what);
        if (count() != wanted)
            throw std::invalid_argument(std::string(what) + ": wanted " + std::to_string(wanted) +
                                        " numbers, got " + std::to_string(count()));
        return static_cast<float*>(view_.buf);
    }

    // [N, width], or [width] of a single sequence.
    float* rows(Index N, Index width, const char* what) const {
        const Py_ssize_t* const shape = view_.shape;
        const bool row = N == 1 && view_.ndim == 1 && shape[0] == width;
        if (!row && !(view_.ndim == 2 && shape[0] == N && shape[1] == width))
            throw std::invalid_argument(std::string(what) + ": wanted shape " + text_of({N, width}) +
                                        ", got " + text_of({shape, shape + view_.ndim}));
        return floats(N * width, what);
    }

private:
    Py_buffer view_;
};

// Arrays of parameters, for as long as they are borrowed.
class Held {
public:
    Floats take(nb::object array, const char* what) {
        if (array.is_none()) return {};
        held_.push_back(std::make_unique<Seen>(array, what));
        const Floats found = held_.back()->floats(what);
        // An array of nothing is there all the same.
        static const float nothing = 0;
        return found.numbers ? found : Floats{&nothing, 0};
    }

private:
    std::vector<std::unique_ptr<Seen>> held_;
};

// A layer in one direction, and what it borrows.
class OwnLayer {
public:
    OwnLayer(nb::handle program, Index I, nb::list arrays, const std::string& kept,
             const std::string& build)
        : program_(nb::borrow(program)) {
        const Program& p = *nb::cast<const Program*>(program);
        const std::size_t matrices = 2 * (1 + p.products.size());
        std::vector<Floats> found;
        for (nb::handle array : arrays) {
            const std::size_t k = found.size();
            found.push_back(held_.take(nb::borrow(array),
                                       k >= matrices ? "vector" : k % 2 ? "bias" : "weight"));
        }
        layer_ = std::make_unique<Layer>(p, I, found, kept_of(kept), build);
    }

    // Addresses and numbers of elements, see raw_call.h.
    void run(const Numbers& shape, const Numbers& arrays) const {
        Interrupt interrupt;
        {
            const Unlocked unlocked;
            run_snapshot(Told{&layer_->program(), shape, arrays, 1, Storage::own, &interrupt},
                         layer_->snapshot());
        }
        interrupt.raise();
    }

    const Layer& layer() const { return *layer_; }

private:
    nb::object program_;
    Held held_;
    std::unique_ptr<Layer> layer_;
};

class OwnLine {
public:
    OwnLine(nb::handle weight, nb::handle bias, Index width, Index source, const std::string& kept,
            const std::string& build)
        : weight_(held_.take(nb::borrow(weight), "weight")),
          bias_(held_.take(nb::borrow(bias), "bias")),
          line_(weight_, bias_, width, source, kept_of(kept), build) {}

    void run(nb::handle rows, nb::handle to, Index count) const {
        const Seen from(rows, "rows"), result(to, "to", true);
        const float* x = from.floats(product(count, line_.source), "rows");
        float* y = result.floats(product(count, line_.width), "to");
        const Unlocked unlocked;
        const Masked masked;
        line_.apply(x, count, y);
    }

    const Line& line() const { return line_; }

private:
    Held held_;
    Floats weight_, bias_;
    Line line_;
};

class OwnPooling {
public:
    OwnPooling(std::string name, Index width, nb::object keys, nb::object query)
        : held_{keys, query}, pooling_(std::move(name), width, line_of(keys), line_of(query)) {}

    // Whole sequences: rows [T, N, width] of these lengths (None: T each) to [N, width].
    void run(nb::handle rows, nb::handle lengths, Index T, Index N, nb::handle to) const {
        const Seen from(rows, "rows"), result(to, "to", true);
        const float* x = from.floats(product(product(T, N), pooling_.width), "rows");
        float* const y = result.floats(product(N, pooling_.width), "to");
        std::vector<Index> ends;
        if (!lengths.is_none()) {
            const Seen seen(lengths, "lengths");
            if (!seen.whole_numbers() || seen.count() != N)
                throw std::invalid_argument("lengths: wanted one for each sequence");
            for (Index n = 0; n < N; ++n) ends.push_back(seen.number(n));
        }
        const Unlocked unlocked;
        pooling_.run(x, lengths.is_none() ? nullptr : ends.data(), T, N, y);
    }

    const Pooling& pooling() const { return pooling_; }

private:
    static const Line* line_of(nb::handle given) {
        return given.is_none() ? nullptr : &nb::cast<const OwnLine*>(given)->line();
    }

    nb::object held_[2];
    Pooling pooling_;
};

void activate(const std::string& name, nb::handle array, Index count, Index width) {
    const Seen rows(array, "rows", true);
    const Activation kind = activation_of(name);
    float* const numbers = rows.floats(product(count, width), "rows");
    const Unlocked unlocked;
    const Masked masked;
    find_build("").activate(kind, numbers, count, width);
}

class Stream {
public:
    // `table`: [V, width] of an embedding, or None. `scale`: mean and deviation [width] in float64, by
    // which numbers are brought to standard units, or None. `stages`: layers, lines, poolings and
    // names of activations; `starts`: for each, None or arrays of a layer's states.
    Stream(nb::object table, Index V, nb::object scale, Index width, nb::list stages,
           nb::list starts, Index N, nb::object empty, Index threads)
        : empty_(empty) {
        Source source;
        source.width = width;
        if (!table.is_none()) {
            const Floats found = held_.take(table, "table");
            if (found.count != product(V, width))
                throw std::invalid_argument("table: wanted " + std::to_string(V * width) +
                                            " numbers, got " + std::to_string(found.count));
            source.table = found.numbers;
            source.V = V;
        }
        std::unique_ptr<Seen> numbers;
        if (!scale.is_none()) {
            numbers = std::make_unique<Seen>(scale, "scale");
            if (!numbers->is('d') || numbers->count() != 2 * width)
                throw std::invalid_argument("scale: wanted mean and deviation in float64");
            source.mean = numbers->doubles();
            source.deviation = source.mean + width;
        }
        if (nb::len(starts) != nb::len(stages))
            throw std::invalid_argument("starts: wanted one for each stage");
        std::vector<Stage> parts;
        for (nb::handle stage : stages) {
            stages_.push_back(nb::borrow(stage));
            parts.push_back(stage_of(stages_.back(), nb::borrow(starts[parts.size()])));
        }
        chain_ = std::make_unique<Chain>(source, parts, N, threads);
        tokens_.resize(static_cast<std::size_t>(table.is_none() ? 0 : N));
        long_ = chain_->work() > kLong;
    }

    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    nb::object step(nb::handle x, nb::handle out) {
        Chain& chain = *chain_;
        const Index N = chain.batch();
        nb::object made =
            out.is_none() ? empty_(nb::make_tuple(N, chain.outputs())) : nb::borrow(out);
        const Seen to(made, "out", true);
        float* const result = to.rows(N, chain.outputs(), "out");
        const Turn turn(chain);
        if (chain.reads_tokens()) {
            run(see_tokens(x), result);
        } else {
            const Seen from(x, "x");
            run(from.rows(N, chain.inputs(), "x"), result);
        }
        return made;
    }

    // Copies a state, [N, width], from or to an array.
    void copy_state(std::size_t k, nb::handle array, bool written) {
        const Turn turn(*chain_);
        const Seen seen(array, "state", !written);
        float* const numbers = seen.floats(chain_->batch() * chain_->state_width(k), "state");
        if (written) chain_->write_state(k, numbers);
        else chain_->read_state(k, numbers);
    }

    void begin(nb::handle rows) {
        const Turn turn(*chain_);
        const Seen seen(rows, "rows");
        if (!seen.whole_numbers()) throw nb::type_error("rows: wanted int32 or int64");
        for (Index k = 0; k < seen.count(); ++k) chain_->reset(seen.number(k));
    }

private:
    // Multiplications of a step from which on other threads of Python may run meanwhile.
    static constexpr double kLong = 3e4;

    // Throws where two threads are in one stream.
    struct Turn : Chain::Turn {
        explicit Turn(Chain& chain) : Chain::Turn(chain) {
            if (!*this)
                throw std::runtime_error(
                    "stream: another thread is in a step of it; each may have its own copy");
        }
    };

    Stage stage_of(const nb::object& given, nb::object start) {
        Stage stage;
        if (nb::isinstance<OwnLayer>(given)) {
            stage.layer = &nb::cast<const OwnLayer*>(given)->layer();
            if (!start.is_none())
                for (nb::handle array : start)
                    stage.start.push_back(held_.take(nb::borrow(array), "start"));
        } else if (nb::isinstance<OwnLine>(given)) {
            stage.line = &nb::cast<const OwnLine*>(given)->line();
        } else if (nb::isinstance<OwnPooling>(given)) {
            stage.pooling = &nb::cast<const OwnPooling*>(given)->pooling();
        } else {
            stage.activation = activation_of(nb::cast<std::string>(given));
        }
        return stage;
    }

    const Index* see_tokens(nb::handle x) {
        const Index N = chain_->batch();
        if (PyLong_CheckExact(x.ptr())) {
            if (N != 1) throw std::invalid_argument("x: wanted a token for each sequence, got one");
            tokens_[0] = PyLong_AsSsize_t(x.ptr());
            if (tokens_[0] == -1 && PyErr_Occurred()) throw nb::python_error();
        } else {
            const Seen seen(x, "x");
            if (!seen.whole_numbers()) throw nb::type_error("x: wanted tokens in int32 or int64");
            if (seen.count() != N)
                throw std::invalid_argument("x: wanted " + std::to_string(N) + " tokens, got " +
                                            std::to_string(seen.count()));
            for (Index n = 0; n < N; ++n) tokens_[static_cast<std::size_t>(n)] = seen.number(n);
        }
        const Index n = chain_->outside(tokens_.data());
        if (n >= 0)
            throw nb::index_error(("x: wanted tokens from 0 to " +
                                   std::to_string(chain_->tokens() - 1) + ", got " +
                                   std::to_string(tokens_[static_cast<std::size_t>(n)])).c_str());
        return tokens_.data();
    }

    template <class X>
    void run(const X* x, float* result) {
        if (!long_) return chain_->step(x, result);
        const Unlocked unlocked;
        chain_->step(x, result);
    }

    std::vector<nb::object> stages_;
    Held held_;
    nb::object empty_;
    std::unique_ptr<Chain> chain_;
    std::vector<Index> tokens_;
    bool long_ = false;
};

}  // namespace

void bind_streams(nb::module_& m) {
    nb::class_<OwnLayer>(m, "Layer", "A layer in one direction, its weights packed once.")
        .def(nb::init<nb::handle, Index, nb::list, const std::string&, const std::string&>(),
             nb::arg("program"), nb::arg("inputs"), nb::arg("arrays"), nb::arg("weights"),
             nb::arg("build"))
        .def("run", &OwnLayer::run, nb::arg("shape"), nb::arg("arrays"));
    nb::class_<OwnLine>(m, "Line", "A linear layer, its weights packed once.")
        .def(nb::init<nb::handle, nb::handle, Index, Index, const std::string&,
                      const std::string&>(),
             nb::arg("weight"), nb::arg("bias").none(), nb::arg("width"), nb::arg("source"),
             nb::arg("weights"), nb::arg("build"))
        .def("run", &OwnLine::run, nb::arg("rows"), nb::arg("to"), nb::arg("count"));
    nb::class_<OwnPooling>(m, "Pooling", "How one vector of a sequence is made.")
        .def(nb::init<std::string, Index, nb::object, nb::object>(), nb::arg("name"),
             nb::arg("width"), nb::arg("keys").none(), nb::arg("query").none())
        .def("run", &OwnPooling::run, nb::arg("rows"), nb::arg("lengths").none(), nb::arg("T"),
             nb::arg("N"), nb::arg("to"));
    m.def("activate", &activate, nb::arg("name"), nb::arg("rows"), nb::arg("count"),
          nb::arg("width"), "Change rows in place.");
    nb::class_<Stream>(m, "Stream", "A chain of stages that takes steps.")
        .def(nb::init<nb::object, Index, nb::object, Index, nb::list, nb::list, Index, nb::object,
                      Index>(),
             nb::arg("table").none(), nb::arg("tokens"), nb::arg("scale").none(), nb::arg("width"),
             nb::arg("stages"), nb::arg("starts"), nb::arg("batch"), nb::arg("empty"),
             nb::arg("threads"))
        .def("step", &Stream::step, nb::arg("x"), nb::arg("out").none() = nb::none())
        .def("copy_state", &Stream::copy_state, nb::arg("k"), nb::arg("array"), nb::arg("written"))
        .def("begin", &Stream::begin, nb::arg("rows"));
}

}  // namespace unrolled
