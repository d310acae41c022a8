"""Bounds the work of a call by counting it, so that a busy machine changes nothing: calls of
functions by Python code, and elements of the tensors that torch computes."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

__all__ = ["WorkExceededError", "bounded_work"]


class WorkExceededError(BaseException):
    """More work than allowed. Not an ``Exception``, so that no code under test handles it."""


class Work:
    """The work so far."""

    def __init__(self, max_calls: int, max_elements: int) -> None:
        self.calls = self.elements = 0
        self.max_calls, self.max_elements = max_calls, max_elements

    def count_call(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.calls += 1
            if self.calls > self.max_calls:
                raise WorkExceededError(f"more than {self.max_calls} calls of functions")

    def count_elements(self, count: int) -> None:
        self.elements += count
        if self.elements > self.max_elements:
            raise WorkExceededError(f"more than {self.max_elements} elements of tensors")


class _CountElements(TorchDispatchMode):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    @override
    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        tensors = [
            leaf
            for leaf in tree_leaves(result)
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta"
        ]
        self.work.count_elements(sum(tensor.numel() for tensor in tensors))
        return result


@contextmanager
def bounded_work(max_calls: int, max_elements: int) -> Iterator[Work]:
    """Raises a ``WorkExceededError`` where the code within works more than this."""
    work = Work(max_calls, max_elements)
    previous = sys.getprofile()
    try:
        with _CountElements(work):
            sys.setprofile(work.count_call)
            yield work
    finally:
        sys.setprofile(previous)
