// Hosts that unmask floating-point exceptions, and hosts that stream for days.
#include <cfenv>
#include <cmath>
#include <deque>
#include <limits>

#include "dispatch/raw_call.h"
#include "model/streaming.h"
#include "suite.h"

namespace core_test {
namespace {

using namespace unrolled;

constexpr Index kInputs = 5, kSteps = 4, kBatch = 2;

// Owns arrays of numbers, among them some that trap: zeros, subnormal and huge ones, infinity, NaN.
class IndexList {
public:
    explicit IndexList(bool extreme) : extreme_(extreme) {}

    FloatView make(Index count) {
        constexpr float infinity = std::numeric_limits<float>::infinity();
        const float strange[] = {0, 1e-40f, 3e38f, -3e38f, infinity, std::nanf("")};
        std::vector<float>& result = made_.emplace_back();
        for (Index k = 0; k < count; ++k) {
            const float number = static_cast<float>(random_.uniform(-1, 1));
            result.push_back(extreme_ && number > 0.9f ? strange[next_++ % 6] : number);
        }
        return {result.data(), count};
    }

private:
    bool extreme_;
    std::size_t next_ = 0;
    std::deque<std::vector<float>> made_;
    Random random_{5};
};

std::vector<FloatView> parameters(const Program& p, IndexList& numbers) {
    std::vector<FloatView> arrays;
    const auto add = [&](Index rows, Index columns) {
        arrays.push_back(numbers.make(rows * columns));
        arrays.push_back(numbers.make(rows));
    };
    add(p.x_parts * p.x_width, kInputs);
    for (const Product& q : p.products) add(q.parts * q.width, q.columns);
    for (Index width : p.vectors) arrays.push_back(numbers.make(width));
    return arrays;
}

// Runs `work` with all exceptions unmasked. True if they are unmasked afterwards, and none was raised.
template <class F>
bool survives(F work) {
#ifdef __GLIBC__
    std::feclearexcept(FE_ALL_EXCEPT);
    if (feenableexcept(FE_ALL_EXCEPT) == -1 || fegetexcept() != FE_ALL_EXCEPT) {
        fedisableexcept(FE_ALL_EXCEPT);
        work();  // this processor does not trap
        return true;
    }
    work();
    const bool same = fegetexcept() == FE_ALL_EXCEPT && std::fetestexcept(FE_ALL_EXCEPT) == 0;
    fedisableexcept(FE_ALL_EXCEPT);
    return same;
#else
    work();
    return true;
#endif
}

// A raw call of a whole sequence, forward and backward.
bool sweeps_survive(const Program& p, const Build& build) {
    IndexList numbers(true);
    std::vector<FloatView> given;
    const auto add = [&](IndexList& from, Index count) { given.push_back(from.make(count)); };
    const auto skip = [&] { given.push_back({}); };
    const Index tokens = kSteps * kBatch;
    skip();
    skip();
    add(numbers, tokens * kInputs);
    add(numbers, tokens * p.states[0]);
    add(numbers, tokens * p.saved_pitch);
    const std::vector<FloatView> own = parameters(p, numbers);
    given.insert(given.end(), own.begin(), own.end());
    for (Index width : p.states) add(numbers, kBatch * width);
    for (Index width : p.states) add(numbers, kBatch * width);
    std::vector<FloatView> back = given;
    given.clear();
    add(numbers, tokens * p.states[0]);
    for (Index width : p.states) add(numbers, kBatch * width);
    add(numbers, tokens * kInputs);
    for (Index width : p.states) add(numbers, kBatch * width);
    const std::size_t matrices = 2 * (1 + p.products.size());
    for (std::size_t k = 0; k < p.vectors.size(); ++k) add(numbers, p.vectors[k]);
    for (std::size_t k = 0; k < matrices; ++k) add(numbers, own[k].count);
    const auto tell = [](const std::vector<FloatView>& arrays) {
        unrolled::IndexList result;
        for (const FloatView& array : arrays) {
            result.push_back(static_cast<Index>(reinterpret_cast<std::uintptr_t>(array.numbers)));
            result.push_back(array.count);
        }
        return result;
    };
    const unrolled::IndexList shape{kSteps, kBatch, kInputs, tokens, 0, kBatch, 1, 1};
    const RawCall forward{&p, unrolled::shape_of(shape), tell(back)};
    for (std::size_t k = 0; k < p.states.size(); ++k) back[back.size() - 1 - k] = {};
    back.insert(back.end(), given.begin(), given.end());
    const RawCall backward{&p, unrolled::shape_of(shape), tell(back)};
    return survives([&] {
        run_forward(&forward, 1, build.name, false);
        run_backward(&backward, 1, build.name, false);
    });
}

bool streams_survive(const Program& p, const Build& build, WeightFormat format, bool extreme) {
    IndexList numbers(extreme), inputs(true);
    const std::vector<FloatView> arrays = parameters(p, numbers);
    const Index width = p.states[0];
    const FloatView weight = numbers.make(width), bias = numbers.make(1), x = inputs.make(kSteps * kInputs);
    const double scale[2 * kInputs] = {0, 1, 2, 3, 4, 1, 0, 3, 1, 7};
    float out = 0;
    return survives([&] {
        const Layer layer(p, kInputs, arrays, format, build.name);
        const Linear linear(weight, bias, 1, width, format, build.name);
        const Pooling pooling("mean", 1, nullptr, nullptr);
        Block first, second, third, fourth;
        first.layer = &layer;
        second.linear = &linear;
        third.pooling = &pooling;
        fourth.activation = Activation::sigmoid;
        Source source{kInputs};
        source.mean = scale;
        source.deviation = scale + kInputs;
        Pipeline pipeline(source, {first, second, third, fourth}, 1, 1);
        for (Index t = 0; t < kSteps; ++t) pipeline.step(x.numbers + t * kInputs, &out);
    });
}

// The mean of 2^24 steps of 0.5 and 2^20 steps of 1.
double long_mean(const char* name) {
    constexpr float before = 1 << 24;
    const bool attends = std::string(name) == "attention";
    PoolingState pooling_state(name, 1, 1);
    const float sum[] = {attends ? before / 2 : 0.5f, 0}, weight[] = {before, 0}, score = 0, one = 1;
    pooling_state.write_state(0, 0, sum);
    pooling_state.write_state(1, 0, weight);
    pooling_state.write_state(2, 0, &score);
    for (int t = 0; t < 1 << 20; ++t) pooling_state.add(0, &one, &score);
    float found = 0;
    pooling_state.read(0, &found);
    return found;
}

void check_pools(Checks& checks) {
    const double expected = (0.5 * (1 << 24) + (1 << 20)) / ((1 << 24) + (1 << 20));
    for (const char* name : {"mean", "attention"})
        checks.that(std::fabs(long_mean(name) - expected) < 1e-7,
                    std::string(name) + ": stands still in a long stream");
    PoolingState pooling_state("max", 1, 1);
    float found = 0;
    for (float x : {1.0f, std::nanf(""), 2.0f}) pooling_state.add(0, &x, nullptr);
    pooling_state.read(0, &found);
    checks.that(std::isnan(found), "max: forgets NaN");
}

}  // namespace

void check_hosts(const std::vector<Text>& texts, const Build& build, Checks& checks) {
    check_pools(checks);
    for (const Text& text : texts) {
        const Program program = load(text.text, 9, kInputs);
        const std::string label = std::string(build.name) + ", " + text.name;
        checks.that(sweeps_survive(program, build), label + ": a sweep changes the masks");
        for (WeightFormat format : {WeightFormat::float32, WeightFormat::bfloat16, WeightFormat::int8})
            for (bool extreme : {false, true})
                checks.that(streams_survive(program, build, format, extreme),
                            label + ": a step changes the masks");
    }
}

}  // namespace core_test
