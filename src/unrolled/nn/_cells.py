"""Single steps as modules: the cells of ``torch.nn``, and ``RecurrentCell`` for any cell."""

import torch
from torch import Tensor

from unrolled import cells
from unrolled._spec import Spec
from unrolled.cells._values import Activation
from unrolled.engines._request import Sweep
from unrolled.nn._arguments import as_cell, as_size
from unrolled.nn._base import (
    RecurrentBase,
    check_torch_step,
    leaf_of_trace,
    make_parameter,
    register_modules,
)
from unrolled.nn._elman import Elman
from unrolled.nn.init import init_parameters
from unrolled.nn.types import Device, HiddenState, Lengths, Resets, StepCall


class RecurrentCell(RecurrentBase):
    """One step of any cell, for custom loops.

    Call with ``input`` [N, I] or [I] and ``hx`` (zeros by default) [N, width] or [width], a tuple
    if the cell has several states; returns the new states in the form of ``hx``. ``lengths`` [N] of
    zeros and ones: states of sequences with 0 do not change. ``resets`` [N] bool: states of
    sequences with True are replaced by ``reset_state`` (zeros by default) before the step.

    Parameters are named as in :class:`unrolled.nn.Recurrent`, without the number of the layer:
    ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``, and further ones of the cell.

    Raises:
        ValueError: the number of dimensions or a value is wrong.
        RuntimeError: a size, dtype or device is wrong.
        TypeError: an argument has the wrong type.
        CellError: the declaration of the cell is inconsistent.
    """

    __call__: StepCall[HiddenState]
    weight_ih: Tensor
    input_size: int
    hidden_size: int
    _is_step = True
    _spec_attributes = frozenset(("cell", "input_size", "hidden_size", "bias"))

    def __init__(
        self,
        cell: cells.Cell | type[cells.Cell],
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size = self._as_size("input_size", input_size)
        self.hidden_size = self._as_size("hidden_size", hidden_size)
        self.bias = bias
        self.cell = as_cell(cell)
        self._update_spec()
        shapes = self.spec.parameters(0)
        for name, parameter in shapes.items():
            if hasattr(self, name):
                raise cells.CellError(
                    f"cell {type(self.cell).__name__}: a parameter cannot be called {name!r}, a "
                    "name of the module"
                )
            self.register_parameter(name, make_parameter(name, parameter.shape, device, dtype))
        for name in ("bias_ih", "bias_hh"):
            if not hasattr(self, name):
                self.register_parameter(name, None)
        register_modules(self, self.cell)
        self.reset_parameters()
        check_torch_step(self.cell, self.spec, self._read_parameters())
        self._make_runner()

    def _make_spec(self) -> Spec:
        return Spec(self.cell, self.input_size, self.hidden_size, bias=bool(self.bias))

    def _checked(self, name: str, value: object) -> object:
        if name in ("input_size", "hidden_size"):
            return self._as_size(name, value)
        return super()._checked(name, value)

    def _as_size(self, name: str, value: object) -> int:
        size = as_size(type(self).__name__, name, value)
        if size < 0:
            raise RuntimeError(f"{type(self).__name__}: {name} must not be negative, got {size}")
        return size

    def _update_spec(self) -> None:
        super()._update_spec()
        self._names = list(self.spec.parameters(0))

    def reset_parameters(self) -> None:
        """Initialise all weights and biases, in the order of the parameters."""
        init_parameters(self, self.spec, 0, "")

    def forward(
        self,
        input: Tensor,
        hx: HiddenState | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Resets | None = None,
        reset_state: HiddenState | None = None,
    ) -> HiddenState:
        """Run one step; see the docstring of the class."""
        plain = lengths is None and resets is None and reset_state is None
        if plain and not torch.compiler.is_compiling():
            fast_path = self._runner.fast_path or self._runner.make_fast_path()
            result = fast_path(input, hx, self._parameters, False)
            if result is not None:
                return result[1]
        options = {"lengths": lengths, "resets": resets, "reset_state": reset_state}
        leaf: HiddenState | None = leaf_of_trace(self, input, hx, **options)
        if leaf is not None:
            return leaf
        parameters = [self._read_parameters()]  # read once: parametrized weights are computed
        layout, call = self._normalize(parameters, input, hx, lengths, resets, reset_state)
        _, final = self._run(call, parameters)
        return layout.restore_states(call.input, final)

    def first_sweep(
        self,
        input: Tensor,
        hx: HiddenState | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Resets | None = None,
        reset_state: HiddenState | None = None,
    ) -> Sweep:
        """The sweep of a call, for :func:`unrolled.engines.explain`."""
        parameters = [self._read_parameters()]
        _, call = self._normalize(parameters, input, hx, lengths, resets, reset_state)
        return self._first_sweep(call, parameters)

    def extra_repr(self) -> str:
        """The arguments as torch.nn prints them."""
        arguments = [f"{self.input_size}, {self.hidden_size}"]
        if self.bias is not True:
            arguments.append(f"bias={self.bias}")
        if type(self) is RecurrentCell:
            arguments.insert(0, repr(self.cell))
        return ", ".join(arguments)

    def _full_name(self, index: int, name: str) -> str:
        return name

    def _read_parameters(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._names}


class RNNCell(Elman, RecurrentCell):
    """Equivalent to ``torch.nn.RNNCell``; ``nonlinearity`` may also be any function or module.

    Raises:
        RuntimeError: an unknown name of a nonlinearity (torch raises it at the first call).
    """

    __call__: StepCall[Tensor]
    _unknown_nonlinearity = RuntimeError

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str | Activation = "tanh",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        cell = self._cell_of(nonlinearity)
        super().__init__(cell, input_size, hidden_size, bias, device, dtype)
        self._nonlinearity_name = nonlinearity if isinstance(nonlinearity, str) else None

    def extra_repr(self) -> str:
        arguments = super().extra_repr()
        if self.nonlinearity == "tanh":
            return arguments
        return f"{arguments}, nonlinearity={self.nonlinearity}"


class LSTMCell(RecurrentCell):
    """Equivalent to ``torch.nn.LSTMCell``; ``hx`` and the result are (h, c)."""

    __call__: StepCall[tuple[Tensor, Tensor]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(cells.LSTM, input_size, hidden_size, bias, device, dtype)


class GRUCell(RecurrentCell):
    """Equivalent to ``torch.nn.GRUCell``."""

    __call__: StepCall[Tensor]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(cells.GRU, input_size, hidden_size, bias, device, dtype)
