// A sequence's results do not depend on how many others there are: every number of rows of a tile, and every
// division among threads, gives the same bits.
#include <algorithm>
#include <cstring>

#include "run.h"
#include "suite.h"

namespace core_test {
namespace {

constexpr Index kMostRows = 40;
constexpr Index kSteps = 9;  // more tokens than are multiplied without packing

// The first `N` sequences of a problem in batch-first layout.
Problem first_sequences(const Problem& all, Index N) {
    Problem some = all;
    some.N = N;
    some.total = some.rows = N * all.T;
    std::fill(some.sizes.begin(), some.sizes.end(), N);
    const auto cut = [&](Array& array) {
        array.values.resize(array.values.size() / static_cast<std::size_t>(all.N) *
                            static_cast<std::size_t>(N));
    };
    cut(some.tokens);
    cut(some.grad_output);
    for (Array& state : some.initial) cut(state);
    for (Array& state : some.grad_final) cut(state);
    return some;
}

// Whether results of sequences begin those of all sequences.
bool begins(const Vector& some, const Vector& all) {
    return some.size() <= all.size() &&
           (some.empty() || std::memcmp(some.data(), all.data(), some.size() * sizeof(double)) == 0);
}

bool is_of_sequences(const std::string& name) {
    return name == "output" || name == "final state" || name == "gradient of tokens" ||
           name == "gradient of initial state";
}

template <class T>
Results train(const Problem& problem, int threads, const Subject& subject) {
    Run<T> run(problem, threads);
    run.train(*subject.build);
    return run.results();
}

template <class T>
void check_width(const Text& text, Index H, int most_threads, Subject& subject) {
    const Index I = H / 2 + 2;
    const unrolled::Program program = load(text.text, H, I);
    const Problem all(program, {kSteps, kMostRows, I, H, Layout::batch, false}, 1);
    const Results expected = train<T>(all, 1, subject);
    for (Index N = 1; N < kMostRows; ++N) {
        const Problem some = first_sequences(all, N);
        for (int threads = 1; threads <= most_threads; ++threads) {
            const Results actual = train<T>(some, threads, subject);
            for (std::size_t k = 0; k < actual.size(); ++k)
                if (is_of_sequences(actual[k].name))
                    subject.checks.that(begins(actual[k].values, expected[k].values),
                                        text.name + " " + subject.build->name + " H=" + std::to_string(H) +
                                            " N=" + std::to_string(N) + " of " + std::to_string(kMostRows) +
                                            " on " + std::to_string(threads) + " threads: " + actual[k].name);
        }
    }
}

}  // namespace

void check_rows(const std::vector<Text>& texts, bool quick, std::vector<Subject>& subjects) {
    for (const Text& text : texts) {
        if (text.name != "RNN" && text.name != "GRU" && text.name != "LSTM") continue;
        for (const Index H : {33, 5, 100}) {
            for (Subject& subject : subjects) {
                check_width<float>(text, H, quick ? 2 : 3, subject);
                if (!quick) check_width<double>(text, H, 3, subject);
            }
            if (quick) break;
        }
    }
}

}  // namespace core_test
