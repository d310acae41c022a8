// Digests of weights, and the cache that finds packed weights by them.
#include <cstring>
#include <set>
#include <utility>

#include "dispatch/weight_cache.h"
#include "suite.h"

namespace core_test {
namespace {

using unrolled::Digest;
using Numbers = std::vector<float>;
using Pair = std::pair<std::uint64_t, std::uint64_t>;

Numbers random_numbers(Index count) {
    Random random(7);
    Numbers numbers(static_cast<std::size_t>(count));
    for (float& x : numbers) x = static_cast<float>(random.uniform(-1, 1));
    return numbers;
}

class Digests {
public:
    explicit Digests(const unrolled::Build& build) : build_(build) {}

    Pair of(const void* data, std::size_t bytes, Index threads = 1) const {
        const Digest digest = build_.digest(data, static_cast<Index>(bytes), threads);
        return {digest.low, digest.high};
    }
    Pair of(const Numbers& numbers, Index threads = 1) const {
        return of(numbers.data(), numbers.size() * sizeof(float), threads);
    }

private:
    const unrolled::Build& build_;
};

// One bit of one number: both halves of the digest change, and no two changes have the same digest.
void check_single_changes(const Digests& digests, Index count, std::size_t step, Checks& checks) {
    Numbers numbers = random_numbers(count);
    const Pair before = digests.of(numbers);
    std::set<std::uint64_t> lows = {before.first}, highs = {before.second};
    std::size_t changes = 0;
    for (std::size_t k = 0; k < numbers.size(); k += k < 600 ? 1 : step)
        for (const std::uint32_t bit : {0u, 12u, 22u, 31u}) {
            const float kept = numbers[k];
            std::uint32_t bits;
            std::memcpy(&bits, &kept, sizeof(bits));
            bits ^= 1u << bit;
            std::memcpy(&numbers[k], &bits, sizeof(bits));
            const Pair after = digests.of(numbers);
            lows.insert(after.first);
            highs.insert(after.second);
            numbers[k] = kept;
            ++changes;
        }
    checks.that(lows.size() == changes + 1, "low: a changed bit has the digest of another content");
    checks.that(highs.size() == changes + 1, "high: a changed bit has the digest of another content");
    checks.that(digests.of(numbers) == before, "a digest is not repeatable");
}

// Rows, columns and numbers that change places.
void check_swaps(const Digests& digests, std::size_t rows, std::size_t columns, Checks& checks) {
    const Numbers numbers = random_numbers(static_cast<Index>(rows * columns));
    std::set<Pair> seen = {digests.of(numbers)};
    std::size_t count = 1;
    const auto look = [&](const Numbers& changed) {
        seen.insert(digests.of(changed));
        ++count;
    };
    for (std::size_t k = 1; k < rows; ++k) {
        Numbers swapped = numbers;
        std::swap_ranges(swapped.begin(), swapped.begin() + static_cast<long>(columns),
                         swapped.begin() + static_cast<long>(k * columns));
        look(swapped);
    }
    for (std::size_t c = 1; c < columns; ++c) {
        Numbers swapped = numbers;
        for (std::size_t r = 0; r < rows; ++r) std::swap(swapped[r * columns], swapped[r * columns + c]);
        look(swapped);
    }
    for (std::size_t k = 1; k < numbers.size(); k += 7) {
        Numbers swapped = numbers;
        std::swap(swapped[0], swapped[k]);
        look(swapped);
    }
    checks.that(seen.size() == count, "two orders of the same numbers have the same digest");
}

// Zeros, also negative ones, and NaN of different payloads; arrays of different lengths.
void check_special_contents(const Digests& digests, Checks& checks) {
    std::set<Pair> seen;
    std::size_t count = 0;
    const Numbers zeros(40000, 0.0f);
    for (std::size_t bytes = 0; bytes < 1200; ++bytes, ++count) seen.insert(digests.of(zeros.data(), bytes));
    for (std::size_t bytes = 32760; bytes < 32780; ++bytes, ++count)
        seen.insert(digests.of(zeros.data(), bytes));
    for (const std::uint32_t bits : {0x80000000u, 0x7fc00000u, 0x7fc00001u, 0xffc00000u, 0x7f800000u})
        for (const std::size_t at : {std::size_t(0), std::size_t(17), zeros.size() - 1}) {
            Numbers changed = zeros;
            std::memcpy(&changed[at], &bits, sizeof(bits));
            seen.insert(digests.of(changed));
            ++count;
        }
    checks.that(seen.size() == count, "two special contents have the same digest");
}

void check_shares(const Digests& digests, Checks& checks) {
    for (const Index count : {Index(1), Index(5000), Index(8192), Index(60001)}) {
        const Numbers numbers = random_numbers(count);
        const Pair alone = digests.of(numbers);
        for (Index threads = 2; threads < 12; ++threads)
            checks.that(digests.of(numbers, threads) == alone, "threads find another digest");
    }
}

// Counts those that exist.
class Counted final : public unrolled::KeptMatrix {
public:
    Counted(const Digest& digest, const unrolled::PackedForm& form, int& count)
        : KeptMatrix(digest, form, 100), count_(count) {
        ++count_;
    }

private:
    ~Counted() override { --count_; }
    int& count_;
};

unrolled::PackedForm form_of(Index vectors) { return {"build", 4, false, vectors, 1}; }

}  // namespace

void check_digests(bool quick, std::vector<Subject>& subjects) {
    for (Subject& subject : subjects) {
        const Digests digests(*subject.build);
        for (const Index count : {Index(1), Index(2), Index(63), Index(1000), Index(20000)})
            check_single_changes(digests, count, quick ? 997 : 53, subject.checks);
        check_swaps(digests, 24, 40, subject.checks);
        check_swaps(digests, 5, 129, subject.checks);
        check_special_contents(digests, subject.checks);
        check_shares(digests, subject.checks);
    }
}

void check_weight_cache(Checks& checks) {
    const Digest a{1, 2}, b{1, 3};
    int count = 0;
    {
        unrolled::WeightCache cache;
        checks.that(!cache.due() && cache.due(), "the first call must not be due, the second must");
        checks.that(!cache.unchanged(&a, 1), "the first content must be new");
        checks.that(cache.unchanged(&a, 1), "the same content must be the same");
        const auto keep = [&](const Digest& digest, Index vectors) {
            auto* const matrix = new Counted(digest, form_of(vectors), count);
            cache.keep(0, *matrix);
            matrix->release();
        };
        const auto finds = [&](const Digest& digest, Index vectors) {
            unrolled::KeptMatrix* const matrix = cache.find(0, digest, form_of(vectors));
            if (matrix) matrix->release();
            return matrix != nullptr;
        };
        keep(a, 4);
        keep(a, 24);
        checks.that(finds(a, 24) && finds(a, 4) && !finds(a, 12) && !finds(b, 4), "the wrong forms are kept");
        checks.that(cache.hits() == 2 && cache.packed() == 2 && cache.bytes() == 200, "it counts wrongly");
        keep(a, 12);  // the form that was used longest ago goes
        checks.that(finds(a, 12) && finds(a, 4) && !finds(a, 24) && count == 2,
                    "more than two forms are kept");
        keep(b, 4);
        checks.that(!finds(b, 4) && count == 2, "content is kept that no call has");
        unrolled::KeptMatrix* const used = cache.find(0, a, form_of(4));
        checks.that(!cache.unchanged(&b, 1) && cache.bytes() == 0, "other content must free what was packed");
        checks.that(count == 1, "a matrix must live while a call uses it");
        if (used) used->release();
        checks.that(count == 0, "a matrix must be freed after its last use");
        checks.that(!cache.due() && cache.due(), "the call after a change must not be due");
        keep(b, 4);
        cache.clear();
        checks.that(count == 0 && cache.bytes() == 0 && !cache.due(), "nothing may be left");
        cache.unchanged(&a, 1);
        keep(a, 4);
    }
    checks.that(count == 0, "a cache must free what it keeps");
    unrolled::WeightCache changing;
    int due = 0;
    for (std::uint64_t call = 0; call < 1000; ++call)
        if (changing.due()) {
            const Digest digest{call, 0};
            changing.unchanged(&digest, 1);
            ++due;
        }
    checks.that(due < 50, "weights that always change are read too often");
}

}  // namespace core_test
