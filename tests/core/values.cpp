// Every build against the naive reference: sizes around each width of vector, layouts, threads.
#include <cmath>
#include <cstring>

#include "naive_reference.h"
#include "run.h"
#include "suite.h"

namespace core_test {
namespace {

// Around the widths of vectors and panels; more sequences and more steps than a chunk has tokens; threads
// that share the units (few sequences) or the sequences; no sequence; no input.
const Sizes kQuick[] = {
    {1, 1, 3, 5, Layout::time, false},      {2, 7, 33, 65, Layout::batch, false},
    {5, 3, 7, 9, Layout::reversed, false},  {9, 1, 40, 100, Layout::reversed, true},
    {12, 9, 5, 17, Layout::ragged, false},  {12, 1, 340, 300, Layout::time, false},
    {21, 13, 30, 72, Layout::ragged, true}, {3, 0, 4, 5, Layout::time, false},
    {2, 3, 0, 4, Layout::batch, false},     {3, 2, 2, 1, Layout::table, false},
    {3, 300, 2, 6, Layout::time, false},
};

const Sizes kMore[] = {
    {30, 5, 10, 20, Layout::time, false},    {30, 5, 10, 20, Layout::ragged, true},
    {7, 6, 16, 32, Layout::table, true},     {1, 20, 4, 48, Layout::batch, false},
    {270, 1, 2, 4, Layout::reversed, false}, {1, 3, 1, 16, Layout::reversed, true},
    {25, 24, 24, 64, Layout::batch, true},   {40, 2, 31, 127, Layout::table, false},
    {1, 1, 1, 1, Layout::time, true},        {4, 3, 16, 16, Layout::ragged, false},
    {2, 8, 17, 24, Layout::time, true},      {6, 12, 100, 31, Layout::ragged, false},
};

// The error relative to the largest number of an array.
template <class T>
constexpr double kLimit = sizeof(T) == sizeof(float) ? 1e-4 : 1e-11;

bool agrees(const Vector& actual, const Vector& expected, double limit) {
    double scale = 1e-2;
    for (double x : expected)
        if (std::isfinite(x)) scale = std::max(scale, std::fabs(x));
    for (std::size_t k = 0; k < expected.size(); ++k) {
        if (std::isnan(expected[k]) && std::isnan(actual[k])) continue;
        if (!(std::fabs(actual[k] - expected[k]) <= limit * scale)) return false;
    }
    return true;
}

bool same_bits(const Vector& a, const Vector& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

template <class T>
Results train(const Problem& problem, int threads, Subject& subject, const std::string& label) {
    Run<T> run(problem, threads);
    run.train(*subject.build);
    const std::string fault = run.fault();
    subject.checks.that(fault.empty(), label + ": " + fault);
    return run.results();
}

// Gradients of each sequence, or of every third one, add up to those of all.
template <class T>
void check_groups(const Problem& problem, const Results& expected, Subject& subject,
                  const std::string& label) {
    for (Index groups : {problem.N, problem.N / 3}) {
        if (problem.ragged || groups < 2 || problem.N % groups) continue;
        Run<T> run(problem, 2, groups);
        run.train(*subject.build);
        subject.checks.that(run.fault().empty(), label + " in groups: " + run.fault());
        const Results actual = run.results();
        for (std::size_t k = 0; k < expected.size(); ++k) {
            Vector sum(expected[k].values.size());
            const std::size_t parts = sum.empty() ? 1 : actual[k].values.size() / sum.size();
            for (std::size_t i = 0; i < actual[k].values.size(); ++i)
                sum[parts > 1 ? i % sum.size() : i] += actual[k].values[i];
            subject.checks.that(agrees(sum, expected[k].values, kLimit<T>),
                                label + " in groups: " + expected[k].name);
        }
    }
}

template <class T>
void check_build(const Problem& problem, const Results& expected, Subject& subject, const std::string& what,
                 bool quick) {
    const std::string label =
        what + " " + subject.build->name + (sizeof(T) == sizeof(float) ? " float" : " double");
    const Results one = train<T>(problem, 1, subject, label);
    for (std::size_t k = 0; k < expected.size(); ++k)
        subject.checks.that(one[k].values.size() == expected[k].values.size() &&
                                agrees(one[k].values, expected[k].values, kLimit<T>),
                            label + ": " + expected[k].name);
    for (int threads = 2; threads <= (quick ? 2 : 3); ++threads) {
        const Results more = train<T>(problem, threads, subject, label);
        for (std::size_t k = 0; k < expected.size(); ++k)
            subject.checks.that(
                same_bits(one[k].values, more[k].values),
                label + ": " + expected[k].name + " on " + std::to_string(threads) + " threads");
    }
    for (std::size_t count : {2, 5}) {
        std::vector<std::unique_ptr<Run<T>>> runs;
        std::vector<Run<T>*> all;
        for (std::size_t k = 0; k < count; ++k) {
            runs.push_back(std::make_unique<Run<T>>(problem, 2));
            all.push_back(runs.back().get());
        }
        Run<T>::train(*subject.build, all);
        const std::string at_once = label + ": " + std::to_string(count) + " at once: ";
        for (Run<T>* run : all) {
            subject.checks.that(run->fault().empty(), at_once + run->fault());
            const Results actual = run->results();
            for (std::size_t k = 0; k < expected.size(); ++k)
                subject.checks.that(same_bits(one[k].values, actual[k].values), at_once + expected[k].name);
        }
    }
    check_groups<T>(problem, expected, subject, label);
    Run<T> run(problem, 2);
    run.forward(*subject.build);
    subject.checks.that(run.fault().empty(), label + ": inference: " + run.fault());
    const Results inference = run.results();
    for (std::size_t k = 0; k < inference.size(); ++k)
        subject.checks.that(same_bits(inference[k].values, one[k].values),
                            label + ": inference: " + expected[k].name);
}

// Packed weights: the same numbers on any number of threads, and steps equal the whole to the bit.
void check_snapshots(const Problem& problem, const Results& expected, Subject& subject,
                     const std::string& what) {
    const std::string label = what + " " + subject.build->name + " snapshot";
    const bool whole = !problem.ragged && !problem.tabled && problem.base == 0 && problem.step == problem.N &&
                       problem.N > 0 && problem.I > 0;
    for (unrolled::WeightFormat format :
         {unrolled::WeightFormat::float32, unrolled::WeightFormat::bfloat16, unrolled::WeightFormat::int8}) {
        std::vector<Results> actual;
        for (int threads : {1, 2}) {
            Run<float> run(problem, threads);
            run.snapshot(*subject.build, format);
            subject.checks.that(run.fault().empty(), label + ": " + run.fault());
            actual.push_back(run.results());
        }
        for (std::size_t k = 0; k < actual[0].size(); ++k) {
            const std::string name = label + ": " + expected[k].name;
            subject.checks.that(same_bits(actual[0][k].values, actual[1][k].values), name);
            if (format == unrolled::WeightFormat::float32)
                subject.checks.that(agrees(actual[0][k].values, expected[k].values, kLimit<float>), name);
        }
        if (!whole) continue;
        for (Index threads : {1, 2, 3}) {
            const Results steps = Run<float>(problem, 1).steps(*subject.build, format, threads);
            for (std::size_t k = 0; k < steps.size(); ++k)
                subject.checks.that(same_bits(steps[k].values, actual[0][k].values),
                                    label + ": steps: " + expected[k].name);
        }
    }
}

// Subnormal numbers are flushed within a sweep, and not after it.
bool has_subnormals() {
    volatile float small = 1e-38f;
    return small * 0.01f > 0;
}

void check_case(const Text& text, const Sizes& sizes, bool quick, std::vector<Subject>& subjects) {
    if (sizes.I == 0 && text.text.find('I') != std::string::npos) return;  // a width of 0
    const unrolled::Program program = load(text.text, sizes.H, sizes.I);
    const Problem problem(program, sizes, 1);
    const Results expected = solve(problem);
    for (Subject& subject : subjects) {
        const std::string what = text.name + " " + sizes.name();
        check_build<float>(problem, expected, subject, what, quick);
        check_build<double>(problem, expected, subject, what, quick);
        check_snapshots(problem, expected, subject, what);
        subject.checks.that(has_subnormals(), what + ": subnormal numbers are still flushed");
    }
}

}  // namespace

void check_values(const std::vector<Text>& texts, bool quick, std::vector<Subject>& subjects) {
    for (const Text& text : texts) {
        for (const Sizes& sizes : kQuick) check_case(text, sizes, quick, subjects);
        if (quick) continue;
        for (const Sizes& sizes : kMore) check_case(text, sizes, quick, subjects);
    }
}

}  // namespace core_test
