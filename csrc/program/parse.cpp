// From a program's text to a checked Program. Nothing here is fast or knows an instruction set.
#include <limits>
#include <locale>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "program/program.h"

namespace unrolled {
namespace {

// Far beyond any cell; sizes of buffers cannot overflow within them.
constexpr Index kMostNodes = 4096, kWidest = Index(1) << 24;
constexpr std::size_t kShown = 200;  // characters of a line, or of a fault, in a message

class Reader {
public:
    Reader(const std::string& text, Index H, Index P, Index I) : I_(I), stream_(text) {
        program_.H = H;
        program_.P = P;
    }

    Program read() {
        for (Index width : {program_.H, program_.P})
            if (width < 1 || width > kWidest)
                throw std::invalid_argument("sizes: wanted H and P from 1 to " +
                                            std::to_string(kWidest) + ", got " +
                                            std::to_string(width));
        if (!next_line() || word() != "unrolled-program" || number() != 1)
            fail("not a program of version 1");
        end_line();
        while (next_line()) {
            section(word());
            end_line();
        }
        feed();
        index_nodes(program_);
        check(program_);
        spread();
        return program_;
    }

private:
    [[noreturn]] void fail(const std::string& what) const {
        throw std::invalid_argument("program, line " + std::to_string(line_number_) + " `" +
                                    line_.substr(0, kShown) + "`: " + what.substr(0, kShown));
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

    void end_line() {
        std::string more;
        if (words_ >> more) fail("goes on with " + more);
    }

    Index number(Index most = kMostNodes) { return number(word(), most); }

    Index number(const std::string& found, Index most) const {
        std::size_t used = 0;
        long long value = -1;
        try {
            value = std::stoll(found, &used);
        } catch (const std::exception&) {
            fail("wanted a number, got " + found);
        }
        if (used != found.size() || value < 0 || value > most) fail("number out of range");
        return value;
    }

    Index width() {
        const std::string found = word();
        if (found == "H") return program_.H;
        if (found == "P") return program_.P;
        if (found == "I") {
            if (I_ < 1 || I_ > kWidest)
                fail("wanted I from 1 to " + std::to_string(kWidest) + ", got " +
                     std::to_string(I_));
            return I_;
        }
        const Index given = number(found, kWidest);
        if (given == 0) fail("a width of 0");
        return given;
    }

    // As Python writes it, whatever the process says of commas and points.
    double real() {
        const std::string found = word();
        if (found == "inf") return std::numeric_limits<double>::infinity();
        if (found == "-inf") return -std::numeric_limits<double>::infinity();
        if (found == "nan") return std::numeric_limits<double>::quiet_NaN();
        std::istringstream stream(found);
        stream.imbue(std::locale::classic());
        double value = 0;
        if (!(stream >> value) || stream.peek() != std::istringstream::traits_type::eof())
            fail("no number");
        return value;
    }

    int node_number() { return node_number(word()); }

    int node_number(const std::string& word) const {
        const Index found = number(word, kMostNodes);
        if (found >= static_cast<Index>(program_.nodes.size()))
            fail("a node that is not there yet");
        return static_cast<int>(found);
    }

    std::vector<int> node_list() {
        std::vector<int> found;
        std::string next;
        while (words_ >> next) {
            if (static_cast<Index>(found.size()) == kMostNodes) fail("too many nodes");
            found.push_back(next == "-" ? -1 : node_number(next));
        }
        return found;
    }

    // Lines that come once for each thing, and others.
    void section(const std::string& name) {
        if (name == "state") add(program_.states, width());
        else if (name == "vector") add(program_.vectors, width());
        else if (name == "product") add(program_.products, product());
        else if (name == "node") add(program_.nodes, node());
        else if (name == "dproduct") add(program_.grad_products, node_list());
        else if (!seen_.insert(name).second) fail("a second one");
        else if (name == "input") {
            program_.x_parts = static_cast<int>(number());
            program_.x_width = width();
        } else if (name == "forward") program_.forward = node_list();
        else if (name == "stored") program_.stored = node_list();
        else if (name == "source") program_.sources = node_list();
        else if (name == "dx") program_.grad_x = node_list();
        else if (name == "dstate") program_.grad_states = node_list();
        else if (name == "dvector") program_.grad_vectors = node_list();
        else fail("unknown");
    }

    template <class X>
    void add(std::vector<X>& list, X made) {
        if (static_cast<Index>(list.size()) == kMostNodes) fail("too many of them");
        list.push_back(std::move(made));
    }

    Product product() {
        Product p;
        p.parts = static_cast<int>(number());
        p.width = width();
        p.source = width();
        if (p.parts < 1) fail("a product without parts");
        return p;
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
            made.value = real();
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
            if (count < 1 || count > program_.products[made.key].parts)
                fail("too many blocks, or none");
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
        for (int arg : made.args)
            if (arg < 0) fail("a missing argument");
        if (code == "avg" || code == "sum") {
            if (made.width != 1) fail("a reduction has width 1");
            return;
        }
        Index widest = 1;
        for (int arg : made.args) {
            const Index w = program_.nodes[arg].width;
            if (w != 1 && widest != 1 && w != widest) fail("arguments of different widths");
            if (w != 1) widest = w;
        }
        if (made.width != widest) fail("width does not follow from the arguments");
    }

    void feed() {
        if (program_.sources.size() != program_.products.size()) fail("a product without a source");
        for (std::size_t k = 0; k < program_.products.size(); ++k)
            program_.products[k].feeds = program_.sources[k];
    }

    // Products read rows of gradients: one number for a whole row becomes a row.
    void spread() {
        std::map<std::pair<int, Index>, int> known;
        spread(program_.grad_x, program_.x_width, known);
        for (std::size_t k = 0; k < program_.products.size(); ++k)
            spread(program_.grad_products[k], program_.products[k].width, known);
    }

    void spread(std::vector<int>& nodes, Index width, std::map<std::pair<int, Index>, int>& known) {
        for (int& number : nodes) {
            if (number < 0 || program_.nodes[number].width == width) continue;
            int& row = known[{number, width}];
            if (row == 0) {
                if (static_cast<Index>(program_.nodes.size()) > 4 * kMostNodes)
                    fail("too many gradients of one number for a row");
                Node zero, sum;
                zero.leaf = Leaf::constant;
                sum.op = operation("add");
                sum.args = {number, static_cast<int>(program_.nodes.size())};
                sum.width = width;
                row = static_cast<int>(program_.nodes.size()) + 1;
                program_.nodes.push_back(zero);
                program_.nodes.push_back(sum);
            }
            number = row;
        }
    }

    Program program_;
    Index I_;
    std::istringstream stream_;
    std::istringstream words_;
    std::string line_;
    std::set<std::string> seen_;
    int line_number_ = 0;
};

}  // namespace

// Made when the library is loaded and never destroyed, see dispatch.cpp.
static const std::vector<std::string>& codes = *new std::vector<std::string>{
    "add", "sub", "mul", "div", "neg", "pow", "exp", "log", "sqr", "sig", "tnh", "rel", "spl", "ssg",
    "hsg", "hth", "abs", "sgn", "min", "max", "clp", "ltn", "leq", "equ", "neq", "sel", "avg", "sum"};

const std::vector<std::string>& operations() { return codes; }

Program parse(const std::string& text, Index H, Index P, Index I) {
    Program program = Reader(text, H, P, I).read();
    arrange(program);
    return program;
}

}  // namespace unrolled
