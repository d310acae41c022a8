"""The context variables of a call: which engine is forced, and records of the engines that run."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

forced_engine: ContextVar[str | None] = ContextVar("forced engine", default=None)
open_records: ContextVar[tuple[list[str], ...]] = ContextVar("records of engines", default=())


@contextmanager
def record() -> Iterator[list[str]]:
    """Collect the names of the engines that run within a ``with`` block, one for each sweep."""
    names: list[str] = []
    token = open_records.set((*open_records.get(), names))
    try:
        yield names
    finally:
        open_records.reset(token)


def record_run(engine: str) -> None:
    """Add the name of an engine that runs to all open records, except in a graph."""
    if torch.compiler.is_compiling():
        return
    for names in open_records.get():
        names.append(engine)


def is_allowed(engine: str) -> bool:
    """Whether this engine may run: no other engine is forced."""
    return forced_engine.get() in (None, engine)


def is_unforced() -> bool:
    """Whether the library chooses the engine; false in a graph, which reads no context
    variables."""
    return not torch.compiler.is_compiling() and forced_engine.get() is None
