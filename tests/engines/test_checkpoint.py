"""Checkpoint segments over time, run again in backward: the same numbers, less memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils import checkpoint as torch_checkpoint

from tests.support.subjects import RUNS, Subject, gradients, pack, random_like, run, states, tokens
from tests.support.tolerances import assert_equal, close
from unrolled import engines, nn
from unrolled.cells import Cell, tanh

T = 7
CUTS = torch.zeros(T, 3, dtype=torch.bool)
CUTS[[0, 2, 3, 4, 6], [0, 1, 2, 1, 0]] = True
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "lengths": ({"bidirectional": True}, {"lengths": [2, 7, 0]}),
    "short": ({"bidirectional": True}, {"lengths": [1, 2, 2]}),  # segments without a token
    "resets": ({"bidirectional": True}, {"resets": CUTS}),
    "rows": ({"bidirectional": True, "batch_first": True}, {"lengths": [6, 3, 5], "resets": CUTS}),
    "packed": ({"bidirectional": True}, {"packed": [7, 4, 2]}),
    "equal": ({"bidirectional": True}, {"packed": [7, 7, 7]}),
    "stack": ({"num_layers": 2, "bidirectional": True, "merge": "sum"}, {}),
}


def _train(layer: nn.Recurrent, form: str, checkpoint: int | bool) -> list[Tensor]:
    """Outputs, final states and all gradients."""
    call = dict(FORMS[form][1])
    lengths = call.pop("packed", None)
    if "resets" in call:
        call["reset_state"] = pack(states(layer, 1, seed=9))
        call["resets"] = call["resets"].t() if layer.batch_first else call["resets"]
    layer.checkpoint = checkpoint
    x = tokens(*((3, T, 3) if layer.batch_first else (T, 3, 3)))
    hx = states(layer, 3)
    layer_input: Any = x if lengths is None else pack_padded_sequence(x, lengths)
    output, *final = run(layer, layer_input, pack(hx), **call)
    parts = [output if isinstance(output, Tensor) else output.data, *final]
    resets = call.get("reset_state", ())
    leaves = [x, *hx, *([resets] if isinstance(resets, Tensor) else resets), *layer.parameters()]
    return [*parts, *gradients(parts, leaves, random_like(parts))]


@pytest.mark.sampled
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("layer_name", "engine"), RUNS)
def test_the_same_numbers(layer_name: str, engine: str, form: str) -> None:
    layer = Subject(layer_name, engine).layer(**FORMS[form][0])
    with engines.use(engine):
        expected = _train(layer, form, False)
        for checkpoint in (True, 1, 2, 3, T, 100):
            for mine, reference in zip(_train(layer, form, checkpoint), expected, strict=True):
                close(mine, reference, "gradient")


def test_each_segment_runs_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the native engine, in segments of √T steps; inference knows no segments."""
    layer = nn.GRU(3, 4, checkpoint=True)
    ran: list[int] = []
    native = engines.ENGINES["native"]
    run_sweep = native.run

    def spy(sweep: Any) -> Any:
        ran.append(sweep.batch.T)
        return run_sweep(sweep)

    monkeypatch.setattr(native, "run", spy)
    output = layer(torch.randn(10, 2, 3))[0]
    assert ran == [4, 4, 2]
    output.sum().backward()
    assert ran == [4, 4, 2, 2, 4, 4]
    layer.checkpoint = 5
    layer(torch.randn(10, 2, 3))
    assert ran[6:] == [5, 5]
    with torch.no_grad(), engines.record():
        layer(torch.randn(10, 2, 3))
    assert ran[8:] == [10]


def _peak(T: int, checkpoint: int | bool) -> int:
    """Bytes that training needs at most beside the output and the gradient of the input."""
    N, H = 2, 16
    layer = nn.LSTM(H, H, checkpoint=checkpoint)
    x, gradient = torch.randn(T, N, H, requires_grad=True), torch.randn(T, N, H)
    layer(x[:3])[0].sum().backward()
    with torch.profiler.profile(profile_memory=True) as profile:
        output = layer(x)[0]
        output.backward(gradient)
    actual = held = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            actual = max(actual, held)
    return actual - 2 * T * N * H * 4


def test_memory_grows_as_the_root_of_the_steps() -> None:
    """Four times the steps take twice the memory, or four times without checkpoint."""
    plain = [_peak(steps, False) for steps in (1024, 4096)]
    parts = [_peak(steps, True) for steps in (1024, 4096)]
    assert plain[1] > 3.5 * plain[0]
    assert parts[1] < 2.2 * parts[0]
    assert parts[1] < plain[1] / 5


def test_half_precision_is_rounded_at_the_ends_only() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, dtype=torch.bfloat16)
    x = torch.randn(9, 2, 3, dtype=torch.bfloat16)
    plain = layer(x)[0]
    layer.checkpoint = 2
    assert_equal(layer(x)[0], plain)


def test_dropout_is_drawn_once() -> None:
    results = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        layer = nn.LSTM(3, 4, 3, dropout=0.5, dtype=torch.float64, checkpoint=checkpoint)
        x = tokens(T, 2, 3)
        output = layer(x)[0]
        results.append([output, *gradients([output], [x, *layer.parameters()])])
    for mine, reference in zip(*results, strict=True):
        close(mine, reference, "gradient")


def _assert_equal_results(
    layer: nn.Recurrent, train: Callable[[nn.Recurrent], list[Tensor]]
) -> None:
    """Training in segments of two steps gives what it gives in one."""
    results = []
    for checkpoint in (False, 2):
        layer.checkpoint = checkpoint
        torch.manual_seed(0)
        results.append(train(layer))
    for mine, reference in zip(*results, strict=True):
        close(mine, reference, "gradient")


def test_parameters_of_modules_that_a_cell_holds() -> None:
    torch.manual_seed(0)
    activation = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    layer = nn.RNN(3, 4, nonlinearity=activation).double()
    x = tokens(T, 2, 3)
    leaves = [x, *layer.parameters()]
    assert len(leaves) == 7

    def train(layer: nn.Recurrent) -> list[Tensor]:
        output = layer(x)[0]
        return [output, *gradients([output], leaves)]

    _assert_equal_results(layer, train)


class Noisy(Cell):
    """A cell whose steps draw random numbers."""

    gates = ("g",)
    states = ("h",)

    def step(self, x: Any, h: Any, state: Any) -> Any:
        return tanh(x.g + h.g + 0.5 * torch.randn_like(state.h))


def test_steps_that_draw_draw_the_same_again() -> None:
    layer = nn.Recurrent(Noisy, 3, 4, dtype=torch.float64)
    x = tokens(T, 2, 3)

    def train(layer: nn.Recurrent) -> list[Tensor]:
        output = layer(x)[0]
        grads = gradients([output], [x, *layer.parameters()])
        return [output, *grads, torch.rand(1, dtype=torch.float64)]

    _assert_equal_results(layer, train)


@pytest.mark.parametrize("ends", [(0,), (1,), (2,), (0, 2)])
@pytest.mark.parametrize("part", [slice(None), slice(0, 2), slice(3, 4)])
def test_gradients_of_some_results_and_steps(ends: tuple[int, ...], part: slice) -> None:
    layer = nn.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    x, hx = tokens(T, 2, 3), tokens(2, 2, 4, seed=5)

    def train(layer: nn.Recurrent) -> list[Tensor]:
        output, final = layer(x, (hx, hx.detach()))
        results = [output[part], *final]
        expected = [x, hx, *list(layer.parameters())[::3]]
        selected = [results[k] for k in ends]
        return [*gradients(selected, expected), *gradients(selected, expected)]

    _assert_equal_results(layer, train)


def test_frozen_tensors_get_no_gradient() -> None:
    layer = nn.GRU(3, 4, dtype=torch.float64, checkpoint=3).requires_grad_(False)
    layer.weight_hh_l0.requires_grad_()
    x = tokens(T, 2, 3).detach()
    layer(x)[0].sum().backward()
    expected = layer.weight_hh_l0.grad
    assert expected is not None
    layer.weight_hh_l0.grad, layer.checkpoint = None, False
    layer(x)[0].sum().backward()
    assert layer.weight_hh_l0.grad is not None
    close(layer.weight_hh_l0.grad, expected, "gradient")
    assert [name for name, p in layer.named_parameters() if p.grad is not None] == ["weight_hh_l0"]


def test_many_vectors_at_once() -> None:
    layer = nn.GRU(3, 4, dtype=torch.float64)
    x = tokens(T, 2, 3)

    def train(layer: nn.Recurrent) -> list[Tensor]:
        output = layer(x)[0]
        lots = torch.randn(5, *output.shape, dtype=torch.float64)
        (grads,) = torch.autograd.grad(output, x, lots, is_grads_batched=True)
        return [grads]

    _assert_equal_results(layer, train)


def test_what_is_kept_may_lie_elsewhere() -> None:
    layer = nn.LSTM(3, 4, dtype=torch.float64)
    x = tokens(T, 2, 3)

    def train(layer: nn.Recurrent) -> list[Tensor]:
        with torch.autograd.graph.save_on_cpu():
            output = layer(x)[0]
        return gradients([output], [x, *layer.parameters()])

    _assert_equal_results(layer, train)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_half_precision(dtype: torch.dtype) -> None:
    layer = nn.LSTM(3, 4, dtype=dtype)
    x = tokens(T, 2, 3).detach().to(dtype).requires_grad_()

    def train(layer: nn.Recurrent) -> list[Tensor]:
        output = layer(x)[0]
        return gradients([output], [x, *layer.parameters()])

    _assert_equal_results(layer, train)


def test_backward_under_autocast_computes_the_same() -> None:
    layer = nn.GRU(3, 4, checkpoint=2)
    x = tokens(T, 2, 3).detach().float().requires_grad_()
    leaves = [x, *layer.parameters()]
    with engines.use("reference"):
        output = layer(x)[0]
    expected = gradients([output], leaves)
    with torch.autocast("cpu"):
        grads = gradients([output], leaves)
    for mine, reference in zip(grads, expected, strict=True):
        assert_equal(mine, reference)


def test_second_derivatives() -> None:
    def penalty(checkpoint: int | bool) -> list[Tensor]:
        torch.manual_seed(0)
        layer = nn.GRU(3, 4, dtype=torch.float64, checkpoint=checkpoint)
        x = tokens(T, 2, 3)
        (gradient,) = torch.autograd.grad(layer(x)[0].sin().sum(), x, create_graph=True)
        return list(torch.autograd.grad(gradient.square().sum(), list(layer.parameters())))

    for mine, reference in zip(penalty(3), penalty(False), strict=True):
        close(mine, reference, "gradient")


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("form", [{}, {"lengths": torch.tensor([7, 2])}])
def test_torchs_checkpoint_around_a_layer(reentrant: bool, form: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, 2, dropout=0.3, bidirectional=True, dtype=torch.float64)
    x = tokens(T, 2, 3)
    results = []
    for wrapped in (False, True):
        torch.manual_seed(1)
        if wrapped:
            output = torch_checkpoint.checkpoint(
                lambda x: layer(x, **form)[0], x, use_reentrant=reentrant
            )
        else:
            output = layer(x, **form)[0]
        layer.zero_grad()
        x.grad = None
        output.sin().sum().backward()
        results.append([output, x.grad, *(p.grad for p in layer.parameters())])
    for mine, reference in zip(*results, strict=True):
        close(mine, reference, "gradient")


def test_a_wrong_number_of_steps_raises() -> None:
    with pytest.raises(ValueError, match="checkpoint must be a bool or a number of steps, got -2"):
        nn.LSTM(3, 4, checkpoint=-2)
    with pytest.raises(TypeError, match=r"checkpoint must be .* got 2\.5"):
        nn.GRU(3, 4, checkpoint=2.5)


def test_a_graph_refuses_it_in_training_and_runs_without_gradient() -> None:
    layer = nn.GRU(3, 4, checkpoint=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        close(compiled(x)[0], layer(x)[0], "output")
    with pytest.raises(Exception, match="checkpoint must be False in a graph, got True"):
        compiled(x)


def test_it_is_shown() -> None:
    assert repr(nn.GRU(3, 4, checkpoint=8)) == "unrolled.nn.GRU(3, 4, checkpoint=8)"
    assert repr(nn.GRU(3, 4)) == "unrolled.nn.GRU(3, 4)"
