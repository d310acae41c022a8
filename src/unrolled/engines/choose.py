"""All engines: which one runs a sweep, why, and how to force one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch

from unrolled.engines import aten, reference
from unrolled.engines.native import engine as native
from unrolled.engines.records import forced_engine
from unrolled.engines.request import Engine, Sweep

ENGINES: dict[str, Engine] = {
    "native": cast(Engine, native),
    "aten": cast(Engine, aten),
    "reference": cast(Engine, reference),
}
"""All engines by name, the preferred first."""


@dataclass(frozen=True)
class Explanation:
    """The engine that runs a call, and what speaks against each one (None: nothing)."""

    engine: str
    forced: bool
    refusals: dict[str, str | None]

    def __str__(self) -> str:
        lines = [f"engine: {self.engine}" + (" (forced)" if self.forced else "")]
        for name, why in self.refusals.items():
            lines.append(f"  {name}: {why or 'can run this'}")
        return "\n".join(lines)


def choose(sweep: Sweep) -> Engine:
    """The first engine that can run this sweep, or the forced one; in a graph, where no context is
    seen, aten off the CPU, else the reference: on it, programs are operators (``graph``).

    Raises:
        RuntimeError: the forced engine cannot run it; the message has its reason.
    """
    if torch.compiler.is_compiling():
        fused = sweep.values.device.type != "cpu" and aten.supports(sweep) is None
        return ENGINES["aten" if fused else "reference"]
    forced = forced_engine.get()
    if forced is not None:
        why = ENGINES[forced].supports(sweep)
        if why is not None:
            raise RuntimeError(f"engine {forced!r} is forced but cannot run this: {why}")
        return ENGINES[forced]
    return next(engine for engine in ENGINES.values() if engine.supports(sweep) is None)


def explain(layer: Any, input: Any, hx: Any = None, **options: Any) -> Explanation:
    """Why a layer called in this way runs on the engine that it runs on.

    Takes what the layer's ``forward`` takes, and raises what it would raise.

    Raises:
        TypeError: it is no layer or cell of ``unrolled.nn``.
    """
    if not hasattr(type(layer), "first_sweep"):
        cls = layer if isinstance(layer, type) else type(layer)
        kind = f"{cls.__module__}.{cls.__name__}".replace("modules.rnn.", "")
        raise TypeError(
            "explain: layer must be a layer or cell of unrolled.nn, got "
            f"{'the class ' * (cls is layer)}{kind}; unrolled.nn.convert(model) makes torch.nn's "
            "layers ours"
        )
    sweep = layer.first_sweep(input, hx, **options)
    refusals = {name: engine.supports(sweep) for name, engine in ENGINES.items()}
    return Explanation(choose(sweep).name, forced_engine.get() is not None, refusals)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Force one engine by name within a ``with`` block (of this thread or task).

    Raises:
        ValueError: there is no engine of that name.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}, got {name!r}")
    token = forced_engine.set(name)
    try:
        yield
    finally:
        forced_engine.reset(token)
