"""Models as torch's exporters and ours write them, as modules and in the runtime."""

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
from tests.support.tolerances import assert_equal, close
from unrolled import cells, nn, runtime
from unrolled.export import ExportError
from unrolled.export import export as export_for_runtime
from unrolled.models import SequenceModel
from unrolled.onnx import export, layers_of, load


class TorchModel(torch_nn.Module):
    """An embedding, recurrent layers of torch, a linear layer and softmax, over all steps or the
    final one."""

    def __init__(self, class_name: str, layers: int, **options: Any) -> None:
        super().__init__()
        self.final_step = options.pop("final_step")
        self.embedding = torch_nn.Embedding(11, 5)
        self.stack = getattr(torch_nn, class_name)(5, 6, layers, **options)
        self.head = torch_nn.Linear(6 * (1 + options.get("bidirectional", False)), 3)

    def forward(self, x: Tensor) -> Any:
        y, state = self.stack(self.embedding(x))
        if self.final_step:
            y = y[:, -1] if self.stack.batch_first else y[-1]
        out = torch.softmax(self.head(y), -1)
        return out if self.final_step else (out, state)


def by_torch(model: torch_nn.Module, dynamo: bool) -> onnx.ModelProto:
    """A model as torch's exporter writes it, with free T and N."""
    x = torch.zeros(4, 2, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the older exporter, and of random states
        if dynamo:
            sizes = {"x": {k: torch.export.Dim(f"d{k}", min=2) for k in (0, 1)}}
            program = torch.onnx.export(
                model, (x,), dynamo=True, verbose=False, dynamic_shapes=sizes
            )
            return program.model_proto
        file = io.BytesIO()
        torch.onnx.export(
            model, (x,), file, dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "a", 1: "b"}},
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


MODELS = [
    ("LSTM", 2, {"final_step": False}),
    ("LSTM", 1, {"final_step": True, "batch_first": True}),
    ("GRU", 2, {"final_step": True}),
    ("GRU", 2, {"final_step": False, "batch_first": True, "bidirectional": True}),
    ("RNN", 1, {"final_step": True, "nonlinearity": "relu"}),
]
# The newer exporter takes seconds a model, and writes nn.RNN as single steps.
CASES = [
    *((*model, False) for model in MODELS),
    ("LSTM", 2, {"final_step": False, "batch_first": True}, True),
]


class Bound(torch_nn.Module):
    """A GRU with an operation that exporters bind to the sizes of their example."""

    def __init__(self, dependence: str) -> None:
        super().__init__()
        self.dependence = dependence
        self.layer, self.inner = torch_nn.GRU(I, 4), torch_nn.Linear(I, I)
        self.places = torch_nn.Parameter(torch.randn(4, 1, I))

    def forward(self, x: Tensor) -> Tensor:
        if self.dependence == "steps":
            x = torch.stack([torch.tanh(self.inner(step)) for step in x.unbind()])
        if self.dependence == "places":
            x = x + self.places
        y = self.layer(x)[0]
        return y.sum(0) / y.shape[0] if self.dependence == "sum" else self.layer(x)[0]


@pytest.mark.parametrize("dependence", ["steps", "places", "sum", "none"])
def test_sizes_on_which_a_graph_depends(dependence: str) -> None:
    model, file = Bound(dependence).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.randn(4, 2, I),), file, dynamo=False, input_names=["x"])
    module = load(onnx.load_from_string(file.getvalue()))
    x = torch.randn(4, 2, I)
    agrees(module, model(x), x)
    for shape in ((6, 2, I), (1, 2, I), (4, 3, I)):
        x = torch.randn(shape)
        if dependence == "none":
            agrees(module, model(x), x)
            continue
        with pytest.raises(
            ValueError, match=rf"x must have the shape \[4, 2, {I}\] .* got \[{shape[0]}"
        ):
            module(x)


@pytest.mark.slow
@pytest.mark.parametrize(("class_name", "layers", "options", "dynamo"), CASES)
def test_what_torch_exports(
    class_name: str, layers: int, options: dict[str, Any], dynamo: bool, tmp_path: Path
) -> None:
    model = TorchModel(class_name, layers, **options).eval()
    module = load(by_torch(model, dynamo))
    layers_found = [layer for layer in module.children() if isinstance(layer, nn.Recurrent)]
    assert [type(layer) for layer in layers_found] == [getattr(nn, class_name)] * layers
    assert all(layer.batch_first == options.get("batch_first", False) for layer in layers_found)
    for shape in ((4, 2), (7, 3)):
        x = torch.randint(0, 11, shape)
        agrees(module, model(x), x)
    if not options.get("bidirectional"):
        runs(module, x, tmp_path, options.get("batch_first", False))


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
def test_a_model_exported_and_loaded(
    cell: str, pooling: str | None, chain: str | None, lengths: bool, tmp_path: Path
) -> None:
    model = SequenceModel(
        7, 5, hidden_size=6, embedding_size=3, cell=cell, pooling=pooling, num_layers=2
    ).eval()
    x, ends = torch.randint(0, 7, (6, 3)), torch.tensor([4, 6, 1])
    export(model, tmp_path / "model.onnx", lengths=lengths)
    module = load(tmp_path / "model.onnx")
    options = {"lengths": ends} if lengths else {}
    agrees(module, model(x, **options), x, *options.values())
    for layer, k in zip(
        (layer for layer in module.children() if isinstance(layer, nn.Recurrent)),
        range(2),
        strict=True,
    ):
        assert repr(layer.cell) == repr(model.recurrent.cell)
        assert_equal(layer.weight_ih_l0, getattr(model.recurrent, f"weight_ih_l{k}"))
    if chain is None or (lengths and pooling == "max"):
        with pytest.raises(ExportError, match="must be"):
            export_for_runtime(module, tmp_path / "chain")
        return
    export_for_runtime(module, tmp_path / "chain")
    read = runtime.load(tmp_path / "chain")
    assert repr(read) == f"Model({chain}; float32)"
    y = read.run(x.numpy(), ends.numpy() if lengths else None)
    close(torch.from_numpy(y), model(x, **options)[0], "output", "in the runtime")


@pytest.mark.parametrize("batch_first", [False, True])
def test_optional_initial_states(batch_first: bool, tmp_path: Path) -> None:
    layer = nn.LSTM(3, 4, 2, batch_first=batch_first)
    export(layer, tmp_path / "layer.onnx", lengths=True, states=True)
    x = torch.randn(3, 6, 3) if batch_first else torch.randn(6, 3, 3)
    state = (torch.randn(2, 3, 4), torch.randn(2, 3, 4))
    ends = torch.tensor([4, 6, 1])
    with_defaults, with_states = (
        load(tmp_path / "layer.onnx", optional=optional) for optional in (False, True)
    )
    agrees(with_defaults, layer(x, lengths=ends), x, ends)
    agrees(with_states, layer(x, state, lengths=ends), x, ends, *state)
    export_for_runtime(with_states, tmp_path / "chain")
    model = runtime.load(tmp_path / "chain")
    expected, _ = layer(x, lengths=ends)
    y = model.run(x.numpy(), ends.numpy())
    close(torch.from_numpy(y), expected, "output", "in the runtime")


def test_a_learned_initial_state_stays_trainable(tmp_path: Path) -> None:
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
    constant_states = [layer.hx for layer in layers_of(tmp_path / "model.onnx")]
    for hx, state in zip(zip(*constant_states, strict=True), model.start.states, strict=True):
        assert_equal(torch.cat(hx), state.data)
    starts = [p for name, p in module.named_parameters() if name.startswith("start")]
    assert len(starts) == 4
    assert all(p.grad is not None and p.grad.any() for p in starts)


def test_an_imported_module_has_gradients() -> None:
    case = one_node("LSTM", np.random.default_rng(0), ("B", "P"), direction="reverse")
    module = load(case.model)
    x = torch.from_numpy(case.feeds["X"])
    flat(module(x))[0].sum().backward()
    grads = [parameter.grad for parameter in module.parameters()]
    assert len(grads) == 7
    assert all(grad is not None and grad.any() for grad in grads)


PUBLISHED = [
    cell for cell in vars(cells).values()
    if isinstance(cell, type) and issubclass(cell, cells.Cell) and cell is not cells.Cell
]  # fmt: skip


@pytest.mark.parametrize("cell", PUBLISHED, ids=lambda cell: cell.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_cell_exported_and_loaded(
    cell: type[cells.Cell], dtype: torch.dtype, tmp_path: Path
) -> None:
    """In float64 all of them become Scan, which becomes a cell with the same step again."""
    layer = nn.Recurrent(cell, 4, 5, bidirectional=True, dtype=dtype)
    export(layer, tmp_path / "layer.onnx", lengths=True)
    module = load(tmp_path / "layer.onnx")
    x, ends = torch.randn(7, 3, 4, dtype=dtype), torch.tensor([3, 7, 2])
    agrees(module, layer(x, lengths=ends), x, ends)
    forward = nn.Recurrent(cell, 4, 5, dtype=dtype)
    export(forward, tmp_path / "forward.onnx")
    agrees(load(tmp_path / "forward.onnx"), forward(x), x)


@pytest.mark.parametrize("options", [{}, {"proj_size": 3}, {"bias": False}])
def test_a_cell_of_a_file_has_gradients_and_streams(
    options: dict[str, Any], tmp_path: Path
) -> None:
    layer = nn.Recurrent(cells.LayerNormLSTM, 4, 5, 2, **options)
    with torch.no_grad():
        for parameter in layer.parameters():  # equal ones would be one constant of the file
            parameter.uniform_(0.1, 0.9)
    export(layer, tmp_path / "layer.onnx")
    module = load(tmp_path / "layer.onnx")
    x = torch.randn(6, 2, 4)
    runs(module, x, tmp_path)
    if "bias" in options:
        return  # the file has zeros for the biases, which would be trained
    gradients = []
    for model in (module, layer):
        flat(model(x))[0].sin().sum().backward()
        gradients.append(sum(p.grad.square().sum() for p in model.parameters()))
    close(gradients[0], gradients[1], "gradient", "sum of squares of all gradients")
