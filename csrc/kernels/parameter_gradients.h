// From the gradients of products of a chunk of steps: the gradients of weights and biases, which sum over
// tokens, and those of the inputs, token by token.
#pragma once

#include "kernels/gradient_pieces.h"

namespace unrolled {
namespace UNROLLED_BUILD {

inline bool source_is_state(const Program& p, std::size_t product) {
    return p.nodes[p.sources[product]].kind == NodeKind::state;
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
        : g_(g), call_(*g.call), batch_(batch), p_(*call_.program), pieces_(g) {}

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
        const Index some = min(tokens, kChunk), rows = min(pieces_.widest(), kGradientTiles * kTileRows);
        workspace_size_ = max(packed_gradients<T>(rows, some) + packed_sources<T>(some), max_source());
        workspace_size_ = round_up(max(workspace_size_, 8 * kTileRows * pitch(call_.I)), 16);
        workspaces_ = Buffer<T>(threads * workspace_size_);
        if (g_.grad_tokens && multiplies_bf16(call_)) {
            rounded_size_ = round_up(bf16_workspace<T>(input_gradient_rows(), p_.product_gradient_pitch), 16);
            rounded_ = Buffer<T>(threads * rounded_size_);
        }
        max_tokens_ = tokens;
        pointers_ = Buffer<const T*>(threads * pieces_.factors() * max_tokens_);
        if (call_.tokens.half) row_buffers_ = Buffer<T>(2 * threads * max_tokens_ * max_row());
    }

    void pack_matrices(Index thread, Index count) {
        if (g_.grad_tokens)
            divide(input_back_, false, thread, count,
                   [&](Index a, Index b) { pack_transposed(input_back_, call_.input.weight, a, b); });
    }

    // Adds the gradients of one chunk; threads share the rows of the gradients, or the groups.
    void add(Index thread, Index count, Index start, Index end, bool first) {
        const Index tokens = batch_.offset(end) - batch_.offset(start), G = g_.groups;
        const T** pointers = pointers_.data() + thread * pieces_.factors() * max_tokens_;
        T* const workspace = workspaces_.data() + thread * workspace_size_;
        point_at_all_sources(start, end, tokens, pointers, thread);
        if (G == 1) weights({0, pointers, tokens, first, workspace}, thread, count);
        for (Index g = G * thread / count; G > 1 && g < G * (thread + 1) / count; ++g)
            weights({g, pointers, tokens / G, first, workspace}, 0, 1);
        if (g_.grad_tokens) input_gradients(thread, count, start, end, pointers, workspace);
    }

private:
    // Tokens of a group, with what they are multiplied by.
    struct Tokens {
        Index group;
        const T** sources;  // of all groups, factor by factor
        Index count;
        bool first;
        T* workspace;
    };

    // The widest row of the caller's arrays that is read.
    Index max_row() const { return max(call_.I, p_.states[0]); }

    Index max_source() const {
        Index most = call_.I;
        for (const Product& q : p_.products) most = max(most, q.source);
        return most;
    }

    // The position of token i where the tokens of a group stand together.
    Index grouped_position(Index i, Index tokens) const {
        return g_.groups == 1 ? i : i % g_.groups * (tokens / g_.groups) + i / g_.groups;
    }

    // Points at the sources of each factor, group by group, token by token.
    void point_at_all_sources(Index start, Index end, Index tokens, const T** pointers, Index thread) {
        T* const rows = row_buffers_.part(2 * thread * max_tokens_ * max_row());
        T* const output_rows = row_buffers_.part((2 * thread + 1) * max_tokens_ * max_row());
        Index i = 0;
        for (Index t = start; g_.grad_weights[0] && t < end; ++t)
            for (Index n = 0; n < call_.size(t); ++n, ++i)
                pointers[grouped_position(i, tokens)] =
                    native_row(call_.tokens, batch_.row(t, n) * call_.I, call_.I, rows, i, max_row());
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            pointers += max_tokens_;
            if (g_.grad_weights[k + 1]) point_at_sources(k, start, end, tokens, pointers, output_rows);
        }
    }

    void point_at_sources(std::size_t k, Index start, Index end, Index tokens, const T** pointers,
                          T* row_buffer) {
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

    // Share number `thread` of `count` of the work of all tiles.
    void weights(const Tokens& tokens, Index thread, Index count) {
        if (tokens.first && thread == 0) clear_unused(tokens.group);
        Index from = pieces_.work() * thread / count, to = pieces_.work() * (thread + 1) / count;
        for (Index k = 0; k < pieces_.count(); ++k) {
            const Piece& piece = pieces_[k];
            const Index last = piece.tile(to);
            for (Index tile = piece.tile(from), next; tile < last; tile = next) {
                const Index block = tile / piece.block_tiles, before = block * piece.block_tiles;
                next = min(min(last, before + piece.block_tiles), tile + kGradientTiles);
                const Index m0 = (tile - before) * kTileRows;
                const Index m1 = min(piece.block_width, (next - before) * kTileRows);
                rows_of_block(piece, block, m0, m1, tokens);
            }
            from -= piece.tiles() * piece.work;
            to -= piece.tiles() * piece.work;
        }
    }

    // Adds rows of D to sums.
    static void add_rows(const T* D, Index ld, Index count, Index tokens, T* sums, bool first) {
        if (first) clear(sums, count);
        for (Index i = 0; i < tokens; ++i)
            for (Index m = 0; m < count; ++m) sums[m] += D[i * ld + m];
    }

    // Gradients of parts that do not exist.
    void clear_unused(Index group) {
        for (Index f = 0; f < pieces_.factors(); ++f) {
            const Factor from = pieces_.factor(f);
            for (std::size_t part = 0; part < from.parts.size(); ++part) {
                if (from.parts[part] >= 0) continue;
                const Use use{f, static_cast<Index>(part)};
                const Storage<T> rows = pieces_.weight_rows(use, group);
                if (rows.native) clear(rows.native, from.width * from.K);
                if (rows.half) clear(rows.half, from.width * from.K);
                if (T* const sums = pieces_.bias_rows(use, group)) clear(sums, from.width);
            }
        }
    }

    // Rows [m0, m1) of a block, of all weights and biases of a piece.
    void rows_of_block(const Piece& piece, Index block, Index m0, Index m1, const Tokens& tokens) {
        const Index row = block * piece.block_width + m0, rows = m1 - m0, ld = ld_ * g_.groups;
        const T* const D = product_gradients_ + tokens.group * ld_ + piece.column + row;
        const T* bias = nullptr;
        for (Index k = piece.first_use; k < piece.last_use; ++k) {
            T* const sums = pieces_.bias_rows(pieces_.use(k), tokens.group);
            if (!sums) continue;
            if (bias) copy(sums + row, bias + row, rows);
            else add_rows(D, ld, rows, tokens.count, sums + row, tokens.first);
            bias = sums;
        }
        for (Index i = 0; i < max<Index>(tokens.count, 1); i += kChunk) {
            const Index some = min(kChunk, tokens.count - i);
            add_products(piece, block, {D + i * ld, ld, row, rows}, tokens, i, some);
        }
    }

    // Columns of gradients of products, for rows of weights.
    struct Columns {
        const T* D;
        Index ld, row, rows;
    };

    // Adds the products with `some` tokens from token i on.
    void add_products(const Piece& piece, Index block, const Columns& columns, const Tokens& tokens, Index i,
                      Index some) {
        const T* block_sources[kChunk];
        bool is_packed = false;
        for (Index k = piece.first_use; k < piece.last_use; ++k) {
            const Use use = pieces_.use(k);
            const Index K = pieces_.factor(use.factor).K;
            const Storage<T> weight = pieces_.weight_rows(use, tokens.group);
            if (!weight) continue;
            const T* const* S = tokens.sources + use.factor * max_tokens_ + tokens.group * tokens.count + i;
            for (Index token = 0; block > 0 && token < some; ++token)
                block_sources[token] = S[token] + block * K;
            if (block > 0) S = block_sources;
            const Storage<T> rows = offset_by(weight, columns.row * K);
            const bool first = tokens.first && i == 0;
            if (some <= kFewTokens) {
                add_few(columns, S, K, some, rows, first, tokens.workspace);
                continue;
            }
            if (!is_packed) pack(columns, some, tokens.workspace);
            is_packed = true;
            add_packed(columns.rows, S, K, some, rows.native, first, tokens.workspace);
        }
    }

    void add_few(const Columns& c, const T* const* S, Index K, Index tokens, const Storage<T>& rows,
                 bool first, T* row) {
        if (rows.native) weight_gradient_of_few(c.D, c.ld, c.rows, S, K, tokens, rows.native, first);
        for (Index m = 0; rows.half && m < c.rows; ++m) {
            weight_gradient_of_few(c.D + m, c.ld, 1, S, K, tokens, row, true);
            write(rows, m * K, row, K);
        }
    }

    void pack(const Columns& c, Index tokens, T* to) const {
        if constexpr (kMultipliesBf16<T>)
            if (multiplies_bf16(call_))
                return pack_gradient_pairs(c.D, c.ld, c.rows, tokens, reinterpret_cast<Bf16Pair*>(to));
        pack_gradients(c.D, c.ld, c.rows, tokens, to);
    }

    // `packed` has the gradients, and room for sources behind them.
    void add_packed(Index rows, const T* const* S, Index K, Index tokens, T* C, bool first, T* packed) const {
        if constexpr (kMultipliesBf16<T>)
            if (multiplies_bf16(call_)) {
                const Bf16Pair* const A = reinterpret_cast<Bf16Pair*>(packed);
                Bf16Pair* const B =
                    reinterpret_cast<Bf16Pair*>(packed) + divide_up(tokens, 2) * gradient_pairs_pitch(rows);
                return weight_gradient_bf16(A, rows, S, K, tokens, C, first, B);
            }
        weight_gradient(packed, rows, S, K, tokens, C, first, packed + packed_gradients<T>(rows, tokens));
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
    GradientPieces<T> pieces_;
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
