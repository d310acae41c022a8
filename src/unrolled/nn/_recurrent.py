"""``Recurrent``, the layer that stacks any cell, in one or two directions."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from unrolled._spec import Spec
from unrolled.cells import Cell
from unrolled.engines._request import Sweep
from unrolled.nn._arguments import (
    as_bidirectional,
    as_cell,
    as_checkpoint,
    as_positive,
    as_probability,
    as_projection,
    check_flags,
    check_merge,
)
from unrolled.nn._base import (
    RecurrentBase,
    check_torch_step,
    leaf_of_trace,
    make_parameter,
    register_modules,
)
from unrolled.nn._torch_members import TorchMembers
from unrolled.nn.init import init_parameters
from unrolled.nn.types import Device, HiddenState, LayerCall, Lengths, Resets

if TYPE_CHECKING:
    from unrolled.runtime import Stream


class Recurrent(TorchMembers, RecurrentBase):
    r"""A stack of recurrent layers of any cell.

    Layer l at time t computes states_t = cell(x_t, states_{t-1}), where x_t is the input or, from
    the second layer on, the output of the layer below after dropout.

    Args:
        cell: a :class:`unrolled.cells.Cell` or its class.
        input_size, hidden_size: I and H.
        num_layers: L layers, each on the output of the layer below.
        bias: whether the products have biases.
        batch_first: inputs and outputs are [N, T, ·] instead of [T, N, ·]; states do not change.
        dropout: probability of dropping an element of the output of each layer except the last, in
            training.
        bidirectional: D = 2: a second set of parameters runs from the end to the beginning.
        proj_size: P > 0 multiplies the output state by a matrix [P, H].
        device, dtype: those of the parameters.
        merge: how each layer combines the outputs of its two directions: ``"concat"`` concatenates
            them, [·, D·P]; ``"sum"`` adds them, [·, P].
        checkpoint: training saves only the states between segments of this many steps (True: √T)
            and runs each segment again in backward. Memory, apart from inputs and outputs, then
            grows as √T, and training takes a third to a half more time (more if segments are short:
            each costs most of a millisecond). Results are the same. Not supported in graphs of
            torch.compile.

    Call with ``input`` [T, N, I], unbatched [T, I], or a ``PackedSequence``, and optionally

    - ``hx``: initial states, zeros by default. [L·D, N, width] each ([L·D, width] unbatched); a
      tuple if the cell has several, in the order of ``cell.states``.
    - ``lengths``: [N] integers, in any order, zero allowed. Outputs after the end of a sequence are
      zero, its final state is the state after its last step, and the reverse direction starts at
      that step. The final state of a sequence of length zero is its initial state. The values of
      the padding have no effect.
    - ``resets``: bool [T, N] ([N, T] with batch_first, [T] unbatched). True cuts sequence n between
      t-1 and t, in both directions: the step after the cut starts from ``reset_state``, which
      replaces ``hx`` if t = 0. The reverse direction's final state is the state after step 0,
      whether or not there is a reset at 0.
    - ``reset_state``: as ``hx``, or [L·D, 1, width] for all sequences; zeros by default.

    Returns output in the form of the input, width D·P (P with ``merge="sum"``), and the final
    states in the form of ``hx``.

    Parameters are named as in torch.nn, ``weight_ih_l0`` … ``bias_hh_l1_reverse``, and further
    parameters of a cell as the cell names them. They are initialised from U(-1/√H, 1/√H), unless
    the cell specifies another initialisation.

    Raises:
        ValueError: the number of dimensions or the dtype of the input is wrong, or a value is.
        RuntimeError: a size, a device or the dtype of a state is wrong.
        TypeError: an argument has the wrong type.
        CellError: the declaration of the cell is inconsistent.
    """

    __call__: LayerCall[HiddenState]
    mode: str | None = None
    weight_ih_l0: Tensor
    _size_attributes = ("input_size", "hidden_size", "num_layers", "proj_size")
    _spec_attributes = frozenset(("cell", *_size_attributes, "bias", "bidirectional", "merge"))

    def __init__(
        self,
        cell: Cell | type[Cell],
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
        super().__init__()
        owner = type(self).__name__
        self.input_size = as_positive(owner, "input_size", input_size)
        self.hidden_size = as_positive(owner, "hidden_size", hidden_size)
        self.num_layers = as_positive(owner, "num_layers", num_layers)
        self.proj_size = as_projection(owner, proj_size, self.hidden_size)
        check_flags(owner, bias=bias, batch_first=batch_first)
        check_merge(owner, merge)
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = as_probability(owner, dropout, self.num_layers)
        self.bidirectional = as_bidirectional(owner, bidirectional)
        self.merge = merge
        self.checkpoint = as_checkpoint(owner, checkpoint)
        self.cell = as_cell(cell)
        self._update_spec()
        for names, sweep in zip(self._names, self.spec.sweeps, strict=True):
            shapes = self.spec.parameters(sweep.layer)
            for name, full in names.items():
                setattr(self, full, make_parameter(full, shapes[name].shape, device, dtype))
        register_modules(self, self.cell)
        self.reset_parameters()
        for layer in range(min(2, self.num_layers)):  # all others have the sizes of the second
            parameters = self._parameters_of(layer * self.spec.num_directions)
            check_torch_step(self.cell, self.spec, parameters, layer)
        self._make_runner()

    def _make_spec(self) -> Spec:
        return Spec(
            self.cell,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bias,
            bool(self.bidirectional),
            self.proj_size,
            self.merge,
        )

    def _checked(self, name: str, value: object) -> object:
        owner = type(self).__name__
        if name in ("bias", "batch_first"):
            check_flags(owner, **{name: value})
        elif name == "merge":
            check_merge(owner, value)
        elif name == "checkpoint":
            return as_checkpoint(owner, value)
        elif name == "bidirectional":
            return as_bidirectional(owner, value)
        elif name == "dropout":
            return as_probability(owner, value, num_layers=2)  # no warning: it may be set first
        elif name == "proj_size":
            return as_projection(owner, value, self.hidden_size)
        elif name in ("input_size", "hidden_size", "num_layers"):
            return as_positive(owner, name, value)
        return super()._checked(name, value)

    def _update_spec(self) -> None:
        super()._update_spec()
        self._names = [
            {name: name + sweep.suffix for name in self.spec.parameters(sweep.layer)}
            for sweep in self.spec.sweeps
        ]

    def reset_parameters(self) -> None:
        """Initialise all weights and biases, in the order of the parameters."""
        for sweep in self.spec.sweeps:
            init_parameters(self, self.spec, sweep.layer, sweep.suffix)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: HiddenState | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Resets | None = None,
        reset_state: HiddenState | None = None,
    ) -> tuple[Tensor | PackedSequence, HiddenState]:
        """Run over a batch; see the docstring of the class."""
        is_plain = lengths is None and resets is None and reset_state is None
        is_plain = is_plain and not torch.compiler.is_compiling()
        is_plain = is_plain and not (self.checkpoint and torch.is_grad_enabled())
        if is_plain and not (self.training and self.dropout):
            fast_path = self._runner.fast_path or self._runner.make_fast_path()
            result = fast_path(input, hx, self._parameters, self.batch_first)
            if result is not None:
                return result
        options = {"lengths": lengths, "resets": resets, "reset_state": reset_state}
        leaf: tuple[Tensor, HiddenState] | None = leaf_of_trace(self, input, hx, **options)
        if leaf is not None:
            return leaf
        parameters = self._read_parameters()
        forms = (self.batch_first, self.checkpoint)
        layout, call = self._normalize(parameters, input, hx, lengths, resets, reset_state, *forms)
        dropout = self.dropout if self.training else 0.0
        outputs, final = self._run(call, parameters, dropout, self.checkpoint)
        return layout.restore(call.input, outputs), layout.restore_states(call.input, final)

    def first_sweep(
        self,
        input: Tensor | PackedSequence,
        hx: HiddenState | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Resets | None = None,
        reset_state: HiddenState | None = None,
    ) -> Sweep:
        """The first sweep of a call, for :func:`unrolled.engines.explain`."""
        parameters = self._read_parameters()
        forms = (self.batch_first, self.checkpoint)
        _, call = self._normalize(parameters, input, hx, lengths, resets, reset_state, *forms)
        return self._first_sweep(call, parameters)

    def stream(self, batch: int = 1, weights: str = "float32", threads: int = 1) -> "Stream":
        """A stream of ``batch`` sequences, which runs one step at a time on a copy of the weights.

        ``stream.step(x, out=None)`` maps NumPy arrays [N, I] to [N, H] within microseconds; see
        :class:`unrolled.runtime.Stream`. Later changes of the layer's parameters have no effect on
        the stream.

        Args:
            batch: number of sequences.
            weights: format of the copy: "float32", "bfloat16" or "int8".
            threads: number of threads for a step; short steps use one.

        Raises:
            TypeError: batch or threads is not an integer.
            ValueError: batch or threads is below 1; the layer is bidirectional, is not in float32,
                or has no program.
        """
        from unrolled.nn._snapshot import describe_layer
        from unrolled.runtime import Model
        from unrolled.runtime._schema import ChainModel

        model = ChainModel((describe_layer(self, type(self).__name__),))
        return Model(model, weights).stream(batch, threads)

    def extra_repr(self) -> str:
        """The arguments as torch.nn prints them, followed by those that torch.nn does not have."""
        arguments = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "merge": "concat",
            "checkpoint": False,
        }
        for name, default in defaults.items():
            if (value := getattr(self, name)) != default:
                arguments.append(f"{name}={value}")
        if self.mode is None:
            arguments.insert(0, repr(self.cell))
        return ", ".join(arguments)

    def _full_name(self, index: int, name: str) -> str:
        return self._names[index][name]

    def _parameters_of(self, index: int) -> dict[str, Tensor]:
        return {name: getattr(self, full) for name, full in self._names[index].items()}

    def _read_parameters(self) -> list[dict[str, Tensor]]:
        """The parameters of each sweep. A parametrized weight is computed at each access, so they
        are read once per call."""
        return [self._parameters_of(index) for index in range(len(self._names))]
