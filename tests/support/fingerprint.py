"""Print hashes of what the library computes: outputs, states, gradients, exported files.

Two trees that print the same lines on one machine compute the same numbers, to the bit. Only names
that users import are used, so that the script of one tree runs in another:

    python tests/support/fingerprint.py > before.txt
    python tests/support/fingerprint.py | diff before.txt -

Each line is a group of calls: its name, the number of calls, and a hash of all their results.
Inputs are drawn from fixed seeds. ``--steps`` names the program that ``make core`` builds from
tests/core/steps.c; without it the group of the C interface is left out.
"""

import argparse
import contextlib
import hashlib
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from unrolled import _core, cells, nn, onnx, runtime
from unrolled.export import export
from unrolled.models import SequenceModel

try:
    from unrolled.engines import use_build
except ImportError:
    from unrolled.engines._native import use_build

CELLS = {
    name: cell
    for name in sorted(cells.__all__)
    if isinstance(cell := getattr(cells, name), type)
    and issubclass(cell, cells.Cell)
    and cell is not cells.Cell
}
PROJECTED = ("LSTM", "CoupledLSTM", "PeepholeLSTM")  # with proj_size
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SIZES = (1, 3, 8, 15, 16, 17, 33, 64, 70)


class Hash:
    """A running hash of tensors, arrays and bytes, and how many calls went into it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.calls = 0

    def add(self, values: Any) -> None:
        if isinstance(values, PackedSequence):
            values = values.data
        if isinstance(values, list | tuple):
            for value in values:
                self.add(value)
            return
        if isinstance(values, Tensor):
            tensor = values.detach().contiguous()
            values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        if isinstance(values, np.ndarray):
            self.digest.update(f"{values.shape} {values.dtype}".encode())
            values = np.ascontiguousarray(values).tobytes()
        self.digest.update(b"None" if values is None else values)


def randomize(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """A module whose parameters all hold small random numbers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def draw(random: Random, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    return torch.randn(*shape, generator=generator).to(dtype)


def draw_layer(random: Random, name: str) -> nn.Recurrent:
    """A layer of the cell with random sizes and options."""
    I, H = random.choice(SIZES), random.choice(SIZES[1:])  # noqa: E741
    options: dict[str, Any] = {
        "num_layers": random.choice((1, 1, 2, 3)),
        "bias": random.random() < 0.8,
        "batch_first": random.random() < 0.4,
        "bidirectional": random.random() < 0.4,
        "dropout": random.choice((0.0, 0.0, 0.3)),
        "merge": random.choice(("concat", "sum")),
        "checkpoint": random.choice((False, False, False, 2)),
    }
    if options["num_layers"] == 1:
        options["dropout"] = 0.0
    if name in PROJECTED and random.random() < 0.3:
        options["proj_size"] = (H + 1) // 2
    layer = nn.Recurrent(CELLS[name], I, H, **options)
    randomize(layer, random.randrange(2**31))
    return layer


def draw_states(random: Random, layer: Any, lead: list[int], dtype: torch.dtype) -> Any:
    widths = layer.spec.state_widths
    states = tuple(draw(random, (*lead, width), dtype).abs() + 0.5 for width in widths)
    states = tuple(state.requires_grad_() for state in states)
    return states if len(states) > 1 else states[0]


def hash_call(result: Hash, module: Any, x: Any, hx: Any, options: dict[str, Any]) -> None:
    """Add outputs, final states and, where gradients are recorded, all gradients."""
    output, final = module(x, hx, **options)
    tensors = [output.data if isinstance(output, PackedSequence) else output]
    tensors += final if isinstance(final, tuple) else [final]
    result.add(tensors)
    result.calls += 1
    if not torch.is_grad_enabled():
        return
    leaves = [*module.parameters(), *(state for state in _tuple(hx) if state is not None)]
    if isinstance(x, Tensor) and x.requires_grad:
        leaves.append(x)
    loss = sum((tensor.float() * (k + 1)).sin().sum() for k, tensor in enumerate(tensors))
    result.add(torch.autograd.grad(loss, leaves, allow_unused=True))  # type: ignore[arg-type]


def _tuple(hx: Any) -> tuple[Any, ...]:
    return hx if isinstance(hx, tuple) else (hx,)


def layer_call(random: Random, name: str, result: Hash) -> None:
    """One call of a layer in a random form, on a random build and number of threads."""
    dtype = random.choice(DTYPES)
    layer = draw_layer(random, name).to(dtype)
    T, N = random.choice((1, 2, 5, 13)), random.choice((1, 2, 3, 8, 17))
    form = random.choice(("batched", "batched", "unbatched", "packed"))
    N = 1 if form == "unbatched" else N
    shape = [N, T] if layer.batch_first else [T, N]
    shape = [T] if form == "unbatched" else shape
    lead = [layer.num_layers * (1 + layer.bidirectional)] + [N] * (form != "unbatched")
    x: Any = draw(random, (*shape, layer.input_size), dtype).requires_grad_()
    hx = draw_states(random, layer, lead, dtype) if random.random() < 0.6 else None
    options: dict[str, Any] = {}
    lengths = torch.tensor([T, *(random.randint(1, T) for _ in range(N - 1))])
    if form == "packed":
        x = pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=False)
    elif form == "batched" and random.random() < 0.4:
        options["lengths"] = lengths
    if random.random() < 0.3 and form != "packed":
        options["resets"] = draw(random, shape, torch.float32) > 1
        if random.random() < 0.5:
            options["reset_state"] = draw_states(random, layer, lead, dtype)
    layer.train(random.random() < 0.7)
    torch.manual_seed(random.randrange(2**31))
    with random_engine(random), torch.set_grad_enabled(random.random() < 0.7):
        hash_call(result, layer, x, hx, options)


@contextlib.contextmanager
def random_engine(random: Random) -> Iterator[None]:
    """A random build of the native engine on one to three threads, the best build most often."""
    build, threads = random.choice(["", "", *_core.builds()]), random.choice((1, 2, 3))
    torch.set_num_threads(threads)
    with use_build(build) if build else contextlib.nullcontext():
        yield
    torch.set_num_threads(1)


def layers(result: Hash, count: int) -> None:
    for seed in range(count):
        for name in CELLS:
            layer_call(Random(f"{name} {seed}"), name, result)


def classics(result: Hash, count: int) -> None:
    for seed in range(16 * count):
        name = ("RNN", "LSTM", "GRU")[seed % 3]
        layer_call(Random(f"classic {seed}"), name, result)


def steps(result: Hash, count: int) -> None:
    """Cells called for one step, batched or not."""
    for seed in range(count):
        for name, cell in CELLS.items():
            random = Random(f"step {name} {seed}")
            dtype = random.choice(DTYPES)
            module = nn.RecurrentCell(cell, random.choice(SIZES), random.choice(SIZES[1:]))
            randomize(module, seed).to(dtype)
            lead = random.choice(([], [1], [5]))
            x = draw(random, (*lead, module.input_size), dtype).requires_grad_()
            hx = draw_states(random, module, lead, dtype)
            with random_engine(random):
                states = _tuple(module(x, hx))
            loss = sum(state.float().sin().sum() for state in states)
            leaves = [x, *_tuple(hx), *module.parameters()]
            result.add(list(states))
            result.add(torch.autograd.grad(loss, leaves, allow_unused=True))  # type: ignore[arg-type]
            result.calls += 1


def graphs(result: Hash, count: int) -> None:
    """torch.compile, torch.export and torch.jit.trace."""
    for seed in range(count):
        for layer_class in (nn.LSTM, nn.GRU):
            random = Random(f"graph {seed}")
            torch.manual_seed(seed)
            layer = layer_class(5, 9, num_layers=2, bidirectional=bool(seed % 2))
            x = draw(random, (6, 3, 5), torch.float32).requires_grad_()
            options = {"lengths": torch.tensor([6, 2, 4])} if seed % 3 else {}
            torch.compiler.reset()
            compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
            hash_call(result, compiled, x, None, options)
            exported = torch.export.export(layer, (x.detach(),), strict=False).module()
            result.add(list(exported(x.detach())[:1]))
            result.add(torch.jit.trace(layer, (x.detach(),))(x.detach())[0])
            result.calls += 2


def transforms(result: Hash, count: int) -> None:
    """torch.func: gradients, samples side by side, ensembles, forward mode, second derivatives."""
    for seed in range(count):
        for name in ("LSTM", "GRU", "RNN", "PeepholeLSTM", "LayerNormLSTM", "CoRNN"):
            random = Random(f"transform {name} {seed}")
            layer = nn.Recurrent(CELLS[name], 4, 7, num_layers=1 + seed % 2)
            randomize(layer, seed)
            weights = {key: value.detach() for key, value in layer.named_parameters()}
            x = draw(random, (3, 5, 2, 4), torch.float32)

            def loss(weights: Any, x: Tensor, layer: Any = layer) -> Tensor:
                return torch.func.functional_call(layer, weights, (x,))[0].sin().sum()

            gradient: Callable[..., Any] = torch.func.grad(loss)
            result.add(list(gradient(weights, x[0]).values()))
            result.add(list(torch.func.vmap(gradient, (None, 0))(weights, x).values()))
            stacked = {key: torch.stack([value, value * 0.5]) for key, value in weights.items()}
            result.add(list(torch.func.vmap(gradient, (0, None))(stacked, x[0]).values()))
            run = lambda x, loss=loss, weights=weights: loss(weights, x)  # noqa: E731
            result.add(torch.func.jvp(run, (x[0],), (x[1],)))
            leaf = x[0].clone().requires_grad_()
            first_order = torch.autograd.grad(run(leaf), leaf, create_graph=True)[0]
            result.add(torch.autograd.grad(first_order.square().sum(), leaf))
            with torch.autocast("cpu", torch.bfloat16):
                hash_call(result, layer, leaf, None, {})
            result.calls += 5


def models(folder: Path, count: int) -> Iterator[tuple[Path, np.ndarray, bool]]:
    """Exported files, inputs [T, N, …] for them, and whether they can be stepped."""
    modules: dict[str, torch.nn.Module] = {
        name: nn.Recurrent(cell, 3, 6, num_layers=2) for name, cell in CELLS.items()
    }
    modules["bidirectional"] = nn.GRU(3, 6, bidirectional=True, merge="sum")
    modules["projection"] = nn.LSTM(3, 9, proj_size=4)
    modules["head"] = torch.nn.Sequential(nn.GRU(3, 20), torch.nn.Linear(20, 5), torch.nn.ReLU())
    for pooling in (None, "last", "mean", "max", "attention"):
        modules[f"pooling {pooling}"] = SequenceModel(
            11, 4, hidden_size=9, cell="LSTM", pooling=pooling, initial="learned"
        )
    for k, (name, module) in enumerate(modules.items()):
        chance = np.random.default_rng(k)
        tokens = name.startswith("pooling")
        x = chance.integers(0, 11, (6, 3)) if tokens else chance.standard_normal((6, 3, 3))
        x = x if tokens else x.astype(np.float32)
        for weights in ("float32", "bfloat16", "int8")[: 1 + 2 * (k < 3 * count)]:
            path = folder / f"{name} {weights}"
            export(randomize(module.eval(), k), path, weights=weights)
            yield path, x, name != "bidirectional"


def files(result: Hash, count: int) -> None:
    """Exported files, byte by byte, and the runtime on them: whole, and step by step."""
    with tempfile.TemporaryDirectory() as folder:
        for path, x, steps in models(Path(folder), count):
            result.add(path.read_bytes())
            model = runtime.load(path)
            result.add(model.run(x))
            result.add(model.run(x, lengths=[6, 1, 3]))
            if steps:
                stream = model.stream(3)
                result.add([np.array(stream.step(row)) for row in x])
                stream.reset([1])
                result.add([np.array(state) for states in stream.state for state in states])
            result.calls += 1


def onnx_files(result: Hash, _count: int) -> None:
    """Exported ONNX files, and the layers that are read from them again."""
    with tempfile.TemporaryDirectory() as folder:
        for k, (name, cell) in enumerate(CELLS.items()):
            path = Path(folder) / f"{name}.onnx"
            layer = randomize(nn.Recurrent(cell, 3, 6, num_layers=2), k)
            onnx.export(layer.eval(), path)
            result.add(path.read_bytes())
            model = onnx.load(path)
            x = draw(Random(f"onnx {name}"), (5, 2, 3), torch.float32)
            result.add(model(x))
            result.calls += 1


def c_interface(result: Hash, count: int, program: Path) -> None:
    """Exported files stepped through the C interface."""
    with tempfile.TemporaryDirectory() as folder:
        for path, x, steps in models(Path(folder), count):
            if steps:
                script = b"".join(b"s" + row.tobytes() for row in x) + b"g"
                command = [program, path, "0", "3"]
                result.add(subprocess.run(command, input=script, capture_output=True).stdout)
                result.calls += 1


GROUPS: dict[str, Callable[[Hash, int], None]] = {
    "classics": classics,
    "layers": layers,
    "steps": steps,
    "graphs": graphs,
    "transforms": transforms,
    "files": files,
    "onnx": onnx_files,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="all by default")
    parser.add_argument("--count", type=int, default=4, help="rounds of each group (default 4)")
    parser.add_argument("--steps", type=Path, help="build/core/tests/core/steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    selected = {name: GROUPS[name] for name in options.groups or GROUPS}
    if options.steps:
        program = options.steps.resolve(strict=True)
        selected["c"] = lambda result, count: c_interface(result, count, program)
    for name, run in selected.items():
        result = Hash()
        run(result, options.count)
        print(f"{name} {result.calls} {result.digest.hexdigest()[:32]}", flush=True)


if __name__ == "__main__":
    main()
