// Allocation fails at each block in turn: a sweep throws std::bad_alloc on any number of threads, releases
// its memory and leaves its inputs unchanged. Only with guarded memory.
#include <new>

#include "run.h"
#include "suite.h"

namespace core_test {
namespace {

constexpr long kPlenty = 1L << 40;

// One thread; two that share the sequences of a ragged batch, the units, or two directions.
const Sizes kSizes[] = {
    {5, 3, 7, 9, Layout::batch, false},
    {21, 13, 30, 72, Layout::ragged, false},
    {12, 1, 160, 100, Layout::reversed, false},
};

void check_case(const Problem& problem, int threads, bool both, const unrolled::Build& build,
                const std::string& label, Checks& checks) {
    Run<float> whole(problem, threads);
    whole.train(build);
    const Results expected = whole.results();
    bool enough = false;
    long left = 0;
    for (; !enough; ++left) {
        Run<float> first(problem, threads), second(problem, threads);
        blocks_left = left;
        try {
            if (both) Run<float>::train(build, {&first, &second});
            else first.train(build);
            enough = true;
        } catch (const std::bad_alloc&) {
        }
        blocks_left = kPlenty;
        checks.that(blocks_out == 0, label + ": a block is lost");
        checks.that(first.fault().empty(), label + ": " + first.fault());
        if (enough) checks.that(same(first.results(), expected), label + ": other numbers");
    }
    checks.that(left > 20, label + ": nothing was refused");
}

// Inside another parallel region a sweep gets one thread, and a snapshot packs for it inside the region: an
// exception that left the region would end the process.
void check_smaller_team(const Problem& problem, const unrolled::Build& build, const std::string& label,
                        Checks& checks) {
    bool enough = false;
    long left = 0;
    for (; !enough; ++left) {
        Run<float> run(problem, 2);
#pragma omp parallel num_threads(2)
        {
#pragma omp master
            {
                blocks_left = left;
                try {
                    run.snapshot(build, unrolled::WeightFormat::float32);
                    enough = true;
                } catch (const std::bad_alloc&) {
                }
                blocks_left = kPlenty;
            }
        }
        checks.that(blocks_out == 0, label + ": a block of a smaller team is lost");
    }
    checks.that(left > 20, label + ": nothing was refused to a smaller team");
}

}  // namespace

void check_shortage(const std::vector<Text>& texts, const unrolled::Build& build, Checks& checks) {
    for (const Text& text : texts) {
        if (text.name != "LSTM" && text.name != "LayerNormGRU" && text.name != "Functions") continue;
        for (const Sizes& sizes : kSizes) {
            const unrolled::Program program = load(text.text, sizes.H, sizes.I);
            const Problem problem(program, sizes, 1);
            if (text.name == "LSTM" && sizes.N == 1)
                check_smaller_team(problem, build, text.name + " " + sizes.name(), checks);
            for (int threads = 1; threads <= 3; ++threads)
                for (bool both : {false, true})
                    check_case(problem, threads, both, build, text.name + " " + sizes.name(), checks);
        }
    }
}

}  // namespace core_test
