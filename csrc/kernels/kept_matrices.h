// Forward sweeps without gradient that keep their packed weights from call to call.
#pragma once

#include "kernels/digest.h"
#include "kernels/forward.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Beyond this many tokens packing costs less than a hundredth of the call.
constexpr Index kMaxTokensToKeep = 4096;

// Smaller weights are packed as fast as they are looked up.
constexpr Index kMinBytesToKeep = 32 * 1024;

// Weights are read and copied by several threads from this many bytes.
constexpr Index kMinBytesForThreads = Index(1) << 20;

template <class T>
class KeptMatrixOf final : public KeptMatrix {
public:
    KeptMatrixOf(const Digest& digest, const PackedForm& form, Matrix<T>&& matrix, Index bytes,
                 const int* accumulators, Index parts)
        : KeptMatrix(digest, form, bytes),
          matrix_(static_cast<Matrix<T>&&>(matrix)),
          accumulators_(accumulators ? parts : 0) {
        copy(accumulators_.data(), accumulators, accumulators_.count());
        matrix_.accumulators = accumulators ? accumulators_.data() : nullptr;
    }
    const Matrix<T>& matrix() const { return matrix_; }

private:
    Matrix<T> matrix_;
    Buffer<int> accumulators_;
};

// The packed matrices of one call. They are looked up by the digests of the weights, which the constructor
// reads: however a number was changed, what was packed before the change is not found.
template <class T>
class KeptMatrices final : public PackedMatrices<T> {
public:
    static bool serves(const Call<T>& call) {
        if (!call.cache || call.saved || call.total <= kFewRows || call.total > kMaxTokensToKeep)
            return false;
        const double numbers = Batch<T>(call, 1).multiplications();  // of a token: one for each weight
        return numbers * sizeof(T) >= kMinBytesToKeep && call.cache->due();
    }

    KeptMatrices(const Call<T>& call, Index limit) : call_(call), cache_(*call.cache) {
        const Program& p = *call.program;
        add({call.input.weight, p.x_parts, p.x_width, call.I, p.x_diagonal_blocks, nullptr});
        for (std::size_t k = 0; k < p.products.size(); ++k) {
            const Product& q = p.products[k];
            add({call.products[k].weight, q.parts, q.width, q.source, q.diagonal_blocks,
                 p.product_accumulators[k].data()});
        }
        const bool several = bytes_ >= kMinBytesForThreads && limit > 1;
        const Index threads = several ? Batch<T>(call, limit).threads(p.forward_schedule) : 1;
        threads_ = min(threads, trusted_threads());  // a worker that comes late would hold up the call
        find_digests();
        unchanged_ = cache_.unchanged(digests_.data(), weights_.size());
    }
    KeptMatrices(const KeptMatrices&) = delete;
    KeptMatrices& operator=(const KeptMatrices&) = delete;
    ~KeptMatrices() {
        for (KeptMatrixOf<T>* matrix : used_) matrix->release();
    }

    // Whether the last call had the same weights. Only then packed matrices are kept, so that weights
    // that change from call to call cost no memory.
    bool unchanged() const { return unchanged_; }

    const Matrix<T>& matrix(std::size_t number, Index vectors, Index shares) override {
        const PackedForm form{UNROLLED_NAME, sizeof(T), multiplies_bf16(call_), vectors, shares};
        used_.reserve(used_.size() + 1);
        KeptMatrix* const found = cache_.find(number, digests_[static_cast<Index>(number)], form);
        used_.push_back(found ? static_cast<KeptMatrixOf<T>*>(found) : pack(number, form));
        return used_.back()->matrix();
    }

private:
    struct Weight {
        Storage<const T> numbers;
        Index parts, width, k, blocks;
        const int* accumulators;
        const void* data() const {
            return numbers.half ? static_cast<const void*>(numbers.half) : numbers.native;
        }
        Index bytes() const {
            const std::size_t size = numbers.half ? sizeof(Half) : sizeof(T);
            return parts * width * (k / blocks) * static_cast<Index>(size);
        }
    };

    void add(const Weight& weight) {
        weights_.push_back(weight);
        bytes_ += weight.bytes();
    }

    void find_digests() {
        const Index count = static_cast<Index>(weights_.size());
        digests_ = Buffer<Digest>(count);
        Buffer<Digest> shares(threads_ * count);
        for (Index k = 0; k < shares.count(); ++k) shares[k] = {};
        run_threads(threads_, [&](Index thread, Index team) {
            for (Index k = 0; k < count; ++k)
                shares[thread * count + k] =
                    digest_share(weights_[k].data(), weights_[k].bytes(), thread, team);
        });
        for (Index k = 0; k < count; ++k) {
            Digest digest;
            for (Index thread = 0; thread < threads_; ++thread)
                UNROLLED_BUILD::add(digest, shares[thread * count + k]);
            digests_[k] = with_use(weights_[k], digest);
        }
    }

    // What the matrix is used for belongs to its digest: its shape, and where its products are added.
    static Digest with_use(const Weight& w, Digest digest) {
        const auto number = [](Index x) { return static_cast<std::uint64_t>(x); };
        mix_numbers(digest, number(w.parts), number(w.width));
        mix_numbers(digest, number(w.k), number(2 * w.blocks + (w.numbers.half ? 1 : 0)));
        for (Index part = 0; w.accumulators && part < w.parts; ++part)
            mix_numbers(digest, number(part + 1), number(w.accumulators[part]));
        return digest;
    }

    // Another thread may write to the weights meanwhile. The digest is therefore that of a copy, which is
    // what is packed.
    KeptMatrixOf<T>* pack(std::size_t number, const PackedForm& form) {
        const LongLivedMemory lasting;
        Weight w = weights_[number];
        Buffer<char> copied(w.bytes());
        Buffer<Digest> shares(threads_);
        for (Index k = 0; k < threads_; ++k) shares[k] = {};
        const Index chunks = divide_up(w.bytes(), kDigestChunk);
        run_threads(threads_, [&](Index thread, Index team) {
            const Index from = chunks * thread / team * kDigestChunk;
            const Index to = min(w.bytes(), chunks * (thread + 1) / team * kDigestChunk);
            copy(copied.data() + from, static_cast<const char*>(w.data()) + from, to - from);
            shares[thread] = digest_share(copied.data(), w.bytes(), thread, team);
        });
        Digest digest;
        for (Index k = 0; k < threads_; ++k) UNROLLED_BUILD::add(digest, shares[k]);
        digest = with_use(w, digest);
        if (w.numbers.half) w.numbers.half = reinterpret_cast<Half*>(copied.data());
        else w.numbers.native = reinterpret_cast<const T*>(copied.data());
        Matrix<T> m = make_matrix(call_, w.numbers, w.parts, w.width, w.k, w.blocks, call_.N);
        m.vectors = form.vectors;
        run_threads(threads_, [&](Index thread, Index team) {
            const auto work = [&](Index a, Index b) { UNROLLED_BUILD::pack(m, w.numbers, a, b); };
            if (form.shares == 1) return divide(m, false, thread, team, work);
            for (Index k = thread; k < form.shares; k += team) divide(m, true, k, form.shares, work);
        });
        const Index bytes = m.packed.count() * static_cast<Index>(sizeof(T)) +
                            m.bf16.count() * static_cast<Index>(sizeof(Bf16Pair));
        auto* const kept =
            new KeptMatrixOf<T>(digest, form, static_cast<Matrix<T>&&>(m), bytes, w.accumulators, w.parts);
        cache_.keep(number, *kept);
        return kept;
    }

    const Call<T>& call_;
    WeightCache& cache_;
    std::vector<Weight> weights_;
    Buffer<Digest> digests_;  // by number of the matrix
    Index bytes_ = 0, threads_ = 1;
    bool unchanged_ = false;
    std::vector<KeptMatrixOf<T>*> used_;
};

// A forward sweep, with packed weights of earlier calls where they have not changed.
template <class T>
class KeepingForward {
public:
    KeepingForward(const Call<T>& call, Index limit) : call_(call), limit_(limit) {}

    void run() {
        if (call_.cache && call_.saved) call_.cache->clear();
        if (KeptMatrices<T>::serves(call_)) {
            KeptMatrices<T> kept(call_, limit_);
            if (kept.unchanged()) return Forward<T>(call_, limit_, &kept).run();
        }
        Forward<T>(call_, limit_).run();
    }

private:
    const Call<T>& call_;
    Index limit_;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
