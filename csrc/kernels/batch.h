// What forward and backward share: locations of tokens, the division of a sweep among threads, and matrices
// in the form that suits the size of a call.
#pragma once

#include "kernels/interpreter.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// A sweep uses several threads from this many multiplications.
constexpr double kMinWorkForThreads = 5e5;

// Threads share the units of a step from this many multiplications.
constexpr double kMinStepForBarrier = 1.6e4;

// A single step uses several threads from this many multiplications.
constexpr double kMinStepForThreads = 3e5;

// Threads share the sequences if each has so many: at least two, since one row alone reads all weights as
// slowly; more if the weights exceed a second-level cache, and many if they exceed a share of the third.
constexpr Index kCache = 768 * 1024, kLargeCache = 4'500'000;
constexpr Index kMinRows = 2, kSomeRows = 3, kManyRows = 24;

// Two sweeps with fewer sequences for each of two threads run on one thread each.
constexpr Index kRowsOfHalf = 16;

// Whether products of a call take pairs of bfloat16.
template <class T>
bool multiplies_bf16(const Call<T>& call) {
    return kMultipliesBf16<T> && call.bf16_products;
}

template <class T>
class Batch {
public:
    Batch(const Call<T>& call, Index limit) : call(call), program(*call.program), limit_(limit) {
        if (!call.sizes) return;
        offsets_ = Buffer<Index>(call.T_steps + 1);
        offsets_[0] = 0;
        for (Index t = 0; t < call.T_steps; ++t) offsets_[t + 1] = offsets_[t] + call.sizes[t];
    }

    const Call<T>& call;
    const Program& program;

    // The number of the first token of a step.
    Index offset(Index t) const { return call.sizes ? offsets_[t] : t * call.N; }

    // The row of a token in the caller's arrays.
    Index row(Index t, Index n) const {
        const TokenRows& rows = call.token_rows;
        return rows.table ? rows.table[offset(t) + n] : rows.dense_row(t, n);
    }

    // Multiplications of a token, and those of its input.
    double input_multiplications() const {
        return static_cast<double>(program.x_parts) * static_cast<double>(program.x_width) *
               static_cast<double>(call.I / program.x_diagonal_blocks);
    }
    double multiplications() const {
        double count = input_multiplications();
        for (const Product& p : program.products)
            count +=
                static_cast<double>(p.parts) * static_cast<double>(p.width) * static_cast<double>(p.columns);
        return count;
    }

    // The same, with an estimate for pointwise operations.
    double work() const {
        return multiplications() + static_cast<double>(program.H) * static_cast<double>(program.nodes.size());
    }

    // Threads of a direction. Threads that share the units meet at each step, which must be long enough.
    Index threads(const Schedule& schedule) const {
        const double token = multiplications(), all = token * static_cast<double>(call.total);
        if (all < kMinWorkForThreads) return 1;
        const bool needs_barrier = by_units(schedule, limit_);
        if (needs_barrier && token * static_cast<double>(call.N) < kMinStepForBarrier) return 1;
        return needs_barrier ? min(limit_, trusted_threads()) : limit_;
    }

    // Threads of a single step.
    Index threads_of_a_step() const {
        return multiplications() * static_cast<double>(call.N) < kMinStepForThreads ? 1 : limit_;
    }

    // Whether threads share the units of each step, and wait for one another, rather than the sequences.
    bool by_units(const Schedule& schedule, Index threads) const {
        if (threads == 1 || schedule.whole_rows || !schedule.uniform) return false;
        Index weights = 0;
        for (const Product& p : program.products) weights += p.parts * p.width * p.columns;
        const Index bytes = weights * (multiplies_bf16(call) ? 2 : static_cast<Index>(sizeof(T)));
        const Index rows = bytes > kLargeCache ? kManyRows : bytes > kCache ? kSomeRows : kMinRows;
        return call.N < rows * threads && trusted_threads() > 1;
    }

    // Whether `count` such sweeps run faster with one thread each: if a sweep alone would use one thread;
    // if there are many; or if two sweeps on two threads would meet at each step, or have few rows each.
    bool one_thread_each(const Schedule& schedule, Index count) const {
        const double all = multiplications() * static_cast<double>(count * call.total);
        if (limit_ < 2 || count < 2 || all < kMinWorkForThreads) return false;
        const Index alone = threads(schedule);
        if (alone == 1 || count >= 2 * limit_) return true;
        return count == limit_ && (by_units(schedule, alone) || call.N < kRowsOfHalf * limit_);
    }

    // Divides the sequences: equal shares of them; in a ragged batch, sorted by length, of the tokens.
    void divide_rows(Index threads) {
        bounds_ = Buffer<Index>(threads + 1);
        for (Index k = 0; k <= threads; ++k) bounds_[k] = call.N * k / threads;
        if (!call.sizes || call.total == 0) return;
        Index t = call.T_steps, tokens = 0, k = 1;
        for (Index n = 0; n < call.N && k < threads; ++n) {
            while (t > 0 && call.sizes[t - 1] <= n) --t;  // t is the length of sequence n
            tokens += t;
            while (k < threads && tokens * threads >= call.total * k) bounds_[k++] = n + 1;
        }
    }

    // The largest number of sequences of a thread.
    Index max_rows() const {
        Index count = 1;
        for (Index k = 0; k + 1 < bounds_.count(); ++k) count = max(count, bounds_[k + 1] - bounds_[k]);
        return count;
    }

    // How many of the chunks of a thread's sweep, which it has `count` of, another one projects before its
    // sweep: threads below the mean number of sequences share what those above it have too many.
    Index chunks_to_give(Index from, Index to, Index count) const {
        const double missing = -surplus(to), excess = surplus(from);
        if (missing <= 0 || excess <= 0) return 0;
        double all = 0;
        for (Index k = 0; k + 1 < bounds_.count(); ++k) all += surplus(k) > 0 ? surplus(k) : 0;
        const double rows = static_cast<double>(bounds_[from + 1] - bounds_[from]);
        const double share = excess * missing / all * work() / input_multiplications();
        const double chunks = share / rows * static_cast<double>(count) + 0.5;
        return chunks < static_cast<double>(count) ? static_cast<Index>(chunks)
                                                   : count;  // infinite without input
    }

    // The part of the batch that thread number `thread` of `count` works on.
    Part part(bool units, Index thread, Index count) const {
        if (units) return {0, call.N, thread, count};
        return {bounds_[thread], bounds_[thread + 1], 0, 1};
    }

private:
    // The sequences of a thread above the mean.
    double surplus(Index k) const {
        const auto threads = static_cast<double>(bounds_.count() - 1);
        return static_cast<double>(bounds_[k + 1] - bounds_[k]) - static_cast<double>(call.N) / threads;
    }

    Index limit_;  // of the number of threads
    Buffer<Index> offsets_, bounds_;
};

// Divides the packing of a matrix among threads: by whole panels, or by the units that each thread uses
// itself.
template <class T, class F>
void divide(const Matrix<T>& m, bool units, Index thread, Index count, F work) {
    if (units) {
        const GroupRange own = groups_of_thread<T>(m.shape.width, thread, count);
        work(own.first * m.shape.parts, own.last * m.shape.parts);
        return;
    }
    const Index all = m.shape.vectors(), panels = divide_up(all, m.vectors);
    if (m.shape.blocks > 1) {
        Index number = 0;
        for (Index from = 0, size; from < all; from += size, ++number) {
            size = m.panel(from, all);
            if (number % count == thread) work(from, from + size);
        }
        return;
    }
    work(min(all, panels * thread / count * m.vectors), min(all, panels * (thread + 1) / count * m.vectors));
}

// The matrix of W [parts * width, k / blocks], for products with `rows` rows at a time, of all tokens of a
// call.
template <class T>
Matrix<T> make_matrix(const Call<T>& call, const Storage<const T>& W, Index parts, Index width, Index k,
                      Index blocks, Index rows) {
    Matrix<T> m;
    set_shape(m, parts, width, k, blocks);
    m.vectors = vectors_for(rows);
    m.rounds = multiplies_bf16(call);
    if (call.total <= kFewRows) m.unpacked = W;
    else if (multiplies_bf16(call)) m.bf16 = Buffer<Bf16Pair>(m.shape.vectors() * lanes<T> * m.pairs());
    else m.packed = Buffer<T>(m.shape.vectors() * lanes<T> * m.shape.k);
    return m;
}

// A block-diagonal W [k, width / blocks]; each segment has the rows of all blocks of a part.
template <class T>
Matrix<T> make_transposed_blocks(const Call<T>& call, const Storage<const T>& W, Index width, Index blocks,
                                 const Buffer<Segment>& segments, Index rows) {
    const bool is_few = call.total <= kFewRows, in_pairs = !is_few && multiplies_bf16(call);
    Matrix<T> m;
    m.count = segments.count();
    const Index block_k = m.count ? segments[0].length / blocks : 0;
    m.shape = {1, width, 0, blocks, block_k};
    m.shape.k = m.shape.max_blocks() * block_k * m.count;
    m.vectors = vectors_for(rows);
    m.segments = divide_segments(m.shape, segments.data(), m.count, in_pairs);
    m.ends = panel_ends(m.shape);
    for (Index s = 0; s < m.count; ++s) m.block_row = max(m.block_row, segments[s].a + segments[s].length);
    // Vectors that read from several blocks are packed.
    if (is_few && m.shape.block_width() % lanes<T> == 0) {
        m.unpacked_transposed = W;
        for (Index s = 0; s < m.segments.count(); ++s) m.segments[s].b = m.segments[s].source;
    } else if (in_pairs) {
        m.bf16 = Buffer<Bf16Pair>(m.shape.vectors() * lanes<T> * m.pairs());
    } else {
        m.packed = Buffer<T>(m.shape.vectors() * lanes<T> * m.shape.k);
    }
    return m;
}

// The matrix of W [k, width / blocks], not transposed, for rows whose numbers lie in segments of k.
template <class T>
Matrix<T> make_transposed(const Call<T>& call, const Storage<const T>& W, Index width, Index k, Index blocks,
                          Buffer<Segment> segments, Index rows) {
    if (blocks > 1) return make_transposed_blocks(call, W, width, blocks, segments, rows);
    const bool is_unpacked = call.total <= kFewRows, in_pairs = !is_unpacked && multiplies_bf16(call);
    Matrix<T> m;
    m.count = segments.count();
    Index used = 0;
    for (Index s = 0; s < m.count; ++s) {
        segments[s].b = is_unpacked ? segments[s].source : used;
        used += in_pairs ? divide_up(segments[s].length, 2) : segments[s].length;
    }
    m.segments = static_cast<Buffer<Segment>&&>(segments);
    m.vectors = vectors_for(rows);
    if (is_unpacked) {
        m.shape = {1, width, k};
        m.unpacked_transposed = W;
        m.packed = Buffer<T>(lanes<T> * k);
    } else {
        m.shape = {1, width, used};
        const Index numbers = m.shape.vectors() * lanes<T> * used;
        if (in_pairs) m.bf16 = Buffer<Bf16Pair>(numbers);
        else m.packed = Buffer<T>(numbers);
    }
    return m;
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
