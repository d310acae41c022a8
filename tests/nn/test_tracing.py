"""torch.fx, torch.jit.trace and dispatch modes, over layers."""

import io
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.ao.quantization import QConfigMapping, default_dynamic_qconfig, get_default_qconfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.support.subjects import tokens
from tests.support.tolerances import close
from unrolled import cells, engines, nn

T, N, I, H = 5, 3, 4, 6  # noqa: E741
CLASSIC = ["RNN", "LSTM", "GRU"]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stacked": {"num_layers": 2, "bidirectional": True},
    "batch first": {"batch_first": True, "bias": False},
    "summed": {"bidirectional": True, "merge": "sum"},
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),
]


class Watching(TorchDispatchMode):
    """Runs every operator as it is."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


def flat(result: Any) -> list[Tensor]:
    return [part for part in torch.utils._pytree.tree_leaves(result) if isinstance(part, Tensor)]


class Model(torch.nn.Module):
    """A layer between two others."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(I, I)
        self.layer = layer
        self.readout = torch.nn.Linear(H, 2)

    def forward(self, x: Tensor) -> Tensor:
        values, _ = self.layer(self.embed(x))
        logits: Tensor = self.readout(values)
        return logits


class Packed(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        output, final = self.layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(output)[0], final


@pytest.mark.parametrize("layer_name", CLASSIC)
def test_symbolic_trace_takes_a_layer_for_a_leaf(layer_name: str) -> None:
    model = Model(getattr(nn, layer_name)(I, H))
    theirs = Model(getattr(torch.nn, layer_name)(I, H))
    traced = torch.fx.symbolic_trace(model)
    expected = [(n.op, str(n.target)) for n in torch.fx.symbolic_trace(theirs).graph.nodes]
    assert [(node.op, str(node.target)) for node in traced.graph.nodes] == expected
    x = tokens(7, 2, I).detach().float()
    close(traced(x), model(x), "output")


def test_a_cell_and_options_are_recorded_as_called() -> None:
    class Loop(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(I, H)
            self.layer = nn.Recurrent(cells.MGU, H, H)

        def forward(self, x: Tensor, h: Tensor, lengths: Tensor) -> Any:
            h = self.cell(x[1], self.cell(x[0], h))
            return self.layer(h[None], lengths=lengths)[0]

    model = Loop()
    x, h = tokens(T, N, I).detach().float(), tokens(N, H, seed=1).detach().float()
    lengths = torch.tensor([1, 0, 1])
    traced = torch.fx.symbolic_trace(model)
    close(traced(x, h, lengths), model(x, h, lengths), "output")


def test_what_a_leaf_would_run_twice_is_refused() -> None:
    class Doubling(nn.LSTM):
        def forward(self, *inputs: Any, **options: Any) -> Any:
            output, final = super().forward(*inputs, **options)
            return 2 * output, final

    with pytest.raises(RuntimeError, match="got 'layer' with a forward method"):
        torch.fx.symbolic_trace(Model(Doubling(I, H)))
    hooked = Model(nn.LSTM(I, H))
    hooked.layer.register_forward_hook(lambda module, inputs, result: (2 * result[0], result[1]))
    with pytest.raises(RuntimeError, match="'layer' with hooks"):
        torch.fx.symbolic_trace(hooked)


@pytest.mark.filterwarnings("ignore:must run observer:UserWarning")
@pytest.mark.parametrize("static", [False, True])
def test_fx_quantization_leaves_the_layer_as_it_is(static: bool) -> None:
    model = Model(nn.LSTM(I, H)).eval()
    x = tokens(T, N, I).detach().float()
    config = get_default_qconfig("x86") if static else default_dynamic_qconfig
    prepared = prepare_fx(model, QConfigMapping().set_global(config), (x,))
    prepared(x)
    quantized = convert_fx(prepared)
    assert type(quantized.layer) is nn.LSTM
    assert "Quantized" in repr(quantized.embed)
    assert (quantized(x) - model(x)).abs().max() < 0.05  # a few steps of 8 bits


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("layer_name", CLASSIC)
def test_a_trace_passes_torch_s_check_and_takes_other_sizes(
    layer_name: str, options: str, grad: bool
) -> None:
    layer = getattr(nn, layer_name)(I, H, dtype=torch.float64, **OPTIONS[options])
    x, second = tokens(T, N, I).detach(), tokens(9, 2, I, seed=1).detach()
    with torch.set_grad_enabled(grad), warnings.catch_warnings():
        warnings.simplefilter("error", TracerWarning)
        traced = torch.jit.trace(layer, (x,))
    with engines.use("reference"):
        expected = flat(layer(second))
    for mine, true in zip(flat(traced(second)), expected, strict=True):
        close(mine, true, "output")


def test_a_trace_of_a_classic_layer_holds_torch_s_own_function() -> None:
    """So a process without this library runs it."""
    traced = torch.jit.trace(nn.LSTM(I, H, num_layers=2), (torch.zeros(T, N, I),))
    graph = str(traced.inlined_graph)
    assert "aten::lstm" in graph
    assert "unrolled::" not in graph


@pytest.mark.parametrize("make", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_a_traced_step(make: Any) -> None:
    cell = make(I, H, dtype=torch.float64)
    traced = torch.jit.trace(cell, (tokens(N, I).detach(),))
    x = tokens(7, I, seed=1).detach()
    for mine, true in zip(flat(traced(x)), flat(cell(x)), strict=True):
        close(mine, true, "output")


@pytest.mark.parametrize("cell", [cells.PeepholeLSTM, cells.SLSTM, cells.LayerNormLSTM])
def test_a_trace_of_any_cell_is_saved_loaded_and_differentiated(cell: type[cells.Cell]) -> None:
    layer = nn.Recurrent(cell, I, 8, dtype=torch.float64)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, (tokens(T, N, I).detach(),)), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    x = tokens(9, 2, I, seed=1).detach().requires_grad_()
    output = layer(x)[0]
    close(loaded(x)[0], output, "output")
    (mine,) = torch.autograd.grad(loaded(x)[0].square().sum(), x)
    (true,) = torch.autograd.grad(output.square().sum(), x)
    close(mine, true, "gradient")


@pytest.mark.parametrize("mode", ["packed", "lengths"])
@pytest.mark.parametrize("make", [nn.LSTM, lambda *a, **o: nn.Recurrent(cells.MGU, *a, **o)])
def test_a_trace_is_not_bound_to_the_lengths_of_its_example(make: Any, mode: str) -> None:
    layer = make(I, H, bidirectional=True, dtype=torch.float64)

    class WithLengths(Packed):
        def forward(self, x: Tensor, lengths: Tensor) -> Any:
            return self.layer(x, lengths=lengths)

    model = Packed(layer) if mode == "packed" else WithLengths(layer)
    traced = torch.jit.trace(model, (tokens(T, N, I).detach(), torch.tensor([3, 5, 1])))
    x, lengths = tokens(9, 4, I, seed=1).detach(), torch.tensor([2, 9, 4, 7])
    for mine, true in zip(flat(traced(x, lengths)), flat(model(x, lengths)), strict=True):
        close(mine, true, "output")


@pytest.mark.parametrize("mode", ["packed", "dense"])
def test_a_trace_is_not_bound_to_the_resets_of_its_example(mode: str) -> None:
    layer = nn.LSTM(I, H, dtype=torch.float64)

    class Resetting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, lengths: Tensor, resets: Tensor) -> Any:
            if mode == "dense":
                return self.layer(x, resets=resets)
            rows = pack_padded_sequence(x, lengths, enforce_sorted=False)
            output, final = self.layer(rows, resets=resets)
            return output.data, final

    x, lengths, none = tokens(T, N, I).detach(), torch.tensor([3, 5, 1]), torch.zeros(T, N).bool()
    traced = torch.jit.trace(Resetting(), (x, lengths, none))
    resets = torch.rand(T, N, generator=torch.Generator().manual_seed(0)) < 0.4
    expected = flat(Resetting()(x, lengths, resets))
    assert not torch.equal(expected[0], flat(Resetting()(x, lengths, none))[0])
    for mine, true in zip(flat(traced(x, lengths, resets)), expected, strict=True):
        close(mine, true, "output")


@pytest.mark.parametrize("options", [o for o in OPTIONS if o != "summed"])
@pytest.mark.parametrize(
    "layer_name", ["RNN", "GRU"]
)  # torch counts none of its own LSTM's on the CPU
def test_flops_are_those_of_torch_s_products(layer_name: str, options: str) -> None:
    counts = []
    for module in (nn, torch.nn):
        layer = getattr(module, layer_name)(I, H, **OPTIONS[options])
        x = tokens(T, N, I).detach().float().requires_grad_()
        with FlopCounterMode(display=False) as forward:
            output = layer(x)[0]
        with FlopCounterMode(display=False) as backward:
            output.sum().backward()
        counts.append((forward.get_total_flops(), backward.get_total_flops()))
    assert counts[0][0] == counts[1][0] > 0
    # Autograd leaves out the gradient of the first state, a constant: one step of T, one product.
    assert counts[1][1] <= counts[0][1] <= counts[1][1] * (1 + 1 / T)


def test_flops_of_a_ragged_batch_are_those_of_its_tokens() -> None:
    layer, x = nn.LSTM(I, H), torch.zeros(T, N, I)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output, _ = layer(x, lengths=[5, 0, 2])
    assert counter.get_total_flops() == 7 * 2 * 4 * H * (I + H)
    close(output, layer(x, lengths=[5, 0, 2])[0], "output")


def test_under_a_watching_mode_the_operator_runs_and_choices_hold() -> None:
    layer, x = nn.GRU(I, H, dtype=torch.float64), tokens(T, N, I).detach()
    with FlopCounterMode(display=False), engines.record() as ran:
        layer(x)
    assert ran == ["native"]
    with FlopCounterMode(display=False), engines.use("reference"), engines.record() as ran:
        layer(x)
    assert ran == ["reference"]
    graph = make_fx(lambda x: layer(x)[0])(x)
    assert torch.ops.unrolled.sweep.default in [node.target for node in graph.graph.nodes]
    close(graph(x), layer(x)[0], "output")


def test_checkpoint_keeps_its_segments_under_a_watching_mode() -> None:
    layer = nn.GRU(I, H, dtype=torch.float64, checkpoint=2)
    x = tokens(T, N, I)
    with Watching():
        (mine,) = torch.autograd.grad(layer(x, lengths=[5, 1, 3])[0].square().sum(), x)
    (true,) = torch.autograd.grad(layer(x, lengths=[5, 1, 3])[0].square().sum(), x)
    close(mine, true, "gradient")


@pytest.mark.slow
def test_an_exported_file_needs_no_more_than_import_unrolled(tmp_path: Any) -> None:
    layer, x = nn.LSTM(I, H), torch.ones(T, N, I)
    path = tmp_path / "layer.pt2"
    torch.export.save(torch.export.export(layer.eval(), (x,)), path)
    code = (
        f"import torch, unrolled; x = torch.ones({T}, {N}, {I}); "
        f"print(torch.export.load({str(path)!r}).module()(x)[0].sum().item())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert abs(float(ran.stdout) - layer(x)[0].sum().item()) < 1e-4
