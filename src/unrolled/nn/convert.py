"""One call that puts our layers in the place of torch's in a model, or torch's in ours.

The parameters stay the very same objects, so that an optimizer, a tied weight or a checkpoint does
not notice.
"""

import warnings
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unrolled.nn import both, classic, derived
from unrolled.nn import cells as steps
from unrolled.nn.asking import Ask, find_asks

_CELL = ("input_size", "hidden_size", "bias")
_LAYER = (*_CELL, "num_layers", "batch_first", "dropout", "bidirectional")


@dataclass(frozen=True)
class _Kind:
    """A class of torch's, ours, one that is both, and the arguments that say the same to all."""

    torch: type[nn.Module]
    ours: type[nn.Module]
    both: type[nn.Module]
    arguments: tuple[str, ...]

    def base(self, module: nn.Module) -> type[nn.Module] | None:
        """The one of the three that a module is, or is derived from."""
        classes = (self.both, self.ours, self.torch)
        return next((cls for cls in classes if isinstance(module, cls)), None)

    def target(self, to: str, subclass: bool) -> type[nn.Module]:
        """The one that is wanted."""
        if to == "torch":
            return self.torch
        return self.both if subclass else self.ours


_KINDS = (
    _Kind(nn.RNN, classic.RNN, both.RNN, (*_LAYER, "nonlinearity")),
    _Kind(nn.LSTM, classic.LSTM, both.LSTM, (*_LAYER, "proj_size")),
    _Kind(nn.GRU, classic.GRU, both.GRU, _LAYER),
    _Kind(nn.RNNCell, steps.RNNCell, both.RNNCell, (*_CELL, "nonlinearity")),
    _Kind(nn.LSTMCell, steps.LSTMCell, both.LSTMCell, _CELL),
    _Kind(nn.GRUCell, steps.GRUCell, both.GRUCell, _CELL),
)


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` did.

    ``model`` is the model, or what took its place where it was itself a layer; ``replaced`` has the
    names of the modules that were, ``left`` of those that were not, with the reason. ``asking`` has
    the names of the modules whose source asks for torch's classes, and where; it is empty on the
    way to torch's, which satisfy them. ``subclass`` is what was asked for.
    """

    model: nn.Module
    replaced: tuple[str, ...]
    left: dict[str, str]
    asking: dict[str, tuple[Ask, ...]]
    subclass: bool

    def __str__(self) -> str:
        lines = [f"replaced {_called(name)}" for name in self.replaced]
        lines += [f"left {_called(name)}: {why}" for name, why in self.left.items()]
        lines = lines or ["nothing to replace"]
        asks = [(name, ask) for name, found in self.asking.items() for ask in found]
        lines += [f"{_called(name)} asks at {ask}" for name, ask in asks]
        if not self.subclass and not all(ask.exact for _, ask in asks):
            lines.append("subclass=True makes layers that are instances of torch's classes, too")
        return "\n".join(lines)


def _called(name: str) -> str:
    return name or "the model itself"


def convert(model: nn.Module, to: str = "unrolled", *, subclass: bool = False) -> Conversion:
    """Replace every recurrent layer and cell of ``torch.nn`` in a model by ours, in place.

    Names, parameters (the same objects, with their dtype, device and ``requires_grad``), hooks, the
    mode and attributes of your own stay, so an optimizer goes on and checkpoints fit both ways;
    numbers agree to rounding.

    Code that asks ``isinstance(layer, torch.nn.LSTM)`` gets no from our layers. The report names
    the modules whose source asks; a function outside of any module's class cannot be seen. With
    ``subclass=True`` the layers are instances of both classes. They run as ours do, but
    ``torch.compile`` breaks its graph at them, as at torch's; cells it takes.

    Weights that are computed come along, with what computes them: parametrised, pruned, normalised.

    Left as they are: subclasses with members of their own, layers with a method set on them (a
    ``forward``) or with parameters, buffers or modules of your own, and on the way to torch what
    its classes cannot say. Layers of ours are not made anew: they become instances of
    torch's classes, too, or cease to be.

    Args:
        model: the model, or a layer itself; then what takes its place is the report's ``model``.
        to: ``"unrolled"``, or ``"torch"`` to go back, from layers of both classes as well.
        subclass: whether our layers shall be instances of torch's classes, too.

    Returns:
        What was replaced, what was left and why, and who asks; ``print`` shows it.

    Raises:
        TypeError: ``model`` is no module, or ``subclass`` no bool.
        ValueError: ``to`` is neither ``"unrolled"`` nor ``"torch"``, or it is ``"torch"`` together
            with ``subclass=True``.
    """
    _check(model, to, subclass)
    made: dict[nn.Module, nn.Module] = {}
    replaced: list[str] = []
    left: dict[str, str] = {}
    for name, module in list(model.named_modules()):
        kind = next((kind for kind in _KINDS if kind.base(module)), None)
        if kind is None or kind.base(module) is kind.target(to, subclass):
            continue
        found = _replace(module, kind, kind.target(to, subclass))
        if isinstance(found, str):
            left[name] = found
        else:
            made[module] = found
            replaced.append(name)
    for parent in [model, *model.modules()]:
        for key, child in parent._modules.items():
            if child in made:
                parent._modules[key] = made[child]
    asking = find_asks(model) if to == "unrolled" else {}
    return Conversion(made.get(model, model), tuple(replaced), left, asking, subclass)


def _check(model: Any, to: Any, subclass: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if to not in ("unrolled", "torch"):
        raise ValueError(f"to must be 'unrolled' or 'torch', got {to!r}")
    if not isinstance(subclass, bool):
        raise TypeError(f"subclass must be a bool, got {subclass!r}")
    if subclass and to == "torch":
        raise ValueError("subclass=True is for layers of ours, got to='torch': leave it out")


_HARMLESS = (
    "__module__",
    "__doc__",
    "__init__",
    "__annotations__",
    "__annotate_func__",
    "__parameters__",
    "__firstlineno__",
    "__static_attributes__",
    "__dict__",
    "__weakref__",
    "__abstractmethods__",
    "_abc_impl",
)
"""Members of a subclass that do not change what it does once it is made."""


def _replace(module: nn.Module, kind: _Kind, target: type[nn.Module]) -> nn.Module | str:
    """What takes a module's place, or why it has to stay."""
    base = kind.base(module)
    assert base is not None
    mro = derived.class_of(module).__mro__
    members = [key for cls in mro[: mro.index(base)] for key in vars(cls) if cls is not ABC]
    own = dict.fromkeys(key for key in members if key not in _HARMLESS)
    if own:
        return f"{mro[0].__name__} is a subclass with members of its own: {', '.join(own)}"
    if kind.torch not in (base, target):
        derived.set_class(module, target, _empty(module, target, kind))
        return module
    if target is kind.torch and (why := _beyond_torch(module)):
        return why
    was, made = (_empty(module, cls, kind) for cls in (base, target))
    wanted = _names(made)
    if strangers := derived.strangers(module, wanted):
        return f"it holds {', '.join(strangers)}"
    computed = derived.derived(module, wanted)
    added = vars(module).keys() - vars(was).keys()
    methods = sorted(key for key in added if callable(getattr(base, key, None)))
    if methods:
        return f"it has members of its own: {', '.join(methods)}"
    if missing := sorted(wanted - _names(module) - computed):
        return f"it lacks the parameters {', '.join(missing)}"
    derived.move(module, made, computed)
    # The very dictionaries: a handle that removes a hook holds on to the one that it is in.
    vars(made).update({name: vars(module)[name] for name in _HOOKS})
    # What somebody noted on it; what its class knows too (a compiled call) is for this one alone.
    vars(made).update({key: vars(module)[key] for key in added if not hasattr(base, key)})
    made.training = module.training
    if target is kind.torch and isinstance(made, nn.RNNBase):
        made._init_flat_weights()
    return made


def _beyond_torch(module: nn.Module) -> str | None:
    if getattr(module, "merge", "concat") != "concat":
        return f"merge={module.merge!r} is not torch's"
    if getattr(module, "checkpoint", False):
        return f"checkpoint={module.checkpoint!r} is not torch's"
    if not isinstance(getattr(module, "nonlinearity", "tanh"), str):
        return "its nonlinearity is a function"
    return None


def _names(module: nn.Module) -> set[str]:
    return {name for name, parameter in module._parameters.items() if parameter is not None}


def _empty(module: nn.Module, cls: Callable[..., nn.Module], kind: _Kind) -> nn.Module:
    """A new one that says the same, with parameters that take no memory and no random numbers."""
    arguments: dict[str, Any] = {name: getattr(module, name) for name in kind.arguments}
    if kind.torch is nn.RNN and kind.base(module) is nn.RNN:
        # torch's looks at its nonlinearity only when it is made.
        arguments["nonlinearity"] = str(module.mode).removeprefix("RNN_").lower()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of arguments were given when the first was made
        return cls(**arguments, device="meta")


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
