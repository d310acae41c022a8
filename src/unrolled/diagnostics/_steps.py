"""Run a layer step by step, by the cell's own `step` in a Python loop, for the measurements.

Also finds the layers of a model and records their inputs. The measurements themselves are in the
other files of this package.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from unrolled._spec import LayerSweep
from unrolled.cells._bound import BoundCell
from unrolled.nn import Recurrent

States = tuple[Tensor, ...]
HiddenState = Tensor | States | None
"""The initial states as a layer takes them; None for zeros."""
SweepContext = Callable[[LayerSweep], AbstractContextManager[object]]


@dataclass(frozen=True)
class Steps:
    """One layer in one direction over T steps, in the order in which it reads them.

    `inputs` [T, N, I]; `states` has T + 1 entries, each with the cell's states [N, width]: the
    initial ones, then those after each step.
    """

    sweep: LayerSweep
    bound: BoundCell[Tensor]
    inputs: Tensor
    states: list[States]

    def advance(self, t: int, states: States) -> States:
        """The states after step t (counted from 0) from those before it."""
        bound = self.bound
        return bound.advance(bound.split_input(bound.project_input(self.inputs[t])), states)

    def history(self, state: str | None = None) -> Tensor:
        """One state after each step, [T, N, width], in the order of the input; None for the output.

        Raises:
            ValueError: the cell has no state of that name.
        """
        names = self.bound.states
        if state is not None and state not in names:
            raise ValueError(f"Steps: state must be one of {', '.join(names)}, got {state!r}")
        index = 0 if state is None else names.index(state)
        values = torch.stack([states[index] for states in self.states[1:]])
        return values.flip(0) if self.sweep.reverse else values


def check_layer(layer: object) -> None:
    """Check that an argument is a layer of this library.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(
            f"diagnostics: layer must be an unrolled.nn.Recurrent, got {type(layer).__name__}; "
            "convert torch.nn's layers with unrolled.nn.convert"
        )


def time_steps(layer: Recurrent, x: Tensor) -> int:
    """The number T of steps of a layer's input."""
    return x.shape[1] if layer.batch_first and x.dim() == 3 else x.shape[0]


@torch.no_grad()
def unroll(
    layer: Recurrent, x: Tensor, hx: HiddenState = None, context: SweepContext | None = None
) -> list[Steps]:
    """Run a layer step by step and record every state.

    The results equal those of `layer(x, hx)` in evaluation mode, up to rounding: there is no
    dropout. Input in half precision is converted to the dtype of the weights.

    Args:
        layer: the layers and directions to run.
        x: `[T, N, I]`, with `batch_first` `[N, T, I]`, unbatched `[T, I]`; of equal lengths.
        hx: the initial states as the layer takes them; zeros if None.
        context: makes a context manager for each layer and direction, within which its steps run.

    Returns:
        One `Steps` for each layer and direction, in the order of the layer's states.

    Raises:
        ValueError: the shape of `x` or `hx` does not fit.
    """
    check_layer(layer)
    spec = layer.spec
    values, states = _normalize(layer, x, hx)
    steps_of_sweeps: list[Steps] = []
    D = spec.num_directions
    for level in range(spec.num_layers):
        outputs = []
        for index in range(level * D, level * D + D):
            sweep = spec.sweeps[index]
            weights = dict(zip(spec.parameters(level), layer.all_weights[index], strict=True))
            bound = BoundCell(layer.cell, sweep.sizes, layer.cell.prepare(weights))
            inputs = values.flip(0) if sweep.reverse else values
            steps = Steps(sweep, bound, inputs, [tuple(state[index] for state in states)])
            with context(sweep) if context else nullcontext():
                for t in range(len(inputs)):
                    steps.states.append(steps.advance(t, steps.states[-1]))
            outputs.append(steps.history())
            steps_of_sweeps.append(steps)
        values = sum(outputs[1:], outputs[0]) if spec.merge == "sum" else torch.cat(outputs, -1)
    return steps_of_sweeps


def _normalize(layer: Recurrent, x: Tensor, hx: HiddenState) -> tuple[Tensor, States]:
    """The input as [T, N, I] and the initial states as a tuple, both in the weights' dtype."""
    spec = layer.spec
    if x.dim() not in (2, 3) or x.shape[-1] != spec.input_size or 0 in x.shape:
        shape = "[N, T, I]" if layer.batch_first else "[T, N, I]"
        raise ValueError(
            f"diagnostics: x must have shape {shape} or [T, I] with T, N > 0 and "
            f"I={spec.input_size}, got {list(x.shape)}"
        )
    unbatched = x.dim() == 2
    values = x.unsqueeze(1) if unbatched else x.transpose(0, 1) if layer.batch_first else x
    values = values.detach().to(layer.weight_ih_l0)
    N, count = values.shape[1], len(spec.sweeps)
    if hx is None:
        return values, tuple(values.new_zeros(count, N, width) for width in spec.state_widths)
    hidden = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    states = tuple(state.detach().to(values) for state in hidden)
    if unbatched:
        states = tuple(state.unsqueeze(1) for state in states)
    shapes = [[count, N, width] for width in spec.state_widths]
    if [list(state.shape) for state in states] != shapes:
        raise ValueError(
            f"diagnostics: hx must have the shapes {shapes} for {N} sequences, got "
            f"{[list(state.shape) for state in hidden]}"
        )
    return values, states


def layers_of(model: nn.Module) -> dict[str, Recurrent]:
    """The recurrent layers of a model, itself included, by their names; each once.

    Raises:
        ValueError: the model has none.
    """
    layers = {name: part for name, part in model.named_modules() if isinstance(part, Recurrent)}
    if not layers:
        raise ValueError(
            "diagnostics: model must contain an unrolled.nn.Recurrent, but "
            f"{type(model).__name__} has none; convert torch.nn's layers with unrolled.nn.convert"
        )
    return layers


@dataclass
class Call:
    """The input and initial states of the first call of a layer: up to `rows` sequences, of equal
    length.

    `x` is None if the layer was not called, or with empty sequences only. Resets are ignored.
    """

    rows: int
    x: Tensor | None = None
    hx: HiddenState = None

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """The forward pre-hook that records the call."""
        if self.x is not None:
            return
        assert isinstance(layer, Recurrent)
        sequences = args[0] if args else options["input"]
        hx: HiddenState = args[1] if len(args) > 1 else options.get("hx")
        lengths = options.get("lengths")
        if isinstance(sequences, PackedSequence):
            sequences, lengths = pad_packed_sequence(sequences, batch_first=layer.batch_first)
        if sequences.dim() == 2:
            self.x, self.hx = sequences.detach(), _detach(hx)
            return
        rows = torch.arange(sequences.shape[0 if layer.batch_first else 1])
        T = sequences.shape[1 if layer.batch_first else 0]
        if lengths is not None:
            lengths = torch.as_tensor(lengths).cpu()
            T = int(lengths.max())
            rows = (lengths == T).nonzero().flatten()
        if T == 0:
            return
        rows = rows[: self.rows].to(sequences.device)
        selected = sequences.detach().index_select(0 if layer.batch_first else 1, rows)
        self.x = selected[:, :T] if layer.batch_first else selected[:T]
        self.hx = _detach(hx, rows)


def _detach(hx: HiddenState, rows: Tensor | None = None) -> HiddenState:
    """The initial states without their history, for some of the rows or for all."""
    if hx is None:
        return None
    if isinstance(hx, Tensor):
        return hx.detach() if rows is None else hx.detach().index_select(1, rows)
    return tuple(s.detach() if rows is None else s.detach().index_select(1, rows) for s in hx)


@contextmanager
def record_calls(layers: dict[str, Recurrent], rows: int) -> Iterator[dict[str, Call]]:
    """Record the first call of each layer within the block: of the longest sequences, the first
    `rows`."""
    calls = {name: Call(rows) for name in layers}
    handles = [
        layer.register_forward_pre_hook(calls[name], with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
