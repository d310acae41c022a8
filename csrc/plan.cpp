// From a program's text to a checked Program. Nothing here is fast or knows an instruction set.
#include <sstream>
#include <stdexcept>

#include "api.h"

namespace unrolled {
namespace {

class Reader {
public:
    Reader(const std::string& text, Index H, Index P) : stream_(text) {
        program_.H = H;
        program_.P = P;
    }

    Program read() {
        if (H() < 0 || program_.P < 0) fail("negative sizes");
        if (!next_line() || word() != "unrolled-program" || number() != 1)
            fail("not a program of version 1");
        while (next_line()) section(word());
        check();
        return program_;
    }

private:
    Index H() const { return program_.H; }

    [[noreturn]] void fail(const std::string& what) const {
        throw std::invalid_argument("program, line " + std::to_string(line_number_) + " `" + line_ +
                                    "`: " + what);
    }

    bool next_line() {
        if (!std::getline(stream_, line_)) return false;
        ++line_number_;
        words_ = std::istringstream(line_);
        return true;
    }

    std::string word() {
        std::string found;
        if (!(words_ >> found)) fail("ends too early");
        return found;
    }

    Index number() {
        const std::string found = word();
        std::size_t used = 0;
        long long value = -1;
        try {
            value = std::stoll(found, &used);
        } catch (const std::exception&) {
            fail("wanted a number, got " + found);
        }
        if (used != found.size() || value < 0 || value > (1 << 30)) fail("number out of range");
        return value;
    }

    Index width() {
        const std::string found = word();
        if (found == "H") return program_.H;
        if (found == "P") return program_.P;
        words_ = std::istringstream(found + rest());
        return number();
    }

    std::string rest() {
        std::string tail;
        std::getline(words_, tail);
        return tail;
    }

    int node_number() {
        const Index found = number();
        if (found >= static_cast<Index>(program_.nodes.size())) fail("a node that is not there yet");
        return static_cast<int>(found);
    }

    std::vector<int> node_list() {
        std::vector<int> found;
        std::string next;
        while (words_ >> next) {
            if (next == "-") {
                found.push_back(-1);
                continue;
            }
            std::string tail = rest();
            words_ = std::istringstream(next + tail);
            found.push_back(node_number());
        }
        return found;
    }

    void section(const std::string& name) {
        if (name == "state") program_.states.push_back(width());
        else if (name == "vector") program_.vectors.push_back(width());
        else if (name == "input") {
            program_.x_parts = static_cast<int>(number());
            program_.x_width = width();
        } else if (name == "product") {
            Product p;
            p.parts = static_cast<int>(number());
            p.width = width();
            p.source = width();
            program_.products.push_back(p);
        } else if (name == "node") program_.nodes.push_back(node());
        else if (name == "forward") program_.forward = node_list();
        else if (name == "stored") program_.stored = node_list();
        else if (name == "source") program_.sources = node_list();
        else if (name == "dx") program_.grad_x = node_list();
        else if (name == "dproduct") program_.grad_products.push_back(node_list());
        else if (name == "dstate") program_.grad_states = node_list();
        else if (name == "dvector") program_.grad_vectors = node_list();
        else fail("unknown");
    }

    int within(Index value, std::size_t count) const {
        if (value >= static_cast<Index>(count)) fail("refers to what is not declared");
        return static_cast<int>(value);
    }

    Node node() {
        Node made;
        const std::string kind = word();
        made.width = width();
        if (kind == "const") {
            made.leaf = Leaf::constant;
            try {
                made.value = std::stod(word());
            } catch (const std::exception&) {
                fail("no number");
            }
        } else if (kind == "size") {
            made.leaf = Leaf::size;
            made.value = static_cast<double>(width());
        } else if (kind == "x") {
            made.leaf = Leaf::x;
            made.key = within(number(), program_.x_parts);
        } else if (kind == "state" || kind == "grad") {
            made.leaf = kind == "state" ? Leaf::state : Leaf::grad;
            made.key = within(number(), program_.states.size());
        } else if (kind == "vector") {
            made.leaf = Leaf::vector;
            made.key = within(number(), program_.vectors.size());
        } else if (kind == "product") {
            made.leaf = Leaf::product;
            made.key = within(number(), program_.products.size());
            made.blocks = {within(number(), program_.products[made.key].parts)};
            made.args = {node_number()};
        } else if (kind == "transposed") {
            made.leaf = Leaf::transposed;
            made.key = within(number(), program_.products.size());
            const Index count = number();
            if (count > program_.products[made.key].parts) fail("too many blocks");
            for (Index k = 0; k < count; ++k)
                made.blocks.push_back(within(number(), program_.products[made.key].parts));
            for (Index k = 0; k < count; ++k) made.args.push_back(node_number());
        } else {
            made.op = operation(kind);
            made.args = node_list();
            check_widths(made);
        }
        return made;
    }

    int operation(const std::string& code) const {
        const auto& known = operations();
        for (std::size_t k = 0; k < known.size(); ++k)
            if (known[k] == code) return static_cast<int>(k);
        fail("unknown operation " + code);
    }

    void check_widths(const Node& made) const {
        const std::string& code = operations()[made.op];
        static const char* const three[] = {"clp", "sel"};
        static const char* const two[] = {"add", "sub", "mul", "div", "pow", "min", "max",
                                          "ltn", "leq", "equ", "neq"};
        std::size_t wanted = 1;
        for (const char* name : three)
            if (code == name) wanted = 3;
        for (const char* name : two)
            if (code == name) wanted = 2;
        if (made.args.size() != wanted) fail("wrong number of arguments");
        if (code == "avg" || code == "sum") {
            if (made.width != 1) fail("a reduction has width 1");
            return;
        }
        Index widest = 1;
        for (int arg : made.args) {
            if (arg < 0) fail("a missing argument");
            const Index w = program_.nodes[arg].width;
            if (w != 1 && widest != 1 && w != widest) fail("arguments of different widths");
            if (w != 1) widest = w;
        }
        if (made.width != widest) fail("width does not follow from the arguments");
    }

    void check() {
        if (program_.states.empty() || program_.nodes.empty()) fail("no states or no nodes");
        if (program_.forward.size() != program_.states.size()) fail("a state has no new value");
        if (program_.x_parts < 1 || program_.x_width < 0) fail("no input product");
        const std::size_t products = program_.products.size();
        if (program_.sources.size() != products || program_.grad_products.size() != products ||
            program_.grad_x.size() != static_cast<std::size_t>(program_.x_parts) ||
            program_.grad_states.size() != program_.states.size() ||
            program_.grad_vectors.size() != program_.vectors.size())
            fail("gradients do not match the declarations");
        for (std::size_t k = 0; k < program_.states.size(); ++k)
            check_width(program_.forward[k], program_.states[k], true);
        for (int node : program_.stored)
            if (node < 0) fail("nothing to store");
        for (std::size_t k = 0; k < products; ++k) {
            Product& p = program_.products[k];
            if (program_.grad_products[k].size() != static_cast<std::size_t>(p.parts))
                fail("a product lacks gradients");
            if (program_.sources[k] < 0) fail("a product without a source");
            check_width(program_.sources[k], p.source, false);
            p.feeds = program_.sources[k];
        }
        for (const Node& node : program_.nodes) check_node(node);
    }

    void check_width(int node, Index width, bool shared) const {
        if (node < 0) fail("a missing node");
        const Index found = program_.nodes[node].width;
        if (found != width && !(shared && found == 1)) fail("a node of another width");
    }

    void check_node(const Node& node) const {
        switch (node.leaf) {
        case Leaf::x:
            if (node.width != program_.x_width) fail("an input block of another width");
            break;
        case Leaf::state:
        case Leaf::grad:
            if (node.width != program_.states[node.key] && node.width != 1)
                fail("a state of another width");
            break;
        case Leaf::vector:
            if (node.width != program_.vectors[node.key]) fail("a vector of another width");
            break;
        case Leaf::product:
            if (node.width != program_.products[node.key].width ||
                node.args[0] != program_.products[node.key].feeds)
                fail("a product of another width or source");
            break;
        case Leaf::transposed:
            if (node.width != program_.products[node.key].source) fail("a source of another width");
            break;
        default:
            break;
        }
    }

    Program program_;
    std::istringstream stream_;
    std::istringstream words_;
    std::string line_;
    int line_number_ = 0;
};

}  // namespace

const std::vector<std::string>& operations() {
    static const std::vector<std::string> codes = {
        "add", "sub", "mul", "div", "neg", "pow", "exp", "log", "sqr", "sig", "tnh", "rel", "spl",
        "ssg", "hsg", "hth", "abs", "sgn", "min", "max", "clp", "ltn", "leq", "equ", "neq", "sel",
        "avg", "sum"};
    return codes;
}

Program parse(const std::string& text, Index H, Index P) {
    Program program = Reader(text, H, P).read();
    arrange(program);
    return program;
}

}  // namespace unrolled
