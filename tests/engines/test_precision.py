"""Half precision and autocast against float64, and mixed dtypes refused as torch.nn refuses them.

The oracle computes in float64 with the same rounded numbers.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from tests.support.subjects import (
    LAYERS,
    Peephole,
    gradients,
    pack,
    random_like,
    run,
    states,
    tokens,
)
from tests.support.tolerances import assert_equal, close
from tests.support.weights import (
    check,
    everything,
    expected_results,
    flat,
    inputs,
    make_module,
    warm,
)
from unrolled import engines, nn
from unrolled.cells import Cell

# torch warns of a device that is not there where its oneDNN is switched off.
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN:UserWarning")
HALVES = [torch.bfloat16, torch.float16]
ENGINES = ["native", "reference"]
LENGTHS = [3, 0, 5, 1]
CUTS = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]).bool()
FORMS: dict[str, dict[str, Any]] = {
    "dense": {},
    "lengths": {"lengths": LENGTHS},
    "resets": {"lengths": LENGTHS, "resets": CUTS},
}
T, N, I, H = 5, 4, 3, 6  # noqa: E741
STEPS: dict[str, Callable[[], Any]] = {
    "rnn": lambda: nn.RNNCell(I, H),
    "gru": lambda: nn.GRUCell(I, H),
    "lstm": lambda: nn.LSTMCell(I, H),
    "peephole": lambda: nn.RecurrentCell(Peephole, I, H),
}


def layer_of(layer_name: str) -> nn.Recurrent:
    """Two layers in two directions; but ReLU's derivative jumps at 0, and rounding between
    layers moves values across it."""
    torch.manual_seed(0)
    deep = {} if layer_name == "relu" else {"num_layers": 2, "bidirectional": True}
    return LAYERS[layer_name](I, H, **deep)


def rounded(dtype: torch.dtype, tensors: Sequence[Tensor]) -> list[Tensor]:
    """What a dtype makes of numbers, in float64."""
    return [t.detach().to(dtype).double().requires_grad_() for t in tensors]


def right(
    layer: Any, dtype: torch.dtype, arguments: Sequence[Tensor], form: dict[str, Any]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Values, output gradients, and gradients of inputs and parameters, from rounded numbers."""
    rounded_layer = copy.deepcopy(layer).to(dtype).double()
    x, *hx = rounded(dtype, arguments)
    with engines.use("reference"):
        parts = flat(rounded_layer(x, pack(hx), **form))
    from_there = [gradient.to(dtype) for gradient in random_like(parts)]
    wide = [gradient.double() for gradient in from_there]
    return parts, from_there, gradients(parts, [x, *hx, *rounded_layer.parameters()], wide)


def agree(
    actual: Sequence[Tensor], expected: Sequence[Tensor], dtype: torch.dtype, label: str
) -> None:
    for mine, reference in zip(actual, expected, strict=True):
        close(mine.to(dtype), reference, label)


@pytest.mark.sampled
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_layers_in_half_precision(
    dtype: torch.dtype, layer_name: str, engine: str, form: str
) -> None:
    layer = layer_of(layer_name)
    arguments = [tokens(T, N, I), *states(layer, N)]
    parts, from_there, expected = right(layer, dtype, arguments, FORMS[form])
    layer.to(dtype)
    low = [tensor.detach().to(dtype).requires_grad_() for tensor in arguments]
    with engines.use(engine), engines.record() as ran:
        with torch.no_grad():
            values = run(layer, low[0], pack(low[1:]), **FORMS[form])
        actual = run(layer, low[0], pack(low[1:]), **FORMS[form])
    assert set(ran) == {engine}
    assert {part.dtype for part in (*values, *actual)} == {dtype}
    agree([*values, *actual], [*parts, *parts], dtype, "output")
    actual_grads = gradients(actual, [*low, *layer.parameters()], from_there)
    assert {gradient.dtype for gradient in actual_grads} == {dtype}
    agree(actual_grads, expected, dtype, "gradient")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer_name", STEPS)
@pytest.mark.parametrize("dtype", HALVES)
def test_steps_in_half_precision(dtype: torch.dtype, layer_name: str, engine: str) -> None:
    torch.manual_seed(0)
    cell = STEPS[layer_name]()
    widths = cell.spec.state_widths
    arguments = [tokens(N, I), *(tokens(N, width, seed=5 + k) for k, width in enumerate(widths))]
    parts, from_there, expected = right(cell, dtype, arguments, {})
    cell.to(dtype)
    low = [tensor.detach().to(dtype).requires_grad_() for tensor in arguments]
    with engines.use(engine), engines.record() as ran:
        actual = flat(cell(low[0], pack(low[1:])))
    assert ran == [engine]
    agree(actual, parts, dtype, "output")
    agree(gradients(actual, [*low, *cell.parameters()], from_there), expected, dtype, "gradient")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_split_sequence_in_half_precision(
    dtype: torch.dtype, layer_name: str, engine: str
) -> None:
    """The state is rounded where it is handed on, and nowhere else."""
    layer = LAYERS[layer_name](I, H, dtype=dtype)
    x = tokens(T, N, I).detach().to(dtype)
    with torch.no_grad(), engines.use(engine):
        unsplit = run(layer, x)
        output, middle = layer(x[:2])
        second, end = layer(x[2:], middle)
    agree(flat((torch.cat([output, second]), end)), unsplit, dtype, "output")


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("layer_name", ["gru", "projected", "peephole", "lstm step"])
def test_another_dtype_and_back(layer_name: str, dtype: torch.dtype) -> None:
    """A layer that ran computes in the dtype that it was turned into, with the rounded weights."""
    module = make_module(layer_name)
    warm(layer_name, module)
    copies = {name: p.detach().clone() for name, p in module.named_parameters()}
    module.to(dtype)
    for x in inputs(layer_name):
        low = x.detach().to(dtype)
        weights = {name: p.to(dtype).double() for name, p in copies.items()}
        values = expected_results(layer_name, weights, low.double().requires_grad_())
        for mine, reference in zip(flat(module(low)), values, strict=False):
            assert mine.dtype == dtype
            close(mine, reference, "output")
    module.double()
    for name, parameter in module.named_parameters():
        assert_equal(parameter, weights[name], name)
    check(layer_name, module)


@pytest.mark.sampled
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["dense", "resets"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(
    dtype: torch.dtype, layer_name: str, engine: str, form: str, training: bool
) -> None:
    """Outputs in the lower precision, gradients in that of the parameters; on every processor:
    torch.nn.LSTM raises on those without instructions for bfloat16."""
    layer = layer_of(layer_name).train(training)
    arguments = [t.detach().float().requires_grad_() for t in (tokens(T, N, I), *states(layer, N))]
    parts, from_there, expected = right(layer, dtype, arguments, FORMS[form])
    mode = nullcontext() if training else torch.inference_mode()
    with mode, engines.use(engine), engines.record() as ran, torch.autocast("cpu", dtype):
        actual = run(layer, arguments[0], pack(arguments[1:]), **FORMS[form])
    assert set(ran) == {engine}
    assert {part.dtype for part in actual} == {dtype}
    agree(actual, parts, dtype, "output")
    if training:
        actual_grads = gradients(actual, [*arguments, *layer.parameters()], from_there)
        assert {gradient.dtype for gradient in actual_grads} == {torch.float32}
        agree(actual_grads, expected, dtype, "gradient")


@pytest.mark.parametrize("layer_name", STEPS)
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_of_steps(dtype: torch.dtype, layer_name: str) -> None:
    cell = STEPS[layer_name]()
    widths = cell.spec.state_widths
    arguments = [tokens(N, I), *(tokens(N, width, seed=5 + k) for k, width in enumerate(widths))]
    arguments = [tensor.detach().float().requires_grad_() for tensor in arguments]
    parts, from_there, expected = right(cell, dtype, arguments, {})
    with torch.autocast("cpu", dtype):
        with torch.no_grad():
            values = flat(cell(arguments[0], pack(arguments[1:])))
        actual = flat(cell(arguments[0], pack(arguments[1:])))
    assert {part.dtype for part in (*values, *actual)} == {dtype}
    agree([*values, *actual], [*parts, *parts], dtype, "output")
    actual_grads = gradients(actual, [*arguments, *cell.parameters()], from_there)
    assert {gradient.dtype for gradient in actual_grads} == {torch.float32}
    agree(actual_grads, expected, dtype, "gradient")


@pytest.mark.parametrize("layer_name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_autocast_gives_what_torch_gives(layer_name: str) -> None:
    """Without oneDNN, which lacks bfloat16 on some processors; there torch.nn's gated layers answer
    in float32, as their states start in it, ours always in the lower precision."""
    ours, theirs = getattr(nn, layer_name)(I, H), getattr(torch.nn, layer_name)(I, H)
    ours.load_state_dict(theirs.state_dict())
    x = tokens(*([N, I] if layer_name.endswith("Cell") else [T, N, I])).detach().float()
    results = []
    for module in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16), torch.backends.mkldnn.flags(enabled=False):
            parts = flat(module(x))
        output_gradients = [
            gradient.bfloat16() for gradient in random_like([part.double() for part in parts])
        ]
        output_gradients = [
            gradient.to(part.dtype) for gradient, part in zip(output_gradients, parts, strict=True)
        ]
        results.append((parts, gradients(parts, list(module.parameters()), output_gradients)))
    (parts, grads), (expected, wanted_grads) = results
    agree(parts, expected, torch.bfloat16, "stepwise output")
    agree(grads, wanted_grads, torch.bfloat16, "stepwise gradient")


@pytest.mark.parametrize("layer_name", ["gru", "peephole", "lstm step"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_region_without_autocast_inside_of_one_with_it(
    dtype: torch.dtype, layer_name: str, fast_path_calls: list[bool]
) -> None:
    """Bits equal to those without autocast, on the same path; around it the lower precision."""
    module = make_module(layer_name).float()
    x = inputs(layer_name)[1].detach().float()
    outside = flat(module(x))
    with torch.autocast("cpu", dtype):
        old_output = flat(module(x))
        with torch.autocast("cpu", enabled=False):
            inside = flat(module(x))
            with torch.autocast("cpu", dtype):
                repeated = flat(module(x))
            with pytest.raises((RuntimeError, ValueError), match="dtype"):
                module(old_output[0].new_zeros(x.shape))
    for mine, reference in zip(inside, outside, strict=True):
        assert_equal(mine, reference)
    for mine, reference in zip(repeated, old_output, strict=True):
        assert mine.dtype == dtype
        assert_equal(mine, reference)
    assert not torch.equal(old_output[0].float(), outside[0])
    assert fast_path_calls == [True, False, True, False, False]


@pytest.mark.parametrize("layer_name", ["gru", "lstm", "projected", "peephole", "gru step"])
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_leaves_float64_to_the_bit(dtype: torch.dtype, layer_name: str) -> None:
    module = make_module(layer_name)
    weights = dict(module.named_parameters())
    outside = everything(layer_name, module, weights)
    with torch.autocast("cpu", dtype):
        inside = everything(layer_name, module, weights)
    for mine, reference in zip(flat(inside), flat(outside), strict=True):
        assert mine.dtype == torch.float64
        assert_equal(mine, reference)


@pytest.mark.parametrize("layer_name", ["gru", "peephole", "lstm step"])
def test_weights_written_within_autocast_are_seen(layer_name: str) -> None:
    """Autocast keeps the lowered weights of torch's own functions as long as it lasts."""
    module = make_module(layer_name).float()
    x = inputs(layer_name)[1].detach().float()
    with torch.autocast("cpu", torch.bfloat16):
        old_output = flat(module(x))[0]
        for parameter in module.parameters():
            parameter.data.mul_(-0.5)
        new_output = flat(module(x))
    weights = {name: p.detach().bfloat16() for name, p in module.named_parameters()}
    expected = expected_results(layer_name, weights, x.bfloat16().double().requires_grad_())
    for mine, reference in zip(new_output, expected, strict=False):
        close(mine, reference, "output")
    assert not torch.equal(old_output, new_output[0])


F, D, BF, FP = torch.float32, torch.float64, torch.bfloat16, torch.float16
Mix = dict[str, torch.dtype]
MIXES: list[Mix] = [
    {"input": D},
    {"input": FP},
    {"input": torch.int64},
    {"input": torch.complex64},
    {"weights": BF},
    {"weights": D},
    {"weights": BF, "input": BF, "weight_hh": F},
    {"weights": D, "input": D, "weight_ih": F},
    {"weight_hh": D},
    {"weight_hh": BF},
    {"weight_ih": D},
    {"hx": D},
    {"hx": BF},
    {"weights": FP, "input": FP, "hx": F},
    {"weights": D, "autocast": BF},
    {"hx": D, "autocast": BF},
    {"weight_hh": D, "autocast": BF},
    {"input": D, "autocast": BF},
    {"weights": D, "input": D, "hx": F, "autocast": BF},
]
MIXED_LAYERS: dict[str, Callable[..., Any]] = {
    "RNN": lambda library, **options: library.RNN(I, H, **options),
    "GRU": lambda library, **options: library.GRU(I, H, **options),
    "LSTM": lambda library, **options: library.LSTM(I, H, **options),
    "projected": lambda library, **options: library.LSTM(I, H, proj_size=2, **options),
    "RNNCell": lambda library, **options: library.RNNCell(I, H, **options),
    "GRUCell": lambda library, **options: library.GRUCell(I, H, **options),
    "LSTMCell": lambda library, **options: library.LSTMCell(I, H, **options),
}


def error_of(
    library: Any, layer_name: str, mix: Mix, compiled: bool = False
) -> type[Exception] | None:
    """The class of the exception that a mixed call raises."""
    module: Module = MIXED_LAYERS[layer_name](library, dtype=mix.get("weights", F))
    for name, parameter in module.named_parameters():
        for part in mix.keys() & {name.removesuffix("_l0")}:
            parameter.data = parameter.data.to(mix[part])
    lead = [N] if layer_name.endswith("Cell") else [T, N]
    x = torch.ones(*lead, I).to(mix.get("input", F))
    rows = [N] if layer_name.endswith("Cell") else [1, N]
    sizes = [
        2 if layer_name == "projected" else H,
        *([H] if "LSTM" in layer_name or layer_name == "projected" else []),
    ]
    hx = [torch.zeros(*rows, size, dtype=mix["hx"]) for size in sizes if "hx" in mix]
    mode = torch.autocast("cpu", mix["autocast"]) if "autocast" in mix else nullcontext()
    call = torch.compile(module, backend="eager", fullgraph=True) if compiled else module
    try:
        with mode, torch.backends.mkldnn.flags(enabled=False):
            call(x, pack(hx) if hx else None)
    except (RuntimeError, TypeError, ValueError) as error:
        return type(error)
    return None


@pytest.mark.sampled
@pytest.mark.parametrize("engine", [None, *ENGINES])
@pytest.mark.parametrize("mix", MIXES, ids=str)
@pytest.mark.parametrize("layer_name", MIXED_LAYERS)
def test_mixed_dtypes_are_refused_as_torch_refuses_them(
    layer_name: str, mix: Mix, engine: str | None
) -> None:
    expected = error_of(torch.nn, layer_name, mix)
    assert expected is not None
    with engines.use(engine) if engine else nullcontext():
        assert error_of(nn, layer_name, mix) is expected


def test_mixed_dtypes_are_refused_in_graphs() -> None:
    """Those that the layer accepts."""
    for mix in ({}, *(mix for mix in MIXES if mix.keys() & {"weight_hh", "autocast"})):
        torch._dynamo.reset()
        refused = error_of(nn, "GRU", mix, compiled=True) is not None
        assert refused == bool(mix), mix
    torch._dynamo.reset()


@pytest.mark.parametrize("engine", ["native", "reference"], indirect=True)
def test_half_precision_keeps_its_state_in_float32(engine: str) -> None:
    """1000 steps of an integrator: rounded to bfloat16 at each, it would stand still at 256."""

    def step(self: Cell, x: Any, h: Any, state: Any) -> Any:
        return state.h + x

    cell = type("Sum", (Cell,), {"step": step, "recurrent": None})
    layer = nn.Recurrent(cell, 1, 1, bias=False, dtype=torch.bfloat16)
    torch.nn.init.ones_(layer.weight_ih_l0)
    output, _ = layer(torch.ones(1000, 1, 1, dtype=torch.bfloat16))
    assert output[-1].item() == 1000.0
