// A cell's program as the core reads it, and what is derived from it: its schedules and the layout of its
// vectors.
#pragma once

#include <string>
#include <vector>

#include "support/types.h"

namespace unrolled {

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

// What a sweep over N sequences makes for itself has a row of each vector for every one: throws where
// that is more than product() takes.
void check_room(const Program& program, Index N);

// What a step of one sequence works on, in numbers, at most.
Index room_of(const Program& program);

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

}  // namespace unrolled
