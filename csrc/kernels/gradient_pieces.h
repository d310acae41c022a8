// Which weights and biases have a gradient, in pieces whose gradients of products are the same.
#pragma once

#include "kernels/batch.h"
#include "kernels/weight_gradient.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// The column of a gradient of products in a row of product gradients.
inline Index product_gradient_column(const Program& p, int node) {
    for (std::size_t k = 0; k < p.product_gradients.size(); ++k)
        if (p.product_gradients[k] == node) return p.product_gradient_columns[k];
    return -1;
}

// Input and products: the nodes of the gradients of their parts, and their blocks. A weight has rows of K
// numbers.
struct Factor {
    const std::vector<int>& parts;
    Index width, source, blocks;
    Index K = source / blocks;
};

// A part of a product.
struct Use {
    Index factor, part;
};

// Rows of weights that are multiplied by the same gradients, and in tiles of kTileRows.
struct Piece {
    Index column;  // of the gradients, in a row of them
    Index width, blocks;
    Index first_use, last_use;
    Index work = 0;  // of a tile
    Index block_width = width / blocks, block_tiles = divide_up(block_width, kTileRows);

    Index tiles() const { return blocks * block_tiles; }
    // The first of the tiles whose work begins at `from` or behind it.
    Index tile(Index from) const { return min(tiles(), divide_up(max<Index>(0, from), work)); }
};

template <class T>
Storage<T> offset_by(const Storage<T>& from, Index numbers) {
    return {from.native ? from.native + numbers : nullptr, from.half ? from.half + numbers : nullptr};
}

template <class T>
class GradientPieces {
public:
    explicit GradientPieces(const Gradients<T>& g) : g_(g), p_(*g.call->program) { plan(); }

    Index count() const { return count_; }
    const Piece& operator[](Index k) const { return pieces_[k]; }
    const Use& use(Index k) const { return uses_[k]; }
    Index work() const { return work_; }      // of all tiles
    Index widest() const { return widest_; }  // of the pieces

    Index factors() const { return static_cast<Index>(p_.products.size()) + 1; }

    Factor factor(Index f) const {
        if (f == 0) return {p_.grad_x, p_.x_width, g_.call->I, p_.x_diagonal_blocks};
        const Product& q = p_.products[f - 1];
        return {p_.grad_products[f - 1], q.width, q.source, q.diagonal_blocks};
    }

    // The rows of a part in a group's gradient of a weight, and of a bias.
    Storage<T> weight_rows(const Use& use, Index group) const {
        const Factor f = factor(use.factor);
        const Index part = group * static_cast<Index>(f.parts.size()) + use.part;
        return offset_by(g_.grad_weights[use.factor], part * f.width * f.K);
    }
    T* bias_rows(const Use& use, Index group) const {
        const Factor f = factor(use.factor);
        const Index part = group * static_cast<Index>(f.parts.size()) + use.part;
        return g_.grad_biases[use.factor] ? g_.grad_biases[use.factor] + part * f.width : nullptr;
    }

private:
    void plan() {
        Index parts = 0, uses = 0;
        for (Index f = 0; f < factors(); ++f) parts += static_cast<Index>(factor(f).parts.size());
        uses_ = Buffer<Use>(parts);
        pieces_ = Buffer<Piece>(parts);
        for (Index f = 0; f < factors(); ++f) {
            const Factor from = factor(f);
            for (std::size_t part = 0; part < from.parts.size(); ++part) {
                if (!has_gradient(f) || from.parts[part] < 0) continue;
                const Index column = product_gradient_column(p_, from.parts[part]);
                if (is_planned(from, column)) continue;
                Piece piece{column, from.width, from.blocks, uses, uses};
                for (Index g = f; g < factors(); ++g) uses = add_uses(piece, g, uses);
                piece.last_use = uses;
                work_ += piece.tiles() * piece.work;
                widest_ = max(widest_, piece.block_width);
                pieces_[count_++] = piece;
            }
        }
    }

    static bool matches(const Piece& piece, const Factor& factor, Index column) {
        return piece.column == column && piece.width == factor.width && piece.blocks == factor.blocks;
    }

    bool is_planned(const Factor& factor, Index column) const {
        for (Index k = 0; k < count_; ++k)
            if (matches(pieces_[k], factor, column)) return true;
        return false;
    }

    // Adds the parts of a factor that belong to a piece; returns the number of uses so far.
    Index add_uses(Piece& piece, Index f, Index uses) {
        const Factor from = factor(f);
        for (std::size_t part = 0; part < from.parts.size(); ++part) {
            if (!has_gradient(f) || from.parts[part] < 0) continue;
            if (!matches(piece, from, product_gradient_column(p_, from.parts[part]))) continue;
            uses_[uses++] = {f, static_cast<Index>(part)};
            piece.work += max<Index>(1, from.K);
        }
        return uses;
    }

    bool has_gradient(Index f) const { return g_.grad_weights[f] || g_.grad_biases[f]; }

    const Gradients<T>& g_;
    const Program& p_;
    Buffer<Use> uses_;      // piece by piece
    Buffer<Piece> pieces_;  // from the first product on
    Index count_ = 0, work_ = 0, widest_ = 0;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
