// From the gradients of products of a chunk of steps: the gradients of weights and biases, which sum over
// tokens, and those of the inputs, token by token.
#pragma once

#include "kernels/batch.h"
#include "kernels/weight_gradient.h"

namespace unrolled {
namespace UNROLLED_BUILD {

inline bool source_is_state(const Program& p, std::size_t product) {
    return p.nodes[p.sources[product]].kind == NodeKind::state;
}

// The column of a gradient of products in a row of product gradients.
inline Index product_gradient_column(const Program& p, int node) {
    for (std::size_t k = 0; k < p.product_gradients.size(); ++k)
        if (p.product_gradients[k] == node) return p.product_gradient_columns[k];
    return -1;
}

// The matrix of a transposed product. Its rows are the outputs of the product, part by part; the gradient
// of each part is somewhere in a row of product gradients.
template <class T>
Matrix<T> transposed(const Call<T>& call, const Storage<const T>& W, const std::vector<int>& parts,
                     Index width, Index columns, Index blocks, Index rows) {
    Index count = 0;
    for (int node : parts) count += node >= 0;
    Buffer<Segment> segments(count);
    count = 0;
    for (std::size_t part = 0; part < parts.size(); ++part)
        if (parts[part] >= 0)
            segments[count++] = {product_gradient_column(*call.program, parts[part]), width, 0,
                                 static_cast<Index>(part) * width};
    return make_transposed(call, W, columns, static_cast<Index>(parts.size()) * width, blocks,
                           static_cast<Buffer<Segment>&&>(segments), rows);
}

template <class T>
class ParameterGradients {
public:
    ParameterGradients(const Gradients<T>& g, const Batch<T>& batch)
        : g_(g), call_(*g.call), batch_(batch), p_(*call_.program) {}

    // Prepares for chunks of `steps` steps, whose product gradients are rows with pitch `ld`.
    // `initial_states` by state; `sources` by product whose source is not a state.
    void begin(Index threads, Index steps, const T* gradients, Index ld,
               const std::vector<Buffer<T>>& initial_states, const std::vector<Buffer<T>>& sources) {
        product_gradients_ = gradients;
        ld_ = ld;
        initial_states_ = &initial_states;
        sources_ = &sources;
        const Index tokens = steps * call_.N;
        if (g_.grad_tokens)
            input_back_ = transposed(call_, call_.input.weight, p_.grad_x, p_.x_width, call_.I,
                                     p_.x_diagonal_blocks, tokens);
        zeros_ = zeros<T>(pitch(call_.I));
        Index widest = max(p_.x_width, call_.I);
        for (const Product& q : p_.products) widest = max(widest, max(q.width, q.source));
        workspace_size_ = min(tokens, kChunk) * (widest + (kTileVectors + 1) * lanes<T>);
        workspace_size_ = round_up(max(workspace_size_, 8 * kTileRows * pitch(call_.I)), 16);
        workspaces_ = Buffer<T>(threads * workspace_size_);
        if (g_.grad_tokens && multiplies_bf16(call_)) {
            rounded_size_ = round_up(bf16_workspace<T>(input_gradient_rows(), p_.product_gradient_pitch), 16);
            rounded_ = Buffer<T>(threads * rounded_size_);
        }
        max_tokens_ = tokens;
        pointers_ = Buffer<const T*>(threads * max_tokens_);
        if (call_.tokens.half) row_buffers_ = Buffer<T>(threads * max_tokens_ * max_row());
    }

    void pack_matrices(Index thread, Index count) {
        if (g_.grad_tokens)
            divide(input_back_, false, thread, count,
                   [&](Index a, Index b) { pack_transposed(input_back_, call_.input.weight, a, b); });
    }

    // Adds the gradients of one chunk; threads share the rows of each gradient.
    void add(Index thread, Index count, Index start, Index end, bool first) {
        const Index tokens = batch_.offset(end) - batch_.offset(start);
        const T** pointers = pointers_.data() + thread * max_tokens_;
        T* const row_buffer = row_buffers_.part(thread * max_tokens_ * max_row());
        T* const workspace = workspaces_.data() + thread * workspace_size_;
        if (g_.grad_weights[0] || g_.grad_biases[0]) {
            Index i = 0;
            for (Index t = start; t < end; ++t)
                for (Index n = 0; n < call_.size(t); ++n, ++i)
                    pointers[grouped_position(i, tokens)] = native_row(
                        call_.tokens, batch_.row(t, n) * call_.I, call_.I, row_buffer, i, max_row());
            weights({p_.grad_x, p_.x_width, call_.I, p_.x_diagonal_blocks}, pointers, tokens,
                    g_.grad_weights[0], g_.grad_biases[0], thread, count, workspace, first);
        }
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            if (!g_.grad_weights[k + 1] && !g_.grad_biases[k + 1]) continue;
            point_at_sources(k, start, end, tokens, pointers, row_buffer);
            const Product& q = p_.products[k];
            weights({p_.grad_products[k], q.width, q.source, q.diagonal_blocks}, pointers, tokens,
                    g_.grad_weights[k + 1], g_.grad_biases[k + 1], thread, count, workspace, first);
        }
        if (g_.grad_tokens) input_gradients(thread, count, start, end, pointers, workspace);
    }

private:
    // A product: the nodes of the gradients of its parts, and its blocks. Its weight has rows of K numbers.
    struct Factor {
        const std::vector<int>& parts;
        Index width, source, blocks;
        Index K = source / blocks, block_width = width / blocks;

        // The first row of share number `thread` of `count`: of tiles of kTileRows rows, block by block.
        Index share(Index thread, Index count) const {
            const Index tiles = divide_up(block_width, kTileRows), tile = blocks * tiles * thread / count;
            return tile / tiles * block_width + min(block_width, tile % tiles * kTileRows);
        }
    };

    // The widest row of the caller's arrays that is read.
    Index max_row() const { return max(call_.I, p_.states[0]); }

    // The position of token i where the tokens of a group stand together.
    Index grouped_position(Index i, Index tokens) const {
        return g_.groups == 1 ? i : i % g_.groups * (tokens / g_.groups) + i / g_.groups;
    }

    // Points at the sources of a product, group by group, token by token.
    void point_at_sources(std::size_t k, Index start, Index end, Index tokens, const T** pointers,
                          T* row_buffer) {
        if (!g_.grad_weights[k + 1]) return;
        const Index w = p_.products[k].source;
        const int state = p_.nodes[p_.sources[k]].index;
        Index i = 0;
        for (Index t = start; t < end; ++t)
            for (Index n = 0; n < call_.size(t); ++n, ++i) {
                const T*& at = pointers[grouped_position(i, tokens)];
                if (!source_is_state(p_, k)) at = (*sources_)[k].data() + i * pitch(w);
                else if (t == 0) at = (*initial_states_)[state].data() + n * pitch(w);
                else if (state == 0)
                    at = native_row({call_.output.native, call_.output.half}, batch_.row(t - 1, n) * w, w,
                                    row_buffer, i, max_row());
                else
                    at = call_.saved + (batch_.offset(t - 1) + n) * p_.saved_pitch +
                         p_.saved_columns[p_.stored.size() + state - 1];
            }
    }

    // Threads share the rows of a gradient, or the groups.
    void weights(const Factor& factor, const T* const* S, Index tokens, Storage<T> weight, T* bias,
                 Index thread, Index count, T* workspace, bool first) {
        const Index G = g_.groups, map_lanes = tokens / G;
        const Index all = static_cast<Index>(factor.parts.size()) * factor.width;
        if (G == 1)
            return weights_of(0, factor, S, tokens, weight, bias, {0, 0, thread, count}, workspace, first);
        for (Index g = G * thread / count; g < G * (thread + 1) / count; ++g)
            weights_of(g, factor, S + g * map_lanes, map_lanes, offset_by(weight, g * all * factor.K),
                       bias ? bias + g * all : nullptr, {0, 0, 0, 1}, workspace, first);
    }

    static Storage<T> offset_by(const Storage<T>& from, Index numbers) {
        return {from.native ? from.native + numbers : nullptr, from.half ? from.half + numbers : nullptr};
    }

    void weights_of(Index group, const Factor& factor, const T* const* S, Index tokens, Storage<T> weight,
                    T* bias, const Part& part, T* workspace, bool first) {
        const Index width = factor.width, K = factor.K, ld = ld_ * g_.groups;
        const Index m0 = factor.share(part.thread, part.count);
        const Index m1 = factor.share(part.thread + 1, part.count);
        for (std::size_t k = 0; k < factor.parts.size(); ++k) {
            const Storage<T> rows_of_part = offset_by(weight, static_cast<Index>(k) * width * K);
            T* const rows = rows_of_part.native;
            T* const sums = bias ? bias + static_cast<Index>(k) * width : nullptr;
            if (first && sums) clear(sums + m0, m1 - m0);
            if (factor.parts[k] < 0) {
                if (first && rows) clear(rows + m0 * K, (m1 - m0) * K);
                for (Index i = m0 * K; rows_of_part.half && i < m1 * K; ++i) rows_of_part.half[i] = 0;
                continue;
            }
            const T* D = product_gradients_ + product_gradient_column(p_, factor.parts[k]) + group * ld_;
            for (Index a = m0, b; rows_of_part && a < m1; a = b) {
                b = min(m1, (a / factor.block_width + 1) * factor.block_width);
                block(D, ld, a, b, S, a / factor.block_width * K, K, tokens, rows_of_part, workspace, first);
            }
            if (sums)
                for (Index i = 0; i < tokens; ++i)
                    for (Index m = m0; m < m1; ++m) sums[m] += D[i * ld + m];
        }
    }

    // Rows [a, b) of the gradient of one part, which belong to one block: it reads K numbers of each source,
    // from `column` on.
    void block(const T* D, Index ld, Index a, Index b, const T* const* S, Index column, Index K, Index tokens,
               const Storage<T>& rows, T* workspace, bool first) {
        const T* sources[kChunk];
        for (Index i = 0; i < max<Index>(tokens, 1); i += kChunk) {
            const Index some = min(kChunk, tokens - i);
            for (Index k = 0; k < some; ++k) sources[k] = S[i + k] + column;
            if (rows.native)
                weight_gradient_of_chunk(D + i * ld, ld, a, b, sources, K, some, rows.native, first && i == 0,
                                         workspace);
            for (Index m = a; rows.half && m < b; ++m) {
                weight_gradient(D + m, ld, 0, 1, sources, K, some, workspace, true, workspace);
                write(rows, m * K, workspace, K);
            }
        }
    }

    void weight_gradient_of_chunk(const T* D, Index ld, Index m0, Index m1, const T* const* S, Index K,
                                  Index tokens, T* C, bool first, T* workspace) const {
        if constexpr (kMultipliesBf16<T>)
            if (multiplies_bf16(call_) && tokens > kFewTokens)
                return weight_gradient_bf16(D, ld, m0, m1, S, K, tokens, C, first, workspace);
        weight_gradient(D, ld, m0, m1, S, K, tokens, C, first, workspace);
    }

    // The tokens whose gradients are computed at once.
    Index input_gradient_rows() const {
        return max<Index>(kTileRows, workspace_size_ / pitch(call_.I) / kTileRows * kTileRows);
    }

    // Gradients of the inputs: gradients of products times the input's weights, token by token.
    void input_gradients(Index thread, Index count, Index start, Index end, const T** pointers,
                         T* workspace) {
        const Index tokens = batch_.offset(end) - batch_.offset(start);
        const Index tiles = divide_up(tokens, kTileRows), ld = pitch(call_.I);
        const Index from = min(tokens, tiles * thread / count * kTileRows);
        const Index to = min(tokens, tiles * (thread + 1) / count * kTileRows);
        for (Index i = from; i < to; ++i) pointers[i] = product_gradients_ + i * ld_;
        const GroupRange all{0, input_back_.shape.groups()};
        Index t = start, n = from;
        while (t < end && n >= call_.size(t)) n -= call_.size(t++);
        const Index block = input_gradient_rows();
        for (Index i = from; i < to; i += block) {
            const Index block_tokens = min(block, to - i);
            multiply(pointers + i, block_tokens, input_back_, all,
                     Target<T>{nullptr, 0, workspace, ld, zeros_.data()},
                     rounded_.part(thread * rounded_size_));
            for (Index k = 0; k < block_tokens; ++k) {
                write(g_.grad_tokens, batch_.row(t, n) * call_.I, workspace + k * ld, call_.I);
                for (++n; t < end && n >= call_.size(t); ++t) n = 0;
            }
        }
    }

    const Gradients<T>& g_;
    const Call<T>& call_;
    const Batch<T>& batch_;
    const Program& p_;
    const T* product_gradients_ = nullptr;
    const std::vector<Buffer<T>>* initial_states_ = nullptr;
    const std::vector<Buffer<T>>* sources_ = nullptr;
    Matrix<T> input_back_;
    Buffer<T> workspaces_, zeros_, row_buffers_;  // row_buffers_: rows in bfloat16, converted
    Buffer<const T*> pointers_;
    Buffer<T> rounded_;  // by thread, for products with bfloat16
    Index ld_ = 0, workspace_size_ = 0, rounded_size_ = 0, max_tokens_ = 0;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
