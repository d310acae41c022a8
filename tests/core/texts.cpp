// Damaged texts of programs: parse() throws std::invalid_argument, or the program runs like any other, within
// its arrays and with the numbers of the naive reference.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "mutate.h"
#include "naive_reference.h"
#include "run.h"
#include "suite.h"

namespace core_test {
namespace {

// A valid program with each kind of line; the faults below are changes of it.
const char* const kSound =
    "unrolled-program 1\n"
    "state H\n"
    "vector H\n"
    "vector P\n"
    "input 1 H\n"
    "product 1 H H\n"
    "node state H 0\n"
    "node x H 0\n"
    "node product H 0 0 0\n"
    "node vector H 0\n"
    "node add H 1 2\n"
    "node avg 1 4\n"
    "node mul H 4 3\n"
    "node add H 6 5\n"
    "node tnh H 7\n"
    "node vector P 1\n"
    "node grad H 0\n"
    "node const 1 1.0\n"
    "node mul H 8 8\n"
    "node sub H 11 12\n"
    "node mul H 10 13\n"
    "node mul H 14 4\n"
    "node mul H 14 3\n"
    "node transposed H 0 1 0 16\n"
    "forward 8\n"
    "stored 4\n"
    "source 0\n"
    "dx 16\n"
    "dproduct 16\n"
    "dstate 17\n"
    "dvector 15 -\n";

struct Fault {
    const char* from;
    const char* to;
};

const Fault kFaults[] = {
    // Lines that are missing, duplicated or too long.
    {"unrolled-program 1", "unrolled-program 0"},
    {"unrolled-program 1", "unrolled-program 3"},
    {"unrolled-program 1", "unrolled-program 1 1"},
    {"state H\n", ""},
    {"state H\n", "state H H\n"},
    {"state H\n", "\nstate H\n"},
    {"input 1 H\n", "input 1 H\ninput 1 H\n"},
    {"forward 8\n", "forward 8\nforward 8\n"},
    {"stored 4\n", "stored 4\nstored 4\n"},
    {"node tnh H 7\n", "node tnh H 7 7\n"},
    {"node const 1 1.0\n", "node const 1 1.0 2\n"},
    {"node x H 0\n", "node x H 0 1\n"},
    {"node transposed H 0 1 0 16\n", "node transposed H 0 1 0 16 16\n"},
    {"dvector 15 -\n", "dvector 15\n"},
    {"dvector 15 -\n", ""},
    {"dproduct 16\n", ""},
    {"dproduct 16\n", "dproduct 16 16\n"},
    // Numbers.
    {"state H", "state -4"},
    {"state H", "state 0x10"},
    {"state H", "state 99999999999999999999"},
    {"product 1 H H", "product 1 H 1000000000"},
    {"product 1 H H", "product 0 H H"},
    {"input 1 H", "input 0 H"},
    {"input 1 H", "input 1 0"},
    {"product 1 H H", "product 1 0 H"},
    {"input 1 H", "input 1000000000 H"},
    {"const 1 1.0", "const 1 one"},
    {"const 1 1.0", "const 1 1.0e"},
    {"const 1 1.0", "const 1 1,0"},
    // Widths.
    {"node const 1 1.0", "node const H 1.0"},
    {"node const 1 1.0", "node size H H"},
    {"node state H 0", "node state 1 0"},
    {"node state H 0", "node state P 0"},
    {"node grad H 0", "node grad 1 0"},
    {"node vector H 0", "node vector P 0"},
    {"node x H 0", "node x P 0"},
    {"node avg 1 4", "node avg H 4"},
    {"node mul H 4 3", "node mul P 4 3"},
    {"product 1 H H", "product 1 P H"},
    {"product 1 H H", "product 1 H P"},
    {"forward 8", "forward 9"},
    {"forward 8", "forward 5"},
    {"dx 16", "dx 9"},
    {"dproduct 16", "dproduct 9"},
    {"dstate 17", "dstate 9"},
    {"dvector 15 -", "dvector 9 -"},
    {"dvector 15 -", "dvector 15 15"},
    // Nodes that do not exist, or are not allowed there.
    {"node avg 1 4", "node avg 1 -"},
    {"node mul H 4 3", "node mul H 4 -"},
    {"node mul H 4 3", "node mul H 4 6"},
    {"node mul H 4 3", "node mul H 4"},
    {"node tnh H 7", "node tnh H"},
    {"node tnh H 7", "node sin H 7"},
    {"node x H 0", "node x H 1"},
    {"node product H 0 0 0", "node product H 1 0 0"},
    {"node product H 0 0 0", "node product H 0 1 0"},
    {"node product H 0 0 0", "node product H 0 0 1"},
    {"node product H 0 0 0", "node product H 0 0 -"},
    {"forward 8", "forward -"},
    {"forward 8", "forward 10"},
    {"forward 8", "forward 14"},
    {"forward 8", "forward 17"},
    {"stored 4", "stored -"},
    {"stored 4", "stored 4 4"},
    {"stored 4", "stored 10"},
    {"stored 4", "stored 17"},
    {"stored 4", "stored"},
    {"source 0", "source -"},
    {"source 0", "source 3"},
    {"dx 16", "dx 1"},
    {"dx 16", "dx 2"},
    // Each input block, product and transposed product is one node.
    {"node avg 1 4", "node x H 0"},
    {"node vector P 1", "node product H 0 0 0"},
    {"node mul H 14 4", "node transposed H 0 1 0 14"},
    {"transposed H 0 1 0 16", "transposed H 0 0"},
    {"transposed H 0 1 0 16", "transposed H 0 2 0 0 16 16"},
    {"transposed H 0 1 0 16", "transposed H 0 1 0 15"},
    {"transposed H 0 1 0 16", "transposed H 0 1 0 10"},
    {"dproduct 16", "dproduct -"},
    // Blocks on the diagonal, which version 1 does not have.
    {"product 1 H H", "product 1 H H 2"},
    {"input 1 H", "input 1 H 1"},
};

// The same in a text of version 2, with H = 4, P = 2 and I = 3.
const Fault kBlockFaults[] = {
    {"product 1 H H", "product 1 H H 0"}, {"product 1 H H", "product 1 H H -2"},
    {"product 1 H H", "product 1 H H 3"}, {"product 1 H H", "product 1 H H 8"},
    {"product 1 H H", "product 1 H H H"}, {"product 1 H H", "product 1 H H 2 2"},
    {"product 1 H H", "product 1 H 6 4"}, {"input 1 H", "input 1 H 2"},
    {"input 1 H", "input 1 H 0"},         {"input 1 H", "input 1 H 3"},
};

bool accepted(const std::string& text, Index H, Index P) {
    try {
        unrolled::parse(text, H, P, 3);
        return true;
    } catch (const std::invalid_argument&) {
        return false;
    }
}

std::string changed(const Fault& fault, std::string text = kSound) {
    const std::size_t at = text.find(fault.from);
    return text.replace(at, std::string(fault.from).size(), fault.to);
}

void check_faults(Checks& checks) {
    checks.that(accepted(kSound, 4, 2), "a sound text is refused");
    for (const Fault& fault : kFaults)
        checks.that(!accepted(changed(fault), 4, 2),
                    std::string("accepted: `") + fault.to + "` for `" + fault.from + "`");
    const std::string blocks =
        changed({"product 1 H H", "product 1 H H 2"}, changed({"program 1", "program 2"}));
    checks.that(accepted(blocks, 4, 2), "a sound text with blocks is refused");
    for (const Fault& fault : kBlockFaults)
        checks.that(!accepted(changed(fault, changed({"program 1", "program 2"})), 4, 2),
                    std::string("accepted in version 2: `") + fault.to + "` for `" + fault.from + "`");
    for (Index H : {Index(-1), Index(0), Index(1) << 40, Index(1) << 62})
        checks.that(!accepted(kSound, H, 2), "a width that is out of range is accepted");
    std::string text = kSound;
    for (int k = 0; k < 100000; ++k) text += "node const 1 1.0\n";
    checks.that(!accepted(text, 4, 2), "too many nodes are accepted");
}

// Sizes small enough for a test.
bool small(const unrolled::Program& program) {
    Index numbers = program.x_parts * program.x_width;
    for (Index width : program.states) numbers += width;
    for (Index width : program.vectors) numbers += width;
    for (const auto& p : program.products) numbers += p.parts * p.width * (1 + p.source);
    for (const auto& node : program.nodes) numbers += node.width;
    return numbers < 30000;
}

// Numbers next to those of a problem: the change of the results bounds the effect of rounding.
Problem nudged(Problem problem, Random& random) {
    auto nudge = [&](Array& array) {
        for (double& x : array.values) x *= 1 + random.uniform(-1e-12, 1e-12);
    };
    for (Weights& w : problem.weights) {
        nudge(w.weight);
        nudge(w.bias);
    }
    for (auto* arrays : {&problem.vectors, &problem.initial, &problem.grad_final})
        for (Array& array : *arrays) nudge(array);
    nudge(problem.tokens);
    nudge(problem.grad_output);
    return problem;
}

// Where results are finite and well-conditioned.
bool agrees(const Vector& actual, const Vector& expected, const Vector& near) {
    for (std::size_t k = 0; k < expected.size(); ++k) {
        if (!std::isfinite(expected[k]) || !std::isfinite(near[k])) continue;
        const double moved = std::fabs(near[k] - expected[k]);
        const double tolerance = 1e-9 * (1 + std::fabs(expected[k])) + 1e5 * moved;
        if (!(std::fabs(actual[k] - expected[k]) <= tolerance)) return false;
    }
    return true;
}

template <class T>
Results train(const Problem& problem, Subject& subject, const std::string& label) {
    Run<T> run(problem, 1);
    run.train(*subject.build);
    subject.checks.that(run.fault().empty(), label + ": " + run.fault());
    return run.results();
}

void run_accepted(const unrolled::Program& program, Index I, Random& random, const std::string& label,
                  std::vector<Subject>& subjects) {
    const auto layout = static_cast<Layout>(random.below(5));
    const Sizes sizes{1 + random.below(4), 1 + random.below(9), I, program.H, layout, random.coin()};
    const Problem problem(program, sizes, random.next());
    const Results expected = solve(problem), near = solve(nudged(problem, random));
    for (Subject& subject : subjects) {
        train<float>(problem, subject, label);
        const Results found = train<double>(problem, subject, label);
        for (std::size_t k = 0; k < expected.size(); ++k)
            subject.checks.that(agrees(found[k].values, expected[k].values, near[k].values),
                                label + ": " + subject.build->name + ": " + expected[k].name);
    }
}

void check_mutants(const Text& text, Index count, std::vector<Subject>& subjects, Checks& checks) {
    static const Index widths[][2] = {{5, 3}, {1, 1}, {17, 9}, {4, 4}, {2, 1}};
    Random random(text.text.size());
    for (Index k = 0; k < count; ++k) {
        const std::string mutant = mutate(text.text, random);
        const Index* const HP = widths[random.below(5)];
        const Index I = 1 + random.below(3);
        const std::string label = text.name + ", mutant " + std::to_string(k);
        try {
            const unrolled::Program program = unrolled::parse(mutant, HP[0], HP[1], I);
            checks.that(true, label);
            if (small(program)) run_accepted(program, I, random, label, subjects);
        } catch (const std::invalid_argument&) {
            checks.that(true, label);
        }
    }
}

}  // namespace

void check_texts(const std::vector<Text>& texts, bool quick, std::vector<Subject>& subjects, Checks& checks) {
    check_faults(checks);
    for (const Text& text : texts) check_mutants(text, quick ? 60 : 300, subjects, checks);
    check_mutants({"sound", kSound}, quick ? 300 : 2000, subjects, checks);
}

}  // namespace core_test
