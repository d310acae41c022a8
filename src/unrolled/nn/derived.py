"""Weights that are computed from others: parametrised, pruned, normalised by hooks.

``torch.nn.utils.parametrize`` puts a property on a class made for the one module and keeps the
originals in a submodule. Pruning and the older ``weight_norm`` and ``spectral_norm`` rename the
parameter, add masks or vectors beside it, and set the weight as a plain tensor before each call.
"""

from torch import Tensor, nn
from torch.nn.utils import parametrize

_KEEPER = "parametrizations"


def parametrised(module: nn.Module) -> list[str]:
    """The names of the tensors with parametrisations, in their order."""
    return [*module.get_submodule(_KEEPER)._modules] if parametrize.is_parametrized(module) else []


def class_of(module: nn.Module) -> type[nn.Module]:
    """The class that a module was made of."""
    return parametrize.type_before_parametrizations(module)


def set_class(module: nn.Module, target: type[nn.Module], other: nn.Module) -> None:
    """Make a module one of another class, with its parametrisations; ``other`` is one of that
    class, which is used up."""
    names = parametrised(module)
    for name in names:
        parametrize.register_parametrization(other, name, nn.Identity(), unsafe=True)
    module.__class__ = type(other) if names else target


def derived(module: nn.Module, wanted: set[str]) -> set[str]:
    """The parameters among the wanted ones that a module computes."""
    hooked = {name for name in wanted if isinstance(vars(module).get(name), Tensor)}
    return hooked | (wanted & set(parametrised(module)))


def move(module: nn.Module, other: nn.Module, computed: set[str]) -> None:
    """Put all parameters of a module, with what computes them, in the place of another's."""
    for name in parametrised(module):
        parametrize.register_parametrization(other, name, nn.Identity(), unsafe=True)
    if parametrised(module):
        other._modules[_KEEPER] = module._modules[_KEEPER]
    for name in computed:
        other._parameters.pop(name, None)
    other._parameters.clear()
    other._parameters.update(module._parameters)
    other._buffers.update(module._buffers)
    other._non_persistent_buffers_set |= module._non_persistent_buffers_set


def strangers(module: nn.Module, wanted: set[str]) -> list[str]:
    """The parameters, buffers and submodules that neither a layer has nor its weights come from."""
    computed = derived(module, wanted)
    names = [*module._parameters, *module._buffers]
    unknown = [
        name
        for name in names
        if name not in wanted
        and not any(name.startswith(f"{known}_") for known in computed)
        and not (name in module._parameters and module._parameters[name] is None)
    ]
    return unknown + [name for name in module._modules if name != _KEEPER]
