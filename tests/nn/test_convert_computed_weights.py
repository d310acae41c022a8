"""convert on layers whose weights are computed: with what computes them, in both directions."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrizations, parametrize, prune

from tests.support.subjects import gradients, tokens, unpack
from tests.support.tolerances import close
from unrolled import nn

CLASSES = ("RNN", "LSTM", "GRU", "LSTMCell", "GRUCell")


class Doubled(torch.nn.Module):
    """A parametrisation of a user's own, with a weight of its own, that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return self.scale * weight


def _weight_norm_by_hook(module: torch.nn.Module, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(module, name)


def _pruned_twice(module: torch.nn.Module, name: str) -> None:
    prune.l1_unstructured(module, name, amount=0.3)
    prune.random_unstructured(module, name, amount=0.2)


def _two_at_once(module: torch.nn.Module, name: str) -> None:
    parametrize.register_parametrization(module, name, Doubled())
    parametrizations.spectral_norm(module, name)
    prune.identity(module, name.replace("hh", "ih"))
    prune.random_unstructured(module, name.replace("weight", "bias"), amount=0.5)


PARAMETRIZATIONS: dict[str, Callable[[torch.nn.Module, str], Any]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own": lambda m, n: parametrize.register_parametrization(m, n, Doubled()),
    "pruned": _pruned_twice,
    "weight norm by hook": _weight_norm_by_hook,
    "spectral norm by hook": torch.nn.utils.spectral_norm,
    "several": _two_at_once,
}


def make_module(library: Any, class_name: str, parametrization: str) -> tuple[Any, Tensor]:
    """A layer in evaluation mode, where spectral norms stay, and an input."""
    torch.manual_seed(0)
    step = class_name.endswith("Cell")
    options = {} if step else {"num_layers": 2, "bidirectional": True}
    module = getattr(library, class_name)(3, 4, dtype=torch.float64, **options)
    for suffix in ("",) if step else ("_l0", "_l1_reverse"):
        PARAMETRIZATIONS[parametrization](module, f"weight_hh{suffix}")
    return module.eval(), tokens(2, 3) if step else tokens(5, 2, 3)


def results(module: Any, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and the gradients of the input and of all parameters by name."""
    outputs = module(x)
    values = [part for item in unpack(outputs) for part in unpack(item)]
    leaves = dict(sorted(module.named_parameters()))
    return values, gradients(values, [x, *leaves.values()])


def agree(mine: Any, theirs: Any, x: Tensor) -> None:
    (values, output_grads), (expected_values, expected_grads) = results(mine, x), results(theirs, x)
    for a, b in zip([*values, *output_grads], [*expected_values, *expected_grads], strict=True):
        close(a, b, "gradient")


@pytest.mark.sampled
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("to", ["unrolled", "torch"])
def test_parametrizations_are_converted(class_name: str, parametrization: str, to: str) -> None:
    (original, x), (reference, _) = (
        make_module(nn if to == "torch" else torch.nn, class_name, parametrization)
        for _ in range(2)
    )
    old_parameters = dict(original.named_parameters())
    report = nn.convert(original, to=to)
    converted = report.model
    assert not report.skipped
    assert isinstance(converted, getattr(torch.nn if to == "torch" else nn, class_name))
    assert list(converted.state_dict()) == list(reference.state_dict())
    assert all(p is old_parameters[name] for name, p in converted.named_parameters())
    agree(converted, reference, x)
    with torch.no_grad():  # nothing is remembered of what was
        for parameter, second in zip(converted.parameters(), reference.parameters(), strict=True):
            parameter.mul_(0.5)
            second.mul_(0.5)
    agree(converted, reference, x)
    back = nn.convert(converted, to="torch" if to == "unrolled" else "unrolled").model
    assert type(back).__mro__[1:] == type(reference).__mro__[1:]
    assert repr(back).startswith("unrolled.nn.") == (to == "torch")
    agree(back, reference, x)
    converted.load_state_dict(copy.deepcopy(reference.state_dict()))


@pytest.mark.parametrize("parametrization", ["own", "several", "weight norm by hook"])
def test_instances_of_both(parametrization: str) -> None:
    (original, x), (reference, _) = (
        make_module(torch.nn, "LSTM", parametrization) for _ in range(2)
    )
    mixed = nn.convert(original, subclass=True).model
    assert isinstance(mixed, torch.nn.LSTM)
    agree(mixed, reference, x)
    plain = nn.convert(mixed).model
    assert plain is mixed
    assert not isinstance(plain, torch.nn.LSTM)
    agree(plain, reference, x)
    assert isinstance(nn.convert(plain, subclass=True).model, torch.nn.LSTM)
    agree(plain, reference, x)


def test_it_can_be_undone_afterwards() -> None:
    for parametrization in ("own", "pruned", "weight norm by hook"):
        (original, x), (reference, _) = (
            make_module(torch.nn, "GRU", parametrization) for _ in range(2)
        )
        converted = nn.convert(original).model
        for module in (converted, reference):
            for name in ("weight_hh_l0", "weight_hh_l1_reverse"):
                if parametrization == "own":
                    parametrize.remove_parametrizations(module, name)
                elif parametrization == "pruned":
                    prune.remove(module, name)
                else:
                    torch.nn.utils.remove_weight_norm(module, name)
        assert {*converted.state_dict()} == {
            *torch.nn.GRU(3, 4, 2, bidirectional=True).state_dict()
        }
        agree(converted, reference, x)


@pytest.mark.parametrize("class_name", ["GRU", "LSTM", "LSTMCell"])
def test_a_weight_is_computed_once_a_call(class_name: str) -> None:
    original, x = make_module(torch.nn, class_name, "own")
    for name in [
        name for name in dict(original.named_parameters()) if name.startswith("weight_ih")
    ]:
        parametrize.register_parametrization(original, name, Doubled())
    converted = nn.convert(original).model
    counts = [part for part in converted.modules() if isinstance(part, Doubled)]
    for part in counts:
        part.calls = 0
    converted(x)
    assert [part.calls for part in counts] == [1] * len(counts)


def test_parameters_and_modules_of_your_own_are_left() -> None:
    layer = torch.nn.GRU(3, 4)
    layer.register_buffer("mine", torch.zeros(2))
    layer.extra = torch.nn.Linear(2, 2)
    assert nn.convert(layer).skipped == {"": "it holds mine, extra"}
    cell = torch.nn.GRUCell(3, 4)
    cell.weight_ih_scale = torch.nn.Parameter(torch.zeros(2))
    assert nn.convert(cell).skipped == {"": "it holds weight_ih_scale"}
    lacking = torch.nn.GRU(3, 4)
    del lacking.bias_hh_l0
    assert nn.convert(lacking).skipped == {"": "it lacks the parameters bias_hh_l0"}
