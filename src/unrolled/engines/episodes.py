"""From a ragged sweep to a packed one: tokens step by step, longest sequence first.

Direction, order, padding and resets all become an index here, so an engine that can run a packed
batch forward can run everything. A reset starts a new *episode*, and an episode is a sequence of
its own: what lies before a cut cannot touch what lies after it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.engines.ragged import Ragged
from unrolled.engines.request import Run, States, Sweep
from unrolled.engines.reset_guard import selecting


def run_packed(sweep: Sweep, run: Run) -> tuple[Tensor, States]:
    """Run a sweep by a function for packed batches."""
    if sweep.ragged.dense:
        return _run_dense(sweep, run)
    plan = find_plan(sweep.ragged, sweep.reverse)
    if sweep.ragged.resets is not None and not sweep.transformed:
        run = selecting(run, plan.episode)
    return _run_plan(plan, sweep, run)


def _run_dense(sweep: Sweep, run: Run) -> tuple[Tensor, States]:
    T, N = sweep.ragged.T, sweep.ragged.N
    batch_major = sweep.ragged.major == "batch"
    tokens = sweep.values
    if batch_major:
        tokens = tokens.unflatten(0, (N, T)).transpose(0, 1).flatten(0, 1)
    if sweep.reverse:
        tokens = tokens.unflatten(0, (T, N)).flip(0).flatten(0, 1)
    outputs, final = run(sweep.cell, tokens, [N] * T, sweep.states, sweep.parameters)
    if sweep.reverse:
        outputs = outputs.unflatten(0, (T, N)).flip(0).flatten(0, 1)
    if batch_major:
        outputs = outputs.unflatten(0, (T, N)).transpose(0, 1).flatten(0, 1)
    return outputs, final


@dataclass(frozen=True)
class Episodes:
    """Uncut stretches of sequences, longest first; E of them."""

    n: Tensor  # [E] the sequence
    start: Tensor  # [E] its first t
    length: Tensor  # [E]


@dataclass(frozen=True)
class Plan:
    """Indices that gather tokens, starts and ends of episodes; all on the CPU."""

    batch_sizes: list[int]
    row: Tensor  # [total] row of each token, step by step
    episode: Tensor  # [total] episode of each token
    initial: Tensor  # [E] into [states, reset states]: what the episode starts from
    final: Tensor  # [N] into [ends of episodes, states]: what the sequence ends in


def find_plan(ragged: Ragged, reverse: bool) -> Plan:
    """The plan of a ragged batch, made once for all layers."""
    if reverse not in ragged.plans:
        ragged.plans[reverse] = make_plan(ragged, reverse)
    plan: Plan = ragged.plans[reverse]
    return plan


def make_plan(ragged: Ragged, reverse: bool) -> Plan:
    """Find the episodes of a ragged batch and the order in which to run them."""
    T, N = ragged.T, ragged.N
    lengths = torch.full((N,), T, device="cpu") if ragged.lengths is None else ragged.lengths
    begins = torch.zeros(N, T, dtype=torch.bool, device="cpu")
    if ragged.resets is not None:
        begins |= ragged.resets.t().cpu()
    begins[:, 0] = True
    begins &= torch.arange(T, device="cpu") < lengths[:, None]
    n, start = begins.nonzero(as_tuple=True)
    stop = torch.cat([start[1:], start.new_zeros(1)])[: len(start)]
    last = torch.cat([n[1:] != n[:-1], torch.ones(1, dtype=torch.bool, device="cpu")])[: len(n)]
    length = torch.where(last, lengths[n], stop) - start
    order = length.argsort(descending=True, stable=True)
    return _plan(ragged, reverse, Episodes(n[order], start[order], length[order]))


def _plan(ragged: Ragged, reverse: bool, episodes: Episodes) -> Plan:
    N, E = ragged.N, len(episodes.n)
    lengths = torch.full((N,), ragged.T, device="cpu") if ragged.lengths is None else ragged.lengths
    steps = torch.arange(int(episodes.length.max()) if E else 0, device="cpu")
    active = steps[:, None] < episodes.length
    step, episode = active.nonzero(as_tuple=True)
    start, length, n = episodes.start, episodes.length, episodes.n
    t = start[episode] + (length[episode] - 1 - step if reverse else step)
    off_t, off_n = ragged.offsets()
    head, tail = start == 0, start + length == lengths[n]
    opens, closes = (tail, head) if reverse else (head, tail)
    if ragged.resets is not None and not reverse:
        opens = opens & ~ragged.resets[0].cpu()[n]
    final = torch.arange(N, device="cpu") + E
    final[n[closes]] = torch.arange(E, device="cpu")[closes]
    return Plan(
        batch_sizes=active.sum(1).tolist() or [0],  # no token at all: one step of an empty batch
        row=off_t[t] + off_n[n[episode]],
        episode=episode,
        initial=torch.where(opens, n, n + N),
        final=final,
    )


def _run_plan(plan: Plan, sweep: Sweep, run: Run) -> tuple[Tensor, States]:
    device = sweep.values.device
    row, initial, final = (index.to(device) for index in (plan.row, plan.initial, plan.final))
    after_cut = sweep.reset_states or tuple(torch.zeros_like(s) for s in sweep.states)
    starts = tuple(
        torch.cat([state, reset]).index_select(0, initial)
        for state, reset in zip(sweep.states, after_cut, strict=True)
    )
    tokens = sweep.values.index_select(0, row)
    outputs, ends = run(sweep.cell, tokens, plan.batch_sizes, starts, sweep.parameters)
    padded = outputs.new_zeros(sweep.ragged.rows, outputs.shape[1]).index_copy(0, row, outputs)
    states = tuple(
        torch.cat([end, state]).index_select(0, final)
        for end, state in zip(ends, sweep.states, strict=True)
    )
    return padded, states
