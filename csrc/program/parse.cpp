// Parses the text of a program.
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

// Far above those of any cell. Within them sizes of buffers cannot overflow.
constexpr Index kMaxNodes = 4096, kMaxWidth = Index(1) << 24;
const char* const kHeader = "must be `unrolled-program 1` or `unrolled-program 2`";
constexpr std::size_t kMaxShown = 200;  // characters of a line, or of the reason, in a message

class Parser {
public:
    Parser(const std::string& text, Index H, Index P, Index I) : I_(I), stream_(text) {
        program_.H = H;
        program_.P = P;
    }

    Program read() {
        for (Index width : {program_.H, program_.P})
            if (width < 1 || width > kMaxWidth)
                throw std::invalid_argument("sizes: H and P must be from 1 to " + std::to_string(kMaxWidth) +
                                            ", got " + std::to_string(width));
        if (!next_line() || word() != "unrolled-program") fail(kHeader);
        version_ = number();
        if (version_ < 1 || version_ > 2) fail(kHeader);
        end_line();
        while (next_line()) {
            section(word());
            end_line();
        }
        set_source_nodes();
        index_nodes(program_);
        validate(program_);
        broadcast_gradients();
        return program_;
    }

private:
    [[noreturn]] void fail(const std::string& message) const {
        throw std::invalid_argument("program, line " + std::to_string(line_number_) + " `" +
                                    line_.substr(0, kMaxShown) + "`: " + message.substr(0, kMaxShown));
    }

    bool next_line() {
        if (!std::getline(stream_, line_)) return false;
        ++line_number_;
        words_ = std::istringstream(line_);
        return true;
    }

    std::string word() {
        std::string next;
        if (!(words_ >> next)) fail("the line ends too early");
        return next;
    }

    void end_line() {
        std::string more;
        if (words_ >> more) fail("the line must end before " + more);
    }

    Index number(Index max = kMaxNodes) { return number(word(), max); }

    Index number(const std::string& text, Index max) const {
        std::size_t used = 0;
        long long value = -1;
        try {
            value = std::stoll(text, &used);
        } catch (const std::exception&) {
            fail("must be a number, got " + text);
        }
        if (used != text.size() || value < 0 || value > max)
            fail("a number must be from 0 to " + std::to_string(max) + ", got " + text);
        return value;
    }

    Index width() {
        const std::string text = word();
        if (text == "H") return program_.H;
        if (text == "P") return program_.P;
        if (text == "I") {
            if (I_ < 1 || I_ > kMaxWidth)
                fail("I must be from 1 to " + std::to_string(kMaxWidth) + ", got " + std::to_string(I_));
            return I_;
        }
        const Index width = number(text, kMaxWidth);
        if (width == 0) fail("a width must be at least 1, got 0");
        return width;
    }

    // As Python writes it, whatever the locale of the process.
    double read_real() {
        const std::string text = word();
        if (text == "inf") return std::numeric_limits<double>::infinity();
        if (text == "-inf") return -std::numeric_limits<double>::infinity();
        if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
        std::istringstream stream(text);
        stream.imbue(std::locale::classic());
        double value = 0;
        if (!(stream >> value) || stream.peek() != std::istringstream::traits_type::eof())
            fail("must be a number, got " + text);
        return value;
    }

    int node_number() { return node_number(word()); }

    int node_number(const std::string& text) const {
        const Index node = number(text, kMaxNodes);
        if (node >= static_cast<Index>(program_.nodes.size()))
            fail("a node must be declared before it is read, got " + text);
        return static_cast<int>(node);
    }

    std::vector<int> node_list() {
        std::vector<int> nodes;
        std::string text;
        while (words_ >> text) {
            if (static_cast<Index>(nodes.size()) == kMaxNodes)
                fail("a list must have at most " + std::to_string(kMaxNodes) + " nodes");
            nodes.push_back(text == "-" ? -1 : node_number(text));
        }
        return nodes;
    }

    // Declarations come once for each state, vector, product and node; all other sections once.
    void section(const std::string& name) {
        if (name == "state") add(program_.states, width());
        else if (name == "vector") add(program_.vectors, width());
        else if (name == "product") add(program_.products, product());
        else if (name == "node") add(program_.nodes, node());
        else if (name == "dproduct") add(program_.grad_products, node_list());
        else if (!seen_sections_.insert(name).second) fail("`" + name + "` must come once, got two");
        else if (name == "input") {
            program_.x_parts = static_cast<int>(number());
            program_.x_width = width();
            program_.x_diagonal_blocks = diagonal_blocks();
            divide(program_.x_width, program_.x_diagonal_blocks);
            if (I_ > 0) divide(I_, program_.x_diagonal_blocks);
        } else if (name == "forward") program_.forward = node_list();
        else if (name == "stored") program_.stored = node_list();
        else if (name == "source") program_.sources = node_list();
        else if (name == "dx") program_.grad_x = node_list();
        else if (name == "dstate") program_.grad_states = node_list();
        else if (name == "dvector") program_.grad_vectors = node_list();
        else fail("unknown section `" + name + "`");
    }

    template <class X>
    void add(std::vector<X>& list, X entry) {
        if (static_cast<Index>(list.size()) == kMaxNodes)
            fail("must have at most " + std::to_string(kMaxNodes) + " of these lines");
        list.push_back(std::move(entry));
    }

    Product product() {
        Product p;
        p.parts = static_cast<int>(number());
        p.width = width();
        p.source = width();
        p.diagonal_blocks = diagonal_blocks();
        if (p.parts < 1) fail("a product must have a part");
        divide(p.width, p.diagonal_blocks);
        p.columns = divide(p.source, p.diagonal_blocks);
        return p;
    }

    // The blocks on the diagonal of a product; version 1 has dense products only.
    Index diagonal_blocks() {
        std::string text;
        return version_ > 1 && words_ >> text ? number(text, kMaxWidth) : 1;
    }

    Index divide(Index width, Index blocks) const {
        if (blocks < 1 || width % blocks)
            fail("blocks must divide the width and the source of their product, got " +
                 std::to_string(blocks) + " for " + std::to_string(width));
        return width / blocks;
    }

    int checked_index(Index value, std::size_t count) const {
        if (value >= static_cast<Index>(count))
            fail("an index must be below " + std::to_string(count) + ", got " + std::to_string(value));
        return static_cast<int>(value);
    }

    Node node() {
        Node result;
        const std::string kind = word();
        result.width = width();
        if (kind == "const") {
            result.kind = NodeKind::constant;
            result.value = read_real();
        } else if (kind == "size") {
            result.kind = NodeKind::size;
            result.value = static_cast<double>(width());
        } else if (kind == "x") {
            result.kind = NodeKind::input;
            result.index = checked_index(number(), program_.x_parts);
        } else if (kind == "state" || kind == "grad") {
            result.kind = kind == "state" ? NodeKind::state : NodeKind::gradient;
            result.index = checked_index(number(), program_.states.size());
        } else if (kind == "vector") {
            result.kind = NodeKind::vector;
            result.index = checked_index(number(), program_.vectors.size());
        } else if (kind == "product") {
            result.kind = NodeKind::product;
            result.index = checked_index(number(), program_.products.size());
            result.blocks = {checked_index(number(), program_.products[result.index].parts)};
            result.args = {node_number()};
        } else if (kind == "transposed") {
            result.kind = NodeKind::transposed;
            result.index = checked_index(number(), program_.products.size());
            const Index count = number();
            if (count < 1 || count > program_.products[result.index].parts)
                fail("a transposed product must have from 1 block to all of its product");
            for (Index k = 0; k < count; ++k)
                result.blocks.push_back(checked_index(number(), program_.products[result.index].parts));
            for (Index k = 0; k < count; ++k) result.args.push_back(node_number());
        } else {
            result.op = operation(kind);
            result.args = node_list();
            check_widths(result);
        }
        return result;
    }

    Op operation(const std::string& code) const {
        for (const Operation& entry : kOperations)
            if (code == entry.code) return entry.op;
        fail("unknown operation " + code);
    }

    void check_widths(const Node& node) const {
        const Operation& operation = entry_of(node.op);
        if (node.args.size() != operation.arity)
            fail("must have " + std::to_string(operation.arity) + " arguments, got " +
                 std::to_string(node.args.size()));
        for (int arg : node.args)
            if (arg < 0) fail("an argument must be a node, got none");
        if (operation.kind == OperationKind::reduction) {
            if (node.width != 1) fail("a reduction must have width 1");
            return;
        }
        Index widest = 1;
        for (int arg : node.args) {
            const Index w = program_.nodes[arg].width;
            if (w != 1 && widest != 1 && w != widest) fail("arguments must have one width, or width 1");
            if (w != 1) widest = w;
        }
        if (node.width != widest) fail("width must be that of the arguments, " + std::to_string(widest));
    }

    void set_source_nodes() {
        if (program_.sources.size() != program_.products.size()) fail("each product must have a source");
        for (std::size_t k = 0; k < program_.products.size(); ++k)
            program_.products[k].source_node = program_.sources[k];
    }

    // Products read rows of gradients: a gradient of width 1 is broadcast to a row.
    void broadcast_gradients() {
        std::map<std::pair<int, Index>, int> rows;
        broadcast_gradients(program_.grad_x, program_.x_width, rows);
        for (std::size_t k = 0; k < program_.products.size(); ++k)
            broadcast_gradients(program_.grad_products[k], program_.products[k].width, rows);
    }

    void broadcast_gradients(std::vector<int>& nodes, Index width,
                             std::map<std::pair<int, Index>, int>& rows) {
        for (int& number : nodes) {
            if (number < 0 || program_.nodes[number].width == width) continue;
            int& row = rows[{number, width}];
            if (row == 0) {
                if (static_cast<Index>(program_.nodes.size()) > 4 * kMaxNodes)
                    fail("too many gradients of width 1");
                Node zero, sum;
                zero.kind = NodeKind::constant;
                sum.op = Op::add;
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
    Index I_, version_ = 1;
    std::istringstream stream_;
    std::istringstream words_;
    std::string line_;
    std::set<std::string> seen_sections_;
    int line_number_ = 0;
};

}  // namespace

Program parse(const std::string& text, Index H, Index P, Index I) {
    Program program = Parser(text, H, P, I).read();
    derive_schedules(program);
    return program;
}

}  // namespace unrolled
