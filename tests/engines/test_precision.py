"""Half precision and autocast against float64, and mixed dtypes refused as torch.nn refuses them.

The judge has the same rounded numbers and computes with them in float64.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from tests.support.subjects import KINDS, Peephole, gradients, pack, run, slopes, states, tokens
from tests.support.tolerances import close, same
from tests.support.weights import check, everything, flat, inputs, made, warm
from tests.support.weights import wanted as judged
from unrolled import engines, nn

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


def layer_of(kind: str) -> nn.Recurrent:
    """Two layers in two directions; but ReLU's slope jumps at 0, and rounding between layers moves
    values across it."""
    torch.manual_seed(0)
    deep = {} if kind == "relu" else {"num_layers": 2, "bidirectional": True}
    return KINDS[kind](I, H, **deep)


def rounded(dtype: torch.dtype, tensors: Sequence[Tensor]) -> list[Tensor]:
    """What a dtype makes of numbers, in float64."""
    return [t.detach().to(dtype).double().requires_grad_() for t in tensors]


def right(
    layer: Any, dtype: torch.dtype, given: Sequence[Tensor], form: dict[str, Any]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Values, slopes, gradients of what is given and of the parameters, from rounded numbers."""
    twin = copy.deepcopy(layer).to(dtype).double()
    x, *hx = rounded(dtype, given)
    with engines.use("reference"):
        parts = flat(twin(x, pack(hx), **form))
    from_there = [slope.to(dtype) for slope in slopes(parts)]
    wide = [slope.double() for slope in from_there]
    return parts, from_there, gradients(parts, [x, *hx, *twin.parameters()], wide)


def agree(found: Sequence[Tensor], wanted: Sequence[Tensor], dtype: torch.dtype, what: str) -> None:
    for mine, other in zip(found, wanted, strict=True):
        close(mine.to(dtype), other, what)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALVES)
def test_layers_in_half_precision(dtype: torch.dtype, kind: str, engine: str, form: str) -> None:
    layer = layer_of(kind)
    given = [tokens(T, N, I), *states(layer, N)]
    parts, from_there, wanted = right(layer, dtype, given, FORMS[form])
    layer.to(dtype)
    low = [tensor.detach().to(dtype).requires_grad_() for tensor in given]
    with engines.use(engine), engines.record() as ran:
        with torch.no_grad():
            values = run(layer, low[0], pack(low[1:]), **FORMS[form])
        found = run(layer, low[0], pack(low[1:]), **FORMS[form])
    assert set(ran) == {engine}
    assert {part.dtype for part in (*values, *found)} == {dtype}
    agree([*values, *found], [*parts, *parts], dtype, "output")
    slopes_found = gradients(found, [*low, *layer.parameters()], from_there)
    assert {slope.dtype for slope in slopes_found} == {dtype}
    agree(slopes_found, wanted, dtype, "gradient")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("dtype", HALVES)
def test_steps_in_half_precision(dtype: torch.dtype, kind: str, engine: str) -> None:
    torch.manual_seed(0)
    cell = STEPS[kind]()
    widths = cell.spec.state_widths
    given = [tokens(N, I), *(tokens(N, width, seed=5 + k) for k, width in enumerate(widths))]
    parts, from_there, wanted = right(cell, dtype, given, {})
    cell.to(dtype)
    low = [tensor.detach().to(dtype).requires_grad_() for tensor in given]
    with engines.use(engine), engines.record() as ran:
        found = flat(cell(low[0], pack(low[1:])))
    assert ran == [engine]
    agree(found, parts, dtype, "output")
    agree(gradients(found, [*low, *cell.parameters()], from_there), wanted, dtype, "gradient")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_split_sequence_in_half_precision(dtype: torch.dtype, kind: str, engine: str) -> None:
    """The state is rounded where it is handed on, and nowhere else."""
    layer = KINDS[kind](I, H, dtype=dtype)
    x = tokens(T, N, I).detach().to(dtype)
    with torch.no_grad(), engines.use(engine):
        whole = run(layer, x)
        first, middle = layer(x[:2])
        second, end = layer(x[2:], middle)
    agree(flat((torch.cat([first, second]), end)), whole, dtype, "output")


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("kind", ["gru", "projected", "peephole", "lstm step"])
def test_another_dtype_and_back(kind: str, dtype: torch.dtype) -> None:
    """A layer that ran computes in the dtype that it was turned into, with the rounded weights."""
    module = made(kind)
    warm(kind, module)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    module.to(dtype)
    for x in inputs(kind):
        low = x.detach().to(dtype)
        weights = {name: p.to(dtype).double() for name, p in before.items()}
        values = judged(kind, weights, low.double().requires_grad_())
        for mine, other in zip(flat(module(low)), values, strict=False):
            assert mine.dtype == dtype
            close(mine, other, "output")
    module.double()
    for name, parameter in module.named_parameters():
        same(parameter, weights[name], name)
    check(kind, module)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["dense", "resets"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(dtype: torch.dtype, kind: str, engine: str, form: str, training: bool) -> None:
    """Outputs in the lower precision, gradients in that of the parameters; on every processor:
    torch.nn.LSTM raises on those without instructions for bfloat16."""
    layer = layer_of(kind).train(training)
    given = [t.detach().float().requires_grad_() for t in (tokens(T, N, I), *states(layer, N))]
    parts, from_there, wanted = right(layer, dtype, given, FORMS[form])
    mode = nullcontext() if training else torch.inference_mode()
    with mode, engines.use(engine), engines.record() as ran, torch.autocast("cpu", dtype):
        found = run(layer, given[0], pack(given[1:]), **FORMS[form])
    assert set(ran) == {engine}
    assert {part.dtype for part in found} == {dtype}
    agree(found, parts, dtype, "output")
    if training:
        slopes_found = gradients(found, [*given, *layer.parameters()], from_there)
        assert {slope.dtype for slope in slopes_found} == {torch.float32}
        agree(slopes_found, wanted, dtype, "gradient")


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_of_steps(dtype: torch.dtype, kind: str) -> None:
    cell = STEPS[kind]()
    widths = cell.spec.state_widths
    given = [tokens(N, I), *(tokens(N, width, seed=5 + k) for k, width in enumerate(widths))]
    given = [tensor.detach().float().requires_grad_() for tensor in given]
    parts, from_there, wanted = right(cell, dtype, given, {})
    with torch.autocast("cpu", dtype):
        with torch.no_grad():
            values = flat(cell(given[0], pack(given[1:])))
        found = flat(cell(given[0], pack(given[1:])))
    assert {part.dtype for part in (*values, *found)} == {dtype}
    agree([*values, *found], [*parts, *parts], dtype, "output")
    slopes_found = gradients(found, [*given, *cell.parameters()], from_there)
    assert {slope.dtype for slope in slopes_found} == {torch.float32}
    agree(slopes_found, wanted, dtype, "gradient")


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_autocast_gives_what_torch_gives(kind: str) -> None:
    """Without oneDNN, which lacks bfloat16 on some processors; there torch.nn's gated layers answer
    in float32, as their states start in it, ours always in the lower precision."""
    ours, theirs = getattr(nn, kind)(I, H), getattr(torch.nn, kind)(I, H)
    ours.load_state_dict(theirs.state_dict())
    x = tokens(*([N, I] if kind.endswith("Cell") else [T, N, I])).detach().float()
    found = []
    for module in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16), torch.backends.mkldnn.flags(enabled=False):
            parts = flat(module(x))
        given = [slope.bfloat16() for slope in slopes([part.double() for part in parts])]
        given = [slope.to(part.dtype) for slope, part in zip(given, parts, strict=True)]
        found.append((parts, gradients(parts, list(module.parameters()), given)))
    (parts, grads), (wanted, wanted_grads) = found
    agree(parts, wanted, torch.bfloat16, "stepwise output")
    agree(grads, wanted_grads, torch.bfloat16, "stepwise gradient")


@pytest.mark.parametrize("kind", ["gru", "peephole", "lstm step"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_region_without_autocast_inside_of_one_with_it(
    dtype: torch.dtype, kind: str, taken: list[bool]
) -> None:
    """Equal bits to those outside of any, by the same way; around it the lower precision."""
    module = made(kind).float()
    x = inputs(kind)[1].detach().float()
    outside = flat(module(x))
    with torch.autocast("cpu", dtype):
        before = flat(module(x))
        with torch.autocast("cpu", enabled=False):
            inside = flat(module(x))
            with torch.autocast("cpu", dtype):
                again = flat(module(x))
            with pytest.raises((RuntimeError, ValueError), match="dtype"):
                module(before[0].new_zeros(x.shape))
    for mine, other in zip(inside, outside, strict=True):
        same(mine, other)
    for mine, other in zip(again, before, strict=True):
        assert mine.dtype == dtype
        same(mine, other)
    assert not torch.equal(before[0].float(), outside[0])
    assert taken == [True, False, True, False, False]


@pytest.mark.parametrize("kind", ["gru", "lstm", "projected", "peephole", "gru step"])
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_leaves_float64_to_the_bit(dtype: torch.dtype, kind: str) -> None:
    module = made(kind)
    weights = dict(module.named_parameters())
    outside = everything(kind, module, weights)
    with torch.autocast("cpu", dtype):
        inside = everything(kind, module, weights)
    for mine, other in zip(flat(inside), flat(outside), strict=True):
        assert mine.dtype == torch.float64
        same(mine, other)


@pytest.mark.parametrize("kind", ["gru", "peephole", "lstm step"])
def test_weights_written_within_autocast_are_seen(kind: str) -> None:
    """Autocast keeps the lowered weights of torch's own functions as long as it lasts."""
    module = made(kind).float()
    x = inputs(kind)[1].detach().float()
    with torch.autocast("cpu", torch.bfloat16):
        before = flat(module(x))[0]
        for parameter in module.parameters():
            parameter.data.mul_(-0.5)
        after = flat(module(x))
    weights = {name: p.detach().bfloat16() for name, p in module.named_parameters()}
    wanted = judged(kind, weights, x.bfloat16().double().requires_grad_())
    for mine, other in zip(after, wanted, strict=False):
        close(mine, other, "output")
    assert not torch.equal(before, after[0])


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
LAYERS: dict[str, Callable[..., Any]] = {
    "RNN": lambda library, **options: library.RNN(I, H, **options),
    "GRU": lambda library, **options: library.GRU(I, H, **options),
    "LSTM": lambda library, **options: library.LSTM(I, H, **options),
    "projected": lambda library, **options: library.LSTM(I, H, proj_size=2, **options),
    "RNNCell": lambda library, **options: library.RNNCell(I, H, **options),
    "GRUCell": lambda library, **options: library.GRUCell(I, H, **options),
    "LSTMCell": lambda library, **options: library.LSTMCell(I, H, **options),
}


def error_of(library: Any, kind: str, mix: Mix, compiled: bool = False) -> type[Exception] | None:
    """The class of the exception that a mixed call raises."""
    module: Module = LAYERS[kind](library, dtype=mix.get("weights", F))
    for name, parameter in module.named_parameters():
        for part in mix.keys() & {name.removesuffix("_l0")}:
            parameter.data = parameter.data.to(mix[part])
    lead = [N] if kind.endswith("Cell") else [T, N]
    x = torch.ones(*lead, I).to(mix.get("input", F))
    rows = [N] if kind.endswith("Cell") else [1, N]
    sizes = [
        2 if kind == "projected" else H,
        *([H] if "LSTM" in kind or kind == "projected" else []),
    ]
    hx = [torch.zeros(*rows, size, dtype=mix["hx"]) for size in sizes if "hx" in mix]
    way = torch.autocast("cpu", mix["autocast"]) if "autocast" in mix else nullcontext()
    call = torch.compile(module, backend="eager", fullgraph=True) if compiled else module
    try:
        with way, torch.backends.mkldnn.flags(enabled=False):
            call(x, pack(hx) if hx else None)
    except (RuntimeError, TypeError, ValueError) as error:
        return type(error)
    return None


@pytest.mark.parametrize("engine", [None, *ENGINES])
@pytest.mark.parametrize("mix", MIXES, ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_mixed_dtypes_are_refused_as_torch_refuses_them(
    kind: str, mix: Mix, engine: str | None
) -> None:
    wanted = error_of(torch.nn, kind, mix)
    assert wanted is not None
    with engines.use(engine) if engine else nullcontext():
        assert error_of(nn, kind, mix) is wanted


def test_mixed_dtypes_are_refused_in_graphs() -> None:
    """Those that the layer's door lets through."""
    for mix in ({}, *(mix for mix in MIXES if mix.keys() & {"weight_hh", "autocast"})):
        torch._dynamo.reset()
        refused = error_of(nn, "GRU", mix, compiled=True) is not None
        assert refused == bool(mix), mix
    torch._dynamo.reset()
