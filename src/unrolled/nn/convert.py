"""One call that puts our layers in the place of torch's in a model, or torch's in ours.

The parameters stay the very same objects, so that an optimizer, a tied weight or a checkpoint does
not notice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from unrolled.nn import cells as steps
from unrolled.nn import classic

_CELL = ("input_size", "hidden_size", "bias")
_LAYER = (*_CELL, "num_layers", "batch_first", "dropout", "bidirectional")


@dataclass(frozen=True)
class _Pair:
    """A class of torch's, ours, and the arguments that say the same to both."""

    torch: type[nn.Module]
    ours: type[nn.Module]
    arguments: tuple[str, ...]


_PAIRS = (
    _Pair(nn.RNN, classic.RNN, (*_LAYER, "nonlinearity")),
    _Pair(nn.LSTM, classic.LSTM, (*_LAYER, "proj_size")),
    _Pair(nn.GRU, classic.GRU, _LAYER),
    _Pair(nn.RNNCell, steps.RNNCell, (*_CELL, "nonlinearity")),
    _Pair(nn.LSTMCell, steps.LSTMCell, _CELL),
    _Pair(nn.GRUCell, steps.GRUCell, _CELL),
)


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` did.

    ``model`` is the model, or what took its place where it was itself a layer; ``replaced`` has the
    names of the modules that were, ``left`` of those that were not, with the reason.
    """

    model: nn.Module
    replaced: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"replaced {name or 'the model itself'}" for name in self.replaced]
        lines += [f"left {name or 'the model itself'}: {why}" for name, why in self.left.items()]
        return "\n".join(lines) or "no recurrent layer is there"


def convert(model: nn.Module, to: str = "unrolled") -> Conversion:
    """Replace every recurrent layer and cell of ``torch.nn`` in a model by ours, in place.

    Names, parameters (the same objects, with their dtype, device and ``requires_grad``), hooks and
    the mode stay; numbers agree to rounding. ``to="torch"`` goes back. Left as they are: subclasses
    with members of their own, parametrised or pruned layers (their weights are no parameters), and
    on the way back what torch's classes cannot say.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: ``to`` is neither ``"unrolled"`` nor ``"torch"``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if to not in ("unrolled", "torch"):
        raise ValueError(f"to must be 'unrolled' or 'torch', got {to!r}")
    made: dict[nn.Module, nn.Module] = {}
    replaced: list[str] = []
    left: dict[str, str] = {}
    for name, module in list(model.named_modules()):
        pair = next((p for p in _PAIRS if isinstance(module, _source(p, to))), None)
        if pair is None:
            continue
        why = _obstacle(module, pair, to)
        if why is None:
            made[module] = _make(module, pair, to)
            replaced.append(name)
        else:
            left[name] = why
    for parent in [model, *model.modules()]:
        for key, child in parent._modules.items():
            if child in made:
                parent._modules[key] = made[child]
    return Conversion(made.get(model, model), tuple(replaced), left)


_HARMLESS = ("__module__", "__doc__", "__init__", "__annotations__", "__parameters__")
"""Members of a subclass that do not change what it does once it is made."""


def _source(pair: _Pair, to: str) -> type[nn.Module]:
    return pair.torch if to == "unrolled" else pair.ours


def _obstacle(module: nn.Module, pair: _Pair, to: str) -> str | None:
    """None, or why a module has to stay."""
    base = _source(pair, to)
    if is_parametrized(module):
        return f"it is parametrised: {', '.join(module.get_submodule('parametrizations')._modules)}"
    mro = type(module).__mro__
    own = [key for cls in mro[: mro.index(base)] for key in vars(cls) if key not in _HARMLESS]
    if own:
        return f"{type(module).__name__} is a subclass with members of its own: {', '.join(own)}"
    if to == "torch":
        if getattr(module, "merge", "concat") != "concat":
            return f"merge={module.merge!r} is not torch's"
        if not isinstance(getattr(module, "nonlinearity", "tanh"), str):
            return "its nonlinearity is a function"
    if module._buffers or module._modules:
        return f"it holds {', '.join([*module._buffers, *module._modules])}"
    wanted = _names(_empty(module, pair, to))
    found = _names(module)
    if wanted != found:
        return f"its parameters are {', '.join(sorted(found))}, not {', '.join(sorted(wanted))}"
    return None


def _names(module: nn.Module) -> set[str]:
    return {name for name, parameter in module._parameters.items() if parameter is not None}


def _empty(module: nn.Module, pair: _Pair, to: str) -> nn.Module:
    """A new one that says the same, with parameters that take no memory and no random numbers."""
    target: Callable[..., nn.Module] = pair.ours if to == "unrolled" else pair.torch
    arguments: dict[str, Any] = {name: getattr(module, name) for name in pair.arguments}
    with torch.random.fork_rng(devices=[]):
        return target(**arguments, device="meta")


_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def _make(module: nn.Module, pair: _Pair, to: str) -> nn.Module:
    made = _empty(module, pair, to)
    for name in _names(module):
        setattr(made, name, module._parameters[name])
    # The very dictionaries: a handle that removes a hook holds on to the one that it is in.
    vars(made).update({name: vars(module)[name] for name in _HOOKS})
    made.training = module.training
    return made
