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
        states_[0].assign(static_cast<std::size_t>(N * width), 0.0f);
        states_[1].assign(static_cast<std::size_t>(N), 0.0f);
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
        float* const sum = states_[0].data() + n * width_;
        float& total = states_[1][static_cast<std::size_t>(n)];
        if (kind_ == Kind::attention) return weigh(n, sum, total, x, scores[n]);
        const bool first = total == 0;
        total += 1;
        // A running mean does not grow, however long the stream.
        for (Index k = 0; k < width_; ++k)
            if (kind_ == Kind::mean) sum[k] += (x[k] - sum[k]) / total;
            else if (first || !(x[k] <= sum[k])) sum[k] = x[k];
    }

    // What there is so far, [width]; zeros before the first step.
    void read(Index n, float* to) const {
        const float* const sum = states_[0].data() + n * width_;
        const float total = states_[1][static_cast<std::size_t>(n)];
        const bool divides = kind_ == Kind::attention && total != 0;
        for (Index k = 0; k < width_; ++k) to[k] = divides ? sum[k] / total : sum[k];
    }

    // Means, largest or weighted sums [N, width]; steps or weights [N]; highest scores [N].
    std::vector<float>& state(std::size_t k) {
        if (k > 2) throw std::invalid_argument("state: a pool has three");
        return states_[k];
    }

private:
    static constexpr float kLowest = -std::numeric_limits<float>::infinity();

    static Kind kind_of(const std::string& name) {
        if (name == "mean") return Kind::mean;
        if (name == "max") return Kind::max;
        if (name == "attention") return Kind::attention;
        throw std::invalid_argument("pool: wanted mean, max or attention, got " + name);
    }

    // Sums are in units of the highest score so far: no exponential overflows, and those of steps that
    // were far below may vanish.
    void weigh(Index n, float* sum, float& total, const float* x, float score) {
        float& highest = states_[2][static_cast<std::size_t>(n)];
        const float before = highest;
        if (!(score <= highest)) highest = score;
        const float fade = total == 0 ? 0.0f : std::exp(before - highest);
        const float weight = std::exp(score - highest);
        for (Index k = 0; k < width_; ++k) sum[k] = fade * sum[k] + weight * x[k];
        total = fade * total + weight;
    }

    Kind kind_;
    Index width_;
    std::vector<float> states_[3];
};

}  // namespace unrolled
