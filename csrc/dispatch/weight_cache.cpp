#include "dispatch/weight_cache.h"

#include <cstring>
#include <new>

namespace unrolled {
namespace {

bool operator==(const Digest& a, const Digest& b) { return a.low == b.low && a.high == b.high; }

bool operator==(const PackedForm& a, const PackedForm& b) {
    return a.vectors == b.vectors && a.shares == b.shares && a.bytes_per_number == b.bytes_per_number &&
           a.bf16_products == b.bf16_products && std::strcmp(a.build, b.build) == 0;
}

}  // namespace

KeptMatrix::KeptMatrix(const Digest& digest, const PackedForm& form, Index bytes)
    : digest_(digest), form_(form), bytes_(bytes) {}

KeptMatrix::~KeptMatrix() = default;

void KeptMatrix::release() {
    if (__atomic_sub_fetch(&references_, 1, __ATOMIC_ACQ_REL) == 0) delete this;
}

// If a fork interrupted a change, the child forgets what the entries refer to: they may contradict each
// other.
class WeightCache::Lock {
public:
    explicit Lock(WeightCache& cache) : lock_(cache.user_) {
        if (!lock_.interrupted_by_fork()) return;
        new (&cache.entries_) std::vector<Entry>();
    }

private:
    ForkSafeLock lock_;
};

WeightCache::WeightCache() = default;

WeightCache::~WeightCache() { clear(); }

bool WeightCache::due() {
    const Lock lock(*this);
    if (skipped_ == 0) return true;
    --skipped_;
    return false;
}

bool WeightCache::unchanged(const Digest* digests, std::size_t count) {
    const Lock lock(*this);
    const bool first = entries_.empty();
    bool same = !first;
    entries_.resize(count);
    for (std::size_t k = 0; k < count; ++k) {
        if (entries_[k].digest == digests[k]) continue;
        drop(entries_[k]);
        entries_[k].digest = digests[k];
        same = false;
    }
    if (same) skipped_after_change_ = 1;
    if (same || first) return same;
    skipped_ = skipped_after_change_;
    if (skipped_after_change_ < kMaxSkipped) skipped_after_change_ *= 2;
    return false;
}

KeptMatrix* WeightCache::find(std::size_t number, const Digest& digest, const PackedForm& form) {
    const Lock lock(*this);
    if (number >= entries_.size()) return nullptr;
    KeptMatrix** const forms = entries_[number].forms;
    for (std::size_t k = 0; k < kForms; ++k) {
        KeptMatrix* const matrix = forms[k];
        if (!matrix || !(matrix->digest_ == digest) || !(matrix->form_ == form)) continue;
        for (std::size_t other = k; other > 0; --other) forms[other] = forms[other - 1];
        forms[0] = matrix;
        __atomic_add_fetch(&matrix->references_, 1, __ATOMIC_RELAXED);
        ++hits_;
        return matrix;
    }
    return nullptr;
}

void WeightCache::keep(std::size_t number, KeptMatrix& matrix) {
    const Lock lock(*this);
    if (number >= entries_.size()) return;
    Entry& entry = entries_[number];
    if (!(entry.digest == matrix.digest_)) return;
    KeptMatrix* const last = entry.forms[kForms - 1];
    for (std::size_t k = kForms - 1; k > 0; --k) entry.forms[k] = entry.forms[k - 1];
    entry.forms[0] = &matrix;
    __atomic_add_fetch(&matrix.references_, 1, __ATOMIC_RELAXED);
    ++packed_;
    if (last) last->release();
}

void WeightCache::clear() {
    const Lock lock(*this);
    for (Entry& entry : entries_) drop(entry);
    entries_.clear();
    skipped_ = skipped_after_change_ = 1;
}

Index WeightCache::bytes() {
    const Lock lock(*this);
    Index sum = 0;
    for (const Entry& entry : entries_)
        for (const KeptMatrix* matrix : entry.forms) sum += matrix ? matrix->bytes_ : 0;
    return sum;
}

Index WeightCache::hits() const { return __atomic_load_n(&hits_, __ATOMIC_RELAXED); }

Index WeightCache::packed() const { return __atomic_load_n(&packed_, __ATOMIC_RELAXED); }

void WeightCache::drop(Entry& entry) {
    for (KeptMatrix*& matrix : entry.forms) {
        KeptMatrix* const dropped = matrix;
        matrix = nullptr;
        if (dropped) dropped->release();
    }
}

}  // namespace unrolled
