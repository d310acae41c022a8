"""A cell with its parameters: one step, on the arrays of any library.

How a step is repeated over time, differentiated or compiled is left to the engines.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from unrolled.cells.declaration import (
    Cell,
    CellError,
    Gates,
    Product,
    Sizes,
    States,
    parameter_names,
)
from unrolled.cells.functions import linear, split, zeros


class BoundCell:
    """A cell with its prepared parameters: the step as a function of arrays.

    The projection that ``proj_size`` asks for is part of this form: the output state passes through
    it whatever the cell, and no loop over time knows of it.
    """

    def __init__(self, cell: Cell, sizes: Sizes, parameters: dict[str, Any]) -> None:
        products = {
            name: _Bound(p, *map(parameters.get, parameter_names(name)))
            for name, p in cell.products(sizes).items()
        }
        like = parameters[parameter_names("input")[0]]
        own: dict[str, Any] = {
            name: parameters[name] if name in parameters else zeros(like, sizes.resolve(v.size))
            for name, v in cell.vectors.items()
        }
        self.states = cell.states
        self.project_input = products["input"].whole
        self.split_input = products["input"].part
        self._recurrent = products.get("recurrent")
        self._project = products.get("hr")
        self._cell = copy.copy(cell)
        vars(self._cell).update(own | products)

    def advance(self, x: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        """States at t from the input products at t (as ``split_input`` gives them) and the states
        at t-1."""
        h = self._recurrent(states[0]) if self._recurrent is not None else None
        result = self._cell.step(x, h, States(self.states, states))
        new = result if isinstance(result, tuple) else (result,)
        if len(new) != len(self.states):
            raise CellError(
                f"cell {type(self._cell).__name__}: step returns {len(new)} states, "
                f"declared are {len(self.states)}: {', '.join(self.states)}"
            )
        if self._project is not None:
            new = (self._project(new[0]), *new[1:])
        return new


class _Bound:
    """One product with its weights."""

    def __init__(self, declared: Product, weight: Any, bias: Any) -> None:
        self.declared = declared
        self.weight = weight
        self.bias = bias

    def whole(self, v: Any) -> Any:
        """All targets side by side: [..., K] to [..., M]."""
        blocks = self.declared.blocks
        if blocks == 1:
            return linear(v, self.weight, self.bias)
        parts = max(1, len(self.declared.targets))
        K = self.weight.shape[1]
        rows = self.weight.reshape(parts, blocks, -1, K)
        inner = v.reshape(*v.shape[:-1], 1, blocks, 1, K)
        result = (inner * rows).sum(-1).reshape(*v.shape[:-1], self.weight.shape[0])
        return result if self.bias is None else result + self.bias

    def part(self, whole: Any) -> Any:
        """The result as equations name it: by target, or the one vector."""
        names = self.declared.targets
        return Gates(names, split(whole, len(names))) if names else whole

    def __call__(self, v: Any) -> Any:
        return self.part(self.whole(v))


def check_step(
    cell: Cell, sizes: Sizes, parameters: dict[str, Any], zeros: Callable[[tuple[int, int]], Any]
) -> None:
    """Run one step from zeros, with any array library, and compare its result with the declaration.

    Raises:
        CellError: an unknown gate or state is read, the number of states is wrong, or a state comes
            back in another shape.
    """
    name = type(cell).__name__
    try:
        prepared = cell.prepare(parameters)
    except Exception as error:
        raise CellError(f"cell {name}: prepare fails: {_told(error)}") from error
    if not isinstance(prepared, Mapping):
        raise CellError(f"cell {name}: prepare must return parameters by name, got {prepared!r}")
    bound = BoundCell(cell, sizes, prepared)
    N = 2
    widths = cell.state_widths(sizes)
    x = bound.split_input(bound.project_input(zeros((N, sizes.I))))
    try:
        states = bound.advance(x, tuple(zeros((N, width)) for width in widths))
    except AttributeError as error:
        raise CellError(f"cell {name}: step reads what is not there: {error}") from error
    except CellError:
        raise
    except Exception as error:
        raise CellError(
            f"cell {name}: step fails on states of widths {widths}: {_told(error)}"
        ) from error
    for state, value, width in zip(cell.states, states, widths, strict=True):
        shape = tuple(getattr(value, "shape", ()))
        if shape != (N, width):
            raise CellError(
                f"cell {name}: state {state!r} comes out of step with shape {shape} for a batch "
                f"of {N}, wanted {(N, width)}"
            )


def _told(error: Exception) -> str:
    """What an exception says; its kind, where the text alone does not tell."""
    plain = isinstance(error, RuntimeError | TypeError | ValueError)
    return str(error) if plain else f"{type(error).__name__}: {error}"
