// Gradients from the slopes of a chunk of steps: of weights and biases, which sum over tokens, and of
// the inputs, token by token.
#pragma once

#include "kernels/batch.h"

namespace unrolled {
namespace UNROLLED_BUILD {

inline bool source_is_state(const Program& p, std::size_t product) {
    return p.nodes[p.sources[product]].leaf == Leaf::state;
}

// The column of a gradient of products in a row of slopes.
inline Index slope_at(const Program& p, int node) {
    for (std::size_t k = 0; k < p.slopes.size(); ++k)
        if (p.slopes[k] == node) return p.slope_at[k];
    return -1;
}

// The matrix of a transposed product: its rows are the product's outputs, part by part, and a row of
// slopes has those of each part somewhere.
template <class T>
Matrix<T> transposed(const Program& p, const Lines<const T>& W, const std::vector<int>& parts, Index width,
                     Index columns, Index rows, Index total) {
    Index count = 0;
    for (int node : parts) count += node >= 0;
    Buffer<Segment> segments(count);
    count = 0;
    for (std::size_t part = 0; part < parts.size(); ++part)
        if (parts[part] >= 0)
            segments[count++] = {slope_at(p, parts[part]), width, 0,
                                 static_cast<Index>(part) * width};
    return make_transposed(W, columns, static_cast<Index>(parts.size()) * width,
                           static_cast<Buffer<Segment>&&>(segments), rows, total);
}

template <class T>
class TokenSums {
public:
    TokenSums(const Gradients<T>& g, const Batch<T>& batch)
        : g_(g), call_(*g.call), batch_(batch), p_(*call_.program) {}

    // Chunks of so many steps, whose slopes are rows with pitch `ld`; `starts` by state, `sources` by
    // product that multiplies no state.
    void begin(Index threads, Index steps, const T* slopes, Index ld,
               const std::vector<Buffer<T>>& starts, const std::vector<Buffer<T>>& sources) {
        slopes_ = slopes;
        ld_ = ld;
        starts_ = &starts;
        sources_ = &sources;
        const Index tokens = steps * call_.N;
        if (g_.grad_tokens)
            input_back_ = transposed(p_, call_.input.weight, p_.grad_x, p_.x_width, call_.I, tokens,
                                     call_.total);
        zeros_ = zeros<T>(pitch(call_.I));
        Index widest = most(p_.x_width, call_.I);
        for (const Product& q : p_.products) widest = most(widest, most(q.width, q.source));
        space_ = least(tokens, kChunk) * (widest + (kTallVectors + 1) * lanes<T>);
        space_ = round_up(most(space_, 8 * kTall * pitch(call_.I)), 16);
        work_ = Buffer<T>(threads * space_);
        room_ = tokens;
        pointers_ = Buffer<const T*>(threads * room_);
        if (call_.tokens.brief) lines_ = Buffer<T>(threads * room_ * line());
    }

    void pack_own(Index me, Index count) {
        if (g_.grad_tokens)
            divide(input_back_, false, me, count, [&](Index a, Index b) {
                pack_transposed(input_back_, call_.input.weight, a, b);
            });
    }

    // Adds what one chunk has; threads share the rows of each gradient.
    void add(Index me, Index count, Index start, Index end, bool first) {
        const Index tokens = batch_.offset(end) - batch_.offset(start);
        const T** pointers = pointers_.data() + me * room_;
        T* const lines = lines_.part(me * room_ * line());
        T* const space = work_.data() + me * space_;
        if (g_.grad_weights[0] || g_.grad_biases[0]) {
            Index i = 0;
            for (Index t = start; t < end; ++t)
                for (Index n = 0; n < call_.size(t); ++n, ++i)
                    pointers[grouped(i, tokens)] =
                        row_of(call_.tokens, batch_.row(t, n) * call_.I, call_.I, lines, i, line());
            weights(p_.grad_x, p_.x_width, call_.I, pointers, tokens, g_.grad_weights[0],
                    g_.grad_biases[0], me, count, space, first);
        }
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            if (!g_.grad_weights[k + 1] && !g_.grad_biases[k + 1]) continue;
            point_at_sources(k, start, end, tokens, pointers, lines);
            weights(p_.grad_products[k], p_.products[k].width, p_.products[k].source, pointers,
                    tokens, g_.grad_weights[k + 1], g_.grad_biases[k + 1], me, count, space, first);
        }
        if (g_.grad_tokens) send_back(me, count, start, end, pointers, space);
    }

private:
    // Numbers of the widest row that is read of the caller's.
    Index line() const { return most(call_.I, p_.states[0]); }

    // Place of the i-th of so many tokens where those of a group stand together.
    Index grouped(Index i, Index tokens) const {
        return g_.groups == 1 ? i : i % g_.groups * (tokens / g_.groups) + i / g_.groups;
    }

    // What a product multiplied, group by group, token by token.
    void point_at_sources(std::size_t k, Index start, Index end, Index tokens, const T** pointers,
                          T* lines) {
        if (!g_.grad_weights[k + 1]) return;
        const Index w = p_.products[k].source;
        const int state = p_.nodes[p_.sources[k]].key;
        Index i = 0;
        for (Index t = start; t < end; ++t)
            for (Index n = 0; n < call_.size(t); ++n, ++i) {
                const T*& at = pointers[grouped(i, tokens)];
                if (!source_is_state(p_, k)) at = (*sources_)[k].data() + i * pitch(w);
                else if (t == 0) at = (*starts_)[state].data() + n * pitch(w);
                else if (state == 0)
                    at = row_of({call_.output.own, call_.output.brief}, batch_.row(t - 1, n) * w, w,
                                lines, i, line());
                else
                    at = call_.saved + (batch_.offset(t - 1) + n) * p_.saved_pitch +
                         p_.saved_at[p_.stored.size() + state - 1];
            }
    }

    // Threads share the rows of a gradient, or the groups.
    void weights(const std::vector<int>& parts, Index width, Index K, const T* const* S,
                 Index tokens, Lines<T> weight, T* bias, Index me, Index count, T* space, bool first) {
        const Index G = g_.groups, each = tokens / G, all = static_cast<Index>(parts.size()) * width;
        if (G == 1)
            return weights_of(0, parts, width, K, S, tokens, weight, bias, {0, 0, me, count}, space,
                              first);
        for (Index g = G * me / count; g < G * (me + 1) / count; ++g)
            weights_of(g, parts, width, K, S + g * each, each, further(weight, g * all * K), bias ? bias + g * all : nullptr, {0, 0, 0, 1}, space, first);
    }

    static Lines<T> further(const Lines<T>& from, Index numbers) {
        return {from.own ? from.own + numbers : nullptr, from.brief ? from.brief + numbers : nullptr};
    }

    void weights_of(Index group, const std::vector<int>& parts, Index width, Index K,
                    const T* const* S, Index tokens, Lines<T> weight, T* bias, const Part& part,
                    T* space, bool first) {
        const Index blocks = divide_up(width, kTall), ld = ld_ * g_.groups;
        const Index m0 = least(width, blocks * part.me / part.count * kTall);
        const Index m1 = least(width, blocks * (part.me + 1) / part.count * kTall);
        for (std::size_t k = 0; k < parts.size(); ++k) {
            const Lines<T> home = further(weight, static_cast<Index>(k) * width * K);
            T* const rows = home.own;
            T* const sums = bias ? bias + static_cast<Index>(k) * width : nullptr;
            if (first && sums) clear(sums + m0, m1 - m0);
            if (parts[k] < 0) {
                if (first && rows) clear(rows + m0 * K, (m1 - m0) * K);
                for (Index i = m0 * K; home.brief && i < m1 * K; ++i) home.brief[i] = 0;
                continue;
            }
            const T* D = slopes_ + slope_at(p_, parts[k]) + group * ld_;
            for (Index i = 0; rows && i < most<Index>(tokens, 1); i += kChunk)
                weight_gradient(D + i * ld, ld, m0, m1, S + i, K, least(kChunk, tokens - i), rows,
                                first && i == 0, space);
            for (Index m = m0; home.brief && m < m1; ++m) {
                weight_gradient(D + m, ld, 0, 1, S, K, tokens, space, true, space);
                write(home, m * K, space, K);
            }
            if (sums)
                for (Index i = 0; i < tokens; ++i)
                    for (Index m = m0; m < m1; ++m) sums[m] += D[i * ld + m];
        }
    }

    // Gradients of the inputs: slopes times the input's weights, token by token.
    void send_back(Index me, Index count, Index start, Index end, const T** pointers, T* space) {
        const Index tokens = batch_.offset(end) - batch_.offset(start);
        const Index tiles = divide_up(tokens, kTall), ld = pitch(call_.I);
        const Index from = least(tokens, tiles * me / count * kTall);
        const Index to = least(tokens, tiles * (me + 1) / count * kTall);
        for (Index i = from; i < to; ++i) pointers[i] = slopes_ + i * ld_;
        const Share all{0, input_back_.shape.groups()};
        Index t = start, n = from;
        while (t < end && n >= call_.size(t)) n -= call_.size(t++);
        const Index block = most<Index>(kTall, space_ / ld / kTall * kTall);
        for (Index i = from; i < to; i += block) {
            const Index some = least(block, to - i);
            multiply(pointers + i, some, input_back_, all,
                     Target<T>{nullptr, 0, space, ld, zeros_.data()});
            for (Index k = 0; k < some; ++k) {
                write(g_.grad_tokens, batch_.row(t, n) * call_.I, space + k * ld, call_.I);
                for (++n; t < end && n >= call_.size(t); ++t) n = 0;
            }
        }
    }

    const Gradients<T>& g_;
    const Call<T>& call_;
    const Batch<T>& batch_;
    const Program& p_;
    const T* slopes_ = nullptr;
    const std::vector<Buffer<T>>* starts_ = nullptr;
    const std::vector<Buffer<T>>* sources_ = nullptr;
    Matrix<T> input_back_;
    Buffer<T> work_, zeros_, lines_;  // lines: the caller's rows, where they are brief
    Buffer<const T*> pointers_;
    Index ld_ = 0, space_ = 0, room_ = 0;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
