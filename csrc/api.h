// The seam of the core: plain structs and functions. Everything behind it is compiled once per
// instruction set; nothing in front of it computes.
//
// Letters: T steps, N sequences, I inputs, H hidden units, P width of the output state.
// A packed batch holds its tokens step by step, longest sequence first: step t has sizes[t] tokens,
// sequence n is row n of every step that it reaches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace unrolled {

using Index = std::int64_t;

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
    bool bias = false;
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
};

// Names of the operations by their stable codes; the position is the number that nodes carry.
const std::vector<std::string>& operations();

// Reads and checks a program's text; throws std::invalid_argument with the line and the fault.
Program parse(const std::string& text, Index H, Index P);

// One product's weights [parts * width, source] row-major, bias [parts * width] or null.
template <class T>
struct Weights {
    const T* weight;
    const T* bias;
};

// All pointers are borrowed for the call; inputs are read only, outputs do not overlap anything.
template <class T>
struct Call {
    const Program* program;
    Index T_steps, N, I, total;
    const Index* sizes;                  // [T_steps], falling, sizes[0] == N
    const T* tokens;                     // [total, I]
    Weights<T> input;                    // [x_parts * x_width, I]
    std::vector<Weights<T>> products;
    std::vector<const T*> vectors;       // [width]
    std::vector<const T*> initial;       // [N, width] by state
    std::vector<T*> history;             // [total, width] by state, out; entry 0 is the output
    std::vector<T*> final;               // [N, width] by state, out
    std::vector<T*> stored;              // [total, width] by stored node, out; empty: inference
    int threads;
};

template <class T>
struct Gradients {
    const Call<T>* call;                 // of the forward run; history and stored are read
    const T* grad_output;                // [total, width of the output]
    std::vector<const T*> grad_final;    // [N, width] by state
    T* grad_x;                           // [total, x_parts * x_width], out
    std::vector<T*> grad_products;       // [total, parts * width] by product, out
    std::vector<T*> source;              // [total, source] by product, out; null where it is a state
    std::vector<T*> grad_initial;        // [N, width] by state, out
    std::vector<T*> grad_vectors;        // [width], out
    T* grad_tokens;                      // [total, I], out or null
    T* grad_input_weight;                // [x_parts * x_width, I], out or null
    T* grad_input_bias;                  // out or null
    std::vector<T*> grad_weights;        // by product, out or null
    std::vector<T*> grad_biases;         // by product, out or null
};

// One entry of the table of builds.
struct Build {
    const char* name;
    int lanes;  // floats in a vector
    void (*forward_float)(const Call<float>&);
    void (*forward_double)(const Call<double>&);
    void (*backward_float)(const Gradients<float>&);
    void (*backward_double)(const Gradients<double>&);
};

}  // namespace unrolled
