"""``BoundCell`` runs one step of a cell on given parameters, with the arrays of any library.

Engines repeat steps over time, differentiate and compile them.
"""

from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from typing import Any, Generic, cast

from unrolled.cells._cell import Cell
from unrolled.cells._declaration import (
    CellError,
    ProductDeclaration,
    Sizes,
    parameter_names,
)
from unrolled.cells._frozen import copy_with
from unrolled.cells._functions import linear, split, zeros
from unrolled.cells._values import Array, Gates, State


class BoundCell(Generic[Array]):
    """A cell with its prepared parameters: the step as a function of arrays.

    The projection of ``proj_size`` is applied here, so that neither cells nor loops over time need
    to handle it.
    """

    def __init__(self, cell: Cell, sizes: Sizes, parameters: Mapping[str, Array]) -> None:
        products = {
            name: _BoundProduct(p, parameters, *parameter_names(name))
            for name, p in cell.products(sizes).items()
        }
        weight = parameters[parameter_names("input")[0]]
        vectors = {
            name: parameters[name] if name in parameters else zeros(weight, sizes.resolve(v.size))
            for name, v in cell.vectors.items()
        }
        self.states = cell.states
        self.project_input: Callable[[Array], Array] = products["input"].stacked
        self.split_input: Callable[[Array], Gates | Array] = products["input"].by_target
        self._recurrent = products.get("recurrent")
        self._project = products.get("hr")
        self._cell = copy_with(cell, {**vectors, **products})

    def advance(self, x: Gates | Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        """States at t from the input products at t (the result of ``split_input``) and the states
        at t-1."""
        h = self._recurrent(states[0]) if self._recurrent is not None else None
        result = self._cell.step(x, h, State(self.states, states))
        new = cast(tuple[Array, ...], result if isinstance(result, tuple) else (result,))
        if len(new) != len(self.states):
            raise CellError(
                f"cell {type(self._cell).__name__}: step must return {len(self.states)} states "
                f"({', '.join(self.states)}), got {len(new)}"
            )
        if self._project is not None:
            new = (self._project.stacked(new[0]), *new[1:])
        return new


class _BoundProduct(Generic[Array]):
    """One product with its weights."""

    def __init__(
        self,
        declared: ProductDeclaration,
        parameters: Mapping[str, Array],
        weight_name: str,
        bias_name: str,
    ) -> None:
        self.declared = declared
        self.weight = parameters[weight_name]
        self.bias = parameters.get(bias_name)

    def stacked(self, v: Array) -> Array:
        """All targets concatenated: [..., K] to [..., M]."""
        if self.declared.blocks == 1:
            return linear(v, self.weight, self.bias)
        result: Array = self._block_diagonal(v, self.weight)
        return result

    def _block_diagonal(self, v: Any, weight: Any) -> Any:
        K, blocks = weight.shape[1], self.declared.blocks
        rows = weight.reshape(self.declared.parts, blocks, -1, K)
        inner = v.reshape(*v.shape[:-1], 1, blocks, 1, K)
        result = (inner * rows).sum(-1).reshape(*v.shape[:-1], weight.shape[0])
        if self.bias is not None:
            result = result + self.bias
        return result

    def by_target(self, stacked: Array) -> Gates | Array:
        """The result by target, or as one vector if the product has no targets."""
        names = self.declared.targets
        return Gates(names, split(stacked, len(names))) if names else stacked

    def __call__(self, v: Array) -> Gates | Array:
        return self.by_target(self.stacked(v))


def check_step(
    cell: Cell,
    sizes: Sizes,
    parameters: dict[str, Array],
    make_zeros: Callable[[tuple[int, int]], Array],
) -> None:
    """Run one step from zeros, with any array library, and compare its result with the declaration.

    Raises:
        CellError: an unknown gate or state is read, the number of states is wrong, or a new state
            has a wrong shape.
    """
    name = type(cell).__name__
    try:
        prepared = cell.prepare(parameters)
    except Exception as error:
        raise CellError(f"cell {name}: prepare fails: {_description(error)}") from error
    if not isinstance(prepared, Mapping):
        raise CellError(f"cell {name}: prepare must return parameters by name, got {prepared!r}")
    bound = BoundCell[Array](cell, sizes, prepared)
    N = 2
    widths = cell.state_widths(sizes)
    x = bound.split_input(bound.project_input(make_zeros((N, sizes.I))))
    try:
        states = bound.advance(x, tuple(make_zeros((N, width)) for width in widths))
    except FrozenInstanceError as error:
        raise CellError(f"cell {name}: step changes an attribute: {error}") from error
    except AttributeError as error:
        raise CellError(f"cell {name}: step reads an unknown attribute: {error}") from error
    except CellError:
        raise
    except Exception as error:
        raise CellError(
            f"cell {name}: step fails on states of widths {widths}: {_description(error)}"
        ) from error
    for state, value, width in zip(cell.states, states, widths, strict=True):
        shape = tuple(getattr(value, "shape", ()))
        if shape != (N, width):
            raise CellError(
                f"cell {name}: step must return state {state!r} with shape {(N, width)} for a "
                f"batch of {N}, got {shape}"
            )


def _description(error: Exception) -> str:
    """The message of an exception, with the name of its class unless that is a common one."""
    usual = isinstance(error, RuntimeError | TypeError | ValueError)
    return str(error) if usual else f"{type(error).__name__}: {error}"
