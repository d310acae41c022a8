// The parts of a sweep advance in rounds, on threads that come late, leave and return.
#pragma once

#include "kernels/threads.h"

namespace unrolled {
namespace UNROLLED_BUILD {

// A part begins a round when all parts have finished the last one. Each part has a thread of its own. While
// that thread is away, one that waits for the part runs its rounds: so it is before a thread has started,
// and where the team is smaller than asked for.
//
// A thread that waits for another one much longer than a round takes, because another process uses the
// other's core, leaves its own part to those that it waits for and sleeps; after a while it returns. So
// the last one to arrive goes on alone, at once. A part's rounds are the same on whatever thread.
class Rounds {
public:
    // Threads leave where `may_leave`: where the rounds are short.
    Rounds(Index parts, bool may_leave, CancelFlag* cancel)
        : parts_(parts), may_leave_(may_leave), states_(zeros<Index>(parts * kPadding)), cancel_(cancel) {}

    // Runs all rounds on `parts` threads. advance(part) runs the next round of a part and returns whether
    // there are more; all parts have equally many. after(thread) follows on each thread that ran the last
    // round of its own part.
    template <class F, class G>
    void run(F advance, G after) {
        if (parts_ == 1)
            return run_threads(1, [&](Index, Index) {
                while (advance(Index(0))) {
                }
                after(Index(0));
            });
        for (Index k = 0; k < parts_; ++k) {
            state(k) = kAway;
            claimed(k) = 0;
        }
        ended_ = sleeping_ = 0;
        started_ = now();
        Index finished = 0;
        run_threads(parts_, [&](Index thread, Index) {
            if (run_part(thread, advance)) after(thread);
            if (thread == 0) finished = now();
        });
        if (!may_leave_) return;
        if (now() - finished > max_wait()) report_late_thread(parts_);
        else if (sleeping_ == 0) report_threads_in_time(finished - started_);
    }

private:
    static constexpr Index kPadding = 16;  // two cache lines: they are fetched in pairs
    static constexpr Index kAway = 1, kDone = 2, kRound = 4;
    static constexpr int kSpins = 2000;
    static constexpr Index kBetweenPolls = 10'000'000;

    // Of a part: finished rounds times kRound, and flags.
    Index& state(Index part) { return states_[part * kPadding]; }
    // The round that was claimed last, by a thread that returned or by one that waited.
    Index& claimed(Index part) { return states_[part * kPadding + 1]; }

    Index load(Index part) { return __atomic_load_n(&state(part), __ATOMIC_ACQUIRE); }

    void publish(Index part, Index round, Index flags) {
        __atomic_store_n(&state(part), round * kRound + flags, __ATOMIC_RELEASE);
    }

    // Claims the round after `round` of a part whose thread is away.
    bool claim(Index part, Index round) {
        return __atomic_compare_exchange_n(&claimed(part), &round, round + 1, false, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE);
    }

    // On the thread of a part; whether it ran the last round.
    template <class F>
    bool run_part(Index own, F& advance) {
        bool done = false;
        while (!done && take(own)) {
            Index round = load(own) / kRound;
            bool more = true;
            while (more && meet(round, advance)) {
                more = advance(own);
                publish(own, ++round, more ? 0 : kDone);
            }
            done = !more;
            if (done) finish(round, advance);
            else leave(own, round);
        }
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (__atomic_load_n(&sleeping_, __ATOMIC_RELAXED) > 0) wake_sleepers(ended_);
        return done;
    }

    // Returns to its part between two rounds; false if there are none left.
    bool take(Index own) {
        for (int spins = 0;; ++spins) {
            const Index now_at = load(own);
            if ((now_at & kDone) || is_cancelled(cancel_)) return false;
            if (claim(own, now_at / kRound)) return true;
            if (spins < kSpins) pause();
            else sched_yield();
        }
    }

    // Waits until all parts have finished a round, and runs it for threads that are away. False if that
    // takes too long, or the sweep is cancelled.
    template <class F>
    bool meet(Index round, F& advance) {
        for (Index k = 0; k < parts_; ++k)
            if (!wait_for(k, round, advance)) return false;
        return true;
    }

    template <class F>
    bool wait_for(Index part, Index round, F& advance) {
        const int max_spins = max_wait() > 0 ? kSpins : 0;
        Index since = 0;
        bool late = false;
        for (int spins = 0;; ++spins) {
            const Index other = load(part);
            if (other / kRound >= round || run_for_away(part, other, round, advance)) return true;
            if (spins < max_spins) {
                pause();
                continue;
            }
            if (late || is_cancelled(cancel_)) return false;
            late = is_late(since, round);
            // What the other thread has published is seen by now: of two threads that wait for each
            // other at most one leaves.
            if (late) __atomic_thread_fence(__ATOMIC_SEQ_CST);
        }
    }

    template <class F>
    bool run_for_away(Index part, Index its_state, Index round, F& advance) {
        if (!(its_state & kAway) || !claim(part, round - 1)) return false;
        const bool more = advance(part);
        publish(part, round, kAway + (more ? 0 : kDone));
        return true;
    }

    // Whether a thread is late for which this one waits since about `since`, which is set here.
    bool is_late(Index& since, Index round) {
        if (!may_leave_) {
            sched_yield();
            return false;
        }
        const Index time = now();
        if (since == 0) since = time;
        return time - since >= max_wait() + 4 * (since - started_) / max<Index>(1, round);
    }

    // Leaves the last round of parts whose threads are away to nobody.
    template <class F>
    void finish(Index round, F& advance) {
        for (Index k = 0; k < parts_; ++k) {
            const Index other = load(k);
            if (other / kRound < round) run_for_away(k, other, round, advance);
        }
    }

    // Leaves its part to other threads, and sleeps until it is worth returning or the sweep ends.
    void leave(Index own, Index round) {
        __atomic_store_n(&claimed(own), round, __ATOMIC_RELAXED);
        publish(own, round, kAway);
        if (is_cancelled(cancel_)) return;
        report_late_thread(parts_);
        __atomic_fetch_add(&sleeping_, 1, __ATOMIC_SEQ_CST);
        for (Index left; (left = distrusted_for(own + 1)) > 0;) {
            if ((load(own) & kDone) || is_cancelled(cancel_)) return;
            sleep_until(ended_, min(left, kBetweenPolls));
            if (__atomic_load_n(&ended_, __ATOMIC_RELAXED)) return;
            if (cancel_) cancel_->poll(*cancel_);  // this may be the caller's thread
        }
    }

    Index parts_;
    bool may_leave_;
    Buffer<Index> states_;
    CancelFlag* cancel_;
    Index started_ = 0;
    int sleeping_ = 0, ended_ = 0;
};

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
