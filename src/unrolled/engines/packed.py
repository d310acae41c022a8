"""From a ragged sweep to a packed one: tokens step by step, longest sequence first.

Direction, order, padding and resets all become an index here, so an engine that can run a packed
batch forward can run everything. A reset starts a new *episode*, and an episode is a sequence of
its own: what lies before a cut cannot touch what lies after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unrolled.engines.ragged import Ragged
from unrolled.engines.sweep import States, Sweep

Run = Callable[[Tensor, list[int], States, dict[str, Tensor]], tuple[Tensor, States]]
"""tokens [total, I], batch sizes falling, initial states -> outputs [total, P], final states."""


def run_packed(sweep: Sweep, run: Run) -> tuple[Tensor, States]:
    """Run a sweep by a function for packed batches."""
    if sweep.ragged.dense:
        return _run_dense(sweep, run)
    plans = sweep.ragged.plans
    if sweep.reverse not in plans:
        plans[sweep.reverse] = make_plan(sweep.ragged, sweep.reverse)
    plan: Plan = plans[sweep.reverse]
    if sweep.ragged.resets is None or sweep.transformed:
        return _run_plan(plan, sweep, run)
    result = _run_plan(plan, sweep, run)
    if all(_finite(tensor) for tensor in (sweep.values, *sweep.states, result[0])):
        return result
    return _run_live(plan, sweep, run)


def _run_dense(sweep: Sweep, run: Run) -> tuple[Tensor, States]:
    T, N = sweep.ragged.T, sweep.ragged.N
    batch_major = sweep.ragged.major == "batch"
    tokens = sweep.values
    if batch_major:
        tokens = tokens.unflatten(0, (N, T)).transpose(0, 1).flatten(0, 1)
    if sweep.reverse:
        tokens = tokens.unflatten(0, (T, N)).flip(0).flatten(0, 1)
    outputs, final = run(tokens, [N] * T, sweep.states, sweep.parameters)
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

    ragged: Ragged
    reverse: bool
    episodes: Episodes
    batch_sizes: list[int]
    row: Tensor  # [total] row of each token, step by step
    episode: Tensor  # [total] episode of each token
    initial: Tensor  # [E] into [states, reset states]: what the episode starts from
    final: Tensor  # [N] into [ends of episodes, states]: what the sequence ends in

    def keep(self, live: Tensor) -> "Plan":
        """The same for some of the episodes [E] bool."""
        e = self.episodes
        return _plan(self.ragged, self.reverse, Episodes(e.n[live], e.start[live], e.length[live]))


def make_plan(ragged: Ragged, reverse: bool) -> Plan:
    """Find the episodes of a ragged batch and the order in which to run them."""
    T, N = ragged.T, ragged.N
    lengths = torch.full((N,), T) if ragged.lengths is None else ragged.lengths
    begins = torch.zeros(N, T, dtype=torch.bool)
    if ragged.resets is not None:
        begins |= ragged.resets.t().cpu()
    begins[:, 0] = True
    begins &= torch.arange(T) < lengths[:, None]
    n, start = begins.nonzero(as_tuple=True)
    stop = torch.cat([start[1:], start.new_zeros(1)])[: len(start)]
    last = torch.cat([n[1:] != n[:-1], torch.ones(1, dtype=torch.bool)])[: len(n)]
    length = torch.where(last, lengths[n], stop) - start
    order = length.argsort(descending=True, stable=True)
    return _plan(ragged, reverse, Episodes(n[order], start[order], length[order]))


def _plan(ragged: Ragged, reverse: bool, episodes: Episodes) -> Plan:
    N, E = ragged.N, len(episodes.n)
    lengths = torch.full((N,), ragged.T) if ragged.lengths is None else ragged.lengths
    steps = torch.arange(int(episodes.length.max()) if E else 0)
    active = steps[:, None] < episodes.length
    step, episode = active.nonzero(as_tuple=True)
    start, length, n = episodes.start, episodes.length, episodes.n
    t = start[episode] + (length[episode] - 1 - step if reverse else step)
    off_t, off_n = ragged.offsets()
    head, tail = start == 0, start + length == lengths[n]
    opens, closes = (tail, head) if reverse else (head, tail)
    if ragged.resets is not None and not reverse:
        opens = opens & ~ragged.resets[0].cpu()[n]
    final = torch.arange(N) + E
    final[n[closes]] = torch.arange(E)[closes]
    return Plan(
        ragged=ragged,
        reverse=reverse,
        episodes=episodes,
        batch_sizes=active.sum(1).tolist(),
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
    if not plan.batch_sizes:
        width = sweep.sizes.resolve(sweep.cell.state_widths(sweep.sizes)[0])
        return sweep.values.new_zeros(sweep.ragged.rows, width), sweep.states
    outputs, ends = run(
        sweep.values.index_select(0, row), plan.batch_sizes, starts, sweep.parameters
    )
    padded = outputs.new_zeros(sweep.ragged.rows, outputs.shape[1]).index_copy(0, row, outputs)
    states = tuple(
        torch.cat([end, state]).index_select(0, final)
        for end, state in zip(ends, sweep.states, strict=True)
    )
    return padded, states


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _run_live(plan: Plan, sweep: Sweep, run: Run) -> tuple[Tensor, States]:
    """As :func:`_run_plan`; backward leaves out the episodes that no gradient reaches.

    Zero times NaN is NaN: autograd would carry the NaN of a finished episode into the gradients of
    weights although nothing depends on it. So backward selects, by running the live ones again.
    """
    names = list(sweep.parameters)
    resets = sweep.reset_states or ()
    count = len(sweep.states)
    tensors = (sweep.values, *sweep.states, *resets, *sweep.parameters.values())
    settings = vars(sweep.cell).values()
    hidden = [p for m in settings if isinstance(m, torch.nn.Module) for p in m.parameters()]
    tensors = (*tensors, *hidden)  # named so that autograd knows them; the cell holds them itself

    def again(plan: Plan, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        cuts = [0, 1, 1 + count, 1 + count + len(resets), len(tensors) - len(hidden)]
        (values,), states, resets_, weights = (tensors[a:b] for a, b in pairwise(cuts))
        part = Sweep(
            sweep.cell,
            sweep.sizes,
            sweep.ragged,
            sweep.reverse,
            values,
            states,
            dict(zip(names, weights, strict=True)),
            resets_ or None,
        )
        outputs, final = _run_plan(plan, part, run)
        return outputs, *final

    outputs, *final = _Live.apply(plan, again, *tensors)
    return outputs, tuple(final)


class _Live(torch.autograd.Function):
    """Backward of a plan's run, over the episodes whose outputs or ends have a gradient."""

    @staticmethod
    def forward(ctx, plan, again, *tensors):  # type: ignore[no-untyped-def]
        ctx.plan, ctx.again = plan, again
        ctx.save_for_backward(*tensors)
        return again(plan, tensors)

    @staticmethod
    def backward(ctx, *grads):  # type: ignore[no-untyped-def]
        plan, tensors = ctx.plan, ctx.saved_tensors
        live = torch.zeros(len(plan.episodes.n) + plan.ragged.N, dtype=torch.bool)
        reached = grads[0].ne(0).any(1).cpu()[plan.row]
        live[plan.episode[reached]] = True
        for grad in grads[1:]:
            live[plan.final[grad.ne(0).any(1).cpu()]] = True
        needs = ctx.needs_input_grad[2:]
        wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
        with torch.enable_grad():
            results = ctx.again(plan.keep(live[: len(plan.episodes.n)]), tensors)
        reached = [pair for pair in zip(results, grads, strict=True) if pair[0].requires_grad]
        if not reached:
            return None, None, *(None for _ in needs)
        ends, slopes = zip(*reached, strict=True)
        found = iter(
            torch.autograd.grad(
                ends, wanted, slopes, create_graph=torch.is_grad_enabled(), allow_unused=True
            )
        )
        return None, None, *(next(found) if need else None for need in needs)
