"""The graph of a module's forward, by ``torch.fx``. The module is as it was afterwards, and each
node knows the line of the user's code that it comes from."""

import collections
import linecache
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import Variable
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from typing_extensions import override

from unrolled.export.parts import hint_at, is_known
from unrolled.nn import RecurrentCell
from unrolled.nn.snapshot import ExportError

__all__ = ["place_of", "trace", "unchanged"]

_lock = threading.Lock()
"""Held while functions of torch are replaced: of two threads one would restore the other's."""
_PACKING = (pack_padded_sequence, pad_packed_sequence)
LONGEST = 80
"""Letters of a line that a message shows."""
_CURES = {
    "control flow": "a branch or loop that depends on the input cannot be exported",
    "len": "an input has no len() while it is followed; x.size(0) is the same",
    "cannot be iterated": "a loop over the steps cannot be exported; a layer has the loop",
    "failed to unpack": "a size that depends on the input is not taken here; torch.zeros and "
    "x.new_zeros take it",
}
"""What to do about an error while the code runs on a recorder, by words of its message."""


def trace(module: nn.Module, given: dict[str, Any] | None = None) -> fx.Graph:
    """What a module computes of its inputs; with ``given``, some of them have these values.

    Raises:
        ExportError: its code cannot run without numbers; the message has the line.
    """
    if isinstance(module, fx.GraphModule):
        return module.graph
    try:
        with _recorded_functions(module):
            return _Tracer().trace(module, given)
    except Exception as error:  # whatever the module's own code raises on a recorder
        name = type(module).__name__
        told = next((cure for words, cure in _CURES.items() if words in str(error)), str(error))
        frames = [one for one, _ in traceback.walk_tb(error.__traceback__) if _is_user(one)]
        lines = {id(frame): line for frame, line in traceback.walk_tb(error.__traceback__)}
        place = _place(frames[-1], lines[id(frames[-1])]) if frames else ""
        told = told.strip().replace("\n", " ")
        raise ExportError(f"{name}: cannot be followed{place} ({told}){hint_at(module)}") from error


def place_of(node: fx.Node) -> str | None:
    """Where in the user's code a node comes from: module, file, line number and the line."""
    return node.meta.get("place")


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """A module in evaluation. Afterwards all attributes, buffers, lists and training flags of it
    and its parts are what they were, and torch's random numbers go on where they were."""
    modules = list(module.modules())
    attributes = [(vars(one), dict(vars(one))) for one in modules]
    containers: dict[int, tuple[Any, Any]] = {}
    for _, values in attributes:
        for value in values.values():
            _note(value, containers)
    tensors = [(one, one.clone()) for _, values in attributes for one in _tensors(values)]
    try:
        with torch.random.fork_rng(devices=[]):
            module.eval()
            yield
    finally:
        for live, values in attributes:
            live.clear()
            live.update(values)
        for container, content in containers.values():
            container.clear()
            (container.update if isinstance(content, dict | set) else container.extend)(content)
        for tensor, numbers in tensors:
            if not torch.equal(tensor, numbers):
                tensor.copy_(numbers)


def _note(value: Any, containers: dict[int, tuple[Any, Any]]) -> None:
    """Remember the contents of lists, dictionaries and sets, and of those in them."""
    plain = (list, dict, set, collections.OrderedDict, collections.deque)
    if type(value) not in plain or id(value) in containers:
        return
    containers[id(value)] = (value, value.copy())
    for one in list(value.values() if isinstance(value, dict) else value):
        _note(one, containers)


def _tensors(values: dict[str, Any]) -> list[Tensor]:
    """Buffers, and tensors that are plain attributes."""
    buffers = [*values.get("_buffers", {}).values(), *values.values()]
    return [one for one in buffers if type(one) is Tensor and not one.requires_grad]


class _Tracer(fx.Tracer):
    """Our layers and what is known are parts; the rest is followed."""

    @override
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            isinstance(m, RecurrentCell)
            or is_known(m)
            or super().is_leaf_module(m, module_qualified_name)
        )

    @override
    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not _is_user(frame):
            frame = frame.f_back
        if frame is not None and node.op not in ("placeholder", "output"):
            path = [type(self.root).__name__, self._enclosing(node)]
            node.meta["place"] = ".".join(filter(None, path)) + _place(frame, frame.f_lineno)
        return node

    def _enclosing(self, node: fx.Node) -> str:
        """The path of the module whose forward runs."""
        path = str(next(reversed(self.module_stack.values()), ("",))[0])
        return path.rpartition(".")[0] if node.op == "call_module" else path


def _is_user(frame: FrameType) -> bool:
    room = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return room not in ("torch", "unrolled", "contextlib") and bool(
        linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    )


def _place(frame: FrameType, line: int) -> str:
    file = frame.f_code.co_filename
    code = linecache.getline(file, line).strip()
    return f" at {file}:{line}, `{code if len(code) <= LONGEST else code[:LONGEST] + '…'}`"


@contextmanager
def _recorded_functions(module: nn.Module) -> Iterator[None]:
    """Functions that do not take what a recorder gives by themselves: sizes that come first,
    packing of sequences, and ``Variable``."""
    with _lock:
        originals: list[Any] = [torch.zeros, torch.ones, torch.full, *_PACKING]
        wrapped = {id(one): _recorded(one) for one in originals}
        rooms = [vars(torch), vars(rnn), *(_globals(one) for one in module.modules())]
        changed = [
            (room, name, value)
            for room in {id(one): one for one in rooms}.values()
            for name, value in list(room.items())
            if id(value) in wrapped
        ]
        new = Variable.__new__

        def variable(kind: Any, data: Any = None, *args: Any, **kwargs: Any) -> Any:
            return data if isinstance(data, fx.Proxy) else new(kind, data, *args, **kwargs)

        try:
            for room, name, value in changed:
                room[name] = wrapped[id(value)]
            Variable.__new__ = variable  # type: ignore[method-assign, assignment]
            yield
        finally:
            for room, name, value in changed:
                room[name] = value
            del Variable.__new__


def _globals(module: nn.Module) -> dict[str, Any]:
    return getattr(type(module).forward, "__globals__", {})


def _recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that becomes one node, where it is called on a recorder's values."""

    def call(*args: Any, **kwargs: Any) -> Any:
        proxy = next(_proxies((args, tuple(kwargs.values()))), None)
        if proxy is None:
            return function(*args, **kwargs)
        return proxy.tracer.create_proxy("call_function", function, args, kwargs)

    return call


def _proxies(values: Any) -> Iterator[fx.Proxy]:
    """What of nested tuples and lists a recorder gave."""
    if isinstance(values, fx.Proxy):
        yield values
    elif isinstance(values, tuple | list):
        for one in values:
            yield from _proxies(one)
