"""Runs any sweep as a packed batch: tokens step by step, longest sequence first.

Direction, order, padding and resets become an index of rows, so that an engine only has to run
packed batches in the forward direction.
"""

import torch
from torch import Tensor

from unrolled.engines._episodes import Episodes
from unrolled.engines._precision import States
from unrolled.engines._request import Sweep
from unrolled.engines._reset_guard import PackedRun, guard_resets


def run_packed(sweep: Sweep, run: PackedRun) -> tuple[Tensor, States]:
    """Run a sweep by a function for packed batches."""
    if sweep.batch.is_dense:
        return _run_dense(sweep, run)
    episodes = sweep.batch.episodes(sweep.reverse)
    if sweep.batch.resets is not None and not sweep.is_transformed:
        run = guard_resets(run, torch.from_numpy(episodes.rows.sequence_of_each()))
    return _run_episodes(sweep, run, episodes)


def _run_dense(sweep: Sweep, run: PackedRun) -> tuple[Tensor, States]:
    T, N = sweep.batch.T, sweep.batch.N
    is_batch_major = sweep.batch.layout.major == "batch"
    tokens = sweep.tokens if sweep.tokens.dim() == 3 else sweep.tokens.unflatten(0, (T, N))
    if is_batch_major:
        tokens = tokens.transpose(0, 1)
    if sweep.reverse:
        tokens = tokens.flip(0)
    outputs, final = run(sweep.cell, tokens.flatten(0, 1), [N] * T, sweep.states, sweep.parameters)
    outputs = outputs.unflatten(0, (T, N))
    if sweep.reverse:
        outputs = outputs.flip(0)
    if is_batch_major:
        outputs = outputs.transpose(0, 1).contiguous()
    return outputs if sweep.tokens.dim() == 3 else outputs.flatten(0, 1), final


def _run_episodes(sweep: Sweep, run: PackedRun, episodes: Episodes) -> tuple[Tensor, States]:
    row, initial, final = (
        torch.from_numpy(index).to(sweep.tokens.device)
        for index in (episodes.rows.row_of_each(), episodes.initial, episodes.final)
    )
    starts = tuple(
        torch.cat([state, reset_state]).index_select(0, initial)
        for state, reset_state in zip(sweep.states, sweep.reset_states_or_zeros(), strict=True)
    )
    rows = sweep.tokens.flatten(0, -2)
    tokens = rows.index_select(0, row)
    outputs, ends = run(sweep.cell, tokens, episodes.rows.batch_sizes, starts, sweep.parameters)
    padded = outputs.new_zeros(len(rows), outputs.shape[1]).index_copy(0, row, outputs)
    final_states = tuple(
        torch.cat([end, state]).index_select(0, final)
        for end, state in zip(ends, sweep.states, strict=True)
    )
    return padded.view(*sweep.tokens.shape[:-1], padded.shape[1]), final_states
