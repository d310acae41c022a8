// Layers, linear maps and poolings from arrays, and streams of them. A step takes microseconds, so arrays are
// viewed by the buffer protocol, and no object is created for them.
#include "python/bind.h"

#include <memory>
#include <stdexcept>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dispatch/builds.h"
#include "dispatch/raw_call.h"
#include "model/streaming.h"
#include "python/interrupt.h"
#include "python/tensors.h"
#include "support/sizes.h"

namespace unrolled {
namespace {

// A contiguous array's memory, borrowed for the life of this.
class BufferView {
public:
    BufferView(nb::handle array, const char* name, bool writable = false) {
        const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(array.ptr(), &view_, flags) != 0) {
            PyErr_Clear();
            throw nb::type_error((std::string(name) + " must be a contiguous array" +
                                  (writable ? " that can be written" : "") + ", got " +
                                  Py_TYPE(array.ptr())->tp_name)
                                     .c_str());
        }
    }
    BufferView(const BufferView&) = delete;
    BufferView& operator=(const BufferView&) = delete;
    ~BufferView() { PyBuffer_Release(&view_); }

    Index count() const { return view_.itemsize ? view_.len / view_.itemsize : 0; }
    bool is(char type) const {
        const char* const format = view_.format ? view_.format : "B";
        return *format == type && format[1] == 0;
    }
    bool has_integers() const { return (is('l') || is('q') || is('i')); }
    const double* doubles() const { return static_cast<const double*>(view_.buf); }
    Index number(Index k) const {
        if (view_.itemsize == 4) return static_cast<const std::int32_t*>(view_.buf)[k];
        return static_cast<const std::int64_t*>(view_.buf)[k];
    }

    FloatView floats(const char* name) const {
        if (!is('f'))
            throw nb::type_error((std::string(name) + " must have type float32, got format " +
                                  (view_.format ? view_.format : "B"))
                                     .c_str());
        return {static_cast<const float*>(view_.buf), count()};
    }

    float* floats(Index expected, const char* name) const {
        floats(name);
        if (count() != expected)
            throw std::invalid_argument(std::string(name) + " must have " + std::to_string(expected) +
                                        " numbers, got " + std::to_string(count()));
        return static_cast<float*>(view_.buf);
    }

    // [N, width], or [width] of a single sequence.
    float* rows(Index N, Index width, const char* name) const {
        const Py_ssize_t* const shape = view_.shape;
        const bool row = N == 1 && view_.ndim == 1 && shape[0] == width;
        if (!row && !(view_.ndim == 2 && shape[0] == N && shape[1] == width))
            throw std::invalid_argument(std::string(name) + " must have shape " + text_of({N, width}) +
                                        ", got " + text_of({shape, shape + view_.ndim}));
        return floats(N * width, name);
    }

private:
    Py_buffer view_;
};

// Borrows arrays of parameters.
class BorrowedArrays {
public:
    FloatView take(nb::object array, const char* name) {
        if (array.is_none()) return {};
        borrowed_.push_back(std::make_unique<BufferView>(array, name));
        const FloatView numbers = borrowed_.back()->floats(name);
        // An empty array is not a missing one.
        static const float nothing = 0;
        return numbers.numbers ? numbers : FloatView{&nothing, 0};
    }

private:
    std::vector<std::unique_ptr<BufferView>> borrowed_;
};

// A layer in one direction, and the arrays that it borrows.
class PyLayer {
public:
    PyLayer(nb::handle program, Index I, nb::list arrays, const std::string& format, const std::string& build)
        : program_(nb::borrow(program)) {
        const Program& p = *nb::cast<const Program*>(program);
        const std::size_t matrices = 2 * (1 + p.products.size());
        std::vector<FloatView> views;
        for (nb::handle array : arrays) {
            const std::size_t k = views.size();
            views.push_back(borrowed_.take(nb::borrow(array), k >= matrices ? "Layer: vector"
                                                              : k % 2       ? "Layer: bias"
                                                                            : "Layer: weight"));
        }
        layer_ = std::make_unique<Layer>(p, I, views, weight_format_of(format), build);
    }

    // Addresses and numbers of elements, see raw_call.h.
    void run(const IndexList& shape, const IndexList& arrays) const {
        Interrupt interrupt;
        {
            const ReleasedLock released;
            run_snapshot(
                RawCall{&layer_->program(), shape_of(shape), arrays, 1, NumberFormat::native, &interrupt},
                layer_->snapshot());
        }
        interrupt.raise();
    }

    const Layer& layer() const { return *layer_; }

private:
    nb::object program_;
    BorrowedArrays borrowed_;
    std::unique_ptr<Layer> layer_;
};

class PyLinear {
public:
    PyLinear(nb::handle weight, nb::handle bias, Index width, Index source, const std::string& format,
             const std::string& build)
        : weight_(borrowed_.take(nb::borrow(weight), "Linear: weight")),
          bias_(borrowed_.take(nb::borrow(bias), "Linear: bias")),
          linear_(weight_, bias_, width, source, weight_format_of(format), build) {}

    void run(nb::handle rows, nb::handle to, Index count) const {
        const BufferView from(rows, "Linear: rows"), result(to, "Linear: to", true);
        const float* x = from.floats(checked_product(count, linear_.source), "Linear: rows");
        float* y = result.floats(checked_product(count, linear_.width), "Linear: to");
        const ReleasedLock released;
        const MaskedFloatTraps masked;
        linear_.apply(x, count, y);
    }

    const Linear& linear() const { return linear_; }

private:
    BorrowedArrays borrowed_;
    FloatView weight_, bias_;
    Linear linear_;
};

class PyPooling {
public:
    PyPooling(std::string name, Index width, nb::object keys, nb::object query)
        : borrowed_{keys, query}, pooling_(std::move(name), width, linear_of(keys), linear_of(query)) {}

    // Whole sequences: rows [T, N, width] of these lengths (None: T each) to [N, width].
    void run(nb::handle rows, nb::handle lengths, Index T, Index N, nb::handle to) const {
        const BufferView from(rows, "Pooling: rows"), result(to, "Pooling: to", true);
        const float* x = from.floats(checked_product(checked_product(T, N), pooling_.width), "Pooling: rows");
        float* const y = result.floats(checked_product(N, pooling_.width), "Pooling: to");
        std::vector<Index> ends;
        if (!lengths.is_none()) {
            const BufferView view(lengths, "Pooling: lengths");
            if (!view.has_integers() || view.count() != N)
                throw std::invalid_argument("Pooling: lengths must have one integer for each sequence");
            for (Index n = 0; n < N; ++n) ends.push_back(view.number(n));
        }
        const ReleasedLock released;
        pooling_.run(x, lengths.is_none() ? nullptr : ends.data(), T, N, y);
    }

    const Pooling& pooling() const { return pooling_; }

private:
    static const Linear* linear_of(nb::handle block) {
        return block.is_none() ? nullptr : &nb::cast<const PyLinear*>(block)->linear();
    }

    nb::object borrowed_[2];
    Pooling pooling_;
};

void activate(const std::string& name, nb::handle array, Index count, Index width) {
    const BufferView rows(array, "activate: rows", true);
    const Activation type = activation_of(name);
    float* const numbers = rows.floats(checked_product(count, width), "activate: rows");
    const ReleasedLock released;
    const MaskedFloatTraps masked;
    find_build("").activate(type, numbers, count, width);
}

class Stream {
public:
    // `table`: [V, width] of an embedding, or None. `scale`: mean and deviation [width] in float64, which
    // standardize the input, or None. `blocks`: layers, linear maps, poolings and names of activations;
    // `starts`: for each, None or the initial states of a layer.
    Stream(nb::object table, Index V, nb::object scale, Index width, nb::list blocks, nb::list starts,
           Index N, nb::object empty, Index threads)
        : empty_(empty) {
        Source source;
        source.width = width;
        if (!table.is_none()) {
            const FloatView array = borrowed_.take(table, "Stream: table");
            if (array.count != checked_product(V, width))
                throw std::invalid_argument("Stream: table must have " + std::to_string(V * width) +
                                            " numbers, got " + std::to_string(array.count));
            source.table = array.numbers;
            source.V = V;
        }
        std::unique_ptr<BufferView> numbers;
        if (!scale.is_none()) {
            numbers = std::make_unique<BufferView>(scale, "Stream: scale");
            if (!numbers->is('d') || numbers->count() != 2 * width)
                throw std::invalid_argument("Stream: scale must be mean and deviation in float64");
            source.mean = numbers->doubles();
            source.deviation = source.mean + width;
        }
        if (nb::len(starts) != nb::len(blocks))
            throw std::invalid_argument("Stream: starts must have one entry for each block");
        std::vector<Block> parts;
        for (nb::handle block : blocks) {
            blocks_.push_back(nb::borrow(block));
            parts.push_back(block_of(blocks_.back(), nb::borrow(starts[parts.size()])));
        }
        pipeline_ = std::make_unique<Pipeline>(source, parts, N, threads);
        tokens_.resize(static_cast<std::size_t>(table.is_none() ? 0 : N));
        releases_lock_ = pipeline_->work() > kMinWorkWithoutLock;
    }

    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    nb::object step(nb::handle x, nb::handle out) {
        Pipeline& pipeline = *pipeline_;
        const Index N = pipeline.batch();
        nb::object result_array =
            out.is_none() ? empty_(nb::make_tuple(N, pipeline.outputs())) : nb::borrow(out);
        const BufferView to(result_array, "Stream: out", true);
        float* const result = to.rows(N, pipeline.outputs(), "Stream: out");
        const ExclusiveUse turn(pipeline);
        if (pipeline.reads_tokens()) {
            run(see_tokens(x), result);
        } else {
            const BufferView from(x, "Stream: x");
            run(from.rows(N, pipeline.inputs(), "Stream: x"), result);
        }
        return result_array;
    }

    // Copies a state, [N, width], from or to an array.
    void copy_state(std::size_t k, nb::handle array, bool written) {
        const ExclusiveUse turn(*pipeline_);
        const BufferView view(array, "Stream: state", !written);
        float* const numbers = view.floats(pipeline_->batch() * pipeline_->state_width(k), "Stream: state");
        if (written) pipeline_->write_state(k, numbers);
        else pipeline_->read_state(k, numbers);
    }

    void begin(nb::handle rows) {
        const ExclusiveUse turn(*pipeline_);
        const BufferView view(rows, "Stream: rows");
        if (!view.has_integers())
            throw nb::type_error("Stream: rows must be integers of type int32 or int64");
        for (Index k = 0; k < view.count(); ++k) pipeline_->reset(view.number(k));
    }

private:
    // Above this many multiplications a step releases the interpreter's lock.
    static constexpr double kMinWorkWithoutLock = 3e4;

    // Throws where another thread uses the stream.
    struct ExclusiveUse : Pipeline::ExclusiveUse {
        explicit ExclusiveUse(Pipeline& pipeline) : Pipeline::ExclusiveUse(pipeline) {
            if (!*this)
                throw std::runtime_error(
                    "Stream: another thread is in a step of it; give each thread its own copy");
        }
    };

    Block block_of(const nb::object& object, nb::object start) {
        Block block;
        if (nb::isinstance<PyLayer>(object)) {
            block.layer = &nb::cast<const PyLayer*>(object)->layer();
            if (!start.is_none())
                for (nb::handle array : start)
                    block.start.push_back(borrowed_.take(nb::borrow(array), "Stream: start"));
        } else if (nb::isinstance<PyLinear>(object)) {
            block.linear = &nb::cast<const PyLinear*>(object)->linear();
        } else if (nb::isinstance<PyPooling>(object)) {
            block.pooling = &nb::cast<const PyPooling*>(object)->pooling();
        } else {
            block.activation = activation_of(nb::cast<std::string>(object));
        }
        return block;
    }

    const Index* see_tokens(nb::handle x) {
        const Index N = pipeline_->batch();
        if (PyLong_CheckExact(x.ptr())) {
            if (N != 1)
                throw std::invalid_argument("Stream: x must have " + std::to_string(N) + " tokens, got one");
            tokens_[0] = PyLong_AsSsize_t(x.ptr());
            if (tokens_[0] == -1 && PyErr_Occurred()) throw nb::python_error();
        } else {
            const BufferView view(x, "Stream: x");
            if (!view.has_integers()) throw nb::type_error("Stream: x must be tokens of type int32 or int64");
            if (view.count() != N)
                throw std::invalid_argument("Stream: x must have " + std::to_string(N) + " tokens, got " +
                                            std::to_string(view.count()));
            for (Index n = 0; n < N; ++n) tokens_[static_cast<std::size_t>(n)] = view.number(n);
        }
        const Index n = pipeline_->first_invalid_token(tokens_.data());
        if (n >= 0)
            throw nb::index_error(("Stream: x must be tokens from 0 to " +
                                   std::to_string(pipeline_->tokens() - 1) + ", got " +
                                   std::to_string(tokens_[static_cast<std::size_t>(n)]))
                                      .c_str());
        return tokens_.data();
    }

    template <class X>
    void run(const X* x, float* result) {
        if (!releases_lock_) return pipeline_->step(x, result);
        const ReleasedLock released;
        pipeline_->step(x, result);
    }

    std::vector<nb::object> blocks_;
    BorrowedArrays borrowed_;
    nb::object empty_;
    std::unique_ptr<Pipeline> pipeline_;
    std::vector<Index> tokens_;
    bool releases_lock_ = false;
};

}  // namespace

void bind_stream(nb::module_& m) {
    nb::class_<PyLayer>(m, "Layer", "A layer in one direction, its weights packed once.")
        .def(nb::init<nb::handle, Index, nb::list, const std::string&, const std::string&>(),
             nb::arg("program"), nb::arg("inputs"), nb::arg("arrays"), nb::arg("weights"), nb::arg("build"))
        .def("run", &PyLayer::run, nb::arg("shape"), nb::arg("arrays"));
    nb::class_<PyLinear>(m, "Linear", "A linear layer, its weights packed once.")
        .def(nb::init<nb::handle, nb::handle, Index, Index, const std::string&, const std::string&>(),
             nb::arg("weight"), nb::arg("bias").none(), nb::arg("width"), nb::arg("source"),
             nb::arg("weights"), nb::arg("build"))
        .def("run", &PyLinear::run, nb::arg("rows"), nb::arg("to"), nb::arg("count"));
    nb::class_<PyPooling>(m, "Pooling", "Pools the steps of a sequence into one vector.")
        .def(nb::init<std::string, Index, nb::object, nb::object>(), nb::arg("name"), nb::arg("width"),
             nb::arg("keys").none(), nb::arg("query").none())
        .def("run", &PyPooling::run, nb::arg("rows"), nb::arg("lengths").none(), nb::arg("T"), nb::arg("N"),
             nb::arg("to"));
    m.def("activate", &activate, nb::arg("name"), nb::arg("rows"), nb::arg("count"), nb::arg("width"),
          "Change rows in place.");
    nb::class_<Stream>(m, "Stream", "Sequences that take steps through blocks.")
        .def(nb::init<nb::object, Index, nb::object, Index, nb::list, nb::list, Index, nb::object, Index>(),
             nb::arg("table").none(), nb::arg("tokens"), nb::arg("scale").none(), nb::arg("width"),
             nb::arg("stages"), nb::arg("starts"), nb::arg("batch"), nb::arg("empty"), nb::arg("threads"))
        .def("step", &Stream::step, nb::arg("x"), nb::arg("out").none() = nb::none())
        .def("copy_state", &Stream::copy_state, nb::arg("k"), nb::arg("array"), nb::arg("written"))
        .def("begin", &Stream::begin, nb::arg("rows"));
}

}  // namespace unrolled
