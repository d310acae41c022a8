"""``torch.nn``'s three recurrent layers by their own names and signatures."""

import torch
from torch import Tensor

from unrolled import cells
from unrolled.cells._values import Activation
from unrolled.nn import _phrases as phrases
from unrolled.nn._elman import NONLINEARITIES, Elman
from unrolled.nn._recurrent import Recurrent
from unrolled.nn.types import Device, LayerCall


class RNN(Elman, Recurrent):
    """Equivalent to ``torch.nn.RNN``: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh).

    ``nonlinearity`` is ``"tanh"``, ``"relu"`` or, beyond torch, any function or module that keeps
    shapes. Everything else is :class:`Recurrent`'s, with cell :class:`unrolled.cells.RNN`.
    """

    __call__: LayerCall[Tensor]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | Activation = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        merge: str = "concat",
        checkpoint: int | bool = False,
    ) -> None:
        _refuse_projection(type(self).__name__, proj_size)
        super().__init__(
            self._cell_of(nonlinearity),
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
        self._nonlinearity_name = nonlinearity if isinstance(nonlinearity, str) else None

    @property
    def mode(self) -> str:
        """``"RNN_TANH"``, ``"RNN_RELU"``, or ``"RNN"`` where a function is the nonlinearity;
        setting it sets the nonlinearity."""
        name = self._nonlinearity_name
        return "RNN" if name is None else f"RNN_{name.upper()}"

    @mode.setter
    def mode(self, mode: str) -> None:
        names = {f"RNN_{name.upper()}": name for name in NONLINEARITIES}
        if mode not in names:
            raise ValueError(
                f"RNN: Unrecognized RNN mode: {mode}; mode must be one of "
                f"{', '.join(map(repr, names))}, got {mode!r}"
            )
        self.nonlinearity = names[mode]


class LSTM(Recurrent):
    """Equivalent to ``torch.nn.LSTM``; ``hx`` is (h_0, c_0), the final states (h_n, c_n).

    Equations in :class:`unrolled.cells.LSTM`; everything else is :class:`Recurrent`'s.
    """

    mode = "LSTM"
    __call__: LayerCall[tuple[Tensor, Tensor]]

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
        device: Device = None,
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
    __call__: LayerCall[Tensor]

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
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        merge: str = "concat",
        checkpoint: int | bool = False,
    ) -> None:
        _refuse_projection(type(self).__name__, proj_size)
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


def _refuse_projection(layer: str, proj_size: object) -> None:
    """Raise ValueError unless proj_size is 0, which torch.nn accepts as a positional argument."""
    if proj_size is not None and (proj_size or isinstance(proj_size, str)):
        raise ValueError(
            f"{layer}: {phrases.NO_PROJECTION}, got proj_size={proj_size!r}; Recurrent(cell, …) "
            "supports it for every cell whose step allows it"
        )
