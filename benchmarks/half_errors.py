"""Errors of layers in bfloat16 against float64, for every published cell; and torch's own.

    python benchmarks/half_errors.py [--build BUILD]

Float64 computes with the rounded weights and data. An error is the largest difference, relative to
the largest value of its tensor; of gradients the largest over tokens and parameters.
"""

import argparse
import copy
import inspect
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from unrolled import _core, cells, engines
from unrolled import nn as unrolled_nn
from unrolled.engines import use_build

T, N, I, H = 20, 5, 33, 64  # noqa: E741
PUBLISHED = {
    name: cell
    for name, cell in vars(cells).items()
    if inspect.isclass(cell) and issubclass(cell, cells.Cell) and cell is not cells.Cell
}
CLASSIC = ("RNN", "GRU", "LSTM")
Errors = dict[str, float]


def results(layer: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    """Output, final states and gradients."""
    x = x.requires_grad_()
    output, state = layer(x)
    torch.manual_seed(2)
    output.backward(torch.randn(output.shape).bfloat16().to(output.dtype))
    grads = [leaf.grad for leaf in (x, *layer.parameters()) if leaf.grad is not None]
    states = list(state) if isinstance(state, tuple) else [state]
    return {"output": [output], "states": states, "gradients": grads}


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    scale = max(expected.abs().max().item(), 1e-30)
    return (actual.double() - expected).abs().max().item() / scale


def published_errors(name: str) -> Errors:
    """Those of our layer with this cell."""
    torch.manual_seed(0)
    layer = unrolled_nn.Recurrent(PUBLISHED[name], I, H).bfloat16()
    return errors_of(layer, copy.deepcopy(layer).double(), "native")


def torch_errors(name: str) -> Errors | None:
    """Those of torch's layer, on the same problem as ours; None where torch raises."""
    torch.manual_seed(0)
    layer = getattr(nn, name)(I, H)
    layer.load_state_dict(unrolled_nn.Recurrent(PUBLISHED[name], I, H).state_dict())
    layer = layer.bfloat16()
    try:
        return errors_of(layer, copy.deepcopy(layer).double(), None)
    except RuntimeError:
        return None


def errors_of(layer: nn.Module, exact: nn.Module, engine: str | None) -> Errors:
    """The errors of a layer in bfloat16 against an equal one in float64."""
    torch.manual_seed(1)
    x = torch.randn(T, N, I).bfloat16()
    with engines.use("reference"):
        expected = results(exact, x.double())
    with engines.use(engine) if engine else nullcontext():
        actual = results(layer, x.detach())
    return {
        kind: max(error(a, b) for a, b in zip(actual[kind], expected[kind], strict=True))
        for kind in expected
    }


def show(name: str, errors: Errors) -> None:
    print(f"{name:24}" + "".join(f"{errors[kind]:12.1e}" for kind in errors), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=_core.builds()[0], help="of the kernels (the best)")
    options = parser.parse_args(arguments)
    products = "bfloat16" if _core.multiplies_bfloat16(options.build) else "float32"
    print(f"T={T}, N={N}, I={I}, H={H}; build {options.build}, products in {products}")
    print(f"{'':24}{'output':>12}{'states':>12}{'gradients':>12}")
    with use_build(options.build):
        for name in PUBLISHED:
            show(name, published_errors(name))
    for name in CLASSIC:
        errors = torch_errors(name)
        if errors is not None:
            show(f"torch.nn.{name}", errors)


if __name__ == "__main__":
    main()
