#include "problem.h"

#include <algorithm>
#include <cmath>

namespace core_test {

std::uint64_t Random::next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double Random::uniform(double low, double high) {
    const double one = static_cast<double>(next() >> 11) * 0x1p-53;
    return static_cast<float>(low + (high - low) * one);
}

Vector Random::vector(Index count, double low, double high) {
    Vector result(static_cast<std::size_t>(count));
    for (double& x : result) x = uniform(low, high);
    return result;
}

std::string Sizes::name() const {
    static const char* const layouts[] = {"time", "batch", "reversed", "table", "ragged"};
    return "T=" + std::to_string(T) + " N=" + std::to_string(N) + " I=" + std::to_string(I) +
           " H=" + std::to_string(H) + " " + layouts[static_cast<int>(layout)] + (sparse ? " sparse" : "");
}

std::vector<Shape> shapes(const unrolled::Program& program, Index I) {
    std::vector<Shape> result{
        {program.x_parts, program.x_width, I / program.x_diagonal_blocks, program.x_diagonal_blocks}};
    for (const auto& p : program.products) result.push_back({p.parts, p.width, p.columns, p.diagonal_blocks});
    return result;
}

Problem::Problem(const unrolled::Program& program, const Sizes& expected, std::uint64_t seed)
    : program(program),
      T(expected.T),
      N(expected.N),
      I(expected.I),
      ragged(expected.layout == Layout::ragged),
      tabled(ragged || expected.layout == Layout::table) {
    Random random(seed);
    lay_out(expected.layout, random);
    fill(expected.sparse, random);
}

Index Problem::first(Index t) const { return firsts_[static_cast<std::size_t>(t)]; }

Index Problem::length(Index n) const {
    return std::count_if(sizes.begin(), sizes.end(), [n](Index size) { return size > n; });
}

void Problem::lay_out(Layout layout, Random& random) {
    sizes.assign(static_cast<std::size_t>(T), N);
    if (ragged)
        for (Index t = 0, left = N; t < T; ++t) {
            left -= random.below(2 + left / 2);
            sizes[static_cast<std::size_t>(t)] = left = std::max<Index>(left, 0);
        }
    total = 0;
    for (Index size : sizes) {
        firsts_.push_back(total);
        total += size;
    }
    rows = total + (ragged ? 3 : 0);
    const bool batch = layout == Layout::batch;
    step = batch ? 1 : N;
    next = batch ? T : 1;
    if (layout == Layout::reversed) {
        base = (T - 1) * step;
        step = -step;
    }
    for (Index t = 0; t < T; ++t)
        for (Index n = 0; n < sizes[static_cast<std::size_t>(t)]; ++n)
            row.push_back(tabled ? static_cast<Index>(row.size()) : base + t * step + n * next);
    if (!tabled) return;
    std::vector<Index> places(static_cast<std::size_t>(rows));
    for (std::size_t k = 0; k < places.size(); ++k) places[k] = static_cast<Index>(k);
    for (std::size_t k = places.size(); k > 1; --k) std::swap(places[k - 1], places[random.place(k)]);
    for (Index& place : row) place = places[static_cast<std::size_t>(place)];
}

void Problem::fill(bool sparse, Random& random) {
    auto given = [&] { return !sparse || random.coin(); };
    auto array = [&](Index count, double low, double high, bool there) {
        return Array{random.vector(count, low, high), there};
    };
    tokens = array(rows * I, -1, 1, true);
    const Index H = std::max<Index>(1, program.H);
    const double scale = 1 / std::sqrt(static_cast<double>(H));
    for (const Shape& s : shapes(program, I)) {
        weights.push_back(
            {array(s.elements(), -scale, scale, true), array(s.parts * s.width, -scale, scale, given())});
        wants_weights.push_back(given());
        wants_biases.push_back(given());
    }
    for (Index width : program.vectors) {
        vectors.push_back(array(width, -0.9, 0.9, true));
        wants_vectors.push_back(given());
    }
    grad_output = array(rows * program.states[0], -1, 1, given());
    for (std::size_t k = 0; k < program.states.size(); ++k) {
        // From the third on, states normalize others (sLSTM): they are positive.
        const Index count = N * program.states[k];
        initial.push_back(array(count, k < 2 ? -1 : 0.5, 1, given()));
        grad_final.push_back(array(count, -1, 1, given()));
        wants_initial.push_back(given());
    }
    wants_tokens = given();
}

}  // namespace core_test
