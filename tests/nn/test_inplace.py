"""In-place changes of outputs, states and biases between forward and backward, as with torch.nn."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from tests.support.tolerances import close
from unrolled import cells, nn

T, N, I, H = 5, 2, 3, 4  # noqa: E741
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers": {"num_layers": 2},
    "both ways": {"bidirectional": True},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
}


def mask(y: Tensor) -> Tensor:
    y[y > 0.1] = 0
    return y


def scale(y: Tensor) -> Tensor:
    y *= 2
    return y


def through_a_view(y: Tensor) -> Tensor:
    y[..., ::2].mul_(3)
    return y


EDITS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.nn.ReLU(inplace=True),
    "mask": mask,
    "scale": scale,
    "view": through_a_view,
}


def make(library: Any, class_name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(library, class_name)(I, H, dtype=torch.float64, **options)


def tokens() -> Tensor:
    return torch.linspace(-1, 1, T * N * I, dtype=torch.float64).view(T, N, I).requires_grad_()


def run(layer: Any, x: Tensor, form: str) -> tuple[Tensor, Any]:
    if form == "packed":
        output, final = layer(pack_padded_sequence(x, torch.tensor([T, 3])))
        return output.data, final
    if form == "lengths":
        return layer(x, lengths=[T, 3])
    return layer(x)


def gradients(layer: Any, form: str, edit: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    x = tokens()
    output, final = run(layer, x, form)
    output = edit(output)
    ends = final if isinstance(final, tuple) else (final,)
    loss = output.pow(2).sum() + sum(end.sin().sum() for end in ends)
    return torch.autograd.grad(loss, [x, *layer.parameters()])


def assert_close(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs, "gradient")


@pytest.mark.sampled
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("form", ["dense", "packed"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("class_name", ["RNN", "GRU", "LSTM"])
def test_an_output_changed_in_place_trains_as_with_torch(
    class_name: str, options: str, form: str, edit: str
) -> None:
    """torch's LSTM raises for some of these; then the oracle is its output changed in a copy."""
    oracle = make(torch.nn, class_name, **OPTIONS[options])
    expected = gradients(oracle, form, lambda y: EDITS[edit](y.clone()))
    assert_close(gradients(make(nn, class_name, **OPTIONS[options]), form, EDITS[edit]), expected)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("cell", [cells.PeepholeLSTM, cells.MGU, cells.IndRNN])
@pytest.mark.parametrize("form", ["dense", "lengths"])
def test_an_output_of_any_cell_changed_in_place(cell: Any, form: str, edit: str) -> None:
    torch.manual_seed(0)
    layer = nn.Recurrent(cell, I, H, dtype=torch.float64)
    expected = gradients(layer, form, lambda y: EDITS[edit](y.clone()))
    assert_close(gradients(layer, form, EDITS[edit]), expected)


@pytest.mark.parametrize("checkpoint", [False, 2])
def test_second_derivatives_of_an_output_changed_in_place(checkpoint: int | bool) -> None:
    layer = make(nn, "GRU")
    layer.checkpoint = checkpoint

    def second(edit: Callable[[Tensor], Tensor]) -> Tensor:
        x = tokens()
        loss = edit(layer(x)[0]).pow(2).sum()
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(gradient.pow(2).sum(), x)[0]

    close(second(EDITS["relu"]), second(torch.relu), "gradient")


def test_a_graph_is_run_backward_twice() -> None:
    layer, x = make(nn, "LSTM"), tokens()
    loss = EDITS["scale"](layer(x)[0]).pow(2).sum()
    first_order = torch.autograd.grad(loss, x, retain_graph=True)
    assert_close(torch.autograd.grad(loss, x), first_order)


@pytest.mark.parametrize("class_name", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("options", ["plain", "two layers", "both ways"])
@pytest.mark.parametrize("form", ["dense", "packed"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_bias_changed_in_place_between_forward_and_backward(
    class_name: str, options: str, form: str, frozen: bool
) -> None:
    layer = make(nn, class_name, **OPTIONS[options])
    expected = gradients(layer, form, lambda y: y)

    def change(y: Tensor) -> Tensor:
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                if name.startswith("bias"):
                    parameter.mul_(2).add_(1)
        return y

    if frozen:
        layer.bias_hh_l0.requires_grad_(False)
        x = tokens()
        output, _ = run(layer, x, form)
        change(output)
        loss = output.pow(2).sum()
        oracle = make(nn, class_name, **OPTIONS[options])
        repeated = tokens()
        close(
            torch.autograd.grad(loss, x)[0],
            torch.autograd.grad(run(oracle, repeated, form)[0].pow(2).sum(), repeated)[0],
            "gradient",
        )
    else:
        assert_close(gradients(layer, form, change), expected)


CHANGED = "modified by an inplace operation"


@pytest.mark.parametrize("options", ["plain", "both ways"])
def test_old_values_that_are_needed_and_gone_raise_as_in_torch(options: str) -> None:
    layer, x = make(nn, "GRU", **OPTIONS[options]), tokens()

    def change(name: str) -> None:
        with torch.no_grad():
            getattr(layer, name).add_(1)

    loss = layer(x)[0].sum()
    change("weight_hh_l0")
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()
    loss = layer(x)[0].sum()
    change("bias_hh_l0")
    with pytest.raises(RuntimeError, match=CHANGED):
        torch.autograd.grad(loss, x, create_graph=True)


def test_an_output_is_not_computed_again_with_changed_biases() -> None:
    layer, x = make(nn, "GRU"), tokens()
    loss = EDITS["relu"](layer(x)[0]).sum()
    with torch.no_grad():
        layer.bias_ih_l0.add_(1)
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()


@pytest.mark.parametrize("options", ["plain", "both ways"])
def test_weights_of_inference_mode_are_refused_as_in_torch(options: str) -> None:
    for library in (torch.nn, nn):
        with torch.inference_mode():
            layer = make(library, "GRU", **OPTIONS[options])
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            layer(tokens())


def test_what_notices_changes_holds_no_memory() -> None:
    output, _ = make(nn, "GRU")(tokens())
    sweep = output.grad_fn
    assert sweep.output_version.tensor.untyped_storage().nbytes() == 0
    assert not sweep.output_version.changed()
    output.mul_(2)
    assert sweep.output_version.changed()
