"""The nonlinearity of RNN and RNNCell: a name as in torch.nn, a function or a module."""

from collections.abc import Callable
from typing import Any

from unrolled import cells
from unrolled.nn import phrases
from unrolled.nn.base import RecurrentBase, register_modules

NONLINEARITIES: dict[str, Callable[[Any], Any]] = {"tanh": cells.tanh, "relu": cells.relu}


class Elman(RecurrentBase):
    """A layer or a cell whose nonlinearity can be read and set."""

    _named: str | None
    _unknown_nonlinearity: type[Exception] = ValueError

    @property
    def nonlinearity(self) -> str | Callable[[Any], Any]:
        """The name or the function; a module is a submodule of the layer, ``activation``.

        To set it takes effect from the next call on.
        """
        return self._named or vars(self.cell)["activation"]

    @nonlinearity.setter
    def nonlinearity(self, nonlinearity: str | Callable[[Any], Any]) -> None:
        cell = self._cell_of(nonlinearity)
        self._modules.pop("activation", None)
        register_modules(self, cell)
        self._named = nonlinearity if isinstance(nonlinearity, str) else None
        self.cell = cell

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "nonlinearity":  # nn.Module would register a module under this name
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _cell_of(self, nonlinearity: Any) -> cells.RNN:
        """A cell with the function that a ``nonlinearity`` names or is."""
        if callable(nonlinearity):
            return cells.RNN(nonlinearity)
        if not isinstance(nonlinearity, str) or nonlinearity not in NONLINEARITIES:
            error = self._unknown_nonlinearity
            phrase = phrases.unknown_nonlinearity(nonlinearity, step=error is RuntimeError)
            raise error(
                f"{type(self).__name__}: {phrase} nonlinearity must be one of "
                f"{', '.join(map(repr, NONLINEARITIES))}, a function or a module, got "
                f"{nonlinearity!r}"
            )
        return cells.RNN(NONLINEARITIES[nonlinearity])
