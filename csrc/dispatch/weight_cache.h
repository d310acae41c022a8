// Packed weights that a layer keeps from call to call, known by the content that they were packed from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/threads.h"
#include "support/types.h"

namespace unrolled {

// 128 bits that depend on every bit of a matrix.
struct Digest {
    std::uint64_t low = 0, high = 0;
};

// In which form a matrix is packed.
struct PackedForm {
    const char* build;
    int bytes_per_number;
    bool bf16_products;
    Index vectors, shares;  // see PackedMatrices
};

// A packed matrix. It is freed when nobody refers to it: neither its cache nor a call.
class KeptMatrix {
public:
    // Has one reference.
    KeptMatrix(const Digest& digest, const PackedForm& form, Index bytes);
    KeptMatrix(const KeptMatrix&) = delete;
    KeptMatrix& operator=(const KeptMatrix&) = delete;
    void release();

protected:
    virtual ~KeptMatrix();

private:
    friend class WeightCache;
    Digest digest_;
    PackedForm form_;
    Index bytes_;
    int references_ = 1;
};

// What a layer keeps in one direction: of each matrix the content of the last call, in at most two forms.
// Any number of threads may use it.
class WeightCache {
public:
    WeightCache();
    ~WeightCache();
    WeightCache(const WeightCache&) = delete;
    WeightCache& operator=(const WeightCache&) = delete;

    // Whether the digests of a call are worth computing. They are not in the first call, which may be the
    // only one, and less and less often while the weights change from call to call.
    bool due();

    // Whether the last call had the same content in all matrices. What is packed from other content is
    // dropped.
    bool unchanged(const Digest* digests, std::size_t count);

    // A packed matrix, with a reference for the caller, or null.
    KeptMatrix* find(std::size_t number, const Digest& digest, const PackedForm& form);

    // Adds a packed matrix, unless its content is no longer that of the last call.
    void keep(std::size_t number, KeptMatrix& matrix);

    // Forgets everything.
    void clear();

    Index bytes();         // of all packed matrices
    Index hits() const;    // how often find() found one
    Index packed() const;  // how often keep() added one

private:
    static constexpr std::size_t kForms = 2;
    static constexpr int kMaxSkipped = 32;
    struct Entry {
        Digest digest;
        KeptMatrix* forms[kForms] = {};  // the last one that was used comes first
    };
    class Lock;

    static void drop(Entry& entry);

    std::vector<Entry> entries_;  // by number of the matrix; empty before the first digests
    int skipped_ = 1;             // how many of the next calls are not due
    int skipped_after_change_ = 1;
    Index hits_ = 0, packed_ = 0;
    int user_ = 0;  // see ForkSafeLock
};

}  // namespace unrolled
