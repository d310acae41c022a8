// What models that take steps are made of, and chains of it. A step takes neither memory nor a lock.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dispatch/build.h"
#include "model/pooling.h"

namespace unrolled {

// Numbers that are borrowed for as long as there is what was made of them; null: none.
struct Floats {
    const float* numbers = nullptr;
    Index count = 0;
};

// Memory and work that a file may ask for, in such numbers, counted while it is read: so many in any
// case, and so many more for each of its bytes. As limits.py has it.
class Budget {
public:
    explicit Budget(Index bytes) : bytes_(bytes), left_(kBaseNumbers + kNumbersPerByte * bytes) {}

    // Throws std::invalid_argument where the file has asked for more than it may.
    void take(Index numbers, const std::string& name);

private:
    static constexpr Index kBaseNumbers = Index(1) << 24, kNumbersPerByte = 16;
    Index bytes_, left_;
};

// They throw std::invalid_argument where there is none of that name.
Kept kept_of(const std::string& name);
Activation activation_of(const std::string& name);

// A layer in one direction, its weights packed once.
class Layer {
public:
    // The program is borrowed, too. `arrays`: weight and bias (or none) of the input and of each
    // product, then the vectors (or none). Throws std::invalid_argument where they do not fit, or are
    // far smaller than the program.
    Layer(const Program& program, Index I, const std::vector<Floats>& arrays, Kept kept,
          const std::string& build);

    const Program& program() const { return program_; }
    Snapshot& snapshot() const { return *snapshot_; }
    Index inputs() const { return inputs_; }
    Index width() const { return program_.states[0]; }
    double work() const { return work_; }  // multiplications of a token

private:
    const Program& program_;
    Index inputs_;
    std::unique_ptr<Snapshot> snapshot_;
    double work_ = 0;
};

// y = W x + b: W [width, source], b [width] or none.
class Line {
public:
    Line(Floats weight, Floats bias, Index width, Index source, Kept kept, const std::string& build);

    // Rows [count, source] to [count, width].
    void apply(const float* rows, Index count, float* to) const { affine_->apply(rows, count, to); }

    const Index width, source;

private:
    std::unique_ptr<Affine> affine_;
};

// How a model makes one vector of a sequence: its name and, for attention, the lines that score a
// step: query(tanh(keys(y))), which are borrowed.
class Pooling {
public:
    Pooling(std::string name, Index width, const Line* keys, const Line* query);

    // Scores [N] of rows [N, width], where there is attention; `room` for the keys.
    void score(const float* rows, Index N, float* room, float* scores) const;

    // Whole sequences: rows [T, N, width] of these lengths [N] (null: T each) to [N, width].
    void run(const float* rows, const Index* lengths, Index T, Index N, float* to) const;

    Pool make(Index N) const { return Pool(name_, N, width); }
    Index room() const { return keys_ ? keys_->width : 0; }  // numbers of a row

    const Index width;

private:
    std::string name_;
    const Line *keys_, *query_;
    const Build& build_;
};

// What a chain reads: numbers [width], with mean and deviation [width] brought to standard units by
// them (both are copied); or tokens, which are rows of a table [V, width], borrowed.
struct Source {
    Index width = 0;
    const float* table = nullptr;
    Index V = 0;
    const double* mean = nullptr;
    const double* deviation = nullptr;
};

// One part of a chain, borrowed; an activation where it is nothing else.
struct Stage {
    const Layer* layer = nullptr;
    const Line* line = nullptr;
    const Pooling* pooling = nullptr;
    Activation activation = Activation::relu;
    std::vector<Floats> start;  // of a layer, by state [width]; empty: zeros
};

// N sequences that take steps one at a time, one thread at a time; which may call others for long
// steps of layers, so many in all.
class Chain {
public:
    // Throws std::invalid_argument where N or `threads` is below 1 or widths do not fit.
    Chain(const Source& source, const std::vector<Stage>& stages, Index N, Index threads);
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    // A thread's turn; false where another has it.
    class Turn {
    public:
        explicit Turn(Chain& chain)
            : taken_(chain.taken_), mine_(!__atomic_exchange_n(&taken_, 1, __ATOMIC_ACQUIRE)) {}
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;
        ~Turn() {
            if (mine_) __atomic_store_n(&taken_, 0, __ATOMIC_RELEASE);
        }
        explicit operator bool() const { return mine_; }

    private:
        int& taken_;
        bool mine_;
    };

    bool reads_tokens() const { return table_; }
    Index batch() const { return N_; }
    Index inputs() const { return I_; }
    Index tokens() const { return V_; }
    Index outputs() const { return outputs_; }
    double work() const { return work_; }  // multiplications of a step

    // The first of N tokens that is no row of the table, or -1.
    Index outside(const Index* tokens) const;

    // Numbers [N, inputs], or tokens [N] of which none is outside, to `out` [N, outputs], which may
    // overlap x.
    void step(const float* x, float* out) { pass(entered(x, out), out); }
    void step(const Index* tokens, float* out) { pass(looked_up(tokens), out); }

    // The states before the next step, of layers and pools in their order: [N, width] each. A number
    // or row that is not there throws std::out_of_range.
    std::size_t states() const { return states_.size(); }
    Index state_width(std::size_t k) const { return states_.at(k).width; }
    void read_state(std::size_t k, float* to) const;
    void write_state(std::size_t k, const float* from);

    void reset(Index n);             // sequence n begins anew
    void take(const Chain& other);   // the states of another of the same stages and N

private:
    struct Running : Stage {
        Index width = 0;  // of what it makes
        std::unique_ptr<Steps> steps;
        std::unique_ptr<Pool> pool;
        std::vector<float> room, scores;

        bool active() const { return !layer && !line && !pooling; }
    };

    struct State {
        std::size_t stage, number;
        Index width;
    };

    void add(const Stage& given);
    void warm();
    void read_row(const State& state, Index n, float* to) const;
    void write_row(const State& state, Index n, const float* from);
    const float* entered(const float* x, const float* out);
    const float* looked_up(const Index* tokens);
    void pass(const float* x, float* result);
    float* room(const float* other);

    Index N_, threads_, I_, outputs_;
    const float* table_;
    Index V_;
    std::vector<double> scale_;
    const Build& build_;
    std::vector<Running> stages_;
    std::size_t last_ = 0;  // the stage behind which there are activations alone
    std::vector<State> states_;
    std::vector<float> rooms_[2];
    double work_ = 0;
    int taken_ = 0;
};

}  // namespace unrolled
