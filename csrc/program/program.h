// A cell's program as the core reads it, and the schedules and layouts of vectors derived from it.
#pragma once

#include <string>
#include <vector>

#include "program/operations.h"
#include "support/types.h"

namespace unrolled {

enum class NodeKind { operation, input, state, vector, constant, size, gradient, product, transposed };

// One value of a step. Arguments precede the nodes that read them.
struct Node {
    NodeKind kind = NodeKind::operation;
    Op op = Op::add;          // of an operation
    std::vector<int> args;    // node numbers; of a transposed product, the gradients of its blocks
    int index = 0;            // of the input block, state, vector or product
    std::vector<int> blocks;  // which blocks of the product
    double value = 0;         // of a constant
    Index width = 1;
};

// A recurrent product: its weight has shape [parts * width, columns]. It may be block-diagonal: then each
// part consists of equal blocks, one after the other, and each reads its share of the source.
struct Product {
    int parts = 1;
    Index width = 0;            // rows of a part
    Index source = 0;           // units of the vector that is multiplied
    Index diagonal_blocks = 1;  // of each part
    Index columns = 0;          // source / diagonal_blocks
    int source_node = -1;       // the node that is multiplied
};

// An operation on nodes, by their numbers.
struct Instruction {
    Op op;
    int result;
    int args[3];
    int count;  // of args
};

// Products, then the operations that need their results.
struct Phase {
    std::vector<int> products;  // forward: product numbers; backward: numbers of transposed nodes
    std::vector<Instruction> work;
    Index width = 1;  // the widest result of `work`
};

// The order of one step in one direction, and which temporary buffers its vectors use.
struct Schedule {
    std::vector<Instruction> hoisted;  // the same for all tokens: computed once a sweep
    std::vector<Phase> phases;
    std::vector<int> slot;    // by node: its temporary buffer, or -1 if it outlives its phase
    int slots = 0;            // number of temporary buffers
    bool whole_rows = false;  // a reduction needs all units of a row at once
    bool uniform = true;      // within a phase all results have one width, or width 1
};

// Parameters and states on which the new states depend by more than comparisons: a gradient reaches them.
struct Reached {
    std::vector<bool> products;  // the input's first
    std::vector<bool> vectors, states;
};

struct Program {
    Index H = 0, P = 0;
    std::vector<Index> states;    // widths
    std::vector<Index> vectors;   // widths
    int x_parts = 1;              // blocks of the input product
    Index x_width = 0;            // width of a block
    Index x_diagonal_blocks = 1;  // see Product
    std::vector<Product> products;
    std::vector<Node> nodes;
    std::vector<int> forward;                     // by state: the node of its new value
    std::vector<int> stored;                      // nodes that forward saves for backward
    std::vector<int> grad_x;                      // by input block: the node of its gradient, or -1
    std::vector<std::vector<int>> grad_products;  // by product and part: the same
    std::vector<int> grad_states;                 // by state: the same
    std::vector<int> grad_vectors;                // by vector: the same
    std::vector<int> sources;                     // by product: the node that it multiplies

    // Derived when the program is loaded.
    std::vector<int> stored_index_of, state_index_of;  // by node: see stored_index, new_state_index
    Schedule forward_schedule, backward_schedule;
    Reached reached;
    std::vector<int> accumulator_of;  // by node: the input block whose buffer it accumulates in, or -1
    std::vector<std::vector<int>> product_accumulators;  // by product and part: the same
    std::vector<int> product_gradients;                  // nodes: distinct gradients of products
    std::vector<Index> product_gradient_columns;         // where each begins in a row of them
    Index product_gradient_pitch = 0;                    // numbers of such a row
    std::vector<Index> saved_columns;  // in a saved row: of stored nodes, then of states but the first
    Index saved_pitch = 0;             // numbers of a saved row
    bool saved_whole = true;           // a saved row has no padding between its vectors
};

// Parses and validates a program's text, and derives its schedules; throws std::invalid_argument with
// line and reason. I is 0 if it is unknown; then no width may be I.
Program parse(const std::string& text, Index H, Index P, Index I);

// Throws std::invalid_argument if the buffers of a sweep over N sequences exceed the largest size.
void check_buffer_sizes(const Program& program, Index N);

// The columns of the input product's weight; throws std::invalid_argument if its blocks do not divide I.
Index input_columns(const Program& program, Index I);

// An upper bound of the numbers that one step of one sequence works on.
Index step_footprint(const Program& program);

// Derives stored_index_of and state_index_of, which validate() reads.
void index_nodes(Program& program);

// Throws std::invalid_argument if nodes and declarations contradict each other.
void validate(const Program& program);

// Derives all other fields.
void derive_schedules(Program& program);

// The state whose new value a node is, or -1. Such nodes remain in memory after forward.
int new_state_index(const Program& program, int node);

// The position of a node in `stored`, or -1.
int stored_index(const Program& program, int node);

}  // namespace unrolled
