"""Weights are ordinary parameters: after any write, the next call computes with the new values."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.support.subjects import gradients, random_like
from tests.support.tolerances import assert_equal, close
from tests.support.weights import (
    DIRECT,
    MAKERS,
    check,
    expected_results,
    flat,
    inputs,
    make_module,
    warm,
)
from unrolled import engines

SOME_MODULES = ["gru", "projected", "peephole", "lstm step"]


def changed(weight: Tensor) -> Tensor:
    """Other numbers of the same size."""
    return (0.1 - 0.5 * weight.detach()).clone()


def _data(weight: Parameter) -> None:
    weight.data = changed(weight)


def _in_place(weight: Parameter) -> None:
    with torch.no_grad():
        weight.mul_(-0.5).add_(0.1)


def _numpy(weight: Parameter) -> None:
    weight.detach().numpy()[...] = changed(weight).numpy()


def _set(weight: Parameter) -> None:
    with torch.no_grad():
        weight.set_(changed(weight))


def _swap(weight: Parameter) -> None:
    torch.utils.swap_tensors(weight, Parameter(changed(weight)))


def _foreach(weight: Parameter) -> None:
    torch._foreach_mul_([weight.detach()], -0.5)


def _vector(module: Module) -> None:
    vector_to_parameters(changed(parameters_to_vector(module.parameters())), module.parameters())


def _load(module: Module, assign: bool = False) -> None:
    state = {name: changed(weight) for name, weight in module.state_dict().items()}
    module.load_state_dict(state, assign=assign)


def _replace(module: Module) -> None:
    for name, weight in list(module.named_parameters()):
        setattr(module, name, Parameter(changed(weight)))


def _register(module: Module) -> None:
    for name, weight in list(module.named_parameters()):
        delattr(module, name)
        module.register_parameter(name, Parameter(changed(weight)))


def _share(module: Module) -> None:
    module.share_memory()
    for_each_parameter(_in_place)(module)


def _convert(module: Module) -> None:
    module.float().double()


def _convert_by_swap(module: Module) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module.float().double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def for_each_parameter(write: Callable[[Parameter], None]) -> Callable[[Module], None]:
    """A write to every parameter of a module."""

    def write_all(module: Module) -> None:
        for weight in module.parameters():
            write(weight)

    return write_all


WRITES: dict[str, Callable[[Module], None]] = {
    "data": for_each_parameter(_data),
    "data.copy_": for_each_parameter(lambda weight: weight.data.copy_(changed(weight))),
    "in place": for_each_parameter(_in_place),
    "storage": for_each_parameter(
        lambda w: w.untyped_storage().copy_(changed(w).untyped_storage())
    ),
    "numpy": for_each_parameter(_numpy),
    "dlpack": for_each_parameter(
        lambda weight: torch.from_dlpack(weight.detach()).copy_(changed(weight))
    ),
    "foreach": for_each_parameter(_foreach),
    "set_": for_each_parameter(_set),
    "swap": for_each_parameter(_swap),
    "vector_to_parameters": _vector,
    "load_state_dict": _load,
    "load_state_dict assign": lambda module: _load(module, assign=True),
    "replaced": _replace,
    "registered again": _register,
    "share_memory": _share,
    "reset_parameters": lambda module: module.reset_parameters(),
    "to float32 and back": _convert,
    "to float32 and back by swap": _convert_by_swap,
}


@pytest.mark.sampled
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("layer_name", [*SOME_MODULES, "reset_before", "rnn step"])
def test_the_next_call_computes_with_what_was_written(
    layer_name: str, write: str, fast_path_calls: list[bool]
) -> None:
    module = make_module(layer_name)
    warm(layer_name, module)
    x = inputs(layer_name)[0].detach()
    old_output = flat(module(x))[0].detach()
    WRITES[write](module)
    fast_path_calls.clear()
    check(layer_name, module)
    assert fast_path_calls[: len(DIRECT)] == DIRECT
    assert not torch.equal(flat(module(x))[0], old_output)


@pytest.mark.parametrize("layer_name", ["lstm", "peephole step"])
def test_a_compiled_layer_computes_with_what_was_written(layer_name: str) -> None:
    torch._dynamo.reset()
    module, x = make_module(layer_name), inputs(layer_name)[1]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for write in ("nothing", "data", "numpy", "storage", "set_", "load_state_dict", "replaced"):
        WRITES.get(write, lambda module: None)(module)
        weights = dict(module.named_parameters())
        with torch.no_grad():
            values = flat(compiled(x))
        parts = flat(compiled(x))
        right = expected_results(layer_name, weights, x)
        for mine, reference in zip(
            [*values, *values], [*right[: len(values)], *parts], strict=True
        ):
            close(mine, reference, "output")
        grads = gradients(parts, [x, *weights.values()])
        for mine, reference in zip(grads, right[len(values) :], strict=True):
            close(mine, reference, "gradient")
        del parts, weights
    torch._dynamo.reset()


@pytest.mark.parametrize("layer_name", MAKERS)
def test_one_frozen_parameter(layer_name: str) -> None:
    """It gets no gradient, and those of the others stay the same to the bit."""
    module = make_module(layer_name)
    warm(layer_name, module)
    weights = dict(module.named_parameters())
    for x in inputs(layer_name):
        parts = flat(module(x))
        output_gradients = random_like(parts)
        free = dict(
            zip(weights, gradients(parts, list(weights.values()), output_gradients), strict=True)
        )
        for frozen in weights:
            module.zero_grad()
            weights[frozen].requires_grad_(False)
            torch.autograd.backward(flat(module(x)), output_gradients)
            weights[frozen].requires_grad_(True)
            assert weights[frozen].grad is None
            for name in weights.keys() - {frozen}:
                actual = weights[name].grad
                assert actual is not None
                assert_equal(actual, free[name], f"{name}, {frozen} is frozen")


def test_all_parameters_frozen() -> None:
    for layer_name in MAKERS:
        module = make_module(layer_name).requires_grad_(False)
        for x in inputs(layer_name):
            assert not any(part.requires_grad for part in flat(module(x.detach())))
            parts, right = (
                flat(module(x)),
                expected_results(layer_name, dict(module.named_parameters()), x),
            )
            (grads,) = gradients(parts, [x])
            close(grads, right[len(parts)], "gradient")


def _saved(module: Module) -> Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: Module = torch.load(file, weights_only=False)
    return loaded


def _state(module: Module) -> Module:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    copied = copy.deepcopy(module)
    for_each_parameter(_in_place)(copied)
    copied.load_state_dict(torch.load(file, weights_only=True))
    return copied


COPIES: dict[str, Callable[[Module], Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": _saved,
    "state_dict": _state,
}


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("layer_name", SOME_MODULES)
def test_copies_are_equal_and_independent(layer_name: str, make: str) -> None:
    module = make_module(layer_name)
    warm(layer_name, module)
    copies = {name: p.detach().clone() for name, p in module.named_parameters()}
    copied = COPIES[make](module)
    for name, parameter in copied.named_parameters():
        assert_equal(parameter, copies[name], name)
    warm(layer_name, copied)
    for_each_parameter(_in_place)(copied)
    check(layer_name, copied)
    check(layer_name, module, dict(module.named_parameters()))
    for name, parameter in module.named_parameters():
        assert_equal(parameter, copies[name], name)
    for_each_parameter(_numpy)(module)
    for_each_parameter(_in_place)(module)
    check(layer_name, module)
    check(layer_name, copied)


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("layer_name", SOME_MODULES)
def test_averaged_models(layer_name: str, moving: bool) -> None:
    """Plain and exponential averages, used after each update."""
    module = make_module(layer_name)
    warm(layer_name, module)
    rule = get_ema_multi_avg_fn(0.75) if moving else None
    averaged = AveragedModel(module, multi_avg_fn=rule)
    average = [p.detach().clone() for p in module.parameters()]
    for k in range(3):
        averaged.update_parameters(module)
        share = (0.0 if k == 0 else 0.25) if moving else 1 / (k + 1)
        for mean, now in zip(average, module.parameters(), strict=True):
            mean += share * (now.detach() - mean)
        for mean, parameter in zip(average, averaged.module.parameters(), strict=True):
            close(parameter, mean, "output")
        check(layer_name, averaged, dict(averaged.module.named_parameters()))
        for_each_parameter(_in_place)(module)
        check(layer_name, module)


def _train(module: Module, x: Tensor) -> None:
    """A step of gradient descent, in a process of its own."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    torch.stack([part.square().sum() for part in flat(module(x))]).sum().backward()
    optimizer.step()


@pytest.mark.slow
def test_weights_in_shared_memory_trained_by_another_process() -> None:
    layer_name = "gru"
    module, x = make_module(layer_name).share_memory(), inputs(layer_name)[1].detach()
    warm(layer_name, module)
    right = copy.deepcopy(module)
    _train(right, x)
    child = torch.multiprocessing.get_context("spawn").Process(target=_train, args=(module, x))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    for mine, reference in zip(module.parameters(), right.parameters(), strict=True):
        close(mine, reference, "gradient")
    check(layer_name, module)


@pytest.mark.parametrize("layer_name", MAKERS)
def test_a_matrix_written_between_forward_and_backward_is_noticed(layer_name: str) -> None:
    """Backward reads it, so that silence would mean a wrong gradient."""
    for name in [name for name, p in make_module(layer_name).named_parameters() if p.dim() == 2]:
        for record in (False, True):
            module = make_module(layer_name)
            with engines.record() if record else engines.use("native"):
                parts = flat(module(inputs(layer_name)[1]))
            _in_place(module.get_parameter(name))
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                torch.autograd.backward(parts, random_like(parts))
