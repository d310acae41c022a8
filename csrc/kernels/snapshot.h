// Layers whose weights were packed once: whole sequences and single steps of them, to the same bits.
#pragma once

#include "dispatch/snapshot.h"
#include "kernels/forward.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// One thread at a time; what it guards is short or rare. A lock that was copied by a fork while a thread
// of the parent held it has no owner here: it says in which process it was taken, and is free in others.
class Lock {
public:
    explicit Lock(int& process) : process_(process) {
        const int here = 1 + forks();
        int before = 0;
        while (!__atomic_compare_exchange_n(&process_, &before, here, false, __ATOMIC_ACQUIRE,
                                            __ATOMIC_RELAXED))
            if (before == here) {
                sched_yield();
                before = 0;
            }
    }
    ~Lock() { __atomic_store_n(&process_, 0, __ATOMIC_RELEASE); }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

private:
    int& process_;  // 0: free
};

// A scale that is subnormal is none: steps flush it to zero.
constexpr float kLeast = 1.17549435e-38f;

inline Tiny tiny_of(float x) { return static_cast<Tiny>(x < 0 ? x - 0.5f : x + 0.5f); }

// The largest number of a row comes to 127; a row of zeros has scale 0, one with a number that is not
// finite has NaN, and so have all its products.
inline float scale_of(const float* row, Index count) {
    float largest = 0;
    for (Index k = 0; k < count; ++k) {
        if (!(row[k] - row[k] == 0)) return __builtin_nanf("");
        largest = most(largest, row[k] < 0 ? -row[k] : row[k]);
    }
    return largest / 127;
}

// W [parts * width, k] packed in panels of so many vectors, for threads that share the units.
inline void pack_shares(Matrix<float>& m, const float* W, Index shares) {
    for (Index me = 0; me < shares; ++me) {
        const Share own = share_units<float>(m.shape.width, me, shares);
        pack_rows(m, W, own.first * m.shape.parts, own.last * m.shape.parts);
    }
}

// A row's scale for each lane.
inline void find_scales(Matrix<float>& m, const float* W) {
    const Index parts = m.shape.parts, K = m.shape.k, L = lanes<float>;
    m.scales = zeros<float>(m.shape.vectors() * L);
    for (Index v = 0; v < m.shape.vectors(); ++v)
        for (Index l = 0; l < L && v / parts * L + l < m.shape.width; ++l)
            m.scales[v * L + l] =
                scale_of(W + (v % parts * m.shape.width + v / parts * L + l) * K, K);
}

// What is packed, two k side by side: made(a number, its lane) of each, and of zeros behind the last.
template <class Two, class F>
void pair_up(const Matrix<float>& m, Index shares, Buffer<Two>& to, F made) {
    const Index parts = m.shape.parts, K = m.shape.k, L = lanes<float>, pairs = divide_up(K, 2);
    to = Buffer<Two>(m.shape.vectors() * L * pairs);
    for (Index me = 0; me < shares; ++me) {
        const Share own = share_units<float>(m.shape.width, me, shares);
        const Index last = own.last * parts;
        for (Index from = own.first * parts, some; from < last; from += some) {
            some = least(m.vectors, last - from);
            const float* const packed = m.packed.data() + from * L * K;
            for (Index k = 0; k < K; k += 2)
                for (Index i = 0; i < some * L; ++i) {
                    const float odd = k + 1 < K ? packed[(k + 1) * some * L + i] : 0;
                    to[from * L * pairs + k / 2 * some * L + i] = {
                        made(packed[k * some * L + i], from * L + i), made(odd, from * L + i)};
                }
        }
    }
}

// A weight [parts * width, k] in the forms that calls want, each made when it is first asked for.
class Versions {
public:
    Versions(const float* W, Index parts, Index width, Index K, const int* onto, Kept kept)
        : W_(W), shape_{parts, width, K}, onto_(onto), kept_(kept) {}
    Versions(const Versions&) = delete;
    Versions& operator=(const Versions&) = delete;
    ~Versions() {
        while (Version* const one = first_) {
            first_ = one->next;
            delete one;
        }
    }

    // Only who packs waits: a step that finds what it wants meets no lock.
    const Matrix<float>& of(Index vectors, Index shares) {
        if (const Version* const found = find(vectors, shares)) return found->matrix;
        const Lasting lasting;
        const Lock lock(packing_);
        if (const Version* const found = find(vectors, shares)) return found->matrix;
        Version* const made = new Version{{}, shares, first_};
        try {
            pack(made->matrix, vectors, shares);
        } catch (...) {
            delete made;
            throw;
        }
        __atomic_store_n(&first_, made, __ATOMIC_RELEASE);
        return made->matrix;
    }

private:
    struct Version {
        Matrix<float> matrix;
        Index shares;
        Version* next;
    };

    const Version* find(Index vectors, Index shares) const {
        const Version* one = __atomic_load_n(&first_, __ATOMIC_ACQUIRE);
        while (one && (one->matrix.vectors != vectors || one->shares != shares)) one = one->next;
        return one;
    }

    void pack(Matrix<float>& m, Index vectors, Index shares) const {
        m.shape = shape_;
        m.segments = Buffer<Segment>(1);
        m.segments[0] = {0, shape_.k, 0, 0};
        m.vectors = vectors;
        m.onto = onto_;
        m.packed = Buffer<float>(shape_.vectors() * lanes<float> * shape_.k);
        pack_shares(m, W_, shares);
        if (kept_ == Kept::own) return;
        if (kept_ == Kept::int8) {
            find_scales(m, W_);
            pair_up(m, shares, m.tiny, [&m](float x, Index lane) {
                return m.scales[lane] >= kLeast ? tiny_of(x / m.scales[lane]) : Tiny(0);
            });
        } else {
            pair_up(m, shares, m.brief, [](float x, Index) { return half_of(x); });
        }
        m.packed = Buffer<float>();
    }

    const float* W_;
    Shape<float> shape_;
    const int* onto_;
    Kept kept_;
    int packing_ = 0;  // see Lock
    Version* first_ = nullptr;
};

class Stepping final : public Steps {
public:
    Stepping(const Parameters& parameters, Packs<float>& packs, Index N, Index threads)
        : Steps(parameters, N, threads), forward_(call_, threads, &packs, 1) {}

    void step(const float* tokens, float* output) override {
        call_.tokens.own = tokens;
        call_.output.own = output;
        forward_.advance(t_);
        t_ = t_ == 2 ? 1 : t_ + 1;  // what counts is whether it is the first, and odd or even
    }

    float* state(std::size_t k, Index n) override { return forward_.before(k, t_).row(n); }

private:
    Forward<float> forward_;
    Index t_ = 0;
};

class Packed final : public Snapshot, public Packs<float> {
public:
    Packed(const Parameters& parameters, Kept kept) : Snapshot(parameters) {
        const Program& p = *given_.program;
        add(given_.input, p.x_parts, p.x_width, given_.I, nullptr, kept);
        for (std::size_t k = 0; k < p.products.size(); ++k) {
            const Product& q = p.products[k];
            add(given_.products[k], q.parts, q.width, q.source, p.onto[k].data(), kept);
        }
    }
    ~Packed() override {
        for (Versions* one : versions_) delete one;
    }

    const Matrix<float>& matrix(std::size_t number, Index vectors, Index shares) override {
        return versions_[number]->of(vectors, shares);
    }

    Steps* steps(Index N, Index threads) override {
        const Lasting lasting;
        return new Stepping(given_, *this, N, threads);
    }

protected:
    void sweep(const Call<float>& call) override { Forward<float>(call, call.threads, this).run(); }

private:
    void add(const Weights<float>& given, Index parts, Index width, Index K, const int* onto,
             Kept kept) {
        versions_.push_back(new Versions(given.weight.own, parts, width, K, onto, kept));
    }

    std::vector<Versions*> versions_;
};

class Line final : public Affine {
public:
    Line(const Weights<float>& given, Index width, Index source, Kept kept)
        : bias_(zeros<float>(pitch(width))), width_(width), source_(source),
          versions_(given.weight.own, 1, width, source, nullptr, kept) {
        copy(bias_.data(), given.bias, given.bias ? width : 0);
    }

    // A few rows at once: more results would take memory.
    void apply(const float* rows, Index count, float* to) override {
        const Flush flush;
        const Matrix<float>& m = versions_.of(vectors_for(count), 1);
        const Share share = share_units<float>(width_, 0, 1);
        const Index ld = pitch(width_);
        float results[kRoom];
        const Index most_rows = least<Index>(kTall, kRoom / ld);
        if (most_rows < 1) return apply_wide(m, rows, count, results, to);
        for (Index r = 0; r < count; r += most_rows) {
            const Index some = least(most_rows, count - r);
            run(m, share, rows + r * source_, some, results, to + r * width_);
        }
    }

private:
    static constexpr Index kRoom = 2048;

    // Some panels of a row at once.
    void apply_wide(const Matrix<float>& m, const float* rows, Index count, float* results,
                    float* to) {
        const Index all = share_units<float>(width_, 0, 1).last;
        const Index turn = kRoom / lanes<float> / m.vectors * m.vectors;
        for (Index r = 0; r < count; ++r, rows += source_, to += width_)
            for (Index v = 0; v < all; v += turn) {
                const Index from = v * lanes<float>;
                multiply(&rows, 1, m, Share{v, least(all, v + turn)},
                         Target<float>{nullptr, 0, results - from, 0, bias_.data()});
                copy(to + from, results, least(width_ - from, turn * lanes<float>));
            }
    }

    void run(const Matrix<float>& m, Share share, const float* rows, Index count, float* results,
             float* to) {
        const float* pointers[kTall];
        const Index ld = pitch(width_);
        for (Index r = 0; r < count; ++r) pointers[r] = rows + r * source_;
        multiply(pointers, count, m, share, Target<float>{nullptr, 0, results, ld, bias_.data()});
        for (Index r = 0; r < count; ++r) copy(to + r * width_, results + r * ld, width_);
    }

    Buffer<float> bias_;
    Index width_, source_;
    Versions versions_;
};

inline Snapshot* make_snapshot(const Parameters& parameters, Kept kept) {
    return new Packed(parameters, kept);
}

inline Affine* make_affine(const Weights<float>& weights, Index width, Index source, Kept kept) {
    const Lasting lasting;
    return new Line(weights, width, source, kept);
}

template <class F>
void each_vector(float* row, Index width, F made) {
    constexpr Index L = lanes<float>;
    for (Index k = 0; k < width; k += L)
        store_part(row + k, made(load_part(row + k, width - k)), width - k);
}

// The sum is that of single numbers in their order, whatever the width of vectors.
inline void softmax(float* row, Index width, bool log) {
    float largest = row[0], total = 0;
    for (Index k = 1; k < width; ++k) largest = most(largest, row[k]);
    if (log) {
        for (Index k = 0; k < width; ++k) row[k] -= largest;
        for (Index k = 0; k < width; ++k) total += __builtin_expf(row[k]);
        const float shift = __builtin_logf(total);
        for (Index k = 0; k < width; ++k) row[k] -= shift;
        return;
    }
    each_vector(row, width, [&](Vec<float> x) { return exp_v<float>(x - largest); });
    for (Index k = 0; k < width; ++k) total += row[k];
    for (Index k = 0; k < width; ++k) row[k] /= total;
}

inline void activate(Activation kind, float* rows, Index count, Index width) {
    const Flush flush;
    for (Index r = 0; r < count; ++r) {
        float* const row = rows + r * width;
        switch (kind) {
        case Activation::softmax: softmax(row, width, false); break;
        case Activation::log_softmax: softmax(row, width, true); break;
        case Activation::relu:
            for (Index k = 0; k < width; ++k) row[k] = row[k] < 0 ? 0 : row[k];
            break;
        case Activation::tanh:
            each_vector(row, width, [](Vec<float> x) { return tanh_v<float>(x); });
            break;
        case Activation::sigmoid:
            each_vector(row, width, [](Vec<float> x) { return sigmoid_v<float>(x); });
            break;
        }
    }
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
