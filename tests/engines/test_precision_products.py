"""Products in bfloat16: which calls take them, and that backward takes what forward took."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.subjects import LAYERS, gradients, random_like
from tests.support.tolerances import assert_equal
from tests.support.weights import flat
from unrolled import _core, engines, nn
from unrolled.cells import AntisymmetricRNN
from unrolled.engines import use_build

BUILDS = [build for build in _core.builds() if _core.multiplies_bfloat16(build)]
T, N, I, H = 6, 4, 5, 16  # noqa: E741
RESETS = torch.zeros(T, N, dtype=torch.bool)
RESETS[3, 1] = True
Call = Callable[[Any, Tensor], list[Tensor]]


@contextmanager
def switch(value: str) -> Iterator[None]:
    """Torch's switch, within a block. Its getter resolves "none", so the old value is not read."""
    rnn = torch.backends.mkldnn.rnn
    rnn.fp32_precision = value
    try:
        yield
    finally:
        rnn.fp32_precision = "none"


def functional(layer: Any, x: Tensor) -> list[Tensor]:
    """By functorch, whose gradients are those of torch's autograd."""
    parameters = dict(layer.named_parameters())
    output, pull, state = torch.func.vjp(
        lambda values: torch.func.functional_call(layer, values, (x,)), parameters, has_aux=True
    )
    return [output, *flat(state), *pull(torch.ones_like(output))[0].values()]


def mapped(layer: Any, x: Tensor) -> list[Tensor]:
    return [torch.vmap(lambda tokens: layer(tokens)[0])(torch.stack([x, x + 1]))]


def compiled(layer: Any, x: Tensor) -> list[Tensor]:
    torch._dynamo.reset()
    return flat(torch.compile(layer, backend="aot_eager", fullgraph=True)(x))


def packed(layer: Any, x: Tensor) -> list[Tensor]:
    sequences = torch.nn.utils.rnn.pack_padded_sequence(x, [6, 5, 5, 2])
    output, state = layer(sequences)
    return [output.data, *flat(state)]


WAYS: dict[str, Call] = {
    "plain": lambda layer, x: flat(layer(x)),
    "lengths": lambda layer, x: flat(layer(x, lengths=[6, 5, 5, 2])),
    "resets": lambda layer, x: flat(layer(x, resets=RESETS)),
    "packed": packed,
    "vjp": functional,
    "vmap": mapped,
    "compiled": compiled,
}
SUBJECTS: dict[str, Callable[[], Any]] = {
    "rnn": lambda: nn.RNN(I, H),
    "gru": lambda: nn.GRU(I, H, num_layers=2),
    "lstm": lambda: nn.LSTM(I, H, bidirectional=True),
    "projected": lambda: nn.LSTM(I, H, proj_size=6),
    "prepared": lambda: nn.Recurrent(AntisymmetricRNN, I, H),
    "peephole": lambda: LAYERS["peephole"](I, H),
}


def subject(name: str, checkpoint: bool = False) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    layer = SUBJECTS[name]()
    layer.checkpoint = checkpoint
    return layer, torch.randn(T, N, I, requires_grad=True)


def everything(layer: Any, x: Tensor, way: Call, backward: str, forward: str) -> list[Tensor]:
    """Results and gradients, with torch's switch set to these values."""
    with switch(forward):
        results = way(layer, x)
    with switch(backward):
        part = [result for result in results if result.requires_grad]
        return [*results, *gradients(part, [x, *layer.parameters()], random_like(part))]


def are_equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_float32_obeys_the_switch_of_torch(name: str, way: str, build: str) -> None:
    """Forward decides for backward too; on a build that has no such products nothing changes."""
    layer, x = subject(name)
    run = WAYS[way]
    with use_build(build):
        single = everything(layer, x, run, "ieee", "ieee")
        rounded = everything(layer, x, run, "bf16", "bf16")
        mixed = everything(layer, x, run, "ieee", "bf16")
        other = everything(layer, x, run, "bf16", "ieee")
    assert not any(torch.equal(a, b) for a, b in zip(single, rounded, strict=True) if a.dim())
    for a, b in zip(rounded, single, strict=True):
        assert (a - b).abs().max() < 0.02 * max(1.0, b.abs().max().item())
    assert are_equal(mixed, rounded)
    assert are_equal(other, single)
    with use_build("plain"):
        single = everything(layer, x, run, "ieee", "ieee")
        assert are_equal(everything(layer, x, run, "bf16", "bf16"), single)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_an_exported_program_obeys_the_switch_when_it_runs(name: str, build: str) -> None:
    layer, x = subject(name)
    x = x.detach()
    with switch("bf16"):
        program = torch.export.export(layer, (x,)).module()
    with use_build(build), torch.no_grad():
        for value in ("ieee", "bf16"):
            with switch(value):
                assert are_equal(flat(program(x)), flat(layer(x)))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_checkpoint_recomputes_as_forward_computed(name: str, build: str) -> None:
    layer, x = subject(name, checkpoint=True)
    run = WAYS["plain"]
    with use_build(build):
        rounded = everything(layer, x, run, "bf16", "bf16")
        assert are_equal(everything(layer, x, run, "ieee", "bf16"), rounded)
        single = everything(layer, x, run, "ieee", "ieee")
        assert are_equal(everything(layer, x, run, "bf16", "ieee"), single)
    assert not torch.equal(rounded[0], single[0])


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("way", ["plain", "lengths", "resets", "compiled"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_autocast_rounds_only_what_products_multiply(name: str, way: str, build: str) -> None:
    """The same bits as with torch's switch, and results in bfloat16."""
    layer, x = subject(name)
    run = WAYS[way]
    with use_build(build):
        with torch.autocast("cpu", torch.bfloat16):
            actual = run(layer, x)
        with switch("bf16"):
            expected = run(layer, x)
    assert {result.dtype for result in actual} == {torch.bfloat16}
    for mine, reference in zip(actual, expected, strict=True):
        assert_equal(mine, reference.bfloat16())
    with use_build("plain"):
        with torch.autocast("cpu", torch.bfloat16):
            actual = run(layer, x)
        expected = run(layer, x)
    for mine, reference in zip(actual, expected, strict=True):
        assert_equal(mine, reference.bfloat16())


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_layers_in_bfloat16_take_them(name: str, way: str, build: str) -> None:
    """Other bits than a build without them; the switch has no say."""
    layer, x = subject(name)
    layer.bfloat16()
    low = x.detach().bfloat16()
    results = []
    for kernels, value in ((build, "ieee"), (build, "bf16"), ("plain", "bf16")):
        with use_build(kernels), switch(value), torch.no_grad() if way != "vjp" else nullcontext():
            results.append(WAYS[way](layer, low))
    assert are_equal(results[0], results[1])
    assert not are_equal(results[1], results[2])


@pytest.mark.parametrize("build", BUILDS)
def test_steps_obey_the_switch(build: str) -> None:
    torch.manual_seed(0)
    cell, x = nn.GRUCell(I, H), torch.randn(N, I)
    with use_build(build), torch.no_grad():
        single = cell(x)
        with switch("bf16"):
            rounded = cell(x)
    assert not torch.equal(single, rounded)
    assert (single - rounded).abs().max() < 0.01


@pytest.mark.parametrize("build", BUILDS)
def test_the_switches_around_it_hold_where_it_is_not_set(build: str) -> None:
    layer, x = subject("gru")
    with use_build(build), switch("bf16"):
        expected = flat(layer(x))
    with use_build(build):
        for owner in (torch.backends, torch.backends.mkldnn):
            owner.fp32_precision = "bf16"
            try:
                assert are_equal(flat(layer(x)), expected)
                with switch("ieee"):
                    assert not are_equal(flat(layer(x)), expected)
            finally:
                owner.fp32_precision = "none"


def test_explain_says_which_arithmetic_runs() -> None:
    layer, x = nn.GRU(I, H), torch.randn(T, N, I)
    in_pairs = "products in bfloat16, sums in float32"
    for build in BUILDS:
        with use_build(build):
            assert engines.explain(layer, x).arithmetic == f"float32 (build {build})"
            with switch("bf16"):
                assert engines.explain(layer, x).arithmetic == f"{in_pairs} (build {build})"
            with torch.autocast("cpu", torch.bfloat16):
                assert engines.explain(layer, x).arithmetic == f"{in_pairs} (build {build})"
            low = engines.explain(nn.GRU(I, H).bfloat16(), x.bfloat16())
            assert f"arithmetic: {in_pairs} (build {build})" in str(low)
    with use_build("plain"), switch("bf16"):
        assert engines.explain(layer, x).arithmetic == "float32 (build plain)"
        assert engines.explain(layer.double(), x.double()).arithmetic == "float64 (build plain)"
    with engines.use("reference"):
        assert engines.explain(layer.half(), x.half()).arithmetic == "float32"
    with engines.use("aten"):
        assert engines.explain(layer.float(), x).arithmetic == "that of torch for float32"
