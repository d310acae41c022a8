// The parts of snapshots that all builds share.
#include <utility>

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

}  // namespace unrolled
