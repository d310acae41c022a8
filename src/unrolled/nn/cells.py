"""One step as a module: ``torch.nn``'s cells, and any other."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unrolled import cells
from unrolled.engines import Sweep, make_sweep, run_stack
from unrolled.nn import layout
from unrolled.nn.arguments import ArgumentTypeError, as_cell
from unrolled.nn.classic import activation
from unrolled.nn.recurrent import check_torch_step, draw, register_modules
from unrolled.spec import Spec


class RecurrentCell(nn.Module):
    """One step of any cell, for loops of your own.

    Call with ``input`` [N, I] or [I] and ``hx`` (zeros by default) [N, width] or [width], a tuple
    if the cell has several states; returns the new states in the form of ``hx``. ``lengths`` [N] of
    zeros and ones leaves the states of the rows with 0 as they are; ``resets`` [N] bool replaces
    those of the rows with True by ``reset_state`` (zeros by default) before the step.

    Parameters are those of :class:`unrolled.nn.Recurrent` without the layer's number:
    ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``, and the cell's own.

    Raises:
        ValueError: a number of dimensions or a value is wrong.
        RuntimeError: a size, dtype or device does not fit.
        TypeError: an argument is of a wrong kind.
        CellError: the cell contradicts itself.
    """

    weight_ih: Tensor

    def __init__(
        self,
        cell: cells.Cell | type[cells.Cell],
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if not isinstance(size, int):
                raise TypeError(
                    f"{name} must be an int, got {size!r} of type {type(size).__name__}"
                )
            if size < 0:
                raise RuntimeError(f"{name} must not be negative, got {size}")
        self.cell = as_cell(cell)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.spec = Spec(self.cell, input_size, hidden_size, bias=bool(bias))
        shapes = self.spec.parameters(0)
        self._names = list(shapes)
        for name, parameter in shapes.items():
            empty = torch.empty(parameter.shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(empty))
        for name in ("bias_ih", "bias_hh"):
            if not hasattr(self, name):
                self.register_parameter(name, None)
        register_modules(self, self.cell)
        self.reset_parameters()
        check_torch_step(self.cell, self.spec, self._own_parameters())

    def reset_parameters(self) -> None:
        """Draw all weights and biases anew, in the order of the parameters."""
        draw(self, self.spec, 0, "")

    def forward(
        self,
        input: Tensor,
        hx: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        reset_state: Any = None,
    ) -> Any:
        """One step; see the class."""
        form, states, after_cut = self._enter(input, hx, lengths, resets, reset_state)
        parameters = [self._own_parameters()]
        _, final = run_stack(self.spec, form.ragged, form.values, states, parameters, after_cut)
        if input.dim() == 1:
            final = tuple(state[0, 0] for state in final)
        else:
            order = form.ragged.order
            final = tuple(state[0] for state in final)
            if order is not None:
                inverse = order.argsort().to(input.device)
                final = tuple(state.index_select(0, inverse) for state in final)
        return final[0] if len(final) == 1 else final

    def first_sweep(
        self,
        input: Tensor,
        hx: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        reset_state: Any = None,
    ) -> Sweep:
        """What this call asks of an engine (for :func:`unrolled.engines.explain`)."""
        form, states, after_cut = self._enter(input, hx, lengths, resets, reset_state)
        own = self._own_parameters()
        return make_sweep(self.spec, 0, form.ragged, form.values, states, own, after_cut)

    def extra_repr(self) -> str:
        """As torch.nn prints it."""
        shown = [f"{self.input_size}, {self.hidden_size}"]
        if self.bias is not True:
            shown.append(f"bias={self.bias}")
        if type(self) is RecurrentCell:
            shown.insert(0, repr(self.cell))
        return ", ".join(shown)

    def _own_parameters(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._names}

    def _enter(
        self, input: Any, hx: Any, lengths: Any, resets: Any, reset_state: Any
    ) -> tuple[layout.Form, layout.States, layout.States | None]:
        """A step is a sequence of length one: the same door, one dimension less."""
        who = type(self).__name__
        if not isinstance(input, Tensor):
            raise ArgumentTypeError(f"{who}: input must be a Tensor, got {type(input).__name__}")
        if input.dim() not in (1, 2):
            raise ValueError(f"{who}: input must be 1D or 2D, got {input.dim()}D")
        if input.dtype != self.weight_ih.dtype and not torch._C._is_any_autocast_enabled():
            raise RuntimeError(
                f"{who}: input has dtype {input.dtype}, the weights have {self.weight_ih.dtype}"
            )
        if resets is not None:
            resets = torch.as_tensor(resets)[None]
        sequence = input[None]
        form = layout.enter(self.spec, who, False, sequence, lengths, resets, self.weight_ih)
        states = self._enter_states("hx", hx, input, form)
        after_cut = self._enter_states("reset_state", reset_state, input, form)
        return form, states or layout.zero_states(self.spec, form), after_cut

    def _enter_states(
        self, argument: str, hx: Any, input: Tensor, form: layout.Form
    ) -> layout.States | None:
        who = type(self).__name__
        if hx is None:
            return None
        for state in hx if isinstance(hx, tuple | list) else (hx,):
            if isinstance(state, Tensor) and state.dim() not in (1, 2):
                raise ValueError(f"{who}: {argument} must be 1D or 2D, got {state.dim()}D")
        one = len(self.cell.states) == 1
        if one and isinstance(hx, Tensor):
            lifted: Any = hx[None]
        elif not one and isinstance(hx, tuple | list):
            lifted = tuple(s[None] if isinstance(s, Tensor) else s for s in hx)
        else:
            lifted = hx
        return layout.enter_states(self.spec, who, argument, lifted, form, self.weight_ih)


class RNNCell(RecurrentCell):
    """Equivalent to ``torch.nn.RNNCell``; ``nonlinearity`` may also be any function or module.

    Raises:
        RuntimeError: an unknown name of a nonlinearity (torch raises it at the first call).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str | Callable[[Any], Any] = "tanh",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        cell = cells.RNN(activation(nonlinearity, RuntimeError))
        super().__init__(cell, input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return (
            shown if self.nonlinearity == "tanh" else f"{shown}, nonlinearity={self.nonlinearity}"
        )


class LSTMCell(RecurrentCell):
    """Equivalent to ``torch.nn.LSTMCell``; ``hx`` is (h, c), and so is what it returns."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(cells.LSTM, input_size, hidden_size, bias, device, dtype)


class GRUCell(RecurrentCell):
    """Equivalent to ``torch.nn.GRUCell``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(cells.GRU, input_size, hidden_size, bias, device, dtype)
