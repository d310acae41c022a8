"""``torch.nn``'s three recurrent layers by their own names and signatures."""

from collections.abc import Callable
from typing import Any

import torch

from unrolled import cells
from unrolled.nn.recurrent import Recurrent

NONLINEARITIES: dict[str, Callable[[Any], Any]] = {"tanh": cells.tanh, "relu": cells.relu}


class RNN(Recurrent):
    """Equivalent to ``torch.nn.RNN``: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh).

    ``nonlinearity`` is ``"tanh"``, ``"relu"`` or, beyond torch, any function or module that keeps
    shapes. Everything else is :class:`Recurrent`'s, with cell :class:`unrolled.cells.RNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | Callable[[Any], Any] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        merge: str = "concat",
        checkpoint: int | bool = False,
    ) -> None:
        _refuse_projection(proj_size)
        super().__init__(
            cells.RNN(activation(nonlinearity, ValueError)),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            merge=merge,
            checkpoint=checkpoint,
        )
        self._named = nonlinearity if isinstance(nonlinearity, str) else None
        self.mode = f"RNN_{nonlinearity.upper()}" if isinstance(nonlinearity, str) else "RNN"

    @property
    def nonlinearity(self) -> str | Callable[[Any], Any]:
        """The name or the function; a module is a submodule of the layer, ``activation``."""
        return self._named or vars(self.cell)["activation"]


class LSTM(Recurrent):
    """Equivalent to ``torch.nn.LSTM``; ``hx`` is (h_0, c_0), the final states (h_n, c_n).

    Equations in :class:`unrolled.cells.LSTM`; everything else is :class:`Recurrent`'s.
    """

    mode = "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        merge: str = "concat",
        checkpoint: int | bool = False,
    ) -> None:
        super().__init__(
            cells.LSTM,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            merge=merge,
            checkpoint=checkpoint,
        )


class GRU(Recurrent):
    """Equivalent to ``torch.nn.GRU``, the reset-after form.

    Equations in :class:`unrolled.cells.GRU`; everything else is :class:`Recurrent`'s.
    """

    mode = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        merge: str = "concat",
        checkpoint: int | bool = False,
    ) -> None:
        _refuse_projection(proj_size)
        super().__init__(
            cells.GRU,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            merge=merge,
            checkpoint=checkpoint,
        )


def activation(
    nonlinearity: str | Callable[[Any], Any], error: type[Exception]
) -> Callable[[Any], Any]:
    """The function that a ``nonlinearity`` argument names or is."""
    if callable(nonlinearity):
        return nonlinearity
    if nonlinearity not in NONLINEARITIES:
        raise error(
            f"nonlinearity must be one of {', '.join(map(repr, NONLINEARITIES))} or a function, "
            f"got {nonlinearity!r}"
        )
    return NONLINEARITIES[nonlinearity]


def _refuse_projection(proj_size: int | None) -> None:
    if proj_size is not None:
        raise ValueError(
            f"proj_size={proj_size} is only for LSTM, not RNN or GRU; Recurrent(cell, …) takes it "
            "for every cell whose step allows it"
        )
