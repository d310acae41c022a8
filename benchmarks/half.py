"""bfloat16 and float32: our layers and OpenVINO in both, and torch's in bfloat16.

    python benchmarks/half.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Results in bfloat16 are compared with torch's layer in float64, on the rounded weights and data.
OpenVINO runs the float32 model as it is configured by default; its precision is told from the error
of its results, which are compared with the float32 model's.
"""

import copy
import importlib
from collections.abc import Sequence
from statistics import geometric_mean

import torch
from torch import Tensor

import checks
import harness
from checks import CheckError, Results
from harness import Row, Settings
from peers import Peer
from peers.layers import layer_peer
from problems import Case, Problem, make_case, truth
from unrolled import nn as unrolled_nn

CELLS = ("RNN", "GRU", "LSTM")
SHAPES = (
    (1, 1, 64, 64),
    (1, 1, 256, 256),
    (100, 1, 256, 256),
    (1000, 1, 128, 128),
    (50, 7, 40, 100),
    (50, 7, 40, 128),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (35, 20, 650, 650),
    (100, 128, 256, 256),
    (100, 32, 512, 512),
)
QUICK_SHAPES = ((3, 2, 8, 8),)


def rows(settings: Settings) -> list[Row]:
    """Each shape and cell, forward and training."""
    measured = [
        row(Problem(cell, *shape, training), settings)
        for shape in (QUICK_SHAPES if settings.quick else SHAPES)
        for cell in CELLS
        for training in (False, True)
        if settings.wants(Problem(cell, *shape, training).name)
    ]
    summarize(measured)
    return measured


def row(problem: Problem, settings: Settings) -> Row:
    """Ours in both precisions, torch's in bfloat16 if this processor supports it, OpenVINO's."""
    case = make_case(problem)
    half_layer = copy.deepcopy(case.layer).bfloat16()
    x = case.x.detach().bfloat16().requires_grad_(problem.training)
    output_gradient = case.output_gradient.bfloat16()
    expected = truth(copy.deepcopy(half_layer).double(), x, output_gradient, problem.training)
    ours = getattr(unrolled_nn, problem.cell)(problem.I, problem.H)
    ours.load_state_dict(case.layer.state_dict())
    peers = {
        "unrolled": layer_peer(ours, case.x, case.output_gradient, problem.training),
        "unrolled bfloat16": layer_peer(
            copy.deepcopy(ours).bfloat16(), x, output_gradient, problem.training
        ),
    }
    truths: dict[str, Results] = {"unrolled": case.truth(), "unrolled bfloat16": expected}
    theirs = layer_peer(half_layer, x, output_gradient, problem.training)
    if _runs(theirs, problem.training):
        peers["torch bfloat16"], truths["torch bfloat16"] = theirs, expected
    for name, peer, is_rounded in _openvino(case, settings.threads):
        peers[name] = peer
        truths[name] = case.truth()
        if is_rounded:
            truths[name] = {key: value.bfloat16() for key, value in truths[name].items()}
    measured = harness.measure(problem.name, peers, truths, problem.training, settings.plan)
    return {**measured, **harness.describe_problem(case)}


def _runs(peer: Peer, training: bool) -> bool:
    """Whether torch supports it; on some processors it raises."""
    try:
        with torch.inference_mode(not training):
            output: Tensor | None = peer.call()
    except RuntimeError as error:
        print(f"skipped torch in bfloat16: {str(error).splitlines()[0]}", flush=True)
        return False
    return output is None or bool(output.isfinite().all())


def _openvino(case: Case, threads: int) -> list[tuple[str, Peer, bool]]:
    """OpenVINO in float32 and by default, with whether it rounds to bfloat16."""
    try:
        make = importlib.import_module("peers.openvino_model").make
    except ImportError as error:
        print(f"skipped OpenVINO: {error}", flush=True)
        return []
    single, default = make(case, threads), make(case, threads, None)
    if single is None or default is None:
        return []
    expected = case.truth()
    try:
        checks.check("OpenVINO", default.results(default.call()), expected)
    except CheckError:
        rounded = Peer(
            default.call,
            lambda outputs: {k: v.bfloat16() for k, v in default.results(outputs).items()},
        )
        return [("openvino", single, False), ("openvino default, bfloat16", rounded, True)]
    return [("openvino", single, False)]


def summarize(measured: Sequence[Row]) -> None:
    """Print each row's error, ours in float32 against ours in bfloat16, and the fastest peer in
    bfloat16 against ours; over rows with T·N of 64 or more and H of 128 or more, means and the
    worst row."""
    for training in (False, True):
        rows = [row for row in measured if row["training"] == training]
        gains, leads = [], []
        for row in rows:
            times = {who: timing["median_ms"] for who, timing in row["peers"].items()}
            ours = times["unrolled bfloat16"]
            others = {w: t for w, t in times.items() if "bfloat16" in w and "unrolled" not in w}
            gain, lead = times["unrolled"] / ours, min(others.values(), default=0.0) / ours
            errors = ", ".join(f"{w} {t['error']:.1e}" for w, t in row["peers"].items())
            print(
                f"{row['name']}: {gain:.2f} of float32, {lead:.2f} of the fastest peer in "
                f"bfloat16; errors: {errors}"
            )
            if row["T"] * row["N"] >= 64 and row["H"] >= 128:
                gains.append(gain)
                leads += [(lead, row["name"])] if others else []
        if gains:
            print(f"float32 / bfloat16, ours: {geometric_mean(gains):.2f} as a geometric mean")
        if leads:
            mean = geometric_mean(lead for lead, _ in leads)
            print(f"fastest peer / ours: {mean:.2f} as a mean, worst {min(leads)}")


if __name__ == "__main__":
    harness.main(__doc__, {"half": rows})
