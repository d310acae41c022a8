#include "schedule.h"

#include <algorithm>

namespace unrolled {
namespace {

// Levels by depth-first search: a product stands one phase after its source, everything else in the
// phase of its latest argument.
class Levels {
public:
    Levels(const Program& program, bool backward)
        : program_(program), backward_(backward), level_(program.nodes.size(), -1) {}

    void need(int node) {
        if (node >= 0) visit(node);
    }

    Schedule schedule() const {
        Schedule out;
        int last = 0;
        for (int level : level_) last = std::max(last, level);
        out.phases.resize(last + 1);
        for (std::size_t k = 0; k < level_.size(); ++k) {
            const Node& node = program_.nodes[k];
            if (level_[k] < 0 || given(static_cast<int>(k))) continue;
            Phase& phase = out.phases[level_[k]];
            if (node.leaf == Leaf::product) {
                if (std::find(phase.products.begin(), phase.products.end(), node.key) ==
                    phase.products.end())
                    phase.products.push_back(node.key);
            } else if (node.leaf == Leaf::transposed) {
                phase.products.push_back(static_cast<int>(k));
            } else if (node.op >= 0) {
                phase.pointwise.push_back(static_cast<int>(k));
                const std::string& code = operations()[node.op];
                out.whole_rows = out.whole_rows || code == "avg" || code == "sum";
            }
        }
        return out;
    }

private:
    bool given(int node) const {
        if (!backward_) return false;
        return stored_at(program_, node) >= 0 || new_state(program_, node) >= 0;
    }

    int visit(int number) {
        int& level = level_[number];
        if (level >= 0) return level;
        level = 0;
        if (given(number)) return 0;
        const Node& node = program_.nodes[number];
        int latest = 0;
        for (int arg : node.args) latest = std::max(latest, visit(arg));
        const bool multiplies = node.leaf == Leaf::product || node.leaf == Leaf::transposed;
        const bool early = node.leaf == Leaf::product &&
                           program_.nodes[node.args[0]].leaf == Leaf::state;
        return level_[number] = latest + (multiplies && !early ? 1 : 0);
    }

    const Program& program_;
    bool backward_;
    std::vector<int> level_;
};

}  // namespace

int new_state(const Program& program, int node) {
    for (std::size_t k = 0; k < program.forward.size(); ++k)
        if (program.forward[k] == node && program.nodes[node].width == program.states[k] &&
            program.nodes[node].leaf != Leaf::state)
            return static_cast<int>(k);
    return -1;
}

int stored_at(const Program& program, int node) {
    for (std::size_t k = 0; k < program.stored.size(); ++k)
        if (program.stored[k] == node) return static_cast<int>(k);
    return -1;
}

Schedule schedule_forward(const Program& program) {
    Levels levels(program, false);
    for (int node : program.forward) levels.need(node);
    for (int node : program.stored) levels.need(node);
    return levels.schedule();
}

Schedule schedule_backward(const Program& program) {
    Levels levels(program, true);
    for (int node : program.grad_x) levels.need(node);
    for (const auto& product : program.grad_products)
        for (int node : product) levels.need(node);
    for (int node : program.grad_states) levels.need(node);
    for (int node : program.grad_vectors) levels.need(node);
    for (int node : program.sources) levels.need(node);
    return levels.schedule();
}

}  // namespace unrolled
