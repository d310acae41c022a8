"""Whole models of ONNX as modules: what torch's exporters write, and ours; then on to the runtime.
Layers alone, what is refused, and files that are damaged."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch import nn as torch_nn

from tests.support.imported_models import agrees, flat, runs
from tests.support.onnx_nodes import I, one_node
from tests.support.tolerances import close, same
from unrolled import cells, nn, runtime
from unrolled.export import ExportError
from unrolled.export import export as export_for_runtime
from unrolled.models import SequenceModel
from unrolled.onnx import export, layers_of, load


class TorchModel(torch_nn.Module):
    """An embedding, a stack of torch's, a linear layer and softmax, over all steps or the last."""

    def __init__(self, kind: str, layers: int, **told: Any) -> None:
        super().__init__()
        self.last = told.pop("last")
        self.embedding = torch_nn.Embedding(11, 5)
        self.stack = getattr(torch_nn, kind)(5, 6, layers, **told)
        self.head = torch_nn.Linear(6 * (1 + told.get("bidirectional", False)), 3)

    def forward(self, x: Tensor) -> Any:
        y, state = self.stack(self.embedding(x))
        if self.last:
            y = y[:, -1] if self.stack.batch_first else y[-1]
        out = torch.softmax(self.head(y), -1)
        return out if self.last else (out, state)


def by_torch(model: torch_nn.Module, dynamo: bool) -> onnx.ModelProto:
    """What torch's exporter makes of a model, with any T and N."""
    x = torch.zeros(4, 2, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the older exporter, and of random states
        if dynamo:
            sizes = {"x": {k: torch.export.Dim(f"d{k}", min=2) for k in (0, 1)}}
            made = torch.onnx.export(model, (x,), dynamo=True, verbose=False, dynamic_shapes=sizes)
            return made.model_proto
        file = io.BytesIO()
        torch.onnx.export(
            model, (x,), file, dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "a", 1: "b"}},
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


EACH = [
    ("LSTM", 2, {"last": False}),
    ("LSTM", 1, {"last": True, "batch_first": True}),
    ("GRU", 2, {"last": True}),
    ("GRU", 2, {"last": False, "batch_first": True, "bidirectional": True}),
    ("RNN", 1, {"last": True, "nonlinearity": "relu"}),
]
# The newer exporter takes seconds a model; of nn.RNN it writes single steps, which no layer is.
CASES = [*((*one, False) for one in EACH), ("LSTM", 2, {"last": False, "batch_first": True}, True)]


class Bound(torch_nn.Module):
    """A GRU, and in front of it or behind it what an exporter binds to the steps of its example."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer, self.inner = torch_nn.GRU(I, 4), torch_nn.Linear(I, I)
        self.places = torch_nn.Parameter(torch.randn(4, 1, I))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "steps":
            x = torch.stack([torch.tanh(self.inner(one)) for one in x.unbind()])
        if self.kind == "places":
            x = x + self.places
        y = self.layer(x)[0]
        return y.sum(0) / y.shape[0] if self.kind == "sum" else self.layer(x)[0]


@pytest.mark.parametrize("kind", ["steps", "places", "sum", "none"])
def test_sizes_that_a_graph_is_bound_to(kind: str) -> None:
    model, file = Bound(kind).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.randn(4, 2, I),), file, dynamo=False, input_names=["x"])
    module = load(onnx.load_from_string(file.getvalue()))
    x = torch.randn(4, 2, I)
    agrees(module, model(x), x)
    for shape in ((6, 2, I), (1, 2, I), (4, 3, I)):
        x = torch.randn(shape)
        if kind == "none":
            agrees(module, model(x), x)
            continue
        with pytest.raises(
            ValueError, match=rf"x must have the shape \[4, 2, {I}\] .* got \[{shape[0]}"
        ):
            module(x)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layers", "told", "dynamo"), CASES)
def test_what_torch_exports(
    kind: str, layers: int, told: dict[str, Any], dynamo: bool, tmp_path: Path
) -> None:
    model = TorchModel(kind, layers, **told).eval()
    module = load(by_torch(model, dynamo))
    made = [one for one in module.children() if isinstance(one, nn.Recurrent)]
    assert [type(one) for one in made] == [getattr(nn, kind)] * layers
    assert all(one.batch_first == told.get("batch_first", False) for one in made)
    for shape in ((4, 2), (7, 3)):
        x = torch.randint(0, 11, shape)
        agrees(module, model(x), x)
    if not told.get("bidirectional"):
        runs(module, x, tmp_path, told.get("batch_first", False))


CHAINS = ["Embedding → Recurrent → Recurrent → Linear",
          "Embedding → Recurrent → Recurrent → Last → Linear",
          "Embedding → Recurrent → Recurrent → Pooling → Linear"]  # fmt: skip


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(
    ("cell", "pooling", "chain"),
    [
        ("LSTM", None, CHAINS[0]), ("GRU", None, CHAINS[0]), ("RNN", None, CHAINS[0]),
        ("PeepholeLSTM", None, CHAINS[0]), ("CoupledLSTM", None, CHAINS[0]),
        ("ResetBeforeGRU", None, CHAINS[0]), ("GRU", "last", CHAINS[1]), ("LSTM", "mean", None),
        ("GRU", "max", CHAINS[2]), ("GRU", "attention", None),
    ],
)  # fmt: skip
def test_there_and_back(
    cell: str, pooling: str | None, chain: str | None, lengths: bool, tmp_path: Path
) -> None:
    model = SequenceModel(
        7, 5, hidden_size=6, embedding_size=3, cell=cell, pooling=pooling, num_layers=2
    ).eval()
    x, ends = torch.randint(0, 7, (6, 3)), torch.tensor([4, 6, 1])
    export(model, tmp_path / "model.onnx", lengths=lengths)
    module = load(tmp_path / "model.onnx")
    told = {"lengths": ends} if lengths else {}
    agrees(module, model(x, **told), x, *told.values())
    for one, other in zip(
        (one for one in module.children() if isinstance(one, nn.Recurrent)), range(2), strict=True
    ):
        assert repr(one.cell) == repr(model.recurrent.cell)
        same(one.weight_ih_l0, getattr(model.recurrent, f"weight_ih_l{other}"))
    if chain is None or (lengths and pooling == "max"):
        with pytest.raises(ExportError, match="must be"):
            export_for_runtime(module, tmp_path / "chain")
        return
    export_for_runtime(module, tmp_path / "chain")
    read = runtime.load(tmp_path / "chain")
    assert repr(read) == f"Model({chain})"
    y = read.run(x.numpy(), ends.numpy() if lengths else None)
    close(torch.from_numpy(y), model(x, **told)[0], "output", "in the runtime")


@pytest.mark.parametrize("batch_first", [False, True])
def test_states_that_may_be_left_out(batch_first: bool, tmp_path: Path) -> None:
    layer = nn.LSTM(3, 4, 2, batch_first=batch_first)
    export(layer, tmp_path / "layer.onnx", lengths=True, states=True)
    x = torch.randn(3, 6, 3) if batch_first else torch.randn(6, 3, 3)
    state = (torch.randn(2, 3, 4), torch.randn(2, 3, 4))
    ends = torch.tensor([4, 6, 1])
    without, given = (load(tmp_path / "layer.onnx", optional=one) for one in (False, True))
    agrees(without, layer(x, lengths=ends), x, ends)
    agrees(given, layer(x, state, lengths=ends), x, ends, *state)
    export_for_runtime(given, tmp_path / "chain")
    model = runtime.load(tmp_path / "chain")
    wanted, _ = layer(x, lengths=ends)
    y = model.run(x.numpy(), ends.numpy())
    close(torch.from_numpy(y), wanted, "output", "in the runtime")


def test_a_start_that_was_learned_stays_one(tmp_path: Path) -> None:
    model = SequenceModel(7, 5, hidden_size=4, cell="LSTM", initial="learned", num_layers=2).eval()
    assert model.start is not None
    for state in model.start.states:
        state.data.uniform_(-1, 1)
    export(model, tmp_path / "model.onnx")
    module = load(tmp_path / "model.onnx")
    x = torch.randint(0, 7, (6, 3))
    agrees(module, model(x), x)
    runs(module, x, tmp_path)
    flat(module(x))[0].sum().backward()
    alone = [one.hx for one in layers_of(tmp_path / "model.onnx")]
    for hx, one in zip(zip(*alone, strict=True), model.start.states, strict=True):
        same(torch.cat(hx), one.data)
    starts = [p for name, p in module.named_parameters() if name.startswith("start")]
    assert len(starts) == 4
    assert all(p.grad is not None and p.grad.any() for p in starts)


def test_an_imported_module_learns() -> None:
    case = one_node("LSTM", np.random.default_rng(0), ("B", "P"), direction="reverse")
    module = load(case.model)
    x = torch.from_numpy(case.feeds["X"])
    flat(module(x))[0].sum().backward()
    grads = [one.grad for one in module.parameters()]
    assert len(grads) == 7
    assert all(one is not None and one.any() for one in grads)


PUBLISHED = [
    cell for cell in vars(cells).values()
    if isinstance(cell, type) and issubclass(cell, cells.Cell) and cell is not cells.Cell
]  # fmt: skip


@pytest.mark.parametrize("cell", PUBLISHED, ids=lambda cell: cell.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_cell_there_and_back(
    cell: type[cells.Cell], dtype: torch.dtype, tmp_path: Path
) -> None:
    """In float64 all of them go by Scan; what comes back is a cell of the same steps."""
    layer = nn.Recurrent(cell, 4, 5, bidirectional=True, dtype=dtype)
    export(layer, tmp_path / "layer.onnx", lengths=True)
    module = load(tmp_path / "layer.onnx")
    x, ends = torch.randn(7, 3, 4, dtype=dtype), torch.tensor([3, 7, 2])
    agrees(module, layer(x, lengths=ends), x, ends)
    forward = nn.Recurrent(cell, 4, 5, dtype=dtype)
    export(forward, tmp_path / "forward.onnx")
    agrees(load(tmp_path / "forward.onnx"), forward(x), x)


@pytest.mark.parametrize("options", [{}, {"proj_size": 3}, {"bias": False}])
def test_a_cell_of_a_file_learns_and_streams(options: dict[str, Any], tmp_path: Path) -> None:
    layer = nn.Recurrent(cells.LayerNormLSTM, 4, 5, 2, **options)
    with torch.no_grad():
        for parameter in layer.parameters():  # equal ones would stand in the file but once
            parameter.uniform_(0.1, 0.9)
    export(layer, tmp_path / "layer.onnx")
    module = load(tmp_path / "layer.onnx")
    x = torch.randn(6, 2, 4)
    runs(module, x, tmp_path)
    if "bias" in options:
        return  # the file has zeros for what the layer has not, and those would learn
    slopes = []
    for one in (module, layer):
        flat(one(x))[0].sin().sum().backward()
        slopes.append(sum(p.grad.square().sum() for p in one.parameters()))
    close(slopes[0], slopes[1], "gradient", "sum of squares of all slopes")
