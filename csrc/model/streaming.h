// The blocks of a model, and pipelines of blocks that take steps. A step allocates no memory and takes no
// lock.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dispatch/build.h"
#include "model/pooling.h"

namespace unrolled {

// A borrowed array, which must outlive what is constructed from it; null: none.
struct FloatView {
    const float* numbers = nullptr;
    Index count = 0;
};

// The memory and work that a file may ask for, in numbers, counted while it is read: a fixed amount plus a
// multiple of its bytes. src/unrolled/_limits.py has the same.
class Budget {
public:
    explicit Budget(Index bytes) : bytes_(bytes), left_(kBaseNumbers + kNumbersPerByte * bytes) {}

    // Throws std::invalid_argument where the file has asked for more.
    void take(Index numbers, const std::string& name);

private:
    static constexpr Index kBaseNumbers = Index(1) << 24, kNumbersPerByte = 16;
    Index bytes_, left_;
};

// Both throw std::invalid_argument for an unknown name.
WeightFormat weight_format_of(const std::string& name);
Activation activation_of(const std::string& name);

// A layer in one direction, its weights packed once.
class Layer {
public:
    // The program is borrowed, too. `arrays`: weight and bias (or none) of the input product and of each
    // recurrent product, then the vectors (or none). Throws std::invalid_argument if they do not match,
    // or are far smaller than the buffers of the program.
    Layer(const Program& program, Index I, const std::vector<FloatView>& arrays, WeightFormat format,
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
class Linear {
public:
    Linear(FloatView weight, FloatView bias, Index width, Index source, WeightFormat format,
           const std::string& build);

    // Rows [count, source] to [count, width].
    void apply(const float* rows, Index count, float* to) const { affine_->apply(rows, count, to); }

    const Index width, source;

private:
    std::unique_ptr<Affine> affine_;
};

// Pools the steps of a sequence into one vector. Attention scores a step y by query(tanh(keys(y))); both
// linear maps are borrowed.
class Pooling {
public:
    Pooling(std::string name, Index width, const Linear* keys, const Linear* query);

    // Attention: scores [N] of rows [N, width]. `keys` is scratch memory of N * keys_width() numbers.
    void score(const float* rows, Index N, float* keys, float* scores) const;

    // Whole sequences: rows [T, N, width] of lengths [N] (null: T each) to [N, width].
    void run(const float* rows, const Index* lengths, Index T, Index N, float* to) const;

    PoolingState make(Index N) const { return PoolingState(name_, N, width); }
    Index keys_width() const { return keys_ ? keys_->width : 0; }

    const Index width;

private:
    std::string name_;
    const Linear *keys_, *query_;
    const Build& build_;
};

// What a pipeline reads: numbers [width], standardized where there are mean and deviation [width] (both are
// copied); or tokens, rows of a table [V, width] (borrowed).
struct Source {
    Index width = 0;
    const float* table = nullptr;
    Index V = 0;
    const double* mean = nullptr;
    const double* deviation = nullptr;
};

// One block, borrowed: a layer, a linear map, a pooling, or else an activation.
struct Block {
    const Layer* layer = nullptr;
    const Linear* linear = nullptr;
    const Pooling* pooling = nullptr;
    Activation activation = Activation::relu;
    std::vector<FloatView> start;  // of a layer, by state [width]; empty: zeros
};

// N sequences that take steps, one thread at a time. That thread may use others for the long steps of
// layers, `threads` in all.
class Pipeline {
public:
    // Throws std::invalid_argument if N or `threads` is below 1, or widths do not match.
    Pipeline(const Source& source, const std::vector<Block>& blocks, Index N, Index threads);
    Pipeline(const Pipeline&) = delete;
    Pipeline& operator=(const Pipeline&) = delete;

    // A thread's exclusive use of a pipeline; false if another thread has it.
    class ExclusiveUse {
    public:
        explicit ExclusiveUse(Pipeline& pipeline)
            : taken_(pipeline.taken_), mine_(!__atomic_exchange_n(&taken_, 1, __ATOMIC_ACQUIRE)) {}
        ExclusiveUse(const ExclusiveUse&) = delete;
        ExclusiveUse& operator=(const ExclusiveUse&) = delete;
        ~ExclusiveUse() {
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

    // The index of the first of N tokens that is not a row of the table, or -1.
    Index first_invalid_token(const Index* tokens) const;

    // One step: numbers [N, inputs] or valid tokens [N] to `out` [N, outputs], which may overlap x.
    void step(const float* x, float* out) { run_blocks(scaled_input(x, out), out); }
    void step(const Index* tokens, float* out) { run_blocks(embed(tokens), out); }

    // The states before the next step, [N, width] each, of layers and poolings in their order. An unknown
    // state or row throws std::out_of_range.
    std::size_t states() const { return states_.size(); }
    Index state_width(std::size_t k) const { return states_.at(k).width; }
    void read_state(std::size_t k, float* to) const;
    void write_state(std::size_t k, const float* from);

    void reset(Index n);                           // sequence n restarts
    void copy_states_from(const Pipeline& other);  // of the same blocks and N

private:
    struct RunningBlock : Block {
        Index width = 0;  // of its output
        std::unique_ptr<Steps> steps;
        std::unique_ptr<PoolingState> pooling_state;
        std::vector<float> keys, scores;

        bool is_activation() const { return !layer && !linear && !pooling; }
    };

    struct State {
        std::size_t block, number;
        Index width;
    };

    void add(const Block& block);
    void pack_weights();
    void read_row(const State& state, Index n, float* to) const;
    void write_row(const State& state, Index n, const float* from);
    const float* scaled_input(const float* x, const float* out);
    const float* embed(const Index* tokens);
    void run_blocks(const float* x, float* result);
    float* other_scratch(const float* used);

    Index N_, threads_, I_, outputs_;
    const float* table_;
    Index V_;
    std::vector<double> scale_;
    const Build& build_;
    std::vector<RunningBlock> blocks_;
    std::size_t last_computing_ = 0;  // only activations follow this block
    std::vector<State> states_;
    std::vector<float> scratch_[2];
    double work_ = 0;
    int taken_ = 0;
};

}  // namespace unrolled
