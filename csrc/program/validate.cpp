// Checks what a program must fulfil beyond its grammar; the kernels rely on it.
#include <set>
#include <stdexcept>

#include "program/program.h"

namespace unrolled {
namespace {

class Validator {
public:
    explicit Validator(const Program& program) : p_(program) {}

    void run() const {
        if (p_.states.empty() || p_.nodes.empty()) fail("must have a state and a node");
        if (p_.forward.size() != p_.states.size()) fail("each state must have a new value");
        if (p_.x_parts < 1 || p_.x_width < 1) fail("must have an input product");
        const std::size_t products = p_.products.size();
        if (p_.sources.size() != products || p_.grad_products.size() != products ||
            p_.grad_x.size() != static_cast<std::size_t>(p_.x_parts) ||
            p_.grad_states.size() != p_.states.size() || p_.grad_vectors.size() != p_.vectors.size())
            fail("must have one gradient for each declaration");
        for (std::size_t k = 0; k < p_.states.size(); ++k) check_width(p_.forward[k], p_.states[k]);
        std::set<int> once;
        for (int node : p_.stored)
            if (node < 0 || !once.insert(node).second) fail("a stored node must exist and be stored once");
        for (std::size_t k = 0; k < products; ++k) {
            const Product& p = p_.products[k];
            if (p_.grad_products[k].size() != static_cast<std::size_t>(p.parts))
                fail("each part of a product must have a gradient");
            if (p.source_node < 0) fail("each product must have a source");
            check_width(p.source_node, p.source);
        }
        for (const Node& node : p_.nodes) check_node(node);
        check_gradients();
        check_places();
        check_reach(false, {&p_.forward, &p_.stored});
        check_reach(true, gradients());
    }

private:
    [[noreturn]] static void fail(const std::string& message) {
        throw std::invalid_argument("program: " + message);
    }

    void check_width(int node, Index width) const {
        if (node < 0) fail("a node is missing");
        if (p_.nodes[node].width != width)
            fail("a node must have width " + std::to_string(width) + ", got " +
                 std::to_string(p_.nodes[node].width));
    }

    // A gradient has the width of its value, or width 1.
    void check_gradients(const std::vector<int>& nodes, Index width) const {
        for (int node : nodes)
            if (node >= 0 && p_.nodes[node].width != 1) check_width(node, width);
    }

    void check_gradients() const {
        check_gradients(p_.grad_x, p_.x_width);
        for (std::size_t k = 0; k < p_.products.size(); ++k)
            check_gradients(p_.grad_products[k], p_.products[k].width);
        for (std::size_t k = 0; k < p_.states.size(); ++k) check_gradients({p_.grad_states[k]}, p_.states[k]);
        for (std::size_t k = 0; k < p_.vectors.size(); ++k)
            check_gradients({p_.grad_vectors[k]}, p_.vectors[k]);
    }

    void check_node(const Node& node) const {
        switch (node.kind) {
        case NodeKind::constant:
        case NodeKind::size:
            if (node.width != 1) fail("a number must have width 1");
            break;
        case NodeKind::input:
            if (node.index >= p_.x_parts) fail("an input block must be declared");
            if (node.width != p_.x_width) fail("an input block must have the declared width");
            break;
        case NodeKind::state:
        case NodeKind::gradient:
            if (node.width != p_.states[node.index]) fail("a state must have the declared width");
            break;
        case NodeKind::vector:
            if (node.width != p_.vectors[node.index]) fail("a vector must have the declared width");
            break;
        case NodeKind::product:
            if (node.width != p_.products[node.index].width ||
                node.args[0] != p_.products[node.index].source_node)
                fail("a product must have the declared width and source");
            break;
        case NodeKind::transposed:
            if (node.width != p_.products[node.index].source)
                fail("a transposed product must have the width of its source");
            break;
        default: break;
        }
    }

    // Each input block and product is one node; a transposed product reads all gradients of its product.
    void check_places() const {
        std::set<std::vector<int>> seen_nodes;
        for (const Node& node : p_.nodes) {
            if (node.kind != NodeKind::input && node.kind != NodeKind::product &&
                node.kind != NodeKind::transposed)
                continue;
            const int part = node.kind == NodeKind::product ? node.blocks[0] : 0;
            if (!seen_nodes.insert({static_cast<int>(node.kind), node.index, part}).second)
                fail("an input block or a product must be one node");
            if (node.kind != NodeKind::transposed) continue;
            std::vector<int> left = p_.grad_products[node.index];
            for (std::size_t k = 0; k < node.args.size(); ++k) {
                if (left[node.blocks[k]] != node.args[k])
                    fail("transposed: arguments must be the gradients of its product");
                left[node.blocks[k]] = -1;
            }
            for (int gradient : left)
                if (gradient >= 0) fail("transposed: arguments must be all gradients of its product");
        }
    }

    std::vector<const std::vector<int>*> gradients() const {
        std::vector<const std::vector<int>*> all = {&p_.grad_x, &p_.grad_states, &p_.grad_vectors,
                                                    &p_.sources};
        for (const auto& list : p_.grad_products) all.push_back(&list);
        return all;
    }

    // Forward reads no gradients; backward reads inputs and products only where forward stored them.
    void check_reach(bool backward, const std::vector<const std::vector<int>*>& outputs) const {
        std::vector<bool> read(p_.nodes.size(), false);
        for (const auto* list : outputs)
            for (int node : *list)
                if (node >= 0) read[node] = true;
        for (int k = static_cast<int>(p_.nodes.size()) - 1; k >= 0; --k) {
            const Node& node = p_.nodes[k];
            if (!read[k]) continue;
            if (backward && (stored_index(p_, k) >= 0 || new_state_index(p_, k) >= 0)) continue;
            const bool ahead = node.kind == NodeKind::input || node.kind == NodeKind::product;
            const bool back = node.kind == NodeKind::gradient || node.kind == NodeKind::transposed;
            if (backward ? ahead : back)
                fail("node " + std::to_string(k) + " is read in a direction that does not have it");
            for (int arg : node.args) read[arg] = true;
        }
    }

    const Program& p_;
};

}  // namespace

Index input_columns(const Program& p, Index I) {
    if (I % p.x_diagonal_blocks)
        throw std::invalid_argument("the blocks of the input product must divide I, got " +
                                    std::to_string(p.x_diagonal_blocks) + " blocks of " + std::to_string(I));
    return I / p.x_diagonal_blocks;
}

void validate(const Program& program) { Validator(program).run(); }

}  // namespace unrolled
