// When each node of a program is computed: phases of products, then pointwise work.
#pragma once

#include "api.h"

namespace unrolled {

struct Phase {
    std::vector<int> products;   // forward: product numbers; backward: transposed nodes
    std::vector<int> pointwise;  // nodes, in order
};

struct Schedule {
    std::vector<Phase> phases;
    bool whole_rows = false;  // a reduction needs all units of a row at once
};

// Forward: new states and stored nodes from x, states and vectors.
Schedule schedule_forward(const Program& program);

// Backward: gradients from stored nodes, states before and after, and gradients of new states.
Schedule schedule_backward(const Program& program);

// The state whose new value a node is, or -1: such nodes stand in the history after forward.
int new_state(const Program& program, int node);

// Position of a node among the stored ones, or -1.
int stored_at(const Program& program, int node);

}  // namespace unrolled
