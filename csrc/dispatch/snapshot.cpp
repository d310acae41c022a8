// The parts of snapshots and of prepared sweeps that all builds share.
#include <utility>

#include "dispatch/prepared.h"
#include "dispatch/snapshot.h"

namespace unrolled {

Steps::Steps(const Parameters& parameters, Index N, Index threads) : call_{} {
    call_.program = parameters.program;
    call_.T_steps = call_.total = Index(1) << 40;
    call_.N = N;
    call_.I = parameters.I;
    call_.token_rows = {nullptr, 0, 0, 1};
    call_.input = parameters.input;
    call_.products = parameters.products;
    call_.vectors = parameters.vectors;
    call_.initial.resize(parameters.program->states.size());
    call_.threads = static_cast<int>(threads);
}

Steps::~Steps() = default;

Snapshot::Snapshot(const Parameters& parameters) : parameters_(parameters) {}

Snapshot::~Snapshot() = default;

void Snapshot::run(Call<float> call) {
    call.input = parameters_.input;
    call.products = parameters_.products;
    call.vectors = parameters_.vectors;
    sweep(call);
}

Affine::~Affine() = default;

PreparedSweep::PreparedSweep(const Call<float>& call) : call_(call) {
    call_.cancel = nullptr;  // it ends before the first poll
}

PreparedSweep::~PreparedSweep() = default;

void PreparedSweep::run(const std::vector<Index>& arrays) {
    std::size_t position = 4;  // behind sizes and table
    const auto next = [&] {
        const Index address = arrays[position];
        position += 2;
        return reinterpret_cast<float*>(address);
    };
    call_.tokens.native = next();
    call_.output.native = next();
    next();  // the saved array
    const auto set = [&](Weights<float>& weights) {
        weights.weight.native = next();
        weights.bias = next();
    };
    set(call_.input);
    for (Weights<float>& product : call_.products) set(product);
    for (const float*& vector : call_.vectors) vector = next();
    for (const float*& state : call_.initial) state = next();
    for (float*& state : call_.final) state = next();
    sweep();
}

}  // namespace unrolled
