"""A layer step by step: what the measurements look at, found by the cell's own `step` in a loop.

Also where in a model the layers are and what they are given. What is measured is left to the files
beside this one; speed is left to the engines.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from unrolled.cells.bound import BoundCell
from unrolled.nn import Recurrent
from unrolled.spec import LayerSweep

__all__ = ["Call", "Steps", "layers_of", "listening", "unroll"]

States = tuple[Tensor, ...]
Around = Callable[[LayerSweep], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Steps:
    """One layer in one direction over T steps, in the order in which it reads them.

    `inputs` [T, N, I]; `states` holds T + 1 times the cell's states [N, width]: those before the
    first step, then those after each.
    """

    place: LayerSweep
    bound: BoundCell
    inputs: Tensor
    states: list[States]

    def advance(self, t: int, before: States) -> States:
        """The states after step t (counted from 0) from those before it."""
        bound = self.bound
        return bound.advance(bound.split_input(bound.project_input(self.inputs[t])), before)

    def history(self, state: str | None = None) -> Tensor:
        """One state after each step, [T, N, width], in the order of the input; None: the output.

        Raises:
            ValueError: the cell has no state of that name.
        """
        names = self.bound.states
        if state is not None and state not in names:
            raise ValueError(f"state: wanted one of {', '.join(names)}, got {state!r}")
        index = 0 if state is None else names.index(state)
        values = torch.stack([states[index] for states in self.states[1:]])
        return values.flip(0) if self.place.reverse else values


def check_layer(layer: Any) -> None:
    """A layer of ours is wanted.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(
            f"layer must be an unrolled.nn.Recurrent, got {type(layer).__name__}; torch.nn's own "
            "layers become ours by unrolled.nn.convert"
        )


@torch.no_grad()
def unroll(
    layer: Recurrent, x: Tensor, hx: Any = None, around: Around | None = None
) -> list[Steps]:
    """Run a layer step by step and keep every state.

    The same numbers as `layer(x, hx)` in evaluation mode gives, to rounding: between the layers of
    a stack nothing is dropped. Half precision is computed in the dtype of the weights.

    Args:
        x: `[T, N, I]`, with `batch_first` `[N, T, I]`, unbatched `[T, I]`; of equal lengths.
        hx: as the layer takes it; zeros if None.
        around: a context for each layer and direction, within which its steps run.

    Returns:
        One `Steps` for each layer and direction, in the order of the layer's states.

    Raises:
        ValueError: the shape of `x` or `hx` does not fit.
    """
    check_layer(layer)
    spec = layer.spec
    values, states = _enter(layer, x, hx)
    found: list[Steps] = []
    D = spec.num_directions
    for level in range(spec.num_layers):
        outputs = []
        for index in range(level * D, level * D + D):
            place = spec.sweeps[index]
            own = dict(zip(spec.parameters(level), layer.all_weights[index], strict=True))
            bound = BoundCell(layer.cell, place.sizes, layer.cell.prepare(own))
            inputs = values.flip(0) if place.reverse else values
            steps = Steps(place, bound, inputs, [tuple(state[index] for state in states)])
            with around(place) if around else nullcontext():
                for t in range(len(inputs)):
                    steps.states.append(steps.advance(t, steps.states[-1]))
            outputs.append(steps.history())
            found.append(steps)
        values = sum(outputs[1:], outputs[0]) if spec.merge == "sum" else torch.cat(outputs, -1)
    return found


def _enter(layer: Recurrent, x: Tensor, hx: Any) -> tuple[Tensor, States]:
    spec = layer.spec
    if x.dim() not in (2, 3) or x.shape[-1] != spec.input_size or 0 in x.shape:
        wanted = "[N, T, I]" if layer.batch_first else "[T, N, I]"
        raise ValueError(
            f"x: wanted {wanted} or [T, I] with T, N > 0 and I={spec.input_size}, got shape "
            f"{list(x.shape)}"
        )
    alone = x.dim() == 2
    values = x.unsqueeze(1) if alone else x.transpose(0, 1) if layer.batch_first else x
    values = values.detach().to(layer.weight_ih_l0)
    N, count = values.shape[1], len(spec.sweeps)
    if hx is None:
        return values, tuple(values.new_zeros(count, N, width) for width in spec.state_widths)
    given = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    states = tuple(state.detach().to(values) for state in given)
    if alone:
        states = tuple(state.unsqueeze(1) for state in states)
    wanted_shapes = [[count, N, width] for width in spec.state_widths]
    if [list(state.shape) for state in states] != wanted_shapes:
        raise ValueError(
            f"hx: wanted {len(wanted_shapes)} of shapes {wanted_shapes} for {N} sequences, got "
            f"{[list(state.shape) for state in given]}"
        )
    return values, states


def layers_of(model: nn.Module) -> dict[str, Recurrent]:
    """The recurrent layers in a module, itself included, by their names; each once.

    Raises:
        ValueError: there is none.
    """
    found = {name: part for name, part in model.named_modules() if isinstance(part, Recurrent)}
    if not found:
        raise ValueError(
            f"model: wanted a module that holds an unrolled.nn.Recurrent, {type(model).__name__} "
            "has none; torch's own layers become ours by unrolled.nn.convert"
        )
    return found


@dataclass
class Call:
    """What a layer was first called with while it was listened to: some rows of equal length.

    Empty (`x` None) if it was not called, or with empty sequences alone. Resets are not kept: the
    rows are read as uncut.
    """

    rows: int
    x: Tensor | None = None
    hx: Any = field(default=None)

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self.x is not None:
            return
        assert isinstance(layer, Recurrent)
        given = args[0] if args else options["input"]
        hx = args[1] if len(args) > 1 else options.get("hx")
        lengths = options.get("lengths")
        if isinstance(given, PackedSequence):
            given, lengths = pad_packed_sequence(given, batch_first=layer.batch_first)
        if given.dim() == 2:
            self.x, self.hx = given.detach(), _detached(hx)
            return
        rows = torch.arange(given.shape[0 if layer.batch_first else 1])
        T = given.shape[1 if layer.batch_first else 0]
        if lengths is not None:
            lengths = torch.as_tensor(lengths).cpu()
            T = int(lengths.max())
            rows = (lengths == T).nonzero().flatten()
        if T == 0:
            return
        rows = rows[: self.rows].to(given.device)
        picked = given.detach().index_select(0 if layer.batch_first else 1, rows)
        self.x = picked[:, :T] if layer.batch_first else picked[:T]
        self.hx = _detached(hx, rows)


def _detached(hx: Any, rows: Tensor | None = None) -> Any:
    if hx is None:
        return None
    if not isinstance(hx, Tensor):
        return tuple(_detached(state, rows) for state in hx)
    return hx.detach() if rows is None else hx.detach().index_select(1, rows)


@contextmanager
def listening(layers: dict[str, Recurrent], rows: int) -> Iterator[dict[str, Call]]:
    """Within the block, keep what each layer is first called with: at most so many rows, the first
    of those that are longest."""
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
