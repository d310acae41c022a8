#include "naive_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace core_test {
namespace {

using unrolled::Node;
using unrolled::NodeKind;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::size_t size(Index count) { return static_cast<std::size_t>(count); }

// A vector of one number is broadcast.
double at(const Vector& v, std::size_t unit) { return v.size() == 1 ? v[0] : v[unit]; }

class NaiveReference {
public:
    explicit NaiveReference(const Problem& p)
        : p_(p), g_(p.program), shapes_(shapes(p.program, p.I)), backward_(g_.nodes.size()) {
        for (std::size_t k = 0; k < g_.nodes.size(); ++k) {
            const Node& node = g_.nodes[k];
            backward_[k] = node.kind == NodeKind::gradient || node.kind == NodeKind::transposed;
            for (int arg : node.args) backward_[k] = backward_[k] || backward_[size(arg)];
        }
        output_.assign(size(p.rows * g_.states[0]), kNaN);
        grad_tokens_.assign(size(p.rows * p.I), kNaN);
        for (Index width : g_.states) {
            final_.emplace_back(size(p.N * width));
            grad_initial_.emplace_back(size(p.N * width));
        }
        for (Index width : g_.vectors) grad_vectors_.emplace_back(size(width));
        for (const Shape& s : shapes_) {
            grad_weights_.emplace_back(size(s.elements()));
            grad_biases_.emplace_back(size(s.parts * s.width));
        }
    }

    Results run() {
        for (Index n = 0; n < p_.N; ++n) sequence(n);
        Results result{{"output", output_}};
        add(result, "final state ", final_, {});
        result.push_back({"gradient of tokens", p_.wants_tokens ? grad_tokens_ : Vector{}});
        add(result, "gradient of initial state ", grad_initial_, p_.wants_initial);
        add(result, "gradient of vector ", grad_vectors_, p_.wants_vectors);
        add(result, "gradient of weight ", grad_weights_, p_.wants_weights);
        add(result, "gradient of bias ", grad_biases_, p_.wants_biases);
        return result;
    }

private:
    using Values = std::vector<Vector>;  // by node

    static void add(Results& result, const std::string& name, const std::vector<Vector>& arrays,
                    const std::vector<bool>& expected) {
        for (std::size_t k = 0; k < arrays.size(); ++k)
            result.push_back(
                {name + std::to_string(k), expected.empty() || expected[k] ? arrays[k] : Vector{}});
    }

    // Row n of an array [N, width], zeros where it is missing.
    static Vector row(const Array& array, Index n, Index width) {
        if (!array.given) return Vector(size(width));
        const auto from = array.values.begin() + n * width;
        return Vector(from, from + width);
    }

    static void set_row(Vector& array, Index n, const Vector& values) {
        std::copy(values.begin(), values.end(), array.begin() + n * static_cast<Index>(values.size()));
    }

    static Vector spread(const Vector& v, Index width) {
        Vector result(size(width));
        for (std::size_t u = 0; u < result.size(); ++u) result[u] = at(v, u);
        return result;
    }

    void sequence(Index n) {
        const Index length = p_.length(n);
        std::vector<Values> steps;
        Values states = start(p_.initial, n);
        for (Index t = 0; t < length; ++t) {
            steps.emplace_back(g_.nodes.size());
            evaluate(steps.back(), false, t, n, states);
            for (std::size_t k = 0; k < states.size(); ++k)
                states[k] = spread(steps.back()[size(g_.forward[k])], g_.states[k]);
            set_row(output_, p_.row_of(t, n), states[0]);
        }
        Values later = start(p_.grad_final, n);
        for (std::size_t k = 0; k < states.size(); ++k) set_row(final_[k], n, states[k]);
        for (Index t = length - 1; t >= 0; --t) {
            const Vector direct = row(p_.grad_output, p_.row_of(t, n), g_.states[0]);
            for (std::size_t u = 0; u < direct.size(); ++u) later[0][u] += direct[u];
            Values& values = steps[size(t)];
            evaluate(values, true, t, n, later);
            collect(values, t, n);
            for (std::size_t k = 0; k < later.size(); ++k)
                later[k] = gradient(values, g_.grad_states[k], g_.states[k]);
        }
        for (std::size_t k = 0; k < later.size(); ++k) set_row(grad_initial_[k], n, later[k]);
    }

    Values start(const std::vector<Array>& arrays, Index n) const {
        Values result;
        for (std::size_t k = 0; k < arrays.size(); ++k) result.push_back(row(arrays[k], n, g_.states[k]));
        return result;
    }

    static Vector gradient(const Values& values, int node, Index width) {
        return node < 0 ? Vector(size(width)) : spread(values[size(node)], width);
    }

    // Evaluates all nodes of one direction; `states` are those before the step, or the gradients behind it.
    void evaluate(Values& values, bool backward, Index t, Index n, const Values& states) const {
        for (std::size_t k = 0; k < g_.nodes.size(); ++k)
            if (backward_[k] == backward) values[k] = node(g_.nodes[k], values, p_.row_of(t, n), states);
    }

    Vector node(const Node& node, const Values& values, Index token, const Values& states) const {
        switch (node.kind) {
        case NodeKind::constant:
        case NodeKind::size: return {node.value};
        case NodeKind::vector: return p_.vectors[size(node.index)].values;
        case NodeKind::state:
        case NodeKind::gradient: return states[size(node.index)];
        case NodeKind::input: return multiply(0, node.index, row(p_.tokens, token, p_.I));
        case NodeKind::product:
            return multiply(size(node.index) + 1, node.blocks[0], values[size(node.args[0])]);
        case NodeKind::transposed: return transposed(node, values);
        default: return pointwise(node, values);
        }
    }

    Vector multiply(std::size_t key, int part, const Vector& v) const {
        const Shape& s = shapes_[key];
        const Weights& w = p_.weights[key];
        Vector result(size(s.width));
        for (Index u = 0; u < s.width; ++u) {
            const Index line = part * s.width + u;
            result[size(u)] = w.bias.given ? w.bias.values[size(line)] : 0;
            for (Index c = 0; c < s.columns; ++c)
                result[size(u)] += w.weight.values[size(line * s.columns + c)] * v[size(s.source(u, c))];
        }
        return result;
    }

    Vector transposed(const Node& node, const Values& values) const {
        const std::size_t key = size(node.index) + 1;
        const Shape& s = shapes_[key];
        Vector result(size(node.width));
        for (std::size_t k = 0; k < node.blocks.size(); ++k)
            for (Index u = 0; u < s.width; ++u)
                for (Index c = 0; c < s.columns; ++c)
                    result[size(s.source(u, c))] +=
                        at(values[size(node.args[k])], size(u)) *
                        p_.weights[key].weight.values[size((node.blocks[k] * s.width + u) * s.columns + c)];
        return result;
    }

    static Vector pointwise(const Node& node, const Values& values) {
        const std::string code = unrolled::entry_of(node.op).code;
        if (code == "avg" || code == "sum") {
            const Vector& v = values[size(node.args[0])];
            double sum = 0;
            for (double x : v) sum += x;
            return {code == "avg" ? sum / static_cast<double>(v.size()) : sum};
        }
        Vector result(size(node.width));
        for (std::size_t u = 0; u < result.size(); ++u) {
            double args[3] = {};
            for (std::size_t k = 0; k < node.args.size(); ++k) args[k] = at(values[size(node.args[k])], u);
            result[u] = apply(code, args);
        }
        return result;
    }

    // Adds to the gradients that sum over tokens, and sets that of a token.
    void collect(const Values& values, Index t, Index n) {
        for (std::size_t k = 0; k < grad_vectors_.size(); ++k) {
            const Vector grad = gradient(values, g_.grad_vectors[k], g_.vectors[k]);
            for (std::size_t u = 0; u < grad.size(); ++u) grad_vectors_[k][u] += grad[u];
        }
        const Vector token = row(p_.tokens, p_.row_of(t, n), p_.I);
        Vector grad_token(size(p_.I));
        const Shape& s = shapes_[0];
        for (std::size_t part = 0; part < g_.grad_x.size(); ++part) {
            const Vector grad = gradient(values, g_.grad_x[part], g_.x_width);
            weight(0, static_cast<Index>(part), grad, token);
            for (Index u = 0; u < s.width; ++u)
                for (Index c = 0; c < s.columns; ++c)
                    grad_token[size(s.source(u, c))] +=
                        grad[size(u)] *
                        p_.weights[0]
                            .weight.values[(part * grad.size() + size(u)) * size(s.columns) + size(c)];
        }
        set_row(grad_tokens_, p_.row_of(t, n), grad_token);
        for (std::size_t k = 0; k < g_.products.size(); ++k)
            for (std::size_t part = 0; part < g_.grad_products[k].size(); ++part)
                weight(k + 1, static_cast<Index>(part),
                       gradient(values, g_.grad_products[k][part], g_.products[k].width),
                       values[size(g_.sources[k])]);
    }

    void weight(std::size_t key, Index part, const Vector& grad, const Vector& source) {
        const Shape& s = shapes_[key];
        for (Index u = 0; u < s.width; ++u) {
            const Index line = part * s.width + u;
            grad_biases_[key][size(line)] += grad[size(u)];
            for (Index c = 0; c < s.columns; ++c)
                grad_weights_[key][size(line * s.columns + c)] +=
                    grad[size(u)] * source[size(s.source(u, c))];
        }
    }

    const Problem& p_;
    const unrolled::Program& g_;
    std::vector<Shape> shapes_;
    std::vector<bool> backward_;
    Vector output_, grad_tokens_;
    std::vector<Vector> final_, grad_initial_, grad_vectors_, grad_weights_, grad_biases_;
};

double clip(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

double extreme(double x, double y, bool second) {
    if (x != x) return x;
    return second || y != y ? y : x;
}

}  // namespace

double apply(const std::string& code, const double* args) {
    const double x = args[0], y = args[1], z = args[2];
    if (code == "add") return x + y;
    if (code == "sub") return x - y;
    if (code == "mul") return x * y;
    if (code == "div") return x / y;
    if (code == "neg") return -x;
    if (code == "pow") return std::pow(x, y);
    if (code == "exp") return std::exp(x);
    if (code == "log") return std::log(x);
    if (code == "sqr") return std::sqrt(x);
    if (code == "sig") return 1 / (1 + std::exp(-x));
    if (code == "tnh") return std::tanh(x);
    if (code == "rel") return x < 0 ? 0 : x;
    if (code == "spl") return x > 20 ? x : std::log1p(std::exp(x));
    if (code == "ssg") return x / (1 + std::fabs(x));
    if (code == "hsg") return clip(x / 6 + 0.5, 0, 1);
    if (code == "hth") return clip(x, -1, 1);
    if (code == "abs") return std::fabs(x);
    if (code == "sgn") return x != x ? x : (x > 0) - (x < 0);
    if (code == "min") return extreme(x, y, y < x);
    if (code == "max") return extreme(x, y, y > x);
    if (code == "clp") return clip(x, y, z);
    if (code == "ltn") return x < y;
    if (code == "leq") return x <= y;
    if (code == "equ") return x == y;
    if (code == "neq") return x != y;
    if (code == "sel") return x != 0 ? y : z;
    return kNaN;
}

Results solve(const Problem& problem) { return NaiveReference(problem).run(); }

}  // namespace core_test
