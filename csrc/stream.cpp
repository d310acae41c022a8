// Snapshots from arrays, and streams: chains of stages that take steps. A step costs microseconds, so
// arrays are seen by the buffer protocol, and nothing is made for one.
#include "stream.h"

#include <algorithm>
#include <memory>
#include <stdexcept>

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "dispatch.h"
#include "interrupt.h"
#include "pool.h"

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

    float* floats(Index wanted, const char* what) const {
        if (!is('f'))
            throw nb::type_error((std::string(what) + ": wanted float32, got the type " +
                                  (view_.format ? view_.format : "B")).c_str());
        if (count() != wanted)
            throw std::invalid_argument(std::string(what) + ": wanted " + std::to_string(wanted) +
                                        " numbers, got " + std::to_string(count()));
        return static_cast<float*>(view_.buf);
    }

private:
    Py_buffer view_;
};

Kept kept_of(const std::string& name) {
    if (name == "float32") return Kept::own;
    if (name == "bfloat16") return Kept::bfloat16;
    if (name == "int8") return Kept::int8;
    throw std::invalid_argument("weights: wanted float32, bfloat16 or int8, got " + name);
}

// Parameters, held for a snapshot.
class Held {
public:
    const float* take(nb::handle array, Index wanted, const char* what) {
        if (array.is_none()) return nullptr;
        held_.push_back(std::make_unique<Seen>(array, what));
        return held_.back()->floats(wanted, what);
    }
    const float* need(nb::handle array, Index wanted, const char* what) {
        if (array.is_none()) throw std::invalid_argument(std::string(what) + ": missing");
        return take(array, wanted, what);
    }

private:
    std::vector<std::unique_ptr<Seen>> held_;
};

// A layer in one direction. `arrays`: weight and bias (or None) of the input and of each product, then
// the vectors.
class Layer {
public:
    Layer(nb::handle program, Index I, nb::list arrays, const std::string& kept,
          const std::string& build)
        : program_(nb::borrow(program)) {
        Parameters given{};
        const Program& p = *nb::cast<const Program*>(program);
        given.program = &p;
        given.I = I;
        if (nb::len(arrays) != 2 * (1 + p.products.size()) + p.vectors.size())
            throw std::invalid_argument("arrays: wanted one for each that the program names");
        std::size_t at = 0;
        const auto weights = [&](Index rows, Index columns) {
            Weights<float> found{};
            found.weight.own = held_.need(arrays[at++], product(rows, columns), "weight");
            found.bias = held_.take(arrays[at++], rows, "bias");
            return found;
        };
        given.input = weights(product(p.x_parts, p.x_width), I);
        for (const Product& q : p.products)
            given.products.push_back(weights(product(q.parts, q.width), q.source));
        for (Index width : p.vectors)
            given.vectors.push_back(held_.take(arrays[at++], width, "vector"));
        snapshot_.reset(find_build(build).snapshot(given, kept_of(kept)));
        work_ = static_cast<double>(p.x_parts) * static_cast<double>(p.x_width) * static_cast<double>(I);
        for (const Product& q : p.products)
            work_ += static_cast<double>(q.parts) * static_cast<double>(q.width * q.source);
        inputs = I;
    }

    // Addresses and numbers of elements, see arrays.h.
    void run(const Numbers& shape, const Numbers& arrays) const {
        Interrupt interrupt;
        {
            nb::gil_scoped_release free;
            run_snapshot(Told{&program(), shape, arrays, 1, Storage::own, &interrupt}, *snapshot_);
        }
        interrupt.raise();
    }

    const Program& program() const { return *nb::cast<const Program*>(program_); }
    Snapshot& snapshot() const { return *snapshot_; }
    double work() const { return work_; }
    Index inputs = 0;

private:
    nb::object program_;
    Held held_;
    std::unique_ptr<Snapshot> snapshot_;
    double work_ = 0;  // multiplications of a token
};

// A linear layer.
class Line {
public:
    Line(nb::handle weight, nb::handle bias, Index width, Index source, const std::string& kept,
         const std::string& build)
        : width(width), source(source) {
        if (width < 1 || source < 1)
            throw std::invalid_argument("linear: wanted at least one number in and out");
        Weights<float> given{};
        given.weight.own = held_.need(weight, product(width, source), "weight");
        given.bias = held_.take(bias, width, "bias");
        affine_.reset(find_build(build).affine(given, width, source, kept_of(kept)));
    }

    void run(nb::handle rows, nb::handle to, Index count) const {
        const Seen from(rows, "rows"), result(to, "to", true);
        const float* x = from.floats(product(count, source), "rows");
        float* y = result.floats(product(count, width), "to");
        nb::gil_scoped_release free;
        affine_->apply(x, count, y);
    }

    void apply(const float* rows, Index count, float* to) const { affine_->apply(rows, count, to); }

    Index width, source;

private:
    Held held_;
    std::unique_ptr<Affine> affine_;
};

// How a model makes one vector of a sequence: its name and, for attention, the layers that score a
// step: query(tanh(keys(y))).
struct Pooling {
    Pooling(std::string name, Index width, nb::object keys, nb::object query)
        : name(std::move(name)), width(width), held{keys, query} {
        Pool(this->name, 1, 1);  // refuses a name that is none
        if (keys.is_none() != query.is_none() || keys.is_none() == (this->name == "attention"))
            throw std::invalid_argument("pooling: keys and query are attention's");
        if (keys.is_none()) return;
        this->keys = nb::cast<const Line*>(keys);
        this->query = nb::cast<const Line*>(query);
        if (this->keys->source != width || this->query->source != this->keys->width ||
            this->query->width != 1)
            throw std::invalid_argument("pooling: widths of keys and query do not fit");
    }

    // [N] from rows [N, width]; `room` for the keys.
    void score(const float* rows, Index N, float* room, float* scores) const {
        if (!keys) return;
        keys->apply(rows, N, room);
        find_build("").activate(Activation::tanh, room, N, keys->width);
        query->apply(room, N, scores);
    }

    // Whole sequences: rows [T, N, width] of these lengths (None: T each) to [N, width].
    void run(nb::handle rows, nb::handle lengths, Index T, Index N, nb::handle to) const {
        const Seen from(rows, "rows"), result(to, "to", true);
        const float* x = from.floats(product(product(T, N), width), "rows");
        float* const y = result.floats(product(N, width), "to");
        std::unique_ptr<Seen> ends;
        if (!lengths.is_none()) {
            ends = std::make_unique<Seen>(lengths, "lengths");
            if (!ends->whole_numbers() || ends->count() != N)
                throw std::invalid_argument("lengths: wanted one for each sequence");
        }
        nb::gil_scoped_release free;
        Pool pool(name, N, width);
        std::vector<float> room(static_cast<std::size_t>(keys ? N * keys->width : 0));
        std::vector<float> scores(static_cast<std::size_t>(N));
        for (Index t = 0; t < T; ++t, x += N * width) {
            score(x, N, room.data(), scores.data());
            for (Index n = 0; n < N; ++n)
                if (!ends || t < ends->number(n)) pool.add(n, x + n * width, scores.data());
        }
        for (Index n = 0; n < N; ++n) pool.read(n, y + n * width);
    }

    std::string name;
    Index width;
    const Line *keys = nullptr, *query = nullptr;
    nb::object held[2];
};

Activation activation_of(const std::string& name) {
    const char* const names[] = {"relu", "tanh", "sigmoid", "softmax", "log_softmax"};
    for (int k = 0; k < 5; ++k)
        if (name == names[k]) return static_cast<Activation>(k);
    throw std::invalid_argument("activation: unknown, " + name);
}

void activate(const std::string& name, nb::handle array, Index count, Index width) {
    const Seen rows(array, "rows", true);
    const Activation kind = activation_of(name);
    float* const numbers = rows.floats(product(count, width), "rows");
    nb::gil_scoped_release free;
    find_build("").activate(kind, numbers, count, width);
}

// One part of a chain; what comes before it made `from`, what it makes has `width` numbers a row.
struct Stage {
    nb::object held;
    Index width = 0;
    const Layer* layer = nullptr;
    std::unique_ptr<Steps> steps;
    const Line* line = nullptr;
    const Pooling* pooling = nullptr;
    std::unique_ptr<Pool> pool;
    std::vector<float> room, scores;
    bool active = false;
    Activation activation = Activation::relu;
};

// Thrown where two threads are in one stream.
[[noreturn]] void refuse() {
    throw std::runtime_error("stream: another thread is in a step of it; each may have its own copy");
}

class Stream {
public:
    // `table`: [V, width] of an embedding, or None. `scale`: mean and deviation [width] in float64, by
    // which numbers are brought to standard units, or None. `stages`: layers, lines and names of
    // activations.
    Stream(nb::object table, Index V, nb::object scale, Index width, nb::list stages, Index N,
           nb::object empty, Index threads)
        : N_(N), threads_(threads), empty_(empty), build_(find_build("")) {
        if (threads < 1)
            throw std::invalid_argument("threads: wanted at least 1, got " + std::to_string(threads));
        if (N < 1) throw std::invalid_argument("batch: wanted at least 1, got " + std::to_string(N));
        I_ = width;
        if (!table.is_none()) {
            table_ = held_.take(table, product(V, width), "table");
            V_ = V;
        }
        if (!scale.is_none()) {
            const Seen numbers(scale, "scale");
            if (!numbers.is('d') || numbers.count() != 2 * width)
                throw std::invalid_argument("scale: wanted mean and deviation in float64");
            scale_.assign(numbers.doubles(), numbers.doubles() + 2 * width);
        }
        for (nb::handle stage : stages) add(stage, width);
        if (stages_.empty()) throw std::invalid_argument("stages: wanted one or more");
        outputs_ = width;
        Index widest = I_;
        for (const Stage& stage : stages_) widest = std::max(widest, stage.width);
        rooms_[0].resize(static_cast<std::size_t>(product(N, widest)));
        rooms_[1].resize(rooms_[0].size());
        long_ = work_ * static_cast<double>(N) > kLong;
    }

    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    nb::object step(nb::handle x, nb::handle out) {
        nb::object made = out.is_none() ? empty_(nb::make_tuple(N_, outputs_)) : nb::borrow(out);
        const Seen to(made, "out", true);
        float* const result = to.floats(N_ * outputs_, "out");
        if (__atomic_exchange_n(&taken_, 1, __ATOMIC_ACQUIRE)) refuse();
        const Free free{taken_};
        if (table_) {
            look_up(x);
            run(rooms_[0].data(), result);
        } else {
            const Seen from(x, "x");
            run(scaled(from.floats(N_ * I_, "x")), result);
        }
        return made;
    }

    // Copies a state of a stage, [N, width], from or to an array.
    void copy_state(Index stage, Index k, nb::handle array, bool written) {
        if (__atomic_exchange_n(&taken_, 1, __ATOMIC_ACQUIRE)) refuse();
        const Free free{taken_};
        const Stage& found = stages_.at(static_cast<std::size_t>(stage));
        if (found.pool) return copy_pool(*found.pool, static_cast<std::size_t>(k), array, written);
        if (!found.layer) throw std::invalid_argument("stage: wanted a layer or a pool");
        const Index width = found.layer->program().states.at(static_cast<std::size_t>(k));
        const Seen seen(array, "state", !written);
        float* const numbers = seen.floats(N_ * width, "state");
        for (Index n = 0; n < N_; ++n) {
            float* const own = found.steps->state(static_cast<std::size_t>(k), n);
            if (written) std::copy_n(numbers + n * width, width, own);
            else std::copy_n(own, width, numbers + n * width);
        }
    }

private:
    // Multiplications of a step from which on other threads of Python may run meanwhile.
    static constexpr double kLong = 3e4;

    struct Free {
        int& taken;
        ~Free() { __atomic_store_n(&taken, 0, __ATOMIC_RELEASE); }
    };

    static void copy_pool(Pool& pool, std::size_t k, nb::handle array, bool written) {
        std::vector<float>& own = pool.state(k);
        const Seen seen(array, "state", !written);
        float* const numbers = seen.floats(static_cast<Index>(own.size()), "state");
        if (written) std::copy_n(numbers, own.size(), own.data());
        else std::copy_n(own.data(), own.size(), numbers);
    }

    void add(nb::handle given, Index& width) {
        Stage stage;
        stage.held = nb::borrow(given);
        if (nb::isinstance<Layer>(given)) {
            stage.layer = nb::cast<const Layer*>(given);
            if (stage.layer->inputs != width) throw std::invalid_argument("stages: widths differ");
            stage.steps.reset(stage.layer->snapshot().steps(N_, threads_));
            width = stage.layer->program().states[0];
            work_ += stage.layer->work();
        } else if (nb::isinstance<Line>(given)) {
            stage.line = nb::cast<const Line*>(given);
            if (stage.line->source != width) throw std::invalid_argument("stages: widths differ");
            width = stage.line->width;
            work_ += static_cast<double>(width) * static_cast<double>(stage.line->source);
        } else if (nb::isinstance<Pooling>(given)) {
            stage.pooling = nb::cast<const Pooling*>(given);
            if (stage.pooling->width != width) throw std::invalid_argument("stages: widths differ");
            stage.pool = std::make_unique<Pool>(stage.pooling->name, N_, width);
            stage.scores.resize(static_cast<std::size_t>(N_));
            if (stage.pooling->keys)
                stage.room.resize(static_cast<std::size_t>(product(N_, stage.pooling->keys->width)));
        } else {
            stage.active = true;
            stage.activation = activation_of(nb::cast<std::string>(given));
        }
        stage.width = width;
        stages_.push_back(std::move(stage));
    }

    // Rows of the table into the first room.
    void look_up(nb::handle x) {
        float* const to = rooms_[0].data();
        if (PyLong_CheckExact(x.ptr())) {
            if (N_ != 1) throw std::invalid_argument("x: wanted a token for each sequence, got one");
            const Index token = PyLong_AsSsize_t(x.ptr());
            if (token == -1 && PyErr_Occurred()) throw nb::python_error();
            std::copy_n(row(token), I_, to);
            return;
        }
        const Seen tokens(x, "x");
        if (!tokens.whole_numbers()) throw nb::type_error("x: wanted tokens in int32 or int64");
        if (tokens.count() != N_)
            throw std::invalid_argument("x: wanted " + std::to_string(N_) + " tokens, got " +
                                        std::to_string(tokens.count()));
        for (Index n = 0; n < N_; ++n) row(tokens.number(n));
        for (Index n = 0; n < N_; ++n) std::copy_n(row(tokens.number(n)), I_, to + n * I_);
    }

    const float* scaled(const float* x) {
        if (scale_.empty()) return x;
        float* const to = rooms_[0].data();
        for (Index n = 0; n < N_; ++n)
            for (Index k = 0; k < I_; ++k)
                to[n * I_ + k] = static_cast<float>(
                    (static_cast<double>(x[n * I_ + k]) - scale_[static_cast<std::size_t>(k)]) /
                    scale_[static_cast<std::size_t>(I_ + k)]);
        return to;
    }

    const float* row(Index token) const {
        if (token < 0 || token >= V_)
            throw nb::index_error(("x: wanted tokens from 0 to " + std::to_string(V_ - 1) + ", got " +
                                   std::to_string(token)).c_str());
        return table_ + token * I_;
    }

    void run(const float* x, float* result) {
        if (!long_) return pass(x, result);
        nb::gil_scoped_release free;
        pass(x, result);
    }

    void pass(const float* x, float* result) {
        const float* from = x;
        for (std::size_t k = 0; k < stages_.size(); ++k) {
            Stage& stage = stages_[k];
            // Activations at the end work in place, on the result; others on a copy.
            float* to = k + 1 == stages_.size() || only_active(k + 1) ? result : room(from);
            if (stage.layer) {
                stage.steps->step(from, to);
            } else if (stage.line) {
                stage.line->apply(from, N_, to);
            } else if (stage.pool) {
                stage.pooling->score(from, N_, stage.room.data(), stage.scores.data());
                for (Index n = 0; n < N_; ++n) {
                    stage.pool->add(n, from + n * stage.width, stage.scores.data());
                    stage.pool->read(n, to + n * stage.width);
                }
            } else {
                if (from != to) std::copy_n(from, N_ * stage.width, to);
                build_.activate(stage.activation, to, N_, stage.width);
            }
            from = to;
        }
    }

    bool only_active(std::size_t k) const {
        for (; k < stages_.size(); ++k)
            if (!stages_[k].active) return false;
        return true;
    }

    float* room(const float* other) {
        return other == rooms_[0].data() ? rooms_[1].data() : rooms_[0].data();
    }

    Held held_;
    const float* table_ = nullptr;
    std::vector<double> scale_;
    Index V_ = 0, N_, threads_, I_ = 0, outputs_ = 0;
    nb::object empty_;
    const Build& build_;
    std::vector<Stage> stages_;
    std::vector<float> rooms_[2];
    double work_ = 0;
    bool long_ = false;
    int taken_ = 0;
};

}  // namespace

void bind_streams(nb::module_& m) {
    nb::class_<Layer>(m, "Layer", "A layer in one direction, its weights packed once.")
        .def(nb::init<nb::handle, Index, nb::list, const std::string&, const std::string&>(),
             nb::arg("program"), nb::arg("inputs"), nb::arg("arrays"), nb::arg("weights"),
             nb::arg("build"))
        .def("run", &Layer::run, nb::arg("shape"), nb::arg("arrays"));
    nb::class_<Line>(m, "Line", "A linear layer, its weights packed once.")
        .def(nb::init<nb::handle, nb::handle, Index, Index, const std::string&,
                      const std::string&>(),
             nb::arg("weight"), nb::arg("bias").none(), nb::arg("width"), nb::arg("source"),
             nb::arg("weights"), nb::arg("build"))
        .def("run", &Line::run, nb::arg("rows"), nb::arg("to"), nb::arg("count"));
    nb::class_<Pooling>(m, "Pooling", "How one vector of a sequence is made.")
        .def(nb::init<std::string, Index, nb::object, nb::object>(), nb::arg("name"),
             nb::arg("width"), nb::arg("keys").none(), nb::arg("query").none())
        .def("run", &Pooling::run, nb::arg("rows"), nb::arg("lengths").none(), nb::arg("T"),
             nb::arg("N"), nb::arg("to"));
    m.def("activate", &activate, nb::arg("name"), nb::arg("rows"), nb::arg("count"),
          nb::arg("width"), "Change rows in place.");
    nb::class_<Stream>(m, "Stream", "A chain of stages that takes steps.")
        .def(nb::init<nb::object, Index, nb::object, Index, nb::list, Index, nb::object, Index>(),
             nb::arg("table").none(), nb::arg("tokens"), nb::arg("scale").none(), nb::arg("width"), nb::arg("stages"),
             nb::arg("batch"), nb::arg("empty"), nb::arg("threads"))
        .def("step", &Stream::step, nb::arg("x"), nb::arg("out").none() = nb::none())
        .def("copy_state", &Stream::copy_state, nb::arg("stage"), nb::arg("k"), nb::arg("array"),
             nb::arg("written"));
}

}  // namespace unrolled
