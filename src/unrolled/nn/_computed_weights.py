"""Weights that are computed from other tensors: parametrized, pruned, normalized by hooks.

``torch.nn.utils.parametrize`` gives the module a class with a property for the weight, and keeps
the original parameters in a submodule. Pruning and the older ``weight_norm`` and ``spectral_norm``
rename the parameter, add masks or vectors, and set the weight as a plain tensor before
each call.
"""

from torch import Tensor, nn
from torch.nn.utils import parametrize

_CONTAINER = "parametrizations"


def parametrized_names(module: nn.Module) -> list[str]:
    """The names of the tensors with parametrizations, in their order."""
    if not parametrize.is_parametrized(module):
        return []
    return [*module.get_submodule(_CONTAINER)._modules]


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before parametrizations changed it."""
    return parametrize.type_before_parametrizations(module)


def set_class(module: nn.Module, target: type[nn.Module], template: nn.Module) -> None:
    """Change the class of a module, and keep its parametrizations. ``template``, an instance of the
    new class, is modified."""
    names = parametrized_names(module)
    for name in names:
        parametrize.register_parametrization(template, name, nn.Identity(), unsafe=True)
    module.__class__ = type(template) if names else target


def computed_names(module: nn.Module, names: set[str]) -> set[str]:
    """Those of the named parameters that a module computes from other tensors."""
    hooked = {name for name in names if isinstance(vars(module).get(name), Tensor)}
    return hooked | (names & set(parametrized_names(module)))


def move_parameters(source: nn.Module, target: nn.Module, computed: set[str]) -> None:
    """Replace all parameters of ``target`` by those of ``source``, with the modules that compute
    them."""
    for name in parametrized_names(source):
        parametrize.register_parametrization(target, name, nn.Identity(), unsafe=True)
    if parametrized_names(source):
        target._modules[_CONTAINER] = source._modules[_CONTAINER]
    for name in computed:
        target._parameters.pop(name, None)
    target._parameters.clear()
    target._parameters.update(source._parameters)
    target._buffers.update(source._buffers)
    target._non_persistent_buffers_set |= source._non_persistent_buffers_set


def further_names(module: nn.Module, names: set[str]) -> list[str]:
    """Parameters, buffers and submodules that are neither a layer's nor used to compute its
    weights."""
    computed = computed_names(module, names)
    further = [
        name
        for name in [*module._parameters, *module._buffers]
        if name not in names
        and not any(name.startswith(f"{weight}_") for weight in computed)
        and not (name in module._parameters and module._parameters[name] is None)
    ]
    return further + [name for name in module._modules if name != _CONTAINER]
