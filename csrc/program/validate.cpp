// What a program has to keep to, beyond its grammar: the kernels trust it.
#include <set>
#include <stdexcept>

#include "program/program.h"

namespace unrolled {
namespace {

class Checker {
public:
    explicit Checker(const Program& program) : p_(program) {}

    void run() const {
        if (p_.states.empty() || p_.nodes.empty()) fail("no states or no nodes");
        if (p_.forward.size() != p_.states.size()) fail("a state has no new value");
        if (p_.x_parts < 1 || p_.x_width < 1) fail("no input product");
        const std::size_t products = p_.products.size();
        if (p_.sources.size() != products || p_.grad_products.size() != products ||
            p_.grad_x.size() != static_cast<std::size_t>(p_.x_parts) ||
            p_.grad_states.size() != p_.states.size() ||
            p_.grad_vectors.size() != p_.vectors.size())
            fail("gradients do not match the declarations");
        for (std::size_t k = 0; k < p_.states.size(); ++k)
            check_width(p_.forward[k], p_.states[k]);
        std::set<int> once;
        for (int node : p_.stored)
            if (node < 0 || !once.insert(node).second) fail("nothing to store, or twice");
        for (std::size_t k = 0; k < products; ++k) {
            const Product& p = p_.products[k];
            if (p_.grad_products[k].size() != static_cast<std::size_t>(p.parts))
                fail("a product lacks gradients");
            if (p.feeds < 0) fail("a product without a source");
            check_width(p.feeds, p.source);
        }
        for (const Node& node : p_.nodes) check_node(node);
        check_gradients();
        check_places();
        check_reach(false, {&p_.forward, &p_.stored});
        check_reach(true, gradients());
    }

private:
    [[noreturn]] static void fail(const std::string& what) {
        throw std::invalid_argument("program: " + what);
    }

    void check_width(int node, Index width) const {
        if (node < 0) fail("a missing node");
        if (p_.nodes[node].width != width) fail("a node of another width");
    }

    // A gradient has the width of what it is of, or is one number for all of it.
    void check_gradients(const std::vector<int>& nodes, Index width) const {
        for (int node : nodes)
            if (node >= 0 && p_.nodes[node].width != 1) check_width(node, width);
    }

    void check_gradients() const {
        check_gradients(p_.grad_x, p_.x_width);
        for (std::size_t k = 0; k < p_.products.size(); ++k)
            check_gradients(p_.grad_products[k], p_.products[k].width);
        for (std::size_t k = 0; k < p_.states.size(); ++k)
            check_gradients({p_.grad_states[k]}, p_.states[k]);
        for (std::size_t k = 0; k < p_.vectors.size(); ++k)
            check_gradients({p_.grad_vectors[k]}, p_.vectors[k]);
    }

    void check_node(const Node& node) const {
        switch (node.leaf) {
        case Leaf::constant:
        case Leaf::size:
            if (node.width != 1) fail("a number has width 1");
            break;
        case Leaf::x:
            if (node.key >= p_.x_parts) fail("an input block that is not declared");
            if (node.width != p_.x_width) fail("an input block of another width");
            break;
        case Leaf::state:
        case Leaf::grad:
            if (node.width != p_.states[node.key]) fail("a state of another width");
            break;
        case Leaf::vector:
            if (node.width != p_.vectors[node.key]) fail("a vector of another width");
            break;
        case Leaf::product:
            if (node.width != p_.products[node.key].width ||
                node.args[0] != p_.products[node.key].feeds)
                fail("a product of another width or source");
            break;
        case Leaf::transposed:
            if (node.width != p_.products[node.key].source) fail("a source of another width");
            break;
        default:
            break;
        }
    }

    // Input blocks and products have one place each; a transposed product is that of all gradients
    // of its product.
    void check_places() const {
        std::set<std::vector<int>> known;
        for (const Node& node : p_.nodes) {
            if (node.leaf != Leaf::x && node.leaf != Leaf::product && node.leaf != Leaf::transposed)
                continue;
            const int part = node.leaf == Leaf::product ? node.blocks[0] : 0;
            if (!known.insert({static_cast<int>(node.leaf), node.key, part}).second)
                fail("an input block or a product that is there twice");
            if (node.leaf != Leaf::transposed) continue;
            std::vector<int> left = p_.grad_products[node.key];
            for (std::size_t k = 0; k < node.args.size(); ++k) {
                if (left[node.blocks[k]] != node.args[k])
                    fail("transposed: not the gradients of its product");
                left[node.blocks[k]] = -1;
            }
            for (int gradient : left)
                if (gradient >= 0) fail("transposed: a gradient is missing");
        }
    }

    std::vector<const std::vector<int>*> gradients() const {
        std::vector<const std::vector<int>*> all = {&p_.grad_x, &p_.grad_states,
                                                    &p_.grad_vectors, &p_.sources};
        for (const auto& list : p_.grad_products) all.push_back(&list);
        return all;
    }

    // Forward knows no gradients; backward has of inputs and products what forward left to it.
    void check_reach(bool backward, const std::vector<const std::vector<int>*>& outputs) const {
        std::vector<bool> read(p_.nodes.size(), false);
        for (const auto* list : outputs)
            for (int node : *list)
                if (node >= 0) read[node] = true;
        for (int k = static_cast<int>(p_.nodes.size()) - 1; k >= 0; --k) {
            const Node& node = p_.nodes[k];
            if (!read[k]) continue;
            if (backward && (stored_at(p_, k) >= 0 || new_state(p_, k) >= 0)) continue;
            const bool ahead = node.leaf == Leaf::x || node.leaf == Leaf::product;
            const bool back = node.leaf == Leaf::grad || node.leaf == Leaf::transposed;
            if (backward ? ahead : back)
                fail("node " + std::to_string(k) + " is not there in this direction");
            for (int arg : node.args) read[arg] = true;
        }
    }

    const Program& p_;
};

}  // namespace

void check(const Program& program) { Checker(program).run(); }

}  // namespace unrolled
