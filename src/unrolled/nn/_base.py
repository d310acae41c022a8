"""``RecurrentBase``, the base class of layers and single-step cells."""

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.jit._trace import TracerWarning
from torch.nn.utils.parametrize import type_before_parametrizations

from unrolled._spec import Spec
from unrolled.cells import Cell, CellError
from unrolled.cells._bound import check_step
from unrolled.engines._precision import States
from unrolled.engines._request import Sweep
from unrolled.engines._runner import Runner
from unrolled.engines._torch_modes import is_tracing
from unrolled.nn._arguments import as_cell
from unrolled.nn._layout import InputLayout, NormalizedCall
from unrolled.nn.types import Device

MAX_ELEMENTS = 2**60
"""The largest number of elements of a parameter, whose bytes are counted in 64 bits."""


class RecurrentBase(nn.Module):
    """A module that runs a cell over time. It has a ``cell``, a ``spec`` and parameters."""

    cell: Cell
    spec: Spec
    _runner: Runner
    _shapes: list[dict[str, list[int]]]  # of the parameters, by sweep
    _spec_attributes: frozenset[str] = frozenset()
    """The attributes that ``spec`` depends on: setting one of them makes a new spec."""

    def _checked(self, name: str, value: object) -> object:
        """Check the value of an attribute that is set, as the constructor does, and convert it."""
        return as_cell(value) if name == "cell" else value

    def __setattr__(self, name: str, value: Any) -> None:
        if "spec" in vars(self):
            value = self._checked(name, value)
        super().__setattr__(name, value)
        if name in self._spec_attributes and "spec" in vars(self):
            self._update_spec()
            self._make_runner()

    def _get_name(self) -> str:
        """The name in ``repr``, which begins with ``unrolled.nn.`` for classes of this library."""
        name, original_class = type(self).__name__, type_before_parametrizations(self)
        is_ours = original_class.__module__.startswith("unrolled.nn.")
        return f"unrolled.nn.{name}" if is_ours else name

    def _make_spec(self) -> Spec:
        """Build the spec from the attributes."""
        raise NotImplementedError

    def _update_spec(self) -> None:
        """Set ``spec`` from the current attributes."""
        self.spec = self._make_spec()

    def _make_runner(self) -> None:
        """Build the runner of the stack; graphs need it before torch traces."""
        self._runner = Runner(self.spec, type(self).__name__, self._is_step)
        self._shapes = [
            {name: list(p.shape) for name, p in self.spec.parameters(sweep.layer).items()}
            for sweep in self.spec.sweeps
        ]

    _is_step = False
    """Whether the module is one step of a cell."""

    def __getstate__(self) -> dict[str, object]:
        """The state for pickle and copy, without attributes derived from the spec."""
        derived = ("_runner", "_shapes")
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def __setstate__(self, state: dict[str, object]) -> None:
        nn.Module.__setstate__(self, state)
        self._make_runner()

    def _full_name(self, index: int, name: str) -> str:
        """The full name of a parameter of sweep number ``index``."""
        raise NotImplementedError

    def _check_parameters(self, parameters: Sequence[Mapping[str, Tensor | None]]) -> None:
        """Check the shapes of parameters, which users may replace: an empty bias would count as
        absent.

        Raises:
            RuntimeError: a parameter has another shape than in the spec.
        """
        for index, shapes in enumerate(self._shapes):
            for name, shape in shapes.items():
                parameter = parameters[index][name]
                got = None if parameter is None else list(parameter.shape)
                if got != shape:
                    raise RuntimeError(
                        f"{type(self).__name__}: {self._full_name(index, name)} must have shape "
                        f"{shape}, got {got}"
                    )

    def _normalize(
        self,
        parameters: list[dict[str, Tensor]],
        input: object,
        hx: object,
        lengths: object,
        resets: object,
        reset_state: object,
        batch_first: bool = False,
        checkpoint: int | bool = False,
    ) -> tuple[InputLayout, NormalizedCall]:
        """Check the parameters, and check and normalize the arguments of a call."""
        with warnings.catch_warnings() if is_tracing() else nullcontext():
            if is_tracing():  # the checks make nothing in the trace constant
                warnings.simplefilter("ignore", TracerWarning)
            self._check_parameters(parameters)
            layout = InputLayout(
                self.spec,
                type(self).__name__,
                parameters[0]["weight_ih"],
                batch_first,
                self._is_step,
                symbolic=self._runner.is_symbolic(input, checkpoint),
            )
            return layout, layout.normalize(input, hx, lengths, resets, reset_state)

    def _run(
        self,
        call: NormalizedCall,
        parameters: list[dict[str, Tensor]],
        dropout: float = 0.0,
        checkpoint: int | bool = False,
    ) -> tuple[Tensor, States]:
        """Outputs and final states of the stack."""
        return self._runner.run(
            call.input.batch,
            call.input.tokens,
            call.states,
            parameters,
            call.reset_states,
            dropout,
            checkpoint,
            call.input.batch_sizes,
            self.training,
        )

    def _first_sweep(self, call: NormalizedCall, parameters: list[dict[str, Tensor]]) -> Sweep:
        """The first sweep of a call."""
        batch, tokens = call.input.batch, call.input.tokens
        return self._runner.first_sweep(batch, tokens, call.states, parameters, call.reset_states)


def leaf_of_trace(module: nn.Module, *args: object, **options: object) -> Any:
    """Record the call as a leaf module if torch.fx is tracing, as for torch's layers; otherwise
    return None.

    Raises:
        RuntimeError: the module has hooks or an overridden ``forward``, which would run a second
            time in each call of the traced module.
    """
    if torch.compiler.is_compiling():
        return None
    proxy = next((v for v in (*args, *options.values()) if isinstance(v, fx.Proxy)), None)
    if proxy is None:
        return None
    tracer: Any = proxy.tracer
    name = tracer.path_of_module(module)
    has_hooks = module._forward_hooks or module._forward_pre_hooks
    is_library_forward = module.forward.__module__.startswith(
        "unrolled.nn."
    ) and "forward" not in vars(module)
    if has_hooks or not is_library_forward:
        additions = "hooks" if has_hooks else "a forward method of its own"
        raise RuntimeError(
            f"{type(module).__name__}: a layer that torch.fx records must have neither hooks nor a "
            f"forward method of its own, which would run twice, got {name!r} with {additions}; use "
            "a torch.fx.Tracer whose is_leaf_module is true for it"
        )
    present = {key: value for key, value in options.items() if value is not None}
    return tracer.create_proxy("call_module", name, args, present)


def make_parameter(
    name: str, shape: tuple[int, ...], device: Device, dtype: torch.dtype | None
) -> nn.Parameter:
    """An uninitialized parameter.

    Raises:
        RuntimeError: it has more elements than can be addressed, or there is not enough memory.
    """
    if math.prod(shape) > MAX_ELEMENTS:
        raise RuntimeError(
            f"{name} must have at most {MAX_ELEMENTS} elements, got shape {list(shape)}"
        )
    return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))


def register_modules(module: nn.Module, cell: Cell) -> None:
    """Make the modules of a cell (an activation with weights) submodules of the layer."""
    for cls in type(cell).__mro__:
        for name, value in vars(cls).items():
            if isinstance(value, nn.Module | nn.Parameter):
                raise CellError(
                    f"cell {type(cell).__name__}: {name} must be set in __init__, got a "
                    f"{type(value).__name__} on the class, which all layers would share"
                )
    for name, value in list(vars(cell).items()):
        items = list(value.values()) if isinstance(value, dict) else value
        items = items if isinstance(items, list | tuple) else ()
        if isinstance(value, nn.Parameter) or any(
            isinstance(item, nn.Module | nn.Parameter) for item in items
        ):
            raise CellError(
                f"cell {type(cell).__name__}: {name} must be a single torch module, got a "
                f"{type(value).__name__} with parameters that no layer would own; declare them by "
                "vector() or product()"
            )
        if isinstance(value, nn.Module):
            if hasattr(module, name):
                raise CellError(
                    f"cell {type(cell).__name__}: a module must not be called {name!r}, a name of "
                    f"{type(module).__name__}"
                )
            module.add_module(name, value)


def check_torch_step(cell: Cell, spec: Spec, parameters: dict[str, Tensor], layer: int = 0) -> None:
    """Run one step of a layer on zeros of its dtype and device; raises CellError."""
    like = next(iter(parameters.values()))
    with torch.no_grad():
        check_step(cell, spec.sizes(layer), parameters, lambda shape: like.new_zeros(shape))
