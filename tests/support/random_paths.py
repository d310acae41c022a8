"""Random cells on paths that ``random_calls`` does not draw: files and streams, C, ONNX, graphs,
second and forward derivatives, autocast, finite differences.

The oracle is the reference engine in float64. ``PATHS`` has the functions by name; each takes a
``Subject`` and raises AssertionError where its numbers differ.
"""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.onnx_files import Batch, check_layer, exported_session
from tests.support.paths import STEPS
from tests.support.random_calls import fit_layers
from tests.support.random_cells import RandomCell, draw_cell
from tests.support.runtime_models import exported, steps
from tests.support.subjects import gradients, pack, random_like, run, states, tokens
from tests.support.tolerances import close
from unrolled import _core, engines
from unrolled.nn import Recurrent

SIZES = (1, 2, 3, 5, 8, 16, 17, 33)


@dataclass(frozen=True)
class Subject:
    """A layer of a random cell, in float64, and how it is called."""

    drawn: RandomCell
    paths: tuple[str, ...]
    T: int
    N: int
    I: int  # noqa: E741
    H: int
    options: tuple[tuple[str, Any], ...]
    build: str

    @property
    def seed(self) -> int:
        return self.drawn.seed

    @cached_property
    def layer(self) -> Recurrent:
        torch.manual_seed(self.seed)
        layer = Recurrent(self.drawn.cell_class(), self.I, self.H, **dict(self.options)).double()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter += torch.empty_like(parameter).uniform_(-0.3, 0.3)
                parameter.copy_(parameter.float())
        return layer

    @property
    def bidirectional(self) -> bool:
        return bool(dict(self.options)["bidirectional"])

    def inputs(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x [T, N, I] and states, of numbers that float32 has."""
        actual = (tokens(self.T, self.N, self.I), *states(self.layer, self.N))
        x, *hx = (tensor.detach().float().double().requires_grad_() for tensor in actual)
        return x, tuple(hx)

    def reference(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Output and final states, from zeros."""
        x, _ = self.inputs()
        with torch.no_grad(), engines.use("reference"):
            actual = run(self.layer.to(dtype), x.to(dtype))
        self.layer.double()
        return [part.double() for part in actual]


def draw_subject(seed: int) -> Subject:
    """The subject of a number."""
    random = Random(seed)
    drawn = draw_cell(seed)
    I, H = drawn.fit(random.choice(SIZES), random.choice(SIZES))  # noqa: E741
    options: dict[str, Any] = {
        "num_layers": random.choice((1, 1, 2)),
        "bidirectional": random.random() < 0.3,
        "bias": random.random() < 0.8,
        "merge": random.choice(("concat", "sum")),
        "proj_size": random.choice((0, 1)) if drawn.projectable and H > 1 else 0,
    }
    fit_layers(options, drawn, I, H)
    weights = [weight for _, weight in PATHS.values()]
    path_names = random.choices(list(PATHS), weights, k=2)
    return Subject(
        drawn,
        tuple(dict.fromkeys(path_names)),
        random.choice((1, 2, 3, 5)),
        random.choice((1, 2, 3, 5, 9)),
        I,
        H,
        tuple(options.items()),
        random.choice(_core.builds()),
    )


def check_paths(subject: Subject) -> None:
    """Run a subject on its paths.

    Raises:
        AssertionError: a number differs from the reference's.
    """
    torch.set_num_threads(1)
    for path_name in subject.paths:
        PATHS[path_name][0](subject)


def _assert_close(actual: list[Tensor], subject: Subject) -> None:
    """The first of the results, from zeros."""
    near, expected = subject.reference(torch.float32), subject.reference()
    for k, part in enumerate(actual):
        close(part, expected[k], "random", f"result {k}", rounded_reference=near[k])


def _file(subject: Subject) -> None:
    """A file in the runtime, whole sequences and streams; and in C."""
    x = subject.inputs()[0].detach().float().numpy()
    layer = subject.layer.float()
    with TemporaryDirectory() as folder:
        model = exported(layer, Path(folder))
        actual = model.run(x)
        if not subject.bidirectional:
            stepped = steps(model, x, subject.N)
            assert np.array_equal(stepped, actual), "a stream has other numbers than the sequence"
            if STEPS.exists():
                _steps_in_c(Path(folder) / "model.safetensors", x, stepped)
    layer.double()
    _assert_close([torch.from_numpy(actual)], subject)


def _steps_in_c(path: Path, x: np.ndarray, expected: np.ndarray) -> None:
    letters = b"".join(b"s" + row.tobytes() for row in x)
    command = [STEPS, path, "1", str(x.shape[1])]
    process = subprocess.run(command, input=letters, capture_output=True, check=True).stdout
    assert process == expected.tobytes(), "the C interface has other numbers than the runtime"


def _onnx(subject: Subject) -> None:
    layer = subject.layer.float()
    with TemporaryDirectory() as folder:
        session = exported_session(layer, Path(folder), lengths=True, states=True)
        batch = Batch.of(layer, subject.T, subject.N, lengths=True, states=True)
        check_layer(layer, session, batch, exact=False)
    layer.double()


def _compiled(subject: Subject) -> None:
    x, hx = subject.inputs()
    leaves = [x, *hx, *subject.layer.parameters()]
    torch._dynamo.reset()
    compiled: Any = torch.compile(subject.layer, backend="aot_eager", fullgraph=True)
    _assert_same(run(compiled, x, pack(hx)), subject, (x, hx), leaves)


def _assert_same(
    parts: tuple[Tensor, ...],
    subject: Subject,
    inputs: tuple[Tensor, tuple[Tensor, ...]],
    leaves: list[Tensor],
) -> None:
    """Values and gradients are the reference's."""
    with engines.use("reference"):
        expected = run(subject.layer, inputs[0], pack(inputs[1]))
    for k, (part, expected_output) in enumerate(zip(parts, expected, strict=True)):
        close(part, expected_output, "random", f"result {k}")
    result = torch.autograd.grad(parts, leaves, random_like(parts), materialize_grads=True)
    expected_grads = gradients(expected, leaves)
    for k, (gradient, expected_output) in enumerate(zip(result, expected_grads, strict=True)):
        close(gradient, expected_output, "random", f"gradient of leaf {k}")


def _second(subject: Subject) -> None:
    """Second derivatives."""
    results = []
    for engine in ("native", "reference"):
        x, hx = subject.inputs()
        leaves = [x, *hx, *subject.layer.parameters()]
        with engines.use(engine):
            parts = run(subject.layer, x, pack(hx))
        firsts = torch.autograd.grad(
            parts, leaves, random_like(parts), create_graph=True, materialize_grads=True
        )
        total = sum((g.sin() * g).sum() for g in firsts)
        assert isinstance(total, Tensor)
        seconds = torch.autograd.grad(total, leaves, materialize_grads=True)
        results.append([*firsts, *seconds])
    for k, (mine, expected) in enumerate(zip(*results, strict=True)):
        close(mine, expected, "random", f"derivative {k}")


def _forward(subject: Subject) -> None:
    """Derivatives along a direction, by forward mode."""
    results = []
    for engine in ("native", "reference"):
        x, hx = (subject.inputs()[0].detach(), [h.detach() for h in subject.inputs()[1]])
        along = tuple(map(torch.ones_like, (x, *hx)))
        with engines.use(engine):
            results.append(
                torch.func.jvp(lambda x, *hx: run(subject.layer, x, pack(hx)), (x, *hx), along)[1]
            )
    for k, (mine, expected) in enumerate(zip(*results, strict=True)):
        close(mine, expected, "random", f"derivative of result {k}")


def _autocast(subject: Subject) -> None:
    x = subject.inputs()[0].detach().float()
    layer = subject.layer.float()
    results = []
    for engine in ("native", "reference"):
        with torch.no_grad(), engines.use(engine), torch.autocast("cpu", torch.bfloat16):
            results.append(run(layer, x))
    layer.double()
    for k, (mine, expected) in enumerate(zip(*results, strict=True)):
        close(mine.bfloat16(), expected.double(), "random", f"result {k}")


def _differences(subject: Subject) -> None:
    """The native gradient against finite differences, along a random direction."""
    layer = subject.layer
    x, hx = subject.inputs()
    leaves = [x, *hx, *layer.parameters()]
    with engines.use("native"), engines.use_build(subject.build):
        parts = run(layer, x, pack(hx))
        exact = gradients(parts, leaves)
        weights = random_like(parts)
        generator = torch.Generator().manual_seed(subject.seed)
        along = [torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) for leaf in leaves]

        @torch.no_grad()
        def moved(step: float) -> float:
            for leaf, direction in zip(leaves, along, strict=True):
                leaf += step * direction
            return sum(
                float((p * w).sum()) for p, w in zip(run(layer, x, pack(hx)), weights, strict=True)
            )

        difference = (moved(1e-6) - moved(-2e-6)) / 2e-6
    derivative = sum(float((g * d).sum()) for g, d in zip(exact, along, strict=True))
    scale = max(1.0, *(float((g * d).abs().sum()) for g, d in zip(exact, along, strict=True)))
    # A third derivative times 1e-12, and rounding by 1e-6; a derivative seldom jumps between.
    limit = 1e-2 if subject.drawn.kinked else 1e-5
    assert abs(difference - derivative) <= limit * scale, f"{difference} and {derivative}"


PATHS: dict[str, tuple[Callable[[Subject], None], int]] = {
    "file": (_file, 8),
    "second derivatives": (_second, 6),
    "finite differences": (_differences, 6),
    "forward derivatives": (_forward, 3),
    "autocast": (_autocast, 3),
    "onnx": (_onnx, 3),
    "compiled": (_compiled, 1),
}
"""And how often each is drawn: some take a hundred times as long as others."""
