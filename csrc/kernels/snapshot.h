// Layers with packed weights: whole sequences and single steps, with equal bits.
#pragma once

#include "dispatch/snapshot.h"
#include "kernels/forward.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// A subnormal scale counts as zero: steps would flush it.
constexpr float kMinScale = 1.17549435e-38f;

inline Int8 to_int8(float x) { return static_cast<Int8>(x < 0 ? x - 0.5f : x + 0.5f); }

// The largest number of a row is quantized to 127. A row of zeros has scale 0; one with a number that is
// not finite has NaN, and so have its products.
inline float scale_of(const float* row, Index count) {
    float largest = 0;
    for (Index k = 0; k < count; ++k) {
        if (!(row[k] - row[k] == 0)) return __builtin_nanf("");
        largest = max(largest, row[k] < 0 ? -row[k] : row[k]);
    }
    return largest / 127;
}

// Packs W [parts * width, k] for threads that share the units.
inline void pack_shares(Matrix<float>& m, const float* W, Index shares) {
    for (Index thread = 0; thread < shares; ++thread) {
        const GroupRange own = groups_of_thread<float>(m.shape.width, thread, shares);
        pack_rows(m, W, own.first * m.shape.parts, own.last * m.shape.parts);
    }
}

// The scale of a row for each lane.
inline void find_scales(Matrix<float>& m, const float* W) {
    const Index parts = m.shape.parts, K = m.shape.block_k, L = lanes<float>;
    m.scales = zeros<float>(m.shape.vectors() * L);
    for (Index v = 0; v < m.shape.vectors(); ++v)
        for (Index l = 0; l < L && v / parts * L + l < m.shape.width; ++l)
            m.scales[v * L + l] = scale_of(W + (v % parts * m.shape.width + v / parts * L + l) * K, K);
}

// Packs two k side by side: convert(number, lane) of each, and of zeros behind the last.
template <class Two, class F>
void pack_pairs(const Matrix<float>& m, Index shares, Buffer<Two>& to, F convert) {
    const Index parts = m.shape.parts, K = m.shape.k, L = lanes<float>, pairs = divide_up(K, 2);
    to = Buffer<Two>(m.shape.vectors() * L * pairs);
    for (Index thread = 0; thread < shares; ++thread) {
        const GroupRange own = groups_of_thread<float>(m.shape.width, thread, shares);
        const Index last = own.last * parts;
        for (Index from = own.first * parts, some; from < last; from += some) {
            some = m.panel(from, last);
            const float* const packed = m.packed.data() + from * L * K;
            for (Index k = 0; k < K; k += 2)
                for (Index i = 0; i < some * L; ++i) {
                    const float odd = k + 1 < K ? packed[(k + 1) * some * L + i] : 0;
                    to[from * L * pairs + k / 2 * some * L + i] = {
                        convert(packed[k * some * L + i], from * L + i), convert(odd, from * L + i)};
                }
        }
    }
}

// A weight [parts * width, k / blocks] in the forms that calls need, each packed at the first request.
class Versions {
public:
    Versions(const float* W, Index parts, Index width, Index K, Index blocks, const int* accumulators,
             WeightFormat format)
        : W_(W),
          parts_(parts),
          width_(width),
          K_(K),
          blocks_(blocks),
          accumulators_(accumulators),
          format_(format) {}
    Versions(const Versions&) = delete;
    Versions& operator=(const Versions&) = delete;
    ~Versions() {
        while (Version* const version = first_) {
            first_ = version->next;
            delete version;
        }
    }

    // Only threads that pack wait: a step that finds its form takes no lock.
    const Matrix<float>& of(Index vectors, Index shares) {
        if (const Version* const version = find(vectors, shares)) return version->matrix;
        const LongLivedMemory lasting;
        const ForkSafeLock lock(packing_);
        if (const Version* const version = find(vectors, shares)) return version->matrix;
        Version* const version = new Version{{}, shares, first_};
        try {
            pack(version->matrix, vectors, shares);
        } catch (...) {
            delete version;
            throw;
        }
        __atomic_store_n(&first_, version, __ATOMIC_RELEASE);
        return version->matrix;
    }

private:
    struct Version {
        Matrix<float> matrix;
        Index shares;
        Version* next;
    };

    const Version* find(Index vectors, Index shares) const {
        const Version* version = __atomic_load_n(&first_, __ATOMIC_ACQUIRE);
        while (version && (version->matrix.vectors != vectors || version->shares != shares))
            version = version->next;
        return version;
    }

    void pack(Matrix<float>& m, Index vectors, Index shares) const {
        set_shape(m, parts_, width_, K_, blocks_);
        m.vectors = vectors;
        m.accumulators = accumulators_;
        m.packed = Buffer<float>(m.shape.vectors() * lanes<float> * m.shape.k);
        pack_shares(m, W_, shares);
        if (format_ == WeightFormat::float32) return;
        if (format_ == WeightFormat::int8) {
            find_scales(m, W_);
            pack_pairs(m, shares, m.int8, [&m](float x, Index lane) {
                return m.scales[lane] >= kMinScale ? to_int8(x / m.scales[lane]) : Int8(0);
            });
        } else {
            pack_pairs(m, shares, m.bf16, [](float x, Index) { return rounded_to_bf16(x); });
        }
        m.packed = Buffer<float>();
    }

    const float* W_;
    Index parts_, width_, K_, blocks_;
    const int* accumulators_;
    WeightFormat format_;
    int packing_ = 0;  // see ForkSafeLock
    Version* first_ = nullptr;
};

class PackedSteps final : public Steps {
public:
    PackedSteps(const Parameters& parameters, PackedMatrices<float>& packs, Index N, Index threads)
        : Steps(parameters, N, threads), forward_(call_, threads, &packs, 1) {}

    void step(const float* tokens, float* output) override {
        call_.tokens.native = tokens;
        call_.output.native = output;
        forward_.advance(t_);
        t_ = t_ == 2 ? 1 : t_ + 1;  // it matters whether t is 0, odd or even
    }

    float* state(std::size_t k, Index n) override { return forward_.state_before(k, t_).row(n); }

private:
    Forward<float> forward_;
    Index t_ = 0;
};

class PackedLayer final : public Snapshot, public PackedMatrices<float> {
public:
    PackedLayer(const Parameters& parameters, WeightFormat format) : Snapshot(parameters) {
        const Program& p = *parameters_.program;
        add(parameters_.input, p.x_parts, p.x_width, parameters_.I, p.x_diagonal_blocks, nullptr, format);
        for (std::size_t k = 0; k < p.products.size(); ++k) {
            const Product& q = p.products[k];
            add(parameters_.products[k], q.parts, q.width, q.source, q.diagonal_blocks,
                p.product_accumulators[k].data(), format);
        }
    }
    ~PackedLayer() override {
        for (Versions* one : versions_) delete one;
    }

    const Matrix<float>& matrix(std::size_t number, Index vectors, Index shares) override {
        return versions_[number]->of(vectors, shares);
    }

    Steps* steps(Index N, Index threads) override {
        const LongLivedMemory lasting;
        return new PackedSteps(parameters_, *this, N, threads);
    }

protected:
    void sweep(const Call<float>& call) override { Forward<float>(call, call.threads, this).run(); }

private:
    void add(const Weights<float>& parameters, Index parts, Index width, Index K, Index blocks,
             const int* accumulators, WeightFormat format) {
        versions_.push_back(
            new Versions(parameters.weight.native, parts, width, K, blocks, accumulators, format));
    }

    std::vector<Versions*> versions_;
};

class PackedLinear final : public Affine {
public:
    PackedLinear(const Weights<float>& parameters, Index width, Index source, WeightFormat format)
        : bias_(zeros<float>(pitch(width))),
          width_(width),
          source_(source),
          versions_(parameters.weight.native, 1, width, source, 1, nullptr, format) {
        copy(bias_.data(), parameters.bias, parameters.bias ? width : 0);
    }

    // A few rows at once: more results would need allocated memory.
    void apply(const float* rows, Index count, float* to) override {
        const FlushSubnormals flush_subnormals;
        const Matrix<float>& m = versions_.of(vectors_for(count), 1);
        const GroupRange range = groups_of_thread<float>(width_, 0, 1);
        const Index ld = pitch(width_);
        float results[kStackNumbers], rounded[kStackNumbers];
        const Index numbers = kMultipliesBf16<float> && m.bf16.data() ? bf16_workspace<float>(1, source_) : 0;
        Buffer<float> long_row;
        if (numbers > kStackNumbers) long_row = Buffer<float>(numbers);
        float* const workspace = long_row.data() ? long_row.data() : rounded;
        const Index max_rows = min<Index>(kTileRows, kStackNumbers / max(ld, numbers));
        if (max_rows < 1) return apply_wide(m, rows, count, results, workspace, to);
        for (Index r = 0; r < count; r += max_rows) {
            const Index some = min(max_rows, count - r);
            run(m, range, rows + r * source_, some, results, workspace, to + r * width_);
        }
    }

private:
    static constexpr Index kStackNumbers = 2048;

    // A few panels of a row at once.
    void apply_wide(const Matrix<float>& m, const float* rows, Index count, float* results, float* workspace,
                    float* to) {
        const Index all = groups_of_thread<float>(width_, 0, 1).last;
        const Index turn = kStackNumbers / lanes<float> / m.vectors * m.vectors;
        for (Index r = 0; r < count; ++r, rows += source_, to += width_)
            for (Index v = 0; v < all; v += turn) {
                const Index from = v * lanes<float>;
                multiply(&rows, 1, m, GroupRange{v, min(all, v + turn)},
                         Target<float>{nullptr, 0, results - from, 0, bias_.data()}, workspace);
                copy(to + from, results, min(width_ - from, turn * lanes<float>));
            }
    }

    void run(const Matrix<float>& m, GroupRange range, const float* rows, Index count, float* results,
             float* workspace, float* to) {
        const float* pointers[kTileRows];
        const Index ld = pitch(width_);
        for (Index r = 0; r < count; ++r) pointers[r] = rows + r * source_;
        multiply(pointers, count, m, range, Target<float>{nullptr, 0, results, ld, bias_.data()}, workspace);
        for (Index r = 0; r < count; ++r) copy(to + r * width_, results + r * ld, width_);
    }

    Buffer<float> bias_;
    Index width_, source_;
    Versions versions_;
};

inline Snapshot* make_snapshot(const Parameters& parameters, WeightFormat format) {
    return new PackedLayer(parameters, format);
}

inline Affine* make_affine(const Weights<float>& weights, Index width, Index source, WeightFormat format) {
    const LongLivedMemory lasting;
    return new PackedLinear(weights, width, source, format);
}

template <class F>
void map_vectors(float* row, Index width, F convert) {
    constexpr Index L = lanes<float>;
    for (Index k = 0; k < width; k += L)
        store_part(row + k, convert(load_part(row + k, width - k)), width - k);
}

// The sum adds single numbers in their order, whatever the width of vectors.
inline void softmax(float* row, Index width, bool log) {
    float largest = row[0], total = 0;
    for (Index k = 1; k < width; ++k) largest = max(largest, row[k]);
    if (log) {
        for (Index k = 0; k < width; ++k) row[k] -= largest;
        for (Index k = 0; k < width; ++k) total += __builtin_expf(row[k]);
        const float shift = __builtin_logf(total);
        for (Index k = 0; k < width; ++k) row[k] -= shift;
        return;
    }
    map_vectors(row, width, [&](Vec<float> x) { return exp_v<float>(x - largest); });
    for (Index k = 0; k < width; ++k) total += row[k];
    for (Index k = 0; k < width; ++k) row[k] /= total;
}

inline void activate(Activation kind, float* rows, Index count, Index width) {
    const FlushSubnormals flush_subnormals;
    for (Index r = 0; r < count; ++r) {
        float* const row = rows + r * width;
        switch (kind) {
        case Activation::softmax: softmax(row, width, false); break;
        case Activation::log_softmax: softmax(row, width, true); break;
        case Activation::relu:
            for (Index k = 0; k < width; ++k) row[k] = row[k] < 0 ? 0 : row[k];
            break;
        case Activation::tanh: map_vectors(row, width, [](Vec<float> x) { return tanh_v<float>(x); }); break;
        case Activation::sigmoid:
            map_vectors(row, width, [](Vec<float> x) { return sigmoid_v<float>(x); });
            break;
        }
    }
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
