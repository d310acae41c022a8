// The seam of the core: plain structs and functions. Everything behind it is compiled once per
// instruction set; nothing in front of it computes. What kernels call here is always inlined: of a
// function that is not, the linker would keep one build's copy for all.
//
// Letters: T steps, N sequences, I inputs, H hidden units, P width of the output state. A token is
// one step of one sequence. Tokens are numbered step by step, longest sequence first: step t has
// sizes[t] tokens, sequence n is the n-th of every step that it reaches. Where a token's row lies in
// the caller's arrays is `Rows`' business.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace unrolled {

using Index = std::int64_t;

// Inner rows have room for whole vectors of every build: a multiple of 16 numbers.
constexpr Index pitch(Index width) { return (width + 15) / 16 * 16; }

// A program as read from its text: nodes in an order of computation.
enum class Leaf { none, x, state, vector, constant, size, grad, product, transposed };

struct Node {
    Leaf leaf = Leaf::none;
    int op = -1;             // index into operations(), for pointwise nodes and reductions
    std::vector<int> args;   // node numbers; of a transposed node, the gradients of its blocks
    int key = 0;             // which input block, state, vector or product
    std::vector<int> blocks; // which block of the product, or blocks
    double value = 0;        // of a constant
    Index width = 1;         // resolved
};

struct Product {
    int parts = 1;      // blocks of rows
    Index width = 0;    // rows of a block
    Index source = 0;   // columns
    int feeds = -1;     // the node that it multiplies
};

// One pointwise operation or reduction: its number, what it makes, what it reads.
struct Instruction {
    int op;
    int made;
    int args[3];
    int count;
};

// Products, then the pointwise work that waits for them.
struct Phase {
    std::vector<int> products;   // forward: product numbers; backward: transposed nodes
    std::vector<Instruction> work;
    Index width = 1;             // of what the work makes, the widest
};

// The order of one step in one direction, and where its vectors live.
struct Schedule {
    std::vector<Instruction> once;  // what is the same for all tokens
    std::vector<Phase> phases;
    std::vector<int> slot;          // by node: its place among the vectors of a tile, or -1
    int slots = 0;
    bool whole_rows = false;        // a reduction needs all units of a row at once
    bool uniform = true;            // what a phase computes has one width, or width 1
};

// Which parameters and states the new states depend on by more than comparisons, so that a gradient
// reaches them.
struct Reached {
    std::vector<bool> products;  // the input's first
    std::vector<bool> vectors, states;
};

struct Program {
    Index H = 0, P = 0;
    std::vector<Index> states;   // widths
    std::vector<Index> vectors;  // widths
    int x_parts = 1;
    Index x_width = 0;
    std::vector<Product> products;
    std::vector<Node> nodes;
    std::vector<int> forward;        // new states
    std::vector<int> stored;         // what forward writes for backward
    std::vector<int> grad_x;         // by input block, -1: none
    std::vector<std::vector<int>> grad_products;
    std::vector<int> grad_states;
    std::vector<int> grad_vectors;
    std::vector<int> sources;        // what each product multiplies, as backward has it

    // Derived when the program is loaded; the places by node, of those that a file declares.
    std::vector<int> stored_places, state_places;  // -1: none
    Schedule ahead, back;
    Reached reached;
    std::vector<int> gathers;             // by node: the input block that it accumulates in, or -1
    std::vector<std::vector<int>> onto;   // by product and part: the same, or -1
    std::vector<int> slopes;              // distinct gradients of products, by node
    std::vector<Index> slope_at;          // their columns in a row of slopes
    Index slope_pitch = 0;
    std::vector<Index> saved_at;          // columns of stored vectors, then of states but the first
    Index saved_pitch = 0;
    bool saved_whole = true;              // a row has no room between its vectors
};

// Names of the operations by their stable codes; the position is the number that nodes carry.
// Numbers from kFused on are operations that a schedule makes of two.
const std::vector<std::string>& operations();
constexpr int kMultiplyAdd = 100, kMultiplySubtract = 101, kSubtractProduct = 102;

// Reads and checks a program's text, and derives its schedules; throws std::invalid_argument with
// the line and the fault. I is 0 where it is not known, and no width may be I then.
Program parse(const std::string& text, Index H, Index P, Index I);

// Fills the places of stored nodes and new states, which the check reads.
void index_nodes(Program& program);

// Throws std::invalid_argument if nodes and declarations do not fit together.
void check(const Program& program);

// Fills what is derived.
void arrange(Program& program);

// The state whose new value a node is, or -1: such nodes stand in memory after forward.
int new_state(const Program& program, int node);

// Position of a node among the stored ones, or -1.
int stored_at(const Program& program, int node);

// Where tokens lie: row `table[token]`, or base + t * step + n * next.
struct Rows {
    const Index* table;  // [total] or null
    Index base, step, next;
};

// How a caller's numbers are stored: in the type of the computation, or in half of a float, which
// is what then computes.
enum class Storage { own, bfloat16, float16 };
using Half = std::uint16_t;  // the bits of either

// The gradient of a weight is made at once for so many tokens, row by row.
constexpr Index kAtOnce = 4;

// Numbers that the kernels read or write in their own type, or as bfloat16; one of both is there, or
// none.
template <class T>
struct Lines {
    T* own = nullptr;
    Half* brief = nullptr;
    [[gnu::always_inline]] explicit operator bool() const { return own || brief; }
};

// One product's weights [parts * width, source] row-major, bias [parts * width] or null.
template <class T>
struct Weights {
    Lines<const T> weight;
    const T* bias;
};

// Long sweeps ask now and then, on any thread, whether the caller wants them to go on. From when
// `over` is set all threads leave, and nothing that the call has written is worth anything.
struct Stop {
    void (*ask)(Stop&);  // may set `over`, and may take its time
    int over = 0;
};

// All pointers are borrowed for the call; inputs are read only, outputs do not overlap anything.
template <class T>
struct Call {
    const Program* program;
    Index T_steps, N, I, total;
    const Index* sizes;               // [T_steps], falling, sizes[0] <= N; null: N each
    Rows rows;
    Lines<const T> tokens;            // [rows, I]
    Weights<T> input;                 // [x_parts * x_width, I]
    std::vector<Weights<T>> products;
    std::vector<const T*> vectors;    // [width], null for zeros
    std::vector<const T*> initial;    // [N, width] by state; null: zeros
    Lines<T> output;                  // [rows, width of the first state], out
    std::vector<T*> final;            // [N, width] by state, out
    T* saved;                         // [total, saved_pitch], out; null: inference
    int threads;
    Stop* stop;                       // or null
    [[gnu::always_inline]] Index size(Index t) const { return sizes ? sizes[t] : N; }
};

// Gradients of what all sequences share are sums over them: one, or one for each of `groups`, to
// which sequence n belongs by n % groups. Sizes are multiples of it.
template <class T>
struct Gradients {
    const Call<T>* call;                 // of the forward run; output and saved are read
    Index groups = 1;
    Lines<const T> grad_output;          // [rows, width of the output]; none: zeros
    std::vector<const T*> grad_final;    // [N, width] by state; null: zeros
    Lines<T> grad_tokens;                // [rows, I], out or none
    std::vector<T*> grad_initial;        // [N, width] by state, out or null
    std::vector<T*> grad_vectors;        // [groups, width], out or null
    std::vector<Lines<T>> grad_weights;  // [groups, ...], the input's first, out or none; brief
                                         // only where there are at most kAtOnce tokens
    std::vector<T*> grad_biases;         // [groups, ...], the input's first, out or null
};

// How a snapshot keeps its weights: in float, in bfloat16, or in int8 with a scale for each row.
enum class Kept { own, bfloat16, int8 };

// The parameters of a layer in one direction, borrowed for as long as there is a snapshot of it.
struct Parameters {
    const Program* program;
    Index I;
    Weights<float> input;
    std::vector<Weights<float>> products;
    std::vector<const float*> vectors;
};

// N sequences that take steps one at a time, on at most so many threads. A step takes no memory.
class Steps {
public:
    Steps(const Parameters& parameters, Index N, Index threads);
    virtual ~Steps();
    Steps(const Steps&) = delete;
    Steps& operator=(const Steps&) = delete;
    virtual void step(const float* tokens, float* output) = 0;  // [N, I], [N, width of the output]
    virtual float* state(std::size_t k, Index n) = 0;           // [width], the one before the next step

protected:
    Call<float> call_;  // of steps without end: token n of each is row n
};

// A layer's weights in one direction, packed once for many calls, which only read it. What a token's
// numbers are depends neither on its neighbours nor on how many steps a call has.
class Snapshot {
public:
    explicit Snapshot(const Parameters& parameters);
    virtual ~Snapshot();
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;
    void run(Call<float> call);          // whose parameters are not looked at
    virtual Steps* steps(Index N, Index threads) = 0;  // new, for no longer than the snapshot

protected:
    virtual void sweep(const Call<float>& call) = 0;
    const Parameters given_;
};

// y = W x + b for rows of x, W packed once.
class Affine {
public:
    virtual ~Affine();
    virtual void apply(const float* rows, Index count, float* to) = 0;
};

// What is done to rows of numbers in place.
enum class Activation { relu, tanh, sigmoid, softmax, log_softmax };

// One entry of the table of builds. It takes runs that write to nothing in common, and need nothing
// of one another, with equal numbers of threads.
struct Build {
    const char* name;
    int lanes;  // floats in a vector
    void (*forward_float)(const Call<float>* const* runs, Index count);
    void (*forward_double)(const Call<double>* const* runs, Index count);
    void (*backward_float)(const Gradients<float>* const* runs, Index count);
    void (*backward_double)(const Gradients<double>* const* runs, Index count);
    void (*widen)(const Half* from, float* to, Index count, Storage storage);
    void (*narrow)(const float* from, Half* to, Index count, Storage storage);
    Snapshot* (*snapshot)(const Parameters& parameters, Kept kept);
    Affine* (*affine)(const Weights<float>& weights, Index width, Index source, Kept kept);
    void (*activate)(Activation kind, float* rows, Index count, Index width);
};

}  // namespace unrolled
