"""What layers and cells have in common: parameters and their start, and ways to run a stack."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.jit._trace import TracerWarning
from torch.nn.utils.parametrize import type_before_parametrizations

from unrolled.cells import Cell, CellError
from unrolled.cells.bound import check_step
from unrolled.engines import (
    Direct,
    Graph,
    fuses_stack,
    make_graph,
    run_fused_stack,
    run_graph,
    run_packed_graph,
    run_stack,
    tracing,
)
from unrolled.nn.arguments import as_cell
from unrolled.nn.layout import Form, States
from unrolled.spec import Spec

MOST = 2**60
"""Elements of a parameter, at most: their bytes are counted in 64 bits."""


class Swept(nn.Module):
    """A module that runs a cell over time. It has a ``cell``, a ``spec`` and parameters."""

    cell: Cell
    spec: Spec
    _direct: Direct | None = None
    _graph: Graph
    _shapes: list[dict[str, list[int]]]  # of the parameters, by sweep
    _structure: frozenset[str] = frozenset()
    """The attributes that ``spec`` is made of: when one is set, so is the spec."""

    def _checked(self, name: str, value: Any) -> Any:
        """The value of an attribute that is set on a layer, as its constructor takes it."""
        return as_cell(value) if name == "cell" else value

    def __setattr__(self, name: str, value: Any) -> None:
        if "spec" in vars(self):
            value = self._checked(name, value)
        super().__setattr__(name, value)
        if name in self._structure and "spec" in vars(self):
            self._describe()
            self._find_graph()

    def _get_name(self) -> str:
        """What ``repr`` begins with: ours say so, the user's subclasses are called as they are."""
        name, made_of = type(self).__name__, type_before_parametrizations(self)
        return f"unrolled.nn.{name}" if made_of.__module__.startswith("unrolled.nn.") else name

    def _make_spec(self) -> Spec:
        """The spec that the attributes say."""
        raise NotImplementedError

    def _describe(self) -> None:
        """Make the spec, and forget what was made for another."""
        self.spec = self._make_spec()
        self._direct = None

    def _find_graph(self) -> None:
        """What torch.compile and torch.export need, which cannot be found while they trace."""
        self._graph = make_graph(self.spec)
        self._shapes = [
            {name: list(p.shape) for name, p in self.spec.parameters(place.layer).items()}
            for place in self.spec.sweeps
        ]

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and copy take: nothing that is found anew."""
        found = ("_direct", "_graph", "_shapes")
        return {name: value for name, value in self.__dict__.items() if name not in found}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._find_graph()

    def _full_name(self, index: int, name: str) -> str:
        """Of a parameter of sweep number ``index``."""
        raise NotImplementedError

    def _check_parameters(self, parameters: list[dict[str, Tensor]]) -> None:
        """Users may replace parameters: an engine would read an empty bias as none.

        Raises:
            RuntimeError: one has another shape than it was made with.
        """
        for index, shapes in enumerate(self._shapes):
            for name, shape in shapes.items():
                parameter = parameters[index][name]
                if parameter is None or list(parameter.shape) != shape:
                    got = None if parameter is None else list(parameter.shape)
                    raise RuntimeError(
                        f"{type(self).__name__}: {self._full_name(index, name)} must have shape "
                        f"{shape}, got {got}"
                    )

    def _records(self, values: Any, checkpoint: int | bool = False) -> bool:
        """Whether a call on these values is to be operators (in a graph always)."""
        if checkpoint and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return False
        return self._graph.records(self.cell, values)

    def _unwarned(self, read: Callable[..., Any], *inputs: Any) -> Any:
        """Inputs checked and read; what a check looks at is no constant that a trace should warn
        of."""
        if not tracing():
            return read(*inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TracerWarning)
            return read(*inputs)

    def _run(
        self,
        form: Form,
        states: States,
        parameters: list[dict[str, Tensor]],
        reset_states: States | None,
        dropout: float = 0.0,
        checkpoint: int | bool = False,
    ) -> tuple[Tensor, States]:
        """The stack on what came through the door; as operators where a graph is made of it, and as
        torch's own function in a trace, which then needs nothing of this library.

        Raises:
            RuntimeError: in a graph, lengths or resets where the operator cannot run, or a gradient
                with ``checkpoint``.
        """
        rest = (states, parameters, reset_states, dropout)
        if torch.compiler.is_compiling() and checkpoint and torch.is_grad_enabled():
            raise RuntimeError(
                f"{type(self).__name__}: checkpoint={checkpoint} is for eager mode: what a graph "
                "keeps for backward is its compiler's choice; set layer.checkpoint = False"
            )
        uncut = form.ragged.resets is None
        whole = uncut and (form.packed is not None or form.ragged.lengths is None)
        if tracing() and whole and fuses_stack(self.spec, form.tokens):
            sizes = None if form.packed is None else form.packed.batch_sizes
            batch_first = form.ragged.major == "batch"
            options = (dropout, batch_first, self.training)
            return run_fused_stack(self.spec, form.tokens, sizes, states, parameters, *options)
        if form.packed is not None and tracing() and self._records(form.tokens):
            packed = (form.ragged, form.tokens, form.packed.batch_sizes)
            return run_packed_graph(self._graph, self.cell, *packed, *rest)
        if form.packed is None and self._records(form.tokens, checkpoint):
            why = self._graph.refusal(self.cell, form.tokens)
            if why is None:
                return run_graph(self._graph, self.cell, form.ragged, form.tokens, *rest)
            if not form.ragged.dense:
                raise RuntimeError(
                    f"{type(self).__name__}: in a graph lengths and resets need the operator: {why}"
                )
        return run_stack(self.spec, form.ragged, form.values, *rest, checkpoint)


def leaf_of_trace(module: nn.Module, *args: Any, **options: Any) -> Any:
    """A call of the module as torch.fx records one of its own layers; None where nothing is traced.

    Raises:
        RuntimeError: the module has a ``forward`` or hooks of the user's, which would run once more
            in each call of what is recorded.
    """
    if torch.compiler.is_compiling():
        return None
    proxy = next((v for v in (*args, *options.values()) if isinstance(v, fx.Proxy)), None)
    if proxy is None:
        return None
    tracer: Any = proxy.tracer
    name = tracer.path_of_module(module)
    hooks = module._forward_hooks or module._forward_pre_hooks
    ours = module.forward.__module__.startswith("unrolled.nn.") and "forward" not in vars(module)
    if hooks or not ours:
        what = "hooks" if hooks else "a forward method of its own"
        raise RuntimeError(
            f"{type(module).__name__}: torch.fx cannot record {name!r} as a layer, since it has "
            f"{what}, which would run twice; use a torch.fx.Tracer whose is_leaf_module is true "
            "for it"
        )
    passed = {key: value for key, value in options.items() if value is not None}
    return tracer.create_proxy("call_module", name, args, passed)


def make_parameter(name: str, shape: tuple[int, ...], device: Any, dtype: Any) -> nn.Parameter:
    """A parameter without numbers yet.

    Raises:
        RuntimeError: it would have more than can be addressed, or than there is memory for.
    """
    if math.prod(shape) > MOST:
        raise RuntimeError(
            f"{name} would have shape {list(shape)}; at most {MOST} elements can be addressed"
        )
    return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))


def register_modules(module: nn.Module, cell: Cell) -> None:
    """Modules that a cell holds (an activation with weights) become part of the layer's."""
    for cls in type(cell).__mro__:
        for name, value in vars(cls).items():
            if isinstance(value, nn.Module | nn.Parameter):
                raise CellError(
                    f"cell {type(cell).__name__}: {name} stands on the class, where all layers "
                    "would share it; set it in __init__"
                )
    for name, value in list(vars(cell).items()):
        held = value.values() if isinstance(value, dict) else value
        inside = list(held) if isinstance(held, list | tuple | type({}.values())) else []
        if isinstance(value, nn.Parameter) or any(
            isinstance(item, nn.Module | nn.Parameter) for item in inside
        ):
            raise CellError(
                f"cell {type(cell).__name__}: {name} holds parameters that no layer would own; "
                "declare them by vector() or product(), or hold one torch module"
            )
        if isinstance(value, nn.Module):
            if hasattr(module, name):
                raise CellError(
                    f"cell {type(cell).__name__}: a module cannot be called {name!r}, a name of "
                    f"{type(module).__name__}"
                )
            module.add_module(name, value)


def check_torch_step(cell: Cell, spec: Spec, parameters: dict[str, Tensor], layer: int = 0) -> None:
    """One step of a layer on zeros, like its parameters; raises CellError."""
    like = next(iter(parameters.values()))
    with torch.no_grad():
        check_step(cell, spec.sizes(layer), parameters, lambda shape: like.new_zeros(shape))
