// Parts that advance in rounds: threads that come late, in each round of each part, more threads than cores,
// interrupts, and neighbours that keep the cores busy.
#define UNROLLED_BUILD rounds_test
#define UNROLLED_BYTES 16
#include "kernels/rounds.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "run.h"
#include "suite.h"

namespace core_test {
namespace {

using unrolled::rounds_test::Rounds;

constexpr Index kRounds = 12;

// A part is late so long that others leave.
struct Delay {
    Index part, round;
};

// Counts the rounds of each part. What it does is wrong if a part is run by two threads at once, or begins a
// round before all others have finished the last one.
class Parts {
public:
    explicit Parts(Index count) : count_(count), finished_(new std::atomic<Index>[count]) {
        for (Index k = 0; k < count; ++k) finished_[k] = 0;
    }

    bool advance(Index part, const Delay& delay) {
        const Index round = finished_[part];
        for (Index k = 0; k < count_; ++k)
            if (finished_[k] < round || finished_[k] > round + 1) wrong_ = true;
        if (part == delay.part && round == delay.round)
            std::this_thread::sleep_for(std::chrono::microseconds(600));
        if (finished_[part].fetch_add(1) != round) wrong_ = true;
        return round + 1 < kRounds;
    }

    bool right() const {
        for (Index k = 0; k < count_; ++k)
            if (finished_[k] != kRounds) return false;
        return !wrong_;
    }

private:
    Index count_;
    std::unique_ptr<std::atomic<Index>[]> finished_;
    std::atomic<bool> wrong_{false};
};

// Restores the usual patience.
struct Patience {
    Patience(Index wait, Index distrust) { unrolled::set_max_wait(wait, distrust); }
    ~Patience() { unrolled::set_max_wait(-1, -1); }
};

void check_delays(Index parts, bool may_leave, Index wait, Index distrust, Checks& checks) {
    const Patience patience(wait, distrust);
    Rounds rounds(parts, may_leave, nullptr);
    for (Index part = 0; part < parts; ++part)
        for (Index round = 0; round < kRounds; ++round) {
            Parts all(parts);
            std::atomic<Index> ends{0};
            rounds.run([&](Index k) { return all.advance(k, {part, round}); }, [&](Index) { ++ends; });
            checks.that(all.right() && ends >= 1 && ends <= parts,
                        "rounds of " + std::to_string(parts) + " parts: part " + std::to_string(part) +
                            " is late in round " + std::to_string(round));
        }
}

// After a delay fewer threads are trusted for a while, for longer if it happens again soon.
void check_trust(Checks& checks) {
    constexpr Index kWhile = 20'000'000;
    const Patience patience(-1, kWhile);
    // For how long two threads are distrusted after they were in time for so long.
    const auto report = [&](Index in_time) {
        std::this_thread::sleep_for(std::chrono::nanoseconds(kWhile + unrolled::distrusted_for(2)));
        unrolled::report_threads_in_time(in_time);
        const Index before = unrolled::now();
        unrolled::report_late_thread(2);
        const Index left = unrolled::distrusted_for(2);
        return left + unrolled::now() - before;
    };
    checks.that(unrolled::trusted_threads() >= 8, "threads are trusted that were never late");
    unrolled::report_late_thread(8);
    checks.that(unrolled::distrusted_for(8) <= kWhile, "eight threads are distrusted shortly at first");
    checks.that(unrolled::distrusted_for(4) == 0, "half of the threads are trusted after a delay");
    checks.that(report(kWhile / 2) >= 4 * kWhile, "threads are distrusted for longer after a second delay");
    std::this_thread::sleep_for(std::chrono::nanoseconds(kWhile + unrolled::distrusted_for(2)));
    checks.that(unrolled::trusted_threads() >= 8, "threads are trusted again after a while");
    unrolled::report_threads_in_time(1'000'000'000);
    unrolled::report_late_thread(2);
    checks.that(unrolled::distrusted_for(2) <= kWhile, "threads that were in time are distrusted shortly");
}

// Cancels a sweep in some round: all threads return.
void check_cancelled(Index parts, Checks& checks) {
    const Patience patience(50'000, 1'000'000'000);
    for (Index round = 0; round < kRounds; ++round) {
        unrolled::CancelFlag cancel{[](unrolled::CancelFlag&) {}};
        Rounds rounds(parts, true, &cancel);
        Parts all(parts);
        Index seen = 0;
        rounds.run(
            [&](Index k) {
                if (k == 1 && seen++ == round) {
                    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // others leave
                    __atomic_store_n(&cancel.cancelled, 1, __ATOMIC_RELAXED);
                }
                if (__atomic_load_n(&cancel.cancelled, __ATOMIC_RELAXED)) return false;
                return all.advance(k, {-1, 0});
            },
            [](Index) {});
        checks.that(cancel.cancelled == 1, "a cancelled sweep returns");
    }
}

// Busy neighbours, two for each core.
class Neighbours {
public:
    Neighbours() {
        for (unsigned k = 0; k < 2 * std::max(1u, std::thread::hardware_concurrency()); ++k)
            threads_.emplace_back([this] {
                while (!stop_) {
                }
            });
    }
    ~Neighbours() {
        stop_ = true;
        for (std::thread& thread : threads_) thread.join();
    }

private:
    std::atomic<bool> stop_{false};
    std::vector<std::thread> threads_;
};

Results trained(const Problem& problem, int threads, const unrolled::Build& build) {
    Run<float> run(problem, threads);
    run.train(build);
    Results results = run.results();
    Run<float> inference(problem, threads);
    inference.forward(build);
    for (Result& result : inference.results()) results.push_back(result);
    return results;
}

// Whole sweeps give the bits of one thread however often threads leave and return: dense, ragged, streams.
void check_sweeps(const std::vector<Text>& texts, const unrolled::Build& build, bool quick, Checks& checks) {
    const Sizes all[] = {{12, 1, 260, 200, Layout::time, false}, {14, 3, 150, 160, Layout::ragged, true}};
    for (const Text& text : texts) {
        if (text.name != "LSTM" && text.name != "GRU" && text.name != "PeepholeLSTM") continue;
        for (const Sizes& sizes : all) {
            const unrolled::Program program = load(text.text, sizes.H, sizes.I);
            const Problem problem(program, sizes, 1);
            const std::string label = text.name + " " + sizes.name() + " " + build.name;
            const Results expected = trained(problem, 1, build);
            for (int repeat = 0; repeat < (quick ? 3 : 20); ++repeat)
                for (int threads : {2, 3, 8})
                    for (Index distrust : {0, 200'000}) {
                        const Patience patience(repeat % 2 ? 20'000 : 0, distrust);
                        checks.that(same(trained(problem, threads, build), expected),
                                    label + ": other bits where " + std::to_string(threads) +
                                        " threads leave and return");
                    }
            if (problem.ragged) continue;
            const auto format = unrolled::WeightFormat::float32;
            const Results steps = Run<float>(problem, 1).steps(build, format, 1);
            for (Index distrust : {0, 200'000, 1'000'000'000}) {
                const Patience patience(0, distrust);
                checks.that(same(Run<float>(problem, 1).steps(build, format, 3), steps),
                            label + ": other bits in a stream whose threads are late");
            }
        }
    }
}

std::vector<int> allowed_cores() {
    cpu_set_t set;
    std::vector<int> cores;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
    for (int core = 0; core < CPU_SETSIZE; ++core)
        if (CPU_ISSET(core, &set)) cores.push_back(core);
    return cores;
}

// A thread that leaves a core may return there, and stays where it is if it may use no other one.
void check_leaving_a_core(Checks& checks) {
    const std::vector<int> allowed = allowed_cores();
    for (int core : allowed) {
        unrolled::leave_core(core);
        checks.that(allowed_cores() == allowed, "leave_core: other cores are allowed");
    }
    cpu_set_t only, before;
    sched_getaffinity(0, sizeof before, &before);
    CPU_ZERO(&only);
    CPU_SET(allowed.front(), &only);
    sched_setaffinity(0, sizeof only, &only);
    unrolled::leave_core(allowed.front());
    checks.that(allowed_cores() == std::vector<int>{allowed.front()}, "leave_core: of one core");
    check_delays(2, true, 100'000, 0, checks);  // two threads on one core
    sched_setaffinity(0, sizeof before, &before);
}

}  // namespace

void check_rounds(const std::vector<Text>& texts, const unrolled::Build& build, bool quick, Checks& checks) {
    check_trust(checks);
    for (Index parts : {1, 2, 3, 7}) {
        for (Index distrust : {0, 100'000, 1'000'000'000})
            check_delays(parts, true, 100'000, distrust, checks);
        check_delays(parts, true, 0, 0, checks);
        check_delays(parts, false, -1, -1, checks);
        if (parts > 1) check_cancelled(parts, checks);
    }
    check_sweeps(texts, build, quick, checks);
    check_leaving_a_core(checks);
    const Neighbours neighbours;
    check_delays(3, true, -1, -1, checks);
    check_sweeps(texts, build, quick, checks);
}

}  // namespace core_test
