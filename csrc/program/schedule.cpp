// Schedules a program: phases of products and pointwise work, sums that products accumulate themselves,
// temporary buffers that vectors share.
#include <algorithm>
#include <set>

#include "program/program.h"

namespace unrolled {
namespace {

bool is_operation(const Node& node, Op op) { return node.kind == NodeKind::operation && node.op == op; }

bool is_operation(const Node& node, OperationKind kind) {
    return node.kind == NodeKind::operation && entry_of(node.op).kind == kind;
}

// The phase of each node that the outputs need. A product is one phase behind its source (in phase 0 if that
// is a state), any other node in the phase of its latest argument.
class Levels {
public:
    Levels(const Program& program, bool backward, const std::vector<int>& outputs)
        : program_(program), backward_(backward), level_(program.nodes.size(), -1) {
        const int count = static_cast<int>(program.nodes.size());
        std::vector<bool> needed(program.nodes.size(), false);
        for (int node : outputs)
            if (node >= 0) needed[node] = true;
        // Arguments precede the nodes that read them.
        for (int k = count - 1; k >= 0; --k)
            if (needed[k] && !available(k))
                for (int arg : program.nodes[k].args) needed[arg] = true;
        for (int k = 0; k < count; ++k)
            if (needed[k]) level_[k] = available(k) ? 0 : level_of(program.nodes[k]);
    }

    int of(int node) const { return level_[node]; }

    bool available(int node) const {
        return backward_ && (stored_index(program_, node) >= 0 || new_state_index(program_, node) >= 0);
    }

private:
    int level_of(const Node& node) const {
        int latest = 0;
        for (int arg : node.args) latest = std::max(latest, level_[arg]);
        const bool multiplies = node.kind == NodeKind::product || node.kind == NodeKind::transposed;
        const bool early =
            node.kind == NodeKind::product && program_.nodes[node.args[0]].kind == NodeKind::state;
        return latest + (multiplies && !early ? 1 : 0);
    }

    const Program& program_;
    bool backward_;
    std::vector<int> level_;
};

class Scheduler {
public:
    Scheduler(Program& program, bool backward, const std::vector<int>& outputs)
        : p_(program),
          outputs_(outputs.begin(), outputs.end()),
          levels_(program, backward, outputs),
          uses_(program.nodes.size(), 0),
          hoisted_(program.nodes.size(), false) {
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            if (!computed(static_cast<int>(k)) && p_.nodes[k].kind != NodeKind::transposed &&
                p_.nodes[k].kind != NodeKind::product)
                continue;
            if (levels_.of(static_cast<int>(k)) < 0 || levels_.available(static_cast<int>(k))) continue;
            for (int arg : p_.nodes[k].args) ++uses_[arg];
        }
        outputs_.erase(-1);
        for (int node : outputs_) uses_[node] += 2;
        find_hoisted();
    }

    // A sum of an input block and products is accumulated by the products, in the block's buffer.
    void find_accumulators() {
        p_.accumulator_of.assign(p_.nodes.size(), -1);
        p_.product_accumulators.clear();
        for (const Product& product : p_.products) p_.product_accumulators.emplace_back(product.parts, -1);
        std::vector<std::pair<int, int>> last(p_.x_parts, {-1, -1});  // phase and product
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            const Node& node = p_.nodes[k];
            if (!is_operation(node, Op::add) || levels_.of(static_cast<int>(k)) < 0) continue;
            for (int side = 0; side < 2; ++side) {
                const int start = node.args[side], added = node.args[1 - side];
                const Node& product = p_.nodes[added];
                const int block = p_.nodes[start].kind == NodeKind::input ? p_.nodes[start].index
                                                                          : p_.accumulator_of[start];
                if (block < 0 || product.kind != NodeKind::product || uses_[added] != 1 ||
                    uses_[start] != 1 || product.width != p_.x_width)
                    continue;
                const std::pair<int, int> turn{levels_.of(added), product.index};
                if (!(last[block] < turn) || levels_.of(static_cast<int>(k)) != turn.first) continue;
                last[block] = turn;
                p_.accumulator_of[k] = block;
                p_.product_accumulators[product.index][product.blocks[0]] = block;
                break;
            }
        }
    }

    Schedule schedule() {
        Schedule out;
        int last = 0;
        for (std::size_t k = 0; k < p_.nodes.size(); ++k)
            last = std::max(last, levels_.of(static_cast<int>(k)));
        out.phases.resize(last + 1);
        std::vector<int> computing_phase(p_.nodes.size(), -1);  // the phase that computes a node
        std::vector<bool> listed(p_.products.size(), false);
        for (std::size_t i = 0; i < p_.nodes.size(); ++i) {
            const int k = static_cast<int>(i), level = levels_.of(k);
            const Node& node = p_.nodes[i];
            if (level < 0 || levels_.available(k)) continue;
            Phase& phase = out.phases[level];
            if (node.kind == NodeKind::product) {
                // All parts of a product have one source, hence one phase.
                if (!listed[node.index]) phase.products.push_back(node.index);
                listed[node.index] = true;
            } else if (node.kind == NodeKind::transposed) {
                phase.products.push_back(k);
            } else if (node.kind == NodeKind::operation && p_.accumulator_of[i] < 0) {
                (hoisted_[i] ? out.hoisted : phase.work).push_back(instruction(k));
                computing_phase[i] = hoisted_[i] ? -1 : level;
                out.whole_rows =
                    out.whole_rows || (!hoisted_[i] && is_operation(node, OperationKind::reduction));
            }
        }
        for (Phase& phase : out.phases) std::sort(phase.products.begin(), phase.products.end());
        std::vector<int> makers(p_.nodes.size(), -1);
        for (Phase& phase : out.phases) fuse(phase.work, makers);
        widths(out);
        assign_slots(out, computing_phase);
        return out;
    }

private:
    bool computed(int node) const { return p_.nodes[node].kind == NodeKind::operation; }

    // Nodes that depend only on constants and parameter vectors are the same for all tokens.
    void find_hoisted() {
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            const Node& node = p_.nodes[k];
            hoisted_[k] = node.kind == NodeKind::constant || node.kind == NodeKind::size ||
                          node.kind == NodeKind::vector;
            if (node.kind != NodeKind::operation || levels_.available(static_cast<int>(k))) continue;
            hoisted_[k] = true;
            for (int arg : node.args) hoisted_[k] = hoisted_[k] && hoisted_[arg];
        }
    }

    Instruction instruction(int k) const {
        const Node& node = p_.nodes[k];
        Instruction instruction{node.op, k, {0, 0, 0}, static_cast<int>(node.args.size())};
        for (int i = 0; i < instruction.count; ++i) instruction.args[i] = node.args[i];
        return instruction;
    }

    // Fuses a product of vectors into the only sum that reads it. `makers` is -1 for all nodes, before and
    // after.
    void fuse(std::vector<Instruction>& work, std::vector<int>& makers) const {
        std::vector<bool> fused(work.size(), false);
        for (std::size_t at = 0; at < work.size(); ++at) {
            Instruction& sum = work[at];
            const Node& node = p_.nodes[sum.result];
            makers[sum.result] = static_cast<int>(at);
            const bool add = is_operation(node, Op::add), subtract = is_operation(node, Op::sub);
            if (!(add || subtract) || node.width == 1) continue;
            for (int side = 0; side < 2; ++side) {
                const int factor = sum.args[side], other = sum.args[1 - side];
                if (uses_[factor] != 1 || !is_operation(p_.nodes[factor], Op::mul) ||
                    p_.nodes[factor].width != node.width || factor == other || makers[factor] < 0)
                    continue;
                const std::size_t maker = static_cast<std::size_t>(makers[factor]);
                const Op op = add         ? Op::multiply_add
                              : side == 0 ? Op::multiply_subtract
                                          : Op::subtract_product;
                sum = {op, sum.result, {work[maker].args[0], work[maker].args[1], other}, 3};
                fused[maker] = true;
                break;
            }
        }
        for (const Instruction& i : work) makers[i.result] = -1;
        std::size_t count = 0;
        for (std::size_t at = 0; at < work.size(); ++at)
            if (!fused[at]) work[count++] = work[at];
        work.resize(count);
    }

    void widths(Schedule& out) const {
        for (Phase& phase : out.phases)
            for (const Instruction& i : phase.work) {
                const Index w = p_.nodes[i.result].width;
                if (w != 1 && phase.width != 1 && w != phase.width) out.uniform = false;
                phase.width = std::max(phase.width, w);
            }
        // A value of width 1 is computed by one thread: threads that share the units would wait for it.
        bool narrow = false, wide = false;
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            if (hoisted_[k] || levels_.of(static_cast<int>(k)) < 0) continue;
            narrow = narrow || p_.nodes[k].width == 1;
            wide = wide || p_.nodes[k].width > 1;
        }
        if (narrow && wide) out.uniform = false;
    }

    // A vector that only its own phase reads gets a temporary buffer, which vectors share whose lifetimes do
    // not overlap.
    void assign_slots(Schedule& out, const std::vector<int>& computing_phase) const {
        out.slot.assign(p_.nodes.size(), -1);
        std::vector<bool> outlives_phase(p_.nodes.size(), false);
        for (int node : outputs_) outlives_phase[node] = true;
        for (const Node& node : p_.nodes)
            if (node.kind == NodeKind::product || node.kind == NodeKind::transposed)
                for (int arg : node.args) outlives_phase[arg] = true;
        for (std::size_t f = 0; f < out.phases.size(); ++f)
            for (const Instruction& i : out.phases[f].work)
                for (int a = 0; a < i.count; ++a)
                    if (computing_phase[i.args[a]] != static_cast<int>(f)) outlives_phase[i.args[a]] = true;
        std::vector<std::size_t> end(p_.nodes.size(), 0);
        for (const Phase& phase : out.phases) reuse_slots(out, phase, outlives_phase, computing_phase, end);
    }

    // `end` gets, for each node that the phase reads, the instruction that reads it last; entries of other
    // phases do not matter.
    void reuse_slots(Schedule& out, const Phase& phase, const std::vector<bool>& outlives_phase,
                     const std::vector<int>& computing_phase, std::vector<std::size_t>& end) const {
        for (std::size_t at = 0; at < phase.work.size(); ++at)
            for (int a = 0; a < phase.work[at].count; ++a) end[phase.work[at].args[a]] = at;
        std::set<int> free;  // of those below `taken`
        int taken = 0;
        for (std::size_t at = 0; at < phase.work.size(); ++at) {
            const Instruction& i = phase.work[at];
            if (!outlives_phase[i.result]) {
                if (free.empty()) free.insert(taken++);
                out.slot[i.result] = *free.begin();
                free.erase(free.begin());
            }
            std::set<int> read(i.args, i.args + i.count);
            for (int arg : read)
                if (out.slot[arg] >= 0 && computing_phase[arg] >= 0 && end[arg] == at)
                    free.insert(out.slot[arg]);
        }
        out.slots = std::max(out.slots, taken);
    }

    Program& p_;
    std::set<int> outputs_;
    Levels levels_;
    std::vector<int> uses_;
    std::vector<bool> hoisted_;
};

void find_reached(Program& p) {
    Reached& reached = p.reached;
    reached.products.assign(1 + p.products.size(), false);
    reached.vectors.assign(p.vectors.size(), false);
    reached.states.assign(p.states.size(), false);
    std::vector<bool> depends(p.nodes.size(), false);
    for (int node : p.forward) depends[node] = true;
    for (std::size_t k = p.nodes.size(); k-- > 0;) {
        const Node& node = p.nodes[k];
        if (!depends[k] || is_operation(node, OperationKind::comparison)) continue;
        const std::size_t key = static_cast<std::size_t>(node.index);
        if (node.kind == NodeKind::input) reached.products[0] = true;
        if (node.kind == NodeKind::product) reached.products[1 + key] = true;
        if (node.kind == NodeKind::vector) reached.vectors[key] = true;
        if (node.kind == NodeKind::state) reached.states[key] = true;
        for (int arg : node.args) depends[arg] = true;
    }
}

// Distinct gradients of products, side by side in one row.
void lay_out_product_gradients(Program& p) {
    p.product_gradients.clear();
    p.product_gradient_columns.clear();
    p.product_gradient_pitch = 0;
    std::vector<bool> listed(p.nodes.size(), false);
    auto add = [&](int node, Index width) {
        if (node < 0 || listed[node]) return;
        listed[node] = true;
        p.product_gradients.push_back(node);
        p.product_gradient_columns.push_back(p.product_gradient_pitch);
        p.product_gradient_pitch += pitch(width);
    };
    for (int node : p.grad_x) add(node, p.x_width);
    for (std::size_t k = 0; k < p.products.size(); ++k)
        for (int node : p.grad_products[k]) add(node, p.products[k].width);
}

void lay_out_saved(Program& p) {
    p.saved_columns.clear();
    p.saved_pitch = 0;
    p.saved_whole = true;
    auto add = [&](Index width) {
        p.saved_columns.push_back(p.saved_pitch);
        p.saved_pitch += pitch(width);
        p.saved_whole = p.saved_whole && pitch(width) == width;
    };
    for (int node : p.stored) add(p.nodes[node].width);
    for (std::size_t k = 1; k < p.states.size(); ++k) add(p.states[k]);
}

}  // namespace

void index_nodes(Program& p) {
    p.stored_index_of.assign(p.nodes.size(), -1);
    p.state_index_of.assign(p.nodes.size(), -1);
    // Of two positions the first counts.
    for (int k = static_cast<int>(p.stored.size()) - 1; k >= 0; --k)
        if (p.stored[k] >= 0) p.stored_index_of[p.stored[k]] = k;
    for (int k = static_cast<int>(std::min(p.forward.size(), p.states.size())) - 1; k >= 0; --k) {
        const int node = p.forward[k];
        if (node >= 0 && p.nodes[node].width == p.states[k] && p.nodes[node].kind != NodeKind::state)
            p.state_index_of[node] = k;
    }
}

int new_state_index(const Program& program, int node) {
    const auto& indices = program.state_index_of;
    return node >= 0 && node < static_cast<int>(indices.size()) ? indices[node] : -1;
}

int stored_index(const Program& program, int node) {
    const auto& indices = program.stored_index_of;
    return node >= 0 && node < static_cast<int>(indices.size()) ? indices[node] : -1;
}

void derive_schedules(Program& p) {
    std::vector<int> outputs = p.forward;
    outputs.insert(outputs.end(), p.stored.begin(), p.stored.end());
    Scheduler ahead(p, false, outputs);
    ahead.find_accumulators();
    p.forward_schedule = ahead.schedule();
    outputs = p.grad_x;
    for (const auto& list : p.grad_products) outputs.insert(outputs.end(), list.begin(), list.end());
    for (const auto* list : {&p.grad_states, &p.grad_vectors, &p.sources})
        outputs.insert(outputs.end(), list->begin(), list->end());
    const std::vector<int> accumulator_of = p.accumulator_of;
    p.accumulator_of.assign(p.nodes.size(), -1);  // backward does not accumulate in input blocks
    p.backward_schedule = Scheduler(p, true, outputs).schedule();
    p.accumulator_of = accumulator_of;
    find_reached(p);
    lay_out_product_gradients(p);
    lay_out_saved(p);
}

}  // namespace unrolled
