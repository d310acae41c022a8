// The matrices and biases of a forward sweep.
#pragma once

#include "kernels/batch.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Matrices packed before the sweep: that of the input is number 0, those of the products follow.
template <class T>
struct PackedMatrices {
    // In panels of `vectors` vectors, divided among `shares` threads that share the units.
    virtual const Matrix<T>& matrix(std::size_t number, Index vectors, Index shares) = 0;
};

template <class T>
class ForwardMatrices {
public:
    explicit ForwardMatrices(const Call<T>& call) : call_(call), p_(*call.program) {}

    // For products with `rows` rows, and with `input_rows` for the input. Unless `packed` has the matrices,
    // pack() packs them.
    void make(PackedMatrices<T>* packed, Index rows, Index input_rows) {
        packed_ = packed;
        rows_ = rows;
        input_rows_ = input_rows;
        if (!packed_) {
            own_input_ = make_matrix(call_, call_.input.weight, p_.x_parts, p_.x_width, call_.I,
                                     p_.x_diagonal_blocks, input_rows);
            input_ = &own_input_;
        }
        input_bias_ = zeros<T>(p_.x_parts * pitch(p_.x_width));
        own_ = std::vector<Matrix<T>>(packed_ ? 0 : p_.products.size());
        products_ = std::vector<const Matrix<T>*>(p_.products.size());
        biases_ = std::vector<Buffer<T>>(p_.products.size());
        for (std::size_t k = 0; k < p_.products.size(); ++k) make_product(k);
        read_biases();
    }

    // Takes over new parameters of the call, of the same shapes. Nothing is packed.
    void read_parameters() {
        own_input_.unpacked = call_.input.weight;
        for (std::size_t k = 0; k < own_.size(); ++k) own_[k].unpacked = call_.products[k].weight;
        read_biases();
    }

    // Finds the matrices that were packed before.
    void find_packed(Index shares) {
        input_ = &packed_->matrix(0, vectors_for(input_rows_), shares);
        for (std::size_t k = 0; k < products_.size(); ++k)
            products_[k] = &packed_->matrix(k + 1, vectors_for(rows_), shares);
    }

    // Packs the part of thread number `thread` of `count`.
    void pack(bool units, Index thread, Index count) {
        if (!own_input_.dot())
            divide(own_input_, units, thread, count,
                   [&](Index a, Index b) { UNROLLED_BUILD::pack(own_input_, call_.input.weight, a, b); });
        for (std::size_t k = 0; k < own_.size(); ++k)
            if (!own_[k].dot())
                divide(own_[k], units, thread, count, [&](Index a, Index b) {
                    UNROLLED_BUILD::pack(own_[k], call_.products[k].weight, a, b);
                });
    }

    bool packed_before() const { return packed_; }
    const Matrix<T>& input() const { return *input_; }
    const Matrix<T>& product(std::size_t k) const { return *products_[k]; }
    // The numbers of workspace of products with so many rows.
    Index workspace(Index rows) const {
        if (!input_->unpacked.half && !input_->takes_bf16()) return 0;
        Index numbers = call_.I;
        for (const Product& q : p_.products) numbers = max(numbers, q.source);
        return round_up(bf16_workspace<T>(rows, numbers), 16);
    }
    const T* input_bias() const { return input_bias_.data(); }
    const T* bias(std::size_t k) const { return biases_[k].data(); }

private:
    void make_product(std::size_t k) {
        const Product& q = p_.products[k];
        if (!packed_) {
            own_[k] = make_matrix(call_, call_.products[k].weight, q.parts, q.width, q.source,
                                  q.diagonal_blocks, rows_);
            own_[k].accumulators = p_.product_accumulators[k].data();
            products_[k] = &own_[k];
        }
        biases_[k] = zeros<T>(q.parts * pitch(q.width));
    }

    // Padding stays zero.
    void read_biases() {
        copy_padded(input_bias_, call_.input.bias, p_.x_parts, p_.x_width);
        for (std::size_t k = 0; k < p_.products.size(); ++k) {
            const Product& q = p_.products[k];
            copy_padded(biases_[k], call_.products[k].bias, q.parts, q.width);
            // The bias of a product that accumulates in an input block is added there.
            for (int part = 0; part < q.parts; ++part)
                if (const int block = p_.product_accumulators[k][part]; block >= 0)
                    for (Index u = 0; u < q.width; ++u)
                        input_bias_[block * pitch(q.width) + u] += biases_[k][part * pitch(q.width) + u];
        }
    }

    static void copy_padded(Buffer<T>& to, const T* bias, Index parts, Index width) {
        if (!bias) return clear(to.data(), to.count());
        for (Index part = 0; part < parts; ++part)
            copy(to.data() + part * pitch(width), bias + part * width, width);
    }

    const Call<T>& call_;
    const Program& p_;
    PackedMatrices<T>* packed_ = nullptr;
    Index rows_ = 0, input_rows_ = 0;
    Matrix<T> own_input_;  // unless packed before
    std::vector<Matrix<T>> own_;
    const Matrix<T>* input_ = nullptr;
    std::vector<const Matrix<T>*> products_;
    Buffer<T> input_bias_;
    std::vector<Buffer<T>> biases_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
