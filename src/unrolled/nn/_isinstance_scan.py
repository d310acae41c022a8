"""Type checks in a model's source: which modules test layers against torch's recurrent classes."""

import ast
import builtins
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from types import ModuleType
from typing import get_args

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
class TypeCheck:
    """An expression that tests for one of torch's recurrent classes.

    ``file`` is the base name. ``exact`` is true for ``type(x) is nn.LSTM`` and similar expressions,
    which are false for subclasses.
    """

    file: str
    line: int
    text: str
    exact: bool

    def __str__(self) -> str:
        exact = ", which only torch's own layer satisfies" if self.exact else ""
        return f"{self.file}:{self.line}: {self.text}{exact}"


def find_type_checks(model: nn.Module) -> dict[str, tuple[TypeCheck, ...]]:
    """The type checks in each module's class and its base classes, by the module's name.

    Classes of torch and of this library, and classes without source, are skipped. Functions outside
    of classes are not searched.
    """
    by_class: dict[type, tuple[TypeCheck, ...]] = {}
    by_module: dict[str, tuple[TypeCheck, ...]] = {}
    for name, module in model.named_modules():
        checks: tuple[TypeCheck, ...] = ()
        for cls in type(module).__mro__:
            if cls not in by_class:
                library = cls.__module__.partition(".")[0] in ("torch", "unrolled", "builtins")
                by_class[cls] = () if library else _scan(cls)
            checks += by_class[cls]
        if checks:
            by_module[name] = checks
    return by_module


def _scan(cls: type) -> tuple[TypeCheck, ...]:
    try:
        lines, start = inspect.getsourcelines(cls)
        file = Path(inspect.getfile(cls)).name
        # A class within a function is indented: it needs a block around it.
        indented = lines[0][0].isspace()
        tree = ast.parse("if True:\n" * indented + "".join(lines))
    except (OSError, TypeError, SyntaxError, TokenError):
        return ()
    namespace = {**vars(builtins), **vars(sys.modules.get(cls.__module__, builtins))}
    namespace |= {"self": cls, "cls": cls}
    checks = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.pattern):
            continue
        classes, exact = _tested_classes(node)
        if any(_names_torch_class(expression, namespace) for expression in classes):
            text = "case " * isinstance(node, ast.pattern) + ast.unparse(node)
            checks.append(TypeCheck(file, start - 1 - indented + node.lineno, text, exact))
    return tuple(sorted(checks, key=lambda check: check.line))


def _tested_classes(node: ast.AST) -> tuple[list[ast.expr], bool]:
    """The classes that an expression tests for, and whether the test excludes subclasses."""
    match node:
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, classes]):
            return [classes], False
        case ast.MatchClass(cls=pattern_class):
            return [pattern_class], False
        case ast.Compare(left=left, comparators=comparators):
            sides = [left, *comparators]
            return (sides, True) if any(map(_is_type_of, sides)) else ([], True)
    return [], False


def _is_type_of(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="type"), args=[_]) | ast.Attribute(attr="__class__"):
            return True
    return False


def _names_torch_class(node: ast.expr, namespace: dict[str, object]) -> bool:
    """Whether an expression for classes holds one of torch's."""
    match node:
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return any(_names_torch_class(item, namespace) for item in items)
        case ast.BinOp(left=left, right=right):
            return _names_torch_class(left, namespace) or _names_torch_class(right, namespace)
        case ast.Starred(value=item):
            return _names_torch_class(item, namespace)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            value = _value(node, namespace)
            # A name that is local to a function (an import, an argument) is compared by its text.
            return name in _NAMES if value is _UNKNOWN else _contains_torch_class(value)
    return False


def _value(node: ast.expr, namespace: dict[str, object]) -> object:
    """The value of a dotted name in a module, or ``_UNKNOWN``."""
    if isinstance(node, ast.Name):
        return namespace.get(node.id, _UNKNOWN)
    if isinstance(node, ast.Attribute):
        holder = _value(node.value, namespace)
        if isinstance(holder, ModuleType | type):
            try:
                attribute: object = getattr(holder, node.attr)
            except Exception:  # a module with lazy imports may raise anything
                return _UNKNOWN
            return attribute
    return _UNKNOWN


def _contains_torch_class(value: object) -> bool:
    value = get_args(value) or value  # of a union
    if isinstance(value, tuple | list | set | frozenset):
        return any(map(_contains_torch_class, value))
    return any(value is cls for cls in _CLASSES)
