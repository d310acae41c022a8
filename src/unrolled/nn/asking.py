"""Which modules of a model ask whether a layer is torch's: the source of their classes says it."""

import ast
import builtins
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from types import ModuleType
from typing import Any, get_args

from torch import nn

_CLASSES = (
    nn.RNNBase,
    nn.RNN,
    nn.LSTM,
    nn.GRU,
    nn.RNNCellBase,
    nn.RNNCell,
    nn.LSTMCell,
    nn.GRUCell,
)
_NAMES = {cls.__name__ for cls in _CLASSES}
_UNKNOWN = object()


@dataclass(frozen=True)
class Ask:
    """An expression that asks for one of torch's recurrent classes.

    ``file`` is the base name. ``exact``: it wants the type itself, as ``type(x) is nn.LSTM`` does,
    which no subclass is.
    """

    file: str
    line: int
    text: str
    exact: bool

    def __str__(self) -> str:
        exact = ", which only torch's own layer is" if self.exact else ""
        return f"{self.file}:{self.line}: {self.text}{exact}"


def find_asks(model: nn.Module) -> dict[str, tuple[Ask, ...]]:
    """What each module's class and those that it inherits from ask, by the module's name.

    torch's classes and ours are not read, nor those whose source cannot be had. Functions outside
    of classes are not seen.
    """
    read: dict[type, tuple[Ask, ...]] = {}
    asking = {}
    for name, module in model.named_modules():
        found: tuple[Ask, ...] = ()
        for cls in type(module).__mro__:
            if cls not in read:
                known = cls.__module__.partition(".")[0] in ("torch", "unrolled", "builtins")
                read[cls] = () if known else _read(cls)
            found += read[cls]
        if found:
            asking[name] = found
    return asking


def _read(cls: type) -> tuple[Ask, ...]:
    try:
        lines, first = inspect.getsourcelines(cls)
        file = Path(inspect.getfile(cls)).name
        # A class within a function is indented: it needs something to stand in.
        inside = lines[0][0].isspace()
        tree = ast.parse("if True:\n" * inside + "".join(lines))
    except (OSError, TypeError, SyntaxError, TokenError):
        return ()
    space = {**vars(builtins), **vars(sys.modules.get(cls.__module__, builtins))}
    space |= {"self": cls, "cls": cls}
    found = []
    for node in ast.walk(tree):
        kinds, exact = _question(node)
        if any(_is_torch(kind, space) for kind in kinds):
            text = "case " * isinstance(node, ast.pattern) + ast.unparse(node)
            found.append(Ask(file, first - 1 - inside + node.lineno, text, exact))  # type: ignore[attr-defined]
    return tuple(sorted(found, key=lambda ask: ask.line))


def _question(node: ast.AST) -> tuple[list[ast.expr], bool]:
    """The classes that an expression asks for, and whether it wants the type itself."""
    match node:
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]):
            return [kinds], False
        case ast.MatchClass(cls=kind):
            return [kind], False
        case ast.Compare(left=left, comparators=others):
            sides = [left, *others]
            return (sides, True) if any(map(_is_type_of, sides)) else ([], True)
    return [], False


def _is_type_of(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="type"), args=[_]) | ast.Attribute(attr="__class__"):
            return True
    return False


def _is_torch(node: ast.expr, space: dict[str, Any]) -> bool:
    """Whether an expression for classes holds one of torch's."""
    match node:
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(_is_torch(part, space) for part in parts)
        case ast.BinOp(left=left, right=right):
            return _is_torch(left, space) or _is_torch(right, space)
        case ast.Starred(value=part):
            return _is_torch(part, space)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            value = _value(node, space)
            # What only a function knows, an import or an argument, is taken by its name.
            return name in _NAMES if value is _UNKNOWN else _holds_torch(value)
    return False


def _value(node: ast.expr, space: dict[str, Any]) -> Any:
    """What a dotted name stands for in a module, or ``_UNKNOWN``."""
    if isinstance(node, ast.Name):
        return space.get(node.id, _UNKNOWN)
    if isinstance(node, ast.Attribute):
        holder = _value(node.value, space)
        if isinstance(holder, ModuleType | type):
            try:
                return getattr(holder, node.attr)
            except Exception:  # a module that imports on demand may raise anything
                return _UNKNOWN
    return _UNKNOWN


def _holds_torch(value: Any) -> bool:
    value = get_args(value) or value  # of a union
    if isinstance(value, tuple | list | set | frozenset):
        return any(map(_holds_torch, value))
    return any(value is cls for cls in _CLASSES)
