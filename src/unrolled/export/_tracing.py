"""Traces a module's forward by ``torch.fx``, without changing the module. Each node of the graph
records the line of the user's code that it comes from."""

import collections
import linecache
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.autograd import Variable
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from typing_extensions import override

from unrolled.export._known_modules import is_known, unknown_module_hint
from unrolled.nn import RecurrentCell
from unrolled.nn._snapshot import ExportError

R = TypeVar("R")
_lock = threading.Lock()
"""Held while functions of torch are replaced, so that no second thread takes a replacement for an
original."""
_MAX_LINE = 80
"""The maximum number of characters of a line of code in a message."""
_ADVICE = {
    "control flow": "a branch or loop that depends on the input cannot be exported",
    "len": "len() of an input is not known while tracing; use x.size(0)",
    "cannot be iterated": "a loop over the steps cannot be exported; use a layer, which contains "
    "the loop",
    "failed to unpack": "a size that depends on the input cannot be used here; torch.zeros and "
    "x.new_zeros accept it",
}
"""Advice for errors during tracing, by words of their message."""


def trace(module: nn.Module, inputs: dict[str, object] | None = None) -> fx.Graph:
    """Trace a module's forward.

    Args:
        inputs: values for some of the module's inputs.

    Raises:
        ExportError: the code needs the values of the input; the message has the line.
    """
    if isinstance(module, fx.GraphModule):
        return module.graph
    try:
        with _traceable_functions(module):
            return _Tracer().trace(module, inputs)
    except Exception as error:  # the module's code may raise anything while it is traced
        fault = next(
            (advice for words, advice in _ADVICE.items() if words in str(error)), str(error)
        )
        fault = fault.strip().replace("\n", " ")
        user_frames = [
            (frame, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if _is_user_code(frame)
        ]
        source = _line_of(*user_frames[-1]) if user_frames else ""
        raise ExportError(
            f"{type(module).__name__}: forward cannot be traced{source} "
            f"({fault}){unknown_module_hint(module)}"
        ) from error


def source_of(node: fx.Node) -> str | None:
    """The origin of a node in the user's code: module, file, line number and line."""
    source = node.meta.get("source")
    return source if isinstance(source, str) else None


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode; afterwards restore the attributes, buffers, lists and
    training flags of it and its children, and the state of torch's random number generator."""
    modules = list(module.modules())
    attributes = [(vars(child), dict(vars(child))) for child in modules]
    containers = _Containers()
    for _, values in attributes:
        for value in values.values():
            containers.record(value)
    tensors = [(tensor, tensor.clone()) for _, values in attributes for tensor in _tensors(values)]
    try:
        with torch.random.fork_rng(devices=[]):
            module.eval()
            yield
    finally:
        for live, values in attributes:
            live.clear()
            live.update(values)
        containers.restore()
        for tensor, numbers in tensors:
            if not torch.equal(tensor, numbers):
                tensor.copy_(numbers)


class _Containers:
    """Saves and restores the contents of nested lists, dictionaries and sets."""

    def __init__(self) -> None:
        self._recorded: set[int] = set()
        self._restores: list[Callable[[], None]] = []

    def record(self, value: object) -> None:
        if id(value) in self._recorded:
            return
        if type(value) in (dict, collections.OrderedDict):
            assert isinstance(value, dict)
            self._add(value, value.clear, value.update, value.copy())
            children = list(value.values())
        elif type(value) is set:
            self._add(value, value.clear, value.update, value.copy())
            children = list(value)
        elif type(value) in (list, collections.deque):
            assert isinstance(value, list | collections.deque)
            self._add(value, value.clear, value.extend, value.copy())
            children = list(value)
        else:
            return
        for child in children:
            self.record(child)

    def _add(
        self, container: object, clear: Callable[[], None], fill: Callable[[R], None], content: R
    ) -> None:
        self._recorded.add(id(container))

        def restore() -> None:
            clear()
            fill(content)

        self._restores.append(restore)

    def restore(self) -> None:
        for restore in self._restores:
            restore()


def _tensors(values: Mapping[str, object]) -> list[Tensor]:
    """Buffers, and tensors that are plain attributes."""
    buffers = values.get("_buffers", {})
    candidates = [*(buffers.values() if isinstance(buffers, dict) else ()), *values.values()]
    return [
        value
        for value in candidates
        if isinstance(value, Tensor) and type(value) is Tensor and not value.requires_grad
    ]


class _Tracer(fx.Tracer):
    """A tracer for which layers and known modules are leaves; all other modules are traced."""

    @override
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            isinstance(m, RecurrentCell)
            or is_known(m)
            or super().is_leaf_module(m, module_qualified_name)
        )

    @override
    def create_node(
        self,
        kind: str,
        target: fx.node.Target,
        args: tuple[fx.node.Argument, ...],
        kwargs: dict[str, fx.node.Argument],
        name: str | None = None,
        type_expr: object = None,
    ) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not _is_user_code(frame):
            frame = frame.f_back
        if frame is not None and node.op not in ("placeholder", "output"):
            path = [type(self.root).__name__, self._enclosing_path(node)]
            source = ".".join(filter(None, path)) + _line_of(frame, frame.f_lineno)
            node.meta["source"] = source
        return node

    def _enclosing_path(self, node: fx.Node) -> str:
        """The path of the module whose forward is running."""
        path = str(next(reversed(self.module_stack.values()), ("",))[0])
        return path.rpartition(".")[0] if node.op == "call_module" else path


def _is_user_code(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package not in ("torch", "unrolled", "contextlib") and bool(
        linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    )


def _line_of(frame: FrameType, line: int) -> str:
    file = frame.f_code.co_filename
    code = linecache.getline(file, line).strip()
    return f" at {file}:{line}, `{code if len(code) <= _MAX_LINE else code[:_MAX_LINE] + '…'}`"


@contextmanager
def _traceable_functions(module: nn.Module) -> Iterator[None]:
    """Replace functions that fail on proxies: those that create tensors from sizes, those that pack
    sequences, and ``Variable``."""
    with _lock:
        originals: list[Callable[..., object]] = [
            torch.zeros, torch.ones, torch.full, pack_padded_sequence, pad_packed_sequence
        ]  # fmt: skip
        replacements = {id(function): _traceable(function) for function in originals}
        namespaces = [vars(torch), vars(rnn), *(_globals_of(child) for child in module.modules())]
        replaced = [
            (namespace, name, value)
            for namespace in {id(names): names for names in namespaces}.values()
            for name, value in list(namespace.items())
            if id(value) in replacements
        ]
        new = Variable.__new__

        def variable(cls: type, data: object = None, *args: object, **kwargs: object) -> object:
            return data if isinstance(data, fx.Proxy) else new(cls, data, *args, **kwargs)

        try:
            for namespace, name, value in replaced:
                namespace[name] = replacements[id(value)]
            Variable.__new__ = variable  # type: ignore[method-assign, assignment]
            yield
        finally:
            for namespace, name, value in replaced:
                namespace[name] = value
            del Variable.__new__


def _globals_of(module: nn.Module) -> dict[str, object]:
    return getattr(type(module).forward, "__globals__", {})


def _traceable(function: Callable[..., R]) -> Callable[..., R | fx.Proxy]:
    """A function that becomes one node when it is called on proxies."""

    def call(*args: object, **kwargs: object) -> R | fx.Proxy:
        proxy = next(_proxies((args, tuple(kwargs.values()))), None)
        if proxy is None:
            return function(*args, **kwargs)
        return proxy.tracer.create_proxy("call_function", function, args, kwargs)

    return call


def _proxies(values: object) -> Iterator[fx.Proxy]:
    """The proxies in nested tuples and lists."""
    if isinstance(values, fx.Proxy):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _proxies(value)
