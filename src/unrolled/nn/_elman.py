"""The nonlinearity of RNN and RNNCell: a name as in torch.nn, a function or a module."""

from typing import cast

from unrolled import cells
from unrolled.cells._values import Activation
from unrolled.nn import _phrases as phrases
from unrolled.nn._base import RecurrentBase, register_modules

NONLINEARITIES: dict[str, Activation] = {"tanh": cells.tanh, "relu": cells.relu}


class Elman(RecurrentBase):
    """A layer or a cell whose nonlinearity can be read and set."""

    _nonlinearity_name: str | None
    _unknown_nonlinearity: type[Exception] = ValueError

    @property
    def nonlinearity(self) -> str | Activation:
        """The name or the function; a module is a submodule of the layer, ``activation``.

        A new value takes effect from the next call on.
        """
        return self._nonlinearity_name or cast(cells.RNN, self.cell).activation

    @nonlinearity.setter
    def nonlinearity(self, nonlinearity: str | Activation) -> None:
        cell = self._cell_of(nonlinearity)
        self._modules.pop("activation", None)
        register_modules(self, cell)
        self._nonlinearity_name = nonlinearity if isinstance(nonlinearity, str) else None
        self.cell = cell

    def __setattr__(self, name: str, value: object) -> None:
        if name == "nonlinearity":  # nn.Module would register a module under this name
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _cell_of(self, nonlinearity: str | Activation) -> cells.RNN:
        """A cell with a nonlinearity, or with the one of that name."""
        if callable(nonlinearity):
            return cells.RNN(nonlinearity)
        if nonlinearity not in NONLINEARITIES:
            error = self._unknown_nonlinearity
            phrase = phrases.unknown_nonlinearity(nonlinearity, step=error is RuntimeError)
            raise error(
                f"{type(self).__name__}: {phrase} nonlinearity must be one of "
                f"{', '.join(map(repr, NONLINEARITIES))}, a function or a module, got "
                f"{nonlinearity!r}"
            )
        return cells.RNN(NONLINEARITIES[nonlinearity])
