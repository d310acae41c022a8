#include "model/streaming.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "support/sizes.h"
#include "support/threads.h"
#include "dispatch/builds.h"

namespace unrolled {
namespace {

const float* some(Floats given, Index wanted, const char* what) {
    if (given.numbers && given.count != wanted)
        throw std::invalid_argument(std::string(what) + ": wanted " + std::to_string(wanted) +
                                    " numbers, got " + std::to_string(given.count));
    return given.numbers;
}

const float* all(Floats given, Index wanted, const char* what) {
    if (!given.numbers) throw std::invalid_argument(std::string(what) + ": missing");
    return some(given, wanted, what);
}

Weights<float> weights_of(Floats weight, Floats bias, Index rows, Index columns) {
    Weights<float> found{};
    found.weight.own = all(weight, product(rows, columns), "weight");
    found.bias = some(bias, rows, "bias");
    return found;
}

}  // namespace

void Budget::take(Index numbers, const std::string& name) {
    left_ -= numbers;
    if (left_ < 0)
        throw std::invalid_argument(name + ": wanted no more memory and work than " +
                                    std::to_string(bytes_) + " bytes may ask for");
}

Kept kept_of(const std::string& name) {
    if (name == "float32") return Kept::own;
    if (name == "bfloat16") return Kept::bfloat16;
    if (name == "int8") return Kept::int8;
    throw std::invalid_argument("weights: wanted float32, bfloat16 or int8, got " + name);
}

Activation activation_of(const std::string& name) {
    const char* const names[] = {"relu", "tanh", "sigmoid", "softmax", "log_softmax"};
    for (int k = 0; k < 5; ++k)
        if (name == names[k]) return static_cast<Activation>(k);
    throw std::invalid_argument("activation: unknown, " + name);
}

Layer::Layer(const Program& program, Index I, const std::vector<Floats>& arrays, Kept kept,
             const std::string& build)
    : program_(program), inputs_(I) {
    const Masked masked;
    const Program& p = program;
    if (arrays.size() != 2 * (1 + p.products.size()) + p.vectors.size())
        throw std::invalid_argument("arrays: wanted one for each that the program names");
    Index numbers = 0;
    for (const Floats& array : arrays) numbers += array.count;
    Budget(numbers * static_cast<Index>(sizeof(float))).take(room_of(p), "program");
    Parameters given{};
    given.program = &p;
    given.I = I;
    auto at = arrays.begin();
    const auto weights = [&at](Index rows, Index columns) {
        at += 2;
        return weights_of(at[-2], at[-1], rows, columns);
    };
    given.input = weights(product(p.x_parts, p.x_width), I);
    for (const Product& q : p.products)
        given.products.push_back(weights(product(q.parts, q.width), q.source));
    for (Index width : p.vectors) given.vectors.push_back(some(*at++, width, "vector"));
    snapshot_.reset(find_build(build).snapshot(given, kept));
    work_ = static_cast<double>(p.x_parts) * static_cast<double>(p.x_width) * static_cast<double>(I);
    for (const Product& q : p.products)
        work_ += static_cast<double>(q.parts) * static_cast<double>(q.width * q.source);
}

Line::Line(Floats weight, Floats bias, Index width, Index source, Kept kept,
           const std::string& build)
    : width(width), source(source) {
    const Masked masked;
    if (width < 1 || source < 1)
        throw std::invalid_argument("linear: wanted at least one number in and out");
    affine_.reset(find_build(build).affine(weights_of(weight, bias, width, source), width, source,
                                           kept));
}

Pooling::Pooling(std::string name, Index width, const Line* keys, const Line* query)
    : width(width), name_(std::move(name)), keys_(keys), query_(query), build_(find_build("")) {
    Pool(name_, 1, 1);  // refuses a name that is none
    if (!keys != !query || !keys == (name_ == "attention"))
        throw std::invalid_argument("pooling: keys and query are attention's");
    if (keys && (keys->source != width || query->source != keys->width || query->width != 1))
        throw std::invalid_argument("pooling: widths of keys and query do not fit");
}

void Pooling::score(const float* rows, Index N, float* room, float* scores) const {
    if (!keys_) return;
    keys_->apply(rows, N, room);
    build_.activate(Activation::tanh, room, N, keys_->width);
    query_->apply(room, N, scores);
}

void Pooling::run(const float* rows, const Index* lengths, Index T, Index N, float* to) const {
    const Masked masked;
    Pool pool = make(N);
    std::vector<float> keys(static_cast<std::size_t>(N * room()));
    std::vector<float> scores(static_cast<std::size_t>(N));
    for (Index t = 0; t < T; ++t, rows += N * width) {
        score(rows, N, keys.data(), scores.data());
        for (Index n = 0; n < N; ++n)
            if (!lengths || t < lengths[n]) pool.add(n, rows + n * width, scores.data());
    }
    for (Index n = 0; n < N; ++n) pool.read(n, to + n * width);
}

Chain::Chain(const Source& source, const std::vector<Stage>& stages, Index N, Index threads)
    : N_(N), threads_(std::min(threads, kMostThreads)), I_(source.width), outputs_(source.width),
      table_(source.table), V_(source.V), build_(find_build("")) {
    const Masked masked;
    if (N < 1) throw std::invalid_argument("batch: wanted at least 1, got " + std::to_string(N));
    if (threads < 1)
        throw std::invalid_argument("threads: wanted at least 1, got " + std::to_string(threads));
    if (source.mean) {
        scale_.assign(source.mean, source.mean + I_);
        scale_.insert(scale_.end(), source.deviation, source.deviation + I_);
    }
    for (const Stage& stage : stages) add(stage);
    for (std::size_t k = 0; k < stages_.size(); ++k)
        if (!stages_[k].active()) last_ = k;
    if (stages_.empty()) throw std::invalid_argument("stages: wanted one or more");
    work_ *= static_cast<double>(N);
    Index widest = I_;
    for (const Running& stage : stages_) widest = std::max(widest, stage.width);
    for (std::vector<float>& room : rooms_) room.resize(static_cast<std::size_t>(product(N, widest)));
    warm();
    for (Index n = 0; n < N; ++n) reset(n);
}

void Chain::add(const Stage& given) {
    Running stage;
    static_cast<Stage&>(stage) = given;
    const std::size_t at = stages_.size();
    Index reads = outputs_, makes = outputs_;
    if (given.layer) {
        const Program& p = given.layer->program();
        reads = given.layer->inputs();
        makes = given.layer->width();
        check_room(p, N_);
        stage.steps.reset(given.layer->snapshot().steps(N_, threads_));
        work_ += given.layer->work();
        if (!given.start.empty() && given.start.size() != p.states.size())
            throw std::invalid_argument("start: wanted one for each state of a layer");
        for (std::size_t k = 0; k < p.states.size(); ++k) {
            states_.push_back({at, k, p.states[k]});
            if (!given.start.empty()) all(given.start[k], p.states[k], "start");
        }
    } else if (given.line) {
        reads = given.line->source;
        makes = given.line->width;
        work_ += static_cast<double>(makes) * static_cast<double>(reads);
    } else if (given.pooling) {
        reads = given.pooling->width;
        stage.pool = std::make_unique<Pool>(given.pooling->make(N_));
        stage.room.resize(static_cast<std::size_t>(product(N_, given.pooling->room())));
        stage.scores.resize(static_cast<std::size_t>(N_));
        for (std::size_t k = 0; k < 3; ++k) states_.push_back({at, k, Pool::state_width(k, reads)});
    }
    if (reads != outputs_) throw std::invalid_argument("stages: widths differ");
    outputs_ = stage.width = makes;
    stages_.push_back(std::move(stage));
}

// Lines pack their weights when they are first used, which would take memory.
void Chain::warm() {
    for (Running& stage : stages_) {
        float* const zeros = rooms_[0].data();
        if (stage.line) stage.line->apply(zeros, N_, rooms_[1].data());
        if (stage.pooling) stage.pooling->score(zeros, N_, stage.room.data(), stage.scores.data());
    }
}

Index Chain::outside(const Index* tokens) const {
    for (Index n = 0; n < N_; ++n)
        if (tokens[n] < 0 || tokens[n] >= V_) return n;
    return -1;
}

void Chain::read_row(const State& state, Index n, float* to) const {
    const Running& stage = stages_[state.stage];
    if (stage.pool) return stage.pool->read_state(state.number, n, to);
    std::copy_n(stage.steps->state(state.number, n), state.width, to);
}

void Chain::write_row(const State& state, Index n, const float* from) {
    const Running& stage = stages_[state.stage];
    if (stage.pool) return stage.pool->write_state(state.number, n, from);
    std::copy_n(from, state.width, stage.steps->state(state.number, n));
}

void Chain::read_state(std::size_t k, float* to) const {
    const Masked masked;
    const State& state = states_.at(k);
    for (Index n = 0; n < N_; ++n, to += state.width) read_row(state, n, to);
}

void Chain::write_state(std::size_t k, const float* from) {
    const Masked masked;
    const State& state = states_.at(k);
    for (Index n = 0; n < N_; ++n, from += state.width) write_row(state, n, from);
}

void Chain::reset(Index n) {
    if (n < 0 || n >= N_)
        throw std::out_of_range("rows: wanted 0 to " + std::to_string(N_ - 1) + ", got " +
                                std::to_string(n));
    for (const State& state : states_) {
        const Running& stage = stages_[state.stage];
        if (stage.pool) {
            if (state.number == 0) stage.pool->begin(n);
        } else if (stage.start.empty()) {
            std::fill_n(stage.steps->state(state.number, n), state.width, 0.0f);
        } else {
            write_row(state, n, stage.start[state.number].numbers);
        }
    }
}

void Chain::take(const Chain& other) {
    for (std::size_t k = 0; k < stages_.size(); ++k)
        if (stages_[k].pool) *stages_[k].pool = *other.stages_[k].pool;
    for (std::size_t k = 0; k < states_.size(); ++k) {
        const State &from = other.states_[k], &to = states_[k];
        if (stages_[to.stage].pool) continue;
        for (Index n = 0; n < N_; ++n)
            write_row(to, n, other.stages_[from.stage].steps->state(from.number, n));
    }
}

const float* Chain::entered(const float* x, const float* out) {
    const Masked masked;
    float* const to = rooms_[0].data();
    if (scale_.empty()) {
        // Threads that are ahead would write over what others have to read.
        if (out + N_ * outputs_ <= x || x + N_ * I_ <= out) return x;
        std::copy_n(x, N_ * I_, to);
        return to;
    }
    const double *mean = scale_.data(), *deviation = mean + I_;
    for (Index n = 0; n < N_; ++n)
        for (Index k = 0; k < I_; ++k)
            to[n * I_ + k] = static_cast<float>(
                (static_cast<double>(x[n * I_ + k]) - mean[k]) / deviation[k]);
    return to;
}

const float* Chain::looked_up(const Index* tokens) {
    float* const to = rooms_[0].data();
    for (Index n = 0; n < N_; ++n) std::copy_n(table_ + tokens[n] * I_, I_, to + n * I_);
    return to;
}

void Chain::pass(const float* x, float* result) {
    const Masked masked;
    const float* from = x;
    for (std::size_t k = 0; k < stages_.size(); ++k) {
        Running& stage = stages_[k];
        // Activations at the end work in place, on the result; others on a copy.
        float* to = k >= last_ ? result : room(from);
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

float* Chain::room(const float* other) {
    return other == rooms_[0].data() ? rooms_[1].data() : rooms_[0].data();
}

}  // namespace unrolled
