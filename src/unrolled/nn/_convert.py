"""Replaces torch's layers in a model by ours, or ours by torch's.

The parameters are the same objects before and after, so that optimizers, tied weights and
checkpoints keep working.
"""

import warnings
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from unrolled.nn import _cells as steps
from unrolled.nn import _classic as classic
from unrolled.nn import _computed_weights as computed_weights
from unrolled.nn import _torch_subclasses as torch_subclasses
from unrolled.nn._isinstance_scan import TypeCheck, find_type_checks

_CELL = ("input_size", "hidden_size", "bias")
_LAYER = (*_CELL, "num_layers", "batch_first", "dropout", "bidirectional")


@dataclass(frozen=True)
class _LayerType:
    """A class of torch, our counterpart, our subclass of torch's, and their common arguments."""

    torch: type[nn.Module]
    unrolled: type[nn.Module]
    subclass: type[nn.Module]
    arguments: tuple[str, ...]

    def base(self, module: nn.Module) -> type[nn.Module] | None:
        """The most specific of the three classes that a module is an instance of, or None."""
        classes = (self.subclass, self.unrolled, self.torch)
        return next((cls for cls in classes if isinstance(module, cls)), None)

    def target(self, to: str, subclass: bool) -> type[nn.Module]:
        """The class to convert to."""
        if to == "torch":
            return self.torch
        return self.subclass if subclass else self.unrolled


_LAYER_TYPES = (
    _LayerType(nn.RNN, classic.RNN, torch_subclasses.RNN, (*_LAYER, "nonlinearity")),
    _LayerType(nn.LSTM, classic.LSTM, torch_subclasses.LSTM, (*_LAYER, "proj_size")),
    _LayerType(nn.GRU, classic.GRU, torch_subclasses.GRU, _LAYER),
    _LayerType(nn.RNNCell, steps.RNNCell, torch_subclasses.RNNCell, (*_CELL, "nonlinearity")),
    _LayerType(nn.LSTMCell, steps.LSTMCell, torch_subclasses.LSTMCell, _CELL),
    _LayerType(nn.GRUCell, steps.GRUCell, torch_subclasses.GRUCell, _CELL),
)


@dataclass(frozen=True)
class Conversion:
    """The report of :func:`convert`.

    ``model`` is the model, or its replacement if the model itself was a layer. ``replaced`` has the
    names of the modules that were replaced, ``skipped`` the names of those that were not, with the
    reason. ``type_checks`` has, by the name of a module, the places in its source that test for
    torch's classes; it is empty with ``to="torch"``, whose layers pass these tests. ``subclass`` is
    the argument of :func:`convert`.
    """

    model: nn.Module
    replaced: tuple[str, ...]
    skipped: dict[str, str]
    type_checks: dict[str, tuple[TypeCheck, ...]]
    subclass: bool

    def __str__(self) -> str:
        lines = [f"replaced {_display_name(name)}" for name in self.replaced]
        lines += [f"skipped {_display_name(name)}: {why}" for name, why in self.skipped.items()]
        lines = lines or ["nothing to replace"]
        checks = [(name, check) for name, group in self.type_checks.items() for check in group]
        lines += [f"{_display_name(name)} tests for torch's class at {c}" for name, c in checks]
        if not self.subclass and not all(check.exact for _, check in checks):
            lines.append("subclass=True makes layers that are instances of torch's classes, too")
        return "\n".join(lines)


def _display_name(name: str) -> str:
    return name or "the model itself"


def convert(model: nn.Module, to: str = "unrolled", *, subclass: bool = False) -> Conversion:
    """Replace every recurrent layer and cell of ``torch.nn`` in a model by ours, in place.

    Names, parameters (the same objects, with their dtype, device and ``requires_grad``), hooks, the
    training mode and attributes that you have set stay. Optimizers keep working, and checkpoints
    can be loaded before and after conversion; results agree up to rounding.

    ``isinstance(layer, torch.nn.LSTM)`` is False for our layers. The report lists such type checks
    in the source of the model's classes; functions outside of these classes are not searched. With
    ``subclass=True`` the layers are instances of both classes. They run as our layers do, but
    ``torch.compile`` breaks its graph at them, as at torch's layers; it compiles the cells.

    Computed weights (parametrized, pruned, normalized) are moved together with the modules or hooks
    that compute them.

    These modules are skipped: subclasses that define further members, layers on which a method is
    set (such as ``forward``), layers with further parameters, buffers or modules, and, with
    ``to="torch"``, layers with options that torch's classes lack. A layer of this library that
    becomes a subclass of torch's, or the reverse, is not rebuilt: only its class changes.

    Args:
        model: a model, or a layer; the replacement of a layer is the ``model`` of the report.
        to: ``"unrolled"``, or ``"torch"`` to convert back.
        subclass: whether the layers are instances of torch's classes as well.

    Returns:
        A report of what was replaced, what was skipped and why, and of type checks in the source.

    Raises:
        TypeError: ``model`` is not a module, or ``subclass`` is not a bool.
        ValueError: ``to`` is neither ``"unrolled"`` nor ``"torch"``, or it is ``"torch"`` together
            with ``subclass=True``.
    """
    _check(model, to, subclass)
    replacements: dict[nn.Module, nn.Module] = {}
    replaced: list[str] = []
    skipped: dict[str, str] = {}
    for name, module in list(model.named_modules()):
        layer_type = next((entry for entry in _LAYER_TYPES if entry.base(module)), None)
        if layer_type is None or layer_type.base(module) is layer_type.target(to, subclass):
            continue
        replacement = _replace(module, layer_type, layer_type.target(to, subclass))
        if isinstance(replacement, str):
            skipped[name] = replacement
        else:
            replacements[module] = replacement
            replaced.append(name)
    for parent in [model, *model.modules()]:
        for key, child in parent._modules.items():
            if child in replacements:
                parent._modules[key] = replacements[child]
    type_checks = find_type_checks(model) if to == "unrolled" else {}
    converted = replacements.get(model, model)
    return Conversion(converted, tuple(replaced), skipped, type_checks, subclass)


def _check(model: object, to: object, subclass: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: model must be a torch.nn.Module, got {type(model).__name__}")
    if to not in ("unrolled", "torch"):
        raise ValueError(f"convert: to must be 'unrolled' or 'torch', got {to!r}")
    if not isinstance(subclass, bool):
        raise TypeError(f"convert: subclass must be a bool, got {subclass!r}")
    if subclass and to == "torch":
        raise ValueError("convert: subclass must be False with to='torch', got True")


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
"""Members of a subclass that do not change how its instances behave."""


def _replace(module: nn.Module, layer_type: _LayerType, target: type[nn.Module]) -> nn.Module | str:
    """The replacement of a module, or the reason why it is skipped."""
    base = layer_type.base(module)
    assert base is not None
    mro = computed_weights.original_class(module).__mro__
    members = [key for cls in mro[: mro.index(base)] for key in vars(cls) if cls is not ABC]
    overridden = dict.fromkeys(key for key in members if key not in _HARMLESS)
    if overridden:
        return f"{mro[0].__name__} is a subclass with members of its own: {', '.join(overridden)}"
    if layer_type.torch not in (base, target):
        computed_weights.set_class(module, target, _build(module, target, layer_type))
        return module
    if target is layer_type.torch and (why := _beyond_torch(module)):
        return why
    plain, replacement = (_build(module, cls, layer_type) for cls in (base, target))
    names = _parameter_names(replacement)
    if further := computed_weights.further_names(module, names):
        return f"it holds {', '.join(further)}"
    computed = computed_weights.computed_names(module, names)
    added = vars(module).keys() - vars(plain).keys()
    methods = sorted(key for key in added if callable(getattr(base, key, None)))
    if methods:
        return f"it has members of its own: {', '.join(methods)}"
    if missing := sorted(names - _parameter_names(module) - computed):
        return f"it lacks the parameters {', '.join(missing)}"
    computed_weights.move_parameters(module, replacement, computed)
    # The same dictionaries: the handle that removes a hook refers to them.
    vars(replacement).update({name: vars(module)[name] for name in _HOOKS})
    # Attributes that users have set, except those that the class defines (such as a compiled call).
    vars(replacement).update({k: vars(module)[k] for k in added if not hasattr(base, k)})
    replacement.training = module.training
    if target is layer_type.torch and isinstance(replacement, nn.RNNBase):
        replacement._init_flat_weights()
    return replacement


def _beyond_torch(module: nn.Module) -> str | None:
    if getattr(module, "merge", "concat") != "concat":
        return f"merge={module.merge!r} is not torch's"
    if getattr(module, "checkpoint", False):
        return f"checkpoint={module.checkpoint!r} is not torch's"
    if not isinstance(getattr(module, "nonlinearity", "tanh"), str):
        return "its nonlinearity is a function"
    return None


def _parameter_names(module: nn.Module) -> set[str]:
    return {name for name, parameter in module._parameters.items() if parameter is not None}


def _build(module: nn.Module, cls: Callable[..., nn.Module], layer_type: _LayerType) -> nn.Module:
    """A new layer with the arguments of a module, on the meta device and without random numbers."""
    arguments: dict[str, object] = {name: getattr(module, name) for name in layer_type.arguments}
    if layer_type.torch is nn.RNN and layer_type.base(module) is nn.RNN:
        # torch's RNN reads its nonlinearity only when it is built.
        arguments["nonlinearity"] = str(module.mode).removeprefix("RNN_").lower()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module's constructor has warned before
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
