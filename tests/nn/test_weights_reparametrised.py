"""Weights computed from others, tied to others, or passed in; torch.nn's layers are the oracle."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module
from torch.nn.utils import parametrizations, parametrize, prune

from tests.support.subjects import gradients, pack, random_like, tokens
from tests.support.tolerances import assert_equal, close
from tests.support.weights import (
    MAKERS,
    H,
    I,
    check,
    expected_results,
    flat,
    inputs,
    make_module,
    warm,
)
from unrolled import nn

MODULES: dict[str, Callable[[Any], Module]] = {
    "rnn": lambda library: library.RNN(I, H),
    "gru": lambda library: library.GRU(I, H, num_layers=2, bidirectional=True),
    "lstm": lambda library: library.LSTM(I, H),
    "projected": lambda library: library.LSTM(I, H, proj_size=2),
    "rnn step": lambda library: library.RNNCell(I, H),
    "gru step": lambda library: library.GRUCell(I, H),
    "lstm step": lambda library: library.LSTMCell(I, H),
}


def pair(layer_name: str) -> tuple[Module, Module, str]:
    """Our module, after it ran in all ways, and torch's, with equal weights; the name of the
    recurrent matrix."""
    torch.manual_seed(0)
    ours, theirs = MODULES[layer_name](nn).double(), MODULES[layer_name](torch.nn).double()
    ours.load_state_dict(theirs.state_dict())
    warm(layer_name, ours)
    return ours, theirs, "weight_hh" if layer_name.endswith("step") else "weight_hh_l0"


def agree(layer_name: str, ours: Module, theirs: Module) -> dict[str, Tensor]:
    """Equal parameters, values without and with gradient, and gradients, which are returned; then
    a step of gradient descent by them."""
    mine, their_parameters = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(mine) == list(their_parameters)
    for x in inputs(layer_name):
        right = flat(theirs(x))
        output_gradients = random_like(right)
        with torch.no_grad():
            values = flat(ours(x))
        parts = flat(ours(x))
        for value, oracle in zip([*values, *parts], [*right, *right], strict=True):
            close(value, oracle, "output")
        grads = gradients(parts, [x, *mine.values()], output_gradients)
        oracle_grads = gradients(right, [x, *their_parameters.values()], output_gradients)
        for grad, oracle in zip(grads, oracle_grads, strict=True):
            close(grad, oracle, "gradient")
    with torch.no_grad():
        for parameters in (mine, their_parameters):
            for parameter, oracle in zip(parameters.values(), oracle_grads[1:], strict=True):
                parameter -= 0.05 * oracle
    return dict(zip(mine, grads[1:], strict=True))


class Skewed(Module):
    """A parametrisation of the user."""

    def forward(self, raw: Tensor) -> Tensor:
        return torch.sin(raw) + raw.flip(0)


TRANSFORMS: dict[str, tuple[Callable[[Module, str], Any], Callable[[Module, str], Any]]] = {
    "orthogonal": (
        parametrizations.orthogonal,
        parametrize.remove_parametrizations,
    ),
    "weight_norm": (parametrizations.weight_norm, parametrize.remove_parametrizations),
    "older weight_norm": (torch.nn.utils.weight_norm, torch.nn.utils.remove_weight_norm),
    "own": (
        lambda module, name: parametrize.register_parametrization(module, name, Skewed()),
        parametrize.remove_parametrizations,
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("layer_name", MODULES)
def test_a_computed_matrix_in_training(layer_name: str, transform: str) -> None:
    """Step by step with torch's layer under the same transform; afterwards an ordinary one."""
    ours, theirs, name = pair(layer_name)
    apply, remove = TRANSFORMS[transform]
    for module in (ours, theirs):
        torch.manual_seed(1)
        apply(module, name)
    for _ in range(4):
        agree(layer_name, ours, theirs)
        if transform == "orthogonal":
            weight = getattr(ours, name)
            close(weight.T @ weight, torch.eye(weight.shape[1], dtype=weight.dtype), "output")
    for module in (ours, theirs):
        remove(module, name)
    agree(layer_name, ours, theirs)
    agree(layer_name, ours, theirs)


@pytest.mark.parametrize("layer_name", MODULES)
def test_a_parametrised_layer_that_ran_is_copied(layer_name: str) -> None:
    """torch copies such a module as it lies, all that it holds included."""
    ours, theirs, name = pair(layer_name)
    for module in (ours, theirs):
        parametrizations.orthogonal(module, name)
    theirs.load_state_dict(ours.state_dict())
    copied = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(0.5)
    agree(layer_name, copied, theirs)
    agree(layer_name, copied, theirs)


@pytest.mark.parametrize("layer_name", MODULES)
def test_pruned(layer_name: str) -> None:
    """Masked elements are zero and get no gradient, in training and after, mask upon mask."""
    ours, theirs, recurrent = pair(layer_name)
    names = (recurrent, recurrent.replace("hh", "ih"))
    for amount in (0.3, 0.5):
        for module in (ours, theirs):
            torch.manual_seed(1)
            prune.random_unstructured(module, names[0], amount=amount)
            prune.l1_unstructured(module, names[1], amount=amount)
        agree(layer_name, ours, theirs)
        actual = agree(layer_name, ours, theirs)
        masks = {name: ours.get_buffer(f"{name}_mask") for name in names}
        for name, mask in masks.items():
            assert 0 < (mask == 0).sum() < mask.numel()
            assert (actual[f"{name}_orig"][mask == 0] == 0).all()
        assert (actual[f"{names[1]}_orig"][masks[names[1]] == 1] != 0).any()
    for module in (ours, theirs):
        for name, mask in masks.items():
            prune.remove(module, name)
            assert (module.get_parameter(name)[mask == 0] == 0).all()
    agree(layer_name, ours, theirs)


class Tied(Module):
    """Layers that share parameters, each tie by its own name."""

    def __init__(self, library: Any, tie: str) -> None:
        super().__init__()
        deep = tie == "in a stack"
        self.below = library.GRU(H, H, num_layers=2 if deep else 1)
        self.above = library.GRU(H, H, bidirectional=tie == "between directions")
        self.simple = library.RNN(H, H)
        self.step = library.GRUCell(H, H)
        self.linear = torch.nn.Linear(H, H)
        self.double()
        getattr(self, f"_{tie.replace(' ', '_')}")()

    def _between_layers(self) -> None:
        self.above.weight_hh_l0 = self.below.weight_hh_l0
        self.above.bias_ih_l0 = self.below.bias_ih_l0

    def _in_a_stack(self) -> None:
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(self.below, f"{name}_l1", getattr(self.below, f"{name}_l0"))

    def _between_directions(self) -> None:
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_hh_l0"):
            setattr(self.above, f"{name}_reverse", getattr(self.above, name))

    def _in_one_sweep(self) -> None:
        self.below.weight_hh_l0 = self.below.weight_ih_l0
        self.below.bias_hh_l0 = self.below.bias_ih_l0
        self.step.weight_hh = self.step.weight_ih

    def _with_a_linear(self) -> None:
        self.linear.weight = self.simple.weight_hh_l0

    def _with_a_step(self) -> None:
        self.step.weight_hh = self.below.weight_hh_l0
        self.step.bias_ih = self.below.bias_ih_l0

    def forward(self, x: Tensor) -> Tensor:
        values = self.above(self.below(x)[0])[0][..., :H]
        values = self.linear(self.simple(values)[0])
        return self.step(values[-1], values[0])


TIES = [name[1:].replace("_", " ") for name in vars(Tied) if name[0] == "_" and name[1] != "_"]


@pytest.mark.parametrize("copied", ["no", "deepcopy", "pickle"])
@pytest.mark.parametrize("tie", TIES)
def test_tied(tie: str, copied: str) -> None:
    """One parameter in two places: its gradients add up, and a step changes both."""
    torch.manual_seed(0)
    ours, theirs = Tied(nn, tie), Tied(torch.nn, tie)
    ours.load_state_dict(theirs.state_dict())
    sizes = [(1, 2), (7, 3)]
    for size in sizes:
        with torch.no_grad():
            ours(tokens(*size, H))
        ours(tokens(*size, H)).sum().backward()
    if copied != "no":
        ours = copy.deepcopy(ours) if copied == "deepcopy" else pickle.loads(pickle.dumps(ours))
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))
    assert len(list(ours.parameters())) < len(ours.state_dict())
    for size in sizes * 2:
        ours.zero_grad()
        theirs.zero_grad()
        results = []
        for module in (ours, theirs):
            x = tokens(*size, H)
            with torch.no_grad():
                value = module(x)
            result = module(x)
            result.square().sum().backward()
            results.append((value, result, x.grad))
        for mine, reference in zip(*results, strict=True):
            close(mine, reference, "gradient")
        for (name, mine), reference in zip(
            ours.named_parameters(), theirs.parameters(), strict=True
        ):
            assert mine.grad is not None
            assert reference.grad is not None
            close(mine.grad, reference.grad, "gradient", name)
            with torch.no_grad():
                mine -= 0.05 * reference.grad
                reference -= 0.05 * reference.grad


def _negated(leaf: Tensor) -> Tensor:
    """Torch keeps the sign apart from the numbers of such a view."""
    actual = torch.complex(torch.zeros_like(leaf), -leaf).conj().imag
    assert actual.is_neg()
    return actual


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda leaf: leaf,
    "transposed": lambda leaf: leaf.t().contiguous().t(),
    "strided": lambda leaf: leaf.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda leaf: leaf[:1].expand(leaf.shape),
    "one number": lambda leaf: leaf.flatten()[0].expand(leaf.shape),
    "at an offset": lambda leaf: torch.cat([leaf.flatten()[:1], leaf.flatten()])[1:].view_as(leaf),
    "negated": _negated,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layer_name", ["gru", "projected", "peephole", "peephole step"])
def test_weights_passed_in(layer_name: str, layout: str) -> None:
    """Other tensors in place of the parameters, however they lie; the layer's own come back."""
    module = make_module(layer_name)
    warm(layer_name, module)
    leaves = {
        name: p.detach().clone() for name, p in make_module(layer_name, seed=4).named_parameters()
    }
    arguments = {name: LAYOUTS[layout](leaf.requires_grad_()) for name, leaf in leaves.items()}
    for x in inputs(layer_name):
        with torch.no_grad():
            values = flat(functional_call(module, arguments, (x,)))
        parts = flat(functional_call(module, arguments, (x,)))
        right = expected_results(layer_name, arguments, x)
        for mine, reference in zip([*values, *parts], [*right[: len(parts)]] * 2, strict=True):
            close(mine, reference, "output")
        grads = gradients(parts, [x, *arguments.values()])
        for mine, reference in zip(grads, right[len(parts) :], strict=True):
            close(mine, reference, "gradient")
        parameters = expected_results(layer_name, dict(module.named_parameters()), x)
        for mine, reference in zip(flat(module(x)), parameters, strict=False):
            close(mine, reference, "output")


@pytest.mark.filterwarnings("ignore:.*functional_call.*deprecated:FutureWarning")
def test_the_older_functional_call() -> None:
    layer_name = "gru"
    module, second, x = (
        make_module(layer_name),
        make_module(layer_name, seed=4),
        inputs(layer_name)[1],
    )
    warm(layer_name, module)
    arguments = {name: p.detach() for name, p in second.named_parameters()}
    output = flat(torch.nn.utils.stateless.functional_call(module, arguments, (x,)))
    for mine, right in zip(output, expected_results(layer_name, arguments, x), strict=False):
        close(mine, right, "output")
    check(layer_name, module)


@pytest.mark.parametrize("layer_name", MAKERS)
def test_inputs_states_and_gradients_with_a_changed_sign(layer_name: str) -> None:
    """Imaginary parts of conjugates, as complex models pass them on."""
    module, step = make_module(layer_name), layer_name.endswith("step")
    for x in inputs(layer_name):
        lead = () if step else (module.spec.num_layers * module.spec.num_directions,)
        hx = [tokens(*lead, x.shape[-2], width, seed=7) for width in module.spec.state_widths]
        outcomes = []
        for turn in (_negated, torch.clone):
            selected = [turn(tensor) for tensor in (x, *hx)]
            with torch.no_grad():
                values = flat(module(selected[0], pack(selected[1:])))
            parts = flat(module(selected[0], pack(selected[1:])))
            output_gradients = [turn(gradient) for gradient in random_like(parts)]
            grads = gradients(parts, [x, *hx, *module.parameters()], output_gradients)
            outcomes.append([*values, *parts, *grads])
        for mine, reference in zip(*outcomes, strict=True):
            assert_equal(mine, reference)
