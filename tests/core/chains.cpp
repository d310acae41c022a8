// Pipelines of every program, with linear maps wider than a step's stack buffer and with poolings: steps
// allocate no memory, and the results of a sequence do not depend on the others. Only with guarded memory.
#include <cstring>
#include <deque>
#include <new>
#include <stdexcept>

#include "guarded.h"
#include "model/streaming.h"
#include "suite.h"

namespace {

std::atomic<long> allocations{0};

}  // namespace

// Arrays of all parameters.
// Never inlined: GCC inlines only some of them with sanitizers, and then warns of pairs that do not match.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* const actual = std::malloc(bytes ? bytes : 1)) return actual;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace core_test {
namespace {

using namespace unrolled;

constexpr Index kInputs = 5, kWide = 2500, kKeys = 7, kOutputs = 3;

class Numbers {
public:
    FloatView make(Index count) {
        std::vector<float>& result = made_.emplace_back();
        for (Index k = 0; k < count; ++k) result.push_back(static_cast<float>(random_.uniform(-1, 1)));
        return {result.data(), count};
    }

private:
    std::deque<std::vector<float>> made_;
    Random random_{3};
};

Layer layer_of(const Program& p, Numbers& numbers, WeightFormat format, const std::string& build) {
    std::vector<FloatView> arrays;
    const auto add = [&](Index rows, Index columns) {
        arrays.push_back(numbers.make(rows * columns));
        arrays.push_back(numbers.make(rows));
    };
    add(p.x_parts * p.x_width, kInputs);
    for (const Product& q : p.products) add(q.parts * q.width, q.columns);
    for (Index width : p.vectors) arrays.push_back(numbers.make(width));
    return Layer(p, kInputs, arrays, format, build);
}

// A layer, a wide linear map, attention, a narrow linear map, softmax.
class Model {
public:
    Model(const Program& p, WeightFormat format, const std::string& build)
        : layer_(layer_of(p, numbers_, format, build)),
          wide_(linear(kWide, layer_.width(), format, build)),
          keys_(linear(kKeys, kWide, format, build)),
          query_(linear(1, kKeys, format, build)),
          pooling_("attention", kWide, &keys_, &query_),
          narrow_(linear(kOutputs, kWide, format, build)) {
        Block layer, wide, pooling, narrow, softmax;
        layer.layer = &layer_;
        for (Index width : p.states) layer.start.push_back(numbers_.make(width));
        wide.linear = &wide_;
        pooling.pooling = &pooling_;
        narrow.linear = &narrow_;
        softmax.activation = Activation::softmax;
        blocks_ = {layer, wide, pooling, narrow, softmax};
    }

    std::unique_ptr<Pipeline> pipeline(Index N) const {
        Source source;
        source.width = kInputs;
        return std::make_unique<Pipeline>(source, blocks_, N, 1);
    }

private:
    Linear linear(Index width, Index source, WeightFormat format, const std::string& build) {
        return Linear(numbers_.make(width * source), numbers_.make(width), width, source, format, build);
    }

    Numbers numbers_;
    Layer layer_;
    Linear wide_, keys_, query_;
    Pooling pooling_;
    Linear narrow_;
    std::vector<Block> blocks_;
};

using Row = std::vector<float>;

// The outputs of some steps, between which a sequence is reset and states are copied.
std::vector<Row> steps(Pipeline& pipeline, Pipeline& other, const std::vector<Row>& x, Row& state) {
    std::vector<Row> result(x.size(), Row(static_cast<std::size_t>(pipeline.batch() * kOutputs)));
    const long before = allocations;
    blocks_left = 0;
    for (std::size_t t = 0; t < x.size(); ++t) {
        pipeline.step(x[t].data(), result[t].data());
        if (t == 2) pipeline.reset(0);
        other.copy_states_from(pipeline);
        pipeline.copy_states_from(other);
        for (std::size_t k = 0; k < pipeline.states(); ++k) {
            pipeline.read_state(k, state.data());
            pipeline.write_state(k, state.data());
        }
    }
    blocks_left = 1L << 40;
    if (allocations != before) throw std::runtime_error("a step allocates memory");
    return result;
}

std::vector<Row> run(const Model& model, Index N, Index first, const std::vector<Row>& x) {
    const std::unique_ptr<Pipeline> pipeline = model.pipeline(N), other = model.pipeline(N);
    std::vector<Row> given;
    for (const Row& row : x)
        given.emplace_back(row.begin() + first * kInputs, row.begin() + (first + N) * kInputs);
    Row state(static_cast<std::size_t>(N * 2 * kWide));  // the widest: sums as two floats each
    return steps(*pipeline, *other, given, state);
}

void check_chain(const Model& model, Index N, const std::string& label, Checks& checks) {
    Random random(9);
    std::vector<Row> x(4);
    for (Row& row : x)
        for (Index k = 0; k < N * kInputs; ++k) row.push_back(static_cast<float>(random.uniform(-1, 1)));
    const std::vector<Row> together = run(model, N, 0, x), alone = run(model, 1, 0, x);
    for (std::size_t t = 0; t < x.size(); ++t)
        checks.that(!std::memcmp(together[t].data(), alone[t].data(), kOutputs * sizeof(float)),
                    label + ": other numbers in a batch");
}

void check_turns(const Text& text, const Build& build, Checks& checks) {
    const Program program = load(text.text, 9, kInputs);
    const Model model(program, WeightFormat::float32, build.name);
    const std::unique_ptr<Pipeline> pipeline = model.pipeline(1), other = model.pipeline(1);
    {
        const Pipeline::ExclusiveUse mine(*pipeline), theirs(*pipeline), elsewhere(*other);
        checks.that(mine && !theirs && elsewhere, "two threads in one chain");
    }
    checks.that(static_cast<bool>(Pipeline::ExclusiveUse(*pipeline)), "a turn that does not end");
}

}  // namespace

void check_chains(const std::vector<Text>& texts, const Build& build, Checks& checks) {
    check_turns(texts.front(), build, checks);
    for (const Text& text : texts) {
        const Program program = load(text.text, 9, kInputs);
        const std::string label = std::string(build.name) + ", chain of " + text.name;
        const bool all = text.name == "LSTM";
        for (WeightFormat format : {WeightFormat::float32, WeightFormat::bfloat16, WeightFormat::int8}) {
            if (format != WeightFormat::float32 && !all) continue;
            try {
                const Model model(program, format, build.name);
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
