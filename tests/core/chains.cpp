// Chains of every program, with lines wider than a step's own room and with pools: steps take no
// memory, and a row's numbers are those that it has alone. Only where memory is guarded.
#include <cstring>
#include <deque>
#include <new>
#include <stdexcept>

#include "model/streaming.h"
#include "guarded.h"
#include "suite.h"

namespace {

std::atomic<long> taken{0};

}  // namespace

// All of the program's, so that none is missed.
void* operator new(std::size_t bytes) {
    ++taken;
    if (void* const found = std::malloc(bytes ? bytes : 1)) return found;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace core_test {
namespace {

using namespace unrolled;

constexpr Index kInputs = 5, kWide = 2500, kKeys = 7, kOutputs = 3;

class Numbers {
public:
    Floats make(Index count) {
        std::vector<float>& made = made_.emplace_back();
        for (Index k = 0; k < count; ++k) made.push_back(static_cast<float>(random_.uniform(-1, 1)));
        return {made.data(), count};
    }

private:
    std::deque<std::vector<float>> made_;
    Random random_{3};
};

Layer layer_of(const Program& p, Numbers& numbers, Kept kept, const std::string& build) {
    std::vector<Floats> arrays;
    const auto add = [&](Index rows, Index columns) {
        arrays.push_back(numbers.make(rows * columns));
        arrays.push_back(numbers.make(rows));
    };
    add(p.x_parts * p.x_width, kInputs);
    for (const Product& q : p.products) add(q.parts * q.width, q.source);
    for (Index width : p.vectors) arrays.push_back(numbers.make(width));
    return Layer(p, kInputs, arrays, kept, build);
}

// A layer, a wide line, a mean by attention, a narrow line, softmax.
class Model {
public:
    Model(const Program& p, Kept kept, const std::string& build)
        : layer_(layer_of(p, numbers_, kept, build)), wide_(line(kWide, layer_.width(), kept, build)),
          keys_(line(kKeys, kWide, kept, build)), query_(line(1, kKeys, kept, build)),
          pooling_("attention", kWide, &keys_, &query_),
          narrow_(line(kOutputs, kWide, kept, build)) {
        Stage layer, wide, pooling, narrow, softmax;
        layer.layer = &layer_;
        for (Index width : p.states) layer.start.push_back(numbers_.make(width));
        wide.line = &wide_;
        pooling.pooling = &pooling_;
        narrow.line = &narrow_;
        softmax.activation = Activation::softmax;
        stages_ = {layer, wide, pooling, narrow, softmax};
    }

    std::unique_ptr<Chain> chain(Index N) const {
        Source source;
        source.width = kInputs;
        return std::make_unique<Chain>(source, stages_, N, 1);
    }

private:
    Line line(Index width, Index source, Kept kept, const std::string& build) {
        return Line(numbers_.make(width * source), numbers_.make(width), width, source, kept, build);
    }

    Numbers numbers_;
    Layer layer_;
    Line wide_, keys_, query_;
    Pooling pooling_;
    Line narrow_;
    std::vector<Stage> stages_;
};

using Row = std::vector<float>;

// The outputs of some steps, between which sequences begin anew and states are copied.
std::vector<Row> steps(Chain& chain, Chain& other, const std::vector<Row>& x, Row& state) {
    std::vector<Row> made(x.size(), Row(static_cast<std::size_t>(chain.batch() * kOutputs)));
    const long before = taken;
    blocks_left = 0;
    for (std::size_t t = 0; t < x.size(); ++t) {
        chain.step(x[t].data(), made[t].data());
        if (t == 2) chain.reset(0);
        other.take(chain);
        chain.take(other);
        for (std::size_t k = 0; k < chain.states(); ++k) {
            chain.read_state(k, state.data());
            chain.write_state(k, state.data());
        }
    }
    blocks_left = 1L << 40;
    if (taken != before) throw std::runtime_error("a step takes memory");
    return made;
}

std::vector<Row> run(const Model& model, Index N, Index first, const std::vector<Row>& x) {
    const std::unique_ptr<Chain> chain = model.chain(N), other = model.chain(N);
    std::vector<Row> given;
    for (const Row& row : x)
        given.emplace_back(row.begin() + first * kInputs, row.begin() + (first + N) * kInputs);
    Row state(static_cast<std::size_t>(N * 2 * kWide));  // the largest: sums in two floats each
    return steps(*chain, *other, given, state);
}

void check_chain(const Model& model, Index N, const std::string& label, Checks& checks) {
    Random random(9);
    std::vector<Row> x(4);
    for (Row& row : x)
        for (Index k = 0; k < N * kInputs; ++k)
            row.push_back(static_cast<float>(random.uniform(-1, 1)));
    const std::vector<Row> together = run(model, N, 0, x), alone = run(model, 1, 0, x);
    for (std::size_t t = 0; t < x.size(); ++t)
        checks.that(!std::memcmp(together[t].data(), alone[t].data(), kOutputs * sizeof(float)),
                    label + ": other numbers in a batch");
}

void check_turns(const Text& text, const Build& build, Checks& checks) {
    const Program program = load(text.text, 9, kInputs);
    const Model model(program, Kept::own, build.name);
    const std::unique_ptr<Chain> chain = model.chain(1), other = model.chain(1);
    {
        const Chain::Turn mine(*chain), theirs(*chain), elsewhere(*other);
        checks.that(mine && !theirs && elsewhere, "two threads in one chain");
    }
    checks.that(static_cast<bool>(Chain::Turn(*chain)), "a turn that does not end");
}

}  // namespace

void check_chains(const std::vector<Text>& texts, const Build& build, Checks& checks) {
    check_turns(texts.front(), build, checks);
    for (const Text& text : texts) {
        const Program program = load(text.text, 9, kInputs);
        const std::string label = std::string(build.name) + ", chain of " + text.name;
        const bool all = text.name == "LSTM";
        for (Kept kept : {Kept::own, Kept::bfloat16, Kept::int8}) {
            if (kept != Kept::own && !all) continue;
            try {
                const Model model(program, kept, build.name);
                for (Index N : {Index(3), Index(17)})
                    if (N == 3 || all) check_chain(model, N, label, checks);
            } catch (const std::exception& error) {
                blocks_left = 1L << 40;
                checks.that(false, label + ": " + error.what());
            }
        }
    }
}

}  // namespace core_test
