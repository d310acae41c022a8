// The mean, the maximum or the attention-weighted mean of the steps of a sequence so far.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/types.h"

namespace unrolled {

class PoolingState {
public:
    enum class Kind { mean, max, attention };

    PoolingState(const std::string& name, Index N, Index width) : kind_(kind_of(name)), width_(width) {
        states_[0].assign(static_cast<std::size_t>(N * width), 0.0);
        states_[1].assign(static_cast<std::size_t>(N), 0.0);
        states_[2].assign(static_cast<std::size_t>(N), kNoScore);
    }

    // Restarts sequence n.
    void begin(Index n) {
        std::fill_n(states_[0].data() + n * width_, width_, 0.0);
        states_[1][static_cast<std::size_t>(n)] = 0;
        states_[2][static_cast<std::size_t>(n)] = kNoScore;
    }

    // Adds row n of x [N, width], a step of sequence n; `scores` [N] are those of attention.
    void add(Index n, const float* x, const float* scores) {
        double* const sum = states_[0].data() + n * width_;
        double& total = states_[1][static_cast<std::size_t>(n)];
        if (kind_ == Kind::attention) return add_weighted(n, sum, total, x, scores[n]);
        const bool first = total == 0;
        total += 1;
        // A running mean does not grow with the number of steps.
        for (Index k = 0; k < width_; ++k) {
            const double number = x[k];
            if (kind_ == Kind::mean) sum[k] = round_to_two_floats(sum[k] + (number - sum[k]) / total);
            else if (first || number > sum[k] || std::isnan(number)) sum[k] = number;  // NaN stays
        }
    }

    // The pooled vector [width]; zeros before the first step.
    void read(Index n, float* to) const {
        const double* const sum = states_[0].data() + n * width_;
        const double total = states_[1][static_cast<std::size_t>(n)];
        const bool divides = kind_ == Kind::attention && total != 0;
        for (Index k = 0; k < width_; ++k) to[k] = static_cast<float>(divides ? sum[k] / total : sum[k]);
    }

    // The width of state k: 0 holds means, maxima or weighted sums; 1 the number of steps or the sum of
    // weights; 2 the highest score. A number of 0 and 1 is the sum of two floats, so that a state that is
    // read and written back continues bit for bit.
    static Index state_width(std::size_t k, Index width) { return k == 0 ? 2 * width : k == 1 ? 2 : 1; }

    void read_state(std::size_t k, Index n, float* to) const {
        const Index numbers = k == 0 ? width_ : 1;
        const double* const row = states_[k].data() + n * numbers;
        for (Index j = 0; j < numbers; ++j) {
            to[j] = static_cast<float>(row[j]);
            if (k < 2) to[numbers + j] = remainder_of_float(row[j]);
        }
    }
    void write_state(std::size_t k, Index n, const float* from) {
        const Index numbers = k == 0 ? width_ : 1;
        double* const row = states_[k].data() + n * numbers;
        for (Index j = 0; j < numbers; ++j)
            row[j] = k < 2 ? double(from[j]) + double(from[numbers + j]) : double(from[j]);
    }

private:
    static constexpr double kNoScore = -std::numeric_limits<double>::infinity();

    static float remainder_of_float(double number) {
        const float first = static_cast<float>(number);
        return std::isfinite(first) ? static_cast<float>(number - double(first)) : 0.0f;
    }

    // Rounds to the sum of two floats.
    static double round_to_two_floats(double number) {
        return double(static_cast<float>(number)) + double(remainder_of_float(number));
    }

    static Kind kind_of(const std::string& name) {
        if (name == "mean") return Kind::mean;
        if (name == "max") return Kind::max;
        if (name == "attention") return Kind::attention;
        throw std::invalid_argument("pooling: name must be mean, max or attention, got " + name);
    }

    // Weights are relative to the highest score so far: no exponential overflows, and those of much lower
    // scores may vanish.
    void add_weighted(Index n, double* sum, double& total, const float* x, double score) {
        double& highest = states_[2][static_cast<std::size_t>(n)];
        const double before = highest;
        if (!(score <= highest)) highest = score;
        const double decay = total == 0 ? 0.0 : std::exp(before - highest);
        const double weight = std::exp(score - highest);
        for (Index k = 0; k < width_; ++k) sum[k] = round_to_two_floats(decay * sum[k] + weight * x[k]);
        total = round_to_two_floats(decay * total + weight);
    }

    Kind kind_;
    Index width_;
    // In double: in float a count, a mean or a sum of weights stops changing after 2^24 steps.
    std::vector<double> states_[3];
};

}  // namespace unrolled
