// What forward and backward have in common: tokens and their addresses, how threads divide a sweep,
// the matrices in the form that the call's size pays for.
#pragma once

#include "kernels/interpreter.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// Multiplications of a sweep from which on a second thread is worth waking.
constexpr double kWorthWaking = 1.2e6;

// Multiplications of a step from which on threads share its units.
constexpr double kWorthMeeting = 1e5;

// Multiplications of a step by itself from which on it is worth calling other threads for it.
constexpr double kWorthCalling = 3e5;

// A second-level cache, roughly: weights beyond it are better read by one thread each, unless every
// thread has some rows to use them for, and as many as the others or many.
constexpr Index kCache = 768 * 1024;
constexpr Index kSomeRows = 8, kManyRows = 16;

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

    // Number of the first token of a step.
    Index offset(Index t) const { return call.sizes ? offsets_[t] : t * call.N; }

    // Row of a token in the caller's arrays.
    Index row(Index t, Index n) const {
        const Rows& rows = call.rows;
        return rows.table ? rows.table[offset(t) + n] : rows.base + t * rows.step + n * rows.next;
    }

    // Multiplications of a token.
    double multiplications() const {
        double one = static_cast<double>(program.x_parts) * program.x_width * call.I;
        for (const Product& p : program.products)
            one += static_cast<double>(p.parts) * p.width * p.source;
        return one;
    }

    // The same with its pointwise operations, roughly.
    double work() const {
        return multiplications() + static_cast<double>(program.H) * program.nodes.size();
    }

    // Threads for a direction. Those that share the units of a step meet at each step, which has to
    // be long enough for it.
    Index threads(const Schedule& schedule) const {
        const double token = multiplications(), all = token * static_cast<double>(call.total);
        if (all < kWorthWaking) return 1;
        const bool meets = by_units(schedule, limit_);
        if (meets && token * static_cast<double>(call.N) < kWorthMeeting) return 1;
        return limit_;
    }

    // Threads for a step by itself.
    Index threads_of_a_step() const {
        return multiplications() * static_cast<double>(call.N) < kWorthCalling ? 1 : limit_;
    }

    // Whether threads share the units of each step, with a barrier, rather than the sequences.
    bool by_units(const Schedule& schedule, Index threads) const {
        if (threads == 1 || schedule.whole_rows || !schedule.uniform) return false;
        Index weights = 0;
        for (const Product& p : program.products) weights += p.parts * p.width * p.source;
        const Index tiles = divide_up(call.N, kTall);
        const bool uneven = 4 * tiles < 3 * round_up(tiles, threads);
        const bool few = call.N < (tiles % threads ? kManyRows : kSomeRows) * threads;
        return uneven || (few && weights * static_cast<Index>(sizeof(T)) > kCache);
    }

    // Whether so many such sweeps are better run on a thread each: one by itself would keep a single
    // thread; or there are many; or there are two for two threads, which would have to meet, or have
    // few rows each.
    bool apart(const Schedule& schedule, Index count) const {
        const double all = multiplications() * static_cast<double>(count * call.total);
        if (limit_ < 2 || count < 2 || all < kWorthWaking) return false;
        const Index alone = threads(schedule);
        if (alone == 1 || count >= 2 * limit_) return true;
        return count == limit_ && (by_units(schedule, alone) || call.N < kManyRows * limit_);
    }

    // Sequences for each of so many threads: whole tiles of them, or of a ragged batch, whose first
    // sequences are the longest, as many as make even shares of the tokens.
    void share_rows(Index threads) {
        bounds_ = Buffer<Index>(threads + 1);
        const Index tiles = divide_up(call.N, kTall);
        for (Index k = 0; k <= threads; ++k)
            bounds_[k] = least(call.N, tiles * k / threads * kTall);
        if (!call.sizes || call.total == 0) return;
        Index t = call.T_steps, tokens = 0, k = 1;
        for (Index n = 0; n < call.N && k < threads; ++n) {
            while (t > 0 && call.sizes[t - 1] <= n) --t;  // t is the length of sequence n
            tokens += t;
            while (k < threads && tokens * threads >= call.total * k) bounds_[k++] = n + 1;
        }
    }

    // The most sequences of a thread.
    Index most_rows() const {
        Index found = 1;
        for (Index k = 0; k + 1 < bounds_.count(); ++k)
            found = most(found, bounds_[k + 1] - bounds_[k]);
        return found;
    }

    // What one of `count` threads works on.
    Part part(bool units, Index me, Index count) const {
        if (units) return {0, call.N, me, count};
        return {bounds_[me], bounds_[me + 1], 0, 1};
    }

private:
    Index limit_;  // of threads
    Buffer<Index> offsets_, bounds_;
};

// Divides the packing of a matrix: whole panels, or the share that a thread will itself use.
template <class T, class F>
void divide(const Matrix<T>& m, bool units, Index me, Index count, F work) {
    if (units) {
        const Share own = share_units<T>(m.shape.width, me, count);
        work(own.first * m.shape.parts, own.last * m.shape.parts);
        return;
    }
    const Index all = m.shape.vectors(), panels = divide_up(all, m.vectors);
    work(least(all, panels * me / count * m.vectors),
         least(all, panels * (me + 1) / count * m.vectors));
}

// The matrix of W [parts * width, k], to be multiplied by so many rows at a time, `total` in all.
template <class T>
Matrix<T> make_matrix(const Lines<const T>& W, Index parts, Index width, Index k, Index rows, Index total) {
    Matrix<T> m;
    m.shape = {parts, width, k};
    m.segments = Buffer<Segment>(1);
    m.segments[0] = {0, k, 0, 0};
    m.vectors = vectors_for(rows);
    if (total <= kFewRows) m.plain = W;
    else m.packed = Buffer<T>(m.shape.vectors() * lanes<T> * k);
    return m;
}

// The matrix of W [k, width] as it lies, for rows that hold stretches of k.
template <class T>
Matrix<T> make_transposed(const Lines<const T>& W, Index width, Index k, Buffer<Segment> segments,
                          Index rows, Index total) {
    const bool lies = total <= kFewRows;
    Matrix<T> m;
    m.count = segments.count();
    Index used = 0;
    for (Index s = 0; s < m.count; ++s) {
        segments[s].b = lies ? segments[s].source : used;
        used += segments[s].length;
    }
    m.segments = static_cast<Buffer<Segment>&&>(segments);
    m.vectors = vectors_for(rows);
    if (lies) {
        m.shape = {1, width, k};
        m.lying = W;
        m.packed = Buffer<T>(lanes<T> * k);
    } else {
        m.shape = {1, width, used};
        m.packed = Buffer<T>(m.shape.vectors() * lanes<T> * used);
    }
    return m;
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
