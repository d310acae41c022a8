#include "model/streaming.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "dispatch/builds.h"
#include "support/sizes.h"
#include "support/threads.h"

namespace unrolled {
namespace {

// The array's numbers; null where there is none.
const float* check_optional(const FloatView& array, Index expected, const char* name) {
    if (array.numbers && array.count != expected)
        throw std::invalid_argument(std::string(name) + " must have " + std::to_string(expected) +
                                    " numbers, got " + std::to_string(array.count));
    return array.numbers;
}

const float* check_array(const FloatView& array, Index expected, const char* name) {
    if (!array.numbers) throw std::invalid_argument(std::string(name) + " must be an array, got None");
    return check_optional(array, expected, name);
}

Weights<float> weights_of(const FloatView& weight, const FloatView& bias, Index rows, Index columns) {
    Weights<float> weights{};
    weights.weight.native = check_array(weight, checked_product(rows, columns), "weight");
    weights.bias = check_optional(bias, rows, "bias");
    return weights;
}

}  // namespace

void Budget::take(Index numbers, const std::string& name) {
    left_ -= numbers;
    if (left_ < 0)
        throw std::invalid_argument(name + ": memory and work must be at most what " +
                                    std::to_string(bytes_) + " bytes may ask for");
}

WeightFormat weight_format_of(const std::string& name) {
    if (name == "float32") return WeightFormat::float32;
    if (name == "bfloat16") return WeightFormat::bfloat16;
    if (name == "int8") return WeightFormat::int8;
    throw std::invalid_argument("weights must be float32, bfloat16 or int8, got " + name);
}

Activation activation_of(const std::string& name) {
    const char* const names[] = {"relu", "tanh", "sigmoid", "softmax", "log_softmax"};
    for (int k = 0; k < 5; ++k)
        if (name == names[k]) return static_cast<Activation>(k);
    throw std::invalid_argument("activation: name must be relu, tanh, sigmoid, softmax or log_softmax, got " +
                                name);
}

Layer::Layer(const Program& program, Index I, const std::vector<FloatView>& arrays, WeightFormat format,
             const std::string& build)
    : program_(program), inputs_(I) {
    const MaskedFloatTraps masked;
    const Program& p = program;
    const std::size_t count = 2 * (1 + p.products.size()) + p.vectors.size();
    if (arrays.size() != count)
        throw std::invalid_argument("recurrent: arrays must be " + std::to_string(count) +
                                    ", one for each that the program names, got " +
                                    std::to_string(arrays.size()));
    Index numbers = 0;
    for (const FloatView& array : arrays) numbers += array.count;
    Budget(numbers * static_cast<Index>(sizeof(float))).take(step_footprint(p), "program");
    Parameters parameters{};
    parameters.program = &p;
    parameters.I = I;
    auto at = arrays.begin();
    const auto weights = [&at](Index rows, Index columns) {
        at += 2;
        return weights_of(at[-2], at[-1], rows, columns);
    };
    const Index input_width = checked_product(p.x_parts, p.x_width), columns = input_columns(p, I);
    parameters.input = weights(input_width, columns);
    for (const Product& q : p.products)
        parameters.products.push_back(weights(checked_product(q.parts, q.width), q.columns));
    for (Index width : p.vectors) parameters.vectors.push_back(check_optional(*at++, width, "vector"));
    snapshot_.reset(find_build(build).snapshot(parameters, format));
    work_ = static_cast<double>(input_width) * static_cast<double>(columns);
    for (const Product& q : p.products)
        work_ += static_cast<double>(q.parts) * static_cast<double>(q.width * q.columns);
}

Linear::Linear(FloatView weight, FloatView bias, Index width, Index source, WeightFormat format,
               const std::string& build)
    : width(width), source(source) {
    const MaskedFloatTraps masked;
    if (width < 1 || source < 1)
        throw std::invalid_argument("linear: weight must not be empty, got shape [" + std::to_string(width) +
                                    ", " + std::to_string(source) + "]");
    affine_.reset(find_build(build).affine(weights_of(weight, bias, width, source), width, source, format));
}

Pooling::Pooling(std::string name, Index width, const Linear* keys, const Linear* query)
    : width(width), name_(std::move(name)), keys_(keys), query_(query), build_(find_build("")) {
    PoolingState(name_, 1, 1);  // throws for an unknown name
    if (!keys != !query || !keys == (name_ == "attention"))
        throw std::invalid_argument(
            "pooling: keys and query must be linear blocks with attention, and None with " +
            std::string("mean and max"));
    if (keys && (keys->source != width || query->source != keys->width || query->width != 1))
        throw std::invalid_argument(
            "pooling: keys must read the width of the pooling, query that of keys, and query "
            "must give one number");
}

void Pooling::score(const float* rows, Index N, float* keys, float* scores) const {
    if (!keys_) return;
    keys_->apply(rows, N, keys);
    build_.activate(Activation::tanh, keys, N, keys_->width);
    query_->apply(keys, N, scores);
}

void Pooling::run(const float* rows, const Index* lengths, Index T, Index N, float* to) const {
    const MaskedFloatTraps masked;
    PoolingState pooling_state = make(N);
    std::vector<float> keys(static_cast<std::size_t>(N * keys_width()));
    std::vector<float> scores(static_cast<std::size_t>(N));
    for (Index t = 0; t < T; ++t, rows += N * width) {
        score(rows, N, keys.data(), scores.data());
        for (Index n = 0; n < N; ++n)
            if (!lengths || t < lengths[n]) pooling_state.add(n, rows + n * width, scores.data());
    }
    for (Index n = 0; n < N; ++n) pooling_state.read(n, to + n * width);
}

Pipeline::Pipeline(const Source& source, const std::vector<Block>& blocks, Index N, Index threads)
    : N_(N),
      threads_(std::min(threads, kMaxThreads)),
      I_(source.width),
      outputs_(source.width),
      table_(source.table),
      V_(source.V),
      build_(find_build("")) {
    const MaskedFloatTraps masked;
    if (N < 1) throw std::invalid_argument("Stream: batch must be at least 1, got " + std::to_string(N));
    if (threads < 1)
        throw std::invalid_argument("Stream: threads must be at least 1, got " + std::to_string(threads));
    if (source.mean) {
        scale_.assign(source.mean, source.mean + I_);
        scale_.insert(scale_.end(), source.deviation, source.deviation + I_);
    }
    for (const Block& block : blocks) add(block);
    for (std::size_t k = 0; k < blocks_.size(); ++k)
        if (!blocks_[k].is_activation()) last_computing_ = k;
    if (blocks_.empty()) throw std::invalid_argument("Stream: blocks must not be empty");
    work_ *= static_cast<double>(N);
    Index widest = I_;
    for (const RunningBlock& block : blocks_) widest = std::max(widest, block.width);
    for (std::vector<float>& numbers : scratch_)
        numbers.resize(static_cast<std::size_t>(checked_product(N, widest)));
    pack_weights();
    for (Index n = 0; n < N; ++n) reset(n);
}

void Pipeline::add(const Block& block) {
    RunningBlock running;
    static_cast<Block&>(running) = block;
    const std::size_t at = blocks_.size();
    Index reads = outputs_, makes = outputs_;
    if (block.layer) {
        const Program& p = block.layer->program();
        reads = block.layer->inputs();
        makes = block.layer->width();
        check_buffer_sizes(p, N_);
        running.steps.reset(block.layer->snapshot().steps(N_, threads_));
        work_ += block.layer->work();
        if (!block.start.empty() && block.start.size() != p.states.size())
            throw std::invalid_argument("Stream: start must have one array for each of the " +
                                        std::to_string(p.states.size()) + " states of a layer");
        for (std::size_t k = 0; k < p.states.size(); ++k) {
            states_.push_back({at, k, p.states[k]});
            if (!block.start.empty()) check_array(block.start[k], p.states[k], "Stream: start");
        }
    } else if (block.linear) {
        reads = block.linear->source;
        makes = block.linear->width;
        work_ += static_cast<double>(makes) * static_cast<double>(reads);
    } else if (block.pooling) {
        reads = block.pooling->width;
        running.pooling_state = std::make_unique<PoolingState>(block.pooling->make(N_));
        running.keys.resize(static_cast<std::size_t>(checked_product(N_, block.pooling->keys_width())));
        running.scores.resize(static_cast<std::size_t>(N_));
        for (std::size_t k = 0; k < 3; ++k) states_.push_back({at, k, PoolingState::state_width(k, reads)});
    }
    if (reads != outputs_)
        throw std::invalid_argument("Stream: inputs of a block must be " + std::to_string(outputs_) +
                                    ", the width of the block before, got " + std::to_string(reads));
    outputs_ = running.width = makes;
    blocks_.push_back(std::move(running));
}

// Linear maps pack their weights at the first use, which allocates memory.
void Pipeline::pack_weights() {
    for (RunningBlock& block : blocks_) {
        float* const zeros = scratch_[0].data();
        if (block.linear) block.linear->apply(zeros, N_, scratch_[1].data());
        if (block.pooling) block.pooling->score(zeros, N_, block.keys.data(), block.scores.data());
    }
}

Index Pipeline::first_invalid_token(const Index* tokens) const {
    for (Index n = 0; n < N_; ++n)
        if (tokens[n] < 0 || tokens[n] >= V_) return n;
    return -1;
}

void Pipeline::read_row(const State& state, Index n, float* to) const {
    const RunningBlock& block = blocks_[state.block];
    if (block.pooling_state) return block.pooling_state->read_state(state.number, n, to);
    std::copy_n(block.steps->state(state.number, n), state.width, to);
}

void Pipeline::write_row(const State& state, Index n, const float* from) {
    const RunningBlock& block = blocks_[state.block];
    if (block.pooling_state) return block.pooling_state->write_state(state.number, n, from);
    std::copy_n(from, state.width, block.steps->state(state.number, n));
}

void Pipeline::read_state(std::size_t k, float* to) const {
    const MaskedFloatTraps masked;
    const State& state = states_.at(k);
    for (Index n = 0; n < N_; ++n, to += state.width) read_row(state, n, to);
}

void Pipeline::write_state(std::size_t k, const float* from) {
    const MaskedFloatTraps masked;
    const State& state = states_.at(k);
    for (Index n = 0; n < N_; ++n, from += state.width) write_row(state, n, from);
}

void Pipeline::reset(Index n) {
    if (n < 0 || n >= N_)
        throw std::out_of_range("Stream: rows must be from 0 to " + std::to_string(N_ - 1) + ", got " +
                                std::to_string(n));
    for (const State& state : states_) {
        const RunningBlock& block = blocks_[state.block];
        if (block.pooling_state) {
            if (state.number == 0) block.pooling_state->begin(n);
        } else if (block.start.empty()) {
            std::fill_n(block.steps->state(state.number, n), state.width, 0.0f);
        } else {
            write_row(state, n, block.start[state.number].numbers);
        }
    }
}

void Pipeline::copy_states_from(const Pipeline& other) {
    for (std::size_t k = 0; k < blocks_.size(); ++k)
        if (blocks_[k].pooling_state) *blocks_[k].pooling_state = *other.blocks_[k].pooling_state;
    for (std::size_t k = 0; k < states_.size(); ++k) {
        const State &from = other.states_[k], &to = states_[k];
        if (blocks_[to.block].pooling_state) continue;
        for (Index n = 0; n < N_; ++n)
            write_row(to, n, other.blocks_[from.block].steps->state(from.number, n));
    }
}

const float* Pipeline::scaled_input(const float* x, const float* out) {
    const MaskedFloatTraps masked;
    float* const to = scratch_[0].data();
    if (scale_.empty()) {
        // A thread that is ahead would overwrite what others have yet to read.
        if (out + N_ * outputs_ <= x || x + N_ * I_ <= out) return x;
        std::copy_n(x, N_ * I_, to);
        return to;
    }
    const double *mean = scale_.data(), *deviation = mean + I_;
    for (Index n = 0; n < N_; ++n)
        for (Index k = 0; k < I_; ++k)
            to[n * I_ + k] =
                static_cast<float>((static_cast<double>(x[n * I_ + k]) - mean[k]) / deviation[k]);
    return to;
}

const float* Pipeline::embed(const Index* tokens) {
    float* const to = scratch_[0].data();
    for (Index n = 0; n < N_; ++n) std::copy_n(table_ + tokens[n] * I_, I_, to + n * I_);
    return to;
}

void Pipeline::run_blocks(const float* x, float* result) {
    const MaskedFloatTraps masked;
    const float* from = x;
    for (std::size_t k = 0; k < blocks_.size(); ++k) {
        RunningBlock& block = blocks_[k];
        // Activations at the end work in place, on the result; others on a copy.
        float* to = k >= last_computing_ ? result : other_scratch(from);
        if (block.layer) {
            block.steps->step(from, to);
        } else if (block.linear) {
            block.linear->apply(from, N_, to);
        } else if (block.pooling_state) {
            block.pooling->score(from, N_, block.keys.data(), block.scores.data());
            for (Index n = 0; n < N_; ++n) {
                block.pooling_state->add(n, from + n * block.width, block.scores.data());
                block.pooling_state->read(n, to + n * block.width);
            }
        } else {
            if (from != to) std::copy_n(from, N_ * block.width, to);
            build_.activate(block.activation, to, N_, block.width);
        }
        from = to;
    }
}

float* Pipeline::other_scratch(const float* used) {
    return used == scratch_[0].data() ? scratch_[1].data() : scratch_[0].data();
}

}  // namespace unrolled
