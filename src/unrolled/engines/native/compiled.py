"""A stack as calls of the operator: what torch.compile, torch.export and torch.jit.trace make a
graph of, and what modes that watch each operator (counters of FLOPs, fake tensors) see.

Nothing here depends on the values of a tensor, so that no graph breaks or changes with them: to
check and to sort lengths and resets is the operator's work. All that is not a tensor is constant
and found beforehand, in ``Graph``.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensor

from unrolled.cells import Cell
from unrolled.cells.declaration import parameter_names
from unrolled.engines.native import flops  # noqa: F401  registers the operator, too
from unrolled.engines.native.programs import (
    letters,
    prepared_in_torch,
    recorded,
    refusal,
    split_products,
    undivided,
    whole_weight,
)
from unrolled.engines.precision import autocast_dtype, lower
from unrolled.engines.ragged import Ragged
from unrolled.engines.records import is_allowed, record_run
from unrolled.engines.request import HALF, States, check_dtypes, merged, tracing, transformed
from unrolled.spec import Spec


@dataclass(frozen=True)
class Site:
    """One sweep: its program, and the names of the parameters in the program's order."""

    text: str
    sizes: tuple[int, ...]  # see core.letters
    reverse: bool
    matrices: tuple[str, ...]
    vectors: tuple[tuple[str, int], ...]  # with their sizes
    blocks: tuple[tuple[str, int, int], ...]  # weights in blocks: name, parts, blocks
    prepared: bool  # whether torch makes parameters of the program from the cell's


@dataclass(frozen=True)
class Graph:
    """A stack as constants; ``why`` there is none, or None."""

    sites: tuple[Site, ...]
    directions: int
    merge: str
    version: int  # of the cell's settings
    why: str | None

    def refusal(self, cell: Cell, values: Tensor) -> str | None:
        """None, or why the operator cannot run the cell, as it is now, on these values."""
        if values.device.type != "cpu":
            return "it runs on the CPU"
        if values.dtype not in (torch.float32, torch.float64, *HALF):
            return f"it has no arithmetic for {values.dtype}"
        if cell.version != self.version:
            return "a setting of the cell was changed after the layer was made"
        return self.why

    def records(self, cell: Cell, values: Any) -> bool:
        """Whether this call is to be operators, for values of lengths and resets are not known
        where torch.compile or a trace makes a graph, or where tensors are fake."""
        if torch.compiler.is_compiling():
            return True
        watched = tracing() or torch._C._len_torch_dispatch_stack() > 0
        if not watched or transformed() or not is_allowed("native"):
            return False
        plain = type(values) in (Tensor, torch.nn.Parameter, FakeTensor)
        return plain and self.refusal(cell, values) is None


def make_graph(spec: Spec) -> Graph:
    """What a graph has to know of a stack."""
    sites = []
    why = None
    for place in spec.sweeps:
        cell, sizes = undivided(spec.cell, place.sizes), place.sizes
        found = recorded(cell, sizes.projected)
        why = why or refusal(cell, sizes)
        matrices = tuple(name for key in found.products for name in parameter_names(key))
        vectors = tuple((name, sizes.resolve(v.size)) for name, v in cell.vectors.items())
        blocks = split_products(spec.cell, sizes)
        made = prepared_in_torch(spec.cell, sizes)
        text, own = found.text, letters(found.text, sizes)
        sites.append(Site(text, own, place.reverse, matrices, vectors, blocks, made))
    return Graph(tuple(sites), spec.num_directions, spec.merge, spec.cell.version, why)


def run_graph(
    graph: Graph,
    cell: Cell,
    ragged: Ragged,
    values: Tensor,
    states: States,
    parameters: list[dict[str, Tensor]],
    reset_states: States | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, States]:
    """As ``run_stack`` on values [T, N, I] or [N, T, I], in the user's order: ``ragged`` has the
    lengths and resets that the user gave."""
    by_row = ragged.major == "batch"
    D = graph.directions
    final: list[list[Tensor]] = []
    for layer in range(len(graph.sites) // D):
        if layer > 0 and dropout > 0:
            values = _dropout(values, by_row, dropout)
        outputs = []
        for index in range(layer * D, layer * D + D):
            starts = [state[index] for state in states]
            after = [] if reset_states is None else [state[index] for state in reset_states]
            own = parameters[index]
            output, ends = _sweep(graph.sites[index], cell, ragged, values, starts, after, own)
            outputs.append(output)
            final.append(ends)
        values = merged(outputs, graph.merge)
    return values, tuple(torch.stack(parts) for parts in zip(*final, strict=True))


def run_packed_graph(
    graph: Graph,
    cell: Cell,
    ragged: Ragged,
    values: Tensor,
    batch_sizes: Tensor,
    *arguments: Any,
) -> tuple[Tensor, States]:
    """As ``run_graph`` on packed values [rows, I]: padded for the operator, which reads lengths as
    a tensor, so that a trace is not bound to those of its example."""
    padded, lengths = torch._VF._pad_packed_sequence(values, batch_sizes, False, 0.0, -1)
    time_major = replace(ragged, major="time", lengths=lengths, order=None)
    output, final = run_graph(graph, cell, time_major, padded, *arguments)
    packed, _ = torch._VF._pack_padded_sequence(output, lengths, False)
    return packed, final


def _sweep(
    site: Site,
    cell: Cell,
    ragged: Ragged,
    values: Tensor,
    states: list[Tensor],
    reset_states: list[Tensor],
    parameters: dict[str, Tensor],
) -> tuple[Tensor, list[Tensor]]:
    asked = autocast_dtype(values)
    values = lower(values, asked)
    states = [lower(state, asked) for state in states]
    reset_states = [lower(state, asked) for state in reset_states]
    parameters = {name: lower(p, asked) for name, p in parameters.items()}
    check_dtypes(values, (*states, *reset_states), parameters)
    dtype = values.dtype
    inside = torch.float32 if site.prepared and dtype in HALF else dtype  # torch's work unrounded
    prepared = cell.prepare({name: p.to(inside) for name, p in parameters.items()})
    for name, parts, blocks in site.blocks:
        prepared = {**prepared, name: whole_weight(prepared[name], parts, blocks)}
    none = values.new_empty(0, dtype=inside)
    arguments: list[Any] = [
        values.to(inside),
        [state.to(inside) for state in states],
        [state.to(inside) for state in reset_states],
        [prepared.get(name, none) for name in site.matrices],
        [
            prepared[name] if name in prepared else none.new_zeros(size)
            for name, size in site.vectors
        ],
    ]
    record_run("native")
    output, ends, _ = torch.ops.unrolled.sweep(
        *arguments,
        site.text,
        list(site.sizes),
        ragged.major == "batch",
        site.reverse,
        ragged.lengths,
        _as_given(ragged),
        [],
        1,
        0,
        -1,
        torch.is_grad_enabled() or tracing(),  # a trace is checked without gradients
    )
    return output.to(dtype), [end.to(dtype) for end in ends]


def _as_given(ragged: Ragged) -> Tensor | None:
    """Resets in the order of the values' first two dimensions."""
    if ragged.resets is None or ragged.major != "batch":
        return ragged.resets
    return ragged.resets.t()


def _dropout(values: Tensor, by_row: bool, p: float) -> Tensor:
    """Elements are drawn time-major, as torch does."""
    if not by_row:
        return F.dropout(values, p)
    return F.dropout(values.transpose(0, 1).contiguous(), p).transpose(0, 1)
