"""torch.compile and torch.export: one graph, the operator in it, the values of eager mode."""

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from tests.support.subjects import LAYERS, tokens
from tests.support.tolerances import close
from unrolled import cells, nn
from unrolled.cells import Cell, tanh

T, N, I, H = 5, 4, 3, 6  # noqa: E741
LENGTHS = torch.tensor([3, 5, 0, 1])
CUTS = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]).bool()
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dense": ({}, {}),
    "stacked": ({"num_layers": 2, "bidirectional": True, "merge": "sum"}, {}),
    "batch first": ({"batch_first": True, "bidirectional": True, "bias": False}, {}),
    "lengths": ({"num_layers": 2, "bidirectional": True}, {"lengths": LENGTHS}),
    "resets": ({"batch_first": True}, {"resets": CUTS.t()}),
    "all": ({"bidirectional": True}, {"lengths": LENGTHS, "resets": CUTS}),
}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    """Dynamo without graphs of earlier tests."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Captured:
    """A backend that keeps the graphs and runs them as they are."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.graphs.append(graph)
        return graph.forward

    def count(self) -> int:
        """How often these graphs call the operator."""
        op = torch.ops.unrolled.sweep
        targets = [node.target for graph in self.graphs for node in graph.graph.nodes]
        return sum(target in (op, op.default) for target in targets)


def flat(result: Any) -> list[Tensor]:
    output, final = result
    return [output, *(final if isinstance(final, tuple) else (final,))]


def gradients(run: Any, layer: torch.nn.Module, x: Tensor, **options: Any) -> list[Tensor]:
    """Outputs and states, then gradients of the input and of the parameters."""
    x = x.detach().clone().requires_grad_()
    ends = flat(run(x, **options))
    loss = sum((end * tokens(*end.shape, seed=k)).sum() for k, end in enumerate(ends))
    assert isinstance(loss, Tensor)
    return [*ends, *torch.autograd.grad(loss, [x, *layer.parameters()])]


def input_of(layer: nn.Recurrent, T: int = T, N: int = N) -> Tensor:
    shape = (N, T, I) if layer.batch_first else (T, N, I)
    return tokens(*shape, seed=1).detach()


@pytest.mark.sampled
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layer_name", LAYERS)
def test_a_compiled_layer_is_the_layer(layer_name: str, form: str) -> None:
    options, call_options = FORMS[form]
    layer = LAYERS[layer_name](I, H, dtype=torch.float64, **options)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = input_of(layer)
    expected = gradients(layer, layer, x, **call_options)
    for mine, eager in zip(gradients(compiled, layer, x, **call_options), expected, strict=True):
        close(mine, eager, "gradient")
    with torch.no_grad():
        for mine, eager in zip(flat(compiled(x, **call_options)), expected, strict=False):
            close(mine, eager, "output")


@pytest.mark.filterwarnings("ignore")  # of Dynamo, where its graph breaks
def test_resets_of_packed_sequences_out_of_order() -> None:
    """Packing sorts the sequences; the resets are in the order of the user."""
    layer = nn.Recurrent(cells.MGU, I, H, dtype=torch.float64)
    x, lengths = input_of(layer), torch.tensor([2, 1, 3, 5])

    def run(x: Tensor, resets: Tensor) -> Any:
        rows = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return layer(rows, resets=resets)

    actual, expected = torch.compile(run, backend="eager")(x, CUTS), run(x, CUTS)
    close(actual[0].data, expected[0].data, "output")
    close(actual[1], expected[1], "output")


@pytest.mark.parametrize("layer_name", LAYERS)
def test_the_graph_holds_the_operator_and_does_not_grow_with_time(layer_name: str) -> None:
    layer = LAYERS[layer_name](I, H, dtype=torch.float64, num_layers=2, bidirectional=True)
    sizes = []
    for steps in (3, 30):
        torch._dynamo.reset()
        backend = Captured()
        torch.compile(layer, fullgraph=True, backend=backend)(input_of(layer, T=steps))
        assert backend.count() == 4
        assert len(backend.graphs) == 1
        sizes.append(len(backend.graphs[0].graph.nodes))
    assert sizes[0] == sizes[1]


def test_other_sizes_and_lengths_need_no_other_graph() -> None:
    layer = nn.LSTM(I, H, num_layers=2, bidirectional=True, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, count, lengths in [(5, 4, [3, 5, 0, 1]), (7, 3, [7, 7, 7]), (2, 6, [1] * 6)]:
            x, arguments = input_of(layer, steps, count), torch.tensor(lengths)
            for mine, eager in zip(
                flat(compiled(x, lengths=arguments)), flat(layer(x, lengths=arguments)), strict=True
            ):
                close(mine, eager, "output")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("training", [False, True])
def test_inductor(training: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(I, I), nn.GRU(I, H, batch_first=True))
    compiled = torch.compile(model, fullgraph=True)
    x = tokens(N, T, I, seed=2).detach().float()
    with torch.set_grad_enabled(training):
        for mine, eager in zip(flat(compiled(x)), flat(model(x)), strict=True):
            close(mine, eager, "output")
    if training:
        for mine, eager in zip(
            gradients(compiled, model, x), gradients(model, model, x), strict=True
        ):
            close(mine, eager, "gradient")


def test_dropout_between_layers_is_drawn_in_training_only() -> None:
    layer = nn.GRU(I, H, num_layers=2, dropout=0.5, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = input_of(layer)
    assert not torch.equal(compiled(x)[0], compiled(x)[0])
    layer.eval()
    close(compiled(x)[0], layer(x)[0], "output")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(dtype: torch.dtype) -> None:
    layer = nn.LSTM(I, H)
    x = input_of(layer).float()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype):
        for mine, eager in zip(flat(compiled(x)), flat(layer(x)), strict=True):
            assert mine.dtype == dtype
            assert torch.equal(mine, eager)
    layer, x = layer.to(dtype), x.to(dtype)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for mine, eager in zip(flat(compiled(x)), flat(layer(x)), strict=True):
        assert torch.equal(mine, eager)


@pytest.mark.parametrize("make", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_compiled_step_is_the_step(make: Any) -> None:
    cell = make(I, H, dtype=torch.float64)
    backend = Captured()
    compiled = torch.compile(cell, fullgraph=True, backend=backend)
    x = tokens(N, I, seed=3).detach()
    with torch.no_grad():
        expected = flat((x, cell(x, cell(x))))
        actual = flat((x, compiled(x, compiled(x))))
    assert backend.count() == 2
    for mine, eager in zip(actual, expected, strict=True):
        close(mine, eager, "output")


@pytest.mark.parametrize("cell", [cells.SLSTM, cells.AntisymmetricRNN, cells.LayerNormLSTM])
def test_published_cells(cell: type[Cell]) -> None:
    """Blocks of weights, weights prepared in torch, sums over units."""
    layer = nn.Recurrent(cell, I, 8, dtype=torch.float64)
    backend = Captured()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    x = input_of(layer)
    expected = gradients(layer, layer, x)
    for mine, eager in zip(gradients(compiled, layer, x), expected, strict=True):
        close(mine, eager, "gradient")
    assert backend.count() == 1


class Scaled(Cell):
    """A setting is a constant of the program."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(self.scale * (x + h))


class Branching(Cell):
    """Has no program."""

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(x + h) if bool((x > -1e9).all()) else x


def test_a_changed_setting_is_seen() -> None:
    layer = nn.Recurrent(Scaled(0.5), I, H, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = input_of(layer)
    old_output = compiled(x)[0]
    layer.cell = layer.cell.replace(scale=2.0)
    close(compiled(x)[0], layer(x)[0], "output")
    assert not torch.equal(compiled(x)[0], old_output)
    copied = copy.deepcopy(layer)
    close(torch.compile(copied, fullgraph=True, backend="eager")(x)[0], layer(x)[0], "output")


def test_lengths_need_a_program() -> None:
    layer, x = nn.Recurrent(Branching, I, H), input_of(nn.RNN(I, H)).float()
    assert layer._runner._compiled.refusal(x) is not None
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    with pytest.raises(
        RuntimeError,
        match=r"lengths and resets must be None in .*, got lengths: cell Branching",
    ):
        compiled(x, lengths=LENGTHS)


@pytest.mark.parametrize("make", [nn.GRU, nn.LSTM])
def test_off_the_cpu_there_is_no_operator(make: Any) -> None:
    """Its kernels are the CPU's. The device without numbers stands in for others."""
    layer, backend = make(I, H, device="meta"), Captured()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    x = torch.empty(T, N, I, device="meta")
    assert compiled(x)[0].shape == (T, N, H)
    assert backend.count() == 0
    with pytest.raises(
        RuntimeError, match=r"lengths and resets must be None in .*: it runs on the CPU"
    ):
        compiled(x, lengths=LENGTHS)


def test_lengths_outside_the_batch_are_refused() -> None:
    layer = nn.GRU(I, H)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for wrong in ([6, 1, 1, 1], [1, -1, 1, 1]):
        with pytest.raises(ValueError, match=r"lengths must lie in \[0, 5\], got"):
            compiled(input_of(layer).float(), lengths=torch.tensor(wrong))


class Model(torch.nn.Module):
    """A layer of ours between others."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(I, 4)
        self.layer = nn.LSTM(4, H, num_layers=2, bidirectional=True, batch_first=True)
        self.readout = torch.nn.Linear(2 * H, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        actual: Tensor = self.readout(self.layer(self.embed(x), lengths=lengths)[0])
        return actual


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_runs_for_other_sizes(strict: bool) -> None:
    model = Model().double().eval()
    batch, time = torch.export.Dim("batch", min=2), torch.export.Dim("time", min=2)
    shapes = {"x": {0: batch, 1: time}, "lengths": {0: batch}}
    example = (tokens(N, T, I, seed=4).detach(), LENGTHS)
    program = torch.export.export(model, example, dynamic_shapes=shapes, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for rows, steps, lengths in [(4, 5, [3, 5, 0, 1]), (3, 9, [9, 2, 8]), (7, 2, [1] * 7)]:
        x, arguments = tokens(rows, steps, I, seed=5).detach(), torch.tensor(lengths)
        close(loaded(x, arguments), model(x, arguments), "output")


class Streams(torch.nn.Module):
    """No reset states, a cell with vectors and one without: lists of tensors that are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.LSTM(I, H, batch_first=True)
        self.above = nn.Recurrent(cells.PeepholeLSTM, H, H, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        values: Tensor = self.above(self.below(x)[0], lengths=lengths)[0]
        return values


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_package_of_aotinductor_runs_for_other_sizes(tmp_path: Any) -> None:
    model = Streams().eval()
    shapes = {
        "x": {0: torch.export.Dim("batch", min=2), 1: torch.export.Dim("time", min=2)},
        "lengths": {0: torch.export.Dim("batch", min=2)},
    }
    example = (tokens(N, T, I, seed=4).detach().float(), LENGTHS)
    with torch.no_grad():
        program = torch.export.export(model, example, dynamic_shapes=shapes)
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "model.pt2")
        )
        package = torch._inductor.aoti_load_package(path)
        x, lengths = tokens(3, 9, I, seed=5).detach().float(), torch.tensor([9, 2, 8])
        close(package(x, lengths), model(x, lengths), "output")
