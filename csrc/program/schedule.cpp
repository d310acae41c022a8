// When each node of a program is computed, and where: phases of products and pointwise work, sums
// that the products themselves accumulate, vectors that can share a place.
#include <algorithm>
#include <set>

#include "program/program.h"

namespace unrolled {
namespace {

bool named(const Node& node, const char* code) {
    return node.op >= 0 && operations()[node.op] == code;
}

bool reduces(const Node& node) { return named(node, "avg") || named(node, "sum"); }

// Levels of the nodes that the outputs need: a product stands one phase after its source (the first
// ones, whose source is a state, in phase 0), everything else in the phase of its latest argument.
class Levels {
public:
    Levels(const Program& program, bool backward, const std::vector<int>& outputs)
        : program_(program), backward_(backward), level_(program.nodes.size(), -1) {
        const int count = static_cast<int>(program.nodes.size());
        std::vector<bool> needed(program.nodes.size(), false);
        for (int node : outputs)
            if (node >= 0) needed[node] = true;
        // Arguments come before what they are arguments of.
        for (int k = count - 1; k >= 0; --k)
            if (needed[k] && !given(k))
                for (int arg : program.nodes[k].args) needed[arg] = true;
        for (int k = 0; k < count; ++k)
            if (needed[k]) level_[k] = given(k) ? 0 : level_of(program.nodes[k]);
    }

    int of(int node) const { return level_[node]; }

    bool given(int node) const {
        return backward_ && (stored_at(program_, node) >= 0 || new_state(program_, node) >= 0);
    }

private:
    int level_of(const Node& node) const {
        int latest = 0;
        for (int arg : node.args) latest = std::max(latest, level_[arg]);
        const bool multiplies = node.leaf == Leaf::product || node.leaf == Leaf::transposed;
        const bool early = node.leaf == Leaf::product &&
                           program_.nodes[node.args[0]].leaf == Leaf::state;
        return latest + (multiplies && !early ? 1 : 0);
    }

    const Program& program_;
    bool backward_;
    std::vector<int> level_;
};

class Arranger {
public:
    Arranger(Program& program, bool backward, const std::vector<int>& outputs)
        : p_(program), outputs_(outputs.begin(), outputs.end()), levels_(program, backward, outputs),
          uses_(program.nodes.size(), 0), fixed_(program.nodes.size(), false) {
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            if (!computed(static_cast<int>(k)) && p_.nodes[k].leaf != Leaf::transposed &&
                p_.nodes[k].leaf != Leaf::product)
                continue;
            if (levels_.of(static_cast<int>(k)) < 0 || levels_.given(static_cast<int>(k))) continue;
            for (int arg : p_.nodes[k].args) ++uses_[arg];
        }
        outputs_.erase(-1);
        for (int node : outputs_) uses_[node] += 2;
        find_fixed();
    }

    // Sums of an input block and products become one accumulator.
    void gather() {
        p_.gathers.assign(p_.nodes.size(), -1);
        p_.onto.clear();
        for (const Product& product : p_.products) p_.onto.emplace_back(product.parts, -1);
        std::vector<std::pair<int, int>> last(p_.x_parts, {-1, -1});  // phase and product
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            const Node& node = p_.nodes[k];
            if (!named(node, "add") || levels_.of(static_cast<int>(k)) < 0) continue;
            for (int side = 0; side < 2; ++side) {
                const int start = node.args[side], added = node.args[1 - side];
                const Node& product = p_.nodes[added];
                const int block = p_.nodes[start].leaf == Leaf::x ? p_.nodes[start].key
                                                                  : p_.gathers[start];
                if (block < 0 || product.leaf != Leaf::product || uses_[added] != 1 ||
                    uses_[start] != 1 || product.width != p_.x_width)
                    continue;
                const std::pair<int, int> turn{levels_.of(added), product.key};
                if (!(last[block] < turn) || levels_.of(static_cast<int>(k)) != turn.first) continue;
                last[block] = turn;
                p_.gathers[k] = block;
                p_.onto[product.key][product.blocks[0]] = block;
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
        std::vector<int> home(p_.nodes.size(), -1);  // the phase that makes a node
        std::vector<bool> listed(p_.products.size(), false);
        for (std::size_t i = 0; i < p_.nodes.size(); ++i) {
            const int k = static_cast<int>(i), level = levels_.of(k);
            const Node& node = p_.nodes[i];
            if (level < 0 || levels_.given(k)) continue;
            Phase& phase = out.phases[level];
            if (node.leaf == Leaf::product) {
                // All parts of a product have one source, and so one phase.
                if (!listed[node.key]) phase.products.push_back(node.key);
                listed[node.key] = true;
            } else if (node.leaf == Leaf::transposed) {
                phase.products.push_back(k);
            } else if (node.op >= 0 && p_.gathers[i] < 0) {
                (fixed_[i] ? out.once : phase.work).push_back(instruction(k));
                home[i] = fixed_[i] ? -1 : level;
                out.whole_rows = out.whole_rows || (!fixed_[i] && reduces(node));
            }
        }
        for (Phase& phase : out.phases) std::sort(phase.products.begin(), phase.products.end());
        std::vector<int> makers(p_.nodes.size(), -1);
        for (Phase& phase : out.phases) join(phase.work, makers);
        widths(out);
        places(out, home);
        return out;
    }

private:
    bool computed(int node) const { return p_.nodes[node].op >= 0; }

    // What depends on constants and parameter vectors alone is the same for all tokens.
    void find_fixed() {
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            const Node& node = p_.nodes[k];
            fixed_[k] = node.leaf == Leaf::constant || node.leaf == Leaf::size ||
                        node.leaf == Leaf::vector;
            if (node.op < 0 || levels_.given(static_cast<int>(k))) continue;
            fixed_[k] = true;
            for (int arg : node.args) fixed_[k] = fixed_[k] && fixed_[arg];
        }
    }

    Instruction instruction(int k) const {
        const Node& node = p_.nodes[k];
        Instruction made{node.op, k, {0, 0, 0}, static_cast<int>(node.args.size())};
        for (int i = 0; i < made.count; ++i) made.args[i] = node.args[i];
        return made;
    }

    // A product of vectors that only one sum reads becomes part of the sum. `makers` has -1 for every
    // node, before as after.
    void join(std::vector<Instruction>& work, std::vector<int>& makers) const {
        std::vector<bool> joined(work.size(), false);
        for (std::size_t at = 0; at < work.size(); ++at) {
            Instruction& sum = work[at];
            const Node& node = p_.nodes[sum.made];
            makers[sum.made] = static_cast<int>(at);
            const bool add = named(node, "add"), subtract = named(node, "sub");
            if (!(add || subtract) || node.width == 1) continue;
            for (int side = 0; side < 2; ++side) {
                const int factor = sum.args[side], other = sum.args[1 - side];
                if (uses_[factor] != 1 || !named(p_.nodes[factor], "mul") ||
                    p_.nodes[factor].width != node.width || factor == other || makers[factor] < 0)
                    continue;
                const std::size_t place = static_cast<std::size_t>(makers[factor]);
                const int op = add ? kMultiplyAdd : side == 0 ? kMultiplySubtract : kSubtractProduct;
                sum = {op, sum.made, {work[place].args[0], work[place].args[1], other}, 3};
                joined[place] = true;
                break;
            }
        }
        for (const Instruction& i : work) makers[i.made] = -1;
        std::size_t count = 0;
        for (std::size_t at = 0; at < work.size(); ++at)
            if (!joined[at]) work[count++] = work[at];
        work.resize(count);
    }

    void widths(Schedule& out) const {
        for (Phase& phase : out.phases)
            for (const Instruction& i : phase.work) {
                const Index w = p_.nodes[i.made].width;
                if (w != 1 && phase.width != 1 && w != phase.width) out.uniform = false;
                phase.width = std::max(phase.width, w);
            }
        // One number for a whole row comes from one thread: threads that share the units would have
        // to wait for it.
        bool narrow = false, wide = false;
        for (std::size_t k = 0; k < p_.nodes.size(); ++k) {
            if (fixed_[k] || levels_.of(static_cast<int>(k)) < 0) continue;
            narrow = narrow || p_.nodes[k].width == 1;
            wide = wide || p_.nodes[k].width > 1;
        }
        if (narrow && wide) out.uniform = false;
    }

    // A vector that is read within its own phase only lives in the tile; places are shared by
    // vectors that do not live at the same time.
    void places(Schedule& out, const std::vector<int>& home) const {
        out.slot.assign(p_.nodes.size(), -1);
        std::vector<bool> lasting(p_.nodes.size(), false);
        for (int node : outputs_) lasting[node] = true;
        for (const Node& node : p_.nodes)
            if (node.leaf == Leaf::product || node.leaf == Leaf::transposed)
                for (int arg : node.args) lasting[arg] = true;
        for (std::size_t f = 0; f < out.phases.size(); ++f)
            for (const Instruction& i : out.phases[f].work)
                for (int a = 0; a < i.count; ++a)
                    if (home[i.args[a]] != static_cast<int>(f)) lasting[i.args[a]] = true;
        std::vector<std::size_t> end(p_.nodes.size(), 0);
        for (const Phase& phase : out.phases) share(out, phase, lasting, home, end);
    }

    // `end` gets the last place where each node that the phase reads is read; what other phases left
    // there does not matter.
    void share(Schedule& out, const Phase& phase, const std::vector<bool>& lasting,
               const std::vector<int>& home, std::vector<std::size_t>& end) const {
        for (std::size_t at = 0; at < phase.work.size(); ++at)
            for (int a = 0; a < phase.work[at].count; ++a) end[phase.work[at].args[a]] = at;
        std::set<int> free;  // of those below `taken`
        int taken = 0;
        for (std::size_t at = 0; at < phase.work.size(); ++at) {
            const Instruction& i = phase.work[at];
            if (!lasting[i.made]) {
                if (free.empty()) free.insert(taken++);
                out.slot[i.made] = *free.begin();
                free.erase(free.begin());
            }
            std::set<int> read(i.args, i.args + i.count);
            for (int arg : read)
                if (out.slot[arg] >= 0 && home[arg] >= 0 && end[arg] == at)
                    free.insert(out.slot[arg]);
        }
        out.slots = std::max(out.slots, taken);
    }

    Program& p_;
    std::set<int> outputs_;
    Levels levels_;
    std::vector<int> uses_;
    std::vector<bool> fixed_;
};

bool compares(const Node& node) {
    return named(node, "ltn") || named(node, "leq") || named(node, "equ") || named(node, "neq");
}

void find_reached(Program& p) {
    Reached& reached = p.reached;
    reached.products.assign(1 + p.products.size(), false);
    reached.vectors.assign(p.vectors.size(), false);
    reached.states.assign(p.states.size(), false);
    std::vector<bool> depends(p.nodes.size(), false);
    for (int node : p.forward) depends[node] = true;
    for (std::size_t k = p.nodes.size(); k-- > 0;) {
        const Node& node = p.nodes[k];
        if (!depends[k] || compares(node)) continue;
        const std::size_t key = static_cast<std::size_t>(node.key);
        if (node.leaf == Leaf::x) reached.products[0] = true;
        if (node.leaf == Leaf::product) reached.products[1 + key] = true;
        if (node.leaf == Leaf::vector) reached.vectors[key] = true;
        if (node.leaf == Leaf::state) reached.states[key] = true;
        for (int arg : node.args) depends[arg] = true;
    }
}

// Distinct gradients of products, side by side in one row.
void lay_out_slopes(Program& p) {
    p.slopes.clear();
    p.slope_at.clear();
    p.slope_pitch = 0;
    std::vector<bool> listed(p.nodes.size(), false);
    auto add = [&](int node, Index width) {
        if (node < 0 || listed[node]) return;
        listed[node] = true;
        p.slopes.push_back(node);
        p.slope_at.push_back(p.slope_pitch);
        p.slope_pitch += pitch(width);
    };
    for (int node : p.grad_x) add(node, p.x_width);
    for (std::size_t k = 0; k < p.products.size(); ++k)
        for (int node : p.grad_products[k]) add(node, p.products[k].width);
}

void lay_out_saved(Program& p) {
    p.saved_at.clear();
    p.saved_pitch = 0;
    p.saved_whole = true;
    auto add = [&](Index width) {
        p.saved_at.push_back(p.saved_pitch);
        p.saved_pitch += pitch(width);
        p.saved_whole = p.saved_whole && pitch(width) == width;
    };
    for (int node : p.stored) add(p.nodes[node].width);
    for (std::size_t k = 1; k < p.states.size(); ++k) add(p.states[k]);
}

}  // namespace

void index_nodes(Program& p) {
    p.stored_places.assign(p.nodes.size(), -1);
    p.state_places.assign(p.nodes.size(), -1);
    // Of two places the first one counts.
    for (int k = static_cast<int>(p.stored.size()) - 1; k >= 0; --k)
        if (p.stored[k] >= 0) p.stored_places[p.stored[k]] = k;
    for (int k = static_cast<int>(std::min(p.forward.size(), p.states.size())) - 1; k >= 0; --k) {
        const int node = p.forward[k];
        if (node >= 0 && p.nodes[node].width == p.states[k] && p.nodes[node].leaf != Leaf::state)
            p.state_places[node] = k;
    }
}

int new_state(const Program& program, int node) {
    const auto& places = program.state_places;
    return node >= 0 && node < static_cast<int>(places.size()) ? places[node] : -1;
}

int stored_at(const Program& program, int node) {
    const auto& places = program.stored_places;
    return node >= 0 && node < static_cast<int>(places.size()) ? places[node] : -1;
}

void arrange(Program& p) {
    std::vector<int> outputs = p.forward;
    outputs.insert(outputs.end(), p.stored.begin(), p.stored.end());
    Arranger ahead(p, false, outputs);
    ahead.gather();
    p.ahead = ahead.schedule();
    outputs = p.grad_x;
    for (const auto& list : p.grad_products) outputs.insert(outputs.end(), list.begin(), list.end());
    for (const auto* list : {&p.grad_states, &p.grad_vectors, &p.sources})
        outputs.insert(outputs.end(), list->begin(), list->end());
    const std::vector<int> gathers = p.gathers;
    p.gathers.assign(p.nodes.size(), -1);  // backward computes what it needs of them
    p.back = Arranger(p, true, outputs).schedule();
    p.gathers = gathers;
    find_reached(p);
    lay_out_slopes(p);
    lay_out_saved(p);
}

}  // namespace unrolled
