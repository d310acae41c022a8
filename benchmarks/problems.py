"""The problems to measure: cell, shape, inference or training; their data and expected results."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from checks import Results

CELLS = ("RNN", "GRU", "LSTM")
SHAPES = (  # T, N, I, H
    (1, 1, 64, 64),
    (1, 1, 256, 256),
    (100, 1, 64, 64),
    (100, 1, 256, 256),
    (100, 1, 1024, 1024),
    (50, 7, 40, 100),
    (1000, 8, 128, 128),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (35, 20, 650, 650),
    (100, 128, 256, 256),
    (100, 32, 512, 512),
)


@dataclass(frozen=True)
class Problem:
    """One cell of the grid: a layer (or a stack of them) over a dense batch from zero states."""

    cell: str
    T: int
    N: int
    I: int  # noqa: E741
    H: int
    training: bool
    layers: int = 1
    bidirectional: bool = False

    @property
    def mode(self) -> str:
        return "train" if self.training else "infer"

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def name(self) -> str:
        """The name that `--only` matches."""
        stacked = f" {self.layers}x{self.directions}" if self.layers * self.directions > 1 else ""
        return f"{self.cell} {self.T},{self.N},{self.I},{self.H}{stacked} {self.mode}"


@dataclass(frozen=True)
class Case:
    """A problem with its data: torch's layer in float32, input [T, N, I], and output gradient
    [T, N, D·H]."""

    problem: Problem
    layer: nn.RNNBase
    x: Tensor
    output_gradient: Tensor

    def truth(self) -> Results:
        """The results of torch's layer in float64: output, or gradients by name."""
        return truth(
            copy.deepcopy(self.layer).double(), self.x, self.output_gradient, self.problem.training
        )


def grid(shapes: tuple[tuple[int, int, int, int], ...] = SHAPES) -> list[Problem]:
    """Every shape with every cell, for inference and for training."""
    return [
        Problem(cell, *shape, training)
        for shape in shapes
        for cell in CELLS
        for training in (False, True)
    ]


def make_case(problem: Problem) -> Case:
    """The case of a problem, with the same numbers each time."""
    torch.manual_seed(0)
    layer = getattr(nn, problem.cell)(
        problem.I, problem.H, problem.layers, bidirectional=problem.bidirectional
    )
    x = torch.randn(problem.T, problem.N, problem.I).requires_grad_(problem.training)
    output_gradient = torch.randn(problem.T, problem.N, problem.H * problem.directions)
    return Case(problem, layer, x, output_gradient)


def truth(layer: nn.Module, x: Tensor, output_gradient: Tensor, training: bool) -> Results:
    """The results of a layer in float64 on data in float32."""
    x = x.detach().double().requires_grad_(training)
    with torch.set_grad_enabled(training):
        output = layer(x)[0]
    if not training:
        return {"output": output}
    output.backward(output_gradient.double())
    return gradients(layer, x)


def gradients(layer: nn.Module, x: Tensor) -> Results:
    """The gradients after a backward pass, by the names of input and parameters."""
    leaves = {"input": x, **dict(layer.named_parameters())}
    return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
