// One vector of a sequence from its steps, as they come: the mean, the largest, or a weighted mean
// (attention), of the steps so far.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "api.h"

namespace unrolled {

class Pool {
public:
    enum class Kind { mean, max, attention };

    Pool(const std::string& name, Index N, Index width) : kind_(kind_of(name)), width_(width) {
        states_[0].assign(static_cast<std::size_t>(N * width), 0.0);
        states_[1].assign(static_cast<std::size_t>(N), 0.0);
        states_[2].assign(static_cast<std::size_t>(N), kLowest);
    }

    // As if sequence n had had no step.
    void begin(Index n) {
        std::fill_n(states_[0].data() + n * width_, width_, 0.0f);
        states_[1][static_cast<std::size_t>(n)] = 0;
        states_[2][static_cast<std::size_t>(n)] = kLowest;
    }

    // Row n of x [N, width] is a step of sequence n; `scores` [N] are those of attention.
    void add(Index n, const float* x, const float* scores) {
        double* const sum = states_[0].data() + n * width_;
        double& total = states_[1][static_cast<std::size_t>(n)];
        if (kind_ == Kind::attention) return weigh(n, sum, total, x, scores[n]);
        const bool first = total == 0;
        total += 1;
        // A running mean does not grow, however long the stream.
        for (Index k = 0; k < width_; ++k) {
            const double number = x[k];
            if (kind_ == Kind::mean) sum[k] += (number - sum[k]) / total;
            else if (first || number > sum[k] || std::isnan(number)) sum[k] = number;  // NaN stays
        }
    }

    // What there is so far, [width]; zeros before the first step.
    void read(Index n, float* to) const {
        const double* const sum = states_[0].data() + n * width_;
        const double total = states_[1][static_cast<std::size_t>(n)];
        const bool divides = kind_ == Kind::attention && total != 0;
        for (Index k = 0; k < width_; ++k)
            to[k] = static_cast<float>(divides ? sum[k] / total : sum[k]);
    }

    // Row n of means, largest or weighted sums [N, width]; of steps or weights [N]; of highest scores [N].
    void read_state(std::size_t k, Index n, float* to) const {
        const Index width = k == 0 ? width_ : 1;
        const double* const row = states_[k].data() + n * width;
        for (Index j = 0; j < width; ++j) to[j] = static_cast<float>(row[j]);
    }
    // A state that is written as it was read stays as it is, in full.
    void write_state(std::size_t k, Index n, const float* from) {
        const Index width = k == 0 ? width_ : 1;
        double* const row = states_[k].data() + n * width;
        for (Index j = 0; j < width; ++j)
            if (static_cast<float>(row[j]) != from[j]) row[j] = from[j];
    }

private:
    static constexpr double kLowest = -std::numeric_limits<double>::infinity();

    static Kind kind_of(const std::string& name) {
        if (name == "mean") return Kind::mean;
        if (name == "max") return Kind::max;
        if (name == "attention") return Kind::attention;
        throw std::invalid_argument("pool: wanted mean, max or attention, got " + name);
    }

    // Sums are in units of the highest score so far: no exponential overflows, and those of steps that
    // were far below may vanish.
    void weigh(Index n, double* sum, double& total, const float* x, double score) {
        double& highest = states_[2][static_cast<std::size_t>(n)];
        const double before = highest;
        if (!(score <= highest)) highest = score;
        const double fade = total == 0 ? 0.0 : std::exp(before - highest);
        const double weight = std::exp(score - highest);
        for (Index k = 0; k < width_; ++k) sum[k] = fade * sum[k] + weight * x[k];
        total = fade * total + weight;
    }

    Kind kind_;
    Index width_;
    // Double: a count, a mean or a sum of weights in float stands still after 2^24 steps.
    std::vector<double> states_[3];
};

}  // namespace unrolled
