"""All engines: which one runs a sweep, why, and how to force one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from unrolled.engines._aten import AtenEngine
from unrolled.engines._checkpoint import run_in_segments
from unrolled.engines._native.engine import NativeEngine
from unrolled.engines._precision import States, autocast_dtype
from unrolled.engines._records import forced_engine, is_unforced, record_run
from unrolled.engines._reference import ReferenceEngine
from unrolled.engines._reference_warning import warn_of_reference
from unrolled.engines._request import Cache, Engine, Sweep

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (NativeEngine(), AtenEngine(), ReferenceEngine())
}
"""All engines by name, in order of preference."""


@dataclass(frozen=True)
class Explanation:
    """The engine that runs a call, its arithmetic, and why each engine cannot run it (None: it
    can)."""

    engine: str
    forced: bool
    refusals: dict[str, str | None]
    arithmetic: str
    """Such as "float32 (build avx2)" or "products in bfloat16, sums in float32 (build avx512bf16)":
    numbers in half precision are only stored in it."""

    def __str__(self) -> str:
        lines = [f"engine: {self.engine}" + (" (forced)" if self.forced else "")]
        lines.append(f"arithmetic: {self.arithmetic}")
        lines += [
            f"  {name}: {refusal or 'can run this'}" for name, refusal in self.refusals.items()
        ]
        return "\n".join(lines)


class _Layer(Protocol):
    """A layer or cell of ``unrolled.nn``."""

    def first_sweep(self, input: object, hx: object, **options: object) -> Sweep: ...


def choose(sweep: Sweep) -> Engine:
    """The first engine that can run this sweep, or the forced one.

    In a graph of torch.compile, where context variables cannot be read, it is aten on devices other
    than the CPU, else the reference.

    Raises:
        RuntimeError: the forced engine cannot run the sweep; the message has the reason.
    """
    if torch.compiler.is_compiling():
        aten = ENGINES["aten"]
        is_fused = sweep.tokens.device.type != "cpu" and aten.supports(sweep) is None
        return aten if is_fused else ENGINES["reference"]
    forced = forced_engine.get()
    if forced is not None:
        refusal = ENGINES[forced].supports(sweep)
        if refusal is not None:
            raise RuntimeError(f"engine {forced!r} is forced but cannot run this: {refusal}")
        return ENGINES[forced]
    return next(engine for engine in ENGINES.values() if engine.supports(sweep) is None)


def run_on_chosen(
    checkpoint: int | bool, caches: Sequence[dict[str, Cache]] | None, index: int, sweep: Sweep
) -> tuple[Tensor, States]:
    """Run a sweep on the engine that ``choose`` returns; in segments with ``checkpoint``.
    ``caches`` as in ``Sweep``, for each sweep of the layer."""
    if caches is not None:
        sweep = replace(sweep, caches=caches[index])
    engine = choose(sweep)
    record_run(engine.name)
    if engine.name == "reference" and is_unforced():
        warn_of_reference(sweep)
    if autocast_dtype(sweep.tokens) is None:
        return _run(engine, sweep, checkpoint)
    # The sweep is cast already; inside the engine the state stays in float32.
    with torch.autocast(sweep.tokens.device.type, enabled=False):
        return _run(engine, sweep, checkpoint)


def _run(engine: Engine, sweep: Sweep, checkpoint: int | bool) -> tuple[Tensor, States]:
    return run_in_segments(engine, sweep, checkpoint) if checkpoint else engine.run(sweep)


def explain(layer: _Layer, input: object, hx: object = None, **options: object) -> Explanation:
    """Say which engine runs a call of a layer, and why.

    Takes the arguments of the layer's ``forward``, and raises the same errors.

    Raises:
        TypeError: ``layer`` is not a layer or cell of ``unrolled.nn``.
    """
    if not hasattr(type(layer), "first_sweep"):
        cls = layer if isinstance(layer, type) else type(layer)
        name = f"{cls.__module__}.{cls.__name__}".replace("modules.rnn.", "")
        raise TypeError(
            "explain: layer must be a layer or cell of unrolled.nn, got "
            f"{'the class ' * (cls is layer)}{name}; unrolled.nn.convert(model) makes torch.nn's "
            "layers ours"
        )
    sweep = layer.first_sweep(input, hx, **options)
    refusals = {name: engine.supports(sweep) for name, engine in ENGINES.items()}
    engine = choose(sweep)
    is_forced = forced_engine.get() is not None
    return Explanation(engine.name, is_forced, refusals, engine.arithmetic(sweep))


@contextmanager
def use(name: str) -> Iterator[None]:
    """Force the engine of this name within a ``with`` block, for this thread or task.

    Raises:
        ValueError: there is no engine of that name.
    """
    if name not in ENGINES:
        names = ", ".join(map(repr, ENGINES))
        raise ValueError(f"use: name must be one of {names}, got {name!r}")
    token = forced_engine.set(name)
    try:
        yield
    finally:
        forced_engine.reset(token)
