"""Runs the user's Python files and modules, to get the classes and objects that they define."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType


class CodeError(ValueError):
    """A file or module cannot be imported; the message says why."""


def import_by_name(name: str) -> ModuleType:
    """The module of a dotted name.

    Raises:
        CodeError: there is none, or it cannot be imported.
    """
    try:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise CodeError(f"the part before the colon must be a Python file, there is no {name}")
        return importlib.import_module(name)
    except CodeError:
        raise
    except Exception as error:
        raise CodeError(
            f"the part before the colon must be a Python file or a module, {name} cannot be "
            f"imported ({type(error).__name__}: {error})"
        ) from error


def load_python_file(path: Path) -> ModuleType:
    """The module of a file. It is run once in a process, under a name that no other module has. If
    it was imported before, or is the running script, that module is returned.

    Raises:
        CodeError: there is no such file, or it cannot be run.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, it raises nothing for names too long
        raise CodeError(f"the part before the colon must be a Python file, there is no {path}")
    name = f"unrolled code {path.resolve()}"
    if name in sys.modules:
        return sys.modules[name]
    for loaded in list(sys.modules.values()):
        file = getattr(loaded, "__file__", None)
        if isinstance(file, str) and os.path.realpath(file) == str(path.resolve()):
            return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CodeError(f"a Python file must end in .py, got {path}")
    try:
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        # A file that calls sys.exit must not end the program that runs it.
        if not isinstance(error, Exception | SystemExit):
            raise
        raise CodeError(f"{path} cannot be run ({type(error).__name__}: {error})") from error
    return module
